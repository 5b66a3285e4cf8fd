//! The little that the driver asks of the Kubernetes API: the rules in a ConfigMap, and events on pods.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use thiserror::Error;

use crate::DRIVER;
use crate::records::Pod;

/// The time that an answer may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// The key of a map that has several.
const RULES_KEY: &str = "rules.yaml";

/// Why rules could not be had.
#[derive(Debug, Error)]
pub enum KubernetesError {
    #[error("parameter `rulesConfigMap`: there is no Kubernetes here to ask for ConfigMap `{0}`")]
    None(String),
    #[error(
        "parameter `rulesConfigMap`: the namespace of the claim is not known; run the external-provisioner with \
         --extra-create-metadata"
    )]
    NoNamespace,
    #[error("parameter `rulesConfigMap`: there is no ConfigMap `{namespace}/{name}`")]
    NoMap { namespace: String, name: String },
    #[error("ConfigMap `{namespace}/{name}` has no key `{RULES_KEY}`, and not one key alone")]
    NoKey { namespace: String, name: String },
    #[error("read ConfigMap `{namespace}/{name}`: {error}")]
    Api { namespace: String, name: String, error: Box<kube::Error> },
    #[error("the API did not tell ConfigMap `{namespace}/{name}` within {ANSWERS_WITHIN:?}")]
    Late { namespace: String, name: String },
}

impl KubernetesError {
    /// Whether the user has to change something.
    #[must_use]
    pub const fn is_the_users(&self) -> bool {
        match self {
            Self::None(_) | Self::NoNamespace | Self::NoMap { .. } | Self::NoKey { .. } => true,
            Self::Api { .. } | Self::Late { .. } => false,
        }
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Taken,
    /// For good.
    Refused,
    /// This one not now: its namespace is being deleted, or the account's rights are to come.
    NotYet,
    Away,
}

/// The API, or its absence.
#[derive(Clone)]
pub struct Kubernetes(Option<Client>);

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Kubernetes").field(&self.0.is_some()).finish()
    }
}

impl Kubernetes {
    /// Without a cluster.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// The cluster that the surroundings name: that of the pod we run in, or of `kubectl`.
    ///
    /// # Errors
    /// When they name none.
    pub async fn found() -> Result<Self, kube::Error> {
        Client::try_default().await.map(|client| Self(Some(client)))
    }

    pub(crate) fn client(&self) -> Option<Client> {
        self.0.clone()
    }

    /// The rules in a ConfigMap.
    ///
    /// # Errors
    /// When they cannot be had.
    pub async fn rules(&self, namespace: Option<&str>, name: &str) -> Result<String, KubernetesError> {
        let client = self.0.clone().ok_or_else(|| KubernetesError::None(name.to_owned()))?;
        let namespace = namespace.ok_or(KubernetesError::NoNamespace)?.to_owned();
        let name = name.to_owned();
        let maps = Api::<ConfigMap>::namespaced(client, &namespace);
        let map = match tokio::time::timeout(ANSWERS_WITHIN, maps.get_opt(&name)).await {
            Err(_elapsed) => return Err(KubernetesError::Late { namespace, name }),
            Ok(Err(error)) => return Err(KubernetesError::Api { namespace, name, error: Box::new(error) }),
            Ok(Ok(None)) => return Err(KubernetesError::NoMap { namespace, name }),
            Ok(Ok(Some(map))) => map.data.unwrap_or_default(),
        };
        let only = || map.values().next().filter(|_| map.len() == 1);
        map.get(RULES_KEY).or_else(only).cloned().ok_or(KubernetesError::NoKey { namespace, name })
    }

    /// Tells the user of a pod.
    pub async fn warn(&self, pod: &Pod, reason: &str, note: String) -> Answer {
        // The log has it.
        let Some(client) = self.0.clone() else { return Answer::Taken };
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Serving".to_owned(),
            secondary: None,
        };
        let recorder = Recorder::new(client, Reporter { controller: DRIVER.to_owned(), instance: None });
        match tokio::time::timeout(ANSWERS_WITHIN, recorder.publish(&event, &about)).await {
            Ok(Ok(())) => Answer::Taken,
            Ok(Err(error)) => {
                tracing::warn!(%error, pod = pod.name, "an event was not taken");
                match error {
                    kube::Error::Api(status) if is_final(status.code) => Answer::Refused,
                    kube::Error::Api(status) if status.code == 403 => Answer::NotYet,
                    _ => Answer::Away,
                }
            }
            Err(_elapsed) => {
                tracing::warn!(pod = pod.name, "the API did not take an event in time");
                Answer::Away
            }
        }
    }
}

/// Whether asking again leads to the same: not when there were too many requests.
const fn is_final(code: u16) -> bool {
    matches!(code, 400 | 404 | 409 | 413 | 422)
}
