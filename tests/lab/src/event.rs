//! One line of a program's JSON output.

use serde_json::Value;

/// An event: an object with the fields `event` and `t_ms`, and others.
#[derive(Debug, Clone, PartialEq)]
pub struct Event(pub Value);

impl Event {
    /// The event in a line; `None` if the line is none.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        value.get("event")?.as_str()?;
        Some(Self(value))
    }

    /// Which event it is.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text("event")
    }

    /// True if it is the event called `name`.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name() == name
    }

    /// A field that is a text; empty if it is not there.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A field that is a number.
    ///
    /// # Panics
    /// If it is not there, or no number.
    #[must_use]
    pub fn number(&self, field: &str) -> f64 {
        self.0.get(field).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number {field:?} in {}", self.0))
    }

    /// When it happened, in Unix milliseconds.
    #[must_use]
    pub fn t_ms(&self) -> f64 {
        self.number("t_ms")
    }
}
