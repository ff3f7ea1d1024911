//! Asking a router, by the libraries that speak its protocols. Every question is bounded in time and may be given up at any point.

use crate::keeper::{Ask, LEASE, Patience, Refusal};
use crate::mapped::{Family, Protocol};
use crate::router::Router;
use crab_nat::{GatewayAddress, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp, pcp};
use igd_next::aio::tokio::{Tokio, search_gateway, search_ipv6_firewall_gateway};
use igd_next::aio::{Gateway, Ipv6FirewallGateway};
use igd_next::{AddPortError, PortMappingProtocol, SearchError, SearchOptions};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;
use tokio::time::timeout;
use tracing::debug;

/// First wait for an answer by PCP and NAT-PMP (RFC 6886, section 3.1); each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Questions after the first: 1.75 seconds in all.
const RETRIES: usize = 2;
/// The same for a port that was silent a moment ago: 0.75 seconds.
const RETRIES_SHORT: usize = 1;
/// How long UPnP devices have to announce and describe themselves. They answer a search within the second that it allows them.
const SEARCH_TIME: Duration = Duration::from_millis(2500);
/// Where routers listen for searches (UPnP Device Architecture 1.1, section 1.3).
const SSDP_PORT: u16 = 1900;
/// How long a UPnP router has for one action. Small routers are slow at XML.
const ACTION_TIME: Duration = Duration::from_secs(3);
/// What the mapping is called in the router's list.
const DESCRIPTION: &str = "Ahoy calls";
/// By UPnP: until somebody removes it.
const FOR_EVER: u32 = 0;

/// A mapping as the router granted it.
#[derive(Debug)]
pub(crate) struct Grant {
    /// Where the port is reached from outside.
    pub(crate) outside: SocketAddr,
    /// For how long.
    pub(crate) lease: Duration,
    /// What is needed to renew it, and to give it back.
    pub(crate) deed: Deed,
}

/// What was granted, in the terms of the protocol.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    /// By PCP or NAT-PMP.
    Mapping(PortMapping),
    /// By UPnP: a port for IPv4.
    Port { gateway: Box<Gateway<Tokio>>, outside: u16 },
    /// By UPnP: a hole in the firewall for IPv6.
    Pinhole { gateway: Ipv6FirewallGateway<Tokio>, id: u16 },
}

/// What is to be mapped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) family: Family,
    pub(crate) port: NonZeroU16,
}

/// Asks the default router. `before` is what it granted last, which it is asked to grant again.
pub(crate) async fn ask(target: Target, ask: Ask, before: Option<Deed>) -> Result<Grant, Refusal> {
    let router = Router::find(target.family).await.ok_or(Refusal::NoRouter)?;
    let grant = match (ask.protocol, target.family) {
        (Protocol::Pcp, _) => ask_by_pcp(target, &router, ask.patience, before).await,
        (Protocol::NatPmp, _) => ask_by_nat_pmp(target, &router, ask.patience, before).await,
        (Protocol::UpnpIgd, Family::V4) => ask_for_port(target, &router, before).await,
        (Protocol::UpnpIgd, Family::V6) => ask_for_pinhole(target, &router, before).await,
    }?;
    if is_usable(grant.outside) { Ok(grant) } else { Err(Refusal::Refused(format!("its outer address is {}", grant.outside.ip()))) }
}

/// Gives back what was granted. Whether the router heard it does not matter: the mapping lapses.
pub(crate) async fn give_back(deed: Deed) {
    let given = match deed {
        Deed::Mapping(mapping) => mapping.try_drop().await.map_err(|(error, _)| error.to_string()),
        Deed::Port { gateway, outside } => gateway.remove_port(PortMappingProtocol::UDP, outside).await.map_err(words),
        Deed::Pinhole { gateway, id } => gateway.remove_pinhole(id).await.map_err(words),
    };
    if let Err(error) = given {
        debug!(error, "the router did not take its mapping back");
    }
}

fn words(error: impl Display) -> String {
    error.to_string()
}

/// False for what no peer can send to. A router that has no connection itself tells such addresses.
fn is_usable(outside: SocketAddr) -> bool {
    let ip = outside.ip();
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    outside.port() != 0 && !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local)
}

fn waits(patience: Patience) -> TimeoutConfig {
    let max_retries = match patience {
        Patience::Full => RETRIES,
        Patience::Short => RETRIES_SHORT,
    };
    TimeoutConfig { initial_timeout: FIRST_WAIT, max_retries, max_retry_timeout: None }
}

fn lease_seconds() -> u32 {
    u32::try_from(LEASE.as_secs()).unwrap_or(u32::MAX)
}

