//! A switch whose links have a delay, and lose packets if asked to:
//! `ahoy-link [--delay-ms N] [--loss-percent P] [--seed S] [--lose xx..x.] INTERFACE[@MS]…`
//!
//! Run inside a namespace, it copies Ethernet frames between its interfaces, each after the delay, to the interface where the destination was last
//! seen, or to all others. `INTERFACE@25` is a link that takes 25 ms more, in either direction. `--lose` gives a pattern that repeats over the
//! frames: `x` is lost, `.` is not. It prints `forwarding` once it works, and ends with SIGTERM or SIGINT. It stands in for the kernel's `netem`,
//! which not every kernel has.
//!
//! While it runs, orders on its standard input shape what comes in at a port (loss by a pattern, jitter, a bottleneck with a queue) and count it; see
//! `ahoy_netlab::link`.

use ahoy_netlab::link::{Fate, Figures, Marks, Order, Reply, Shape, What};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ffi::CString;
use std::io::{self, BufRead};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Largest frame: what segmentation offload hands over in one piece, and its headers.
const FRAME_BYTES_MAX: usize = 66 * 1024;
/// Before each frame the kernel puts what it knows of checksum and segmentation, and takes it back when the frame is sent on.
const OFFLOAD_HEADER_BYTES: usize = 10;
const MAC_BYTES: usize = 6;
/// Both addresses and the type of what follows.
const ETHERNET_BYTES: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// Orders that wait to be carried out, far more than come at once.
const ORDERS_MAX: usize = 64;
/// An order is carried out within this time even where nothing passes.
const ORDER_WAIT: Duration = Duration::from_millis(20);
/// Frames on their way: a second of a quick link. What comes beyond is lost, as in any switch.
const FRAMES_MAX: usize = 16_384;
/// Most frames read from an interface before the others have their turn.
const BURST_MAX: usize = 64;
const RECEIVE_BUFFER_BYTES: libc::c_int = 4 << 20;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const PACKET_VNET_HDR: libc::c_int = 15;

type Mac = [u8; MAC_BYTES];

#[derive(Debug, Default)]
struct Options {
    delay: Duration,
    loss: Loss,
    links: Vec<Link>,
}

/// An interface, and how long its own link takes, one way.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    interface: String,
    delay: Duration,
}

/// Which frames are lost.
#[derive(Debug, Default)]
struct Loss {
    per_million: u32,
    pattern: Vec<bool>,
    seen: usize,
    random: u64,
}

/// A frame on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    due: Instant,
    number: u64,
    to: usize,
    frame: Vec<u8>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::from(2);
        }
    };
    match forward(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the link cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        let number = |text: String| text.parse::<f64>().ok().filter(|n| *n >= 0.0).ok_or_else(|| format!("{text} is not a number"));
        match arg.as_str() {
            "--delay-ms" => options.delay = millis(number(value()?)?),
            "--loss-percent" => options.loss.per_million = (number(value()?)? * 10_000.0) as u32,
            "--seed" => options.loss.random = number(value()?)? as u64,
            "--lose" => options.loss.pattern = value()?.chars().map(|c| c == 'x').collect(),
            _ if arg.starts_with('-') => return Err(format!("unknown option {arg}")),
            _ => {
                let (interface, delay) = match arg.split_once('@') {
                    Some((interface, delay)) => (interface, millis(number(delay.to_owned())?)),
                    None => (arg.as_str(), Duration::ZERO),
                };
                options.links.push(Link { interface: interface.to_owned(), delay });
            }
        }
    }
    if options.links.len() < 2 { Err("name at least two interfaces".to_owned()) } else { Ok(options) }
}

fn millis(number: f64) -> Duration {
    /// Longer than any link, so that no nonsense overflows.
    const MILLIS_MAX: f64 = 60_000.0;
    Duration::from_secs_f64(number.min(MILLIS_MAX) / 1_000.0)
}

fn forward(mut options: Options) -> io::Result<()> {
    let sockets: Vec<OwnedFd> = options.links.iter().map(|link| open(&link.interface)).collect::<Result<_, _>>()?;
    println!("forwarding");
    let orders = read_orders();
    let mut shaping = Shaping::default();
    let mut seen_at: HashMap<Mac, usize> = HashMap::new();
    let mut in_flight: BinaryHeap<Reverse<InFlight>> = BinaryHeap::new();
    let mut number = 0;
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    loop {
        while let Ok(order) = orders.try_recv() {
            println!("{}", shaping.carry_out(&options.links, order).to_line());
        }
        let next_due = in_flight.peek().map(|Reverse(first)| first.due);
        let wake = next_due.unwrap_or_else(|| Instant::now() + ORDER_WAIT).min(Instant::now() + ORDER_WAIT);
        for port in wait_readable(&sockets, wake)? {
            for _ in 0..BURST_MAX {
                let Some(frame) = read(&sockets[port], &mut buffer)? else { break };
                let Some((to, from)) = macs(frame) else { continue };
                seen_at.insert(from, port);
                if options.loss.takes_next() || in_flight.len() >= FRAMES_MAX {
                    continue;
                }
                let to: Vec<usize> = seen_at.get(&to).map_or_else(|| (0..sockets.len()).collect(), |known| vec![*known]);
                let Some(left) = shaping.handle_frame(Instant::now(), port, &to, frame) else { continue };
                let began = left + options.delay + options.links[port].delay;
                for to in to.into_iter().filter(|other| *other != port) {
                    number += 1;
                    in_flight.push(Reverse(InFlight { due: began + options.links[to].delay, number, to, frame: frame.to_vec() }));
                }
            }
        }
        while in_flight.peek().is_some_and(|Reverse(first)| first.due <= Instant::now()) {
            let Some(Reverse(InFlight { to, frame, .. })) = in_flight.pop() else { break };
            write(&sockets[to], &frame);
        }
    }
}

