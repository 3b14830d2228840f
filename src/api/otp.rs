//! Fetching, issuing and validating OTPs.

use chrono::SecondsFormat;
use serde::Serialize;

use super::{
    Call,
    error::{ApiError, Gather, Problem, Problems, SuccessBody},
    metrics::Event,
    params::JsonFields,
};
use crate::{
    model::{
        customer::{Identity, Source, UserId},
        message::{Channel, ChannelType, Message, Templates},
        org::{Org, OrgId},
        otp::{Code, CreatedId, OrgDay, OtpHistory, OtpOwner, Scope, TypedCode, most_recent},
        typed_text,
    },
    secret::os_rng,
    store::{Issue, NewOtp, Quota, TypedOtp, Validation},
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
    let (resolved, identifier, scope, threshold) =
        (params.account(org, None), params.identifier(org), params.scope(), params.threshold(org))
            .gather()?;

    let history = call.otp_history(&Identity::new(resolved.account, identifier), scope).await?;
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
    SuccessBody::new(body, resolved.warning.as_slice())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Issued {
    created_id: u64,
}

/// `POST /v2/otp/generate`: a new OTP.
pub async fn generate(call: Call<'_>) -> Result<SuccessBody, ApiError> {
    let (org, body) = (&*call.caller.org, call.json_object()?);
    let (scope, identifier, resolved, channels, templates) = (
        body.action(),
        body.entity(org),
        body.account(org, Some(Source::Instore)),
        channels(&body, org),
        templates(&body),
    )
        .gather()?;

    let history = call.otp_history(&Identity::new(resolved.account, identifier), scope).await?;
    let config = org.config();
    let day = OrgDay::of(call.now, &org.timezone);
    let code = Code::generate(config.otp_type, org.otp_length(), &mut os_rng());
    let message = (!channels.is_empty()).then(|| Message::new(channels, &templates, &code));
    let new = NewOtp {
        series: &history.current,
        code,
        issued_at: call.now,
        validity: org.otp_validity(),
        quota: Quota { date: day.date, limit: config.otp_daily_limit },
        message: message.as_ref(),
    };
    let respond = |id: CreatedId| SuccessBody::new(Issued { created_id: id.0 }, resolved.warning.as_slice());
    match call.app.store.issue_otp(&new, call.idempotent_request.as_ref(), respond).await? {
        Issue::Issued(body, message) => {
            call.events.count(Event::OtpIssued);
            if let (Some(listener), Some(message)) = (&call.app.message_listener, message) {
                listener(message);
            }
            Ok(body)
        }
        Issue::Replay(earlier) => call.replay(earlier),
        Issue::LimitReached => {
            let error = ApiError::too_many(Problem::OtpLimitReached, day.ends_at - call.now);
            call.stored_response_or(error).await
        }
        Issue::IdsTaken => Err(Problem::OtpNotGenerated.into()),
    }
}

#[derive(Serialize)]
struct Validated {
    entity: bool,
}

/// `POST /v2/otp/validate`: consumes an OTP if the code is right.
pub async fn validate(call: Call<'_>) -> Result<SuccessBody, ApiError> {
    let (org, body) = (&*call.caller.org, call.json_object()?);
    let (scope, identifier, resolved, typed) =
        (body.action(), body.entity(org), body.account(org, Some(Source::Instore)), code(&body, org))
            .gather()?;

    let identity = Identity::new(resolved.account, identifier);
    let typed = TypedOtp { identity: &identity, scope, code: &typed };
    let respond = |entity| SuccessBody::new(Validated { entity }, resolved.warning.as_slice());
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
    /// Where the OTPs of `identity` for `scope` are.
    async fn otp_history(&self, identity: &Identity, scope: Scope) -> Result<OtpHistory, ApiError> {
        let history = self.app.store.otp_history(self.caller.org.id(), identity, scope).await?;
        Ok(history.ok_or(Problem::CustomerNotFound)?)
    }
}

fn code(body: &JsonFields<'_>, org: &Org) -> Result<TypedCode, Problems> {
    let text = body.text("code", Problem::CodeNotText)?.unwrap_or_default();
    Ok(TypedCode::read(&text, org.config().otp_type).ok_or(Problem::CodeMissing)?)
}

/// The maximum number of channels. More are probably a mistake, and each message costs money.
pub(super) const MAX_CHANNELS: usize = 10;

/// Reads `channels`. Each value is validated and brought into normal form.
fn channels(body: &JsonFields<'_>, org: &Org) -> Result<Vec<Channel>, Problems> {
    let entries = body.objects("channels", Problem::ChannelInvalid)?;
    if entries.len() > MAX_CHANNELS {
        return Err(Problem::ChannelInvalid.into());
    }
    let read = |entry: &JsonFields<'_>| {
        let channel_type = ChannelType::parse(&entry.text("type", Problem::ChannelInvalid).ok()??)?;
        let value = entry.text("value", Problem::ChannelInvalid).ok()??;
        let value = org.identifier(channel_type.identifier(), &value).ok()?.value().to_owned();
        Some(Channel { channel_type, value })
    };
    Ok(entries.iter().map(|entry| read(entry).ok_or(Problem::ChannelInvalid)).collect::<Result<_, _>>()?)
}

/// Reads `template` and `emailTemplate`. Absent texts get the documented defaults.
fn templates(body: &JsonFields<'_>) -> Result<Templates, Problems> {
    const TYPE_ERROR: Problem = Problem::TemplateInvalid;
    let mut templates = Templates::default();
    if let Some(text) = body.text("template", TYPE_ERROR)? {
        templates.text = text.into_owned();
    }
    if let Some(email) = body.object("emailTemplate", TYPE_ERROR)? {
        if let Some(subject) = email.text("subject", Problem::SubjectInvalid)? {
            // Refused because a line break in an e-mail header would begin another header.
            if typed_text::has_control(&subject) {
                return Err(Problem::SubjectInvalid.into());
            }
            templates.email_subject = subject.into_owned();
        }
        if let Some(text) = email.text("body", TYPE_ERROR)? {
            templates.email_body = text.into_owned();
        }
    }
    // A message without the code is useless.
    if !templates.have_placeholders() {
        return Err(Problem::TemplateInvalid.into());
    }
    Ok(templates)
}
