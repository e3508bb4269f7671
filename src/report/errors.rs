//! The figures of a session with their errors beside them, as a calibration says (`gatecast calibrate`).

use std::{fmt::Write, time::Duration};

use serde_json::Value;

use crate::{
    error::{Error, Result},
    report::{
        session_table::mbit,
        table::{Align, Table},
    },
    session::Via,
    transfer::Record,
    units::micros,
};

/// The schema's name and version of a calibration.
pub const SCHEMA: &str = "gatecast.calibration/1";

/// What 95 of 100 figures are off by at most, microseconds; `None` where it is not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors {
    seconds_client: Option<f64>,
    seconds_server: Option<f64>,
    skew: Option<f64>,
    skew_client: Option<f64>,
    delay: Option<f64>,
    /// Which calibration it was, as a sentence.
    about: String,
}

impl Errors {
    /// The errors of a calibration's document.
    ///
    /// # Errors
    /// It is none.
    pub fn of(document: &Value) -> Result<Self> {
        let bound = |name: &str| {
            let of = &document["errors"][name];
            let bound = of["systematic"].as_f64()?.abs() + of["random"].as_f64()?;
            (bound >= 0.0 && bound.is_finite()).then_some(bound)
        };
        let [at, kernel] = [&document["at"], &document["environment"]["kernel"]]
            .map(|text| crate::text::escape(text.as_str().unwrap_or("-")));
        let found = Self {
            seconds_client: bound("seconds_client_us"),
            seconds_server: bound("seconds_server_us"),
            skew: bound("skew_us"),
            skew_client: bound("skew_client_us"),
            delay: bound("delay_us"),
            about: format!("95 of 100 are off by less; calibrated {at} on {kernel}"),
        };
        if document["schema"] != SCHEMA || found.seconds_client.is_none() {
            return Err(Error::refused("gatecast", "this is not a calibration"));
        }
        Ok(found)
    }

    /// The sentence about delays and jitter of a relay's viewers.
    pub fn of_viewers(&self) -> String {
        let within = self.delay.map_or("-".to_owned(), |us| format!("{:.2}", us / 1e3));
        format!("delay and jitter    each ± {within} ms\n{:<19} {}\n", "errors", self.about)
    }

    /// The figures of `record` with their errors.
    pub fn of_session(&self, record: &Record, limit: Option<usize>) -> String {
        // Over the other ways a client's time ends when a piece of the file is hashed, or given on.
        let is_direct = !matches!(record.via, Via::Swarm | Via::Chain);
        let [client, server] =
            [self.seconds_client, self.seconds_server].map(|e| e.filter(|_| is_direct));
        let heading = |text| (text, Align::Right, 0);
        let mut columns = vec![
            heading("seat"),
            heading("client\nseconds"),
            heading("client\nMbit/s"),
            heading("server\nseconds"),
        ];
        let has_jitter = record.transfers.iter().any(|t| t.counts.jitter_us.is_some());
        columns.extend(
            has_jitter
                .then(|| [heading("jitter\nus"), heading("mean delay\nus")])
                .into_iter()
                .flatten(),
        );
        let mut table = Table::new(&columns);
        for t in &record.transfers {
            let us = |value: Option<u64>| beside(value.map(count), self.delay, 0);
            let mut row = vec![
                t.seat.to_string(),
                seconds(t.seconds_client, client),
                rate(t.rate_client_mbit(), t.seconds_client, client),
                seconds(t.seconds_server, server),
            ];
            if has_jitter {
                row.extend([us(t.counts.jitter_us), us(t.counts.delay_us)]);
            }
            table.row(row);
        }
        let global = record.global();
        let skew = |us: Option<u64>, error| beside(us.map(count), error, 0);
        let mut text = format!("\n{}\n", table.fitted(limit));
        let _ = writeln!(
            text,
            "release skew        server {} us, client {} us\n\
             time to last byte   {} s\n\
             global rate         {} Mbit/s\n\
             errors              {}",
            skew(record.skew_us(), self.skew),
            skew(record.skew_client_us(), self.skew_client),
            seconds(global.seconds, server),
            rate(global.rate_mbit, global.seconds, server),
            self.about,
        );
        text
    }
}

#[allow(clippy::cast_precision_loss, reason = "exact for three hundred years")]
fn count(us: u64) -> f64 {
    us as f64
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
    let of =
        rate.zip(span).zip(error).map(|((rate, span), error)| (rate, error / count(micros(span))));
    match of {
        Some((rate, part)) if part >= 1.0 => format!("over {}", mbit(rate / (1.0 + part))),
        _ => beside(rate, of.map(|(rate, part)| rate * part), 3),
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
        let errors = Errors::of(&calibration()).expect("one");
        let mut record = sample::session(1, 3, 80);
        record.transfers[2].seconds_client = Some(Duration::from_micros(60));
        insta::assert_snapshot!(errors.of_session(&record, None), @r"
                           client          client               server
        seat              seconds          Mbit/s              seconds
        ----  -------------------  --------------  -------------------
           1  0.081000 ± 0.000100  98.765 ± 0.122  0.081120 ± 0.000200
           2  0.082000 ± 0.000100  97.561 ± 0.119  0.082120 ± 0.000200
           3       under 0.000100  over 50000.000  0.083120 ± 0.000200

        release skew        server 40 ± 40 us, client under 90 us
        time to last byte   0.083120 ± 0.000200 s
        global rate         288.739 ± 0.695 Mbit/s
        errors              95 of 100 are off by less; calibrated 2026-11-23T03:00:00Z on Linux 6.18
        ");
        record.via = Via::Raw;
        record.transfers[0].counts.jitter_us = Some(12);
        record.transfers[0].counts.delay_us = Some(340);
        let text = errors.of_session(&record, None);
        assert!(text.contains("under 20    340 ± 20"), "{text}");
        record.via = Via::Swarm;
        assert!(errors.of_session(&record, None).contains("\ntime to last byte   0.083120 s\n"));
    }

    #[test]
    fn document_that_is_no_calibration_is_refused() {
        assert!(Errors::of(&calibration()).is_ok());
        for (pointer, value) in [
            ("/schema", json!("gatecast.session/1")),
            ("/errors/seconds_client_us", Value::Null),
            ("/errors/seconds_client_us/random", json!(-11.0)),
            ("/errors/seconds_client_us/systematic", json!("1")),
        ] {
            let mut bent = calibration();
            *bent.pointer_mut(pointer).expect(pointer) = value;
            assert!(Errors::of(&bent).is_err(), "{pointer}");
        }
        assert!(Errors::of(&json!([1])).is_err());
    }
}
