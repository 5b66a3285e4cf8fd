//! What to do about what is missing: a pure decision, printed before it is carried out.

use super::catalogue::{Get, Need};
use super::machine::Machine;

#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    pub(super) apt: Vec<&'static str>,
    /// Built or fetched one by one, after the packages.
    pub(super) build: Vec<&'a Need>,
    pub(super) by_hand: Vec<&'a Need>,
    names: Vec<&'static str>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(missing: &[&'a Need], machine: &Machine) -> Self {
        let mut plan = Self::default();
        for need in missing {
            if !machine.can(need.get) {
                plan.by_hand.push(need);
                continue;
            }
            plan.names.push(need.name);
            match need.get {
                Get::Apt(packages) => plan.apt.extend(packages),
                Get::RustupComponent(_)
                | Get::BpfLinker
                | Get::Crate(_)
                | Get::Go(_)
                | Get::Schemas
                | Get::OlderKernel
                | Get::PassthroughLl => plan.build.push(need),
                Get::ByHand => {}
            }
        }
        plan
    }

    pub(super) fn does_something(&self) -> bool {
        !self.apt.is_empty() || !self.build.is_empty()
    }

    pub(super) fn names(&self) -> &[&'static str] {
        &self.names
    }

    pub(super) fn announce(&self) {
        println!("Going to install:");
        if !self.apt.is_empty() {
            println!("  by apt: {}", self.apt.join(" "));
        }
        for need in &self.build {
            println!("  {}: {} ({})", need.name, how(need.get), need.why);
        }
    }

    /// One command for all packages that we may not install ourselves.
    pub(super) fn apt_by_hand(&self) -> Option<String> {
        let packages: Vec<&str> = self
            .by_hand
            .iter()
            .filter_map(|need| if let Get::Apt(packages) = need.get { Some(packages) } else { None })
            .flatten()
            .copied()
            .collect();
        let packages = packages.join(" ");
        (!packages.is_empty()).then(|| format!("apt-get install --no-install-recommends {packages}"))
    }
}

/// How long it takes and how large it is, measured on two cores.
fn how(get: Get) -> String {
    let how = match get {
        Get::Apt(_) => "by apt",
        Get::RustupComponent(_) => "by rustup, a few seconds",
        Get::BpfLinker => "built from crates.io into the cache, 1 to 2 minutes, 40 MB",
        Get::Crate(_) => "built from crates.io into the cache, half a minute, 3 MB",
        Get::Go(tool) => return format!("built from the Go module proxy into the cache, {}", tool.costs),
        Get::Schemas => "out of their Go modules into the cache, a minute, 6 MB after 60 MB of sources",
        Get::OlderKernel => "fetched from Debian into the cache, not installed, 70 MB",
        Get::PassthroughLl => "source fetched from Debian, built into the cache, a few seconds",
        Get::ByHand => "by hand",
    };
    how.to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::catalogue;
    use super::*;

    fn need(name: &str) -> &'static Need {
        catalogue::needs().find(|need| need.name == name).expect("in the catalogue")
    }

    #[test]
    fn root_on_debian_gets_packages_and_what_they_make_possible() {
        let machine = Machine { apt: true, ..Machine::default() };
        let plan = Plan::new(&[need("strace"), need("bpf-linker"), need("OpenTelemetry Collector")], &machine);
        assert_eq!(plan.apt, ["strace"]);
        assert_eq!(plan.names(), ["strace", "bpf-linker"]);
        assert_eq!(plan.by_hand.iter().map(|need| need.name).collect::<Vec<_>>(), ["OpenTelemetry Collector"]);
    }

    #[test]
    fn without_root_each_package_is_named_in_one_command() {
        let plan = Plan::new(&[need("strace"), need("compiler for BPF")], &Machine::default());
        assert!(!plan.does_something());
        let expected = "apt-get install --no-install-recommends strace rustc-web libstd-rust-web-dev-bpf";
        assert_eq!(plan.apt_by_hand().as_deref(), Some(expected));
    }
}
