//! Between those who use a device and the thread that keeps it open: what is wanted goes one way, how the device is and
//! its rings go the other.
//!
//! Opening a device can take seconds, so each has a thread for it, which also notices when the device goes and tries
//! again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::{self, Ended};
use crate::callback::End;
use crate::device::Wanted;
use crate::state::{DeviceState, SharedState};

/// Between two attempts to open a device that has run, and is missing, busy or failed since: short enough that sound is back within half a
/// second after the device is.
const RETRY: Duration = Duration::from_millis(200);
/// So many of them, which is ten seconds; then, and where no device ever ran, it is looked for more rarely: each look costs the system something.
const RETRIES_MAX: u32 = 50;
const RETRY_RARELY: Duration = Duration::from_secs(1);

/// A device that its thread keeps open as long as this lives.
#[derive(Debug)]
pub(crate) struct Link<E> {
    shared: Arc<Shared<E>>,
    /// Says that something else is wanted; its going tells the thread to end. Virtual devices want nothing else ever.
    orders: Option<SyncSender<()>>,
}

#[derive(Debug)]
struct Shared<E> {
    state: SharedState,
    is_substitute: AtomicBool,
    /// Whether a device ran since this was asked last.
    has_run: AtomicBool,
    wanted: Mutex<Wanted>,
    /// The newest end, until it is taken.
    end: Mutex<Option<E>>,
}

/// What the thread of a device is told.
#[derive(Debug)]
pub(crate) struct Orders {
    wanted: Box<dyn Wants>,
    calls: Receiver<()>,
}

/// What orders say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nothing new.
    GoOn,
    /// Another device is wanted.
    Change,
    /// None is wanted.
    Stop,
}

/// What the thread of a device tells.
#[derive(Debug)]
pub(crate) struct Post<E>(Arc<Shared<E>>);

trait Wants: Send + std::fmt::Debug {
    fn wanted(&self) -> Wanted;
}

impl<E: End> Link<E> {
    /// A real device.
    pub(crate) fn open(wanted: Wanted) -> Self {
        let shared = Arc::new(Shared {
            state: SharedState::new(DeviceState::Starting),
            is_substitute: AtomicBool::new(false),
            has_run: AtomicBool::new(false),
            wanted: Mutex::new(wanted),
            end: Mutex::new(None),
        });
        // One call is enough to look at what is wanted.
        let (sender, calls) = sync_channel(1);
        let orders = Orders { wanted: Box::new(SharedWanted(Arc::clone(&shared))), calls };
        let post = Post(Arc::clone(&shared));
        let spawned = std::thread::Builder::new().name("sound device".into()).spawn(move || keep_open(&orders, &post));
        if let Err(error) = spawned {
            shared.state.set(DeviceState::Failed { reason: error.to_string() });
        }
        Self { shared, orders: Some(sender) }
    }

    /// A virtual device, whose other end somebody else runs.
    pub(crate) fn to_virtual(end: E) -> Self {
        let shared = Shared {
            state: SharedState::new(DeviceState::Virtual),
            is_substitute: AtomicBool::new(false),
            has_run: AtomicBool::new(false),
            wanted: Mutex::default(),
            end: Mutex::new(Some(end)),
        };
        Self { shared: Arc::new(shared), orders: None }
    }

    pub(crate) fn choose(&self, wanted: Wanted) {
        let Some(orders) = &self.orders else { return };
        let mut present = lock(&self.shared.wanted);
        if *present != wanted {
            *present = wanted;
            // Full: the thread is about to look anyway.
            let _ = orders.try_send(());
        }
    }

    /// The end of a stream that was opened since the last call.
    pub(crate) fn take_end(&self) -> Option<E> {
        // Whoever holds this is about to put an end in; it will be there next time.
        self.shared.end.try_lock().ok()?.take()
    }

    pub(crate) fn state(&self) -> DeviceState {
        self.shared.state.get()
    }

    pub(crate) fn is_substitute(&self) -> bool {
        self.shared.is_substitute.load(Ordering::Relaxed)
    }
}

fn keep_open<E: End>(orders: &Orders, post: &Post<E>) {
    let mut retries = RETRIES_MAX;
    loop {
        match backend::run(orders, post) {
            Ended::Stopped => return,
            Ended::Changed => retries = 0,
            Ended::Failed => {
                if post.take_ran() {
                    retries = 0;
                }
                let pause = if retries < RETRIES_MAX { RETRY } else { RETRY_RARELY };
                retries = retries.saturating_add(1);
                if orders.wait(pause) == Order::Stop {
                    return;
                }
            }
        }
    }
}

#[derive(Debug)]
struct SharedWanted<E>(Arc<Shared<E>>);

impl<E: End> Wants for SharedWanted<E> {
    fn wanted(&self) -> Wanted {
        lock(&self.0.wanted).clone()
    }
}

impl Orders {
    pub(crate) fn wanted(&self) -> Wanted {
        self.wanted.wanted()
    }

    /// What was ordered since the last call.
    pub(crate) fn poll(&self) -> Order {
        match self.calls.try_recv() {
            Ok(()) => Order::Change,
            Err(TryRecvError::Empty) => Order::GoOn,
            Err(TryRecvError::Disconnected) => Order::Stop,
        }
    }

    /// Waits for an order, not for long.
    pub(crate) fn wait(&self, duration: Duration) -> Order {
        match self.calls.recv_timeout(duration) {
            Ok(()) => Order::Change,
            Err(RecvTimeoutError::Timeout) => Order::GoOn,
            Err(RecvTimeoutError::Disconnected) => Order::Stop,
        }
    }
}

impl<E: End> Post<E> {
    /// Hands over the end of a stream.
    pub(crate) fn hand_over(&self, end: E) {
        *lock(&self.0.end) = Some(end);
    }

    /// The device with this name runs; perhaps in the place of another that is not there.
    pub(crate) fn runs(&self, name: String, is_substitute: bool) {
        self.0.is_substitute.store(is_substitute, Ordering::Relaxed);
        self.0.has_run.store(true, Ordering::Relaxed);
        self.set(DeviceState::Running { name });
    }

    fn take_ran(&self) -> bool {
        self.0.has_run.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn set(&self, state: DeviceState) {
        if state != self.0.state.get() {
            tracing::debug!(direction = ?E::DIRECTION, %state, "sound device");
            self.0.state.set(state);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
