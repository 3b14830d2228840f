//! The forms of a text that channels need: e-mail as text and as HTML, and SSML for calls.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    customer::{email_address, is_atom_character},
    typed_text,
};

/// The two parts of an e-mail's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailParts {
    pub text: String,
    pub html: String,
}

/// Makes both parts of an e-mail. A body with an HTML tag in it is HTML, and the text part is
/// `text`, which carries the same code on other channels. Every other body is plain text, and its
/// HTML is the same text, escaped.
///
/// ```
/// use loyalty_codes::model::content::email;
/// assert_eq!(email("1 < 2\nBye", "").html, "1 &lt; 2<br>\nBye");
/// assert_eq!(email("<p>Bye</p>", "Bye").text, "Bye");
/// ```
pub fn email(body: &str, text: &str) -> EmailParts {
    EmailParts { text: if has_tag(body) { text } else { body }.to_owned(), html: email_html(body) }
}

/// The HTML part of an e-mail.
pub fn email_html(body: &str) -> String {
    if has_tag(body) {
        body.to_owned()
    } else {
        // Its line breaks stay visible.
        escape(&body.replace("\r\n", "\n")).replace('\n', "<br>\n")
    }
}

/// The sender of an e-mail in the form that headers have: a display name with characters outside of
/// ASCII is encoded (RFC 2047), and one with punctuation is quoted (RFC 5322, 3.2.4). `sender` is
/// an address, or a name with one in angle brackets.
///
/// ```
/// use loyalty_codes::model::content::mailbox;
/// assert_eq!(mailbox("Demo <otp@example.com>"), "Demo <otp@example.com>");
/// assert_eq!(mailbox("Demo, Inc. <otp@example.com>"), "\"Demo, Inc.\" <otp@example.com>");
/// assert_eq!(mailbox("Über <otp@example.com>"), "=?UTF-8?B?w5xiZXI=?= <otp@example.com>");
/// ```
pub fn mailbox(sender: &str) -> String {
    let (name, address) = name_and_address(sender);
    if name.is_empty() {
        return address.to_owned();
    }
    if name.is_ascii() {
        let is_phrase = name.bytes().all(|b| b == b' ' || is_atom_character(b));
        let quoted = || format!("\"{}\"", name.replace('\\', r"\\").replace('"', "\\\""));
        let name = if is_phrase { name.to_owned() } else { quoted() };
        return format!("{name} <{address}>");
    }
    let mut words = vec![String::new()];
    for c in name.chars() {
        match words.last_mut() {
            Some(word) if word.len() + c.len_utf8() <= MAX_ENCODED_WORD => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    let encoded = words.iter().map(|word| format!("=?UTF-8?B?{}?=", STANDARD.encode(word)));
    format!("{} <{address}>", encoded.collect::<Vec<_>>().join(" "))
}

/// Whether `text` is an e-mail address, or a name with one in angle brackets.
pub fn is_mailbox(text: &str) -> bool {
    let (name, address) = name_and_address(text);
    !typed_text::has_control(text) && !name.contains(['<', '>']) && email_address(address).is_some()
}

/// The display name of a sender, without quotes, and its address. The name is empty if there is
/// none.
fn name_and_address(sender: &str) -> (&str, &str) {
    let sender = sender.trim();
    let in_brackets = sender.strip_suffix('>').and_then(|sender| sender.rsplit_once('<'));
    let (name, address) = in_brackets.unwrap_or(("", sender));
    let name = name.trim();
    let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    (quoted.unwrap_or(name), address)
}

/// The most bytes of text in an encoded word, which has at most 75 characters.
const MAX_ENCODED_WORD: usize = 45;

/// A call's text in SSML: the text as it is, and each `code` in it spelled out.
/// <https://docs.aws.amazon.com/polly/latest/dg/supportedtags.html>
///
/// ```
/// use loyalty_codes::model::content::ssml;
/// assert_eq!(
///     ssml("R&D: 12AB.", "12AB"),
///     "<speak>R&amp;D: <say-as interpret-as=\"characters\">12AB</say-as>.</speak>"
/// );
/// ```
pub fn ssml(text: &str, code: &str) -> String {
    let spelled = format!("<say-as interpret-as=\"characters\">{}</say-as>", xml(code));
    let parts = if code.is_empty() { vec![text] } else { text.split(code).collect() };
    let body = parts.into_iter().map(xml).collect::<Vec<_>>().join(&spelled);
    format!("<speak>{body}</speak>")
}

/// Escapes a text for XML, without the characters that XML 1.0 does not have.
fn xml(text: &str) -> String {
    let is_char = |c: &char| {
        matches!(c, '\t' | '\n' | '\r') || !(c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
    };
    escape(&text.chars().filter(is_char).collect::<String>())
}

/// Escapes the characters that have a meaning in HTML and XML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Whether a text has an HTML tag, a comment or a `<!DOCTYPE …>` in it, unlike `a < b`, `<3` and
/// `<tom@example.com>`. It takes time in proportion to the text's length, as callers choose the
/// text.
fn has_tag(body: &str) -> bool {
    let Some(last_end) = body.rfind('>') else {
        return false;
    };
    body[..last_end].match_indices('<').any(|(at, _)| begins_tag(&body[at + 1..=last_end]))
}

/// Whether a text begins with the rest of a tag after its `<`.
fn begins_tag(text: &str) -> bool {
    let begins_with =
        |name: &str| text.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
    if begins_with("!--") || begins_with("!doctype") {
        return true;
    }
    let text = text.strip_prefix('/').unwrap_or(text);
    let after_name = text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '-');
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && after_name.starts_with(|c: char| c.is_ascii_whitespace() || matches!(c, '>' | '/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_is_html_only_if_a_tag_is_in_it() {
        for body in
            ["<b>1</b>", "Hi<br>", "a<BR/>b", "<p class=x>a", "<!DOCTYPE html>a", "<!-- a -->b", "</p>"]
        {
            assert!(has_tag(body), "{body}");
        }
        for body in
            ["", "a < b > c", "I <3 you", "<tom@example.com>", "<>", "< b>", "<b", "<1>", "<ü>", "a > b"]
        {
            assert!(!has_tag(body), "{body}");
        }
    }

    #[test]
    fn the_text_of_an_html_mail_is_that_of_the_other_channels() {
        let parts = email("<p>Your code: <b>12AB</b></p>", "Code 12AB");
        assert_eq!(
            (parts.text.as_str(), parts.html.as_str()),
            ("Code 12AB", "<p>Your code: <b>12AB</b></p>")
        );
        assert_eq!(email("Your code: 12AB", "Code 12AB").text, "Your code: 12AB");
    }

    #[test]
    fn a_long_text_of_beginnings_of_tags_is_scanned_once() {
        for part in ["<a ", "<", "</", "<!-", "<aaaaaaaa", "<a \""] {
            let started = std::time::Instant::now();
            let body = part.repeat(1_000_000 / part.len());
            assert!(!has_tag(&body), "{part}");
            let _ = has_tag(&format!("{body}>"));
            // Tens of milliseconds. A scan to the end from each `<` takes minutes.
            assert!(started.elapsed() < std::time::Duration::from_secs(5), "{part}: {:?}", started.elapsed());
        }
    }

    /// Undoes [`escape`].
    fn unescape(text: &str) -> String {
        let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
        text.replace("&#39;", "'").replace("&amp;", "&")
    }

    proptest! {
        #[test]
        fn a_sender_has_its_name_in_encoded_words_and_its_address_as_it_is(name in "[^<>\"\\p{Cc}]{0,60}") {
            let sender = format!("{name} <otp@example.com>");
            let header = mailbox(&sender);
            prop_assert!(is_mailbox(&sender));
            let name = name.trim();
            if name.is_empty() {
                prop_assert_eq!(header, "otp@example.com");
                return Ok(());
            }
            prop_assert!(header.is_ascii() && header.ends_with(" <otp@example.com>"));
            let words = header.strip_suffix(" <otp@example.com>").unwrap();
            if name.is_ascii() {
                let is_word = |c: char| c == ' ' || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
                let is_quoted = words.starts_with('"') && words.ends_with('"');
                prop_assert!(is_quoted || words.chars().all(is_word), "{}", words);
                prop_assert_eq!(words.trim_matches('"').replace(r"\\", r"\"), name);
            } else {
                prop_assert!(words.split(' ').all(|word| word.len() <= 75));
                let decode = |word: &str| {
                    let text = word.strip_prefix("=?UTF-8?B?").unwrap().strip_suffix("?=").unwrap();
                    String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
                };
                prop_assert_eq!(words.split(' ').map(decode).collect::<String>(), name);
            }
        }

        #[test]
        fn a_plain_text_is_shown_as_it_is(text in "[^<\r]{0,80}") {
            let parts = email(&text, "");
            prop_assert_eq!(&parts.text, &text);
            let without_breaks = parts.html.replace("<br>\n", "\n");
            prop_assert!(!without_breaks.contains('<') && !without_breaks.contains('>'));
            prop_assert_eq!(unescape(&without_breaks), text);
        }

        #[test]
        fn nothing_in_a_plain_text_becomes_a_tag(text: String) {
            prop_assume!(!has_tag(&text));
            let html = email(&text, "").html;
            prop_assert!(!has_tag(&html.replace("<br>", "")));
        }

        #[test]
        fn ssml_says_the_text_and_spells_the_code(
            before in "[^A-Z0-9\\p{Cc}]{0,40}", code in "[A-Z0-9]{4,10}", after in "[^A-Z0-9\\p{Cc}]{0,40}"
        ) {
            let text = format!("{before}{code}{after}");
            let spoken = ssml(&text, &code);
            let start = "<say-as interpret-as=\"characters\">";
            prop_assert!(spoken.starts_with("<speak>") && spoken.ends_with("</speak>"));
            let spelled = format!("{start}{code}</say-as>");
            prop_assert!(spoken.contains(&spelled));
            let inner = spoken.replace("<speak>", "").replace("</speak>", "");
            let inner = inner.replace(start, "").replace("</say-as>", "");
            prop_assert!(!inner.contains('<') && !inner.contains('>'));
            prop_assert_eq!(unescape(&inner), text);
        }

        #[test]
        fn ssml_has_no_character_that_xml_does_not_have(text: String) {
            let allowed = |c: char| matches!(c, '\t' | '\n' | '\r') || !c.is_control();
            prop_assert!(ssml(&text, "").chars().all(allowed));
        }
    }
}
