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

/// Makes both parts of an e-mail from one body. A body with an HTML tag in it is HTML, and its text
/// is derived from it. Every other body is plain text, and its HTML is the same text, escaped.
///
/// ```
/// use loyalty_codes::model::content::email;
/// assert_eq!(email("1 < 2\nBye").html, "1 &lt; 2<br>\nBye");
/// assert_eq!(email("<p>1 &lt; 2</p>Bye").text, "1 < 2\nBye");
/// ```
#[must_use]
pub fn email(body: &str) -> EmailParts {
    if has_tag(body) {
        EmailParts { text: text_of_html(body), html: body.to_owned() }
    } else {
        EmailParts { text: body.to_owned(), html: html_of_text(body) }
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
#[must_use]
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
#[must_use]
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
#[must_use]
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

/// Escapes a plain text. Its line breaks stay visible.
fn html_of_text(text: &str) -> String {
    escape(&text.replace("\r\n", "\n")).replace('\n', "<br>\n")
}

fn has_tag(body: &str) -> bool {
    body.match_indices('<').any(|(at, _)| Tag::at_start_of(&body[at..]).is_some())
}

/// A tag or a comment at the beginning of a text.
struct Tag<'a> {
    /// The name in lower case. Empty for a comment and for `<!DOCTYPE …>`.
    name: String,
    is_end: bool,
    /// What follows it.
    rest: &'a str,
}

impl<'a> Tag<'a> {
    /// `None` if the text begins with no tag, such as in `a < b`, `<3` or `<tom@example.com>`.
    fn at_start_of(text: &'a str) -> Option<Self> {
        let inner = text.strip_prefix('<')?;
        if let Some(comment) = inner.strip_prefix("!--") {
            let end = comment.find("-->")?;
            return Some(Self { name: String::new(), is_end: false, rest: &comment[end + 3..] });
        }
        let begins_with = |text: &str, name: &str| {
            text.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name))
        };
        if begins_with(inner, "!doctype") {
            let end = inner.find('>')?;
            return Some(Self { name: String::new(), is_end: false, rest: &inner[end + 1..] });
        }
        let (is_end, inner) = inner.strip_prefix('/').map_or((false, inner), |inner| (true, inner));
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let (name, attributes) = inner.split_at(inner.find(|c| !is_name(c))?);
        let follows = attributes.starts_with(|c: char| c.is_ascii_whitespace() || matches!(c, '>' | '/'));
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !follows {
            return None;
        }
        let end = end_of_tag(attributes)?;
        Some(Self { name: name.to_ascii_lowercase(), is_end, rest: &attributes[end..] })
    }

    /// Whether a line ends before it and after it.
    fn is_block(&self) -> bool {
        const BLOCKS: &[&str] = &[
            "br",
            "p",
            "div",
            "tr",
            "li",
            "ul",
            "ol",
            "table",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "hr",
            "section",
            "header",
            "footer",
            "blockquote",
            "pre",
        ];
        BLOCKS.contains(&self.name.as_str())
    }

    /// Whether its content is not shown.
    fn is_hidden(&self) -> bool {
        matches!(self.name.as_str(), "head" | "style" | "script" | "title")
    }
}

/// Where the text after a tag begins. A `>` in a quoted attribute does not end the tag.
fn end_of_tag(attributes: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in attributes.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '>' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The text that HTML shows, with a line for each block.
fn text_of_html(html: &str) -> String {
    let mut lines = vec![String::new()];
    let mut rest = html;
    while !rest.is_empty() {
        if let Some(tag) = Tag::at_start_of(rest) {
            rest = tag.rest;
            if tag.is_hidden() && !tag.is_end {
                rest = after_end(rest, &tag.name);
            } else if tag.is_block() {
                lines.push(String::new());
            }
            continue;
        }
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = rest[first..].find('<').map_or(rest.len(), |at| at + first);
        let shown = unescape(&rest[..end]);
        if let Some(line) = lines.last_mut() {
            line.push_str(&shown);
        }
        rest = &rest[end..];
    }
    let lines = lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// The rest of a text after the end tag with that name.
fn after_end<'a>(text: &'a str, name: &str) -> &'a str {
    let is_end = |tag: &Tag<'_>| tag.is_end && tag.name == name;
    let ends = text.match_indices("</").filter_map(|(at, _)| Tag::at_start_of(&text[at..]));
    ends.into_iter().find(is_end).map_or("", |tag| tag.rest)
}

