//! What differs between two documents of one kind: two sessions, or two studies.
//!
//! Facts (the file, the way, how many copies are proven) are the same or not. Figures differ by a
//! share of the first document's. The skew of a release varies by more than that from run to run,
//! so it is shown and never counts.

use serde_json::Value;

use crate::error::Error;
use crate::error::Result;
use crate::report::schema;
use crate::report::table::Align;
use crate::report::table::Table;
use crate::text::escape;

/// The differences between two documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    lines: Vec<Line>,
}

/// One thing that both documents say, or only one.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    what: String,
    first: String,
    second: String,
    /// (second - first) / first.
    change: Option<f64>,
    beyond: bool,
}

impl Difference {
    /// Compares `first` with `second`; figures may differ by `threshold`, a share.
    ///
    /// # Errors
    /// A document that is neither a session nor a study, or two that are not of one kind.
    pub fn between(first: &Value, second: &Value, threshold: f64) -> Result<Self> {
        let kind = |document: &Value| {
            document["schema"]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| {
                    Error::protocol("the document", "it has no schema, so it is none of ours")
                })
        };
        let (one, two) = (kind(first)?, kind(second)?);
        if one != two {
            let what = format!("a {} and a {} do not compare", escape(&one), escape(&two));
            return Err(Error::refused("gatecast", what));
        }
        let mut difference = Self { lines: Vec::new() };
        let file = match &*one {
            "gatecast.session/1" => schema::SESSION,
            "gatecast.study/1" => schema::STUDY,
            other => {
                let what = format!("{} is neither a session nor a study", escape(other));
                return Err(Error::refused("gatecast", what));
            }
        };
        schema::check(first, file)?;
        schema::check(second, file)?;
        match file == schema::SESSION {
            true => difference.sessions(first, second, threshold),
            false => difference.studies(first, second, threshold),
        }
        Ok(difference)
    }

    /// True when anything differs beyond the threshold.
    pub fn is_beyond(&self) -> bool {
        self.lines.iter().any(|line| line.beyond)
    }

    /// The differences as a table.
    pub fn to_text(&self) -> String {
        let mut table = Table::new(&[
            ("first", Align::Right),
            ("second", Align::Right),
            ("change", Align::Right),
            ("verdict", Align::Left),
            ("figure", Align::Left),
        ]);
        for line in &self.lines {
            let change = line
                .change
                .map_or_else(|| "-".to_owned(), |c| format!("{:+.1} %", c * 100.0));
            let mark = if line.beyond { "differs" } else { "same" };
            table.row([
                line.first.clone(),
                line.second.clone(),
                change,
                mark.to_owned(),
                line.what.clone(),
            ]);
        }
        table.to_string()
    }

    fn sessions(&mut self, first: &Value, second: &Value, threshold: f64) {
        for (what, pointer) in [
            ("via", "/via"),
            ("clients", "/clients"),
            ("file bytes", "/file/bytes"),
            ("file SHA-1", "/file/sha1"),
            ("numbers", "/identities"),
        ] {
            self.fact(what, first.pointer(pointer), second.pointer(pointer));
        }
        let counts = [proven(first), proven(second)].map(Value::from);
        self.fact("copies proven", Some(&counts[0]), Some(&counts[1]));
        for (what, pointer, counts) in [
            ("time to last byte, s", "/global/seconds", true),
            ("global rate, Mbit/s", "/global/rate_mbit", true),
            ("time to verified, s", "/global/seconds_verified", true),
            ("release skew, us", "/release/skew_us", false),
        ] {
            let limit = counts.then_some(threshold);
            self.figure(what, first.pointer(pointer), second.pointer(pointer), limit);
        }
    }

    fn studies(&mut self, first: &Value, second: &Value, threshold: f64) {
        let rows = |document: &Value| document["rows"].as_array().cloned().unwrap_or_default();
        let (first, mut second) = (rows(first), rows(second));
        for row in first {
            let place = second.iter().position(|other| key(other) == key(&row));
            let other = place.map(|place| second.remove(place));
            self.row(Some(&row), other.as_ref(), threshold);
        }
        for row in second {
            self.row(None, Some(&row), threshold);
        }
    }

    fn row(&mut self, first: Option<&Value>, second: Option<&Value>, threshold: f64) {
        let Some(row) = first.or(second) else { return };
        let name = format!(
            "{} to {}, {} B, {} Mbit/s, loss {}",
            row["via"].as_str().map(escape).unwrap_or_default(),
            row["clients"],
            row["bytes"],
            row["rate_nominal_mbit"],
            row["loss"]
        );
        let of =
            |row: Option<&Value>, pointer: &str| row.and_then(|row| row.pointer(pointer)).cloned();
        let (one, two) = (of(first, "/verified"), of(second, "/verified"));
        self.fact(&format!("{name}: proven"), one.as_ref(), two.as_ref());
        let (one, two) = (
            of(first, "/makespan_s/median"),
            of(second, "/makespan_s/median"),
        );
        self.figure(
            &format!("{name}: s"),
            one.as_ref(),
            two.as_ref(),
            Some(threshold),
        );
    }

    fn fact(&mut self, what: &str, first: Option<&Value>, second: Option<&Value>) {
        self.lines.push(Line {
            what: what.to_owned(),
            first: shown(first),
            second: shown(second),
            change: None,
            beyond: first != second,
        });
    }

    /// A figure; without a `limit` it is only shown.
    fn figure(
        &mut self,
        what: &str,
        first: Option<&Value>,
        second: Option<&Value>,
        limit: Option<f64>,
    ) {
        let (one, two) = (
            first.and_then(Value::as_f64),
            second.and_then(Value::as_f64),
        );
        let change = one.zip(two).and_then(|(one, two)| match one == two {
            true => Some(0.0),
            false => (one != 0.0).then(|| (two - one) / one),
        });
        let beyond = match (one, two, change) {
            (None, None, _) => false,
            (_, _, Some(change)) => limit.is_some_and(|limit| change.abs() > limit),
            // Known on one side only, or from nothing to something.
            _ => limit.is_some(),
        };
        self.lines.push(Line {
            what: what.to_owned(),
            first: shown(first),
            second: shown(second),
            change,
            beyond,
        });
    }
}

