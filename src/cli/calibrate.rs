//! `gatecast calibrate`: what this machine can measure, and how exactly; and the stamp of documents.

use std::{
    env,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use time::format_description::well_known::Rfc3339;

use crate::{
    cli::{output, signals::TemporaryFolder},
    doctor::calibrate::{self, Samples},
    error::{Error, Result},
    net::{clock, machine, text_file},
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
    /// The clients of its sessions: as many as yours will have on this machine
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u16).range(1..=100))]
    #[arg(value_name = "N", help_heading = "Gate")]
    pub(crate) clients: u16,
    /// Where it is kept; a file in your cache folder unless given
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// Largest calibration that is read, bytes: one has 2,000.
const CALIBRATION_MAX: u64 = 64 << 10;

/// Measures, keeps and prints.
///
/// # Errors
/// Loopback or the disk failed, or what was found cannot be kept.
pub(crate) fn run(args: &CalibrateArgs) -> Result<Verdict> {
    let folder = TemporaryFolder::new("calibrate")?;
    let found = calibrate::measure(args.clients, folder.path())?;
    let costs = found.costs.iter().map(|(name, values)| {
        (*name, at(values.iter().copied(), 50), at(values.iter().copied(), 95))
    });
    let costs: Vec<_> = costs.collect();
    let errors: Vec<_> = found.errors.iter().map(error).collect();
    let members = |of: &[(&str, f64, f64)], names: [&str; 2]| {
        let member = |&(name, first, second): &(&str, f64, f64)| {
            (name.to_owned(), json!({names[0]: first, names[1]: second}))
        };
        of.iter().map(member).collect::<Map<_, _>>()
    };
    let document = json!({"schema": SCHEMA, "at": clock::wall().format(&Rfc3339).ok(),
        "environment": environment(), "clients": args.clients, "rounds": calibrate::ROUNDS,
        "costs": members(&costs, ["median", "p95"]),
        "errors": members(&errors, ["systematic", "random"])});
    let path = args.out.clone().or_else(kept).ok_or_else(|| Error::usage("name a file: --out"))?;
    let text = format!("{document:#}\n");
    let place = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    place
        .and_then(|()| std::fs::write(&path, &text))
        .map_err(Error::io("keep the calibration", ShownPath(&path)))?;
    if args.json {
        return output::answer(&text);
    }
    let tables = [
        table("cost", ["median", "95 %"], &costs),
        table("figure, said minus true", ["systematic", "random"], &errors),
    ];
    output::answer(&format!("{}kept in {}\n", tables.concat(), ShownPath(&path)))
}

/// A figure is off by its median, and around that by so much in 95 of 100 cases.
fn error((name, values): &Samples) -> (&'static str, f64, f64) {
    let systematic = at(values.iter().copied(), 50);
    (name, systematic, at(values.iter().map(|value| (value - systematic).abs()), 95))
}

/// The value that `percent` of `values` do not exceed, to a thousandth.
fn at(values: impl Iterator<Item = f64>, percent: usize) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let value = values.get((values.len() * percent).div_ceil(100).saturating_sub(1));
    (value.copied().unwrap_or(0.0) * 1e3).round() / 1e3
}

fn table(of: &'static str, figures: [&'static str; 2], rows: &[(&str, f64, f64)]) -> String {
    let mut table = Table::new(&[
        (of, Align::Left, 0),
        (figures[0], Align::Right, 0),
        (figures[1], Align::Right, 0),
        ("unit", Align::Left, 0),
    ]);
    for (name, first, second) in rows {
        let (what, unit) = name.rsplit_once('_').unwrap_or((name, ""));
        let figure = |value: &f64| format!("{value:.2}");
        table.row([what.replace('_', " "), figure(first), figure(second), unit.to_owned()]);
    }
    table.fitted(output::width()) + "\n"
}

/// The stamp of a document that this machine makes: where it was made, and its errors if they are known.
pub(super) fn stamp() -> String {
    let (mut stamp, known) = (environment(), kept().and_then(|path| read(&path).ok()));
    let known = known.filter(|known| known["environment"] == stamp);
    stamp["errors"] = known.map_or(Value::Null, |known| known["errors"].clone());
    stamp.to_string()
}

/// The errors of the calibration in `file`, or of the one that was kept.
///
/// # Errors
/// There is none, or it is of another machine than this.
pub(super) fn errors(file: Option<&Path>) -> Result<Errors> {
    let path = file.map(Path::to_owned).or_else(kept).filter(|path| path.exists());
    let none = "this machine is not calibrated; 'gatecast calibrate' does it in some seconds";
    let document = read(&path.ok_or_else(|| Error::refused("gatecast", none))?)?;
    if file.is_none() && document["environment"] != environment() {
        let other = "the calibration is of another machine, kernel or version; 'gatecast calibrate' makes a new one";
        return Err(Error::refused("gatecast", other));
    }
    Errors::of(&document)
}

fn read(path: &Path) -> Result<Value> {
    serde_json::from_str(&text_file::read(path, CALIBRATION_MAX)?)
        .map_err(|error| Error::protocol(ShownPath(path), error.to_string()))
}

/// What errors depend on.
fn environment() -> Value {
    let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    json!({"version": env!("CARGO_PKG_VERSION"), "commit": option_env!("GATECAST_COMMIT"),
        "kernel": machine::kernel(), "processor": machine::processor(),
        "cores": std::thread::available_parallelism().ok(), "clock_source": machine::line(clock)})
}

/// Where the calibration of this machine is kept.
fn kept() -> Option<PathBuf> {
    let folder = |name| env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    Some(cache.or_else(|| folder("LOCALAPPDATA"))?.join("gatecast/calibration.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_the_median_and_what_is_around_it() {
        let values = (0..100).map(|n| f64::from(n) - 20.0).collect();
        assert_eq!(error(&("skew_us", values)), ("skew_us", 29.0, 47.0));
        assert_eq!(error(&("skew_us", vec![-3.0])), ("skew_us", -3.0, 0.0));
        assert_eq!(at([].into_iter(), 95), 0.0);
    }
}
