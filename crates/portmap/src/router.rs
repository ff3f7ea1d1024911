//! Which router is asked, and which of this device's addresses it knows it by.

use crate::mapped::Family;
use netdev::Interface;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use tokio::net::UdpSocket;
use tokio::task::spawn_blocking;
use tracing::debug;

/// The router on the way to the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Router {
    /// Its address on this device's side.
    pub(crate) address: IpAddr,
    /// The interface that it is at, for link-local addresses and multicast.
    pub(crate) interface: u32,
    /// This device's address on packets to the internet.
    pub(crate) own: IpAddr,
}

impl Router {
    /// The default router of an IP version, if there is one.
    pub(crate) async fn find(family: Family) -> Option<Self> {
        // It asks the system, which may take its time on machines with many interfaces.
        let interfaces = spawn_blocking(netdev::get_interfaces).await.ok()?;
        let (address, interface) = default_router(&interfaces, family)?;
        let own = own_address(family, address).await.inspect_err(|error| debug!(%error, "the router is out of reach")).ok()?;
        Some(Self { address, interface, own })
    }

    /// Where it is asked by PCP. A PCP request must come from the very address that it is about, but one to a link-local address comes
    /// from a link-local one; so such a router is asked at the address that it commonly has in the network of this device.
    pub(crate) fn pcp_address(&self) -> IpAddr {
        match (self.address, self.own) {
            (IpAddr::V6(router), IpAddr::V6(own)) if router.is_unicast_link_local() => {
                let network = own.segments();
                IpAddr::V6(Ipv6Addr::new(network[0], network[1], network[2], network[3], 0, 0, 0, 1))
            }
            (address, _) => address,
        }
    }
}

/// The router that the system prefers; where there are several, that of the interface that the system calls its default.
fn default_router(interfaces: &[Interface], family: Family) -> Option<(IpAddr, u32)> {
    let address_of = |interface: &Interface| -> Option<IpAddr> {
        let gateway = interface.gateway.as_ref()?;
        match family {
            Family::V4 => gateway.ipv4.first().copied().map(IpAddr::V4),
            Family::V6 => gateway.ipv6.first().copied().map(IpAddr::V6),
        }
    };
    let usable = || interfaces.iter().filter(|interface| interface.is_up() && !interface.is_loopback());
    let found = usable().filter_map(|interface| Some((address_of(interface)?, interface.index, interface.default)));
    found.min_by_key(|(_, index, is_default)| (!is_default, *index)).map(|(address, index, _)| (address, index))
}

/// The address that the system would put on a packet to the internet by that router. Nothing is sent.
async fn own_address(family: Family, router: IpAddr) -> io::Result<IpAddr> {
    /// Any port will do; this one throws away what it gets.
    const DISCARD: u16 = 9;
    let (bind, towards) = match family {
        Family::V4 => (SocketAddr::from(([0; 4], 0)), SocketAddr::new(router, DISCARD)),
        // The router's own address may be link-local; an address of the documentation prefix takes the default route as any other.
        Family::V6 => {
            let anywhere = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
            (SocketAddr::from(([0; 16], 0)), SocketAddr::V6(SocketAddrV6::new(anywhere, DISCARD, 0, 0)))
        }
    };
    let socket = UdpSocket::bind(bind).await?;
    socket.connect(towards).await?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(address: &str, own: &str) -> Router {
        let parse = |text: &str| text.parse().expect("an address");
        Router { address: parse(address), interface: 2, own: parse(own) }
    }

    #[test]
    fn a_link_local_router_is_asked_by_pcp_at_its_common_address_in_ones_own_network() {
        let router = router("fe80::1234", "2001:db8:7:9:aaaa::5");
        assert_eq!(router.pcp_address().to_string(), "2001:db8:7:9::1");
    }

    #[test]
    fn any_other_router_is_asked_where_it_is() {
        assert_eq!(router("192.168.1.1", "192.168.1.7").pcp_address().to_string(), "192.168.1.1");
        assert_eq!(router("2001:db8::ff", "2001:db8::5").pcp_address().to_string(), "2001:db8::ff");
    }
}
