//! Fetching, issuing and validating OTPs.

use std::borrow::Cow;

use chrono::SecondsFormat;
use serde::Serialize;

use super::{
    Call,
    error::{ApiError, Gather, Problem, Problems, SuccessBody},
    metrics::Event,
    params::{JsonFields, Warning},
};
use crate::{
    model::{
        customer::{Identifier, Identity, Source, UserId},
        delivery::TemplateTexts,
        issuing::{Period, quotas},
        message::Draft,
        org::{Org, OrgId},
        otp::{Code, CreatedId, OtpHistory, OtpOwner, OtpSeries, Scope, ScopeOwner, TypedCode, most_recent},
        recipients::{
            ChannelError, Destination, RecipientError, Recipients, RequestedChannel, read_channel,
            without_tests,
        },
        till::Permission,
    },
    secret::os_rng,
    store::{Issue, NewOtp, TypedOtp, Validation},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fetched<'a> {
    org_id: OrgId,
    user_id: Option<UserId>,
    code: &'a str,
    valid_upto: String,
}

/// `GET /v2/otp`: the most recent valid OTP of a customer.
pub async fn fetch(call: Call<'_>) -> Result<SuccessBody, ApiError> {
    let (org, params) = (&*call.caller.org, call.params()?);
    let ((account, warning), identifier, scope, threshold) =
        (params.account(org, None), params.identifier(org), params.scope(), params.threshold(org))
            .gather()?;

    let history = call.otp_history(&Identity::new(account, identifier), scope).await?;
    let found = call.app.store.read_history(&history, call.now).await?;
    let (series, otp) = history
        .series()
        .zip(&found)
        .filter_map(|(series, found)| Some((series, most_recent(&found.otps, call.now, threshold)?)))
        .max_by_key(|(_, otp)| otp.created_id)
        .ok_or(Problem::OtpNotFound)?;

    let user_id = match series.owner {
        OtpOwner::Customer(user) => Some(user),
        OtpOwner::Contact(_) => None,
    };
    // `false` makes UTC `+00:00` instead of `Z`.
    let valid_upto = org.timezone.local(otp.valid_until).to_rfc3339_opts(SecondsFormat::Secs, false);
    call.events.count(Event::OtpFetched);
    let body = Fetched { org_id: org.id(), user_id, code: otp.code.expose(), valid_upto };
    SuccessBody::new(body, warning.as_slice())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Issued {
    created_id: u64,
}

/// How often the owner of an OTP is looked up. Once more than an operator erases or merges
/// customers while one request is under way.
const MAX_LOOKUPS: u32 = 3;

/// `POST /v2/otp/generate`: a new OTP, or the earlier one again.
pub async fn generate(call: Call<'_>) -> Result<SuccessBody, ApiError> {
    let (org, body) = (&*call.caller.org, call.json_object()?);
    let (scope, entity, (account, warning), channels, texts) = (
        body.action(),
        body.entity(org),
        body.account(org, Some(Source::Instore)),
        channels(&body, org),
        templates(&body),
    )
        .gather()?;

    let request = OtpRequest {
        scope,
        identity: Identity::new(account, entity),
        recipients: Recipients::new(channels, org),
        texts,
        warning,
    };
    for _ in 0..MAX_LOOKUPS {
        if let Some(issued) = call.issue(&request).await? {
            return Ok(issued);
        }
    }
    Err(Problem::CustomerNotFound.into())
}

/// A request for an OTP.
struct OtpRequest {
    scope: Scope,
    identity: Identity,
    recipients: Recipients,
    texts: TemplateTexts,
    warning: Warning,
}

#[derive(Serialize)]
struct Validated {
    entity: bool,
}

/// `POST /v2/otp/validate`: consumes an OTP if the code is right.
pub async fn validate(call: Call<'_>) -> Result<SuccessBody, ApiError> {
    let (org, body) = (&*call.caller.org, call.json_object()?);
    let (scope, identifier, (account, warning), typed) =
        (body.action(), body.entity(org), body.account(org, Some(Source::Instore)), code(&body, org))
            .gather()?;

    let identity = Identity::new(account, identifier);
    let typed = TypedOtp { identity: &identity, scope, code: &typed };
    let respond = |entity| SuccessBody::new(Validated { entity }, warning.as_slice());
    let (app, request) = (call.app, call.idempotent_request.as_ref());
    let validation = app.store.validate_otp(org, &typed, &app.clock, request, respond).await?;
    match validation {
        Validation::Checked { right, response } => {
            call.events.count(if right { Event::OtpValidated } else { Event::OtpRefused });
            Ok(response)
        }
        Validation::Locked(time) => {
            call.stored_response_or(ApiError::too_many(Problem::AttemptLimitReached, time)).await
        }
        Validation::Replay(earlier) => call.replay(earlier),
        Validation::CustomerNotFound => Err(Problem::CustomerNotFound.into()),
    }
}

impl Call<'_> {
    /// Issues an OTP. `None` if its owner was erased or merged into another customer since it was
    /// looked up.
    async fn issue(&self, request: &OtpRequest) -> Result<Option<SuccessBody>, ApiError> {
        let org = &*self.caller.org;
        let OtpRequest { scope, identity, recipients, texts, warning } = request;
        let history = self.otp_history(identity, *scope).await?;
        let (series, entity) = (&history.current, identity.identifier());
        let destinations = self.destinations(recipients, series, entity).await?;
        let destinations = without_tests(org, entity, destinations);
        let test_code = org.test_code(entity).map(Code::stored);
        let new = NewOtp {
            series,
            is_test: test_code.is_some(),
            code: test_code
                .unwrap_or_else(|| Code::generate(org.config().otp_type, org.otp_length(), &mut os_rng())),
            issued_at: self.now,
            quotas: quotas(org, &series.owner, &destinations, self.now),
            draft: draft(org, *scope, texts, &destinations),
        };
        let respond = |id: CreatedId| SuccessBody::new(Issued { created_id: id.0 }, warning.as_slice());
        let idempotent = self.idempotent_request.as_ref();
        let refusal = match self.app.store.issue_otp(org, &new, idempotent, respond).await? {
            Issue::Issued(body, message) => {
                self.events.count(Event::OtpIssued);
                if let Some(message) = message {
                    self.events.count(Event::OtpToDeliver);
                    if let Some(listener) = &self.app.message_listener {
                        listener(message);
                    }
                }
                return Ok(Some(body));
            }
            Issue::Replay(earlier) => return self.replay(earlier).map(Some),
            Issue::OwnerGone => return Ok(None),
            Issue::NotIssued => return Err(Problem::OtpNotGenerated.into()),
            Issue::TooSoon(time) => ApiError::too_many(Problem::OtpTooSoon, time),
            Issue::LimitReached(period) => {
                let problem = match period {
                    Period::Day(_) => Problem::OtpLimitReached,
                    Period::Hour(_) => Problem::HourlyOtpLimitReached,
                };
                ApiError::too_many(problem, period.ends_at() - self.now)
            }
        };
        self.stored_response_or(refusal).await.map(Some)
    }

    /// Where the OTPs of `identity` for `scope` are.
    async fn otp_history(&self, identity: &Identity, scope: Scope) -> Result<OtpHistory, ApiError> {
        let history = self.app.store.otp_history(self.caller.org.id(), identity, scope).await?;
        Ok(history.ok_or(Problem::CustomerNotFound)?)
    }

    /// The channels that an OTP of `series` is to be sent by, with their addresses.
    ///
    /// A contact in a scope of customers may be a customer in another account. Then the OTP is sent
    /// to that customer's own addresses only, too.
    ///
    /// A customer's identifiers are read only where `entity` is not enough. They may be changed
    /// between this read and the write of the OTP. Then the OTP is sent as if it had been issued
    /// before the change, which is milliseconds ago.
    async fn destinations(
        &self,
        recipients: &Recipients,
        series: &OtpSeries,
        entity: &Identifier,
    ) -> Result<Vec<Destination>, ApiError> {
        let (org, store) = (&*self.caller.org, &self.app.store);
        let may_to_any = self.caller.till.may(Permission::OtpIssueToAny);
        let reads = recipients.need_identifiers(entity, may_to_any);
        let customer = match &series.owner {
            OtpOwner::Customer(user) => Some(*user),
            OtpOwner::Contact(identity) if reads && series.scope.owner() == ScopeOwner::CustomerOrContact => {
                store.find_person(org.id(), identity).await?
            }
            OtpOwner::Contact(_) => None,
        };
        let identifiers = match customer {
            Some(user) if reads => store.identifiers_of(org, user).await?,
            _ => Vec::new(),
        };
        let to_any = may_to_any || customer.is_none();
        recipients.destinations(org, entity, &identifiers, to_any).map_err(|error| {
            let problem = match error {
                RecipientError::NotOwn => Problem::AddressNotOwn,
                RecipientError::NoAddress => Problem::NoAddress,
            };
            problem.into()
        })
    }
}

