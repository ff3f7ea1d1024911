//! How a value becomes bytes and back: version byte, postcard, and bounds that are part of the type.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// Longer than the limit of its type.
    #[error("a {name} of {len} bytes is over its limit of {max}")]
    TooLong {
        /// Name of the type.
        name: &'static str,
        /// Bytes that came.
        len: usize,
        /// Bytes that may come.
        max: usize,
    },
    /// The version byte is not the one this program speaks.
    #[error("a {name} of version {found} cannot be read; this program speaks version {expected}")]
    Version {
        /// Name of the type.
        name: &'static str,
        /// Version that came.
        found: u8,
        /// Version spoken here.
        expected: u8,
    },
    /// Truncated, out of bounds, or with bytes left over.
    #[error("malformed {name}")]
    Malformed {
        /// Name of the type.
        name: &'static str,
    },
}

/// A value that crosses a socket on its own.
pub trait Wire: Serialize + DeserializeOwned {
    /// What error messages call it.
    const NAME: &'static str;
    /// First byte of its encoding. It changes when the meaning of the rest does.
    const VERSION: u8 = 1;
    /// Longest encoding that is read or written, in bytes, version included.
    const BYTES_MAX: usize;

    /// The value as bytes.
    ///
    /// # Errors
    /// [`WireError::TooLong`] if the value does not fit its type's limit, which a value made from bounded parts always does.
    fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut bytes = vec![Self::VERSION];
        bytes = postcard::to_extend(self, bytes).map_err(|_| WireError::Malformed { name: Self::NAME })?;
        check_length::<Self>(bytes.len())?;
        Ok(bytes)
    }

    /// The value that `bytes`, all of them, stand for.
    ///
    /// # Errors
    /// See [`WireError`]. The work done is bounded by [`Wire::BYTES_MAX`].
    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        check_length::<Self>(bytes.len())?;
        let malformed = WireError::Malformed { name: Self::NAME };
        let (version, rest) = bytes.split_first().ok_or(malformed)?;
        if *version != Self::VERSION {
            return Err(WireError::Version { name: Self::NAME, found: *version, expected: Self::VERSION });
        }
        match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            _ => Err(malformed),
        }
    }
}

fn check_length<T: Wire>(len: usize) -> Result<(), WireError> {
    if len > T::BYTES_MAX {
        return Err(WireError::TooLong { name: T::NAME, len, max: T::BYTES_MAX });
    }
    Ok(())
}

/// At most `N` values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct List<T, const N: usize>(Vec<T>);

impl<T, const N: usize> List<T, N> {
    /// The most values it holds.
    pub const LEN_MAX: usize = N;

    /// A list of `values`, or `None` if they are more than `N`.
    #[must_use]
    pub fn new(values: Vec<T>) -> Option<Self> {
        (values.len() <= N).then_some(Self(values))
    }

    /// A list of the first `N` of `values`.
    pub fn first_of(values: impl IntoIterator<Item = T>) -> Self {
        Self(values.into_iter().take(N).collect())
    }

    /// The values as a vector.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const N: usize> std::ops::Deref for List<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> IntoIterator for List<T, N> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a List<T, N> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for List<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(deserializer)?).ok_or_else(|| serde::de::Error::custom("too many values"))
    }
}

/// At most `N` bytes of something opaque.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Default)]
#[serde(transparent)]
pub struct Blob<const N: usize>(Vec<u8>);

impl<const N: usize> Blob<N> {
    /// The most bytes it holds.
    pub const LEN_MAX: usize = N;

    /// A blob of `bytes`, or `None` if they are more than `N`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() <= N).then_some(Self(bytes))
    }

    /// The bytes as a vector.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl<const N: usize> std::ops::Deref for Blob<N> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> std::fmt::Debug for Blob<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl<'de, const N: usize> Deserialize<'de> for Blob<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(deserializer)?).ok_or_else(|| serde::de::Error::custom("too many bytes"))
    }
}

/// At most `N` bytes of text that people read. Control characters are refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Default)]
#[serde(transparent)]
pub struct Text<const N: usize>(String);

impl<const N: usize> Text<N> {
    /// A text, or `None` if it is longer than `N` bytes or has control characters.
    #[must_use]
    pub fn new(text: String) -> Option<Self> {
        (text.len() <= N && !text.chars().any(char::is_control)).then_some(Self(text))
    }

    /// As much of `text` as fits, without control characters.
    #[must_use]
    pub fn fitting(text: &str) -> Self {
        let mut fitting = String::new();
        for c in text.chars().filter(|c| !c.is_control()) {
            if fitting.len() + c.len_utf8() > N {
                break;
            }
            fitting.push(c);
        }
        Self(fitting)
    }
}

impl<const N: usize> std::ops::Deref for Text<N> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> std::fmt::Display for Text<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Text<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).ok_or_else(|| serde::de::Error::custom("text too long, or not plain"))
    }
}

/// At most `N` bytes of text that people write: as [`Text`], with line breaks and tabs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Default)]
#[serde(transparent)]
pub struct Prose<const N: usize>(String);

impl<const N: usize> Prose<N> {
    /// The most bytes it holds.
    pub const LEN_MAX: usize = N;

    /// A text, or `None` if it is longer than `N` bytes or has control characters other than line breaks and tabs.
    #[must_use]
    pub fn new(text: String) -> Option<Self> {
        let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
        (text.len() <= N && text.chars().all(is_plain)).then_some(Self(text))
    }
}

impl<const N: usize> std::ops::Deref for Prose<N> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> std::fmt::Display for Prose<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Prose<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).ok_or_else(|| serde::de::Error::custom("text too long, or not plain"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        lines: List<u8, 3>,
        text: Text<8>,
    }

    impl Wire for Note {
        const NAME: &'static str = "note";
        const BYTES_MAX: usize = 16;
    }

    fn note() -> Note {
        Note { lines: List::first_of([1, 2, 3]), text: Text::fitting("ahoy") }
    }

    #[test]
    fn what_was_encoded_decodes_to_the_same() {
        assert_eq!(Note::decode(&note().encode().expect("fits")), Ok(note()));
    }

    #[test]
    fn every_truncation_and_every_extension_is_refused() {
        let bytes = note().encode().expect("fits");
        for len in 0..bytes.len() {
            assert!(Note::decode(&bytes[..len]).is_err(), "{len} bytes were accepted");
        }
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(Note::decode(&longer), Err(WireError::Malformed { name: "note" }));
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let mut bytes = note().encode().expect("fits");
        bytes[0] = 9;
        assert_eq!(Note::decode(&bytes), Err(WireError::Version { name: "note", found: 9, expected: 1 }));
    }

    #[test]
    fn a_list_over_its_bound_is_refused() {
        let bytes = [1, 4, 1, 2, 3, 4, 0];
        assert_eq!(Note::decode(&bytes), Err(WireError::Malformed { name: "note" }));
    }

    #[test]
    fn text_keeps_whole_characters_and_no_controls() {
        assert_eq!(&*Text::<3>::fitting("a\nüü"), "aü");
        assert!(Text::<8>::new("bell\u{7}".into()).is_none());
    }

    #[test]
    fn prose_has_lines() {
        assert!(Prose::<8>::new("a\n\tb".into()).is_some());
        assert!(Prose::<8>::new("a\rb".into()).is_none());
        assert!(Prose::<2>::new("abc".into()).is_none());
    }
}