/// What makes two rows of studies the same test.
fn key(row: &Value) -> [Option<&Value>; 5] {
    ["via", "clients", "bytes", "rate_nominal_mbit", "loss"].map(|name| row.get(name))
}

fn proven(session: &Value) -> usize {
    let results = session["results"].as_array().into_iter().flatten();
    let proven = |result: &&Value| result["outcome"] == "complete" && result["verified"] == true;
    results.filter(proven).count()
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        // A digest by its beginning: whether it is the same the verdict says.
        Some(Value::String(text)) if text.len() == 40 => {
            escape(&text[..text.floor_char_boundary(12)])
        }
        Some(Value::String(text)) => escape(text),
        Some(Value::Array(list)) => format!("{} broken", list.len()),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::json::SessionDocument;
    use crate::report::sample;
    use crate::transfer::Outcome;
    use crate::transfer::Record;

    fn document(record: &Record) -> Value {
        serde_json::from_str(&SessionDocument::new(record).to_line()).expect("JSON")
    }

    fn between(first: &Record, second: &Record, threshold: f64) -> Difference {
        Difference::between(&document(first), &document(second), threshold).expect("comparable")
    }

    #[test]
    fn a_session_is_itself_and_a_slower_one_is_beyond() {
        let base = sample::session(1, 3, 80);
        assert!(!between(&base, &base, 0.0).is_beyond());
        let slower = sample::session(2, 3, 90);
        let difference = between(&base, &slower, 0.05);
        assert!(difference.is_beyond());
        insta::assert_snapshot!(difference.to_text(), @"
               first        second   change  verdict  figure
        ------------  ------------  -------  -------  --------------------
                 tcp           tcp        -  same     via
                   3             3        -  same     clients
             1000000       1000000        -  same     file bytes
        3c5b49277674  3c5b49277674        -  same     file SHA-1
                hold          hold        -  same     numbers
                   3             3        -  same     copies proven
             0.08312       0.09312  +12.0 %  differs  time to last byte, s
          288.739172    257.731959  -10.7 %  differs  global rate, Mbit/s
               0.086         0.096  +11.6 %  differs  time to verified, s
                  40            40   +0.0 %  same     release skew, us
        ");
        assert!(!between(&base, &slower, 0.2).is_beyond());
        assert!(
            between(&slower, &base, 0.05).is_beyond(),
            "faster differs as well"
        );
    }

    #[test]
    fn a_copy_less_or_another_file_is_beyond_whatever_the_threshold() {
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
        assert!(
            between(&base, &unknown, 100.0).is_beyond(),
            "a figure that is missing"
        );
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
            Difference::between(&base, &study(rows), 0.1)
                .expect("comparable")
                .is_beyond()
        };
        assert!(
            !beyond(&[row("tcp", 4, json!(0.41)), row("tcp", 1, json!(0.1))]),
            "in another order"
        );
        assert!(beyond(&[
            row("tcp", 1, json!(0.1)),
            row("tcp", 4, json!(0.5))
        ]));
        assert!(beyond(&[row("tcp", 1, json!(0.1))]), "a row less");
        assert!(
            beyond(&[
                row("tcp", 1, json!(0.1)),
                row("tcp", 4, json!(0.4)),
                row("udp", 4, json!(0.4))
            ]),
            "a row more"
        );
        assert!(beyond(&[
            row("tcp", 1, json!(0.1)),
            row("tcp", 4, Value::Null)
        ]));
    }

    #[test]
    fn what_is_no_document_of_ours_is_refused() {
        let session = document(&sample::session(1, 1, 80));
        for other in [
            json!({}),
            json!([]),
            json!({"schema": "x/1"}),
            json!({"schema": "gatecast.session/1"}),
            json!({"schema": "gatecast.study/1"}),
        ] {
            Difference::between(&session, &other, 0.1).expect_err("no session");
            Difference::between(&other, &other, 0.1).expect_err("none of ours");
        }
    }
}
