//! Where the data of a volume is.

use super::ParameterError;

/// Where the data of a volume is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// In the pool of the node.
    #[default]
    Directory,
    /// In a claim that somebody else made.
    Claim { name: String },
    /// In a claim of another class, made for the volume.
    Class { name: String },
}

impl Source {
    pub(super) fn read(source: Option<&str>, claim: Option<&str>) -> Result<Self, ParameterError> {
        let contradiction =
            |why| Err(ParameterError::Contradiction { first: "source", second: "persistentVolumeClaimName", why });
        match (source, claim) {
            (None | Some("pvc"), Some("")) | (Some("pvc"), None) => {
                let why = "source `pvc` wraps the claim that it names";
                Err(ParameterError::Missing { name: "persistentVolumeClaimName", why })
            }
            (None | Some("pvc"), Some(name)) => Ok(Self::Claim { name: name.to_owned() }),
            (None | Some("directory"), None) => Ok(Self::Directory),
            (Some("directory"), Some(_)) => contradiction("a directory wraps no claim"),
            (Some(text), claim) => match text.strip_prefix("storageClass:").filter(|name| !name.is_empty()) {
                Some(name) if claim.is_none() => Ok(Self::Class { name: name.to_owned() }),
                Some(_) => contradiction("a class makes a claim of its own"),
                None => {
                    let right =
                        "`directory`, `pvc` (with `persistentVolumeClaimName`) or `storageClass:NAME`".to_owned();
                    Err(ParameterError::Value { name: "source", value: text.to_owned(), right })
                }
            },
        }
    }

    /// That a claim of ours can have it.
    ///
    /// # Errors
    /// When it cannot.
    pub fn for_claims(&self) -> Result<(), ParameterError> {
        match self {
            Self::Claim { .. } => Err(ParameterError::OnlyInline),
            Self::Directory | Self::Class { .. } => self.for_pods(),
        }
    }

    /// That a volume that is written in a pod can have it.
    ///
    /// # Errors
    /// When it cannot.
    pub fn for_pods(&self) -> Result<(), ParameterError> {
        match self {
            Self::Directory | Self::Claim { .. } => Ok(()),
            Self::Class { name } => Err(ParameterError::NotServed(format!("storageClass:{name}"))),
        }
    }
}
