//! Everything that can go wrong with a call, each with one sentence for the user, and the one place that turns it into a gRPC status.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tonic::{Code, Status};

use crate::access::AccessError;
use crate::holder::HolderError;
use crate::kubernetes::KubernetesError;
use crate::parameters::ParameterError;
use crate::server::ServerError;

/// Why a call was not done.
#[derive(Debug, Error)]
pub enum CallError {
    #[error("the request has no {0}")]
    Missing(&'static str),
    #[error("{0}")]
    Parameter(#[from] ParameterError),
    #[error("{0}")]
    Access(#[from] AccessError),
    #[error(
        "`{0}` cannot be the id of a volume: ids have letters, digits, `.`, `_` and `-`, and begin with a letter or digit"
    )]
    BadId(String),
    #[error("there is no volume `{0}` on this node")]
    NoVolume(String),
    #[error("there is no volume `{0}` on this node to clone")]
    NoCloneSource(String),
    #[error("a volume is cloned from a volume; snapshots are not taken by this driver")]
    NoSnapshots,
    #[error("a volume of source `storageClass:NAME` is no clone; clone a claim of that class, and wrap it")]
    NoClonesOfClaims,
    #[error("volume `{id}` exists already, with another {what}")]
    Other { id: String, what: &'static str },
    #[error("volume `{0}` is being deleted")]
    BeingDeleted(String),
    #[error("{} is in the pool and no volume: take it away, or give the volume another name", .0.display())]
    InTheWay(PathBuf),
    #[error("volume `{id}` is in use at {}", place.display())]
    InUse { id: String, place: PathBuf },
    #[error("another operation on volume `{0}` is under way; it is tried again later")]
    Busy(String),
    #[error("{what} took longer than {limit:?}; it goes on, and is asked for again later")]
    Late { what: &'static str, limit: Duration },
    #[error("volume `{id}` is not staged at {}", place.display())]
    NotStaged { id: String, place: PathBuf },
    #[error("something that is no mount of this driver is mounted at {}", .0.display())]
    Foreign(PathBuf),
    #[error("the interposer of volume `{id}` at {} does not answer; it is asked again later", place.display())]
    Silent { id: String, place: PathBuf },
    #[error("the interposer of volume `{id}` serves, and is not mounted at {}; it is tried again", place.display())]
    NotMounted { id: String, place: PathBuf },
    #[error("volume `{id}` is for one pod at a time (ReadWriteOncePod), and is published at {}", place.display())]
    OnePod { id: String, place: PathBuf },
    #[error("{} is no place where volume `{id}` is", place.display())]
    NotThere { id: String, place: PathBuf },
    #[error("{required} bytes are required and {limit} are the limit")]
    ImpossibleRange { required: i64, limit: i64 },
    #[error("{required} bytes are required; the pool has {available} left")]
    PoolFull { required: u64, available: u64 },
    #[error(
        "volume `{id}` of {before} bytes cannot have {required}: the pool has {total}, of which {available} are left"
    )]
    PoolTooSmall { id: String, before: u64, required: u64, available: u64, total: u64 },
    #[error("{} was moved while the files of its volume were walked through; it is tried again", .0.display())]
    Moved(PathBuf),
    #[error("{required} bytes are required for a clone of `{of}`, which has {capacity}: ask for as much")]
    CloneTooSmall { of: String, required: u64, capacity: u64 },
    #[error("the volume has {capacity} bytes, more than the limit of {limit}; volumes do not shrink")]
    Shrink { capacity: u64, limit: i64 },
    #[error("this node is `{node}`, which is none of those where the volume may be")]
    OtherNode { node: String },
    #[error("`{0}` is no token of an earlier list")]
    BadToken(String),
    #[error("{0} is answered by the driver on the node, not by the controller")]
    NoPool(&'static str),
    #[error("{0}")]
    Kubernetes(#[from] KubernetesError),
    #[error("{0}")]
    Holder(#[from] HolderError),
    #[error("{0}")]
    Server(#[from] ServerError),
    #[error("{} says `{sentence}`: the file is damaged", path.display())]
    Damaged { path: PathBuf, sentence: String },
    #[error("{what} {}: {error}", path.display())]
    Io { what: &'static str, path: PathBuf, error: io::Error },
    #[error("{0} ended in a bug of the driver; its log says where")]
    Bug(&'static str),
}

impl CallError {
    /// What was done to which path, for `map_err`.
    pub fn io<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |error| Self::Io { what, path: path.to_owned(), error: error.into() }
    }

    /// The code that tells the caller whether to try again.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Missing(_)
            | Self::Parameter(_)
            | Self::Access(_)
            | Self::BadId(_)
            | Self::NoSnapshots
            | Self::NoClonesOfClaims
            | Self::ImpossibleRange { .. } => Code::InvalidArgument,
            Self::NoVolume(_) | Self::NoCloneSource(_) | Self::NotThere { .. } => Code::NotFound,
            Self::Other { .. } => Code::AlreadyExists,
            Self::BeingDeleted(_) | Self::Busy(_) | Self::Moved(_) | Self::BadToken(_) => Code::Aborted,
            Self::InTheWay(_)
            | Self::InUse { .. }
            | Self::NotStaged { .. }
            | Self::Foreign(_)
            | Self::OnePod { .. } => Code::FailedPrecondition,
            Self::Late { .. } => Code::DeadlineExceeded,
            Self::PoolFull { .. } | Self::OtherNode { .. } => Code::ResourceExhausted,
            Self::CloneTooSmall { .. } | Self::PoolTooSmall { .. } | Self::Shrink { .. } => Code::OutOfRange,
            Self::NoPool(_) => Code::Unimplemented,
            Self::Kubernetes(error) if error.is_the_users() => Code::InvalidArgument,
            Self::Holder(error) if error.is_the_users() => Code::InvalidArgument,
            Self::Kubernetes(_) | Self::Holder(_) | Self::Silent { .. } | Self::NotMounted { .. } => Code::Unavailable,
            Self::Server(error) if error.is_late() => Code::DeadlineExceeded,
            Self::Server(_) | Self::Damaged { .. } | Self::Bug(_) => Code::Internal,
            Self::Io { what: _, path: _, error } if error.kind() == io::ErrorKind::StorageFull => {
                Code::ResourceExhausted
            }
            Self::Io { .. } => Code::Internal,
        }
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
