//! What an operator asks of the table before it is relied on: how it is defined, which actions the
//! operator may do, how far the clocks are apart, and whether the delivery function is started by
//! new messages.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef},
    },
    error::{BoxError, ProvideErrorMetadata, SdkError},
    types::{
        BillingMode, KeySchemaElement, KeysAndAttributes, PointInTimeRecoveryStatus, TableDescription,
        TimeToLiveStatus,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use rand::RngExt;

use super::{
    Store, StoreError,
    item::{NewItem, n, s, ttl},
    keys::{self, EXPIRES_AT, Key, PK},
    messages::NewMessage,
    transaction::Outcome,
};
use crate::{
    aws_call::{CallError, call},
    model::{
        customer::UserId,
        message::{Channel, ChannelType, Message},
        org::OrgId,
        otp::{CreatedId, OtpOwner, OtpSeries, Scope},
    },
    secret::{Secret, os_rng},
};

/// How long what a diagnosis writes is kept at most, if the diagnosis ends before it removes it.
const PROBE_KEPT: TimeDelta = TimeDelta::hours(1);

/// The definition of the table, as DynamoDB describes it. An absent value was not described.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableFacts {
    pub arn: String,
    /// Such as `ACTIVE`.
    pub status: String,
    /// Each key attribute as `name KIND TYPE`, such as `PK HASH S`.
    pub keys: Vec<String>,
    /// The view type of the stream, such as `NEW_IMAGE`. `None` without a stream.
    pub stream: Option<String>,
    /// The units a second that the table is provisioned with, to read and to write. `None` on
    /// demand.
    pub provisioned: Option<(i64, i64)>,
    /// The most units a second that are allowed on demand, to read and to write.
    pub on_demand_limit: Option<(i64, i64)>,
    pub deletion_protection: Option<bool>,
    /// Since when the key that encrypts the table cannot be used.
    pub key_inaccessible_since: Option<String>,
}

/// The keys that the table must have.
pub const TABLE_KEYS: [&str; 2] = ["PK HASH S", "SK RANGE S"];

/// An action on the table, and whether it was allowed and did what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedAction {
    /// Such as `dynamodb:GetItem`.
    pub action: &'static str,
    pub result: Result<(), CallError>,
}

impl Store {
    /// The region of the client.
    pub fn region(&self) -> Option<String> {
        self.client.config().region().map(ToString::to_string)
    }

    /// The table's definition, and how far this machine's clock is ahead of DynamoDB's, to about a
    /// second. The clock is known even where the call is refused.
    pub async fn describe(&self) -> (Result<TableFacts, CallError>, Option<TimeDelta>) {
        let clock = ServerClock::default();
        let describing = self.client.describe_table().table_name(&self.table);
        let described = call(describing.customize().interceptor(clock.clone()).send()).await;
        let facts = described.map(|described| described.table.as_ref().map(facts).unwrap_or_default());
        (facts, clock.ahead())
    }

