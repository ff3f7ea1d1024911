//! One end of a tunnel that is open: datagrams go in by [`End::send`] and out through a function, until it ends.

use super::frames::FrameReader;
use super::queue::Queue;
use ahoy_protocol::tunnel::frame;
use quinn::VarInt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout, timeout_at};

/// What is written at once. It waits where nothing can be dropped from any more, so it is little: 200 ms at 160 kbit/s.
const BATCH_BYTES_MAX: usize = 4 * 1024;
/// A tunnel out of which no datagram has come for this long is given up: the connection inside keeps itself alive four times as often.
const IDLE_MAX: Duration = Duration::from_secs(45);
/// So is one into which nothing could be written for this long, though there was something.
const STUCK_MAX: Duration = Duration::from_secs(10);
/// A tunnel that is in doubt is given up when nothing comes out of it for this long, though the connections inside were made to ask: three
/// round trips and a lost packet on a bad day.
const DOUBT_MAX: Duration = Duration::from_secs(3);
/// A tunnel without users ends when nothing was sent into it for this long: longer than the keep-alive of a connection of which only a
/// stream is left.
const REST: Duration = Duration::from_secs(15);
/// How long a tunnel lasts that is to end at once, so that farewells get through.
const LINGER: Duration = Duration::from_millis(300);
/// Close code for connections whose tunnel has ended.
const CODE_TUNNEL_ENDED: u32 = 3;

/// One end of a tunnel, as those see it who send.
#[derive(Debug)]
pub(crate) struct End {
    queue: Mutex<Queue>,
    more: Notify,
    /// Datagrams that have come out.
    received: AtomicUsize,
    doubted: Notify,
    stage: watch::Sender<Stage>,
    users: AtomicUsize,
    /// Connections of users, which are closed when the tunnel ends.
    inside: Mutex<Vec<quinn::Connection>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Open,
    /// It has no user any more, and ends when it rests.
    Unused,
    Ending,
    /// It leads nowhere.
    Broken,
    Over,
}

impl End {
    pub(crate) fn new() -> Arc<Self> {
        let stage = watch::Sender::new(Stage::Open);
        Arc::new(Self {
            queue: Mutex::default(),
            more: Notify::new(),
            received: AtomicUsize::new(0),
            doubted: Notify::new(),
            stage,
            users: AtomicUsize::new(0),
            inside: Mutex::default(),
        })
    }

    /// Sends a datagram, or loses it. Never waits.
    pub(crate) fn send(&self, datagram: &[u8]) {
        self.queue().push(Instant::now(), datagram);
        self.more.notify_one();
    }

    /// Datagrams that were lost so far for want of room or time.
    pub(crate) fn dropped(&self) -> u64 {
        self.queue().dropped()
    }

    /// Begins a use. When all have ended, so does the tunnel.
    pub(crate) fn user(self: &Arc<Self>) -> User {
        self.users.fetch_add(1, Ordering::Relaxed);
        User { end: Arc::clone(self), connection: OnceLock::new() }
    }

    pub(crate) fn has_user(&self) -> bool {
        self.users.load(Ordering::Relaxed) > 0
    }

    /// Ends the tunnel soon, after what was sent before.
    pub(crate) fn finish(&self) {
        self.advance(Stage::Ending);
    }

    /// Ends the tunnel at once: it leads nowhere.
    pub(crate) fn break_off(&self) {
        self.advance(Stage::Broken);
    }

