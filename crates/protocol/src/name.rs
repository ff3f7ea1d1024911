//! Names of users: what people type to sign in and to be found.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use unicode_normalization::UnicodeNormalization;
use unicode_security::RestrictionLevelDetection;
use unicode_security::restriction_level::RestrictionLevel;

/// A user's name in its one comparable form: NFKC, lower case, letters and digits of one script plus `.`, `_` and `-`.
///
/// The rules keep two names that look alike from both existing (UTS 39, "highly restrictive"); they are checked wherever a name is
/// read, so a `Name` in hand is proof.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// Too short.
    #[error("a name has at least {min} characters", min = Name::CHARS_MIN)]
    TooShort,
    /// Too long.
    #[error("a name has at most {max} characters", max = Name::CHARS_MAX)]
    TooLong,
    /// A character that names do not have.
    #[error("a name has letters, digits, '.', '_' and '-' only, and '{0}' is none of them")]
    Character(char),
    /// Starts or ends with punctuation.
    #[error("a name starts and ends with a letter or a digit")]
    Edge,
    /// Letters of several scripts in a mixture that can imitate another name.
    #[error("a name may not mix scripts that look alike, such as Latin and Cyrillic")]
    MixedScripts,
}

impl Name {
    /// Fewest characters.
    pub const CHARS_MIN: usize = 2;
    /// Most characters.
    pub const CHARS_MAX: usize = 32;

    /// The name that `text`, as a person typed it, stands for. `Bob`, ` bob` and `BOB` are the same.
    ///
    /// # Errors
    /// See [`NameError`]; its messages are meant for the person who typed.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        // Bounded before any work: a name of 32 characters is never longer than this, however it was composed.
        if text.len() > 16 * Self::CHARS_MAX {
            return Err(NameError::TooLong);
        }
        // Lower-casing can undo normal form, hence the second pass.
        let lower: String = text.trim().nfkc().flat_map(char::to_lowercase).collect();
        let name: String = lower.nfkc().collect();
        let chars = name.chars().count();
        if chars < Self::CHARS_MIN {
            return Err(NameError::TooShort);
        }
        if chars > Self::CHARS_MAX {
            return Err(NameError::TooLong);
        }
        if let Some(c) = name.chars().find(|c| !c.is_alphanumeric() && !matches!(c, '.' | '_' | '-')) {
            return Err(NameError::Character(c));
        }
        let edge = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        if !edge(name.chars().next()) || !edge(name.chars().next_back()) {
            return Err(NameError::Edge);
        }
        if name.as_str().detect_restriction_level() > RestrictionLevel::HighlyRestrictive {
            return Err(NameError::MixedScripts);
        }
        Ok(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        let name = Self::parse(&text)?;
        // On the wire only the comparable form counts; two encodings of one name would be two records.
        if name.0 == text { Ok(name) } else { Err(NameError::Edge) }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_becomes_one_form() {
        for text in ["bob", "Bob", " BOB ", "ｂｏｂ"] {
            assert_eq!(Name::parse(text).expect(text).as_str(), "bob");
        }
        assert_eq!(Name::parse("Jürgen").expect("letters").as_str(), "jürgen");
        assert_eq!(Name::parse("Ju\u{308}rgen").expect("composes").as_str(), "jürgen");
        assert!(Name::parse("иван").is_ok());
    }

    #[test]
    fn malformed_names_say_what_is_wrong() {
        assert_eq!(Name::parse("a"), Err(NameError::TooShort));
        assert_eq!(Name::parse(&"a".repeat(33)), Err(NameError::TooLong));
        assert_eq!(Name::parse("a b"), Err(NameError::Character(' ')));
        assert_eq!(Name::parse("a/b"), Err(NameError::Character('/')));
        assert_eq!(Name::parse("-ab"), Err(NameError::Edge));
        assert_eq!(Name::parse("b\u{43e}b"), Err(NameError::MixedScripts));
    }

    #[test]
    fn only_the_comparable_form_is_read_from_the_wire() {
        assert!(Name::try_from("bob".to_owned()).is_ok());
        assert!(Name::try_from("Bob".to_owned()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn parsing_a_parsed_name_changes_nothing(text in "\\PC{0,40}") {
            if let Ok(name) = Name::parse(&text) {
                proptest::prop_assert_eq!(Name::parse(name.as_str()), Ok(name));
            }
        }
    }
}
