//! Claims of other drivers: an unprivileged pod on this node holds the claim, and its files are found below the kubelet's folder.
//!
//! The holder does nothing. It mounts the claim with a `subPath`, which the kubelet makes a bind mount of its own for, whatever kind of volume
//! is behind the claim. It belongs to the pod that asked for it, so that it goes with it even when nobody is left to remove it.

pub mod backing;
mod growth;
mod manifest;
pub mod upkeep;

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod as PodObject};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error::CallError;
use crate::kubernetes::Kubernetes;
use crate::mounts::Table;
use crate::records::Pod;
use crate::volume_id::VolumeId;

/// The time that a holder gets to start; the kubelet asks again.
const STARTS_WITHIN: Duration = Duration::from_secs(20);
/// The time that an answer of the API may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(300);
/// What the API calls a claim.
const CLAIM: &str = "PersistentVolumeClaim";

pub use self::manifest::name;

/// Why a claim is not at hand.
#[derive(Debug, Error)]
pub enum HolderError {
    #[error("there is no Kubernetes here to ask for claim `{0}`")]
    NoKubernetes(String),
    #[error("source `pvc`: the kubelet does not tell the pod; the CSIDriver needs `podInfoOnMount: true`")]
    NoPod,
    #[error(
        "source `storageClass:NAME`: the claim is not known; run the external-provisioner with --extra-create-metadata"
    )]
    NoOwner,
    #[error("there is no claim `{namespace}/{claim}` to wrap")]
    NoClaim { namespace: String, claim: String },
    #[error("claim `{namespace}/{claim}` has volumeMode Block; only Filesystem is served")]
    Block { namespace: String, claim: String },
    #[error("claim `{namespace}/{claim}` is not at hand on this node: pod `{holder}`, which holds it, {why}")]
    Waits { namespace: String, claim: String, holder: String, why: String },
    #[error("claim `{namespace}/{claim}`, which is behind the volume, may not grow: {sentence}")]
    NoGrowth { namespace: String, claim: String, sentence: String },
    #[error(
        "claim `{namespace}/{claim}`, which is behind the volume, has {has} of {wanted} bytes yet; it is asked again later, and its events say \
         what it waits for"
    )]
    Grows { namespace: String, claim: String, has: u64, wanted: u64 },
    #[error("which image the holder of a claim has is not known: {0}")]
    NoImage(String),
    #[error("make an object for the API: {0}")]
    Object(#[from] serde_json::Error),
    #[error("the API, asked to {what}: {error}")]
    Api { what: &'static str, error: Box<kube::Error> },
    #[error("the API did not {what} within {ANSWERS_WITHIN:?}")]
    Late { what: &'static str },
}

impl HolderError {
    /// Whether the user has to change something.
    #[must_use]
    pub const fn is_the_users(&self) -> bool {
        match self {
            Self::NoKubernetes(_)
            | Self::NoPod
            | Self::NoOwner
            | Self::NoClaim { .. }
            | Self::Block { .. }
            | Self::NoGrowth { .. } => true,
            Self::Waits { .. }
            | Self::Grows { .. }
            | Self::NoImage(_)
            | Self::Object(_)
            | Self::Api { .. }
            | Self::Late { .. } => false,
        }
    }
}

/// A holder by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub namespace: String,
    pub name: String,
    /// The claim that it holds; empty where an earlier version made the note.
    #[serde(default)]
    pub claim: String,
}

/// What a holder, or a claim of ours, goes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl From<&Pod> for Owner {
    fn from(pod: &Pod) -> Self {
        let Pod { namespace, name, uid } = pod.clone();
        Self { kind: "Pod", namespace, name, uid }
    }
}

/// A claim at hand.
#[derive(Clone, Debug)]
pub struct Held {
    pub holder: Holder,
    /// Where its files are on this node.
    pub directory: PathBuf,
}

/// The holders of this node.
#[derive(Clone, Debug)]
pub struct Holders {
    pub kubernetes: Kubernetes,
    pub node: String,
    pub kubelet: PathBuf,
    /// The pod that we run in, of which a holder has the image.
    pub own: Option<(String, String)>,
    /// The PriorityClass of holders.
    pub priority_class: Option<String>,
}

