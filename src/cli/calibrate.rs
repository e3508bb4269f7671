//! `gatecast calibrate`: what this machine can measure, and how exactly; and the stamp of documents.

use std::{
    env, fs,
    path::{Path, PathBuf},
    thread,
};

use serde_json::{Map, Value, json};
use time::format_description::well_known::Rfc3339;

use crate::{
    cli::{diff, output, signals::TemporaryFolder},
    doctor::calibrate::{self, Samples},
    error::{Error, Result},
    net::{clock, machine},
    report::{
        errors::{Errors, SCHEMA},
        table::{Align, Table},
        verdict::Verdict,
    },
    text::ShownPath,
};

/// `gatecast calibrate`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast calibrate && gatecast report logs/*.log --errors")]
pub(crate) struct CalibrateArgs {
    /// How many clients its sessions have
    ///
    /// As many as yours have, if they all are on this machine.
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u16).range(2..=100))]
    #[arg(value_name = "N", help_heading = "Gate")]
    pub(crate) clients: u16,
    /// Print one JSON document
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// Largest calibration that is read, bytes: one has 2,000.
const CALIBRATION_MAX: u64 = 64 << 10;

/// What a table shows: the name, and two figures.
type Row = (&'static str, f64, f64);

/// Measures, keeps and prints.
///
/// # Errors
/// Loopback or the disk failed, or what was found cannot be kept.
pub(crate) fn run(args: &CalibrateArgs) -> Result<Verdict> {
    let folder = TemporaryFolder::new("calibrate")?;
    let [costs, errors] = calibrate::measure(args.clients, folder.path())
        .map_err(Error::io("calibrate", "this machine"))?;
    let costs: Vec<Row> =
        costs.iter().map(|(name, all)| (*name, at(all, 50), at(all, 95))).collect();
    let errors: Vec<Row> = errors.iter().map(error).collect();
    let document = json!({"schema": SCHEMA, "at": clock::wall().format(&Rfc3339).ok(),
        "environment": environment(), "clients": args.clients, "rounds": calibrate::ROUNDS,
        "costs": members(&costs, "median", "p95"),
        "errors": members(&errors, "systematic", "random")});
    let document = format!("{document:#}\n");
    let path = kept();
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    folder
        .and_then(|()| fs::write(&path, &document))
        .map_err(Error::io("keep the calibration", ShownPath(&path)))?;
    if args.json {
        return output::answer(&document);
    }
    let costs = table(["cost, us", "median", "95 %"], &costs);
    let errors = table(["said minus true, us", "systematic", "random"], &errors);
    output::answer(&format!("{costs}\n{errors}"))
}

/// A figure is off by its median, and around that by so much in 95 of 100 cases.
fn error((name, all): &Samples) -> Row {
    let systematic = at(all, 50);
    let around: Vec<f64> = all.iter().map(|value| (value - systematic).abs()).collect();
    (name, systematic, at(&around, 95))
}

/// The value that `percent` of `all` do not exceed, to a thousandth.
fn at(all: &[f64], percent: usize) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    let value = all.get((all.len() * percent).div_ceil(100).saturating_sub(1));
    (value.unwrap_or(&0.0) * 1e3).round() / 1e3
}

fn members(rows: &[Row], first: &str, second: &str) -> Map<String, Value> {
    rows.iter().map(|(name, a, b)| ((*name).to_owned(), json!({first: a, second: b}))).collect()
}

fn table([of, first, second]: [&'static str; 3], rows: &[Row]) -> String {
    let mut table =
        Table::new(&[(of, Align::Left, 0), (first, Align::Right, 0), (second, Align::Right, 0)]);
    for (name, first, second) in rows {
        let name = name.trim_end_matches("_us").replace('_', " ");
        table.row([name, format!("{first:.3}"), format!("{second:.3}")]);
    }
    table.fitted(output::width())
}

/// The stamp of a document that this machine makes: what it is, and its errors if they are known.
pub(super) fn stamp() -> String {
    let mut stamp = environment();
    stamp["errors"] = known().map_or(Value::Null, |known| known["errors"].clone());
    stamp.to_string()
}

/// The errors of the calibration in `file`, or of the one of this machine.
///
/// # Errors
/// There is none.
pub(super) fn errors(file: Option<&Path>) -> Result<Errors> {
    let step = "this machine, as it is now, is not calibrated; 'gatecast calibrate' does it";
    let here = || known().ok_or_else(|| Error::refused("gatecast", step));
    Errors::of(file.map_or_else(here, |path| diff::read(path, CALIBRATION_MAX))?)
}

/// The calibration of this machine as it is now.
fn known() -> Option<Value> {
    diff::read(&kept(), CALIBRATION_MAX).ok().filter(|known| known["environment"] == environment())
}

/// What errors depend on.
fn environment() -> Value {
    json!({"version": env!("CARGO_PKG_VERSION"), "commit": option_env!("GATECAST_COMMIT"),
        "kernel": machine::kernel(), "processor": machine::processor(),
        "cores": thread::available_parallelism().ok(), "clock_source": machine::line(machine::CLOCK_SOURCE)})
}

/// Where the calibration of this machine is kept: in the user's cache folder.
fn kept() -> PathBuf {
    let folder = |name| env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("LOCALAPPDATA"));
    let cache = cache.or_else(|| Some(folder("HOME")?.join(".cache")));
    cache.unwrap_or_else(env::temp_dir).join("gatecast/calibration.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_the_median_and_what_is_around_it() {
        let values: Vec<_> = (0..100).map(|n| f64::from(n) - 20.0).collect();
        assert_eq!(error(&("skew_us", values)), ("skew_us", 29.0, 47.0));
        assert_eq!(error(&("skew_us", vec![-3.0])), ("skew_us", -3.0, 0.0));
        assert_eq!(at(&[], 95), 0.0);
    }
}
