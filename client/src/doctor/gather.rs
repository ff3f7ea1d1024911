//! Gathers the facts: asks the system, the router, the login server and the nodes, all at once, and none for longer than it may take.

use super::facts::{Facts, Login, LoginAnswer, Membership, Nat, Node, OwnAddress, PortMapping, Sound, SoundDevice};
use crate::home::{Home, HomeError};
use crate::reach::ReachSettings;
use crate::settings::Settings;
use ahoy_audio::{Capture, DeviceState, Playback};
use ahoy_identity::{Network, SigningKey};
use ahoy_login_client::{LoginClient, LoginClientError};
use ahoy_path::nat::{Observation, assess};
use ahoy_portmap::PortMapper;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::peer::{Candidate, CandidateKind, Mapping};
use ahoy_protocol::roster::{Roster, RosterNode};
use ahoy_protocol::{NetworkLink, Signed, directory, relay};
use ahoy_store::StoreError;
use ahoy_transport::{ClientEndpoint, NodePlace, Reach, UdpUse};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// All of it.
const EXAMINATION_TIME: Duration = Duration::from_secs(9);
/// How long the login server has.
const LOGIN_TIME: Duration = Duration::from_secs(4);
/// How long a node has to answer a datagram: more than twice around the world.
const UDP_TIME: Duration = Duration::from_millis(1500);
/// How long a node has to take a connection over TCP: four round trips, and a lost packet.
const TCP_TIME: Duration = Duration::from_millis(3500);
/// How long sound devices have to start.
const SOUND_TIME: Duration = Duration::from_secs(3);
/// How often they are looked at meanwhile.
const SOUND_POLL: Duration = Duration::from_millis(20);
/// Nodes of each role that are looked at. A call considers no more relays either.
const NODES_MAX: usize = 6;

/// Gathers everything.
pub(super) async fn gather(home: &Home, link: Option<NetworkLink>) -> Facts {
    let deadline = Instant::now() + EXAMINATION_TIME;
    let (settings, settings_problem) = match home.settings() {
        Ok(settings) => (settings, None),
        Err(error) => (Settings::default(), Some(error.to_string())),
    };
    let (reach, proxy_problem) = settings.reach_here();
    let place = Place::of(home, link);
    let (sound, (login, seen)) = tokio::join!(sound(), examine_network(&place, &reach, deadline));
    let seen = seen.unwrap_or_default();
    Facts {
        membership: place.membership,
        is_running: matches!(home.lock(), Err(HomeError::Store(StoreError::InUse { .. }))),
        addresses: seen.addresses,
        login,
        nodes: seen.nodes,
        nat: seen.nat,
        port_mapping: seen.port_mapping,
        proxy: reach.proxy.as_ref().map(ToString::to_string),
        proxy_problem: proxy_problem.map(|error| error.to_string()),
        settings_problem,
        is_udp_off: reach.udp == UdpUse::Never,
        relay: reach.relay,
        sound,
    }
}

/// Which network is looked at, and what is known of it.
struct Place {
    membership: Membership,
    link: Option<NetworkLink>,
    roster: Option<Roster>,
}

impl Place {
    fn of(home: &Home, link: Option<NetworkLink>) -> Self {
        if let Some(link) = link {
            return Self { membership: Membership::Guest, link: Some(link), roster: None };
        }
        match home.account() {
            Ok(account) => Self {
                membership: Membership::SignedIn { name: account.name.to_string() },
                link: Some(account.link),
                roster: roster_of(&account.network, &account.roster),
            },
            Err(HomeError::NobodySignedIn(_)) => Self { membership: Membership::Nobody, link: None, roster: None },
            Err(error) => Self { membership: Membership::Damaged(error.to_string()), link: None, roster: None },
        }
    }
}

/// The nodes that the network has, by a roster that it signed. Whether it has lapsed does not matter here: this computer's clock may be wrong.
fn roster_of(network: &Network, signed: &Signed<Roster>) -> Option<Roster> {
    network.verify_issued(signed).ok()
}

