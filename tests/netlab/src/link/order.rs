//! What `ahoy-link` is told while it runs, one JSON object a line, and what it answers.
//!
//! ```json
//! {"id":1,"do":"shape","port":"port3","shape":{"loss":"0100","rate_kbps":16,"queue_ms_max":500}}
//! {"id":2,"do":"count","port":"port3","each":true}
//! {"id":3,"do":"figures","port":"port3"}
//! ```
//! Each order is answered with a line that has its `id`.

use super::{ShapeSettings, Summary};
use serde::{Deserialize, Serialize};

/// An order, and the number by which its answer is known.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Order {
    /// Comes back in the answer.
    pub id: u64,
    /// What to do.
    #[serde(flatten)]
    pub what: What,
}

/// What can be ordered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum What {
    /// What comes in at a port is treated so from here on.
    Shape {
        /// The interface.
        port: String,
        /// How.
        shape: ShapeSettings,
    },
    /// Counts what comes in at a port from here on, wherever it goes, and remembers every packet if `each`.
    Count {
        /// The interface.
        port: String,
        /// Whether every packet is remembered.
        #[serde(default)]
        each: bool,
    },
    /// Tells what was counted since.
    Figures {
        /// The interface.
        port: String,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Of the order.
    pub id: u64,
    /// Why it was not carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Summary>,
}

impl Order {
    /// The order in a line.
    ///
    /// # Errors
    /// A sentence, if there is none.
    pub fn parse(line: &str) -> Result<Self, String> {
        serde_json::from_str(line).map_err(|error| format!("no order: {error}"))
    }
}

impl Reply {
    /// The answer as a line.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The answer in a line; `None` if it is none.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_and_nonsense_is_refused() {
        let order = Order::parse(r#"{"id":7,"do":"shape","port":"port1","shape":{"rate_kbps":16}}"#).unwrap();
        let shape = ShapeSettings { rate_kbps: Some(16.0), ..ShapeSettings::default() };
        assert_eq!(order, Order { id: 7, what: What::Shape { port: "port1".to_owned(), shape } });
        assert!(Order::parse(r#"{"id":7,"do":"dance"}"#).is_err());
        assert!(Order::parse(r#"{"id":7,"do":"shape","port":"port1","shape":{"rate":16}}"#).is_err());
    }
}
