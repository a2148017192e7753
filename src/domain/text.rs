//! Texts for people and labels: what callers may send, and what the ledger may have of earlier versions.

use std::ops::RangeInclusive;

use crate::domain::account::Labels;

/// The longest description or reason, in bytes.
pub const TEXT_LENGTH_MAX: usize = 1024;
/// The most labels on one account, transaction or hold.
pub const LABELS_MAX: usize = 32;
/// The longest key of a label, in bytes.
pub const LABEL_KEY_LENGTH_MAX: usize = 63;
/// The longest value of a label, in bytes.
pub const LABEL_VALUE_LENGTH_MAX: usize = 256;
/// The most bytes of all keys and values of labels together.
pub const LABELS_SIZE_MAX: usize = LABELS_MAX * (LABEL_KEY_LENGTH_MAX + LABEL_VALUE_LENGTH_MAX);

/// Unicode's characters of formatting (Cf), as of version 17. They change how other characters look, or
/// their order, and are not seen themselves.
const FORMATTING: [RangeInclusive<char>; 21] = [
    '\u{AD}'..='\u{AD}',
    '\u{600}'..='\u{605}',
    '\u{61C}'..='\u{61C}',
    '\u{6DD}'..='\u{6DD}',
    '\u{70F}'..='\u{70F}',
    '\u{890}'..='\u{891}',
    '\u{8E2}'..='\u{8E2}',
    '\u{180E}'..='\u{180E}',
    '\u{200B}'..='\u{200F}',
    '\u{202A}'..='\u{202E}',
    '\u{2060}'..='\u{2064}',
    '\u{2066}'..='\u{206F}',
    '\u{FEFF}'..='\u{FEFF}',
    '\u{FFF9}'..='\u{FFFB}',
    '\u{110BD}'..='\u{110BD}',
    '\u{110CD}'..='\u{110CD}',
    '\u{13430}'..='\u{1343F}',
    '\u{1BCA0}'..='\u{1BCA3}',
    '\u{1D173}'..='\u{1D17A}',
    '\u{E0001}'..='\u{E0001}',
    '\u{E0020}'..='\u{E007F}',
];

/// Whether a new text must not have this character: a control character (Cc), a line or paragraph
/// separator (Zl, Zp), or a character of formatting (Cf).
pub fn is_invisible(letter: char) -> bool {
    let is_formatting = || FORMATTING.iter().any(|range| range.contains(&letter));
    letter.is_control()
        || matches!(letter, '\u{2028}' | '\u{2029}')
        || (!letter.is_ascii() && is_formatting())
}

/// Whether a text is the key of a label: `[A-Za-z0-9._/-]{1,63}`.
pub fn is_label_key(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    (1..=LABEL_KEY_LENGTH_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// Whether a text is the value of a new label.
pub fn is_label_value(text: &str) -> bool {
    text.len() <= LABEL_VALUE_LENGTH_MAX && !text.chars().any(is_invisible)
}

/// Whether some version has taken a text for people. Earlier ones took invisible characters other than
/// control characters.
pub fn is_stored_text(text: &str) -> bool {
    is_stored(text, TEXT_LENGTH_MAX)
}

/// Whether some version has taken these labels.
pub fn are_stored_labels(labels: &Labels) -> bool {
    let is_label = |(key, value): (&String, &String)| {
        is_label_key(key) && is_stored(value, LABEL_VALUE_LENGTH_MAX)
    };
    labels.len() <= LABELS_MAX && labels.iter().all(is_label)
}

fn is_stored(text: &str, length_max: usize) -> bool {
    text.len() <= length_max && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn invisible_characters_are_taken_in_stored_texts_only() {
        for text in ["\u{202E}", "\u{2028}", "a\u{200B}b", "\u{AD}"] {
            assert!(!is_label_value(text), "{text:?}");
            assert!(is_stored_text(text) && are_stored_labels(&labels(&[("a", text)])), "{text:?}");
        }
        for text in ["\n", "\u{1b}[31m", "\u{7f}", "\u{85}"] {
            assert!(!is_label_value(text) && !is_stored_text(text), "{text:?}");
            assert!(!are_stored_labels(&labels(&[("a", text)])), "{text:?}");
        }
    }

    #[test]
    fn texts_and_labels_have_limits() {
        let letters = |count| "a".repeat(count);
        assert!(is_stored_text("") && is_stored_text(&letters(1024)));
        assert!(!is_stored_text(&letters(1025)));
        let long = letters(63);
        assert!(are_stored_labels(&labels(&[(&long, &letters(256)), ("A-1._/z", "")])));
        for (key, value) in
            [("", ""), ("a b", ""), ("ä", ""), (&letters(64), ""), ("a", &letters(257))]
        {
            assert!(!are_stored_labels(&labels(&[(key, value)])), "{key:?}: {value:?}");
        }
        let many = |count| (0..count).map(|number| (number.to_string(), String::new())).collect();
        assert!(are_stored_labels(&many(32)) && !are_stored_labels(&many(33)));
    }
}
