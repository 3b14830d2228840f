//! Where an OTP is sent: the channels that a request names, or else those of the org, each with an
//! address.
//!
//! An OTP that belongs to a customer is sent to the customer's own addresses only. Otherwise a till
//! that may issue OTPs could read the code of any customer by having it sent to itself.

use super::{
    customer::{Identifier, IdentifierName},
    message::{Channel, ChannelType},
    org::Org,
};

/// A channel with an address on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub channel: ChannelType,
    pub address: Identifier,
}

impl Destination {
    /// The same, as a message has it.
    pub fn to_channel(&self) -> Channel {
        Channel { channel_type: self.channel, value: self.address.value().to_owned() }
    }
}

/// A channel that an OTP is to be sent by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedChannel {
    /// To the address that the request names.
    To(Destination),
    /// To the owner's own address of the channel's kind. Left out if there is none.
    Own(ChannelType),
}

/// The name of a text message together with an e-mail.
pub const BOTH: &str = "BOTH";

/// Why an entry of `channels` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelError {
    /// The channel is unknown, or the value is not an address on it.
    Invalid,
    /// The org sends nothing by that channel.
    NotOffered,
    /// The org sends nothing to the country of that mobile.
    CountryNotAllowed,
}

/// Why an OTP has no recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipientError {
    /// An address is not the customer's own.
    NotOwn,
    /// None of the org's default channels has an address.
    NoAddress,
}

/// The channels that an OTP is to be sent by. Empty if it is not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipients(Vec<RequestedChannel>);

/// Reads the type and the value of an entry of `channels`. BOTH is two channels: the value counts
/// for the one of its kind, and the other one gets the owner's own address.
///
/// # Errors
/// [`ChannelError`] when nothing can be sent there.
pub fn read_channel(name: &str, value: &str, org: &Org) -> Result<Vec<RequestedChannel>, ChannelError> {
    let (channel, other) = if name.eq_ignore_ascii_case(BOTH) {
        if value.contains('@') {
            (ChannelType::Email, Some(ChannelType::Sms))
        } else {
            (ChannelType::Sms, Some(ChannelType::Email))
        }
    } else {
        (ChannelType::parse(name).ok_or(ChannelError::Invalid)?, None)
    };
    let address = org.identifier(channel.identifier(), value).map_err(|_| ChannelError::Invalid)?;
    if ![Some(channel), other].into_iter().flatten().all(|channel| org.accepts_channel(channel)) {
        return Err(ChannelError::NotOffered);
    }
    if !is_country_allowed(org, &address) {
        return Err(ChannelError::CountryNotAllowed);
    }
    let named = RequestedChannel::To(Destination { channel, address });
    Ok([named].into_iter().chain(other.map(RequestedChannel::Own)).collect())
}

fn is_country_allowed(org: &Org, address: &Identifier) -> bool {
    address.name() != IdentifierName::Mobile || org.allows_country_of(address.value())
}

impl Recipients {
    /// The `requested` channels, or else the default ones of the org.
    pub fn new(requested: Vec<RequestedChannel>, org: &Org) -> Self {
        if requested.is_empty() {
            Self(org.config().otp_channels.iter().copied().map(RequestedChannel::Own).collect())
        } else {
            Self(requested)
        }
    }

    /// Whether the owner's identifiers other than `entity` have to be known. `to_any` is whether
    /// the OTP may be sent to any address.
    pub fn need_identifiers(&self, entity: &Identifier, to_any: bool) -> bool {
        self.0.iter().any(|requested| match requested {
            RequestedChannel::To(destination) => !to_any && destination.address != *entity,
            RequestedChannel::Own(channel) => channel.identifier() != entity.name(),
        })
    }

