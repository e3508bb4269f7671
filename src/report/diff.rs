//! What differs between two documents of one kind: two sessions, or two studies.
//!
//! Facts (the file, the way, how many copies are proven) are the same or not. Figures differ by a
//! share of the first document's. The skew of a release varies by more than that from run to run,
//! so it is shown and never counts. Fields that are not compared are ignored.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Number, Value};

use crate::{
    error::{Error, Result},
    report::{
        json,
        table::{Align, Table, or_dash},
    },
    text::escape,
};

/// The differences between two documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    threshold: f64,
    rows: Vec<DiffRow>,
}

/// One thing that both documents say, or only one.
#[derive(Clone, Debug, PartialEq)]
struct DiffRow {
    name: String,
    first: String,
    second: String,
    /// (second - first) / first.
    change: Option<f64>,
    /// Whether it differs beyond the threshold; `None` where it never counts.
    beyond: Option<bool>,
}

/// The fields of a session document that are compared.
#[derive(Deserialize)]
struct SessionFacts {
    via: String,
    clients: u64,
    file: FileFacts,
    identities: Value,
    results: Vec<ResultFacts>,
    global: GlobalFigures,
    release: ReleaseFigures,
}

#[derive(Deserialize)]
struct FileFacts {
    bytes: u64,
    sha1: String,
}

#[derive(Deserialize)]
struct ResultFacts {
    outcome: String,
    verified: Option<bool>,
}

#[derive(Deserialize)]
struct GlobalFigures {
    seconds: Option<Number>,
    rate_mbit: Option<Number>,
    seconds_verified: Option<Number>,
}

#[derive(Deserialize)]
struct ReleaseFigures {
    skew_us: Option<Number>,
}

/// The fields of a study document that are compared.
#[derive(Deserialize)]
struct StudyFacts {
    rows: Vec<StudyRowFacts>,
}

#[derive(Deserialize)]
struct StudyRowFacts {
    #[serde(flatten)]
    test: StudyTest,
    verified: bool,
    makespan_s: Option<MakespanFigures>,
}

/// What makes two rows of studies the same test.
#[derive(PartialEq, Deserialize)]
struct StudyTest {
    via: String,
    clients: u64,
    bytes: u64,
    rate_nominal_mbit: Number,
    loss: Number,
}

#[derive(Deserialize)]
struct MakespanFigures {
    median: Option<Number>,
}

impl Difference {
    /// Compares `first` with `second`; figures may differ by `threshold`, a share.
    ///
    /// # Errors
    /// A document that is neither a session nor a study, or two that are not of one kind.
    pub fn between(first: &Value, second: &Value, threshold: f64) -> Result<Self> {
        let (schema, other) = (schema_of(first)?, schema_of(second)?);
        if schema != other {
            let why = format!("a {} and a {} do not compare", escape(schema), escape(other));
            return Err(Error::refused("gatecast", why));
        }
        let mut difference = Self { threshold, rows: Vec::new() };
        match schema {
            json::SCHEMA => difference.compare_sessions(&read(first)?, &read(second)?),
            "gatecast.study/1" => difference.compare_studies(read(first)?, read(second)?),
            other => {
                let why = format!("{} is neither a session nor a study", escape(other));
                return Err(Error::refused("gatecast", why));
            }
        }
        Ok(difference)
    }

    /// True when anything differs beyond the threshold.
    pub fn is_beyond(&self) -> bool {
        self.rows.iter().any(|row| row.beyond == Some(true))
    }

    /// The differences as a table, in `limit` columns of a terminal.
    pub fn to_text(&self, limit: Option<usize>) -> String {
        let mut table = Table::new(&[
            ("first", Align::Right, 0),
            ("second", Align::Right, 0),
            ("change", Align::Right, 2),
            ("verdict", Align::Left, 1),
            ("figure", Align::Left, 0),
        ]);
        for row in &self.rows {
            let mark = row.beyond.map(|beyond| if beyond { "differs" } else { "same" });
            table.row([
                row.first.clone(),
                row.second.clone(),
                or_dash(row.change.map(|c| format!("{:+.1} %", c * 100.0))),
                or_dash(mark),
                row.name.clone(),
            ]);
        }
        table.fitted(limit)
    }

