//! What all services share.

use std::collections::HashMap;
use std::sync::Arc;

use crate::TOPOLOGY_KEY;
use crate::error::CallError;
use crate::events::Events;
use crate::holder::Holders;
use crate::kubernetes::Kubernetes;
use crate::locks::Locks;
use crate::metrics::Metrics;
use crate::mounting::Mounting;
use crate::parameters::Parameters;
use crate::proto::csi::Topology;

/// Whether other nodes have the same pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Node,
    Everywhere,
}

/// Whose namespace a ConfigMap is in. Who writes an inline volume may write what the provisioner would, so that only what the kubelet
/// says of the pod counts there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    OfTheClaim,
    OfThePod,
}

impl Namespace {
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::OfTheClaim => "csi.storage.k8s.io/pvc/namespace",
            Self::OfThePod => "csi.storage.k8s.io/pod.namespace",
        }
    }
}

/// A driver on a node.
#[derive(Clone, Debug)]
pub struct NodeDriver {
    pub node: String,
    pub reach: Reach,
    pub mounting: Mounting,
    pub locks: Locks,
    pub kubernetes: Kubernetes,
    pub holders: Holders,
    pub metrics: Arc<Metrics>,
    pub events: Events,
}

impl NodeDriver {
    /// Where volumes of this node can be had; nothing when they can everywhere.
    #[must_use]
    pub fn topology(&self) -> Option<Topology> {
        let segments = HashMap::from([(TOPOLOGY_KEY.to_owned(), self.node.clone())]);
        (self.reach == Reach::Node).then_some(Topology { segments })
    }

    /// Whether one of these is here; no wish is for anywhere.
    #[must_use]
    pub fn is_in(&self, wished: &[Topology]) -> bool {
        let is_here = |topology: &Topology| topology.segments.get(TOPOLOGY_KEY).is_none_or(|node| *node == self.node);
        self.reach == Reach::Everywhere || wished.is_empty() || wished.iter().any(is_here)
    }

    /// The text of the map that parameters name.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn config_map(
        &self,
        parameters: &Parameters,
        context: &HashMap<String, String>,
        whose: Namespace,
    ) -> Result<Option<String>, CallError> {
        let Some(name) = &parameters.rules_config_map else { return Ok(None) };
        let namespace = context.get(whose.key()).map(String::as_str);
        Ok(Some(self.kubernetes.rules(namespace, name).await?))
    }
}
