//! The network link: the one string that a user or a node needs to join.

use crate::ids::NetworkId;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// `ahoy://HOST:PORT#KEY`: where the login server is, and the hash of the network's root key in base32.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NetworkLink {
    /// Host name or address of the login server, IPv6 without brackets.
    pub host: String,
    /// TCP port of the login server.
    pub port: u16,
    /// Hash of the root key.
    pub network: NetworkId,
}

/// Why a text is not a network link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LinkError {
    /// Does not start with `ahoy://`.
    #[error("a network link starts with ahoy:// (it looks like ahoy://login.example:7300#abcd…); ask whoever runs the network for it")]
    Scheme,
    /// No `#KEY`, or not 32 characters of base32.
    #[error(
        "the part of the network link after '#' must be 32 letters and digits; copy the link whole, from ahoy:// to its last character"
    )]
    Key,
    /// No host, or no port.
    #[error("the network link must name a host and a port between ahoy:// and '#', such as login.example:7300")]
    Address,
}

/// Longest text that is looked at: a host name has at most 253 characters.
const LINK_CHARS_MAX: usize = 320;

impl FromStr for NetworkLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        if text.len() > LINK_CHARS_MAX {
            return Err(LinkError::Address);
        }
        let rest = text.strip_prefix("ahoy://").ok_or(LinkError::Scheme)?;
        let (address, key) = rest.split_once('#').ok_or(LinkError::Key)?;
        let key = data_encoding::BASE32_NOPAD.decode(key.to_ascii_uppercase().as_bytes()).map_err(|_| LinkError::Key)?;
        let network = NetworkId(key.try_into().map_err(|_| LinkError::Key)?);
        let (host, port) = address.trim_end_matches('/').rsplit_once(':').ok_or(LinkError::Address)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(LinkError::Address)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(plain) {
            return Err(LinkError::Address);
        }
        Ok(Self { host: host.to_owned(), port, network })
    }
}

impl NetworkLink {
    /// `HOST:PORT`, with brackets around an IPv6 address.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for NetworkLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = data_encoding::BASE32_NOPAD.encode(self.network.as_bytes()).to_ascii_lowercase();
        write!(f, "ahoy://{}#{key}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_reads_back_as_it_was_written() {
        for host in ["login.example", "192.0.2.7", "2001:db8::7"] {
            let link = NetworkLink { host: host.to_owned(), port: 7300, network: NetworkId([7; 20]) };
            assert_eq!(link.to_string().parse(), Ok(link));
        }
    }

    #[test]
    fn each_defect_has_its_own_word() {
        let key = "a".repeat(32);
        assert_eq!(format!("http://h:1#{key}").parse::<NetworkLink>(), Err(LinkError::Scheme));
        assert_eq!("ahoy://h:1".parse::<NetworkLink>(), Err(LinkError::Key));
        assert_eq!("ahoy://h:1#abc".parse::<NetworkLink>(), Err(LinkError::Key));
        assert_eq!(format!("ahoy://h#{key}").parse::<NetworkLink>(), Err(LinkError::Address));
        assert_eq!(format!("ahoy://h:0#{key}").parse::<NetworkLink>(), Err(LinkError::Address));
        assert_eq!(format!("ahoy://:9#{key}").parse::<NetworkLink>(), Err(LinkError::Address));
    }
}
