//! The call's control stream: what is said arrives, however often packets are lost, and each thing once.

use crate::packet::Message;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long an acknowledgement is waited for, as QUIC does at such round trips.
const AGAIN_AFTER: Duration = Duration::from_millis(300);
/// After how long a message about legs goes through the supernodes as well.
const SIGNALLED_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Unheard {
    number: u32,
    message: Message,
    said: Duration,
    due: Duration,
    signal_due: Duration,
}

/// One side of the stream.
#[derive(Debug, Default)]
pub struct Control {
    said: u32,
    unheard: Vec<Unheard>,
    heard: BTreeSet<u32>,
}

impl Control {
    /// Says something, in the place of everything unheard of the same kind.
    pub fn say(&mut self, now: Duration, message: Message) {
        self.unheard.retain(|other| !is_replaced(&other.message, &message));
        let number = self.said;
        self.said += 1;
        self.unheard.push(Unheard { number, message, said: now, due: now, signal_due: now + SIGNALLED_AFTER });
    }

    /// The other side heard this.
    pub fn handle_received(&mut self, number: u32) {
        self.unheard.retain(|unheard| unheard.number != number);
    }

    /// Whether a message is to be listened to, and not one that came before.
    pub fn is_news(&mut self, number: u32) -> bool {
        self.heard.insert(number)
    }

    /// When there is something to do.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        self.unheard.iter().map(|unheard| if is_signal(&unheard.message) { unheard.due.min(unheard.signal_due) } else { unheard.due }).min()
    }

    /// What is to be sent at `now`.
    pub fn poll(&mut self, now: Duration) -> Option<(u32, Message)> {
        let due = self.unheard.iter_mut().find(|unheard| unheard.due <= now)?;
        due.due = now + AGAIN_AFTER.max((now - due.said) / 2).min(AGAIN_AFTER * 4);
        Some((due.number, due.message.clone()))
    }

    /// What is to be sent through the supernodes at `now`.
    pub fn poll_signal(&mut self, now: Duration) -> Option<(u32, Message)> {
        let due = self.unheard.iter_mut().find(|unheard| is_signal(&unheard.message) && unheard.signal_due <= now)?;
        due.signal_due = now + SIGNALLED_AFTER;
        Some((due.number, due.message.clone()))
    }
}

/// Whether the supernodes carry it as well.
fn is_signal(message: &Message) -> bool {
    matches!(message, Message::JoinLeg { .. } | Message::LegGone { .. })
}

fn is_replaced(older: &Message, newer: &Message) -> bool {
    match (older, newer) {
        (Message::Network { .. }, Message::Network { .. }) => true,
        (Message::JoinLeg { leg: older, .. }, Message::JoinLeg { leg: newer, .. }) => older == newer,
        (Message::LegGone { leg: older }, Message::LegGone { leg: newer }) => older == newer,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unheard_is_said_again_until_it_is_heard() {
        let mut control = Control::default();
        let mut now = Duration::from_secs(1);
        control.say(now, Message::Answer);
        for _ in 0..3 {
            now = control.next_at().expect("unheard");
            assert!(matches!(control.poll(now), Some((0, Message::Answer))));
            assert!(control.poll(now).is_none());
        }
        control.handle_received(0);
        assert_eq!(control.next_at(), None);
    }

    #[test]
    fn news_replace_older_news_of_the_same_leg() {
        let mut control = Control::default();
        for (leg, relay) in [(0, 1), (1, 1), (0, 2)] {
            control.say(Duration::ZERO, Message::JoinLeg { leg, relay });
        }
        let said: Vec<u32> = std::iter::from_fn(|| control.poll(Duration::ZERO)).map(|(number, _)| number).collect();
        assert_eq!(said, [1, 2]);
        assert!(control.poll_signal(Duration::ZERO).is_none());
        assert!(control.poll_signal(SIGNALLED_AFTER).is_some());
    }

    #[test]
    fn a_message_is_news_once() {
        let mut control = Control::default();
        assert!(control.is_news(4));
        assert!(!control.is_news(4));
    }
}
