//! Strangers who flood a client's port, and what that does to a call.

use crate::support::{Call, PATIENCE, call, stranger, until, until_path};
use ahoy_protocol::datagram::{KIND_PING, PING_BYTES, relay_frame};
use ahoy_protocol::peer::Mapping;
use ahoy_transport::{Connection, PathKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Datagrams a second of the measured flood.
const FLOOD_PER_SECOND: u64 = 50_000;
/// Between two datagrams of the call.
const FRAME: Duration = Duration::from_millis(20);

/// A kind of flood.
#[derive(Debug, Clone, Copy)]
enum Junk {
    Random,
    Quic,
    Ping,
    Frame,
}

const ALL_JUNK: [Junk; 4] = [Junk::Random, Junk::Quic, Junk::Ping, Junk::Frame];

impl Junk {
    /// The datagram with this number.
    fn datagram(self, number: u64) -> Vec<u8> {
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = |count: usize| -> Vec<u8> {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            };
            (0..count).map(|_| next()).collect()
        };
        match self {
            Self::Random => random(160),
            Self::Quic => [&[0x40 | (number as u8 & 0x3f)][..], &random(159)].concat(),
            Self::Ping => [&[KIND_PING][..], &random(PING_BYTES - 1)].concat(),
            Self::Frame => relay_frame((number & 0xff) as u32, &[&[0x40][..], &random(150)].concat()),
        }
    }
}

