//! People as far as sending goes: their devices, and news about being contacts until they have heard.

use crate::{ITEMS_HELD_MAX, LOOK_UP_AGAIN, NEWS_AGAIN};
use ahoy_protocol::letter::REQUEST_TEXT_BYTES_MAX;
use ahoy_protocol::mail::Pass;
use ahoy_protocol::message::{ContactNews, Item};
use ahoy_protocol::{DeviceKey, Prose, UnixMillis, UserKey};
use serde::{Deserialize, Serialize};

/// News for somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct News {
    news: ContactNews,
    /// How often it was told.
    told: usize,
    /// When it is told next.
    at: UnixMillis,
}

/// What came from a device that is not known yet.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) user: UserKey,
    pub(crate) device: DeviceKey,
    pub(crate) item: Item,
}

/// A request under a key that is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) user: UserKey,
    pub(crate) device: DeviceKey,
    pub(crate) text: Prose<REQUEST_TEXT_BYTES_MAX>,
    pub(crate) pass: Pass,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Person {
    /// His devices; of oneself, the others.
    pub(crate) devices: Vec<DeviceKey>,
    /// He shows a key that is not the one he had.
    pub(crate) has_changed_key: bool,
    /// What he asked under that key: it counts when the key is trusted.
    pub(crate) request: Option<Request>,
    news: Option<News>,
    #[serde(skip)]
    looked_up_at: Option<UnixMillis>,
    #[serde(skip)]
    held: Vec<Held>,
}

impl Person {
    /// Whether to look up his devices. Not more often than each [`LOOK_UP_AGAIN`].
    pub(crate) fn poll_look_up(&mut self, now: UnixMillis) -> bool {
        if self.looked_up_at.is_some_and(|at| now < at.plus(LOOK_UP_AGAIN)) {
            return false;
        }
        self.looked_up_at = Some(now);
        true
    }

    /// His key is another, and trusted: the devices of the old one do not count.
    pub(crate) fn handle_trusted(&mut self) {
        self.has_changed_key = false;
        self.devices.clear();
        self.looked_up_at = None;
    }

    /// Keeps an item until his devices were looked up. It is not acknowledged, so that what is lost with this memory comes again.
    pub(crate) fn hold(&mut self, held: Held) {
        if self.held.len() < ITEMS_HELD_MAX {
            self.held.push(held);
        }
    }

    pub(crate) fn take_held(&mut self) -> Vec<Held> {
        std::mem::take(&mut self.held)
    }

    pub(crate) fn set_news(&mut self, now: UnixMillis, news: ContactNews) {
        self.news = Some(News { news, told: 0, at: now });
    }

    /// Something came from him. Whoever writes has heard that he may.
    pub(crate) fn handle_sign_of_life(&mut self) -> bool {
        self.news.take_if(|news| matches!(news.news, ContactNews::Accepted(_) | ContactNews::Pass(_)) && news.told > 0).is_some()
    }

    /// News to tell to all his devices.
    pub(crate) fn poll_news(&mut self, now: UnixMillis) -> Option<ContactNews> {
        if self.devices.is_empty() {
            return None;
        }
        let news = self.news.as_mut().filter(|news| news.at <= now)?;
        let told = news.news.clone();
        match NEWS_AGAIN.get(news.told) {
            Some(wait) => {
                news.told += 1;
                news.at = now.plus(*wait);
            }
            None => self.news = None,
        }
        Some(told)
    }

    pub(crate) fn poll_timeout(&self) -> Option<UnixMillis> {
        self.news.as_ref().filter(|_| !self.devices.is_empty()).map(|news| news.at)
    }

    /// Whether there are news for somebody whose devices nobody knows.
    pub(crate) fn needs_devices(&self) -> bool {
        self.devices.is_empty() && self.news.is_some()
    }
}