fn code(body: &JsonFields<'_>, org: &Org) -> Result<TypedCode, Problems> {
    let text = body.text("code", Problem::CodeNotText)?.unwrap_or_default();
    Ok(TypedCode::read(&text, org.config().otp_type).ok_or(Problem::CodeMissing)?)
}

/// The maximum number of channels. More are probably a mistake, and each message costs money.
pub(super) const MAX_CHANNELS: usize = 10;

/// Reads `channels`. An empty array counts as absent.
fn channels(body: &JsonFields<'_>, org: &Org) -> Result<Vec<RequestedChannel>, Problems> {
    let entries = body.objects("channels", Problem::ChannelInvalid)?;
    if entries.len() > MAX_CHANNELS {
        return Err(Problem::ChannelInvalid.into());
    }
    let mut channels = Vec::new();
    for entry in entries {
        let text = |name| entry.text(name, Problem::ChannelInvalid)?.ok_or(Problem::ChannelInvalid);
        let channel = read_channel(&text("type")?, &text("value")?, org).map_err(|error| match error {
            ChannelError::Invalid => Problem::ChannelInvalid,
            ChannelError::NotOffered => Problem::ChannelNotOffered,
            ChannelError::CountryNotAllowed => Problem::CountryNotAllowed,
        })?;
        channels.extend(channel);
    }
    Ok(channels)
}

