//! Cleans text that people type or paste, before any other rule is applied. No other module cleans
//! text.
//!
//! Text copied from a chat, a web page or a phone book contains invisible characters: zero-width
//! spaces, direction marks, no-break spaces and hyphens. How they are treated depends on the kind
//! of text:
//!
//! | text | function |
//! |---|---|
//! | an e-mail address | [`identifier`] |
//! | an external ID, a WeChat open id, an account id | [`opaque_id`] |
//! | a mobile number, an OTP | [`number`] |
//! | a person's name | [`name`] |
//! | a value of an enumeration | [`trim`] |
//!
//! Each function is idempotent. Character properties are those of the Unicode version of
//! `icu_properties`.

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{BidiControl, Dash, DefaultIgnorableCodePoint, GeneralCategory},
};

/// White space of any kind becomes a space, every hyphen or dash becomes `-`, invisible characters
/// are dropped, and the result is trimmed.
pub fn identifier(text: &str) -> String {
    let visible = text.chars().map(plain_space).filter(|c| !is_ignorable(*c));
    trimmed(visible.map(|c| if is_dash(c) { '-' } else { c }))
}

/// The same as [`identifier`], in Unicode normalization form C, so that `é` is always one
/// character.
pub fn opaque_id(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc().normalize(&identifier(text)).into_owned()
}

/// The same as [`identifier`], and full-width forms and the decimal digits of any script become
/// ASCII ones.
pub fn number(text: &str) -> String {
    identifier(text).chars().map(ascii_form).collect()
}

/// White space of any kind becomes a space, control characters and direction marks are dropped, and
/// the result is trimmed. Joiners are kept, because names in Indic scripts and in Persian need
/// them.
pub fn name(text: &str) -> String {
    let is_mark = |c: char| c.is_control() || CodePointSetData::new::<BidiControl>().contains(c);
    trimmed(text.chars().map(plain_space).filter(|c| !is_mark(*c)))
}

/// The text without white space around it.
pub fn trim(text: &str) -> &str {
    text.trim()
}

/// Whether nothing is left of a text by [`identifier`], so that it counts as absent.
pub fn is_absent(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || is_ignorable(c))
}

/// Whether a text that must be one line holds a control character or a line separator.
pub fn has_control(text: &str) -> bool {
    text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
}

/// What people see of an id, without case and spaces and what [`opaque_id`] removes. Two ids look
/// the same if these are equal.
pub fn appearance(id: &str) -> String {
    ComposingNormalizerBorrowed::new_nfkc().normalize(&identifier(id)).replace(' ', "").to_lowercase()
}

/// Whether a character is invisible: white space, a character that [`identifier`] drops, or the
/// blank Braille cell, which Unicode classifies as a symbol.
pub fn is_blank(c: char) -> bool {
    c.is_whitespace() || is_ignorable(c) || c == '\u{2800}'
}