fn options(target: Target, patience: Patience, before: Option<&PortMapping>) -> PortMappingOptions {
    // The same port outside, if it is free: then the device has the same port wherever it is seen.
    let outside = before.map_or(target.port, PortMapping::external_port);
    PortMappingOptions { external_port: Some(outside), lifetime_seconds: Some(lease_seconds()), timeout_config: Some(waits(patience)) }
}

async fn ask_by_pcp(target: Target, router: &Router, patience: Patience, before: Option<Deed>) -> Result<Grant, Refusal> {
    // A renewal must have the nonce of the mapping, or the router takes it for somebody else's.
    let before = mapping_of(before).filter(|mapping| is_by_pcp_for(mapping, router));
    let (nonce, outside) = match before.as_ref().map(PortMapping::mapping_type) {
        Some(PortMappingType::Pcp { nonce, external_ip, .. }) => (Some(nonce), Some(external_ip)),
        _ => (None, None),
    };
    let request = pcp::BaseMapRequest::new(router.pcp_address().into(), router.own, InternetProtocol::Udp, target.port);
    let asked = pcp::port_mapping(request, nonce, outside, options(target, patience, before.as_ref())).await;
    let mapping = asked.map_err(|failure| match failure {
        pcp::Failure::Timeout | pcp::Failure::Socket(_) => Refusal::NoAnswer,
        pcp::Failure::UnsupportedVersion(_) | pcp::Failure::UnsupportedOpcode | pcp::Failure::UnsupportedProtocol => Refusal::Unsupported,
        other => Refusal::Refused(words(other)),
    })?;
    let PortMappingType::Pcp { external_ip, .. } = mapping.mapping_type() else { return Err(Refusal::Unsupported) };
    Ok(granted(external_ip, mapping))
}

fn is_by_pcp_for(mapping: &PortMapping, router: &Router) -> bool {
    let is_same_device = matches!(mapping.mapping_type(), PortMappingType::Pcp { client, .. } if client == router.own);
    is_same_device && mapping.gateway() == GatewayAddress::from(router.pcp_address())
}

async fn ask_by_nat_pmp(target: Target, router: &Router, patience: Patience, before: Option<Deed>) -> Result<Grant, Refusal> {
    let refused = |failure| match failure {
        natpmp::Failure::Timeout | natpmp::Failure::Socket(_) => Refusal::NoAnswer,
        natpmp::Failure::UnsupportedVersion(_) | natpmp::Failure::UnsupportedOpcode => Refusal::Unsupported,
        other => Refusal::Refused(words(other)),
    };
    let (gateway, before) = (GatewayAddress::from(router.address), mapping_of(before));
    let outside = natpmp::external_address(gateway, Some(waits(patience))).await.map_err(refused)?;
    let options = options(target, patience, before.as_ref());
    let mapping = natpmp::port_mapping(gateway, InternetProtocol::Udp, target.port, options).await.map_err(refused)?;
    Ok(granted(outside.into(), mapping))
}

fn granted(outside: IpAddr, mut mapping: PortMapping) -> Grant {
    // Giving it back is one question: at the end there is no time for more.
    mapping.timeout_config = TimeoutConfig { initial_timeout: FIRST_WAIT, max_retries: RETRIES_SHORT, max_retry_timeout: None };
    let outside = SocketAddr::new(outside, mapping.external_port().get());
    Grant { outside, lease: Duration::from_secs(mapping.lifetime().into()), deed: Deed::Mapping(mapping) }
}

fn mapping_of(deed: Option<Deed>) -> Option<PortMapping> {
    match deed? {
        Deed::Mapping(mapping) => Some(mapping),
        Deed::Port { .. } | Deed::Pinhole { .. } => None,
    }
}

async fn ask_for_port(target: Target, router: &Router, before: Option<Deed>) -> Result<Grant, Refusal> {
    let mut wanted = target.port.get();
    if let Some(Deed::Port { gateway, outside }) = before {
        wanted = outside;
        // One that has restarted may answer elsewhere: then it is searched for again.
        if gateway.addr.ip() == router.address
            && let Ok(grant) = map_port(target, router, gateway, wanted).await
        {
            return Ok(grant);
        }
    }
    let gateway = Box::new(find_gateway(router).await?);
    map_port(target, router, gateway, wanted).await
}

