//! kubectl, with a limit of time on everything.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

/// Longer than anything but waiting takes.
const LIMIT: Duration = Duration::from_secs(200);
const PAUSE: Duration = Duration::from_millis(300);

#[derive(Debug, Clone)]
pub(super) struct Kubectl {
    /// The program, and what comes before it.
    command: Vec<OsString>,
    kubeconfig: OsString,
}

impl Kubectl {
    /// The one on PATH.
    pub(super) fn with(kubeconfig: &Path) -> Self {
        Self { command: vec!["kubectl".into()], kubeconfig: kubeconfig.into() }
    }

    pub(super) fn through(command: Vec<OsString>, kubeconfig: &Path) -> Self {
        Self { command, kubeconfig: kubeconfig.into() }
    }

    /// What it says.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments, None)?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()),
        }
    }

    pub(super) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut with_format = arguments.to_vec();
        with_format.extend(["-o", "json"]);
        serde_json::from_str(&self.run(&with_format)?).context("read kubectl's JSON")
    }

    pub(super) fn apply(&self, manifests: &str) -> Result<()> {
        let output = self.output(&["apply", "-f", "-"], Some(manifests))?;
        match output.status.success() {
            true => Ok(()),
            false => bail!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr).trim()),
        }
    }

    /// What the API server would say to manifests, every unknown field refused.
    pub(super) fn validate(&self, manifests: &str) -> Result<()> {
        let output = self.output(&["apply", "--dry-run=server", "--validate=strict", "-f", "-"], Some(manifests))?;
        match output.status.success() {
            true => Ok(()),
            false => bail!("{}", String::from_utf8_lossy(&output.stderr).trim()),
        }
    }

    /// What a path of the API answers; services and pods are behind their proxies.
    pub(super) fn raw(&self, path: &str) -> Result<String> {
        self.run(&["get", "--raw", path])
    }

    /// Runs a shell script in a pod; its exit code, and both of its streams.
    pub(super) fn shell(&self, namespace: &str, pod: &str, script: &str) -> Result<(i32, String)> {
        let script = format!("{{ {script}\n}} 2>&1; echo \"exit $?\"");
        let text = self.run(&["-n", namespace, "exec", pod, "--", "sh", "-c", &script])?;
        let (said, code) = text.trim_end().rsplit_once("exit ").ok_or_else(|| anyhow!("no exit code in {text}"))?;
        Ok((code.parse().context("an exit code")?, said.to_owned()))
    }

    fn output(&self, arguments: &[&str], stdin: Option<&str>) -> Result<Output> {
        // A request that hangs must not hang the run.
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", &LIMIT.as_secs().to_string()]).args(&self.command).args(arguments);
        command.env("KUBECONFIG", &self.kubeconfig);
        command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start kubectl")?;
        if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
            pipe.write_all(text.as_bytes()).context("write to kubectl")?;
        }
        child.wait_with_output().context("wait for kubectl")
    }
}

/// Tries until it gives something; the last reason why it did not is the error.
pub(super) fn eventually<T>(seconds: u64, what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("{what}: not within {seconds} s")));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
