//! What happens to networks: a way is cut, a cable is pulled, an address changes, a router restarts.

use crate::namespaces::Lab;
use crate::network::Spot;
use crate::router::Router;
use crate::system::{inside, nft, run};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Netlink: connection tracking, "delete", which without a description means all.
const CONNECTION_TRACKING_DELETE: u16 = (1 << 8) | 2;
const NETLINK_HEADER_BYTES: u32 = 16;
const NETFILTER_HEADER_BYTES: u32 = 4;

impl Lab {
    /// Lets no UDP pass between the networks behind two routers any more. Relays are not touched.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn block_direct(&self, a: &Router, b: &Router) {
        self.block_one_way(a, b);
        self.block_one_way(b, a);
    }

    /// Lets no UDP pass from the network behind one router to the one behind another. The opposite direction stays open.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn block_one_way(&self, from: &Router, to: &Router) {
        let family = if to.is_v6() { "ip6" } else { "ip" };
        let rules = format!(
            "table inet block {{
                 chain forward {{
                     type filter hook forward priority -10
                     {family} daddr {} meta l4proto udp drop
                 }}
             }}",
            to.outside()
        );
        nft(&from.namespace, &rules);
    }

    /// Takes [`block_direct`](Self::block_direct) and [`block_one_way`](Self::block_one_way) back.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn unblock_direct(&self, a: &Router, b: &Router) {
        for router in [a, b] {
            // To name a table makes it, so that it can be deleted in any case.
            nft(&router.namespace, "table inet block {}\ndelete table inet block");
        }
    }

    /// Carries a client from one network into another: its cable is pulled out here and plugged in there, where it gets another address.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn roam(&self, client: &mut Spot, to: &mut Router) {
        let namespace = client.namespace.clone().expect("clients are in namespaces");
        run("ip", &["-n", &namespace, "link", "delete", "eth0"]);
        client.ip = to.attach(&namespace, "eth0");
    }

    /// Gives a client another address in its network, as when a lease ends.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn renew_lease(&self, client: &mut Spot, router: &mut Router) {
        let namespace = client.namespace.clone().expect("clients are in namespaces");
        run("ip", &["-n", &namespace, "address", "flush", "dev", "eth0", "scope", "global"]);
        client.ip = router.lease(&namespace, "eth0");
    }

    /// Pulls the cable between a client and its router. Addresses stay.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn unplug(&self, client: &Spot, router: &Router) {
        self.set_cable(client, router, "down");
    }

    /// Plugs it in again.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn plug(&self, client: &Spot, router: &Router) {
        self.set_cable(client, router, "up");
    }

    fn set_cable(&self, client: &Spot, router: &Router, state: &str) {
        let port = router.port_of(client.namespace.as_deref().expect("clients are in namespaces"));
        run("ip", &["-n", &router.namespace, "link", "set", &port, state]);
    }
}

impl Router {
    /// Lets no UDP through, in either direction. TCP passes.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn block_udp(&self) {
        self.drop_forwarded("udp", "meta l4proto udp drop");
    }

    /// Lets nothing through at all: who is behind it reaches the router alone, and what runs there.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn block_everything(&self) {
        self.drop_forwarded("everything", "drop");
    }

    fn drop_forwarded(&self, name: &str, rule: &str) {
        let rules = format!("table inet no-{name} {{ chain forward {{ type filter hook forward priority -20; {rule}; }}; }}");
        nft(&self.namespace, &rules);
    }

    /// Restarts it: it knows no connection any more, nor anything that was blocked, and one with ports of its own gives others.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn reboot(&mut self) {
        nft(&self.namespace, "flush ruleset");
        self.set_rules();
        inside(Some(&self.namespace), forget_connections);
    }
}

/// Empties the kernel's table of connections in the namespace of this thread.
fn forget_connections() {
    let mut request = Vec::new();
    request.extend((NETLINK_HEADER_BYTES + NETFILTER_HEADER_BYTES).to_ne_bytes());
    request.extend(CONNECTION_TRACKING_DELETE.to_ne_bytes());
    request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
    request.extend([0; 8]);
    // The family: any; the version: 0.
    request.extend([0; NETFILTER_HEADER_BYTES as usize]);
    // SAFETY: a new descriptor that nobody else owns; the pointers and lengths are those of the two buffers.
    let (answered, answer) = unsafe {
        let handle = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER);
        assert!(handle >= 0, "{}", std::io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(handle);
        let mut answer = [0u8; 1024];
        libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0);
        (libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0), answer)
    };
    // After the header the error's number stands, which is zero.
    assert!(answered >= 20 && answer[16..20] == [0; 4], "the connections cannot be forgotten: {:?}", &answer[..20]);
}
