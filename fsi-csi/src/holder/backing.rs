//! The claim of another class that is behind a claim of ours: made with our volume, and gone with it.
//!
//! Until a node shows the volume for the first time, nothing can be in the claim, and it belongs to ours: a volume of which the making was never
//! finished goes with the claim that asked for it. From then on it belongs to nobody, and goes when the volume is deleted: with
//! `reclaimPolicy: Retain` it has to outlive the claim.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{CLAIM, HolderError, Holders, answered, is_code};
use crate::driver::Reach;
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
    /// When the API does not; [`HolderError::NoClaim`] when nothing is there, and the claim that asks for it is gone.
    pub async fn provide(&self, backing: &Backing, class: &str, bytes: u64, reach: Reach) -> Result<(), HolderError> {
        let client = self.kubernetes.client().ok_or_else(|| HolderError::NoKubernetes(backing.of.clone()))?;
        let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &backing.namespace);
        if answered("tell the claim behind", claims.get_opt(&backing.name)).await?.is_some() {
            return Ok(());
        }
        let of = self.claim(&client, &backing.namespace, &backing.of).await?;
        let modes = of.spec.and_then(|spec| spec.access_modes).unwrap_or_default();
        let claim = serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": backing.name,
                "namespace": backing.namespace,
                "labels": { "app.kubernetes.io/name": "fsi", "app.kubernetes.io/component": "backing" },
                "ownerReferences": [{ "apiVersion": "v1", "kind": CLAIM, "name": backing.of, "uid": of.metadata.uid }],
            },
            "spec": {
                "storageClassName": class,
                "accessModes": access_modes(reach, &modes),
                "resources": { "requests": { "storage": bytes.to_string() } },
            },
        }))?;
        match answered("make the claim behind", claims.create(&PostParams::default(), &claim)).await {
            Err(HolderError::Api { error, .. }) if is_code(&error, 409) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Has the claim stay until the volume is deleted, whatever becomes of the claim that it is behind.
    ///
    /// # Errors
    /// When it is not there, or the API does not.
    pub async fn keep(&self, backing: &Backing) -> Result<(), HolderError> {
        let client = self.kubernetes.client().ok_or_else(|| HolderError::NoKubernetes(backing.of.clone()))?;
        let found = self.claim(&client, &backing.namespace, &backing.name).await?;
        if found.metadata.owner_references.is_none_or(|owners| owners.is_empty()) {
            return Ok(());
        }
        let claims = Api::<PersistentVolumeClaim>::namespaced(client, &backing.namespace);
        let free = Patch::Merge(json!({ "metadata": { "ownerReferences": null } }));
        answered("keep the claim behind", claims.patch(&backing.name, &PatchParams::default(), &free)).await.map(drop)
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

/// On one node ours shows it to all pods. The holder that takes over from another is there beside it, so that one pod alone is too few.
fn access_modes(reach: Reach, of: &[String]) -> Vec<String> {
    let modes = match reach {
        Reach::Node => Vec::new(),
        Reach::Everywhere => of.iter().filter(|mode| *mode != "ReadWriteOncePod").cloned().collect(),
    };
    if modes.is_empty() { vec!["ReadWriteOnce".to_owned()] } else { modes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_behind_reaches_as_far_as_its_volume() {
        let modes =
            |reach, of: &[&str]| access_modes(reach, &of.iter().map(|&mode| mode.to_owned()).collect::<Vec<_>>());
        for of in [&["ReadWriteMany"][..], &["ReadWriteOncePod"], &[]] {
            assert_eq!(modes(Reach::Node, of), ["ReadWriteOnce"]);
        }
        assert_eq!(modes(Reach::Everywhere, &["ReadWriteMany", "ReadOnlyMany"]), ["ReadWriteMany", "ReadOnlyMany"]);
        assert_eq!(modes(Reach::Everywhere, &["ReadWriteOncePod"]), ["ReadWriteOnce"]);
    }
}
