//! Which addresses a node tells the network.

use crate::error::NodeError;
use ahoy_protocol::roster::NODE_ADDRESSES_MAX;
use std::net::SocketAddr;

/// The addresses of a node as the roster lists them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addresses {
    /// For QUIC.
    pub udp: Vec<SocketAddr>,
    /// For TLS over TCP.
    pub tcp: Vec<SocketAddr>,
    /// For libp2p; supernodes only.
    pub overlay: Vec<SocketAddr>,
}

impl Addresses {
    /// What to tell of the sockets for clients: those on `udp`, and the listeners on `tcp`, of which the first stand beside `udp`, on the same
    /// ports. A listener on a port of its own is told first, since ports such as 443 are chosen for networks that let little through.
    ///
    /// # Errors
    /// As [`Addresses::advertised`].
    pub async fn of_client_plane(udp: &[SocketAddr], tcp: &[SocketAddr], public: Option<&str>) -> Result<Self, NodeError> {
        let (beside, own) = tcp.split_at(udp.len().min(tcp.len()));
        let told_udp = Self::advertised(udp, public).await?;
        let mut told_tcp = Self::advertised_beside(own, public).await?;
        for address in Self::advertised(beside, public).await? {
            if told_tcp.len() < NODE_ADDRESSES_MAX && !told_tcp.contains(&address) {
                told_tcp.push(address);
            }
        }
        Ok(Self { udp: told_udp, tcp: told_tcp, overlay: Vec::new() })
    }

    /// What to tell for the sockets bound to `local`: `public` (HOST:PORT) if it is given, else `local` itself.
    ///
    /// # Errors
    /// See [`NodeError`]: `public` does not resolve, or `local` is an unspecified address, which only `public` can explain.
    pub async fn advertised(local: &[SocketAddr], public: Option<&str>) -> Result<Vec<SocketAddr>, NodeError> {
        match public {
            Some(public) => bounded(of_our_families(local, public, resolve(public).await?)?),
            None => local_ones(local),
        }
    }

    /// As [`Addresses::advertised`], with the host of `public` and the ports of `local`: for sockets beside the one that `public` names.
    ///
    /// # Errors
    /// As [`Addresses::advertised`].
    pub async fn advertised_beside(local: &[SocketAddr], public: Option<&str>) -> Result<Vec<SocketAddr>, NodeError> {
        let Some(public) = public else { return local_ones(local) };
        let mut told = Vec::new();
        for public in resolve(public).await? {
            for own in local.iter().filter(|own| own.is_ipv4() == public.is_ipv4()) {
                told.push(SocketAddr::new(public.ip(), own.port()));
            }
        }
        if told.is_empty() && !local.is_empty() {
            return Err(NodeError::PublicFamily(public.to_owned()));
        }
        told.dedup();
        bounded(told)
    }
}

fn local_ones(local: &[SocketAddr]) -> Result<Vec<SocketAddr>, NodeError> {
    match local.iter().find(|address| address.ip().is_unspecified()) {
        Some(unspecified) => Err(NodeError::Unspecified(*unspecified)),
        None => bounded(local.to_vec()),
    }
}

fn bounded(addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, NodeError> {
    if addresses.len() > NODE_ADDRESSES_MAX {
        return Err(NodeError::TooManyAddresses { max: NODE_ADDRESSES_MAX });
    }
    Ok(addresses)
}

/// A name may have an IPv6 address although the node listens on IPv4 alone: telling it would cost every client a time-out.
fn of_our_families(local: &[SocketAddr], public: &str, resolved: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, NodeError> {
    let served = |address: &SocketAddr| local.iter().any(|own| own.is_ipv4() == address.is_ipv4());
    let mut ours: Vec<SocketAddr> = resolved.into_iter().filter(served).collect();
    if ours.is_empty() {
        return Err(NodeError::PublicFamily(public.to_owned()));
    }
    ours.truncate(NODE_ADDRESSES_MAX);
    Ok(ours)
}

async fn resolve(public: &str) -> Result<Vec<SocketAddr>, NodeError> {
    let port = public.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none_or(|port| port == 0) {
        return Err(NodeError::PublicForm(public.to_owned()));
    }
    let resolved = tokio::net::lookup_host(public).await.map_err(|source| NodeError::PublicName { host: public.to_owned(), source })?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in resolved {
        if address.ip().is_unspecified() {
            return Err(NodeError::Unspecified(address));
        }
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().expect("an address")
    }

    #[tokio::test]
    async fn without_public_the_listen_addresses_are_told() {
        let local = [at("192.0.2.1:4433"), at("[2001:db8::1]:4433")];
        assert_eq!(Addresses::advertised(&local, None).await.expect("fine"), local);
    }

    #[tokio::test]
    async fn an_unspecified_listen_address_needs_public() {
        let refused = Addresses::advertised(&[at("0.0.0.0:4433")], None).await.expect_err("nobody can reach 0.0.0.0");
        assert!(refused.to_string().contains("--public"), "{refused}");
        let told = Addresses::advertised(&[at("0.0.0.0:4433")], Some("198.51.100.7:5000")).await.expect("fine");
        assert_eq!(told, [at("198.51.100.7:5000")]);
    }

    #[tokio::test]
    async fn sockets_beside_the_public_one_keep_their_ports() {
        let told = Addresses::advertised_beside(&[at("0.0.0.0:443")], Some("198.51.100.7:5000")).await.expect("fine");
        assert_eq!(told, [at("198.51.100.7:443")]);
    }

    #[tokio::test]
    async fn listeners_are_told_at_the_public_host_those_on_their_own_ports_first() {
        let (udp, tcp) = ([at("0.0.0.0:4433")], [at("0.0.0.0:4433"), at("0.0.0.0:443")]);
        let told = Addresses::of_client_plane(&udp, &tcp, Some("198.51.100.7:5000")).await.expect("fine");
        assert_eq!((told.udp, told.tcp), (vec![at("198.51.100.7:5000")], vec![at("198.51.100.7:443"), at("198.51.100.7:5000")]));
        let local = [at("192.0.2.1:4433")];
        let told = Addresses::of_client_plane(&local, &local, None).await.expect("fine");
        assert_eq!((told.udp, told.tcp), (local.to_vec(), local.to_vec()));
    }

    #[tokio::test]
    async fn more_listeners_than_a_roster_lists_cost_those_beside_udp_their_place() {
        let udp: Vec<SocketAddr> = (1..=4).map(|host| SocketAddr::from(([192, 0, 2, host], 4433))).collect();
        let tcp = [udp.as_slice(), &[at("192.0.2.1:443")]].concat();
        let told = Addresses::of_client_plane(&udp, &tcp, None).await.expect("fine");
        assert_eq!(told.tcp.len(), NODE_ADDRESSES_MAX);
        assert_eq!(told.tcp[0], at("192.0.2.1:443"));
    }

    #[tokio::test]
    async fn public_must_be_of_a_family_that_is_served() {
        let refused = Addresses::advertised(&[at("0.0.0.0:1")], Some("[2001:db8::1]:2")).await.expect_err("no IPv4 there");
        assert!(matches!(refused, NodeError::PublicFamily(_)), "{refused}");
    }

    #[tokio::test]
    async fn public_without_a_port_is_explained() {
        for public in ["relay.example", "relay.example:0", ":5", "relay.example:x", ""] {
            let refused = Addresses::advertised(&[at("127.0.0.1:1")], Some(public)).await.expect_err(public);
            assert!(matches!(refused, NodeError::PublicForm(_)), "{public}: {refused}");
        }
    }
}