    /// Every channel with its address, each once, test identifiers included.
    ///
    /// The owner has the identifiers `entity`, which the request names, and `identifiers`, the last
    /// added one at the end. The own address on a channel is `entity` if that is of its kind, and
    /// otherwise the identifier of its kind that was added last. Own addresses that the org sends
    /// nothing to are left out.
    ///
    /// # Errors
    /// [`RecipientError`] when an address is not the owner's, unless the OTP may be sent `to_any`
    /// address, and when no channel has an address.
    pub fn destinations(
        &self,
        org: &Org,
        entity: &Identifier,
        identifiers: &[Identifier],
        to_any: bool,
    ) -> Result<Vec<Destination>, RecipientError> {
        let mut destinations = Vec::new();
        for requested in &self.0 {
            let destination = match requested {
                RequestedChannel::To(Destination { address, .. })
                    if !to_any && address != entity && !identifiers.contains(address) =>
                {
                    return Err(RecipientError::NotOwn);
                }
                RequestedChannel::To(destination) => Some(destination.clone()),
                RequestedChannel::Own(channel) => own_destination(org, *channel, entity, identifiers),
            };
            destinations.extend(destination.filter(|new| !destinations.contains(new)));
        }
        if destinations.is_empty() && !self.0.is_empty() {
            return Err(RecipientError::NoAddress);
        }
        Ok(destinations)
    }
}

fn own_destination(
    org: &Org,
    channel: ChannelType,
    entity: &Identifier,
    identifiers: &[Identifier],
) -> Option<Destination> {
    let mut candidates = identifiers.iter().chain([entity]).rev();
    let address = candidates.find(|identifier| identifier.name() == channel.identifier())?;
    let is_sent_to = org.accepts_channel(channel) && is_country_allowed(org, address);
    is_sent_to.then(|| Destination { channel, address: address.clone() })
}