/// Replaces the character references of HTML that mail templates use.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        // The longest reference that is known has eight characters.
        let end = rest.char_indices().take(12).find(|(_, c)| *c == ';').map(|(end, _)| end);
        if let Some((c, end)) = end.and_then(|end| Some((character(&rest[1..end])?, end))) {
            plain.push(c);
            rest = &rest[end + 1..];
        } else {
            plain.push('&');
            rest = &rest[1..];
        }
    }
    plain + rest
}

/// The character with that reference, without `&` and `;`.
fn character(reference: &str) -> Option<char> {
    if let Some(number) = reference.strip_prefix('#') {
        let hexadecimal = number.strip_prefix(['x', 'X']);
        let number =
            hexadecimal.map_or_else(|| number.parse(), |digits| u32::from_str_radix(digits, 16)).ok()?;
        return char::from_u32(number);
    }
    Some(match reference {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        // A space that a reader of plain text need not tell from another.
        "nbsp" => ' ',
        "copy" => '©',
        "reg" => '®',
        "euro" => '€',
        "pound" => '£',
        "ndash" => '–',
        "mdash" => '—',
        "hellip" => '…',
        _ => return None,
    })
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
    fn the_text_of_html_is_what_a_reader_sees() {
        for (html, text) in [
            ("<p>Your code:</p><p><b>12AB</b></p>", "Your code:\n12AB"),
            ("<html><head><title>T</title><style>p > a {}</style></head><body>A</body></html>", "A"),
            ("<ul><li>a<li>b</ul>c", "a\nb\nc"),
            ("a<br/>\n   b &amp; c&nbsp;&#8364;&#x20AC;", "a\nb & c €€"),
            ("<a title=\"a > b\" href='x'>link</a>", "link"),
            ("<!-- <b>no</b> -->yes<b></b> 1 < 2 &unknown; &", "yes 1 < 2 &unknown; &"),
            ("<script>if (a</b>) {}</script>x", "x"),
            ("<style>unfinished", ""),
        ] {
            assert_eq!(email(html).text, text, "{html}");
        }
    }

    proptest! {
        #[test]
        fn a_sender_has_its_name_in_encoded_words_and_its_address_as_it_is(name in "[^<>\"\\p{Cc}]{0,60}") {
            let sender = format!("{name} <otp@example.com>");
            let header = mailbox(&sender);
            prop_assert!(is_mailbox(&sender));
            if name.trim().is_empty() {
                prop_assert_eq!(header, "otp@example.com");
                return Ok(());
            }
            prop_assert!(header.is_ascii() && header.ends_with(" <otp@example.com>"));
            let words = header.strip_suffix(" <otp@example.com>").unwrap();
            if name.is_ascii() {
                let is_word = |c: char| c == ' ' || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
                let is_quoted = words.starts_with('"') && words.ends_with('"');
                prop_assert!(is_quoted || words.chars().all(is_word), "{}", words);
                prop_assert_eq!(words.trim_matches('"').replace(r"\\", r"\"), name.trim());
            } else {
                prop_assert!(words.split(' ').all(|word| word.len() <= 75));
                let decode = |word: &str| {
                    let text = word.strip_prefix("=?UTF-8?B?").unwrap().strip_suffix("?=").unwrap();
                    String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
                };
                prop_assert_eq!(words.split(' ').map(decode).collect::<String>(), name.trim());
            }
        }

        #[test]
        fn a_plain_text_is_shown_as_it_is(text in "[^<\r]{0,80}") {
            let parts = email(&text);
            prop_assert_eq!(&parts.text, &text);
            let without_breaks = parts.html.replace("<br>\n", "\n");
            prop_assert!(!without_breaks.contains('<') && !without_breaks.contains('>'));
            prop_assert_eq!(unescape(&without_breaks), text);
        }

        #[test]
        fn nothing_in_a_plain_text_becomes_a_tag(text: String) {
            prop_assume!(!has_tag(&text));
            let html = email(&text).html;
            prop_assert!(!has_tag(&html.replace("<br>", "")));
        }

        #[test]
        fn both_parts_of_any_body_show_a_code_that_is_not_within_a_tag(
            before in "[^<>&]{0,40}", code in "[A-Z0-9]{4,10}", after in "[^<>&]{0,40}"
        ) {
            for body in [format!("{before}{code}{after}"), format!("<p>{before}<b>{code}</b>{after}</p>")] {
                let parts = email(&body);
                prop_assert!(parts.text.contains(&code) && parts.html.contains(&code));
            }
        }

        #[test]
        fn any_html_has_a_text(html: String) {
            let _ = email(&html);
            let _ = email(&format!("<p>{html}"));
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
