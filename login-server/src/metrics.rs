//! Counters for whoever runs the server, in the text format that Prometheus reads. They name paths, never people.

use axum::Router;
use axum::routing::get;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

/// Answers by path and status.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    // Bounded: the paths of the interface times the statuses that it has.
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

impl Metrics {
    pub(crate) fn count(&self, path: &'static str, status: u16) {
        let mut answers = self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *answers.entry((path, status)).or_default() += 1;
    }

    fn text(&self) -> String {
        let mut text = String::from("# TYPE ahoy_login_answers_total counter\n");
        let answers = self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for ((path, status), count) in answers.iter() {
            writeln!(text, "ahoy_login_answers_total{{path=\"{path}\",status=\"{status}\"}} {count}")
                .expect("writing to a string cannot fail");
        }
        text
    }
}

/// Serves `/metrics`.
pub(crate) fn router(app: Arc<crate::state::App>) -> Router {
    Router::new().route("/metrics", get(move || std::future::ready(app.metrics.text())))
}