/// What was ordered: how ports are shaped, and what is counted at which.
#[derive(Default)]
struct Shaping {
    shapes: HashMap<usize, Shape>,
    figures: HashMap<usize, Figures>,
}

impl Shaping {
    /// When the frame has passed what shapes its port; `None` if it does not.
    fn handle_frame(&mut self, now: Instant, from: usize, to: &[usize], frame: &[u8]) -> Option<Instant> {
        let Some((packets, ip_bytes)) = ip_size(frame) else { return Some(now) };
        let fate = self
            .shapes
            .get_mut(&from)
            .map_or(Fate::Passes { queued: Duration::ZERO, due: now }, |shape| shape.handle_packet(now, ip_bytes));
        if let Some(figures) = self.figures.get_mut(&from) {
            let marks = Marks::of_ipv4(&frame[OFFLOAD_HEADER_BYTES + ETHERNET_BYTES..]);
            figures.add(now, to.first().copied().unwrap_or_default(), packets, ip_bytes, marks, fate);
        }
        match fate {
            Fate::Passes { due, .. } => Some(due),
            Fate::Lost | Fate::Dropped => None,
        }
    }

    fn carry_out(&mut self, links: &[Link], order: Result<Order, String>) -> Reply {
        let now = Instant::now();
        let id = order.as_ref().map_or(0, |order| order.id);
        let place = |name: &str| links.iter().position(|link| link.interface == name).ok_or_else(|| format!("there is no port {name}"));
        let outcome = || -> Result<_, String> {
            match order?.what {
                What::Shape { port, shape } => {
                    let port = place(&port)?;
                    match self.shapes.get_mut(&port) {
                        Some(known) => known.change(now, shape)?,
                        None => drop(self.shapes.insert(port, Shape::new(now, shape)?)),
                    }
                    Ok(None)
                }
                What::Count { port, each } => {
                    self.figures.insert(place(&port)?, Figures::new(now, each));
                    Ok(None)
                }
                What::Figures { port } => {
                    let figures = self.figures.get(&place(&port)?).ok_or("nothing was counted there")?;
                    Ok(Some(figures.summary(now)))
                }
            }
        };
        match outcome() {
            Ok(figures) => Reply { id, error: None, figures },
            Err(error) => Reply { id, error: Some(error), figures: None },
        }
    }
}

/// Lines of standard input as they come, from a thread of their own.
fn read_orders() -> Receiver<Result<Order, String>> {
    let (orders, queue): (SyncSender<_>, _) = sync_channel(ORDERS_MAX);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if orders.send(Order::parse(&line)).is_err() {
                return;
            }
        }
    });
    queue
}

/// How many IP packets a frame stands for, and their bytes; `None` where it is something else. A frame that the other side's kernel was to cut into
/// packets is counted as these.
fn ip_size(frame: &[u8]) -> Option<(usize, usize)> {
    let (offload, ethernet) = frame.split_at_checked(OFFLOAD_HEADER_BYTES)?;
    if ethernet.get(2 * MAC_BYTES..ETHERNET_BYTES)? != ETHERTYPE_IPV4 {
        return None;
    }
    let ip = ethernet.get(ETHERNET_BYTES..)?;
    // The packet says itself how long it is: short frames are padded.
    let ip_bytes = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    let number = |at: usize| usize::from(u16::from_ne_bytes([offload[at], offload[at + 1]]));
    let (header_bytes, segment_bytes) = (number(2).saturating_sub(ETHERNET_BYTES), number(4));
    if offload[1] == 0 || segment_bytes == 0 {
        return Some((1, ip_bytes));
    }
    let packets = ip_bytes.saturating_sub(header_bytes).div_ceil(segment_bytes).max(1);
    Some((packets, ip_bytes + (packets - 1) * header_bytes))
}

impl Loss {
    fn takes_next(&mut self) -> bool {
        self.seen += 1;
        let by_pattern = !self.pattern.is_empty() && self.pattern[(self.seen - 1) % self.pattern.len()];
        // A linear congruential generator: the same seed loses the same frames.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        by_pattern || ((self.random >> 33) % 1_000_000) < u64::from(self.per_million)
    }
}

/// Destination and source of a frame.
fn macs(frame: &[u8]) -> Option<(Mac, Mac)> {
    let ethernet = frame.get(OFFLOAD_HEADER_BYTES..)?;
    Some((ethernet.get(..MAC_BYTES)?.try_into().ok()?, ethernet.get(MAC_BYTES..2 * MAC_BYTES)?.try_into().ok()?))
}

