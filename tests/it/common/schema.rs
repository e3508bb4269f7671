//! Holds documents that the program writes to their schema files (JSON Schema 2020-12).

use serde_json::Value;

/// `gatecast.session/1`
pub(crate) const SESSION: &str = include_str!("../../../src/report/session.schema.json");
/// `gatecast.event/1`
pub(crate) const EVENT: &str = include_str!("../../../src/http/event.schema.json");
/// `gatecast.relay/1`, `gatecast.watch/1` and `gatecast.visits/1`
pub(crate) const LIVE: &str = include_str!("../../../src/proto/relay/relay.schema.json");
/// `gatecast.study/1`
pub(crate) const STUDY: &str = include_str!("../../../src/testbed/study/study.schema.json");

/// Checks that `document` fits `schema`, the text of a schema file.
pub(crate) fn check(document: &Value, schema: &str) {
    let schema = serde_json::from_str(schema).expect("a schema is JSON");
    if let Err(error) = jsonschema::draft202012::validate(&schema, document) {
        panic!("{}: {error}: {document}", error.instance_path());
    }
}
