//! What one input makes to be done: effects in their order, and items for devices, which leave together.

use crate::effect::{Carried, ChatEvent, Effect};
use ahoy_protocol::message::{ITEMS_MAX, Item, Parcel};
use ahoy_protocol::{DeviceKey, List, Name, Wire};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most bytes of items in one parcel: a parcel less its version and length.
pub(crate) const ITEMS_BYTES_MAX: usize = Parcel::BYTES_MAX - 16;

/// An item to send, and what has to be known of it.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) item: Item,
    /// With whom the conversation is that it is about.
    pub(crate) about: Option<Name>,
    pub(crate) carries: Option<Carried>,
}

/// Where posts go: a device, its user, and whether mailboxes keep them.
pub(crate) type Address = (DeviceKey, Name, bool);

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) effects: VecDeque<Effect>,
    posts: BTreeMap<Address, Vec<Post>>,
    /// Receipts have become due.
    pub(crate) owes_receipts: bool,
}

impl Outbox {
    pub(crate) fn push(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub(crate) fn tell(&mut self, event: ChatEvent) {
        self.effects.push_back(Effect::Tell(event));
    }

    /// Something to be kept for a device.
    pub(crate) fn post(&mut self, to: DeviceKey, user: &Name, post: Post) {
        self.posts.entry((to, user.clone(), true)).or_default().push(post);
    }

    /// Something for a device that is online, or for nobody.
    pub(crate) fn whisper(&mut self, to: DeviceKey, user: &Name, item: Item, about: Option<Name>) {
        self.posts.entry((to, user.clone(), false)).or_default().push(Post { item, about, carries: None });
    }

    /// What was posted since the last time.
    pub(crate) fn take_posts(&mut self) -> BTreeMap<Address, Vec<Post>> {
        std::mem::take(&mut self.posts)
    }
}

/// Bytes of a value in a parcel.
pub(crate) fn encoded_len(item: &Item) -> usize {
    postcard::to_stdvec(item).map_or(usize::MAX, |bytes| bytes.len())
}

/// Packs items into as few parcels as keep the bounds, in their order. To devices of the user's own, each parcel says which conversations it is about.
pub(crate) fn pack(posts: Vec<Post>, names_conversations: bool) -> Vec<(Parcel, Vec<Carried>)> {
    let mut packer = Packer::default();
    for post in posts {
        let about = post.about.filter(|_| names_conversations);
        let len = encoded_len(&post.item);
        if !packer.has_room(len, about.as_ref()) {
            packer.seal();
        }
        packer.put(post.item, len, about, post.carries);
    }
    packer.seal();
    packer.parcels
}

#[derive(Default)]
struct Packer {
    items: Vec<Item>,
    carries: Vec<Carried>,
    named: BTreeSet<Name>,
    len: usize,
    parcels: Vec<(Parcel, Vec<Carried>)>,
}

impl Packer {
    fn has_room(&self, len: usize, about: Option<&Name>) -> bool {
        let naming = about.filter(|name| !self.named.contains(name)).map_or(0, |name| encoded_len(&Item::Conversation(name.clone())));
        self.items.len() + 2 <= ITEMS_MAX && self.len.saturating_add(len).saturating_add(naming) <= ITEMS_BYTES_MAX
    }

    fn put(&mut self, item: Item, len: usize, about: Option<Name>, carries: Option<Carried>) {
        if let Some(name) = about
            && self.named.insert(name.clone())
        {
            let naming = Item::Conversation(name);
            self.len += encoded_len(&naming);
            self.items.push(naming);
        }
        self.len = self.len.saturating_add(len);
        self.items.push(item);
        match (self.carries.last_mut(), carries) {
            (Some(run), Some(next)) if run.conversation == next.conversation && run.last + 1 == next.first => run.last = next.last,
            (_, Some(next)) => self.carries.push(next),
            (_, None) => {}
        }
    }

    fn seal(&mut self) {
        let items = std::mem::take(&mut self.items);
        let carries = std::mem::take(&mut self.carries);
        self.named.clear();
        self.len = 0;
        if !items.is_empty() {
            self.parcels.push((Parcel(List::first_of(items)), carries));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_protocol::ids::{ConversationId, EntryHash};
    use ahoy_protocol::message::{Body, Entry, TEXT_BYTES_MAX};
    use ahoy_protocol::{Prose, UnixMillis};

    #[test]
    fn parcels_keep_their_bounds_and_the_order() {
        let name = Name::parse("bob").unwrap();
        let conversation = ConversationId([1; 16]);
        let post = |seq: u64| {
            let text = "x".repeat(if seq.is_multiple_of(3) { TEXT_BYTES_MAX } else { 3 });
            let body = Body::Text { text: Prose::new(text).unwrap(), reply_to: None };
            let entry = Entry { conversation, seq, prev: EntryHash([2; 32]), written: UnixMillis(seq), body };
            let carries = Some(Carried { conversation, first: seq, last: seq });
            Post { item: Item::Entry { first: 1, entry }, about: Some(name.clone()), carries }
        };
        let parcels = pack((1..=200).map(post).collect(), true);
        let mut next = 1;
        for (parcel, carries) in parcels {
            assert!(parcel.encode().is_ok(), "a parcel is too long");
            assert_eq!(parcel.0[0], Item::Conversation(name.clone()));
            assert_eq!(carries.len(), 1);
            assert_eq!(carries[0].first, next);
            next = carries[0].last + 1;
        }
        assert_eq!(next, 201);
    }
}
