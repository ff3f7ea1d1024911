//! Safety numbers: what two people compare to know that nobody stands between them.

use crate::sha256;
use ahoy_protocol::{Name, UserKey};
use bip39::Language;

/// Words that stand for one person's key: 88 bits.
pub const FINGERPRINT_WORDS: usize = 8;
/// Bits of one word.
const WORD_BITS: usize = 11;
/// How often a fingerprint is hashed. Whoever looks for a key with the same words does this for each that he tries.
const ROUNDS: usize = 5200;
/// Bytes of one person's part in the code.
const FINGERPRINT_BYTES: usize = 32;
/// First byte of the code, by which a later form is told apart.
const CODE_VERSION: u8 = 1;

/// The number of two people; the same for both.
///
/// Each person has half of the words, so that a false key has to match all words of one person: about 2^100 hashes, 88 bits and the rounds
/// together. A number over both keys at once could be met halfway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafetyNumber([[u8; FINGERPRINT_BYTES]; 2]);

impl SafetyNumber {
    /// The number of two people, in either order.
    #[must_use]
    pub fn of(a: (&Name, &UserKey), b: (&Name, &UserKey)) -> Self {
        let mut parts = [fingerprint(a), fingerprint(b)];
        parts.sort_unstable();
        Self(parts)
    }

    /// The words to be read out, half of them for each person.
    #[must_use]
    pub fn words(&self) -> Vec<&'static str> {
        self.0.iter().flat_map(words).collect()
    }

    /// What a code to be scanned holds.
    #[must_use]
    pub fn code(&self) -> Vec<u8> {
        std::iter::once(CODE_VERSION).chain(self.0.iter().flatten().copied()).collect()
    }
}

fn fingerprint((name, user): (&Name, &UserKey)) -> [u8; FINGERPRINT_BYTES] {
    let first = sha256(&[b"ahoy/fingerprint/1\0", name.as_str().as_bytes(), &[0], user.as_bytes()]);
    (0..ROUNDS).fold(first, |hash, _| sha256(&[&hash, user.as_bytes()]))
}

fn words(fingerprint: &[u8; FINGERPRINT_BYTES]) -> impl Iterator<Item = &'static str> + use<> {
    let bit = |nth: usize, bytes: &[u8; FINGERPRINT_BYTES]| usize::from(bytes[nth / 8] >> (7 - nth % 8) & 1);
    let bytes = *fingerprint;
    let number = move |word: usize| (0..WORD_BITS).fold(0, |number, nth| number << 1 | bit(word * WORD_BITS + nth, &bytes));
    (0..FINGERPRINT_WORDS).map(move |word| Language::English.word_list()[number(word)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str, key: u8) -> (Name, UserKey) {
        (Name::parse(name).expect("a name"), UserKey([key; 32]))
    }

    fn number(a: &(Name, UserKey), b: &(Name, UserKey)) -> SafetyNumber {
        SafetyNumber::of((&a.0, &a.1), (&b.0, &b.1))
    }

    #[test]
    fn both_people_see_the_same() {
        let (alice, bob) = (person("alice", 1), person("bob", 2));
        assert_eq!(number(&alice, &bob), number(&bob, &alice));
        assert_eq!(number(&alice, &bob).words().len(), 2 * FINGERPRINT_WORDS);
        assert_eq!(number(&alice, &bob).code().len(), 65);
    }

    #[test]
    fn another_key_or_name_changes_the_words_of_that_person() {
        let (alice, bob) = (person("alice", 1), person("bob", 2));
        let known = number(&alice, &bob).words();
        for other in [person("bob", 3), person("rob", 2)] {
            let words = number(&alice, &other).words();
            let same = words.iter().filter(|word| known.contains(word)).count();
            assert!((FINGERPRINT_WORDS..FINGERPRINT_WORDS + 3).contains(&same), "{same} words stayed");
        }
    }
}