/// The router on the way out, asked by itself and, for those that hear nothing else, by multicast. Whatever else answers to the latter is
/// passed over: an access point that speaks the protocol must not hide the router, and a mapping there would be of no use.
async fn find_gateway(router: &Router) -> Result<Gateway<Tokio>, Refusal> {
    let search = async |by_multicast: bool| {
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddr::new(router.own, 0);
        options.timeout = Some(SEARCH_TIME);
        if !by_multicast {
            options.broadcast_address = SocketAddr::new(router.address, SSDP_PORT);
        }
        let gateway = search_gateway(options).await.map_err(not_found)?;
        // Anybody on this network can say that he is a router.
        if gateway.addr.ip() == router.address { Ok(gateway) } else { Err(Refusal::Unsupported) }
    };
    let (by_itself, by_multicast) = (Box::pin(search(false)), Box::pin(search(true)));
    match futures::future::select(by_itself, by_multicast).await {
        futures::future::Either::Left((Ok(gateway), _)) | futures::future::Either::Right((Ok(gateway), _)) => Ok(gateway),
        futures::future::Either::Left((Err(_), other)) => other.await,
        futures::future::Either::Right((Err(_), other)) => other.await,
    }
}

async fn map_port(target: Target, router: &Router, gateway: Box<Gateway<Tokio>>, wanted: u16) -> Result<Grant, Refusal> {
    let ip = in_time(gateway.get_external_ip()).await?;
    let inside = SocketAddr::new(router.own, target.port.get());
    let add = |seconds| gateway.add_port(PortMappingProtocol::UDP, wanted, inside, seconds, DESCRIPTION);
    let outside = match limit(add(lease_seconds())).await? {
        Ok(()) => wanted,
        // Some routers know no other. It is renewed as others are, because a restart forgets it, and given back at the end.
        Err(AddPortError::OnlyPermanentLeasesSupported) => {
            in_time(add(FOR_EVER)).await?;
            wanted
        }
        Err(AddPortError::PortInUse) => {
            let any = gateway.add_any_port(PortMappingProtocol::UDP, inside, lease_seconds(), DESCRIPTION);
            in_time(any).await?
        }
        Err(error) => return Err(Refusal::Refused(words(error))),
    };
    Ok(Grant { outside: SocketAddr::new(ip, outside), lease: LEASE, deed: Deed::Port { gateway, outside } })
}

async fn ask_for_pinhole(target: Target, router: &Router, before: Option<Deed>) -> Result<Grant, Refusal> {
    let IpAddr::V6(own) = router.own else { return Err(Refusal::Unsupported) };
    let inside = std::net::SocketAddrV6::new(own, target.port.get(), 0, 0);
    if let Some(Deed::Pinhole { gateway, id }) = before
        && in_time(gateway.update_pinhole(id, lease_seconds())).await.is_ok()
    {
        return Ok(Grant { outside: inside.into(), lease: LEASE, deed: Deed::Pinhole { gateway, id } });
    }
    // From the very address that the hole is for: the router then answers from an address of the same network, which is the one where it
    // describes itself, and sees that nobody opens a hole to somebody else.
    let mut options = SearchOptions::ipv6(router.interface);
    options.bind_addr = SocketAddr::new(router.own, 0);
    options.timeout = Some(SEARCH_TIME);
    let gateway = search_ipv6_firewall_gateway(options).await.map_err(not_found)?;
    let id = in_time(gateway.add_pinhole(PortMappingProtocol::UDP, inside, lease_seconds())).await?;
    Ok(Grant { outside: inside.into(), lease: LEASE, deed: Deed::Pinhole { gateway, id } })
}

fn not_found(error: SearchError) -> Refusal {
    match error {
        SearchError::NoResponseWithinTimeout | SearchError::IoError(_) => Refusal::NoAnswer,
        other => {
            debug!(error = %other, "what answered is no router that can be asked");
            Refusal::Unsupported
        }
    }
}

/// The answer of one action, or a refusal.
async fn in_time<T, E: Display>(action: impl Future<Output = Result<T, E>>) -> Result<T, Refusal> {
    limit(action).await?.map_err(|error| Refusal::Refused(words(error)))
}

async fn limit<T>(action: impl Future<Output = T>) -> Result<T, Refusal> {
    timeout(ACTION_TIME, action).await.map_err(|_| Refusal::NoAnswer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_addresses_that_nobody_can_send_to_are_refused() {
        for address in
            ["0.0.0.0:7", "127.0.0.1:7", "169.254.1.1:7", "224.0.0.1:7", "255.255.255.255:7", "198.51.100.1:0", "[::]:7", "[fe80::1]:7"]
        {
            assert!(!is_usable(address.parse().expect("an address")), "{address}");
        }
        for address in ["198.51.100.1:7", "10.0.0.1:7", "100.64.0.9:7", "[2001:db8::1]:7"] {
            assert!(is_usable(address.parse().expect("an address")), "{address}");
        }
    }

    #[test]
    fn a_round_in_vain_is_over_before_anybody_who_waits_gives_up() {
        let asked = |retries: usize| FIRST_WAIT * ((1 << (retries + 1)) - 1);
        assert!(asked(RETRIES) + asked(RETRIES_SHORT) + SEARCH_TIME < Duration::from_secs(6));
    }
}