    fn compare_sessions(&mut self, first: &SessionFacts, second: &SessionFacts) {
        let both = [first, second];
        self.fact("via", both.map(|s| &s.via), |via| escape(via));
        self.fact("clients", both.map(|s| s.clients), |n| n.to_string());
        self.fact("file bytes", both.map(|s| s.file.bytes), |n| n.to_string());
        // By its beginning: the verdict says whether it is the same.
        let beginning = |sha1: &String| escape(&sha1.chars().take(12).collect::<String>());
        self.fact("file SHA-1", both.map(|s| &s.file.sha1), beginning);
        self.fact("figures", both.map(|s| &s.identities), |identities| match identities {
            Value::Array(broken) => format!("{} broken", broken.len()),
            Value::String(hold) if hold == "hold" => "consistent".to_owned(),
            other => escape(other.as_str().unwrap_or("-")),
        });
        self.fact("copies proven", both.map(proven), |n| n.to_string());
        let (one, two) = (&first.global, &second.global);
        let name = "time to last byte, s";
        self.figure(name, [&one.seconds, &two.seconds], true);
        let name = "global rate, Mbit/s";
        self.figure(name, [&one.rate_mbit, &two.rate_mbit], true);
        let name = "time to verified, s";
        self.figure(name, [&one.seconds_verified, &two.seconds_verified], true);
        let skews = [&first.release.skew_us, &second.release.skew_us];
        self.figure("release skew, us", skews, false);
    }

    fn compare_studies(&mut self, first: StudyFacts, mut second: StudyFacts) {
        for row in first.rows {
            let place = second.rows.iter().position(|other| other.test == row.test);
            let other = place.map(|place| second.rows.remove(place));
            self.compare_rows(&row.test, [Some(&row), other.as_ref()]);
        }
        for row in &second.rows {
            self.compare_rows(&row.test, [None, Some(row)]);
        }
    }

    fn compare_rows(&mut self, test: &StudyTest, rows: [Option<&StudyRowFacts>; 2]) {
        let name = format!(
            "{} to {}, {} B, {} Mbit/s, loss {}",
            escape(&test.via),
            test.clients,
            test.bytes,
            test.rate_nominal_mbit,
            test.loss
        );
        let verified = rows.map(|row| row.map(|row| row.verified));
        self.fact(&format!("{name}: proven"), verified, or_dash);
        let medians = rows.map(|row| row?.makespan_s.as_ref()?.median.clone());
        let [one, two] = &medians;
        self.figure(&format!("{name}: s"), [one, two], true);
    }

    fn fact<T: PartialEq>(&mut self, name: &str, values: [T; 2], show: fn(T) -> String) {
        let same = values[0] == values[1];
        let [first, second] = values.map(show);
        self.rows.push(DiffRow {
            name: name.to_owned(),
            first,
            second,
            change: None,
            beyond: Some(!same),
        });
    }

    /// A figure; one that does not count is only shown.
    fn figure(&mut self, name: &str, values: [&Option<Number>; 2], counts: bool) {
        let [one, two] = values.map(|value| value.as_ref().and_then(Number::as_f64));
        let change = one.zip(two).and_then(|(one, two)| {
            if one == two {
                return Some(0.0);
            }
            (one != 0.0).then(|| (two - one) / one)
        });
        let beyond = match (one, two, change) {
            (None, None, _) => false,
            (_, _, Some(change)) => change.abs() > self.threshold,
            // Known on one side only, or from nothing to something.
            _ => true,
        };
        let [first, second] = values.map(|value| or_dash(value.as_ref()));
        self.rows.push(DiffRow {
            name: name.to_owned(),
            first,
            second,
            change,
            beyond: counts.then_some(beyond),
        });
    }
}

fn schema_of(document: &Value) -> Result<&str> {
    let missing = || Error::refused("gatecast", "not a gatecast document: \"schema\" is missing");
    document["schema"].as_str().ok_or_else(missing)
}

fn read<T: DeserializeOwned>(document: &Value) -> Result<T> {
    serde_json::from_value(document.clone())
        .map_err(|error| Error::protocol("the document", escape(&error.to_string())))
}

