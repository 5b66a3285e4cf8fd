//! The claim behind a volume, made larger with it. Its own driver does the work, and a claim that no pod uses is whole only when one does: so
//! the controller waits for the volume of the claim, and the node for the claim.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use super::backing::Backing;
use super::{HolderError, POLL, answered};
use crate::DRIVER;
use crate::kubernetes::Kubernetes;
use crate::parameters::{Parameters, Source};
use crate::volume_id::VolumeId;

/// The time that a claim gets to grow. Who asks for it asks again, and by itself waits for 10 s.
const GROWS_WITHIN: Duration = Duration::from_secs(5);
/// What an API server answers to a change that it does not allow.
const REFUSED: [u16; 2] = [403, 422];

/// What a list of resources says of the room.
type Resources = std::collections::BTreeMap<String, Quantity>;

impl Backing {
    /// The claim behind a volume, as the volume's object tells; nothing when its files are in the pool, or the object is not known.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn of(kubernetes: &Kubernetes, id: &VolumeId) -> Result<Option<Self>, HolderError> {
        let Some(client) = kubernetes.client() else { return Ok(None) };
        let volumes = Api::<PersistentVolume>::all(client);
        // The provisioner calls the object and the volume the same.
        let spec = answered("tell the volume", volumes.get_opt(id.as_str())).await?.and_then(|volume| volume.spec);
        let Some((Some(csi), Some(claim))) = spec.map(|spec| (spec.csi, spec.claim_ref)) else { return Ok(None) };
        let attributes = csi.volume_attributes.unwrap_or_default();
        let is_ours = csi.driver == DRIVER && csi.volume_handle == id.as_str();
        let is_wrapped = Parameters::read(&attributes).is_ok_and(|all| matches!(all.source, Source::Class { .. }));
        let (Some(namespace), Some(name)) = (claim.namespace, claim.name) else { return Ok(None) };
        Ok((is_ours && is_wrapped).then(|| Self::new(id, &namespace, &name)))
    }

    /// Has the volume of the claim made larger; returns when it is.
    ///
    /// # Errors
    /// When it may not grow, or has not yet.
    pub async fn grow(&self, kubernetes: &Kubernetes, bytes: u64) -> Result<(), HolderError> {
        let client = kubernetes.client().ok_or_else(|| HolderError::NoKubernetes(self.of.clone()))?;
        let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &self.namespace);
        let volumes = Api::<PersistentVolume>::all(client);
        let deadline = Instant::now() + GROWS_WITHIN;
        loop {
            let spec = self.found(&claims).await?.spec.unwrap_or_default();
            let volume = match &spec.volume_name {
                Some(name) => answered("tell the volume behind", volumes.get_opt(name)).await?,
                None => None,
            };
            let has = room(volume.and_then(|volume| volume.spec).and_then(|spec| spec.capacity).as_ref());
            if has >= bytes {
                return Ok(());
            }
            // Also less than was asked for before, and could not be had.
            if room(spec.resources.and_then(|resources| resources.requests).as_ref()) != bytes {
                self.ask_for(&claims, bytes).await?;
            }
            self.wait(deadline, has, bytes).await?;
        }
    }

    /// Returns when the claim is as large as that.
    ///
    /// # Errors
    /// When it is not yet.
    pub async fn grown(&self, kubernetes: &Kubernetes, bytes: u64) -> Result<(), HolderError> {
        let client = kubernetes.client().ok_or_else(|| HolderError::NoKubernetes(self.of.clone()))?;
        let claims = Api::<PersistentVolumeClaim>::namespaced(client, &self.namespace);
        let deadline = Instant::now() + GROWS_WITHIN;
        loop {
            let has = room(self.found(&claims).await?.status.and_then(|status| status.capacity).as_ref());
            if has >= bytes {
                return Ok(());
            }
            self.wait(deadline, has, bytes).await?;
        }
    }

    async fn found(&self, claims: &Api<PersistentVolumeClaim>) -> Result<PersistentVolumeClaim, HolderError> {
        let missing = || HolderError::NoClaim { namespace: self.namespace.clone(), claim: self.name.clone() };
        answered("tell the claim behind", claims.get_opt(&self.name)).await?.ok_or_else(missing)
    }

    async fn ask_for(&self, claims: &Api<PersistentVolumeClaim>, bytes: u64) -> Result<(), HolderError> {
        let wish = Patch::Merge(json!({ "spec": { "resources": { "requests": { "storage": bytes.to_string() } } } }));
        match answered("have the claim behind grow", claims.patch(&self.name, &PatchParams::default(), &wish)).await {
            Err(HolderError::Api { what: _, error }) => Err(match *error {
                kube::Error::Api(status) if REFUSED.contains(&status.code) => {
                    let (namespace, claim) = (self.namespace.clone(), self.name.clone());
                    HolderError::NoGrowth { namespace, claim, sentence: status.message }
                }
                error => HolderError::Api { what: "have the claim behind grow", error: Box::new(error) },
            }),
            done => done.map(drop),
        }
    }

    async fn wait(&self, deadline: Instant, has: u64, wanted: u64) -> Result<(), HolderError> {
        if Instant::now() > deadline {
            let (namespace, claim) = (self.namespace.clone(), self.name.clone());
            return Err(HolderError::Grows { namespace, claim, has, wanted });
        }
        tokio::time::sleep(POLL).await;
        Ok(())
    }
}

/// The bytes that it says; none where it says nothing that can be read.
fn room(resources: Option<&Resources>) -> u64 {
    resources.and_then(|all| all.get("storage")).and_then(|Quantity(text)| bytes(text)).unwrap_or(0)
}

/// A quantity as Kubernetes writes it: `64Mi`, `1.5G`, `1e9`, `67108864`. A part of a byte is one.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{part}").parse().ok()?;
    let (times, over) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        _ => (times(suffix)?, 1),
    };
    let over = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?.checked_mul(over)?;
    digits.checked_mul(times)?.div_ceil(over).try_into().ok()
}

fn times(suffix: &str) -> Option<u128> {
    const LETTERS: &str = "KMGTPE";
    let power = |letter: char| LETTERS.find(letter).and_then(|at| u32::try_from(at + 1).ok());
    let one = |text: &str| text.parse::<char>().ok().and_then(power);
    match (suffix, suffix.strip_suffix('i')) {
        (_, Some(letter)) => 1024_u128.checked_pow(one(letter)?),
        ("k", None) => Some(1000),
        ("M" | "G" | "T" | "P" | "E", None) => 1000_u128.checked_pow(one(suffix)?),
        _ => 10_u128.checked_pow(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_bytes() {
        for (text, expected) in [
            ("67108864", 64 << 20),
            ("64Mi", 64 << 20),
            ("1Ki", 1024),
            ("2Ei", 2 << 60),
            ("1.5Gi", 3 << 29),
            ("1k", 1000),
            ("5G", 5_000_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1e9", 1_000_000_000),
            ("12E2", 1200),
            ("1500m", 2),
            ("0", 0),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for wrong in ["", "Mi", "1KMi", "1ki", "1i", "1x", "-1", "1.2.3", "99Ei", "1e", "1e99"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
