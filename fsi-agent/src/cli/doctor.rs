//! `fsi doctor`: what this kernel and these privileges allow, and what to do to get the rest.

use std::process::ExitCode;

use clap::Args;
use fsi_agent::probe::features::{self, Capability, Need, Report, State};
use serde::Serialize;

use super::{FAILED, Failure, output};

/// Exits with 0 when observing is possible, with 1 when it is not.
#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// The report as one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

pub(super) fn run(arguments: &DoctorArgs) -> Result<ExitCode, Failure> {
    let report = features::examine();
    let text = if arguments.json {
        let document = Document { schema: "fsi.doctor/1", report: &report };
        serde_json::to_string_pretty(&document).map_err(|error| Failure::Failed(error.into()))?
    } else {
        words(&report)
    };
    output::result(&text)?;
    Ok(if report.observing.possible { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn words(report: &Report) -> String {
    let Report { kernel, tier, observing, capabilities } = report;
    let verdict = if observing.possible { "observing works" } else { "observing is not possible" };
    let mut lines = vec![
        format!("Linux {kernel}: {verdict}: {}", observing.sentence),
        format!("tier: {}", tier.unwrap_or("none")),
        String::new(),
    ];
    for capability in capabilities {
        describe(capability, &mut lines);
    }
    lines.join("\n")
}

fn describe(capability: &Capability, lines: &mut Vec<String>) {
    let Capability { name, state, need, found, meaning, remedy } = capability;
    let state = match (state, need) {
        (State::Ok, _) => "ok",
        (State::Missing, Need::Required) => "MISSING",
        (State::Missing, Need::Optional) => "missing",
        (State::Unknown, _) => "unknown",
    };
    lines.push(format!("{state:<8} {name:<17} {found}"));
    lines.push(format!("{:<26} {meaning}", ""));
    if let Some(remedy) = remedy {
        lines.push(format!("{:<26} to get it: {remedy}", ""));
    }
}