/// A socket that gets every frame that comes in at an interface, and puts frames out there.
fn open(interface: &str) -> io::Result<OwnedFd> {
    let name = CString::new(interface)?;
    // SAFETY: the name is a string that ends with zero.
    let index = check(unsafe { libc::if_nametoindex(name.as_ptr()) } as libc::c_int, |index| index != 0)?;
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe {
        let handle = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, libc::c_int::from(protocol));
        OwnedFd::from_raw_fd(check(handle, |handle| handle >= 0)?)
    };
    set(&socket, libc::SOL_PACKET, PACKET_VNET_HDR, &1)?;
    set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER_BYTES)?;
    // SAFETY: both are plain numbers, for which zeros are valid.
    let (mut address, mut membership): (libc::sockaddr_ll, libc::packet_mreq) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index;
    membership.mr_ifindex = index;
    membership.mr_type = libc::PACKET_MR_PROMISC as u16;
    // SAFETY: the pointer and the length are those of `address`.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t) };
    check(bound, |result| result == 0)?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
    Ok(socket)
}

fn set<T>(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `value`.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t) };
    check(result, |result| result == 0).map(|_| ())
}

/// Which sockets have something to read, waiting until one has or it is `wake`.
fn wait_readable(sockets: &[OwnedFd], wake: Instant) -> io::Result<Vec<usize>> {
    let mut polled: Vec<_> =
        sockets.iter().map(|socket| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let left = wake.saturating_duration_since(Instant::now());
    let timeout = libc::timespec { tv_sec: left.as_secs() as libc::time_t, tv_nsec: libc::c_long::from(left.subsec_nanos()) };
    // SAFETY: the array and its length belong together; the time limit outlives the call.
    let result = unsafe { libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, &raw const timeout, std::ptr::null()) };
    check(result, |result| result >= 0)?;
    Ok(polled.iter().enumerate().filter(|(_, polled)| polled.revents != 0).map(|(port, _)| port).collect())
}

/// The next frame; `None` if there is none.
fn read<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
    // SAFETY: the pointer and the length are those of `buffer`.
    let length = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    match usize::try_from(length) {
        Ok(length) => Ok(Some(&buffer[..length])),
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // An interface that went down comes up again, or the namespace ends.
            error if error.raw_os_error() == Some(libc::ENETDOWN) => Ok(None),
            error => Err(error),
        },
    }
}

/// Puts a frame out. What an interface does not take is lost, as on any link.
fn write(socket: &OwnedFd, frame: &[u8]) {
    // SAFETY: the pointer and the length are those of `frame`.
    let _ = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
}

fn check(result: libc::c_int, good: impl Fn(libc::c_int) -> bool) -> io::Result<libc::c_int> {
    if good(result) { Ok(result) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_repeats_and_a_share_is_kept() {
        let mut pattern = Loss { pattern: vec![true, false, false], ..Loss::default() };
        let lost: Vec<_> = (0..6).map(|_| pattern.takes_next()).collect();
        assert_eq!(lost, [true, false, false, true, false, false]);
        let mut share = Loss { per_million: 100_000, random: 1, ..Loss::default() };
        let lost = (0..10_000).filter(|_| share.takes_next()).count();
        assert!((900..1_100).contains(&lost), "{lost}");
    }

    #[test]
    fn frames_are_counted_as_the_packets_that_they_are_cut_into() {
        let frame = |kind: u8, segment: u16, ip_bytes: u16| {
            let mut frame = vec![0, kind];
            for number in [42u16, segment, 0, 0] {
                frame.extend_from_slice(&number.to_ne_bytes());
            }
            frame.extend_from_slice(&[0; 2 * MAC_BYTES]);
            frame.extend_from_slice(&ETHERTYPE_IPV4);
            frame.extend_from_slice(&[0x45, 0]);
            frame.extend_from_slice(&ip_bytes.to_be_bytes());
            frame
        };
        assert_eq!(ip_size(&frame(0, 0, 150)), Some((1, 150)));
        assert_eq!(ip_size(&frame(5, 100, 28 + 250)), Some((3, 3 * 28 + 250)));
        let mut arp = frame(0, 0, 150);
        arp[OFFLOAD_HEADER_BYTES + 2 * MAC_BYTES + 1] = 6;
        assert_eq!(ip_size(&arp), None);
    }

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>().into_iter();
        let options = parse(words("--delay-ms 12.5 --lose x. a b@25")).unwrap();
        assert_eq!(options.delay, Duration::from_micros(12_500));
        let link = |interface: &str, millis| Link { interface: interface.to_owned(), delay: Duration::from_millis(millis) };
        assert_eq!(options.links, [link("a", 0), link("b", 25)]);
        assert!(parse(words("a")).is_err());
        assert!(parse(words("--loud a b")).is_err());
        assert!(parse(words("a b --delay-ms")).is_err());
        assert!(parse(words("a@ b")).is_err());
    }
}