impl Holders {
    /// Has a claim of the owner's namespace held on this node, by the holder that is known, or by one that takes over from it; returns when its
    /// files are at hand.
    ///
    /// # Errors
    /// When they are not; it is asked for again.
    pub async fn hold(
        &self,
        id: &VolumeId,
        owner: &Owner,
        claim: &str,
        known: Option<&Holder>,
    ) -> Result<Held, CallError> {
        let client = self.kubernetes.client().ok_or_else(|| HolderError::NoKubernetes(claim.to_owned()))?;
        let volume_of = |found: PersistentVolumeClaim| found.spec.and_then(|spec| spec.volume_name);
        self.claim(&client, &owner.namespace, claim).await?;
        let pods = Api::<PodObject>::namespaced(client.clone(), &owner.namespace);
        let deadline = tokio::time::Instant::now() + STARTS_WITHIN;
        let known = known.filter(|known| known.namespace == owner.namespace);
        let mut holder = Holder {
            namespace: owner.namespace.clone(),
            name: known.map_or_else(|| name(&self.node, id), |known| known.name.clone()),
            claim: claim.to_owned(),
        };
        loop {
            let why = match answered("tell the holder", pods.get_opt(&holder.name)).await? {
                None => {
                    self.create(&client, &pods, id, owner, &holder).await?;
                    "was made just now".to_owned()
                }
                Some(found) => match manifest::state(&found, Timestamp::now()) {
                    manifest::State::Runs { uid } => {
                        let volume = volume_of(self.claim(&client, &owner.namespace, claim).await?).unwrap_or_default();
                        let directory = manifest::directory(&self.kubelet, &uid, &volume);
                        if Table::read()?.at(&directory).is_some() {
                            return Ok(Held { holder, directory });
                        }
                        format!("runs, but nothing is mounted at {}", directory.display())
                    }
                    // It may stay for as long as somebody uses its files.
                    manifest::State::Leaves(_) => {
                        holder.name = manifest::next_name(&holder.name);
                        continue;
                    }
                    manifest::State::Ended => {
                        remove(&pods, &holder.name).await?;
                        "ended and is made anew".to_owned()
                    }
                    manifest::State::Waits(why) => why,
                },
            };
            if tokio::time::Instant::now() > deadline {
                let Holder { namespace, name: holder, claim } = holder;
                return Err(HolderError::Waits { namespace, claim, holder, why }.into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Lets a claim go. A holder that we may not remove any more goes with its owner, and holds up no pod.
    ///
    /// # Errors
    /// When the API is away; it is asked for again.
    pub async fn release(&self, holder: &Holder) -> Result<(), HolderError> {
        let Some(client) = self.kubernetes.client() else { return Ok(()) };
        let pods = Api::<PodObject>::namespaced(client, &holder.namespace);
        match remove(&pods, &holder.name).await {
            Err(HolderError::Api { what, error }) if is_code(&error, 403) => {
                tracing::warn!(what, %error, holder = holder.name, "a holder is left to go with its owner");
                Ok(())
            }
            done => done,
        }
    }

    /// What the holder of a claim behind a volume goes with: the claim that it is behind, or, when that is gone and the volume was kept, the
    /// claim itself.
    ///
    /// # Errors
    /// When neither is there.
    pub async fn owner_of(&self, backing: &backing::Backing) -> Result<Owner, HolderError> {
        match self.owner(&backing.namespace, &backing.of).await {
            Err(HolderError::NoClaim { .. }) => self.owner(&backing.namespace, &backing.name).await,
            owner => owner,
        }
    }

    /// A claim as the owner of something.
    ///
    /// # Errors
    /// When there is none.
    pub async fn owner(&self, namespace: &str, claim: &str) -> Result<Owner, HolderError> {
        let client = self.kubernetes.client().ok_or_else(|| HolderError::NoKubernetes(claim.to_owned()))?;
        let uid = self.claim(&client, namespace, claim).await?.metadata.uid.unwrap_or_default();
        Ok(Owner { kind: CLAIM, namespace: namespace.to_owned(), name: claim.to_owned(), uid })
    }

    async fn claim(&self, client: &Client, namespace: &str, claim: &str) -> Result<PersistentVolumeClaim, HolderError> {
        let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
        let (namespace, claim) = (namespace.to_owned(), claim.to_owned());
        let Some(found) = answered("tell the claim", claims.get_opt(&claim)).await? else {
            return Err(HolderError::NoClaim { namespace, claim });
        };
        match found.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()) {
            Some("Block") => Err(HolderError::Block { namespace, claim }),
            Some(_) | None => Ok(found),
        }
    }

    async fn create(
        &self,
        client: &Client,
        pods: &Api<PodObject>,
        id: &VolumeId,
        owner: &Owner,
        holder: &Holder,
    ) -> Result<(), HolderError> {
        let (namespace, name) = self.own.clone().ok_or_else(|| {
            HolderError::NoImage("the driver's own pod is told by POD_NAMESPACE and POD_NAME".to_owned())
        })?;
        let owns = Api::<PodObject>::namespaced(client.clone(), &namespace);
        let own = answered("tell the driver's own pod", owns.get(&name)).await?;
        let image = own.spec.and_then(|spec| spec.containers.into_iter().find_map(|container| container.image));
        let image = image.ok_or_else(|| HolderError::NoImage(format!("pod {namespace}/{name} has none")))?;
        let pod = manifest::pod(&manifest::Wish {
            name: &holder.name,
            node: &self.node,
            volume: id,
            owner,
            claim: &holder.claim,
            image: &image,
            priority_class: self.priority_class.as_deref(),
        })?;
        match answered("make the holder", pods.create(&PostParams::default(), &pod)).await {
            // Another call was faster.
            Err(HolderError::Api { error, .. }) if is_code(&error, 409) => Ok(()),
            done => done.map(drop),
        }
    }
}

async fn remove(pods: &Api<PodObject>, name: &str) -> Result<(), HolderError> {
    let at_once = DeleteParams { grace_period_seconds: Some(1), ..DeleteParams::default() };
    match answered("remove the holder", pods.delete(name, &at_once)).await {
        Err(HolderError::Api { error, .. }) if is_code(&error, 404) => Ok(()),
        done => done.map(drop),
    }
}

fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

async fn answered<T>(
    what: &'static str,
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, HolderError> {
    match tokio::time::timeout(ANSWERS_WITHIN, answer).await {
        Ok(answer) => answer.map_err(|error| HolderError::Api { what, error: Box::new(error) }),
        Err(_elapsed) => Err(HolderError::Late { what }),
    }
}
