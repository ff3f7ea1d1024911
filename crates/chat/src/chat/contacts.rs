//! Contacts: asking, accepting, and parting; and what of it the vault carries to the user's other devices.

use super::{Author, Chat, READ_RECEIPTS};
use crate::effect::{ChatEvent, Effect};
use crate::outbox::Post;
use crate::people::Request;
use crate::vault::{ALIAS_BYTES_MAX, Contact, ContactState, Edit, Record, SETTING_BYTES_MAX, SETTING_NAME_BYTES_MAX, Subject};
use crate::{ASKING_MAX, ENTRIES_NEEDED_MAX};
use ahoy_protocol::letter::REQUEST_TEXT_BYTES_MAX;
use ahoy_protocol::mail::Pass;
use ahoy_protocol::message::{ContactNews, Gap, Item};
use ahoy_protocol::{Blob, DeviceKey, Name, Prose, Text, UnixMillis, UserKey};
use thiserror::Error;

/// Why a contact cannot be changed like that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ContactError {
    /// One's own name.
    #[error("that is your own name")]
    Myself,
    /// They are contacts already.
    #[error("you are contacts already")]
    Already,
    /// He is blocked.
    #[error("you have blocked this person; unblock them first")]
    Blocked,
    /// Nobody with that name has asked, or is a contact.
    #[error("there is no such contact or request")]
    Unknown,
    /// He shows another key than before.
    #[error("the key of this person has changed; compare safety numbers, then trust the new key to go on")]
    KeyChanged,
    /// There are too many contacts.
    #[error("there are too many contacts")]
    TooMany,
}

impl Chat {
    fn edit(&mut self, now: UnixMillis, name: &Name, edits: impl IntoIterator<Item = Edit>) -> Result<(), ContactError> {
        if *name == self.me.name {
            return Err(ContactError::Myself);
        }
        if !self.shelf.edit_contact(now, &self.me.device, name, edits) {
            return Err(ContactError::TooMany);
        }
        self.tell_contact(name);
        Ok(())
    }

    fn tell_contact(&mut self, name: &Name) {
        if let Some(contact) = self.shelf.contact(name) {
            self.out.tell(ChatEvent::Contact(Box::new(contact.clone())));
        }
    }

