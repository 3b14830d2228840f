//! Messages that carry OTPs, and what became of them on each channel.

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Store, StoreError,
    item::{Attributes, NewItem, json, millis, n, s, ttl},
    keys,
};
use crate::model::{
    message::Message,
    otp::{CreatedId, OtpSeries},
};

/// On a message's item: what became of each channel, by its position in the list of channels. A
/// channel is absent until it is sent. Messages of version 0.1.0 have no such attribute, because a
/// pipe delivered them.
pub(super) const DELIVERIES: &str = "deliveries";

/// How long a message is kept after its OTP has expired, so that an operator sees what became of
/// it.
const KEPT: TimeDelta = TimeDelta::hours(24);

/// Which message of which OTP.
pub(super) struct NewMessage<'a> {
    pub series: &'a OtpSeries,
    pub otp: CreatedId,
    /// 1 for the first message of the OTP, and one more for each time it is sent again.
    pub send: u32,
    pub valid_until: DateTime<Utc>,
}

impl Store {
    /// The write that puts a new message, whose insertion starts its delivery.
    pub(super) fn put_message(
        &self,
        new: &NewMessage<'_>,
        message: &Message,
    ) -> Result<TransactWriteItem, StoreError> {
        self.put_new(
            NewItem::new(&keys::message(new.series, new.otp, new.send))
                .with("created_id", n(new.otp))
                .with("org", n(new.series.org))
                .with("scope", s(new.series.scope.as_str()))
                .with("channels", json(&message.channels)?)
                .with("text", s(message.text.expose()))
                .with("email_subject", s(message.email_subject.expose()))
                .with("email_body", s(message.email_body.expose()))
                .with("sms_template_id", s(&message.sms_template_id))
                .with("valid_until", millis(new.valid_until))
                .with(DELIVERIES, AttributeValue::M(Attributes::new()))
                .with(keys::EXPIRES_AT, ttl(new.valid_until + KEPT)),
        )
    }
}
