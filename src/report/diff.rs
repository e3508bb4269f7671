//! What differs between two documents of one kind: two sessions, or two studies.
//!
//! Facts (the file, the way, how many copies are proven) are the same or not. Figures differ by a
//! share of the first document's. The skew of a release varies by more than that from run to run,
//! so it is shown and never counts. Fields that are not compared are ignored.

use serde_json::Value;

use crate::{
    error::{Error, Result},
    report::{
        json,
        table::{Align, ColumnOf, Table, or_dash},
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

/// What makes two rows of studies the same test.
const TEST: [&str; 5] = ["via", "clients", "bytes", "rate_nominal_mbit", "loss"];

/// The figures of a session: the name, the place in the document, and whether a change counts.
const FIGURES: [(&str, &str, bool); 4] = [
    ("time to last byte, s", "/global/seconds", true),
    ("global rate, Mbit/s", "/global/rate_mbit", true),
    ("time to verified, s", "/global/seconds_verified", true),
    ("release skew, us", "/release/skew_us", false),
];

impl Difference {
    /// Compares `first` with `second`; figures may differ by `threshold`, a share.
    ///
    /// # Errors
    /// A document that is neither a session nor a study, or two that are not of one kind.
    pub fn between(first: &Value, second: &Value, threshold: f64) -> Result<Self> {
        let (schema, other) = (schema_of(first)?, schema_of(second)?);
        let refuse = |why: String| Err(Error::refused("gatecast", why));
        if schema != other {
            return refuse(format!("a {} and a {} do not compare", escape(schema), escape(other)));
        }
        let mut difference = Self { threshold, rows: Vec::new() };
        match schema {
            json::SCHEMA => difference.compare_sessions([first, second])?,
            "gatecast.study/1" => difference.compare_studies(first, second)?,
            other => return refuse(format!("{} is neither a session nor a study", escape(other))),
        }
        Ok(difference)
    }

    /// True when anything differs beyond the threshold.
    pub fn is_beyond(&self) -> bool {
        self.rows.iter().any(|row| row.beyond == Some(true))
    }

    /// The differences as a table, in `limit` columns of a terminal.
    pub fn to_text(&self, limit: Option<usize>) -> String {
        let columns: [ColumnOf<DiffRow>; 5] = [
            ("first", Align::Right, 0, |row| row.first.clone()),
            ("second", Align::Right, 0, |row| row.second.clone()),
            ("change", Align::Right, 2, |row| {
                or_dash(row.change.map(|change| format!("{:+.1} %", change * 100.0)))
            }),
            ("verdict", Align::Left, 1, |row| {
                or_dash(row.beyond.map(|beyond| if beyond { "differs" } else { "same" }))
            }),
            ("figure", Align::Left, 0, |row| row.name.clone()),
        ];
        Table::of(&columns, &self.rows).fitted(limit)
    }

    fn compare_sessions(&mut self, both: [&Value; 2]) -> Result<()> {
        let [first, second] = both;
        let of_both = |place| Ok::<_, Error>([member(first, place)?, member(second, place)?]);
        self.fact("via", of_both("/via")?, shown);
        self.fact("clients", of_both("/clients")?, shown);
        self.fact("file bytes", of_both("/file/bytes")?, shown);
        // By its beginning: the verdict says whether it is the same.
        let beginning = |sha1: &Value| shown(sha1).chars().take(12).collect();
        self.fact("file SHA-1", of_both("/file/sha1")?, beginning);
        self.fact("figures", of_both("/identities")?, |identities| match identities {
            Value::Array(broken) => format!("{} broken", broken.len()),
            hold if hold == "hold" => "consistent".to_owned(),
            other => shown(other),
        });
        self.fact("copies proven", [proven(first)?, proven(second)?], |n| n.to_string());
        for (name, place, counts) in FIGURES {
            self.figure(name, of_both(place)?, counts)?;
        }
        Ok(())
    }

    fn compare_studies(&mut self, first: &Value, second: &Value) -> Result<()> {
        let mut others: Vec<&Value> = list(second, "/rows")?.iter().collect();
        for row in list(first, "/rows")? {
            let is_same = |other: &&Value| TEST.iter().all(|name| other[*name] == row[*name]);
            let other = others.iter().position(is_same).map(|place| others.remove(place));
            self.compare_rows(row, [Some(row), other])?;
        }
        for row in others {
            self.compare_rows(row, [None, Some(row)])?;
        }
        Ok(())
    }

    fn compare_rows(&mut self, test: &Value, rows: [Option<&Value>; 2]) -> Result<()> {
        let [via, clients, bytes, rate, loss] = TEST.map(|name| shown(&test[name]));
        let name = format!("{via} to {clients}, {bytes} B, {rate} Mbit/s, loss {loss}");
        let of_both =
            |place| rows.map(|row| row.and_then(|row| row.pointer(place)).unwrap_or(&Value::Null));
        self.fact(&format!("{name}: proven"), of_both("/verified"), shown);
        self.figure(&format!("{name}: s"), of_both("/makespan_s/median"), true)
    }

    fn fact<T: PartialEq>(&mut self, name: &str, values: [T; 2], show: fn(T) -> String) {
        let beyond = Some(values[0] != values[1]);
        let [first, second] = values.map(show);
        self.rows.push(DiffRow { name: name.to_owned(), first, second, change: None, beyond });
    }

    /// A figure; one that does not count is only shown.
    fn figure(&mut self, name: &str, values: [&Value; 2], counts: bool) -> Result<()> {
        if let Some(wrong) = values.iter().find(|value| !value.is_number() && !value.is_null()) {
            let what = format!("{name}: {} is not a number", shown(wrong));
            return Err(Error::protocol("the document", what));
        }
        let [one, two] = values.map(Value::as_f64);
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
        let beyond = counts.then_some(beyond);
        let [first, second] = values.map(shown);
        self.rows.push(DiffRow { name: name.to_owned(), first, second, change, beyond });
        Ok(())
    }
}

fn schema_of(document: &Value) -> Result<&str> {
    let missing = || Error::refused("gatecast", "not a gatecast document: \"schema\" is missing");
    document["schema"].as_str().ok_or_else(missing)
}

/// What stands at `place` of a document, which is null where it is not known.
fn member<'a>(document: &'a Value, place: &str) -> Result<&'a Value> {
    let missing = || Error::protocol("the document", format!("{place} is missing"));
    document.pointer(place).ok_or_else(missing)
}

