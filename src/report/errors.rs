//! The figures of a session with their errors beside them, as a calibration says (`gatecast calibrate`).

use std::time::Duration;

use serde_json::Value;

use crate::{
    error::{Error, Result},
    report::{
        columns::count,
        table::{Align, Table},
    },
    session::Via,
    text::escape,
    transfer::Record,
};

/// The schema's name and version of a calibration.
pub const SCHEMA: &str = "gatecast.calibration/1";

/// A calibration's document.
#[derive(Clone, Debug)]
pub struct Errors(Value);

impl Errors {
    /// The errors of a calibration.
    ///
    /// # Errors
    /// It is none.
    pub fn of(document: Value) -> Result<Self> {
        let errors = Self(document);
        if errors.0["schema"] != SCHEMA || errors.within("seconds_client_us").is_none() {
            return Err(Error::refused("gatecast", "this is not a calibration"));
        }
        Ok(errors)
    }

    /// What 95 of 100 such figures are off by at most, microseconds.
    fn within(&self, name: &str) -> Option<f64> {
        let of = &self.0["errors"][name];
        let (systematic, random) = (of["systematic"].as_f64()?, of["random"].as_f64()?);
        (random >= 0.0).then_some(systematic.abs() + random)
    }

    /// Which calibration it is.
    fn about(&self) -> String {
        let at = escape(self.0["at"].as_str().unwrap_or("-"));
        format!("errors              95 of 100 are off by less, as calibrated {at}\n")
    }

    /// About the delays and the jitter of a relay's viewers.
    pub fn of_viewers(&self) -> String {
        let ms = self.within("delay_us").map_or(0.0, |us| us / 1e3);
        format!("delay and jitter    ± {ms:.2} ms each\n{}", self.about())
    }

    /// The figures of `record` with their errors.
    pub fn of_session(&self, record: &Record, limit: Option<usize>) -> String {
        // A calibration receives so; what is otherwise received is otherwise late.
        let of = |name| self.within(name).filter(|_| record.via == Via::Tcp);
        let (client, server) = (of("seconds_client_us"), of("seconds_server_us"));
        let us = |value: Option<u64>, name| beside(count(value), self.within(name), 0);
        let headings =
            ["seat", "client\nseconds", "client\nMbit/s", "server\nseconds", "jitter\nus"];
        let mut table = Table::new(&headings.map(|heading| (heading, Align::Right, 0)));
        for t in &record.transfers {
            table.row([
                t.seat.to_string(),
                seconds(t.seconds_client, client),
                rate(t.rate_client_mbit(), t.seconds_client, client),
                seconds(t.seconds_server, server),
                us(t.counts.jitter_us, "delay_us"),
            ]);
        }
        let global = record.global();
        format!(
            "\n{}\nrelease skew        server {} us, client {} us\n\
             time to last byte   {} s\nglobal rate         {} Mbit/s\n{}",
            table.fitted(limit),
            us(record.skew_us(), "skew_us"),
            us(record.skew_client_us(), "skew_client_us"),
            seconds(global.seconds, server),
            rate(global.rate_mbit, global.seconds, server),
            self.about(),
        )
    }
}

/// A figure with its error; only that it is less where it is.
fn beside(figure: Option<f64>, error: Option<f64>, decimals: usize) -> String {
    match (figure, error) {
        (None, _) => "-".to_owned(),
        (Some(figure), None) => format!("{figure:.decimals$}"),
        (Some(figure), Some(error)) if figure < error => format!("under {error:.decimals$}"),
        (Some(figure), Some(error)) => format!("{figure:.decimals$} ± {error:.decimals$}"),
    }
}

fn seconds(span: Option<Duration>, error: Option<f64>) -> String {
    beside(span.map(|span| span.as_secs_f64()), error.map(|us| us / 1e6), 6)
}

/// A rate is off as its time is.
fn rate(rate: Option<f64>, span: Option<Duration>, error: Option<f64>) -> String {
    let part = span.zip(error).map(|(span, us)| us / 1e6 / span.as_secs_f64());
    match rate.zip(part) {
        Some((rate, part)) if part >= 1.0 => format!("over {:.3}", rate / (1.0 + part)),
        both => beside(rate, both.map(|(rate, part)| rate * part), 3),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::sample;

    fn calibration() -> Value {
        let error =
            |systematic: f64, random: f64| json!({"systematic": systematic, "random": random});
        json!({"schema": SCHEMA, "at": "2026-11-23T03:00:00Z", "environment": {"kernel": "Linux 6.18"},
            "errors": {"seconds_client_us": error(-10.0, 90.0), "seconds_server_us": error(50.0, 150.0),
                "skew_us": error(5.0, 35.0), "skew_client_us": error(1.0, 89.0), "delay_us": error(9.0, 11.0)}})
    }

    #[test]
    fn figures_below_their_error_are_said_to_be_so() {
        let errors = Errors::of(calibration()).expect("one");
        let mut record = sample::session(1, 3, 80);
        record.transfers[2].seconds_client = Some(Duration::from_micros(60));
        insta::assert_snapshot!(errors.of_session(&record, None), @r"
                           client          client               server  jitter
        seat              seconds          Mbit/s              seconds      us
        ----  -------------------  --------------  -------------------  ------
           1  0.081000 ± 0.000100  98.765 ± 0.122  0.081120 ± 0.000200       -
           2  0.082000 ± 0.000100  97.561 ± 0.119  0.082120 ± 0.000200       -
           3       under 0.000100  over 50000.000  0.083120 ± 0.000200       -

        release skew        server 40 ± 40 us, client under 90 us
        time to last byte   0.083120 ± 0.000200 s
        global rate         288.739 ± 0.695 Mbit/s
        errors              95 of 100 are off by less, as calibrated 2026-11-23T03:00:00Z
        ");
        record.via = Via::Raw;
        record.transfers[0].counts.jitter_us = Some(12);
        let text = errors.of_session(&record, None);
        assert!(text.contains("under 20\n"), "{text}");
        let viewers = errors.of_viewers();
        assert!(viewers.starts_with("delay and jitter    ± 0.02 ms each\n"), "{viewers}");
        assert!(text.contains("\ntime to last byte   0.083120 s\n"), "{text}");
    }

    #[test]
    fn document_that_is_no_calibration_is_refused() {
        assert!(Errors::of(calibration()).is_ok());
        for (pointer, value) in [
            ("/schema", json!("gatecast.session/1")),
            ("/errors/seconds_client_us", Value::Null),
            ("/errors/seconds_client_us/random", json!(-11.0)),
            ("/errors/seconds_client_us/systematic", json!("1")),
        ] {
            let mut bent = calibration();
            *bent.pointer_mut(pointer).expect(pointer) = value;
            assert!(Errors::of(bent).is_err(), "{pointer}");
        }
        assert!(Errors::of(json!([1])).is_err());
    }
}
