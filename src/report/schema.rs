//! Holds documents to their schemas (JSON Schema 2020-12, as far as ours go).
//!
//! The schema files stand beside the types that they describe. What reads a document back checks
//! it here first, so that a foreign file is an error that names the place, and tests hold every
//! document to them that they make. A keyword that is not known here is an error and not ignored.

use serde_json::Value;

use crate::error::Error;
use crate::error::Result;

/// The schema of `gatecast.session/1`.
pub const SESSION: &str = include_str!("session.schema.json");

/// The schema of `gatecast.relay/1`, `gatecast.watch/1` and `gatecast.visits/1`.
pub const LIVE: &str = include_str!("relay/relay.schema.json");

/// The schema of `gatecast.study/1`.
pub const STUDY: &str = include_str!("../testbed/study/study.schema.json");

/// Keywords that say nothing about a value.
const REMARKS: [&str; 4] = ["$schema", "$id", "title", "$defs"];

/// Checks `document` against `schema`, the text of a schema file.
///
/// # Errors
/// The first place that does not fit, as a path, and what is wrong there.
pub fn check(document: &Value, schema: &str) -> Result<()> {
    let schema: Value = serde_json::from_str(schema)
        .map_err(|error| Error::protocol("the schema", error.to_string()))?;
    let place = Place {
        root: &schema,
        path: String::new(),
    };
    place
        .fits(document, &schema)
        .map_err(|fault| Error::protocol("the document", fault))
}

/// A place in the document that is looked at.
struct Place<'a> {
    root: &'a Value,
    path: String,
}

impl Place<'_> {
    /// The place below this one.
    fn at(&self, step: &str) -> Self
    where
        Self: Sized,
    {
        Place {
            root: self.root,
            path: format!("{}/{}", self.path, crate::text::escape(step)),
        }
    }

    fn fits(&self, value: &Value, schema: &Value) -> Result<(), String> {
        let Some(rules) = schema.as_object() else {
            return self.fault("a schema that is no object");
        };
        for (keyword, rule) in rules {
            match keyword.as_str() {
                "$ref" => self.fits(value, self.refers(rule)?)?,
                "type" => self.is_of(value, rule)?,
                "const" if value != rule => return self.fault(&format!("not {rule}")),
                "enum" if rule.as_array().is_none_or(|all| !all.contains(value)) => {
                    return self.fault("none of the known words");
                }
                "minimum" if compares(value, rule, |v, r| v < r) => {
                    return self.fault(&format!("below {rule}"));
                }
                "maximum" if compares(value, rule, |v, r| v > r) => {
                    return self.fault(&format!("above {rule}"));
                }
                "pattern" => self.matches(value, rule)?,
                "required" => self.has_all(value, rule)?,
                "properties" => self.members(value, rule)?,
                "items" => self.items(value, rule)?,
                "maxItems" if length(value) > rule.as_u64() => {
                    return self.fault(&format!("more than {rule} items"));
                }
                "oneOf" => self.fits_one(value, rule)?,
                "const" | "enum" | "minimum" | "maximum" | "maxItems" => {}
                _ if REMARKS.contains(&keyword.as_str()) => {}
                other => {
                    return self.fault(&format!("the schema's keyword '{other}' is not known"));
                }
            }
        }
        Ok(())
    }

    fn fault<T>(&self, what: &str) -> Result<T, String> {
        Err(format!(
            "{}: {what}",
            if self.path.is_empty() {
                "/"
            } else {
                &self.path
            }
        ))
    }

    fn refers(&self, rule: &Value) -> Result<&Value, String> {
        let found = rule
            .as_str()
            .and_then(|text| self.root.pointer(text.strip_prefix('#')?));
        found.map_or_else(|| self.fault("the schema refers to nothing"), Ok)
    }

    fn is_of(&self, value: &Value, rule: &Value) -> Result<(), String> {
        let is = |word: &Value| match word.as_str() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("null") => value.is_null(),
            Some("number") => value.is_number(),
            Some("integer") => value.is_u64() || value.is_i64(),
            _ => false,
        };
        let fits = rule
            .as_array()
            .map_or_else(|| is(rule), |all| all.iter().any(is));
        match fits {
            true => Ok(()),
            false => self.fault(&format!("not of the type {rule}")),
        }
    }

    /// Patterns of our schemas are `^[0-9a-f]{N}$`.
    fn matches(&self, value: &Value, rule: &Value) -> Result<(), String> {
        let length = rule
            .as_str()
            .and_then(|text| text.strip_prefix("^[0-9a-f]{")?.strip_suffix("}$"))
            .and_then(|digits| digits.parse::<usize>().ok());
        let Some(length) = length else {
            return self.fault(&format!("the schema's pattern {rule} is not known"));
        };
        let plain = |text: &str| {
            text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        match value.as_str().is_none_or(plain) {
            true => Ok(()),
            false => self.fault(&format!("not {length} lower-case hexadecimal digits")),
        }
    }

    fn has_all(&self, value: &Value, rule: &Value) -> Result<(), String> {
        let names = rule
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        for name in names {
            if value
                .as_object()
                .is_some_and(|members| !members.contains_key(name))
            {
                return self.fault(&format!("no '{name}'"));
            }
        }
        Ok(())
    }

    fn members(&self, value: &Value, rule: &Value) -> Result<(), String> {
        for (name, rule) in rule.as_object().into_iter().flatten() {
            if let Some(member) = value.get(name) {
                self.at(name).fits(member, rule)?;
            }
        }
        Ok(())
    }

    fn items(&self, value: &Value, rule: &Value) -> Result<(), String> {
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            self.at(&index.to_string()).fits(item, rule)?;
        }
        Ok(())
    }

    fn fits_one(&self, value: &Value, rule: &Value) -> Result<(), String> {
        let choices = rule.as_array().map(Vec::as_slice).unwrap_or_default();
        let faults: Vec<_> = choices
            .iter()
            .filter_map(|rule| self.fits(value, rule).err())
            .collect();
        match choices.len() - faults.len() {
            1 => Ok(()),
            0 => Err(faults.join("; or ")),
            _ => self.fault("fits several forms of which it may have one"),
        }
    }
}

