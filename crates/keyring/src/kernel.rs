//! The kernel's key ring of the user: keys that all programs of the user can read, never on a disk, gone when the system is restarted.

use crate::holder::{Holder, HolderError, Slot};
use crate::key::{KeyId, StoreKey};
use libc::{c_char, c_long};
use std::ffi::{CStr, CString};
use std::io;
use zeroize::Zeroizing;

/// Keys of any form, which only the kernel's memory holds.
const KIND: &CStr = c"user";
/// `KEY_SPEC_USER_KEYRING`: the key ring that all sessions of the user have in common.
const USER_KEY_RING: c_long = -4;
/// `KEYCTL_SETPERM`.
const SET_PERMISSIONS: c_long = 5;
/// `KEYCTL_UNLINK`.
const UNLINK: c_long = 9;
/// `KEYCTL_SEARCH`.
const SEARCH: c_long = 10;
/// `KEYCTL_READ`.
const READ: c_long = 11;
/// Everything for whoever possesses the key, and for the user. Without the second, a process whose session is not linked to the user's
/// key ring (a service, or a log-in over SSH) finds the key and may not read it.
const PERMISSIONS: c_long = 0x3f3f_0000;

/// The kernel's key ring of the user.
#[derive(Debug, Default)]
pub struct KernelKeyRing;

impl Holder for KernelKeyRing {
    fn slot(&self) -> Slot {
        Slot::KernelKeyRing
    }

    fn get(&self, id: &KeyId) -> Result<Option<StoreKey>, HolderError> {
        let Some(serial) = find(id)? else { return Ok(None) };
        let mut bytes = Zeroizing::new([0_u8; 32]);
        // SAFETY: the buffer is as long as is said, and the kernel writes no more than that.
        let len = unsafe { libc::syscall(libc::SYS_keyctl, READ, serial, bytes.as_mut_ptr(), bytes.len()) };
        // What is longer than a key was not put there by this program.
        if result(len)? == 32 { Ok(Some(StoreKey::from_bytes(*bytes))) } else { Ok(None) }
    }

    fn put(&self, id: &KeyId, key: &StoreKey) -> Result<(), HolderError> {
        let (description, bytes) = (description(id), key.as_bytes());
        // SAFETY: the strings end in zero and live until the call returns; the bytes are as many as is said.
        let serial =
            unsafe { libc::syscall(libc::SYS_add_key, KIND.as_ptr(), description.as_ptr(), bytes.as_ptr(), bytes.len(), USER_KEY_RING) };
        let serial = result(serial)?;
        // SAFETY: no pointer is passed.
        result(unsafe { libc::syscall(libc::SYS_keyctl, SET_PERMISSIONS, serial, PERMISSIONS) }).map(drop)
    }

    fn remove(&self, id: &KeyId) -> Result<(), HolderError> {
        let Some(serial) = find(id)? else { return Ok(()) };
        // SAFETY: no pointer is passed.
        result(unsafe { libc::syscall(libc::SYS_keyctl, UNLINK, serial, USER_KEY_RING) }).map(drop)
    }
}

/// The kernel's number of a key; `None`: it is not there.
fn find(id: &KeyId) -> Result<Option<c_long>, HolderError> {
    let description = description(id);
    let (kind, description): (*const c_char, *const c_char) = (KIND.as_ptr(), description.as_ptr());
    // SAFETY: the strings end in zero and live until the call returns.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, SEARCH, USER_KEY_RING, kind, description, 0 as c_long) };
    let code = io::Error::last_os_error().raw_os_error();
    if serial < 0 && matches!(code, Some(libc::ENOKEY | libc::EKEYREVOKED | libc::EKEYEXPIRED)) {
        return Ok(None);
    }
    result(serial).map(Some)
}

fn description(id: &KeyId) -> CString {
    CString::new(format!("ahoy:store-key:{}", id.as_str())).expect("hexadecimal digits are not zero")
}

fn result(returned: c_long) -> Result<c_long, HolderError> {
    if returned < 0 {
        Err(HolderError(format!("the kernel's key ring cannot be used: {}", io::Error::last_os_error())))
    } else {
        Ok(returned)
    }
}