    /// The attribute by which expired items are deleted. `None` if there is none.
    ///
    /// # Errors
    /// [`CallError`] when DynamoDB does not answer or refuses.
    pub async fn ttl_attribute(&self) -> Result<Option<String>, CallError> {
        let described = call(self.client.describe_time_to_live().table_name(&self.table).send()).await?;
        let description = described.time_to_live_description.filter(|ttl| {
            matches!(ttl.time_to_live_status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling))
        });
        Ok(description.and_then(|description| description.attribute_name))
    }

    /// Whether the table can be restored to any point of the last days.
    ///
    /// # Errors
    /// [`CallError`] when DynamoDB does not answer or refuses.
    pub async fn has_point_in_time_recovery(&self) -> Result<bool, CallError> {
        let described =
            call(self.client.describe_continuous_backups().table_name(&self.table).send()).await?;
        let recovery = described
            .continuous_backups_description
            .and_then(|backups| backups.point_in_time_recovery_description)
            .and_then(|recovery| recovery.point_in_time_recovery_status);
        Ok(recovery == Some(PointInTimeRecoveryStatus::Enabled))
    }

    /// Tries each action on items that the API's function and the operators' commands need, on an
    /// item that it puts and removes again.
    pub async fn try_actions(&self) -> Vec<TriedAction> {
        let key = keys::probe(os_rng().random());
        let put = self.try_put(&key).await;
        let is_there = put.is_ok();
        let mut tried = vec![TriedAction { action: "dynamodb:PutItem", result: put }];
        let mut add = |action, result| tried.push(TriedAction { action, result });
        add("dynamodb:GetItem", self.try_get(&key, is_there).await);
        add("dynamodb:BatchGetItem", self.try_batch_get(&key).await);
        add("dynamodb:Query", self.try_query(&key).await);
        add(
            "dynamodb:Scan",
            call(self.client.scan().table_name(&self.table).limit(1).send()).await.map(|_| ()),
        );
        add("dynamodb:UpdateItem", self.try_update(&key).await);
        add("dynamodb:ConditionCheckItem", self.try_condition_check().await);
        add("dynamodb:DeleteItem", self.try_delete(&key).await);
        tried
    }

    /// Puts an item on the condition that it is not there, twice. The second attempt must fail.
    async fn try_put(&self, key: &Key) -> Result<(), CallError> {
        let item = NewItem::new(key).with(EXPIRES_AT, ttl(Utc::now() + PROBE_KEPT)).into_attributes();
        let put = || {
            self.client
                .put_item()
                .table_name(&self.table)
                .set_item(Some(item.clone()))
                .condition_expression(format!("attribute_not_exists({PK})"))
                .send()
        };
        call(put()).await?;
        let second = async {
            match put().await {
                Ok(_) => Ok(false),
                Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(true),
                Err(error) => Err::<_, SdkError<_, _>>(error),
            }
        };
        if call(second).await? {
            Ok(())
        } else {
            Err(CallError::Refused("a write was done although its condition does not hold".to_owned()))
        }
    }

    /// Reads the item, which must be found if it `is_there`.
    async fn try_get(&self, key: &Key, is_there: bool) -> Result<(), CallError> {
        let get = self.client.get_item().table_name(&self.table).set_key(Some(key.attributes()));
        let read = call(get.consistent_read(true).send()).await?;
        if is_there && read.item.is_none() {
            return Err(CallError::Refused("an item that was written is not found".to_owned()));
        }
        Ok(())
    }

    async fn try_batch_get(&self, key: &Key) -> Result<(), CallError> {
        let lookup = KeysAndAttributes::builder()
            .set_keys(Some(vec![key.attributes()]))
            .consistent_read(true)
            .build()
            .map_err(|error| CallError::Refused(error.to_string()))?;
        call(self.client.batch_get_item().request_items(&self.table, lookup).send()).await.map(|_| ())
    }

    async fn try_query(&self, key: &Key) -> Result<(), CallError> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression(format!("{PK} = :pk"))
            .expression_attribute_values(":pk", s(&key.pk));
        call(query.consistent_read(true).send()).await.map(|_| ())
    }

    async fn try_update(&self, key: &Key) -> Result<(), CallError> {
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key.attributes()))
            .update_expression(format!("ADD #count :one SET {EXPIRES_AT} = :expires"))
            // The name is a reserved word.
            .expression_attribute_names("#count", "count")
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":expires", ttl(Utc::now() + PROBE_KEPT));
        call(update.send()).await.map(|_| ())
    }

    /// A transaction that does nothing but check a condition.
    async fn try_condition_check(&self) -> Result<(), CallError> {
        let check = self.condition_check(&keys::absent_item(), |check| {
            check.condition_expression(format!("attribute_not_exists({PK})"))
        });
        let check = check.map_err(|error| CallError::Refused(error.to_string()))?;
        call(self.client.transact_write_items().transact_items(check).send()).await.map(|_| ())
    }

    async fn try_delete(&self, key: &Key) -> Result<(), CallError> {
        let delete = self.client.delete_item().table_name(&self.table).set_key(Some(key.attributes()));
        call(delete.send()).await.map(|_| ())
    }

    /// Puts a message for nobody, whose OTP has expired. The delivery function marks it as expired
    /// and sends nothing.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn put_probe_message(&self, org: OrgId, channel: ChannelType) -> Result<Key, StoreError> {
        let now = Utc::now();
        let nothing = || Secret::new(String::new());
        let message = Message {
            channels: vec![Channel { channel_type: channel, value: String::new() }],
            text: nothing(),
            email_subject: nothing(),
            email_body: nothing(),
            sms_template_id: String::new(),
        };
        // Orgs count their customers from 1.
        let series = OtpSeries { org, owner: OtpOwner::Customer(UserId(0)), scope: Scope::Generic };
        let otp = CreatedId::draw(now, &mut os_rng());
        let new = NewMessage { series: &series, otp, send: 1, valid_until: now, requested_at: now };
        match self.transact(vec![self.put_message(&new, &message)?]).await? {
            Outcome::Done => Ok(keys::message(&series, otp, 1)),
            Outcome::Refused(_) => Err(StoreError::gave_up("another diagnosis runs at the same moment")),
        }
    }

    /// Whether a message that [`Self::put_probe_message`] has put was delivered.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn was_delivered(&self, key: &Key) -> Result<bool, StoreError> {
        let stored = self.message(key).await?;
        Ok(stored.is_some_and(|message| message.states.iter().all(Option::is_some)))
    }

    /// Removes a message that [`Self::put_probe_message`] has put.
    ///
    /// # Errors
    /// [`CallError`] when DynamoDB does not answer or refuses.
    pub async fn remove_probe_message(&self, key: &Key) -> Result<(), CallError> {
        self.try_delete(key).await
    }
}

