//! Checks of AWS as a provider of messages: its accounts, and the senders that orgs' files name.

use loyalty_codes::{
    aws,
    aws_call::CallError,
    delivery::{AwsClients, EmailAccount, Origination, SmsAccount, SpendLimit, SpendLimits},
    model::{
        delivery::{AwsSettings, DeliverySettings, Provider},
        message::ChannelType,
        org::Org,
    },
    settings::ProviderSettings,
};

use super::Check;
use crate::Target;

/// The regions from which text messages reach India by local routes.
const REGIONS_OF_INDIA: [&str; 2] = ["ap-south-1", "ap-south-2"];
/// The limit of dollars a month that every new account has.
const FIRST_SPEND_LIMIT: i64 = 1;
/// The share of SES's daily quota from which it is nearly used up.
const NEARLY: f64 = 0.8;

const ALLOW: &str = "README.md, \"Going live\", says how to get it.";

/// AWS, as far as the orgs use it.
pub struct Providers {
    /// `None` if AWS is not asked.
    clients: Option<AwsClients>,
    region: String,
    /// What is known of the account's default protection. `None` if nothing is.
    has_default_protection: Option<bool>,
    local: bool,
}

impl Providers {
    /// Checks the accounts that the orgs need.
    pub async fn new(target: &Target, orgs: &[Org], checks: &mut Vec<Check>) -> Self {
        let local = target.is_local();
        let mut providers =
            Self { clients: None, region: String::new(), has_default_protection: None, local };
        let uses = |channel| {
            let deliveries = orgs.iter().filter_map(|org| org.definition.delivery.as_ref());
            deliveries
                .map(|delivery| delivery.provider(channel))
                .any(|provider| provider == Some(Provider::Aws))
        };
        let (email, text, voice) =
            (uses(ChannelType::Email), uses(ChannelType::Sms), uses(ChannelType::Phone));
        if !(email || text || voice) || local {
            return providers;
        }
        let connected = async {
            let settings = target.settings().map_err(|failure| failure.to_string())?;
            let endpoints = ProviderSettings::from_env().map_err(|error| error.to_string())?;
            let config = aws::of_operator(&settings, None).await.map_err(|error| error.to_string())?;
            let region = config.region().map(ToString::to_string).unwrap_or_default();
            Ok::<_, String>((AwsClients::new(&config, &endpoints), region))
        };
        let clients = match connected.await {
            Ok((clients, region)) => {
                providers.region = region;
                clients
            }
            Err(reason) => {
                checks.push(Check::failed("providers", reason, super::CREDENTIALS_REMEDY));
                return providers;
            }
        };
        if email {
            checks.push(match clients.email_account().await {
                Ok(account) => email_account(&account),
                Err(error) => Check::unanswered("SES account", "ses:GetAccount", &error),
            });
        }
        if text || voice {
            let account = clients.sms_account().await;
            providers.has_default_protection =
                account.as_ref().ok().map(|account| account.has_default_protection);
            checks.push(match account {
                Ok(account) => sms_account(&account),
                Err(error) => Check::unanswered("SMS account", "sms-voice:DescribeAccountAttributes", &error),
            });
            let limits = clients.spend_limits().await;
            if text {
                checks.push(spend_limit("SMS spending limit", &limits, |limits| limits.text));
            }
            if voice {
                checks.push(spend_limit("call spending limit", &limits, |limits| limits.voice));
            }
        }
        providers.clients = Some(clients);
        providers
    }

    /// Whether DynamoDB is a local one, so that AWS is not asked.
    pub const fn is_local(&self) -> bool {
        self.local
    }

