//! Proxies: HTTP CONNECT (RFC 9110, section 9.3.6) and SOCKS5 (RFC 1928), each with a user name and password where they want one: how they are
//! named, by people and by the environment. [`ask`] is how they are spoken to.
//!
//! Nodes are known by IP address, so there is no name for the proxy to resolve, and `socks5h` is the same as `socks5` here.

mod ask;
mod bypass;

use bypass::{Bypass, without_brackets};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use thiserror::Error;
use tokio::net::TcpStream;
use url::{Host, Url};

/// Longest user name and password: what fits into SOCKS5's messages.
const CREDENTIAL_BYTES_MAX: usize = 255;
/// Port of SOCKS5 proxies that name none (RFC 1928).
const SOCKS_PORT: u16 = 1080;

/// Why a proxy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// It is no URL.
    #[error(
        "{0:?} is no proxy; write it as http://HOST:PORT or socks5://HOST:PORT, with USER:PASSWORD@ before the host where it wants one"
    )]
    Form(String),
    /// It is of a kind that is not served.
    #[error("a proxy of the kind {0:?} cannot be used; http, socks5 and socks5h can")]
    Kind(String),
    /// It has no host, or more than a proxy has.
    #[error("a proxy is named by its host and port alone, such as http://proxy.example:3128")]
    Extra,
    /// Its user name or password cannot be sent.
    #[error("the proxy's user name and password may have at most {CREDENTIAL_BYTES_MAX} bytes each, and no line breaks")]
    Credentials,
    /// It cannot be reached.
    #[error("cannot reach the proxy {proxy}: {reason}")]
    Unreachable {
        /// `HOST:PORT`.
        proxy: String,
        /// What the system said.
        reason: String,
    },
    /// It wants a user name and password, or others.
    #[error("the proxy {proxy} does not accept the user name and password; set the proxy as http://USER:PASSWORD@HOST:PORT or socks5://…")]
    Unauthorized {
        /// `HOST:PORT`.
        proxy: String,
    },
    /// It does not connect to the node.
    #[error("the proxy {proxy} does not connect to {to}: {reason}")]
    Refused {
        /// `HOST:PORT`.
        proxy: String,
        /// What was to be reached.
        to: SocketAddr,
        /// What it said.
        reason: String,
    },
    /// What answers is no such proxy.
    #[error("what answers at {proxy} is no {kind} proxy")]
    NotAProxy {
        /// `HOST:PORT`.
        proxy: String,
        /// What it was to be.
        kind: &'static str,
    },
}

/// A proxy to the network.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    credentials: Option<Credentials>,
    /// Where it is not used.
    bypass: Vec<Bypass>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Socks5,
    /// As [`Kind::Socks5`], where names are resolved by the proxy.
    Socks5h,
}

impl Kind {
    fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Socks5 => "socks5",
            Self::Socks5h => "socks5h",
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    user: String,
    password: String,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Without its user name and password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.kind.scheme(), self.authority())
    }
}

impl Proxy {
    /// Reads `http://HOST:PORT`, `socks5://HOST:PORT` or `socks5h://HOST:PORT`, each with `USER:PASSWORD@` before the host or without; `HOST:PORT`
    /// alone is an HTTP proxy. In user name and password, special characters are written as `%XX`.
    ///
    /// # Errors
    /// [`ProxyError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ProxyError> {
        let text = text.trim();
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        // The text may hold a password, which does not belong into a message.
        let shown = || text.rsplit('@').next().unwrap_or_default().to_owned();
        let url = Url::parse(&url).map_err(|_| ProxyError::Form(shown()))?;
        let (kind, default_port) = match url.scheme() {
            "http" => (Kind::Http, 80),
            "socks5" => (Kind::Socks5, SOCKS_PORT),
            "socks5h" => (Kind::Socks5h, SOCKS_PORT),
            other => return Err(ProxyError::Kind(other.to_owned())),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyError::Extra);
        }
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
            Some(Host::Domain(_)) | None => return Err(ProxyError::Extra),
        };
        let port = url.port().unwrap_or(default_port);
        Ok(Self { kind, host, port, credentials: credentials(&url)?, bypass: Vec::new() })
    }

    /// The proxy that the environment names: `HTTPS_PROXY`, else `ALL_PROXY`, in capitals or not; not for addresses that `NO_PROXY` lists, nor
    /// for this machine. `None` if it names none.
    ///
    /// # Errors
    /// [`ProxyError`] says what is wrong with what it names.
    pub fn from_environment() -> Result<Option<Self>, ProxyError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, ProxyError> {
        let first = |names: &[&str]| names.iter().find_map(|name| variable(name).filter(|value| !value.trim().is_empty()));
        let Some(named) = first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]) else { return Ok(None) };
        let mut proxy = Self::parse(&named)?;
        let listed = first(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
        proxy.bypass = listed.split(',').filter_map(Bypass::parse).chain([Bypass::Loopback]).collect();
        Ok(Some(proxy))
    }

    /// Whether connections to `ip` go through it.
    #[must_use]
    pub fn is_for(&self, ip: IpAddr) -> bool {
        !self.bypass.iter().any(|bypass| bypass.covers(ip.to_canonical()))
    }

    /// As [`Proxy::is_for`], for a host that is named as in a URL: by its name or IP address.
    #[must_use]
    pub fn is_for_host(&self, host: &str) -> bool {
        match without_brackets(host).parse() {
            Ok(ip) => self.is_for(ip),
            Err(_) => !self.bypass.iter().any(|bypass| bypass.covers_name(&host.to_lowercase())),
        }
    }

    /// The proxy as a URL with its user name and password: for a library that wants it so, not for anybody's eyes.
    #[must_use]
    pub fn to_url(&self) -> String {
        match &self.credentials {
            None => self.to_string(),
            Some(Credentials { user, password }) => {
                let [user, password] =
                    [user, password].map(|part| percent_encoding::utf8_percent_encode(part, percent_encoding::NON_ALPHANUMERIC));
                format!("{}://{user}:{password}@{}", self.kind.scheme(), self.authority())
            }
        }
    }

    /// `HOST:PORT`.
    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// A connection to `to`, through the proxy where it is for that. The caller limits the time.
    pub(super) async fn connect(&self, to: SocketAddr) -> Result<TcpStream, crate::TransportError> {
        if !self.is_for(to.ip()) {
            return TcpStream::connect(to).await.map_err(|error| crate::TransportError::tcp(to, &error));
        }
        let unreachable = |error: io::Error| ProxyError::Unreachable { proxy: self.authority(), reason: error.to_string() };
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(unreachable)?;
        match self.kind {
            Kind::Http => {
                self.ask_http(&mut stream, to).await?;
                Ok(stream)
            }
            Kind::Socks5 | Kind::Socks5h => Ok(self.ask_socks(stream, to).await?),
        }
    }
}

