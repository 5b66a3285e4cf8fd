//! What the agent changes while the probes run: whose operations become events, which mounts are ours.

use std::collections::HashMap;
use std::time::Duration;

use aya::maps::{Array, HashMap as BpfHashMap, MapError};
use fsi_common::probe_config::Policy;

use super::{Probe, ProbeError};

impl Probe {
    /// Says what a policy's number stands for. 0 is taken: not looked at.
    pub fn set_policy(&mut self, number: u32, policy: Policy) -> Result<(), ProbeError> {
        let map = self.ebpf.map_mut("POLICIES").ok_or(ProbeError::NoMap("POLICIES"))?;
        Ok(Array::try_from(map)?.set(number, policy, 0)?)
    }

    /// Says which cgroups have which policy; what is in none of them, or below, is not looked at. Those that there is no room for are
    /// counted in what is returned, and have the policy of the cgroup above them.
    pub fn set_cgroups(&mut self, wanted: &HashMap<u64, u32>) -> Result<usize, ProbeError> {
        let map = self.ebpf.map_mut("CGROUPS").ok_or(ProbeError::NoMap("CGROUPS"))?;
        let mut map: BpfHashMap<_, u64, u32> = BpfHashMap::try_from(map)?;
        let there: HashMap<u64, u32> = map.iter().collect::<Result<_, _>>()?;
        for id in there.keys().filter(|id| !wanted.contains_key(id)) {
            unless_gone(map.remove(id))?;
        }
        let mut without = 0;
        for (id, policy) in wanted.iter().filter(|(id, policy)| there.get(id) != Some(policy)) {
            match map.insert(id, policy, 0) {
                Ok(()) => {}
                Err(_full) => without += 1,
            }
        }
        self.forget_verdicts()?;
        Ok(without)
    }

    /// Has the kernel side look anew which policy a cgroup has. A verdict that was being found meanwhile may come after: ask twice.
    pub fn forget_verdicts(&mut self) -> Result<(), ProbeError> {
        let map = self.ebpf.map_mut("CGROUP_VERDICTS").ok_or(ProbeError::NoMap("CGROUP_VERDICTS"))?;
        let mut map: BpfHashMap<_, u64, u32> = BpfHashMap::try_from(map)?;
        let keys: Vec<u64> = map.keys().collect::<Result<_, _>>()?;
        for key in keys {
            unless_gone(map.remove(&key))?;
        }
        Ok(())
    }

    /// Requests to the mount with this device (as the kernel has it) are told from now on.
    pub fn add_mount(&mut self, dev: u32) -> Result<(), ProbeError> {
        let map = self.ebpf.map_mut("INTERPOSED").ok_or(ProbeError::NoMap("INTERPOSED"))?;
        let mut map: BpfHashMap<_, u32, u32> = BpfHashMap::try_from(map)?;
        Ok(map.insert(dev, 1, 0)?)
    }

    /// They are not any more.
    pub fn remove_mount(&mut self, dev: u32) -> Result<(), ProbeError> {
        let map = self.ebpf.map_mut("INTERPOSED").ok_or(ProbeError::NoMap("INTERPOSED"))?;
        let mut map: BpfHashMap<_, u32, u32> = BpfHashMap::try_from(map)?;
        unless_gone(map.remove(&dev))
    }

    /// How long the programs ran, all CPUs together, while the kernel counted that.
    #[must_use]
    pub fn run_time(&self) -> Duration {
        let infos = self.ebpf.programs().filter_map(|(_name, program)| program.info().ok());
        infos.map(|info| info.run_time()).sum()
    }
}

pub(super) fn unless_gone(removed: Result<(), MapError>) -> Result<(), ProbeError> {
    match removed {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