    /// Checks the senders of an org's file.
    pub async fn check_org(&self, delivery: &DeliverySettings) -> Vec<Check> {
        let mut checks = Vec::new();
        let by_aws =
            |(channel, provider): (&ChannelType, &Provider)| (*provider == Provider::Aws).then_some(*channel);
        for channel in delivery.channels.iter().filter_map(by_aws) {
            let Some(clients) = &self.clients else {
                let why = if self.local { "this DynamoDB is a local one" } else { "AWS cannot be asked" };
                checks.push(Check::not_checked(channel.as_str(), why));
                continue;
            };
            let settings = &delivery.aws;
            match channel {
                ChannelType::Email => checks.push(sender(clients, settings).await),
                ChannelType::Sms => {
                    checks.push(origination(clients, "SMS", &settings.sms_origination).await);
                    checks.extend(self.sms_settings(clients, settings).await);
                }
                ChannelType::Phone => {
                    checks.push(origination(clients, "PHONE", &settings.voice_origination).await);
                }
                // AWS sends no other channel, and no org's file says so.
                ChannelType::Whatsapp | ChannelType::Wechat | ChannelType::Zalo => {}
            }
        }
        checks
    }

    /// Checks what else text messages use.
    async fn sms_settings(&self, clients: &AwsClients, settings: &AwsSettings) -> Vec<Check> {
        const NAME: &str = "SMS";
        let mut checks = Vec::new();
        let protection = &settings.sms_protect_configuration;
        if !protection.is_empty() {
            let found = clients.has_protect_configuration(protection).await;
            let action = "sms-voice:DescribeProtectConfigurations";
            checks.push(named(found, action, "protect configuration", protection));
        } else if self.has_default_protection == Some(false) {
            checks.push(Check::warning(
                NAME,
                "no protect configuration: text messages go to every country that AWS reaches, at its price",
                "Make one in End User Messaging that allows your countries alone, and name it as \
                 sms_protect_configuration in [delivery.aws], or make it the account's default.",
            ));
        }
        if !settings.sms_configuration_set.is_empty() {
            let found = clients.has_configuration_set(&settings.sms_configuration_set).await;
            let action = "sms-voice:DescribeConfigurationSets";
            checks.push(named(found, action, "configuration set", &settings.sms_configuration_set));
        }
        if !settings.sms_entity_id.is_empty() && !REGIONS_OF_INDIA.contains(&self.region.as_str()) {
            checks.push(Check::warning(
                NAME,
                format!("sms_entity_id is set, and {} has no local routes to India", self.region),
                format!("Deploy the stack of this org in {}.", REGIONS_OF_INDIA.join(" or ")),
            ));
        }
        checks
    }
}

fn email_account(account: &EmailAccount) -> Check {
    const NAME: &str = "SES account";
    let EmailAccount { in_production, may_send, standing, quota, sent } = account;
    let used = format!("{sent} of {quota} e-mails in the last 24 hours");
    if !may_send || standing == "SHUTDOWN" {
        return Check::failed(
            NAME,
            format!("may not send ({standing})"),
            "SES's console says why it paused the account, and how to answer.",
        );
    }
    if !in_production {
        return Check::warning(
            NAME,
            format!("in the sandbox: only verified addresses get e-mails; {used}"),
            "Ask for production access in SES's console. Until then, verify the addresses you test with.",
        );
    }
    // A negative quota means that there is none.
    if *quota > 0.0 && *sent >= quota * NEARLY {
        let remedy = "Ask for a higher sending quota in Service Quotas, and see why so many are sent.";
        return Check::warning(NAME, format!("nearly at its quota: {used}"), remedy);
    }
    if standing != "HEALTHY" && !standing.is_empty() {
        let remedy = "SES's console says which rate of bounces or complaints is too high.";
        return Check::warning(NAME, format!("{standing}; {used}"), remedy);
    }
    Check::ok(NAME, format!("in production; {used}"))
}

fn sms_account(account: &SmsAccount) -> Check {
    const NAME: &str = "SMS account";
    if account.in_sandbox {
        return Check::warning(
            NAME,
            "in the sandbox: only verified numbers get messages and calls",
            "Ask for production access in End User Messaging's console. Until then, verify the numbers you test with: aws \
             pinpoint-sms-voice-v2 create-verified-destination-number",
        );
    }
    Check::ok(NAME, "in production")
}