/// Opens the devices as a call does: a name in the system's list says little.
async fn sound() -> Sound {
    let now = std::time::Instant::now();
    let (capture, playback) = (Capture::device(now), Playback::device(now));
    let (input, output) = tokio::join!(opened(|| capture.state()), opened(|| playback.state()));
    Sound { input, output }
}

async fn opened(state: impl Fn() -> DeviceState) -> SoundDevice {
    let deadline = Instant::now() + SOUND_TIME;
    loop {
        match state() {
            DeviceState::Running { name } => return SoundDevice::Works(name),
            DeviceState::Missing | DeviceState::Virtual => return SoundDevice::Missing,
            DeviceState::Busy { reason } => return SoundDevice::Broken(format!("another program uses it, {reason}")),
            DeviceState::Failed { reason } => return SoundDevice::Broken(reason),
            DeviceState::Starting if Instant::now() >= deadline => return SoundDevice::Broken("it does not start".to_owned()),
            DeviceState::Starting => sleep(SOUND_POLL).await,
        }
    }
}

async fn examine_network(place: &Place, reach: &ReachSettings, deadline: Instant) -> (Option<Login>, Option<Seen>) {
    let Some(link) = &place.link else {
        let endpoint = ClientEndpoint::bind(None, &SigningKey::generate()).ok();
        let addresses = endpoint.map(|endpoint| addresses(&endpoint.host_candidates())).unwrap_or_default();
        return (None, Some(Seen { addresses, ..Seen::default() }));
    };
    if let Some(roster) = &place.roster {
        let ((login, _), seen) = tokio::join!(examine_login(link, reach, false), look_around(roster, reach, deadline));
        return (Some(login), seen);
    }
    let (login, roster) = examine_login(link, reach, true).await;
    let seen = look_around(&roster.unwrap_or_else(no_nodes), reach, deadline).await;
    (Some(login), seen)
}

/// A network of which nothing is known.
fn no_nodes() -> Roster {
    let never = ahoy_protocol::UnixMillis(0);
    Roster {
        version: 0,
        issued: never,
        not_after: never,
        salts: ahoy_protocol::List::default(),
        nodes: ahoy_protocol::List::default(),
        revoked: ahoy_protocol::List::default(),
    }
}

/// How the login server answers, and the roster if it is wanted.
async fn examine_login(link: &NetworkLink, reach: &ReachSettings, wants_roster: bool) -> (Login, Option<Roster>) {
    let begun = Instant::now();
    let ask = async {
        let proxy = reach.login_proxy(link);
        let client = LoginClient::connect_through(link, proxy.as_deref()).await?;
        let took = begun.elapsed();
        let server_time = client.server_time().await?;
        let clock_ahead_s = server_time.map(|server| clock_ahead(SystemTime::now(), server));
        let roster = if wants_roster { client.roster(0, 0).await?.and_then(|signed| roster_of(client.network(), &signed)) } else { None };
        Ok((LoginAnswer::Fine { took, clock_ahead_s }, roster))
    };
    let (answer, roster) = match timeout(LOGIN_TIME, ask).await {
        Ok(Ok((answer, roster))) => (answer, roster),
        Ok(Err(error)) => (bad_answer(error), None),
        Err(_) => (LoginAnswer::Silent("no answer in time".to_owned()), None),
    };
    (Login { address: link.authority(), answer }, roster)
}

fn bad_answer(error: LoginClientError) -> LoginAnswer {
    match error {
        LoginClientError::Unreachable { reason, .. } => LoginAnswer::Silent(reason),
        LoginClientError::OtherServer { .. } => LoginAnswer::Stranger,
        LoginClientError::Answer { reason, .. } => LoginAnswer::Strange(reason),
        other => LoginAnswer::Strange(other.to_string()),
    }
}

/// How far a clock is ahead of another that tells whole seconds: on average it is half a second past what it tells.
fn clock_ahead(own: SystemTime, server: SystemTime) -> i64 {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let ahead = seconds(own) - seconds(server) - 0.5;
    // Within a second nothing is known, and it does not matter.
    if ahead.abs() < 2.0 { 0 } else { ahead.round() as i64 }
}

