//! Where a proxy of the environment is not used: the entries of `NO_PROXY`.

use std::net::IpAddr;

/// An entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bypass {
    Everything,
    Loopback,
    /// Addresses that share so many bits with this one.
    Network(IpAddr, u8),
    /// A name, and all below it.
    Domain(String),
}

impl Bypass {
    /// Reads one entry; `None` if it says nothing.
    pub(super) fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim();
        if entry == "*" {
            return Some(Self::Everything);
        }
        let (ip, bits) = entry.split_once('/').map_or((entry, None), |(ip, bits)| (ip, Some(bits)));
        let Ok(ip) = without_brackets(ip).parse::<IpAddr>() else {
            let domain = entry.trim_start_matches('*').trim_start_matches('.').to_lowercase();
            return (!domain.is_empty()).then_some(Self::Domain(domain));
        };
        let all = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(all), |bits| bits.parse().ok().filter(|bits| *bits <= all))?;
        Some(Self::Network(ip, bits))
    }

    /// Whether the address is one of these.
    pub(super) fn covers(&self, ip: IpAddr) -> bool {
        let shares = |difference: u128, width: u32, bits: u8| difference.leading_zeros().saturating_sub(128 - width) >= u32::from(bits);
        match (self, ip) {
            (Self::Everything, _) => true,
            (Self::Loopback, ip) => ip.is_loopback(),
            (Self::Network(IpAddr::V4(net), bits), IpAddr::V4(ip)) => shares((net.to_bits() ^ ip.to_bits()).into(), 32, *bits),
            (Self::Network(IpAddr::V6(net), bits), IpAddr::V6(ip)) => shares(net.to_bits() ^ ip.to_bits(), 128, *bits),
            (Self::Network(..) | Self::Domain(_), _) => false,
        }
    }

    /// Whether the name, in lower case, is one of these.
    pub(super) fn covers_name(&self, name: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Loopback => name == "localhost",
            Self::Domain(domain) => name.strip_suffix(domain.as_str()).is_some_and(|above| above.is_empty() || above.ends_with('.')),
            Self::Network(..) => false,
        }
    }
}

/// An IPv6 address may stand in brackets.
pub(super) fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}
