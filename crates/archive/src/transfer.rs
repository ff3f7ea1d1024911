//! Exports: all that people have in an archive, to be read by them (HTML) or by programs and by another archive (JSON).
//!
//! What belongs to the device and not to the person stays: ratchets, outbox and other registers, without which an export gives nobody
//! the right to write as its owner. An export is not encrypted.

mod html;
mod import;
mod json;

pub use import::Imported;

use ahoy_protocol::{Name, UnixMillis};
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// What the archive itself does not know of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportHeader {
    /// Whose archive it is.
    pub account: Name,
    /// When it was exported.
    pub exported: UnixMillis,
    /// The contacts, as objects of their owner's making; they are handed back by an import.
    pub contacts: Vec<Value>,
}

/// The last second that dates are written for, in the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// A time for people to read. Whatever a remote clock said, it is one.
fn readable(time: UnixMillis) -> String {
    let seconds = Duration::from_secs((time.0 / 1_000).min(LAST_SECOND));
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_readable() {
        assert_eq!(readable(UnixMillis(1_700_000_000_123)), "Tue, 14 Nov 2023 22:13:20 GMT");
        assert_eq!(readable(UnixMillis(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
