//! The recovery phrase: the user key in words, for who forgot the password and has no other device.

use crate::SigningKey;
use bip39::{Language, Mnemonic};
use thiserror::Error;
use zeroize::Zeroizing;

/// Words of a phrase (BIP 39): 256 bits and a checksum.
pub const PHRASE_WORDS: usize = 24;

/// Why words are no recovery phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PhraseError {
    /// Not the right number of them.
    #[error("a recovery phrase has {PHRASE_WORDS} words, and these are {0}")]
    Count(usize),
    /// One is not in the list.
    #[error("word {0} is none of a recovery phrase; look whether it is misspelt")]
    Word(usize),
    /// They are all in the list, and yet not together a phrase.
    #[error("these words are no recovery phrase; look whether two are swapped or one is another")]
    Checksum,
}

/// The phrase of a user key.
///
/// # Panics
/// Never: 32 bytes are a phrase.
#[must_use]
pub fn phrase(user: &SigningKey) -> Zeroizing<String> {
    let words = Mnemonic::from_entropy_in(Language::English, user.seed()).expect("32 bytes are a phrase");
    Zeroizing::new(words.words().collect::<Vec<_>>().join(" "))
}

/// The user key of a phrase, however it was typed.
///
/// # Errors
/// See [`PhraseError`]; its messages are for the person who typed.
pub fn user_key(phrase: &str) -> Result<SigningKey, PhraseError> {
    let words: Zeroizing<Vec<String>> = Zeroizing::new(phrase.split_whitespace().map(str::to_lowercase).collect());
    if words.len() != PHRASE_WORDS {
        return Err(PhraseError::Count(words.len()));
    }
    if let Some(nth) = words.iter().position(|word| Language::English.find_word(word).is_none()) {
        return Err(PhraseError::Word(nth + 1));
    }
    let joined = Zeroizing::new(words.join(" "));
    let mnemonic = Mnemonic::parse_in_normalized(Language::English, &joined).map_err(|_| PhraseError::Checksum)?;
    let entropy = Zeroizing::new(mnemonic.to_entropy());
    Ok(SigningKey::from_seed(entropy.as_slice().try_into().map_err(|_| PhraseError::Checksum)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_stands_for_its_key_however_it_is_typed() {
        let user = SigningKey::from_seed([7; 32]);
        let phrase = phrase(&user);
        assert_eq!(phrase.split(' ').count(), PHRASE_WORDS);
        let typed = format!("  {}\n", phrase.to_uppercase().replace(' ', "  "));
        assert_eq!(user_key(&typed).map(|key| key.public()), Ok(user.public()));
    }

    #[test]
    fn a_wrong_phrase_is_told_what_is_wrong() {
        let phrase = phrase(&SigningKey::from_seed([7; 32]));
        let words: Vec<&str> = phrase.split(' ').collect();
        assert_eq!(user_key("ahoy there").err(), Some(PhraseError::Count(2)));
        let mut misspelt = words.clone();
        misspelt[4] = "ahoyy";
        assert_eq!(user_key(&misspelt.join(" ")).err(), Some(PhraseError::Word(5)));
        let mut swapped = words;
        let other = swapped.iter().position(|word| *word != swapped[0]).expect("not all are the same");
        swapped.swap(0, other);
        assert_eq!(user_key(&swapped.join(" ")).err(), Some(PhraseError::Checksum));
    }
}