    /// The tunnel may lead nowhere, and will be broken off if nothing comes out of it soon. The connections inside must have been made to ask.
    pub(crate) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Returns when the tunnel was doubted and did not prove itself.
    async fn leads_nowhere(&self) {
        loop {
            self.doubted.notified().await;
            let before = self.received.load(Ordering::Relaxed);
            sleep(DOUBT_MAX).await;
            if self.received.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    fn advance(&self, stage: Stage) {
        self.stage.send_if_modified(|current| {
            let later = stage > *current;
            if later {
                *current = stage;
            }
            later
        });
    }

    fn close_inside(&self) {
        let inside = std::mem::take(&mut *self.inside());
        for connection in inside {
            connection.close(VarInt::from_u32(CODE_TUNNEL_ENDED), b"the tunnel has ended");
        }
    }

    /// Returns when the tunnel is to end.
    async fn ended(&self) {
        let mut stage = self.stage.subscribe();
        // The sender lives as long as this does.
        let _ = stage.wait_for(|stage| *stage >= Stage::Unused).await;
        let rests = async {
            loop {
                let before = self.queue().pushed();
                sleep(REST).await;
                if self.queue().pushed() == before {
                    return;
                }
            }
        };
        let is_ending = async {
            let _ = stage.wait_for(|stage| *stage >= Stage::Ending).await;
            let _ = timeout(LINGER, stage.wait_for(|stage| *stage >= Stage::Broken)).await;
        };
        tokio::select! {
            () = rests => {}
            () = is_ending => {}
        }
    }

    fn inside(&self) -> MutexGuard<'_, Vec<quinn::Connection>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for datagrams, and takes as many as may be written at once.
    async fn next_batch(&self, batch: &mut Vec<u8>) {
        loop {
            self.take_batch(Instant::now(), batch);
            if !batch.is_empty() {
                return;
            }
            self.more.notified().await;
        }
    }

    fn take_batch(&self, now: Instant, batch: &mut Vec<u8>) {
        let mut queue = self.queue();
        while batch.len() < BATCH_BYTES_MAX {
            let Some(datagram) = queue.pop(now) else { break };
            match frame(&datagram) {
                Ok(frame) => batch.extend_from_slice(&frame),
                Err(too_long) => tracing::debug!(%too_long, "a datagram fits into no tunnel"),
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A use of a tunnel. Dropping the last one ends it.
#[derive(Debug)]
pub(crate) struct User {
    end: Arc<End>,
    connection: OnceLock<usize>,
}

impl User {
    /// The user is this connection, which goes through the tunnel: it is closed when the tunnel ends, long before it would notice.
    pub(crate) fn carries(&self, quic: &quinn::Connection) {
        if self.connection.set(quic.stable_id()).is_err() {
            return;
        }
        self.end.inside().push(quic.clone());
        if *self.end.stage.borrow() == Stage::Over {
            self.end.close_inside();
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Streams may outlast it, and keep the connection; a handle of ours would keep it for ever.
        if let Some(own) = self.connection.get() {
            self.end.inside().retain(|connection| connection.stable_id() != *own);
        }
        if self.end.users.fetch_sub(1, Ordering::Relaxed) == 1 {
            // A tunnel that never carried a connection was an attempt, and another one was quicker.
            let was_used = self.connection.get().is_some();
            self.end.advance(if was_used { Stage::Unused } else { Stage::Ending });
        }
    }
}

/// Marks the tunnel as over however its task ends.
struct Over<'a>(&'a End);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.advance(Stage::Over);
        self.0.close_inside();
    }
}

/// Carries datagrams over `stream` until it breaks or `end` is to end. Each that comes goes to `receive`, which may not block.
pub(crate) async fn carry<S>(stream: S, end: &End, mut receive: impl FnMut(&[u8])) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite,
{
    let _over = Over(end);
    let (reading, writing) = tokio::io::split(stream);
    tokio::select! {
        result = read(reading, end, &mut receive) => result,
        result = write(writing, end) => result,
        () = end.ended() => Ok(()),
        () = end.leads_nowhere() => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn read<S: AsyncRead>(mut stream: ReadHalf<S>, end: &End, receive: &mut impl FnMut(&[u8])) -> io::Result<()> {
    let mut frames = FrameReader::new();
    let mut given_up = tokio::time::Instant::now() + IDLE_MAX;
    loop {
        let count = timeout_at(given_up, stream.read(frames.space())).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if count == 0 {
            return Ok(());
        }
        let mut take = |datagram: &[u8]| {
            given_up = tokio::time::Instant::now() + IDLE_MAX;
            end.received.fetch_add(1, Ordering::Relaxed);
            receive(datagram);
        };
        frames.filled(count, &mut take).map_err(|too_long| io::Error::new(io::ErrorKind::InvalidData, too_long))?;
    }
}

async fn write<S: AsyncWrite>(mut stream: WriteHalf<S>, end: &End) -> io::Result<()> {
    let mut batch = Vec::with_capacity(2 * BATCH_BYTES_MAX);
    loop {
        batch.clear();
        end.next_batch(&mut batch).await;
        let writing = async {
            stream.write_all(&batch).await?;
            // Through TLS's own buffer, so that the next batch is taken no earlier than the system takes it.
            stream.flush().await
        };
        timeout(STUCK_MAX, writing).await.map_err(|_| io::ErrorKind::TimedOut)??;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_protocol::tunnel::DATAGRAM_BYTES_MAX;
    use tokio::io::duplex;
    use tokio::sync::mpsc;

    /// What the pipe between two ends of a tunnel holds.
    const PIPE_BYTES: usize = 8 * 1024;

    /// An end at one side of a pipe, with what comes out of it.
    fn end_on(pipe: tokio::io::DuplexStream) -> (Arc<End>, mpsc::Receiver<Vec<u8>>, tokio::task::JoinHandle<io::Result<()>>) {
        let (received, datagrams) = mpsc::channel(1000);
        let end = End::new();
        let carried = Arc::clone(&end);
        let receive = move |datagram: &[u8]| received.try_send(datagram.to_vec()).expect("the tests look at all that comes");
        let task = tokio::spawn(async move { carry(pipe, &carried, receive).await });
        (end, datagrams, task)
    }

    #[tokio::test]
    async fn datagrams_pass_both_ways_as_they_were() {
        let (one, other) = duplex(PIPE_BYTES);
        let ((here, mut to_here, _here), (there, mut to_there, _there)) = (end_on(one), end_on(other));
        here.send(&[1; DATAGRAM_BYTES_MAX]);
        here.send(b"two");
        there.send(b"three");
        assert_eq!(to_there.recv().await.expect("it comes"), [1; DATAGRAM_BYTES_MAX]);
        assert_eq!(to_there.recv().await.expect("it comes"), b"two");
        assert_eq!(to_here.recv().await.expect("it comes"), b"three");
    }

    #[tokio::test]
    async fn a_datagram_that_is_too_long_is_lost_and_no_other() {
        let (one, other) = duplex(PIPE_BYTES);
        let ((here, ..), (_there, mut to_there, _task)) = (end_on(one), end_on(other));
        here.send(&[1; DATAGRAM_BYTES_MAX + 1]);
        here.send(b"two");
        assert_eq!(to_there.recv().await.expect("it comes"), b"two");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_ends_after_its_last_user_and_after_what_was_said() {
        let (one, other) = duplex(PIPE_BYTES);
        let ((here, _, task), (_there, mut to_there, there_task)) = (end_on(one), end_on(other));
        let (first, second) = (here.user(), here.user());
        drop(first);
        here.send(b"farewell");
        drop(second);
        assert_eq!(to_there.recv().await.expect("it comes"), b"farewell");
        task.await.expect("it ran").expect("it ended in good order");
        there_task.await.expect("it ran").expect("the other side closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubted_tunnel_proves_itself_or_ends_long_before_silence_would_end_it() {
        let (one, mut other) = duplex(PIPE_BYTES);
        let (here, mut to_here, task) = end_on(one);
        let _user = here.user();
        let began = tokio::time::Instant::now();
        here.doubt();
        sleep(DOUBT_MAX / 2).await;
        other.write_all(&frame(b"here I am").expect("short")).await.expect("room");
        to_here.recv().await.expect("it comes");
        sleep(DOUBT_MAX).await;
        assert!(!task.is_finished());
        here.doubt();
        assert_eq!(task.await.expect("it ran").expect_err("it gave up").kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < 3 * DOUBT_MAX, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_from_an_address_that_is_gone_ends_at_once() {
        let (one, _other) = duplex(PIPE_BYTES);
        let (here, _, task) = end_on(one);
        let (_user, began) = (here.user(), tokio::time::Instant::now());
        here.break_off();
        task.await.expect("it ran").expect("it was told to end");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_tunnel_and_empty_frames_are_silence() {
        let (one, mut other) = duplex(PIPE_BYTES);
        let (_here, _, task) = end_on(one);
        let silence = tokio::spawn(async move {
            while other.write_all(&[0, 0]).await.is_ok() {
                sleep(Duration::from_secs(1)).await
            }
        });
        let ended = task.await.expect("it ran").expect_err("it gave up");
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        silence.await.expect("it ran");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stands_still_ends_a_tunnel_and_nobody_waits_for_it() {
        let (one, _unread) = duplex(PIPE_BYTES);
        let (here, _, task) = end_on(one);
        for _ in 0..100_000 {
            here.send(&[0x0f; 1000]);
        }
        assert!(here.dropped() > 99_000);
        tokio::task::yield_now().await;
        here.send(b"more");
        assert_eq!(task.await.expect("it ran").expect_err("it gave up").kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn nonsense_ends_a_tunnel() {
        let (one, mut other) = duplex(PIPE_BYTES);
        let (_here, _, task) = end_on(one);
        other.write_all(b"\xff\xff this is no frame").await.expect("room");
        assert_eq!(task.await.expect("it ran").expect_err("refused").kind(), io::ErrorKind::InvalidData);
    }
}
