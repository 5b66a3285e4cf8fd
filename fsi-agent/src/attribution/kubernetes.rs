//! The Kubernetes API: the pods of this node and the namespaces are watched, persistent volumes asked for by name.
//!
//! All on one thread of its own; nobody waits for it. While the API is away, slow or refuses, what is known stays, and it is tried
//! again after a pause that grows (0.8 s to 30 s). A watch that the API has forgotten (410) begins with a new list; a pod that ended
//! meanwhile is then missing, and has ended for us, too.
//!
//! It needs: list and watch of pods and namespaces, get of persistent volumes.

use std::collections::HashSet;
use std::convert::Infallible;
use std::error::Error;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, iter, thread};

use futures_util::StreamExt as _;
use http::Response;
use k8s_openapi::api::core::v1::Namespace;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::PartialObjectMeta;
use kube::runtime::utils::Backoff as _;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client, Config};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tower::util::MapResponseLayer;

use super::claims::Claims;
use super::counters::{Counter, Counters};
use super::objects::{self, PersistentVolumeObject, PodObject};
use super::pods::Pods;
use crate::clock::monotonic_ns;

/// An API server that is not there is noticed within so long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// One that is silent for so long is not there any more: a watch is ended by the API itself before that.
const READ_TIMEOUT: Duration = Duration::from_secs(300);
/// The time that an answer about one volume may take.
const GET_TIMEOUT: Duration = Duration::from_secs(10);

/// Which API, and which node's pods.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// The name of this node in the cluster.
    pub node: String,
    /// None: as `kubectl` finds one, else that of the pod we run in.
    pub kubeconfig: Option<PathBuf>,
}

/// How it stands with one part of the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Since when it answers (`CLOCK_MONOTONIC`); none if it does not.
    pub connected_since_ns: Option<u64>,
    /// Whether everything has been listed once.
    pub listed: bool,
    /// The last thing that went wrong, also if it is over.
    pub last_error: Option<String>,
}

/// How it stands with each part of the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub pods: Link,
    pub namespaces: Link,
    pub volumes: Link,
}

impl Status {
    /// Pods are told of.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.pods.connected_since_ns.is_some()
    }
}

/// A [`Link`] that changes.
#[derive(Clone, Debug, Default)]
struct LiveLink(Arc<Mutex<Link>>);

impl LiveLink {
    fn read(&self) -> Link {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Link)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn answers(&self) {
        self.change(|link| {
            link.connected_since_ns.get_or_insert_with(monotonic_ns);
        });
    }