fn credentials(url: &Url) -> Result<Option<Credentials>, ProxyError> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decoded = |part: &str| {
        let text = percent_encoding::percent_decode_str(part).decode_utf8().map_err(|_| ProxyError::Credentials)?;
        let fits = text.len() <= CREDENTIAL_BYTES_MAX && !text.chars().any(char::is_control);
        if fits { Ok(text.into_owned()) } else { Err(ProxyError::Credentials) }
    };
    Ok(Some(Credentials { user: decoded(url.username())?, password: decoded(url.password().unwrap_or_default())? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn parsed(text: &str) -> Proxy {
        Proxy::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn proxies_are_read_as_they_are_usually_written() {
        for (text, shown) in [
            ("http://proxy.example:3128", "http://proxy.example:3128"),
            ("http://proxy.example:3128/", "http://proxy.example:3128"),
            ("proxy.example:3128", "http://proxy.example:3128"),
            ("http://proxy.example", "http://proxy.example:80"),
            ("socks5://127.0.0.1:9050", "socks5://127.0.0.1:9050"),
            ("socks5h://proxy.example", "socks5h://proxy.example:1080"),
            ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128"),
            ("socks5://[2001:db8::1]:3128", "socks5://[2001:db8::1]:3128"),
        ] {
            assert_eq!(parsed(text).to_string(), shown);
        }
    }

    #[test]
    fn a_password_is_read_and_shown_to_nobody() {
        for text in ["http://user:p%40ss@proxy.example:3128", "socks5://user:p%40ss@proxy.example:3128", "user:p%40ss@proxy.example:3128"] {
            let proxy = parsed(text);
            assert_eq!(proxy.credentials.as_ref().map(|own| own.password.as_str()), Some("p@ss"));
            assert!(!format!("{proxy} {proxy:?}").contains("ss@"), "{proxy:?}");
            assert_eq!(parsed(&proxy.to_url()), proxy);
        }
    }

    #[test]
    fn what_is_no_proxy_is_explained() {
        for (text, part) in [
            ("", "no proxy"),
            ("https://proxy.example:3128", "https"),
            ("socks4://proxy.example:3128", "socks4"),
            ("http://proxy.example:3128/path", "host and port alone"),
            ("http://proxy.example:99999", "no proxy"),
            ("socks5://:1080", "no proxy"),
            ("http://u%0a:p@proxy.example:1", "line breaks"),
        ] {
            let error = Proxy::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let error = Proxy::parse("http://user:secret@proxy.example:x").expect_err("no port").to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    fn from(variables: &[(&str, &str)]) -> Option<Proxy> {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        Proxy::from_variables(|name| variables.get(name).map(|value| (*value).to_owned())).expect("well-formed")
    }

    #[test]
    fn the_environment_names_a_proxy() {
        assert_eq!(from(&[]), None);
        assert_eq!(from(&[("HTTP_PROXY", "http://p:1")]), None, "that is for what is not encrypted");
        assert_eq!(from(&[("https_proxy", "p:1"), ("ALL_PROXY", "socks5://q:2")]).expect("named").to_string(), "http://p:1");
        assert_eq!(from(&[("HTTPS_PROXY", " "), ("all_proxy", "socks5://q:2")]).expect("named").to_string(), "socks5://q:2");
    }

    #[test]
    fn addresses_that_the_environment_excludes_are_reached_directly() {
        let proxy = from(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", "example.org, 192.0.2.7,10.0.0.0/8 ,2001:db8::/32")]).expect("named");
        for direct in ["192.0.2.7", "10.9.8.7", "::ffff:10.1.1.1", "2001:db8:9::1", "127.0.0.1", "::1"] {
            assert!(!proxy.is_for(ip(direct)), "{direct}");
        }
        for through in ["192.0.2.8", "11.0.0.1", "2001:db9::1"] {
            assert!(proxy.is_for(ip(through)), "{through}");
        }
        for direct in ["example.org", "login.EXAMPLE.org", "localhost", "[::1]", "10.0.0.1"] {
            assert!(!proxy.is_for_host(direct), "{direct}");
        }
        for through in ["example.com", "notexample.org", "192.0.2.8"] {
            assert!(proxy.is_for_host(through), "{through}");
        }
        assert!(!from(&[("HTTPS_PROXY", "p:1"), ("no_proxy", "*")]).expect("named").is_for(ip("192.0.2.8")));
        assert!(parsed("p:1").is_for(ip("127.0.0.1")), "a proxy that was named for us is for everything");
    }
}