/// What was seen of a network.
struct Seen {
    addresses: Vec<OwnAddress>,
    nodes: Vec<Node>,
    nat: Nat,
    port_mapping: PortMapping,
}

impl Default for Seen {
    fn default() -> Self {
        let nat = Nat { mapping: Mapping::Unknown, preserves_port: false, outside: Vec::new(), has_ipv6: false };
        Self { addresses: Vec::new(), nodes: Vec::new(), nat, port_mapping: PortMapping::NotAsked }
    }
}

/// Asks the router and the nodes. `None` if no port can be had.
async fn look_around(roster: &Roster, reach: &ReachSettings, deadline: Instant) -> Option<Seen> {
    // A key of its own: to the nodes it is nobody, and whoever runs under the account's key is not disturbed.
    let nobody = SigningKey::generate();
    let by_udp = ClientEndpoint::bind(None, &nobody).ok()?;
    let by_tcp = ClientEndpoint::bind(None, &nobody).ok()?;
    by_tcp.set_reach(Reach { proxy: reach.proxy.clone(), udp: UdpUse::Never });
    let nodes: Vec<RosterNode> = [NodeRole::Supernode, NodeRole::Relay]
        .into_iter()
        .flat_map(|role| roster.nodes_in(role).take(NODES_MAX).cloned().collect::<Vec<_>>())
        .collect();
    // Where the whole network is on this machine, loopback is the way out.
    by_udp.allow_loopback(!nodes.is_empty() && is_all_here(&nodes));
    let hosts = by_udp.host_candidates();
    by_udp.set_reach(reach.of_transport());
    let port_mapping = ask_router(&by_udp, &hosts, &nodes, reach, deadline);
    let (port_mapping, looked_at) = tokio::join!(port_mapping, look_at_all(&nodes, &by_udp, &by_tcp, deadline));
    let observations: Vec<Observation> = looked_at.iter().flat_map(|(_, observations)| observations.clone()).collect();
    let assessment = assess(&hosts, &observations, &[]);
    by_udp.close();
    by_tcp.close();
    Some(Seen {
        addresses: addresses(&hosts),
        nodes: looked_at.into_iter().map(|(node, _)| node).collect(),
        nat: Nat {
            mapping: assessment.mapping,
            preserves_port: assessment.preserves_port,
            outside: assessment.reflexive,
            has_ipv6: observations.iter().any(|observation| observation.observer.is_ipv6()),
        },
        port_mapping,
    })
}

fn addresses(hosts: &[Candidate]) -> Vec<OwnAddress> {
    let of_use = hosts.iter().filter(|host| !host.address.ip().is_loopback());
    of_use.map(|host| OwnAddress { address: host.address, is_vpn: host.kind == CandidateKind::VpnHost }).collect()
}

async fn look_at_all(
    nodes: &[RosterNode],
    by_udp: &ClientEndpoint,
    by_tcp: &ClientEndpoint,
    deadline: Instant,
) -> Vec<(Node, Vec<Observation>)> {
    let mut looking = JoinSet::new();
    for (index, node) in nodes.iter().enumerate() {
        let (node, by_udp, by_tcp) = (node.clone(), by_udp.clone(), by_tcp.clone());
        looking.spawn(async move { (index, look_at(&node, &by_udp, &by_tcp).await) });
    }
    let mut looked_at = Vec::new();
    while let Ok(Some(looked)) = timeout_at(deadline, looking.join_next()).await {
        looked_at.extend(looked);
    }
    looked_at.sort_by_key(|(index, _)| *index);
    looked_at.into_iter().map(|(_, seen)| seen).collect()
}