/// Whether [`identifier`] drops a character, apart from white space.
pub fn is_ignorable(c: char) -> bool {
    c.is_control() || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

/// Whether a character is a hyphen or a dash of any kind.
pub fn is_dash(c: char) -> bool {
    CodePointSetData::new::<Dash>().contains(c)
}

const fn plain_space(c: char) -> char {
    if c.is_whitespace() { ' ' } else { c }
}

fn trimmed(characters: impl Iterator<Item = char>) -> String {
    let text: String = characters.collect();
    text.trim_matches(' ').to_owned()
}

/// The ASCII equivalent of a character in a number.
fn ascii_form(c: char) -> char {
    match c {
        // The full-width forms are in the order of ASCII.
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        // Japanese keyboards have the long vowel mark in the place of the hyphen.
        'ー' | '\u{ff70}' => '-',
        c if !c.is_ascii() && is_decimal(c) => ascii_digit(c),
        c => c,
    }
}

fn is_decimal(c: char) -> bool {
    CodePointMapData::<GeneralCategory>::new().get(c) == GeneralCategory::DecimalNumber
}

/// Unicode encodes the decimal digits of a script in one run from zero to nine. Its stability
/// policy guarantees that (<https://www.unicode.org/policies/stability_policy.html>). Runs of
/// several scripts may be adjacent.
fn ascii_digit(c: char) -> char {
    let before = ('\0'..c).rev().take_while(|c| is_decimal(*c)).count();
    u32::try_from(before % 10).ok().and_then(|value| char::from_digit(value, 10)).unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_chat_adds_to_a_number_is_dropped() {
        assert_eq!(number("\u{202a}+91\u{a0}87993\u{2011}61139\u{202c}"), "+91 87993-61139");
        assert_eq!(number("５３８ＡＤ８７"), "538AD87");
        assert_eq!(number("（０３）１２３４ー５６７８"), "(03)1234-5678");
    }

    #[test]
    fn decimal_digits_of_every_script_become_ascii() {
        for zero in ['٠', '۰', '०', '০', '๐', '０', '\u{11066}', '\u{1d7ce}', '\u{1d7f6}', '\u{1fbf0}']
        {
            let digits: String = (0..10).filter_map(|i| char::from_u32(u32::from(zero) + i)).collect();
            assert_eq!(number(&digits), "0123456789", "{zero}");
        }
        assert_eq!(number("½²Ⅷ"), "½²Ⅷ", "no decimal digits");
    }

    #[test]
    fn identifiers_lose_invisible_characters() {
        assert_eq!(identifier("\u{feff}to\u{200b}m@ex\u{ad}ample.com\u{3164}\r\n"), "tom@example.com");
        assert_eq!(identifier("a\u{2014}b\u{2212}c"), "a-b-c");
        assert_eq!(identifier("\u{2800}"), "\u{2800}", "a symbol; the rules of each identifier refuse it");
        assert_eq!(opaque_id("Cafe\u{301} 1"), "Café 1");
        assert_eq!(opaque_id("a\u{3000}\tb"), "a  b");
    }

    #[test]
    fn names_keep_their_joiners() {
        assert_eq!(name(" \u{202b}علی\u{200c}رضا\u{202c}\n"), "علی\u{200c}رضا");
        assert_eq!(name("क्\u{200d}ष"), "क्\u{200d}ष");
        assert_eq!(name("Tom\u{0}\tSawyer"), "Tom Sawyer");
        assert_eq!(name("Jean–Luc"), "Jean–Luc");
    }

    #[test]
    fn a_line_break_is_a_control_character_and_a_joiner_is_none() {
        assert!(["a\nb", "a\rb", "\u{85}", "\u{7f}", "a\u{2028}b"].iter().all(|text| has_control(text)));
        assert!(["", "a b", "a\u{a0}b", "क्\u{200d}ष", "✓ 538"].iter().all(|text| !has_control(text)));
    }

    #[test]
    fn ids_that_differ_in_case_or_in_invisible_characters_look_alike() {
        assert_eq!(appearance("WECHAT-API1"), appearance("wechat\u{2010}api1\u{200b} "));
        assert_ne!(appearance("WECHAT-API1"), appearance("WECHAT-API2"));
    }

    proptest! {
        #[test]
        fn cleaning_twice_is_cleaning_once(text in "\\PC{0,30}|[\\s\\pC\\p{Pd}\\p{Nd}\\p{Mn}a-zA-Z]{0,30}") {
            for clean in [identifier, opaque_id, number, name] {
                let once = clean(&text);
                prop_assert_eq!(clean(&once), once);
            }
        }

        #[test]
        fn what_is_clean_stays_as_it_is(text in "[!-~]([ -~]{0,20}[!-~])?") {
            for clean in [identifier, opaque_id, number, name] {
                prop_assert_eq!(clean(&text), text.as_str());
            }
        }
    }
}