fn list<'a>(document: &'a Value, place: &str) -> Result<&'a [Value]> {
    let wrong = || Error::protocol("the document", format!("{place} is not a list"));
    member(document, place)?.as_array().map(Vec::as_slice).ok_or_else(wrong)
}

fn proven(session: &Value) -> Result<usize> {
    let results = list(session, "/results")?.iter();
    let is_proven = |result: &&Value| result["outcome"] == "complete" && result["verified"] == true;
    Ok(results.filter(is_proven).count())
}

/// A value as a cell.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => escape(text),
        other => escape(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        report::{json, sample, table::WIDTH_MIN},
        text::width,
        transfer::{Outcome, Record},
    };

    fn document(record: &Record) -> Value {
        serde_json::from_str(&json::session(record, None)).expect("JSON")
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
    fn figure_that_is_no_number_is_refused() {
        let base = document(&sample::session(1, 3, 80));
        let mut wrong = base.clone();
        wrong["global"]["seconds"] = json!("0.1\u{1b}");
        let error = Difference::between(&base, &wrong, 0.0).expect_err("no number").to_string();
        let expected = "time to last byte, s: 0.1\\u{1b} is not a number";
        assert!(error.contains(expected), "{error}");
        let study = |median: Value| json!({"schema": "gatecast.study/1", "rows": [{"makespan_s": {"median": median}}]});
        let compared = Difference::between(&study(json!(1.5)), &study(json!([])), 0.0);
        assert!(compared.expect_err("no number").to_string().contains("[] is not a number"));
        Difference::between(&study(json!(1.5)), &study(Value::Null), 0.0).expect("unknown");
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