/// Whether two numbers compare so; anything that is no number does not compare.
fn compares(value: &Value, rule: &Value, so: fn(f64, f64) -> bool) -> bool {
    let numbers = value.as_f64().zip(rule.as_f64());
    numbers.is_some_and(|(value, rule)| so(value, rule))
}

fn length(value: &Value) -> Option<u64> {
    u64::try_from(value.as_array()?.len()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::json::SessionDocument;
    use crate::report::sample;

    fn session() -> Value {
        let text = SessionDocument::new(&sample::session(1, 2, 80)).to_line();
        serde_json::from_str(&text).expect("JSON")
    }

    #[test]
    fn every_sample_session_fits() {
        for records in [
            vec![sample::session(1, 3, 50)],
            vec![sample::troubled()],
            vec![
                sample::session(1, 3, 50),
                sample::troubled(),
                sample::session(3, 200, 5),
            ],
        ] {
            let text = SessionDocument::of(&records).expect("a session").to_text();
            let document = serde_json::from_str(&text).expect("JSON");
            check(&document, SESSION).expect("fits");
        }
    }

    #[test]
    fn every_bent_session_is_refused_with_its_place() {
        let bend = |pointer: &str, value: Value| {
            let mut document = session();
            *document.pointer_mut(pointer).expect(pointer) = value;
            check(&document, SESSION).expect_err(pointer).to_string()
        };
        for (pointer, value, says) in [
            (
                "/schema",
                json!("gatecast.session/2"),
                "/schema: not \"gatecast.session/1\"",
            ),
            ("/session", json!("xyz"), "/session: not 16"),
            ("/via", json!("pigeon"), "/via: none of"),
            ("/file/bytes", json!(-1), "/file/bytes: below 0"),
            ("/file/bytes", json!(1.5), "/file/bytes: not of the type"),
            ("/clients", json!(10_001), "/clients: above"),
            (
                "/results/1/seat",
                Value::Null,
                "/results/1/seat: not of the type",
            ),
            (
                "/results/0/outcome",
                json!("fine"),
                "/results/0/outcome: none of",
            ),
            ("/results/0", json!({}), "/results/0: no 'seat'"),
            ("/results", json!({}), "/results: not of the type"),
            ("/identities", json!("broken"), "/identities: not \"hold\""),
            (
                "/global/seconds",
                json!("1"),
                "/global/seconds: not of the type",
            ),
        ] {
            let error = bend(pointer, value);
            assert!(error.contains(says), "{says}: {error}");
        }
        for name in ["global", "release", "identities", "sender"] {
            let mut document = session();
            document.as_object_mut().expect("an object").remove(name);
            assert!(check(&document, SESSION).is_err(), "{name}");
        }
        check(&json!([]), SESSION).expect_err("no object");
    }

    #[test]
    fn a_study_as_the_contract_has_it_fits() {
        let row = json!({
            "via": "tcp", "clients": 4, "bytes": 1_000_000, "rate_nominal_mbit": 100.0, "loss": 0.01,
            "runs": 3, "makespan_s": {"median": 0.4, "low": 0.3, "high": 0.5}, "bound_s": 0.33,
            "bound_nominal_s": 0.32, "efficiency": 0.8, "verified": true
        });
        let study = |row: &Value| json!({"schema": "gatecast.study/1", "environment": {}, "calibration": [], "rows": [row]});
        check(&study(&row), STUDY).expect("fits");
        for (name, value) in [
            ("loss", json!(2)),
            ("clients", json!(0)),
            ("verified", Value::Null),
            ("makespan_s", json!({"median": 1})),
            ("makespan_s", json!(1)),
        ] {
            let mut bent = row.clone();
            bent[name] = value;
            check(&study(&bent), STUDY).expect_err(name);
        }
        let mut failed = row;
        failed["makespan_s"] = Value::Null;
        failed["efficiency"] = Value::Null;
        check(&study(&failed), STUDY).expect("a row of runs that failed");
    }

    #[test]
    fn what_a_schema_says_and_nobody_checks_is_an_error() {
        for schema in [
            r#"{"format": "date"}"#,
            r##"{"$ref": "#/$defs/none"}"##,
            r#"{"pattern": ".*"}"#,
            "3",
            "{",
        ] {
            assert!(check(&json!("x"), schema).is_err(), "{schema}");
        }
    }
}