    /// Asks somebody, whose key the directory gave, to become a contact. `pass` lets him write to me. Who has asked already is accepted.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub fn add(
        &mut self,
        now: UnixMillis,
        name: &Name,
        user: UserKey,
        pass: Pass,
        text: Prose<REQUEST_TEXT_BYTES_MAX>,
    ) -> Result<(), ContactError> {
        if self.shelf.contact(name).and_then(Contact::key).is_some_and(|key| key != user) {
            return Err(ContactError::KeyChanged);
        }
        match self.state_of(name) {
            ContactState::Contact => return Err(ContactError::Already),
            ContactState::Blocked => return Err(ContactError::Blocked),
            ContactState::Asking => return self.accept(now, name, pass),
            ContactState::None | ContactState::Asked => {}
        }
        self.edit(now, name, [Edit::State(ContactState::Asked), Edit::Key(Some(user)), Edit::Given(Some(pass))])?;
        self.out.push(Effect::Ask { to: name.clone(), pass, text });
        self.need_devices(now, name);
        self.settle(now);
        Ok(())
    }

    /// Somebody asks to become a contact. His signature was checked; `pass` lets me write to him.
    pub fn handle_contact_request(&mut self, now: UnixMillis, from: &Author, text: Prose<REQUEST_TEXT_BYTES_MAX>, pass: Pass) {
        let state = self.state_of(&from.name);
        if from.name == self.me.name || state == ContactState::Blocked {
            return;
        }
        if state != ContactState::None && !self.check_key(&from.name, from.user) {
            if let Some(person) = self.person(&from.name) {
                person.request = Some(Request { user: from.user, device: from.device, text, pass });
            }
            self.settle(now);
            return;
        }
        let held = Edit::Held(Some(pass));
        match state {
            ContactState::Blocked => {}
            ContactState::Asking => drop(self.edit(now, &from.name, [held, Edit::Request(text)])),
            // Both have asked, or he has lost what he knew of it.
            ContactState::Asked | ContactState::Contact => {
                let was_asked = state == ContactState::Asked;
                let _ = self.edit(now, &from.name, [Edit::State(ContactState::Contact), held]);
                if let Some(given) = self.shelf.contact(&from.name).and_then(Contact::given) {
                    self.send_news(now, &from.name, ContactNews::Accepted(given));
                }
                if was_asked {
                    self.handle_contact(now, &from.name);
                }
            }
            ContactState::None => {
                let waiting = self.shelf.contacts().filter(|contact| contact.state() == ContactState::Asking).count();
                let edits = [Edit::State(ContactState::Asking), Edit::Key(Some(from.user)), held, Edit::Request(text.clone())];
                let has_changed_key = self.shelf.contact(&from.name).and_then(Contact::key).is_some_and(|key| key != from.user);
                if waiting < ASKING_MAX && self.edit(now, &from.name, edits).is_ok() {
                    if has_changed_key {
                        // Whoever was a contact once may come back under another key, which the user should know before he accepts.
                        self.out.tell(ChatEvent::KeyChanged(from.name.clone()));
                    }
                    self.out.tell(ChatEvent::Request { from: from.name.clone(), text });
                }
            }
        }
        self.need_devices(now, &from.name);
        self.settle(now);
    }

    /// Accepts somebody's request. `pass` lets him write to me.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub fn accept(&mut self, now: UnixMillis, name: &Name, pass: Pass) -> Result<(), ContactError> {
        match self.state_of(name) {
            ContactState::Asking => {}
            ContactState::Contact => return Err(ContactError::Already),
            ContactState::None | ContactState::Asked | ContactState::Blocked => return Err(ContactError::Unknown),
        }
        self.edit(now, name, [Edit::State(ContactState::Contact), Edit::Given(Some(pass)), Edit::Request(Prose::default())])?;
        self.send_news(now, name, ContactNews::Accepted(pass));
        self.need_devices(now, name);
        self.handle_contact(now, name);
        self.settle(now);
        Ok(())
    }

    /// Declines somebody's request.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub fn decline(&mut self, now: UnixMillis, name: &Name) -> Result<(), ContactError> {
        if self.state_of(name) != ContactState::Asking {
            return Err(ContactError::Unknown);
        }
        self.edit(now, name, [Edit::State(ContactState::None), Edit::Request(Prose::default())])?;
        self.send_news(now, name, ContactNews::Declined);
        self.settle(now);
        Ok(())
    }

    /// Removes a contact, or takes a request back.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub fn remove(&mut self, now: UnixMillis, name: &Name) -> Result<(), ContactError> {
        if !matches!(self.state_of(name), ContactState::Contact | ContactState::Asked) {
            return Err(ContactError::Unknown);
        }
        self.revoke(name);
        self.edit(now, name, [Edit::State(ContactState::None), Edit::Given(None), Edit::Verified(None)])?;
        self.send_news(now, name, ContactNews::Removed);
        self.forget_devices(name, &[]);
        self.settle(now);
        Ok(())
    }

    /// Takes nothing of somebody any more. He is not told.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub fn block(&mut self, now: UnixMillis, name: &Name) -> Result<(), ContactError> {
        self.revoke(name);
        self.edit(now, name, [Edit::State(ContactState::Blocked), Edit::Given(None)])?;
        self.forget_devices(name, &[]);
        self.settle(now);
        Ok(())
    }

    /// Lets somebody who was blocked ask again.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub fn unblock(&mut self, now: UnixMillis, name: &Name) -> Result<(), ContactError> {
        if self.state_of(name) != ContactState::Blocked {
            return Err(ContactError::Unknown);
        }
        self.edit(now, name, [Edit::State(ContactState::None)])?;
        self.settle(now);
        Ok(())
    }

    /// Makes somebody a favourite, or not.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub fn set_favourite(&mut self, now: UnixMillis, name: &Name, is_favourite: bool) -> Result<(), ContactError> {
        self.edit_known(now, name, Edit::Favourite(is_favourite))
    }

    /// Calls somebody so.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub fn set_alias(&mut self, now: UnixMillis, name: &Name, alias: Option<Text<ALIAS_BYTES_MAX>>) -> Result<(), ContactError> {
        self.edit_known(now, name, Edit::Alias(alias))
    }

    /// Safety numbers were compared under the key that he has, or do not count any more.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub fn set_verified(&mut self, now: UnixMillis, name: &Name, is_verified: bool) -> Result<(), ContactError> {
        let key = self.shelf.contact(name).and_then(Contact::key);
        self.edit_known(now, name, Edit::Verified(key.filter(|_| is_verified)))
    }

    /// From here on this is his key: the old one has signed for it, or the user says so.
    ///
    /// # Errors
    /// See [`ContactError`].
    pub fn trust_key(&mut self, now: UnixMillis, name: &Name, key: UserKey) -> Result<(), ContactError> {
        self.edit_known(now, name, Edit::Key(Some(key)))?;
        self.handle_trusted(now, name);
        let request = self.person(name).and_then(|person| person.request.take_if(|request| request.user == key));
        if let Some(Request { user, device, text, pass }) = request {
            self.handle_contact_request(now, &Author { name: name.clone(), user, device }, text, pass);
        }
        self.settle(now);
        Ok(())
    }

    fn edit_known(&mut self, now: UnixMillis, name: &Name, edit: Edit) -> Result<(), ContactError> {
        if self.shelf.contact(name).is_none() {
            return Err(ContactError::Unknown);
        }
        self.edit(now, name, [edit])?;
        self.settle(now);
        Ok(())
    }

    fn handle_trusted(&mut self, now: UnixMillis, name: &Name) {
        if let Some(person) = self.person(name) {
            person.handle_trusted();
        }
        self.need_devices(now, name);
    }

    fn revoke(&mut self, name: &Name) {
        if let Some(pass) = self.shelf.contact(name).and_then(Contact::given) {
            self.out.push(Effect::Revoke(pass.id));
        }
    }

    /// Forgets how somebody is, but by these devices.
    pub(super) fn forget_devices(&mut self, name: &Name, but: &[DeviceKey]) {
        let mut events = Vec::new();
        self.presence.retain(name, but, &mut events);
        events.into_iter().for_each(|event| self.out.tell(event));
    }

    pub(super) fn handle_contact_news(&mut self, now: UnixMillis, name: &Name, news: &ContactNews) {
        let state = self.state_of(name);
        match (news, state) {
            (ContactNews::Accepted(pass), ContactState::Asked) => {
                let _ = self.edit(now, name, [Edit::State(ContactState::Contact), Edit::Held(Some(*pass))]);
                self.out.tell(ChatEvent::Accepted(name.clone()));
                self.handle_contact(now, name);
            }
            (ContactNews::Accepted(pass) | ContactNews::Pass(pass), ContactState::Contact) => {
                if self.shelf.contact(name).and_then(Contact::held) != Some(*pass) {
                    let _ = self.edit(now, name, [Edit::Held(Some(*pass))]);
                }
                // An answer, so that he need not say it again.
                self.greet(name, false);
            }
            (ContactNews::Declined, ContactState::Asked) => {
                let _ = self.edit(now, name, [Edit::State(ContactState::None)]);
                self.out.tell(ChatEvent::Declined(name.clone()));
            }
            (ContactNews::Removed, ContactState::Contact) => {
                self.revoke(name);
                let _ = self.edit(now, name, [Edit::State(ContactState::None), Edit::Given(None)]);
                self.out.tell(ChatEvent::Removed(name.clone()));
                self.forget_devices(name, &[]);
            }
            (ContactNews::Accepted(_) | ContactNews::Pass(_) | ContactNews::Declined | ContactNews::Removed, _) => {}
        }
    }

    /// Somebody has become a contact: what was turned away before is asked for.
    fn handle_contact(&mut self, now: UnixMillis, name: &Name) {
        if self.devices(name).is_empty() {
            self.need_devices(now, name);
        }
        let conversation = self.conversation(name);
        for device in self.devices(name).to_vec() {
            if self.turned_away.remove(&device) {
                let first = self.threads.get(&conversation).map_or(1, |thread| thread.first_wanted(&device));
                let item = Item::Want(Gap { conversation, author: device, first, last: first + ENTRIES_NEEDED_MAX - 1 });
                self.out.post(device, name, Post { item, about: None, carries: None });
            }
        }
        self.greet(name, true);
    }

    fn send_news(&mut self, now: UnixMillis, name: &Name, news: ContactNews) {
        if let Some(person) = self.person(name) {
            person.set_news(now, news);
        }
        self.tell_news(now, name);
    }

    pub(super) fn tell_news(&mut self, now: UnixMillis, name: &Name) {
        let Some(person) = self.people.get_mut(name) else { return };
        if person.needs_devices() {
            self.need_devices(now, name);
        } else if let Some(news) = person.poll_news(now) {
            for device in &person.devices {
                let item = Item::Contact(news.clone());
                self.out.post(*device, name, Post { item, about: None, carries: None });
            }
            self.dirty_people.insert(name.clone());
        }
    }

    /// A record came from the vault.
    pub fn handle_vault(&mut self, now: UnixMillis, version: u64, record: Record) {
        let subject = record.subject();
        let before = match &subject {
            Subject::Contact(name) => self.shelf.contact(name).cloned(),
            Subject::Read(_) | Subject::Setting(_) => None,
        };
        match self.shelf.handle(now, version, record) {
            Some(Record::Contact(contact)) => self.handle_merged_contact(now, before.as_ref(), &contact),
            Some(Record::Read(_)) => {
                if let Subject::Read(with) = &subject {
                    self.apply_read_marks(now, with);
                }
            }
            Some(Record::Setting(_)) => {
                if let Subject::Setting(name) = &subject {
                    let value = self.shelf.setting(name).unwrap_or_default().to_vec();
                    self.out.tell(ChatEvent::Setting { name: name.to_string(), value });
                }
            }
            None => {}
        }
        self.settle(now);
    }

    fn handle_merged_contact(&mut self, now: UnixMillis, before: Option<&Contact>, contact: &Contact) {
        let name = contact.name();
        self.tell_contact(name);
        if before.and_then(Contact::key) != contact.key() {
            self.handle_trusted(now, name);
        }
        let was = before.map_or(ContactState::None, Contact::state);
        match (was, contact.state()) {
            (ContactState::Contact, ContactState::Contact) => {}
            (_, ContactState::Contact) => self.handle_contact(now, name),
            (ContactState::Contact, _) => self.forget_devices(name, &[]),
            (_, _) => {}
        }
    }

    pub(super) fn apply_read_marks(&mut self, now: UnixMillis, with: &Name) {
        let id = self.conversation(with);
        let marks: Vec<_> = self.shelf.read_marks(with).collect();
        for (author, read) in marks {
            self.in_thread(now, id, |thread, scene| {
                thread.note_read(author, read);
                thread.apply_read(scene, author, read)
            });
        }
    }

    /// The vault keeps a record of this version.
    pub fn handle_vault_kept(&mut self, now: UnixMillis, subject: &Subject, version: u64) {
        self.shelf.handle_kept(subject, version);
        self.settle(now);
    }

    /// Changes a setting that follows the account. False: there is no room, or the name is none.
    pub fn set_setting(&mut self, now: UnixMillis, name: &str, value: Blob<SETTING_BYTES_MAX>) -> bool {
        let name: Option<Text<SETTING_NAME_BYTES_MAX>> = Text::new(name.to_owned());
        let is_set = name.is_some_and(|name| self.shelf.set(now, &self.me.device, name, value));
        self.settle(now);
        is_set
    }

    /// Whether others are told what the user has read. It follows the account.
    pub fn set_read_receipts(&mut self, now: UnixMillis, are_on: bool) {
        let value = Blob::new(vec![u8::from(are_on)]).expect("one byte is within the bound");
        self.set_setting(now, READ_RECEIPTS, value);
    }
}
