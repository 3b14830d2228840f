//! Masks personal data for an operator who need not read all of it, but has to recognize it.

use super::customer::IdentifierName;

/// How many characters at the end of a number or an id are shown.
const SHOWN: usize = 4;

/// An identifier with most of its characters hidden: the last four of a number or an id, the first
/// one of an e-mail address and its domain. What is too short for that is hidden as a whole.
///
/// ```
/// use loyalty_codes::model::{customer::IdentifierName, masking::masked};
/// assert_eq!(masked(IdentifierName::Mobile, "918799361139"), "********1139");
/// assert_eq!(masked(IdentifierName::Email, "tom@example.com"), "t**@example.com");
/// ```
pub fn masked(name: IdentifierName, value: &str) -> String {
    if let (IdentifierName::Email, Some((local, domain))) = (name, value.split_once('@')) {
        return format!("{}@{domain}", masked_name(local));
    }
    let length = value.chars().count();
    let hidden = if length > 2 * SHOWN { length - SHOWN } else { length };
    stars(hidden) + &value.chars().skip(hidden).collect::<String>()
}

/// A person's name with all but its first character hidden.
pub fn masked_name(name: &str) -> String {
    let mut characters = name.chars();
    match characters.next() {
        Some(first) if name.chars().count() > 1 => format!("{first}{}", stars(characters.count())),
        _ => stars(1),
    }
}

fn stars(count: usize) -> String {
    "*".repeat(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_half_of_an_identifier_is_shown() {
        for (name, value, expected) in [
            (IdentifierName::Mobile, "918799361139", "********1139"),
            (IdentifierName::ExternalId, "123456789", "*****6789"),
            (IdentifierName::ExternalId, "CARD-1", "******"),
            (IdentifierName::Wechat, "微信号码微信号码一二三四", "********一二三四"),
            (IdentifierName::Email, "tom.sawyer@example.com", "t*********@example.com"),
            (IdentifierName::Email, "t@example.com", "*@example.com"),
        ] {
            assert_eq!(masked(name, value), expected);
        }
        assert_eq!(
            (masked_name("Tom"), masked_name("Ö"), masked_name("")),
            ("T**".into(), "*".into(), "*".into())
        );
    }
}
