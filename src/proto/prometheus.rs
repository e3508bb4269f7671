//! Metrics in Prometheus's text format 0.0.4.

use std::fmt::{Display, Write};

use crate::text::escape;

/// The type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics as they are written.
#[derive(Debug)]
pub struct MetricsText {
    known: &'static str,
    text: String,
}

impl MetricsText {
    /// No metric yet, of those in `known`: one a line, its name, its kind, its help.
    pub fn new(known: &'static str) -> Self {
        Self { known, text: String::new() }
    }

    /// Begins a metric that is known.
    pub fn begin(&mut self, name: &str) {
        let (kind, help) = (self.known.lines())
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.split_once(' '))
            .expect("every metric is known");
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A value of the metric that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            // The format escapes these three; our labels hold no other control characters.
            let text = escape(text).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A metric without labels.
    pub fn single(&mut self, name: &str, value: impl Display) {
        self.begin(name);
        self.sample(name, &[], value);
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.text
    }
}