fn facts(table: &TableDescription) -> TableFacts {
    let attribute_type = |name: &str| {
        let definition =
            table.attribute_definitions().iter().find(|definition| definition.attribute_name() == name);
        definition.map_or("?", |definition| definition.attribute_type().as_str())
    };
    let key = |element: &KeySchemaElement| {
        let name = element.attribute_name();
        format!("{name} {} {}", element.key_type(), attribute_type(name))
    };
    let stream = table.stream_specification().filter(|stream| stream.stream_enabled());
    let on_demand = table
        .billing_mode_summary()
        .is_some_and(|mode| mode.billing_mode() == Some(&BillingMode::PayPerRequest));
    let throughput = table.provisioned_throughput().filter(|_| !on_demand);
    let units = |units: Option<i64>| units.unwrap_or_default();
    TableFacts {
        arn: table.table_arn().unwrap_or_default().to_owned(),
        status: table.table_status().map_or_else(String::new, |status| status.as_str().to_owned()),
        keys: table.key_schema().iter().map(key).collect(),
        stream: stream.map(|stream| stream.stream_view_type().map_or("", |view| view.as_str()).to_owned()),
        provisioned: throughput.map(|throughput| {
            (units(throughput.read_capacity_units()), units(throughput.write_capacity_units()))
        }),
        on_demand_limit: table
            .on_demand_throughput()
            .map(|limit| (units(limit.max_read_request_units()), units(limit.max_write_request_units())))
            .filter(|(read, write)| *read > 0 || *write > 0),
        deletion_protection: table.deletion_protection_enabled(),
        key_inaccessible_since: table
            .sse_description()
            .and_then(|encryption| encryption.inaccessible_encryption_date_time())
            .map(ToString::to_string),
    }
}

/// Reads the time in the `Date` header of an answer, and that of this machine.
#[derive(Debug, Clone, Default)]
struct ServerClock(Arc<Mutex<Reading>>);

#[derive(Debug, Default)]
struct Reading {
    sent_at: Option<DateTime<Utc>>,
    ahead: Option<TimeDelta>,
}

impl ServerClock {
    /// How far this machine's clock is ahead of the server's.
    fn ahead(&self) -> Option<TimeDelta> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ahead
    }
}

impl Intercept for ServerClock {
    fn name(&self) -> &'static str {
        "ServerClock"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).sent_at = Some(Utc::now());
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let server = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok());
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(server), Some(sent_at)) = (server, reading.sent_at) {
            reading.ahead = Some(ahead(sent_at, Utc::now(), server.to_utc()));
        }
        Ok(())
    }
}

/// How far a clock is ahead that showed `sent_at` when a request was sent and `received_at` when
/// its answer with the server's time arrived. The server leaves out fractions of a second.
fn ahead(sent_at: DateTime<Utc>, received_at: DateTime<Utc>, server: DateTime<Utc>) -> TimeDelta {
    sent_at + (received_at - sent_at) / 2 - (server + TimeDelta::milliseconds(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_are_compared_at_the_middle_of_the_call() {
        let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let server = time("2026-11-21T10:00:00Z");
        let found = |sent_at: &str, received_at: &str| ahead(time(sent_at), time(received_at), server);
        assert_eq!(found("2026-11-21T10:00:00.4Z", "2026-11-21T10:00:00.6Z"), TimeDelta::zero());
        assert_eq!(found("2026-11-21T10:05:00Z", "2026-11-21T10:05:01Z"), TimeDelta::minutes(5));
        assert_eq!(found("2026-11-21T09:59:00.5Z", "2026-11-21T09:59:00.5Z"), TimeDelta::minutes(-1));
    }
}