fn spend_limit(
    name: &'static str,
    limits: &Result<SpendLimits, CallError>,
    limit: impl Fn(&SpendLimits) -> Option<SpendLimit>,
) -> Check {
    let limits = match limits {
        Ok(limits) => limits,
        Err(error) => return Check::unanswered(name, "sms-voice:DescribeSpendLimits", error),
    };
    match limit(limits) {
        None => Check::not_checked(name, "AWS names none"),
        Some(SpendLimit { enforced: ..=0, .. }) => Check::failed(
            name,
            "0 dollars a month: nothing is sent",
            format!("Raise it in the console. {ALLOW}"),
        ),
        Some(SpendLimit { enforced, most }) if enforced <= FIRST_SPEND_LIMIT => Check::warning(
            name,
            format!(
                "{enforced} dollars a month, which a few messages use up; the account may set up to {most}"
            ),
            "Set it in End User Messaging's console; above what the account may set, ask in Service Quotas.",
        ),
        Some(SpendLimit { enforced, .. }) => Check::ok(name, format!("{enforced} dollars a month")),
    }
}

/// Checks the sender of e-mails.
async fn sender(clients: &AwsClients, settings: &AwsSettings) -> Check {
    const NAME: &str = "EMAIL";
    let from = &settings.email_from;
    let address = from.rsplit_once('<').map_or(from.as_str(), |(_, rest)| rest.trim_end_matches('>')).trim();
    match clients.email_identity(address).await {
        Err(error) => Check::unanswered(NAME, "ses:GetEmailIdentity", &error),
        Ok(None) => Check::failed(
            NAME,
            format!("SES knows neither {address} nor its domain in this region"),
            "Verify the domain in SES's console (Identities), or correct email_from in [delivery.aws].",
        ),
        Ok(Some(identity)) if !identity.is_verified => Check::failed(
            NAME,
            format!("{} is not verified", identity.name),
            "Put the DNS records that SES's console shows into the domain, or follow the link in SES's e-mail.",
        ),
        Ok(Some(identity)) if !identity.has_dkim => Check::warning(
            NAME,
            format!("{} is verified, but its e-mails are not signed", identity.name),
            "Enable DKIM for it in SES's console: large mailbox providers refuse unsigned e-mails.",
        ),
        Ok(Some(identity)) => Check::ok(NAME, format!("{} is verified, with DKIM", identity.name)),
    }
}

/// Checks what text messages or calls come from.
async fn origination(clients: &AwsClients, channel: &'static str, name: &str) -> Check {
    let key = if channel == "PHONE" { "voice_origination" } else { "sms_origination" };
    let found = match clients.origination(name).await {
        Ok(found) => found,
        Err(error) => {
            return Check::unanswered(
                channel,
                "sms-voice:DescribePhoneNumbers, sms-voice:DescribePools and sms-voice:DescribeSenderIds",
                &error,
            );
        }
    };
    let Some(Origination { what, status, is_transactional, texts, calls }) = found else {
        return Check::failed(
            channel,
            format!("the account has no number, pool or sender ID `{name}` in this region"),
            format!(
                "Request it in End User Messaging's console, or correct {key} in [delivery.aws]. A sender ID that \
                 needs no registration is listed once it was requested."
            ),
        );
    };
    if let Some(status) = status.filter(|status| status != "ACTIVE") {
        return Check::failed(
            channel,
            format!("{what} is {status}"),
            "Wait until it is ACTIVE; if it is PENDING for days, its registration is not complete.",
        );
    }
    if !is_transactional {
        return Check::failed(
            channel,
            format!("{what} is for promotional messages"),
            "OTPs are sent as transactional ones: request one of that type.",
        );
    }
    let (capable, what_for) = if channel == "PHONE" { (calls, "calls") } else { (texts, "text messages") };
    if capable == Some(false) {
        let remedy = format!("Name a number that can, as {key} in [delivery.aws].");
        return Check::failed(channel, format!("{what} cannot be used for {what_for}"), remedy);
    }
    Check::ok(channel, what)
}

/// Checks that something which the org's file names is there.
fn named(found: Result<bool, CallError>, action: &str, kind: &str, name: &str) -> Check {
    const NAME: &str = "SMS";
    match found {
        Ok(true) => Check::ok(NAME, format!("{kind} {name}")),
        Ok(false) => Check::failed(
            NAME,
            format!("the account has no {kind} `{name}` in this region, so text messages fail"),
            "Make it in End User Messaging's console, or correct [delivery.aws].",
        ),
        Err(error) => Check::unanswered(NAME, action, &error),
    }
}
