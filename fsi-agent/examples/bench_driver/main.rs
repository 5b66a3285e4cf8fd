//! What `cargo xtask bench` measures of the library without the command line around it: the kernel side as the node agent
//! uses it (sums only), the ring drained by nobody but a loop, and the exporter under a burst.
//!
//! ```text
//! bench_driver sums REPORT COMMAND...         counts in the kernel, no event, no file followed
//! bench_driver events RING REPORT COMMAND...  every operation crosses a ring of RING bytes and is thrown away
//! bench_driver export SPANS                   a burst of SPANS spans to a collector on the loopback, ours and the SDK's way
//! ```
//! Reports are JSON.

#![expect(clippy::print_stdout, reason = "the numbers are what it is for")]

mod export;
mod observe;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["sums", report, command @ ..] => observe::sums(report, command),
        ["events", ring, report, command @ ..] => {
            observe::events(ring.parse().context("RING in bytes")?, report, command)
        }
        ["export", spans] => {
            println!("{}", export::burst(spans.parse().context("number of spans")?)?);
            Ok(ExitCode::SUCCESS)
        }
        ["collector"] => {
            export::collect(|line| println!("{line}"))?;
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("usage: bench_driver sums|events|export ..."),
    }
}
