//! JSON written by hand, for the faces that a build without `serde` has too. Only a writer: what
//! reads JSON has feature `cli`.
//!
//! Text from outside is written so that it can neither end its string nor move a cursor: what
//! [`escape`](crate::text::escape) holds for unsafe is a JSON escape, which a parser undoes.

use std::fmt::{Display, Write};

/// A document being written. Calls nest as the document does; commas come by themselves.
#[derive(Clone, Debug, Default)]
pub struct Json {
    text: String,
}

impl Json {
    /// An object whose members `write` adds.
    pub fn object(write: impl FnOnce(&mut Self)) -> String {
        let mut json = Self::default();
        json.braced('{', '}', write);
        json.text
    }

    /// A member that is an object.
    pub fn member(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.name(name);
        self.braced('{', '}', write);
    }

    /// A member that is a list.
    pub fn list(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.name(name);
        self.braced('[', ']', write);
    }

    /// A member that is a list with an object for each of `items`.
    pub fn each<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.list(name, |json| items.into_iter().for_each(|of| json.item(|json| write(json, of))));
    }

    /// A member that is an object, or null.
    pub fn maybe_member<T>(&mut self, name: &str, of: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match of {
            Some(of) => self.member(name, |json| write(json, of)),
            None => self.raw(name, "null"),
        }
    }

    /// An item of a list that is an object.
    pub fn item(&mut self, write: impl FnOnce(&mut Self)) {
        self.comma();
        self.braced('{', '}', write);
    }

    /// An item of a list that is JSON already.
    pub fn item_raw(&mut self, json: impl Display) {
        self.comma();
        let _ = write!(self.text, "{json}");
    }

    /// An item of a list that is text.
    pub fn item_text(&mut self, text: &str) {
        self.comma();
        self.string(text);
    }

    /// A member that is text.
    pub fn text(&mut self, name: &str, value: impl AsRef<str>) {
        self.name(name);
        self.string(value.as_ref());
    }

    /// A member that is text, or null.
    pub fn maybe_text(&mut self, name: &str, value: Option<impl AsRef<str>>) {
        match value {
            Some(value) => self.text(name, value),
            None => self.raw(name, "null"),
        }
    }

    /// A member that is a number, or null.
    pub fn number(&mut self, name: &str, value: Option<impl Into<f64> + Copy + Display>) {
        self.maybe(name, value.filter(|&value| value.into().is_finite()));
    }

    /// A member that is a count, or null.
    pub fn count(&mut self, name: &str, value: Option<u64>) {
        self.maybe(name, value);
    }

    /// A member whose value is JSON already, or null.
    pub fn maybe(&mut self, name: &str, json: Option<impl Display>) {
        match json {
            Some(json) => self.raw(name, json),
            None => self.raw(name, "null"),
        }
    }

    /// A member that is true or false.
    pub fn truth(&mut self, name: &str, value: bool) {
        self.raw(name, value);
    }

    /// A member whose value is JSON already.
    pub fn raw(&mut self, name: &str, json: impl Display) {
        self.name(name);
        let _ = write!(self.text, "{json}");
    }

    fn name(&mut self, name: &str) {
        self.comma();
        self.string(name);
        self.text.push(':');
    }

    fn comma(&mut self) {
        if !matches!(self.text.chars().next_back(), None | Some('{' | '[')) {
            self.text.push(',');
        }
    }

    fn braced(&mut self, open: char, close: char, write: impl FnOnce(&mut Self)) {
        self.text.push(open);
        write(self);
        self.text.push(close);
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for ch in text.chars() {
            match ch {
                '"' | '\\' => self.text.extend(['\\', ch]),
                _ if crate::text::is_unsafe(ch) => {
                    // All of them are below U+10000.
                    let _ = write!(self.text, "\\u{:04x}", u32::from(ch));
                }
                _ => self.text.push(ch),
            }
        }
        self.text.push('"');
    }
}

/// The document `json`, which has no blanks between its parts, over several lines with their ends.
pub fn indented(json: &str) -> String {
    let (mut text, mut depth, mut in_string) = (String::new(), 0, false);
    let mut chars = json.chars().peekable();
    while let Some(ch) = chars.next() {
        let closes_next = matches!(chars.peek(), Some('}' | ']'));
        let line = |depth: usize| format!("\n{}", "  ".repeat(depth));
        match ch {
            '\\' if in_string => text.extend([Some(ch), chars.next()].into_iter().flatten()),
            '"' => {
                in_string = !in_string;
                text.push(ch);
            }
            _ if in_string => text.push(ch),
            '{' | '[' => {
                depth += 1;
                text.push(ch);
                if !closes_next {
                    text += &line(depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                if !text.ends_with(['{', '[']) {
                    text += &line(depth);
                }
                text.push(ch);
            }
            ',' => text = text + "," + &line(depth),
            ':' => text += ": ",
            _ => text.push(ch),
        }
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_nest_and_text_cannot_leave_its_string() {
        let json = Json::object(|json| {
            json.text("a", "x\"y\\z\n\u{1b}[2J\u{202e}</script>é");
            json.list("b", |json| {
                json.item(|json| json.count("n", Some(1)));
                json.item(|json| json.number("n", Some(1.5)));
                json.item_text("t");
            });
            json.member("c", |_| {});
            json.number("d", Some(f64::NAN));
            json.maybe_text("e", None::<&str>);
            json.truth("f", true);
            json.list("g", |_| {});
        });
        assert_eq!(
            json,
            r#"{"a":"x\"y\\z\u000a\u001b[2J\u202e</script>é","b":[{"n":1},{"n":1.5},"t"],"c":{},"d":null,"e":null,"f":true,"g":[]}"#
        );
    }

    #[cfg(feature = "cli")]
    #[test]
    fn indented_document_reads_as_that_of_another_writer() {
        for json in ["{}", r#"[[],{}]"#, r#"{"a":"{\",[:\\","b":[1,{"c":null}],"d":{}}"#] {
            let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
            let pretty = serde_json::to_string_pretty(&value).expect("a document");
            assert_eq!(indented(json), pretty + "\n");
        }
    }

    #[cfg(feature = "cli")]
    #[test]
    fn parser_gives_any_text_back() {
        let all: String = (0..=0xffff).filter_map(char::from_u32).collect();
        let json = Json::object(|json| json.text("t", &all));
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["t"], all);
    }
}
