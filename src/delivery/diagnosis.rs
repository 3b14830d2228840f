//! What an operator asks of the providers before messages are sent by them: whether the account may
//! send, and whether the senders of an org's file are there.

use std::net::IpAddr;

use aws_sdk_pinpointsmsvoicev2::types::{
    AccountAttributeName, MessageType, NumberCapability, SpendLimitName,
};

use super::{AwsClients, address::is_public, webhook::addresses};
use crate::aws_call::{CallError, call};

/// The account of Amazon SES in the region.
#[derive(Debug, Clone, PartialEq)]
pub struct EmailAccount {
    /// Whether it has left the sandbox.
    pub in_production: bool,
    pub may_send: bool,
    /// SES's view of the account, such as `HEALTHY`.
    pub standing: String,
    /// E-mails in 24 hours, and how many of them are sent.
    pub quota: f64,
    pub sent: f64,
}

/// An address or a domain that e-mails may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailIdentity {
    /// The address, its domain, or a domain above that.
    pub name: String,
    pub is_verified: bool,
    pub has_dkim: bool,
}

/// The account of End User Messaging in the region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmsAccount {
    pub in_sandbox: bool,
    /// Whether messages that name no protect configuration are checked by one.
    pub has_default_protection: bool,
}

/// Dollars that may be spent in a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpendLimit {
    /// What is enforced now.
    pub enforced: i64,
    /// The most that the account may set.
    pub most: i64,
}

/// The spending limits of the account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpendLimits {
    pub text: Option<SpendLimit>,
    pub voice: Option<SpendLimit>,
}

/// What messages may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origination {
    /// What it is, such as `number +15550100` or `sender ID LOYALTY (IN, SG)`.
    pub what: String,
    /// Such as `ACTIVE`. `None` for sender IDs, which have no status.
    pub status: Option<String>,
    pub is_transactional: bool,
    /// Whether text messages and calls can come from it. `None` where the API does not say.
    pub texts: Option<bool>,
    pub calls: Option<bool>,
}