/// The destinations that get a message. An OTP of a test identifier is sent to nobody, and nothing
/// is sent to a test identifier.
pub fn without_tests(org: &Org, entity: &Identifier, destinations: Vec<Destination>) -> Vec<Destination> {
    let is_test = |identifier: &Identifier| org.test_code(identifier).is_some();
    if is_test(entity) {
        return Vec::new();
    }
    destinations.into_iter().filter(|destination| !is_test(&destination.address)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::fixtures::org;

    fn plain() -> Org {
        org(&json!({}))
    }

    fn mobile(value: &str) -> Identifier {
        plain().identifier(IdentifierName::Mobile, value).unwrap()
    }

    fn email(value: &str) -> Identifier {
        plain().identifier(IdentifierName::Email, value).unwrap()
    }

    fn read(org: &Org, entries: &[(&str, &str)]) -> Result<Recipients, ChannelError> {
        let mut requested = Vec::new();
        for (name, value) in entries {
            requested.extend(read_channel(name, value, org)?);
        }
        Ok(Recipients::new(requested, org))
    }

    /// The destinations as text, for a customer with these identifiers.
    fn destinations(
        org: &Org,
        entries: &[(&str, &str)],
        entity: &Identifier,
        identifiers: &[Identifier],
    ) -> Result<Vec<String>, RecipientError> {
        let found = read(org, entries).unwrap().destinations(org, entity, identifiers, false)?;
        Ok(found.iter().map(|d| format!("{} {}", d.channel, d.address.value())).collect())
    }

    #[test]
    fn the_same_channel_and_address_in_any_spelling_is_one() {
        let entries = [
            ("SMS", "8799361139"),
            ("MOBILE", "+91 87993 61139"),
            ("sms", "918799361139"),
            ("PHONE", "8799361139"),
        ];
        let found = destinations(&plain(), &entries, &mobile("8799361139"), &[]);
        assert_eq!(found, Ok(vec!["SMS 918799361139".to_owned(), "PHONE 918799361139".to_owned()]));
    }

    #[test]
    fn both_is_a_text_message_and_an_email() {
        let (own_mobile, own_email) = (mobile("8799361139"), email("tom@example.com"));
        let identifiers = [own_mobile.clone(), own_email.clone(), email("new@example.com")];
        let both = |value, entity: &Identifier, identifiers: &[Identifier]| {
            destinations(&plain(), &[("both", value)], entity, identifiers).unwrap()
        };
        let sms = "SMS 918799361139";
        assert_eq!(both("8799361139", &own_mobile, &identifiers), [sms, "EMAIL new@example.com"]);
        assert_eq!(
            both("8799361139", &own_email, &identifiers),
            [sms, "EMAIL tom@example.com"],
            "entityValue comes before other addresses"
        );
        assert_eq!(both("tom@example.com", &own_email, &identifiers), ["EMAIL tom@example.com", sms]);
        assert_eq!(both("8799361139", &own_mobile, &[]), [sms], "without an e-mail address");
        let entries = [("BOTH", "8799361139"), ("EMAIL", "new@example.com"), ("SMS", "8799361139")];
        let found = destinations(&plain(), &entries, &own_mobile, &identifiers).unwrap();
        assert_eq!(found, [sms, "EMAIL new@example.com"]);
    }

    #[test]
    fn a_customers_otp_is_sent_to_the_customers_own_addresses_only() {
        let (entity, own) = (mobile("8799361139"), [email("tom@example.com")]);
        let to = |entries: &[(&str, &str)]| destinations(&plain(), entries, &entity, &own);
        assert!(to(&[("SMS", "8799361139"), ("EMAIL", "Tom@Example.com")]).is_ok());
        assert_eq!(to(&[("SMS", "9010000022")]), Err(RecipientError::NotOwn));
        assert_eq!(to(&[("SMS", "8799361139"), ("EMAIL", "eve@example.com")]), Err(RecipientError::NotOwn));
        assert_eq!(
            to(&[("WECHAT", "918799361139")]),
            Err(RecipientError::NotOwn),
            "an address is of its channel's kind"
        );
        let anybody = read(&plain(), &[("SMS", "9010000022")]).unwrap();
        assert_eq!(anybody.destinations(&plain(), &entity, &own, true).map(|found| found.len()), Ok(1));
    }

    #[test]
    fn default_channels_get_the_owners_addresses() {
        let org = org(&json!({"config": {"CONF_OTP_COMMUNICATE_VIA": ["SMS", "EMAIL", "WECHAT"]}}));
        let (first, last) = (mobile("8799361139"), mobile("9010000022"));
        let identifiers = [first.clone(), email("tom@example.com"), last.clone()];
        let card = org.identifier(IdentifierName::ExternalId, "CARD-1").unwrap();
        let found = |entity: &Identifier| destinations(&org, &[], entity, &identifiers);
        let both = |sms: &str| Ok(vec![format!("SMS {sms}"), "EMAIL tom@example.com".to_owned()]);
        assert_eq!(found(&first), both("918799361139"));
        assert_eq!(found(&card), both("919010000022"), "the one that was added last");
        assert_eq!(destinations(&org, &[], &card, &[]), Err(RecipientError::NoAddress));
        let requested = destinations(&org, &[("EMAIL", "tom@example.com")], &card, &identifiers);
        assert_eq!(requested, Ok(vec!["EMAIL tom@example.com".to_owned()]), "the request counts first");
        assert_eq!(destinations(&plain(), &[], &card, &[]), Ok(Vec::new()), "no channels at all");
    }

    #[test]
    fn the_customers_identifiers_are_read_only_where_entity_value_is_not_enough() {
        let entity = mobile("8799361139");
        let needed = |entries: &[(&str, &str)], to_any: bool| {
            read(&plain(), entries).unwrap().need_identifiers(&entity, to_any)
        };
        assert!(!needed(&[], false));
        assert!(!needed(&[("SMS", "8799361139"), ("PHONE", "918799361139")], false));
        assert!(needed(&[("SMS", "9010000022")], false));
        assert!(!needed(&[("SMS", "9010000022")], true));
        assert!(needed(&[("BOTH", "8799361139")], true), "the e-mail address is not known");
    }

    #[test]
    fn only_offered_channels_and_allowed_countries_are_accepted() {
        let delivery = json!({
            "delivery": {"SMS": "aws", "PHONE": "webhook", "aws": {"sms_origination": "X"}, "webhook": {"url": "https://a.example/"}},
            "config": {"CONF_OTP_ALLOWED_COUNTRY_CODES": ["91", "971"], "CONF_OTP_COMMUNICATE_VIA": ["SMS", "EMAIL"]},
        });
        let org = org(&delivery);
        for (entry, expected) in [
            (("SMS", "8799361139"), Ok(())),
            (("PHONE", "+971 50 123 4567"), Ok(())),
            (("SMS", "+44 7700 900123"), Err(ChannelError::CountryNotAllowed)),
            (("PHONE", "+92 1234567"), Err(ChannelError::CountryNotAllowed)),
            (("EMAIL", "tom@example.com"), Err(ChannelError::NotOffered)),
            (("BOTH", "8799361139"), Err(ChannelError::NotOffered)),
            (("PIGEON", "x"), Err(ChannelError::Invalid)),
            (("SMS", "12"), Err(ChannelError::Invalid)),
            (("BOTH", "tom@"), Err(ChannelError::Invalid)),
        ] {
            assert_eq!(read(&org, &[entry]).map(|_| ()), expected, "{entry:?}");
        }
        let foreign = mobile("+44 7700 900123");
        assert_eq!(
            destinations(&org, &[], &foreign, &[email("tom@example.com")]),
            Err(RecipientError::NoAddress),
            "an own address that is not sent to counts as none"
        );
    }

    #[test]
    fn nothing_is_sent_to_a_test_identifier() {
        let org = org(&json!({"test_identifiers": {"+91 99999 00001": "1234567"}}));
        let (test, real) = (mobile("9999900001"), mobile("8799361139"));
        let to = |address: &Identifier| Destination { channel: ChannelType::Sms, address: address.clone() };
        let both = vec![to(&test), to(&real)];
        assert_eq!(without_tests(&org, &real, both.clone()), [to(&real)]);
        assert_eq!(without_tests(&org, &test, both), []);
    }

    proptest! {
        /// A country list admits a mobile exactly if one of its codes is a prefix of the number.
        #[test]
        fn a_country_list_admits_the_numbers_of_its_codes(
            codes in prop::collection::vec("[1-9][0-9]{0,2}", 1..5),
            number in "[1-9][0-9]{9,13}",
        ) {
            let org = org(&json!({"config": {"CONF_OTP_ALLOWED_COUNTRY_CODES": codes}}));
            let typed = format!("+{number}");
            let allowed = read_channel("SMS", &typed, &org).is_ok();
            // Zeros behind a country code are no part of the number.
            let number = mobile(&typed).value().to_owned();
            let begins = codes.iter().any(|code| number.starts_with(code.as_str()));
            prop_assert_eq!(allowed, begins);
        }

        #[test]
        fn no_destination_occurs_twice_and_none_is_a_strangers(
            entries in prop::collection::vec(
                (prop::sample::select(vec!["SMS", "MOBILE", "PHONE", "WHATSAPP", "BOTH"]), 0_usize..3), 0..8
            ),
            owned in 0_usize..3,
        ) {
            let org = org(&json!({}));
            let numbers = ["8799361139", "+91 90100 00022", "9010000033"];
            let identifiers: Vec<Identifier> = numbers[..owned].iter().map(|n| mobile(n)).collect();
            let entity = email("tom@example.com");
            let entries: Vec<_> = entries.into_iter().map(|(name, n)| (name, numbers[n])).collect();
            let found = read(&org, &entries).unwrap().destinations(&org, &entity, &identifiers, false);
            let stranger = entries.iter().any(|(_, value)| !identifiers.contains(&mobile(value)));
            match found {
                Err(error) => prop_assert!(stranger && error == RecipientError::NotOwn),
                Ok(found) => {
                    prop_assert!(!stranger);
                    for (i, destination) in found.iter().enumerate() {
                        prop_assert!(!found[..i].contains(destination));
                    }
                }
            }
        }
    }
}