async fn look_at(node: &RosterNode, by_udp: &ClientEndpoint, by_tcp: &ClientEndpoint) -> (Node, Vec<Observation>) {
    let (seen, tcp) = tokio::join!(look_by_udp(node, by_udp), look_by_tcp(node, by_tcp));
    let nearest = seen.iter().min_by_key(|(_, observation)| observation.rtt);
    let listed = node.udp.iter().chain(node.tcp.iter()).next().copied();
    let address = nearest.map(|(observer, _)| *observer).or(listed);
    let looked_at = Node {
        role: node.role,
        address: address.unwrap_or_else(|| ([0; 4], 0).into()),
        udp: nearest.map(|(_, observation)| observation.rtt),
        tcp,
        offers_tcp: !node.tcp.is_empty(),
        load_percent: nearest.map(|(_, observation)| observation.load_percent),
    };
    let observations = seen.iter().map(|(observer, observation)| Observation { observer: *observer, seen: observation.address });
    (looked_at, observations.collect())
}

/// What each address of the node answers.
async fn look_by_udp(node: &RosterNode, by_udp: &ClientEndpoint) -> Vec<(std::net::SocketAddr, ahoy_transport::Observation)> {
    let mut asked = JoinSet::new();
    for address in node.udp.iter().copied() {
        let by_udp = by_udp.clone();
        asked.spawn(async move { Some((address, by_udp.observe(address, UDP_TIME).await?)) });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

/// How long a connection takes that uses no UDP.
async fn look_by_tcp(node: &RosterNode, by_tcp: &ClientEndpoint) -> Option<Duration> {
    if node.tcp.is_empty() {
        return None;
    }
    let alpn = match node.role {
        NodeRole::Supernode => directory::ALPN,
        NodeRole::Relay => relay::ALPN,
    };
    let begun = Instant::now();
    let place = NodePlace { udp: Vec::new(), tcp: node.tcp.to_vec() };
    let connection = timeout(TCP_TIME, by_tcp.connect_node(&place, &node.node, alpn)).await.ok()?.ok()?;
    let took = begun.elapsed();
    connection.close(0, "only looking");
    Some(took)
}

/// True where no node is on another machine.
fn is_all_here(nodes: &[RosterNode]) -> bool {
    nodes.iter().all(|node| node.udp.iter().all(|address| address.ip().is_loopback()))
}

async fn ask_router(
    endpoint: &ClientEndpoint,
    hosts: &[Candidate],
    nodes: &[RosterNode],
    reach: &ReachSettings,
    deadline: Instant,
) -> PortMapping {
    if !reach.port_mapping {
        return PortMapping::Off;
    }
    if is_all_here(nodes) || reach.udp == UdpUse::Never {
        return PortMapping::NotAsked;
    }
    let port_v6 = hosts.iter().find(|host| host.address.is_ipv6()).map(|host| host.address.port());
    let mapper = PortMapper::start(endpoint.port(), port_v6, u64::from_le_bytes(ahoy_identity::random()));
    let mut addresses = mapper.addresses();
    let settled = timeout_at(deadline, addresses.wait_for(|mapped| mapped.is_settled)).await;
    let mapped = settled.ok().and_then(Result::ok).map(|mapped| mapped.clone());
    mapper.stop().await;
    match mapped.map(|mapped| (mapped.protocol, mapped)) {
        Some((Some(protocol), mapped)) => {
            PortMapping::Mapped { protocol, addresses: mapped.addresses, is_double_nat: mapped.is_double_nat }
        }
        Some((None, mapped)) => PortMapping::None(mapped.problem.unwrap_or_else(|| "the router does not say why".to_owned())),
        None => PortMapping::None("the router did not answer in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_less_than_they_can_tell_are_equal() {
        let server = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for (own_ms, ahead) in [(0, 0), (999, 0), (2400, 0), (3_600_500, 3600)] {
            assert_eq!(clock_ahead(server + Duration::from_millis(own_ms), server), ahead, "{own_ms}");
        }
        assert_eq!(clock_ahead(server - Duration::from_secs(7200), server), -7201);
    }

    #[tokio::test]
    async fn an_examination_without_an_account_ends_with_what_to_do() {
        let dir = tempfile::tempdir().expect("a folder");
        let home = Home::open(dir.path()).expect("opens");
        let facts = gather(&home, None).await;
        assert_eq!(facts.membership, Membership::Nobody);
        assert!(facts.nodes.is_empty() && facts.login.is_none());
    }
}