fn proven(session: &SessionFacts) -> usize {
    let results = session.results.iter();
    results.filter(|result| result.outcome == "complete" && result.verified == Some(true)).count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        report::{
            json, sample,
            table::{WIDTH_MIN, width},
        },
        transfer::{Outcome, Record},
    };

    fn document(record: &Record) -> Value {
        serde_json::from_str(&json::session(record)).expect("JSON")
    }

    fn between(first: &Record, second: &Record, threshold: f64) -> Difference {
        Difference::between(&document(first), &document(second), threshold).expect("comparable")
    }

    #[test]
    fn slower_session_is_beyond_the_threshold() {
        let base = sample::session(1, 3, 80);
        assert!(!between(&base, &base, 0.0).is_beyond());
        let slower = sample::session(2, 3, 90);
        let difference = between(&base, &slower, 0.05);
        assert!(difference.is_beyond());
        insta::assert_snapshot!(difference.to_text(None), @"
               first        second   change  verdict  figure
        ------------  ------------  -------  -------  --------------------
                 tcp           tcp        -  same     via
                   3             3        -  same     clients
             1000000       1000000        -  same     file bytes
        3c5b49277674  3c5b49277674        -  same     file SHA-1
          consistent    consistent        -  same     figures
                   3             3        -  same     copies proven
             0.08312       0.09312  +12.0 %  differs  time to last byte, s
          288.739172    257.731959  -10.7 %  differs  global rate, Mbit/s
               0.086         0.096  +11.6 %  differs  time to verified, s
                  40            40   +0.0 %  -        release skew, us
        ");
        for limit in WIDTH_MIN..=250 {
            for line in difference.to_text(Some(limit)).lines() {
                assert!(width(line) <= limit, "{limit}: {line}");
            }
        }
        assert!(!between(&base, &slower, 0.2).is_beyond());
        assert!(between(&slower, &base, 0.05).is_beyond(), "faster differs as well");
    }

    #[test]
    fn lost_copy_or_other_file_is_always_beyond() {
        let base = sample::session(1, 3, 80);
        let mut lost = base.clone();
        lost.transfers[1].fail(Outcome::Cut, "gone");
        assert!(between(&base, &lost, 100.0).is_beyond());
        let mut other = base.clone();
        other.file.sha1 = crate::digest::Digest::of(b"other");
        assert!(between(&base, &other, 100.0).is_beyond());
        let mut unknown = base.clone();
        unknown.transfers.iter_mut().for_each(|t| {
            (t.seconds_server, t.seconds_client) = (None, None);
        });
        assert!(between(&base, &unknown, 100.0).is_beyond(), "a figure that is missing");
    }

    #[test]
    fn studies_compare_row_by_row() {
        let row = |via: &str, clients: u16, median: Value| {
            json!({
                "via": via, "clients": clients, "bytes": 1_000_000, "rate_nominal_mbit": 100.0, "loss": 0.0, "runs": 3,
                "makespan_s": {"median": median, "low": median, "high": median},
                "bound_s": 0.1, "bound_nominal_s": 0.1, "efficiency": 0.5, "verified": true
            })
        };
        let study = |rows: &[Value]| json!({"schema": "gatecast.study/1", "environment": {}, "calibration": [], "rows": rows});
        let base = study(&[row("tcp", 1, json!(0.1)), row("tcp", 4, json!(0.4))]);
        let beyond = |rows: &[Value]| {
            Difference::between(&base, &study(rows), 0.1).expect("comparable").is_beyond()
        };
        assert!(
            !beyond(&[row("tcp", 4, json!(0.41)), row("tcp", 1, json!(0.1))]),
            "in another order"
        );
        assert!(beyond(&[row("tcp", 1, json!(0.1)), row("tcp", 4, json!(0.5))]));
        assert!(beyond(&[row("tcp", 1, json!(0.1))]), "a row less");
        assert!(
            beyond(&[
                row("tcp", 1, json!(0.1)),
                row("tcp", 4, json!(0.4)),
                row("udp", 4, json!(0.4))
            ]),
            "a row more"
        );
        assert!(beyond(&[row("tcp", 1, json!(0.1)), row("tcp", 4, Value::Null)]));
    }

    #[test]
    fn other_documents_are_refused() {
        let session = document(&sample::session(1, 1, 80));
        for other in [
            json!({}),
            json!([]),
            json!({"schema": "x/1"}),
            json!({"schema": "gatecast.session/1"}),
            json!({"schema": "gatecast.study/1"}),
        ] {
            Difference::between(&session, &other, 0.1).expect_err("no session");
            Difference::between(&other, &other, 0.1).expect_err("not a gatecast document");
        }
    }
}