/// A thread that sends junk at a pace until it is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn begin(to: SocketAddr, junk: &'static [Junk], per_second: u64) -> Self {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || flood(to, junk, per_second, &stopped, &count));
        Self { stop, sent, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn flood(to: SocketAddr, junk: &[Junk], per_second: u64, stop: &AtomicBool, sent: &AtomicU64) {
    let socket = stranger();
    let stock: Vec<_> = (0..4096).map(|number| junk[number as usize % junk.len()].datagram(number)).collect();
    let (began, mut count) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = began.elapsed().as_micros() as u64 * per_second / 1_000_000;
        // Who was held up does not make up for it with a burst of more than 20 ms.
        count = count.max(due.saturating_sub(per_second / 50));
        while count < due {
            let _ = socket.send_to(&stock[count as usize % stock.len()], to);
            count += 1;
            sent.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// How one direction of a call did.
#[derive(Debug)]
struct Quality {
    sent: usize,
    lost: usize,
    worst_gap: Duration,
}

/// Sends datagrams like voice for a while, and looks at how they arrive.
async fn listen(from: &Connection, to: &Connection, frames: usize) -> Quality {
    let (from, to) = (from.clone(), to.clone());
    let hearing = tokio::spawn(async move {
        let (mut heard, mut last, mut worst) = (0, None::<Instant>, Duration::ZERO);
        while let Ok(Ok(frame)) = tokio::time::timeout(Duration::from_secs(1), to.read_datagram()).await {
            if frame[..] == b"the end"[..] {
                break;
            }
            let now = Instant::now();
            worst = worst.max(last.map_or(Duration::ZERO, |last| now - last));
            (heard, last) = (heard + 1, Some(now));
        }
        (heard, worst)
    });
    let mut pace = tokio::time::interval(FRAME);
    for _ in 0..frames {
        pace.tick().await;
        from.send_datagram(vec![7; 100].into()).expect("open");
    }
    for _ in 0..5 {
        pace.tick().await;
        from.send_datagram(b"the end"[..].into()).expect("open");
    }
    let (heard, worst_gap) = hearing.await.expect("no panic");
    Quality { sent: frames, lost: frames - heard, worst_gap }
}

/// Both directions of a call at once: towards the one who is flooded, and from him.
async fn both(call: &Call, frames: usize) -> [Quality; 2] {
    let (towards, from) = tokio::join!(listen(&call.there, &call.here, frames), listen(&call.here, &call.there, frames));
    // What is left of the end must not be taken for the beginning of the next.
    tokio::time::sleep(5 * FRAME).await;
    while tokio::time::timeout(FRAME, call.here.read_datagram()).await.is_ok() {}
    while tokio::time::timeout(FRAME, call.there.read_datagram()).await.is_ok() {}
    [towards, from]
}

/// Holds up every thread of the runtime for 40 ms at a time, as a busy machine does: what comes meanwhile waits in the kernel, if it fits.
struct Stalls([tokio::task::JoinHandle<()>; 2]);

impl Stalls {
    fn begin() -> Self {
        Self([(); 2].map(|()| {
            tokio::spawn(async {
                loop {
                    tokio::time::sleep(Duration::from_millis(210)).await;
                    std::thread::sleep(Duration::from_millis(40));
                }
            })
        }))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn go_straight(call: &Call) {
    call.caller.set_peer_network(&call.bob.endpoint.host_candidates(), Mapping::Open);
    call.callee.set_peer_network(&call.alice.endpoint.host_candidates(), Mapping::Open);
    call.caller.start_probing();
    call.callee.start_probing();
    until_path(&call.caller, &[PathKind::Lan, PathKind::Direct]).await;
    until_path(&call.callee, &[PathKind::Lan, PathKind::Direct]).await;
}

#[tokio::test]
async fn a_flood_of_every_kind_of_junk_costs_a_call_nothing() {
    let call = call().await;
    for straight in [false, true] {
        if straight {
            go_straight(&call).await;
        }
        let dropped = call.bob.endpoint.dropped();
        let flood = Flood::begin(call.bob.address(), &ALL_JUNK, 5_000);
        until("the flood to arrive", || call.bob.endpoint.dropped() > dropped).await;
        let [towards, from] = both(&call, 50).await;
        assert_eq!((towards.lost, from.lost), (0, 0), "{towards:?} {from:?}");
        drop(flood);
    }
    assert_eq!(call.bob.endpoint.handshakes_seen(), 1, "a stranger's packet reached QUIC");
}

/// `make bench` runs this: what a flood of 50,000 datagrams a second does to a call's datagrams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of more than a minute"]
async fn measure_what_a_flood_costs_a_call() {
    const FRAMES: usize = 250;
    let call = call().await;
    let report = |when: &str, path: &str, [towards, from]: &[Quality; 2], flooded: (u64, u64)| {
        println!(
            "{path:7} {when:16} towards: {} of {} lost, worst gap {:3} ms; from: {} of {} lost, worst gap {:3} ms; flood: {} sent, {} looked at",
            towards.lost,
            towards.sent,
            towards.worst_gap.as_millis(),
            from.lost,
            from.sent,
            from.worst_gap.as_millis(),
            flooded.0,
            flooded.1,
        );
    };
    for path in ["relay", "direct"] {
        if path == "direct" {
            tokio::time::timeout(PATIENCE, go_straight(&call)).await.expect("a direct path over loopback");
        }
        report("before", path, &both(&call, FRAMES).await, (0, 0));
        let stalls = Stalls::begin();
        report("before, stalling", path, &both(&call, FRAMES).await, (0, 0));
        drop(stalls);
        for junk in [&[Junk::Random][..], &[Junk::Quic], &[Junk::Ping], &[Junk::Frame]] {
            let junk: &'static [Junk] = junk.to_vec().leak();
            let dropped = call.bob.endpoint.dropped();
            let flood = Flood::begin(call.bob.address(), junk, FLOOD_PER_SECOND);
            let quality = both(&call, FRAMES).await;
            let flooded = (flood.sent.load(Ordering::Relaxed), call.bob.endpoint.dropped() - dropped);
            report(&format!("{junk:?}"), path, &quality, flooded);
        }
        let (dropped, stalls) = (call.bob.endpoint.dropped(), Stalls::begin());
        let flood = Flood::begin(call.bob.address(), &ALL_JUNK, FLOOD_PER_SECOND);
        let quality = both(&call, FRAMES).await;
        let flooded = (flood.sent.load(Ordering::Relaxed), call.bob.endpoint.dropped() - dropped);
        report("all, stalling", path, &quality, flooded);
        drop(stalls);
    }
}