/// Which kind of resource the origination of an org's file names.
enum OriginationKind<'a> {
    Number(&'a str),
    Pool(&'a str),
    SenderId(&'a str),
}

impl<'a> OriginationKind<'a> {
    /// Reads a number, the id of a number or pool, a sender ID, or the ARN of any of them.
    /// <https://docs.aws.amazon.com/pinpoint/latest/apireference_smsvoicev2/API_SendTextMessage.html>
    fn read(text: &'a str) -> Self {
        let resource =
            if text.starts_with("arn:") { text.splitn(6, ':').nth(5).unwrap_or(text) } else { text };
        if let Some(id) = resource.strip_prefix("phone-number/") {
            Self::Number(id)
        } else if let Some(id) = resource.strip_prefix("pool/") {
            Self::Pool(id)
        } else if let Some(id) = resource.strip_prefix("sender-id/") {
            // The country follows.
            Self::SenderId(id.split('/').next().unwrap_or(id))
        } else if resource.starts_with("pool-") {
            Self::Pool(resource)
        } else if resource.starts_with("phone-") || is_number(resource) {
            Self::Number(resource)
        } else {
            Self::SenderId(resource)
        }
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

impl AwsClients {
    /// The account of SES.
    ///
    /// # Errors
    /// [`CallError`] when SES does not answer or refuses.
    pub async fn email_account(&self) -> Result<EmailAccount, CallError> {
        let account = call(self.email.get_account().send()).await?;
        let quota = account.send_quota.as_ref();
        Ok(EmailAccount {
            in_production: account.production_access_enabled,
            may_send: account.sending_enabled,
            standing: account.enforcement_status.clone().unwrap_or_default(),
            quota: quota.map_or(0.0, |quota| quota.max24_hour_send),
            sent: quota.map_or(0.0, |quota| quota.sent_last24_hours),
        })
    }

    /// The identity that lets e-mails come from `address`: the address itself, its domain, or a
    /// domain above that. A verified one comes before one that is not. `None` if SES knows none of
    /// them.
    ///
    /// # Errors
    /// [`CallError`] when SES does not answer or refuses.
    pub async fn email_identity(&self, address: &str) -> Result<Option<EmailIdentity>, CallError> {
        let mut unverified = None;
        for name in identities_of(address) {
            let identity = match call(self.email.get_email_identity().email_identity(name).send()).await {
                Err(CallError::NotFound) => continue,
                found => found?,
            };
            let has_dkim = identity.dkim_attributes.as_ref().is_some_and(|dkim| dkim.signing_enabled);
            let is_verified = identity.verified_for_sending_status;
            let found = EmailIdentity { name: name.to_owned(), is_verified, has_dkim };
            if is_verified {
                return Ok(Some(found));
            }
            unverified = unverified.or(Some(found));
        }
        Ok(unverified)
    }

    /// The account of End User Messaging.
    ///
    /// # Errors
    /// [`CallError`] when the service does not answer or refuses.
    pub async fn sms_account(&self) -> Result<SmsAccount, CallError> {
        let described = call(self.sms.describe_account_attributes().send()).await?;
        let value = |name: &AccountAttributeName| {
            let attribute = described.account_attributes().iter().find(|attribute| attribute.name() == name);
            attribute.map_or("", |attribute| attribute.value())
        };
        Ok(SmsAccount {
            in_sandbox: value(&AccountAttributeName::AccountTier).eq_ignore_ascii_case("SANDBOX"),
            has_default_protection: !value(&AccountAttributeName::DefaultProtectConfigurationId).is_empty(),
        })
    }

    /// The spending limits of End User Messaging.
    ///
    /// # Errors
    /// [`CallError`] when the service does not answer or refuses.
    pub async fn spend_limits(&self) -> Result<SpendLimits, CallError> {
        let described = call(self.sms.describe_spend_limits().send()).await?;
        let limit = |name: &SpendLimitName| {
            let limit = described.spend_limits().iter().find(|limit| limit.name() == name)?;
            Some(SpendLimit { enforced: limit.enforced_limit(), most: limit.max_limit() })
        };
        Ok(SpendLimits {
            text: limit(&SpendLimitName::TextMessageMonthlySpendLimit),
            voice: limit(&SpendLimitName::VoiceMessageMonthlySpendLimit),
        })
    }

    /// The number, pool or sender ID that an org's file names. `None` if the account has none of
    /// that name.
    ///
    /// # Errors
    /// [`CallError`] when the service does not answer or refuses.
    pub async fn origination(&self, name: &str) -> Result<Option<Origination>, CallError> {
        let found = match OriginationKind::read(name) {
            OriginationKind::Number(number) => self.number(number).await,
            OriginationKind::Pool(pool) => self.pool(pool).await,
            OriginationKind::SenderId(id) => self.sender_id(id).await,
        };
        match found {
            Err(CallError::NotFound) => Ok(None),
            found => found,
        }
    }

    /// A number by itself or by its id. Numbers can only be asked for by id, so all are listed.
    async fn number(&self, name: &str) -> Result<Option<Origination>, CallError> {
        let mut pages = self.sms.describe_phone_numbers().into_paginator().send();
        let plain = name.trim_start_matches('+');
        while let Some(page) = call(async { pages.next().await.transpose() }).await? {
            let found = page.phone_numbers().iter().find(|number| {
                number.phone_number_id() == Some(name)
                    || number.phone_number().trim_start_matches('+') == plain
            });
            if let Some(number) = found {
                let can = |capability| Some(number.number_capabilities().contains(&capability));
                return Ok(Some(Origination {
                    what: format!("number {}", number.phone_number()),
                    status: Some(number.status().as_str().to_owned()),
                    is_transactional: *number.message_type() == MessageType::Transactional,
                    texts: can(NumberCapability::Sms),
                    calls: can(NumberCapability::Voice),
                }));
            }
        }
        Ok(None)
    }

    async fn pool(&self, id: &str) -> Result<Option<Origination>, CallError> {
        let described = call(self.sms.describe_pools().pool_ids(id).send()).await?;
        Ok(described.pools().first().map(|pool| Origination {
            what: format!("pool {}", pool.pool_id()),
            status: Some(pool.status().as_str().to_owned()),
            is_transactional: *pool.message_type() == MessageType::Transactional,
            texts: None,
            calls: None,
        }))
    }

    /// A sender ID, in all countries. They can only be asked for by country, so all are listed.
    async fn sender_id(&self, id: &str) -> Result<Option<Origination>, CallError> {
        let mut pages = self.sms.describe_sender_ids().into_paginator().send();
        let (mut countries, mut is_transactional) = (Vec::new(), true);
        while let Some(page) = call(async { pages.next().await.transpose() }).await? {
            for sender in
                page.sender_ids().iter().filter(|sender| sender.sender_id().eq_ignore_ascii_case(id))
            {
                countries.push(sender.iso_country_code().to_owned());
                is_transactional &= sender.message_types().contains(&MessageType::Transactional);
            }
        }
        Ok((!countries.is_empty()).then(|| Origination {
            what: format!("sender ID {id} ({})", countries.join(", ")),
            status: None,
            is_transactional,
            texts: Some(true),
            calls: Some(false),
        }))
    }

    /// Whether the account has a protect configuration of that id or ARN.
    ///
    /// # Errors
    /// [`CallError`] when the service does not answer or refuses.
    pub async fn has_protect_configuration(&self, id: &str) -> Result<bool, CallError> {
        exists(call(self.sms.describe_protect_configurations().protect_configuration_ids(id).send()).await)
    }

    /// Whether the account has a configuration set of that name or ARN.
    ///
    /// # Errors
    /// [`CallError`] when the service does not answer or refuses.
    pub async fn has_configuration_set(&self, name: &str) -> Result<bool, CallError> {
        exists(call(self.sms.describe_configuration_sets().configuration_set_names(name).send()).await)
    }
}

fn exists<T>(described: Result<T, CallError>) -> Result<bool, CallError> {
    match described {
        Err(CallError::NotFound) => Ok(false),
        described => described.map(|_| true),
    }
}

/// The identities that let e-mails come from an address, the closest first: the address, its
/// domain, and the domains above that have at least two labels.
fn identities_of(address: &str) -> impl Iterator<Item = &str> {
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    let above = std::iter::successors(Some(domain), |domain| Some(domain.split_once('.')?.1));
    std::iter::once(address).chain(above.filter(|domain| domain.contains('.')))
}

/// The addresses of a webhook's host, and whether the delivery function would connect to it: if one
/// of them is public.
///
/// # Errors
/// The reason why the host has no address.
pub async fn webhook_addresses(url: &str) -> Result<(Vec<IpAddr>, bool), String> {
    let url = url.parse().map_err(|_| "the URL cannot be read".to_owned())?;
    let resolving = tokio::time::timeout(crate::aws_call::TIME_LIMIT, addresses(&url));
    let found = resolving.await.map_err(|_| "its name was not resolved in time".to_owned())?;
    let found: Vec<IpAddr> = found.map_err(|error| error.to_string())?.map(|address| address.ip()).collect();
    let reachable = found.iter().any(|address| is_public(*address));
    Ok((found, reachable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origination_is_told_by_its_form() {
        for (text, expected) in [
            ("+15550100", "number +15550100"),
            ("15550100", "number 15550100"),
            ("phone-1a2b", "number phone-1a2b"),
            ("arn:aws:sms-voice:us-east-1:123456789012:phone-number/phone-1a2b", "number phone-1a2b"),
            ("pool-1a2b", "pool pool-1a2b"),
            ("arn:aws:sms-voice:us-east-1:123456789012:pool/pool-1a2b", "pool pool-1a2b"),
            ("LOYALTY", "sender LOYALTY"),
            ("arn:aws:sms-voice:us-east-1:123456789012:sender-id/LOYALTY/IN", "sender LOYALTY"),
        ] {
            let read = match OriginationKind::read(text) {
                OriginationKind::Number(id) => format!("number {id}"),
                OriginationKind::Pool(id) => format!("pool {id}"),
                OriginationKind::SenderId(id) => format!("sender {id}"),
            };
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn an_address_may_be_verified_by_its_domain_or_one_above() {
        let found: Vec<_> = identities_of("otp@mail.shop.example.com").collect();
        assert_eq!(
            found,
            ["otp@mail.shop.example.com", "mail.shop.example.com", "shop.example.com", "example.com"]
        );
    }
}