/// Reads `template` and `emailTemplate`.
fn templates(body: &JsonFields<'_>) -> Result<TemplateTexts, Problems> {
    const TYPE_ERROR: Problem = Problem::TemplateInvalid;
    let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
    let mut texts =
        TemplateTexts { text: owned(body.exact_text("template", TYPE_ERROR)?), ..TemplateTexts::default() };
    if let Some(email) = body.object("emailTemplate", TYPE_ERROR)? {
        texts.email_subject = owned(email.exact_text("subject", Problem::SubjectInvalid)?);
        texts.email_body = owned(email.exact_text("body", TYPE_ERROR)?);
    }
    if texts.has_control_in_subject() {
        return Err(Problem::SubjectInvalid.into());
    }
    if texts.is_too_long() || texts.without_placeholder().next().is_some() {
        return Err(Problem::TemplateInvalid.into());
    }
    Ok(texts)
}

/// The message of an OTP, with the texts of the request where it has any. `None` if it is sent
/// nowhere.
fn draft(org: &Org, scope: Scope, texts: &TemplateTexts, destinations: &[Destination]) -> Option<Draft> {
    if destinations.is_empty() {
        return None;
    }
    let mut templates = org.templates(scope);
    texts.replace_in(&mut templates);
    Some(Draft { channels: destinations.iter().map(Destination::to_channel).collect(), templates })
}