    fn failed(&self, error: &(dyn Error + 'static)) {
        let causes = iter::successors(Some(error as &dyn Error), |&error| error.source());
        let mut sentence = String::new();
        for cause in causes.map(ToString::to_string) {
            // Several of the errors repeat their cause.
            if !sentence.contains(&cause) {
                sentence = if sentence.is_empty() { cause } else { format!("{sentence}: {cause}") };
            }
        }
        self.change(|link| {
            // Said again when it is another error, or was over meanwhile.
            if link.connected_since_ns.is_some() || link.last_error.as_ref() != Some(&sentence) {
                tracing::warn!(error = sentence, "the Kubernetes API does not answer as it should; it is asked again");
            }
            link.connected_since_ns = None;
            link.last_error = Some(sentence);
        });
    }
}

/// What is learnt goes there.
#[derive(Clone, Debug)]
pub(super) struct Learns {
    pub(super) pods: Arc<Pods>,
    pub(super) claims: Arc<Claims>,
    pub(super) counters: Arc<Counters>,
}

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    links: [LiveLink; 3],
    over: Option<oneshot::Sender<Infallible>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watch {
    /// # Errors
    /// No thread is to be had.
    pub(super) fn start(config: Kubernetes, learns: Learns, asked: Receiver<Arc<str>>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (over, is_over) = oneshot::channel::<Infallible>();
        let links: [LiveLink; 3] = Default::default();
        let [pods, namespaces, volumes] = links.clone();
        let all = async move {
            let of_pods = watch_pods(&config, &pods, &learns);
            let of_namespaces = watch_namespaces(&config, &namespaces, &learns);
            let of_volumes = answer(&config, &volumes, &learns, asked);
            tokio::select! {
                _ = is_over => {}
                ((), (), ()) = async { tokio::join!(of_pods, of_namespaces, of_volumes) } => {}
            }
        };
        let thread = thread::Builder::new().name("fsi-kubernetes".to_owned()).spawn(move || {
            runtime.block_on(all);
            // A look-up of the server's name may hang; it is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { links, over: Some(over), thread: Some(thread) })
    }

    pub(super) fn status(&self) -> Status {
        let [pods, namespaces, volumes] = &self.links;
        Status { pods: pods.read(), namespaces: namespaces.read(), volumes: volumes.read() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            drop(thread.join());
        }
    }
}

/// A client that says on the link when it is answered. Tries until there is one: the files of a pod's own access may come later.
async fn client(config: &Kubernetes, link: &LiveLink, counters: &Counters) -> Client {
    let mut pauses = DefaultBackoff::default();
    loop {
        match try_client(config, link).await {
            Ok(client) => return client,
            Err(error) => {
                counters.add(Counter::ApiErrors, 1);
                link.failed(&*error);
            }
        }
        pause(&mut pauses).await;
    }
}

/// Longer from error to error. (The pauses of a `watcher` itself begin anew with each list that it asks for, refused or not.)
async fn pause(pauses: &mut DefaultBackoff) {
    tokio::time::sleep(pauses.next().unwrap_or(CONNECT_TIMEOUT)).await;
}

async fn try_client(config: &Kubernetes, link: &LiveLink) -> Result<Client, Box<dyn Error + Send + Sync>> {
    let mut config = match &config.kubeconfig {
        Some(path) => {
            Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    Ok(ClientBuilder::try_from(config)?.with_layer(&MapResponseLayer::new(notices(link.clone()))).build())
}

/// Only here it shows that a watch which broke off goes on: it says nothing until something happens.
fn notices<Body>(link: LiveLink) -> impl Fn(Response<Body>) -> Response<Body> + Clone {
    move |response| {
        if response.status().is_success() {
            link.answers();
        }
        response
    }
}

async fn watch_pods(config: &Kubernetes, link: &LiveLink, learns: &Learns) {
    let client = client(config, link, &learns.counters).await;
    let api = Api::<PodObject>::all_with(client, &objects::resource("Pod", "pods"));
    let of_node = watcher::Config::default().any_semantic().fields(&format!("spec.nodeName={}", config.node));
    let mut events = pin!(watcher(api, of_node));
    let mut pauses = DefaultBackoff::default();
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.extend(apply_pod(object, learns)),
            Ok(Event::InitDone) => {
                learns.pods.retain(&std::mem::take(&mut listed));
                link.change(|link| link.listed = true);
                pauses.reset();
            }
            Ok(Event::Apply(object)) => drop(apply_pod(object, learns)),
            Ok(Event::Delete(object)) => learns.pods.end(&object.metadata.uid.unwrap_or_default()),
            Err(error) => {
                refused(&error, link, &learns.counters);
                pause(&mut pauses).await;
            }
        }
    }
}

fn apply_pod(object: PodObject, learns: &Learns) -> Option<Arc<str>> {
    let Some(pod) = objects::pod(object) else {
        learns.counters.add(Counter::ApiMalformed, 1);
        return None;
    };
    let uid = Arc::clone(&pod.uid);
    learns.pods.apply(pod);
    Some(uid)
}

async fn watch_namespaces(config: &Kubernetes, link: &LiveLink, learns: &Learns) {
    let client = client(config, link, &learns.counters).await;
    let of_all = watcher::Config::default().any_semantic();
    let mut events = pin!(watcher(Api::<PartialObjectMeta<Namespace>>::all(client), of_all));
    let mut pauses = DefaultBackoff::default();
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.extend(apply_namespace(object, learns)),
            Ok(Event::InitDone) => {
                learns.pods.retain_namespaces(&std::mem::take(&mut listed));
                link.change(|link| link.listed = true);
                pauses.reset();
            }
            Ok(Event::Apply(object)) => drop(apply_namespace(object, learns)),
            Ok(Event::Delete(object)) => {
                learns.pods.apply_namespace(&object.metadata.name.unwrap_or_default(), Default::default());
            }
            Err(error) => {
                refused(&error, link, &learns.counters);
                pause(&mut pauses).await;
            }
        }
    }
}

/// The name, if it has annotations that concern us.
fn apply_namespace(object: PartialObjectMeta<Namespace>, learns: &Learns) -> Option<String> {
    let name = object.metadata.name?;
    let annotations = objects::ours(object.metadata.annotations.unwrap_or_default());
    let has_any = !annotations.is_empty();
    learns.pods.apply_namespace(&name, annotations);
    has_any.then_some(name)
}

async fn answer(config: &Kubernetes, link: &LiveLink, learns: &Learns, mut asked: Receiver<Arc<str>>) {
    let client = client(config, link, &learns.counters).await;
    let api =
        Api::<PersistentVolumeObject>::all_with(client, &objects::resource("PersistentVolume", "persistentvolumes"));
    while let Some(name) = asked.recv().await {
        match tokio::time::timeout(GET_TIMEOUT, api.get_opt(&name)).await {
            Ok(Ok(Some(object))) => {
                if learns.claims.learn(name, objects::persistent_volume(object)) {
                    learns.pods.changed();
                }
            }
            // A volume that is a pod's own, or is gone again.
            Ok(Ok(None)) => {}
            Ok(Err(error)) => refused(&error, link, &learns.counters),
            Err(late) => refused(&late, link, &learns.counters),
        }
    }
}

fn refused(error: &(dyn Error + 'static), link: &LiveLink, counters: &Counters) {
    counters.add(Counter::ApiErrors, 1);
    link.failed(error);
}

#[cfg(test)]
mod tests;
