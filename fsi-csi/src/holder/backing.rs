//! The claim of another class that is behind a claim of ours: made with our volume, and gone with it.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{HolderError, Holders, Owner, answered, is_code};
use crate::volume_id::{self, VolumeId};

/// A claim by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backing {
    pub namespace: String,
    pub name: String,
    /// The claim of ours that it is behind.
    pub of: String,
}

impl Backing {
    /// The one behind a volume that was made for that claim.
    #[must_use]
    pub fn new(id: &VolumeId, namespace: &str, of: &str) -> Self {
        let name = format!("fsi-backing-{}", &volume_id::hex(id.as_str().as_bytes())[..24]);
        Self { namespace: namespace.to_owned(), name, of: of.to_owned() }
    }
}

impl Holders {
    /// Makes the claim, if it is not there.
    ///
    /// # Errors
    /// When the API does not.
    pub async fn provide(&self, backing: &Backing, class: &str, bytes: u64) -> Result<(), HolderError> {
        let client = self.kubernetes.client().ok_or_else(|| HolderError::NoKubernetes(backing.of.clone()))?;
        let Owner { kind, name, uid, .. } = self.owner(&backing.namespace, &backing.of).await?;
        let claim = serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": backing.name,
                "namespace": backing.namespace,
                "labels": { "app.kubernetes.io/name": "fsi", "app.kubernetes.io/component": "backing" },
                "ownerReferences": [{ "apiVersion": "v1", "kind": kind, "name": name, "uid": uid }],
            },
            "spec": {
                "storageClassName": class,
                // Of one node: ours shows it to the pods there.
                "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": bytes.to_string() } },
            },
        }))?;
        let claims = Api::<PersistentVolumeClaim>::namespaced(client, &backing.namespace);
        match answered("make the claim behind", claims.create(&PostParams::default(), &claim)).await {
            Err(HolderError::Api { error, .. }) if is_code(&error, 409) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Removes the claim, with what is in it as its class says.
    ///
    /// # Errors
    /// When the API does not.
    pub async fn withdraw(&self, backing: &Backing) -> Result<(), HolderError> {
        let client = self.kubernetes.client().ok_or_else(|| HolderError::NoKubernetes(backing.of.clone()))?;
        let claims = Api::<PersistentVolumeClaim>::namespaced(client, &backing.namespace);
        match answered("remove the claim behind", claims.delete(&backing.name, &DeleteParams::default())).await {
            Err(HolderError::Api { error, .. }) if is_code(&error, 404) => Ok(()),
            done => done.map(drop),
        }
    }
}
