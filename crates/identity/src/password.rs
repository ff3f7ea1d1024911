//! Which passwords are too weak.
//!
//! Whoever runs the login server can guess a password offline at the price of Argon2id a guess, so a password must withstand
//! ten billion guesses by zxcvbn's estimate: at a tenth of a second each, thirty years of a core.

use ahoy_protocol::Name;
use thiserror::Error;
use zxcvbn::Score;

/// Longest password, in bytes. Longer ones are no safer and make every check slow.
pub const PASSWORD_BYTES_MAX: usize = 256;
/// Fewest characters.
pub const PASSWORD_CHARS_MIN: usize = 8;

/// Why a password is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WeakPassword {
    /// Too short to be anything but weak.
    #[error("the password is too short: take at least {PASSWORD_CHARS_MIN} characters; four or five words in a row are easy to remember")]
    TooShort,
    /// Too long.
    #[error("the password is too long: at most {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// It would be guessed.
    #[error("the password is too easy to guess: {reason} {advice}")]
    Guessable {
        /// What makes it easy.
        reason: String,
        /// What to do.
        advice: String,
    },
}

/// Checks a password that `name` wants to use.
///
/// # Errors
/// See [`WeakPassword`]; its messages are for the person who chose.
pub fn check(password: &str, name: &Name) -> Result<(), WeakPassword> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(WeakPassword::TooLong);
    }
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Err(WeakPassword::TooShort);
    }
    // The estimate takes time that grows with the square of the length; a hundred characters tell enough.
    let start: String = password.chars().take(100).collect();
    let estimate = zxcvbn::zxcvbn(&start, &[name.as_str(), "ahoy"]);
    if estimate.score() >= Score::Four {
        return Ok(());
    }
    let feedback = estimate.feedback();
    let reason = feedback.and_then(zxcvbn::feedback::Feedback::warning);
    let advice = feedback.and_then(|feedback| feedback.suggestions().first().copied());
    Err(WeakPassword::Guessable {
        reason: reason.map_or_else(|| "a computer would find it soon.".to_owned(), |reason| reason.to_string()),
        advice: advice.map_or_else(|| "Four or five unusual words in a row are strong.".to_owned(), |advice| advice.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(password: &str) -> Result<(), WeakPassword> {
        check(password, &Name::parse("bob").expect("a name"))
    }

    #[test]
    fn common_and_short_passwords_are_refused_with_a_reason() {
        assert_eq!(verdict("tiny"), Err(WeakPassword::TooShort));
        for weak in ["password", "12345678", "qwertyuiop", "bobbobbob", "iloveyou1"] {
            assert!(matches!(verdict(weak), Err(WeakPassword::Guessable { .. })), "{weak} was accepted");
        }
        assert_eq!(verdict(&"x".repeat(257)), Err(WeakPassword::TooLong));
    }

    #[test]
    fn a_row_of_words_is_accepted() {
        assert_eq!(verdict("correct-lantern-otter-sails"), Ok(()));
        assert_eq!(verdict("Tr0mbone!Kiesel42"), Ok(()));
    }
}
