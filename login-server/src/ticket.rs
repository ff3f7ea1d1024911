//! What the server needs to remember between two requests, sealed and given to the client to carry.
//!
//! So no table of sign-ins under way can be filled up, and any login server with the same ticket key can go on.

use ahoy_identity::aead;
use ahoy_protocol::login::{LoginError, TICKET_BYTES_MAX, Ticket};
use ahoy_protocol::{Blob, Name, UnixMillis, Wire};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a ticket is good for: Argon2id on a slow phone and a slow line fit in easily, an attacker's stock of tickets does not.
pub(crate) const TICKET_LIFE: Duration = Duration::from_secs(120);
/// Longest state that OPAQUE keeps between its messages.
const OPAQUE_STATE_BYTES_MAX: usize = 512;

/// A sign-in that has begun.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SignInTicket {
    /// Who signs in, known or not.
    pub(crate) name: Name,
    /// The epoch of the account when it began; zero for a name that nobody has.
    pub(crate) epoch: u32,
    /// OPAQUE's state.
    pub(crate) state: Blob<OPAQUE_STATE_BYTES_MAX>,
    pub(crate) not_after: UnixMillis,
}

/// Leave to add a device, for somebody who has proved the password.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AddDeviceTicket {
    pub(crate) name: Name,
    pub(crate) epoch: u32,
    pub(crate) not_after: UnixMillis,
}

/// A value that travels sealed.
pub(crate) trait Sealed: Wire {
    /// Keeps a ticket for one purpose from serving another.
    const CONTEXT: &'static [u8];
    fn not_after(&self) -> UnixMillis;
}

macro_rules! ticket {
    ($type:ident, $name:literal, $context:literal) => {
        impl Wire for $type {
            const NAME: &'static str = $name;
            const BYTES_MAX: usize = TICKET_BYTES_MAX - 64;
        }
        impl Sealed for $type {
            const CONTEXT: &'static [u8] = $context;
            fn not_after(&self) -> UnixMillis {
                self.not_after
            }
        }
    };
}

ticket!(SignInTicket, "sign-in ticket", b"ahoy/sign-in-ticket/1");
ticket!(AddDeviceTicket, "add-device ticket", b"ahoy/add-device-ticket/1");

pub(crate) fn seal<T: Sealed>(key: &[u8; 32], ticket: &T) -> Result<Ticket, LoginError> {
    let plain = ticket.encode().map_err(|_| LoginError::Internal)?;
    Ticket::new(aead::seal(key, T::CONTEXT, &plain)).ok_or(LoginError::Internal)
}

pub(crate) fn open<T: Sealed>(key: &[u8; 32], ticket: &Ticket, now: UnixMillis) -> Result<T, LoginError> {
    let plain = aead::open(key, T::CONTEXT, ticket).ok_or(LoginError::TicketExpired)?;
    let ticket = T::decode(&plain).map_err(|_| LoginError::TicketExpired)?;
    if now > ticket.not_after() { Err(LoginError::TicketExpired) } else { Ok(ticket) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add_device() -> AddDeviceTicket {
        AddDeviceTicket { name: Name::parse("bob").expect("is a name"), epoch: 1, not_after: UnixMillis(1000) }
    }

    #[test]
    fn a_ticket_opens_until_it_lapses_and_only_for_its_purpose() {
        let sealed = seal(&[7; 32], &add_device()).expect("seals");
        assert!(open::<AddDeviceTicket>(&[7; 32], &sealed, UnixMillis(1000)).is_ok());
        assert!(matches!(open::<AddDeviceTicket>(&[7; 32], &sealed, UnixMillis(1001)), Err(LoginError::TicketExpired)));
        assert!(matches!(open::<AddDeviceTicket>(&[8; 32], &sealed, UnixMillis(0)), Err(LoginError::TicketExpired)));
        assert!(matches!(open::<SignInTicket>(&[7; 32], &sealed, UnixMillis(0)), Err(LoginError::TicketExpired)));
    }
}
