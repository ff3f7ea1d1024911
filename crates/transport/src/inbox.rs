//! Packets on their way to QUIC: what the switchboard handed on, whichever socket it came by.

use quinn::udp::RecvMeta;
use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// Packets held at most: seconds of several calls. A node that sends more at once than QUIC takes loses the oldest, as on any full link.
const PACKETS_MAX: usize = 2048;

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The virtual address that each comes from, and the packet.
    packets: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Whom to wake when there are some.
    waker: Option<Waker>,
}

impl Inbox {
    /// Adds a packet that came from the virtual address `at`, and wakes QUIC if it waits.
    pub(crate) fn push(&self, at: SocketAddr, packet: &[u8]) {
        let mut state = self.state();
        if state.packets.len() >= PACKETS_MAX {
            state.packets.pop_front();
        }
        state.packets.push_back((at, packet.to_vec()));
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Moves packets into QUIC's buffers, one in each, and says how many. Where there is none it wakes `cx` at the next one.
    pub(crate) fn hand_over(&self, cx: &Context<'_>, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> usize {
        let mut state = self.state();
        let mut count = 0;
        while count < buffers.len().min(meta.len()) {
            let Some((at, packet)) = state.packets.pop_front() else { break };
            if let Some(buffer) = buffers[count].get_mut(..packet.len()) {
                buffer.copy_from_slice(&packet);
                // ECN marks and the local address are those of one path, and the path is not QUIC's business.
                meta[count] = RecvMeta { addr: at, len: packet.len(), stride: packet.len(), ecn: None, dst_ip: None };
                count += 1;
            }
        }
        if count == 0 && !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        count
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([0xfd01, 0, 0, 0, 0, 0, 0, 2], port))
    }

    /// What one round gives: the addresses, and the packets.
    fn round(inbox: &Inbox, cx: &Context<'_>, buffers: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut bytes = vec![[0; 8]; buffers];
        let mut meta = vec![RecvMeta::default(); buffers];
        let mut slices: Vec<_> = bytes.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let count = inbox.hand_over(cx, &mut slices, &mut meta);
        (0..count).map(|index| (meta[index].addr, bytes[index][..meta[index].len].to_vec())).collect()
    }

    #[test]
    fn packets_come_out_in_order_as_many_as_there_are_buffers() {
        let (inbox, cx) = (Inbox::default(), Context::from_waker(Waker::noop()));
        for port in 1..=3 {
            inbox.push(address(port), &[port as u8]);
        }
        assert_eq!(round(&inbox, &cx, 2), [(address(1), vec![1]), (address(2), vec![2])]);
        assert_eq!(round(&inbox, &cx, 2), [(address(3), vec![3])]);
        assert_eq!(round(&inbox, &cx, 2), []);
    }

    #[test]
    fn a_packet_that_fits_no_buffer_is_lost_and_holds_back_no_other() {
        let (inbox, cx) = (Inbox::default(), Context::from_waker(Waker::noop()));
        inbox.push(address(1), &[0; 9]);
        inbox.push(address(2), &[2]);
        assert_eq!(round(&inbox, &cx, 1), [(address(2), vec![2])]);
    }

    #[test]
    fn a_full_inbox_loses_the_oldest() {
        let (inbox, cx) = (Inbox::default(), Context::from_waker(Waker::noop()));
        for number in 0..=PACKETS_MAX as u32 {
            inbox.push(address(1), &number.to_be_bytes());
        }
        assert_eq!(round(&inbox, &cx, 1), [(address(1), 1u32.to_be_bytes().to_vec())]);
    }

    #[derive(Default)]
    struct Alarm(AtomicUsize);

    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_found_nothing_is_woken_once_by_the_next_packet() {
        let alarm = Arc::new(Alarm::default());
        let (inbox, waker) = (Inbox::default(), Waker::from(Arc::clone(&alarm)));
        let cx = Context::from_waker(&waker);
        inbox.push(address(1), &[1]);
        assert_eq!(alarm.0.load(Ordering::Relaxed), 0, "nobody waits");
        round(&inbox, &cx, 4);
        round(&inbox, &cx, 4);
        inbox.push(address(1), &[1]);
        inbox.push(address(1), &[2]);
        assert_eq!(alarm.0.load(Ordering::Relaxed), 1);
    }
}
