//! The secrets of webhooks in the org's item.

use chrono::TimeDelta;
use loyalty_codes::{
    model::{org::OrgId, webhook::WebhookSecret},
    store::ApplyError,
};

use crate::{
    common::{TestTable, demo_org, demo_org_with},
    world::ORG,
};

fn secret(byte: u8) -> WebhookSecret {
    WebhookSecret::stored([byte; 32])
}

#[tokio::test]
async fn a_secret_is_replaced_and_the_one_before_is_kept_for_a_day() {
    let table = TestTable::new().await;
    let service = table.service("store.server");
    let (store, now) = (&service.store, table.clock.now());
    assert!(!store.replace_webhook_secret(ORG, secret(1), now).await.unwrap(), "no such org");
    service.apply(&demo_org()).await.unwrap();
    assert_eq!(store.webhook_secrets(ORG).await.unwrap(), None);
    assert_eq!(store.webhook_secrets(OrgId(1)).await.unwrap(), None);
    assert!(store.replace_webhook_secret(ORG, secret(1), now).await.unwrap());
    assert!(store.replace_webhook_secret(ORG, secret(2), now).await.unwrap());
    let secrets = store.webhook_secrets(ORG).await.unwrap().unwrap();
    assert_eq!(secrets.current, secret(2));
    assert_eq!(secrets.previous, [(secret(1), now + TimeDelta::days(1))]);

    service.apply(&demo_org_with("CONF_OTP_LENGTH = 8")).await.unwrap();
    assert_eq!(store.webhook_secrets(ORG).await.unwrap(), Some(secrets), "an applied file keeps them");
    let org = store.org(ORG).await.unwrap().unwrap();
    assert_eq!(org.config().otp_length, 8);
}

#[tokio::test]
async fn a_replacement_and_another_change_at_the_same_time_do_not_overwrite_each_other() {
    let table = TestTable::new().await;
    let service = table.service("store.server");
    service.apply(&demo_org()).await.unwrap();
    let changed = demo_org_with("CONF_OTP_LENGTH = 8");
    let (replaced, applied) = tokio::join!(
        service.store.replace_webhook_secret(ORG, secret(1), table.clock.now()),
        service.apply(&changed),
    );
    let stored = service.store.webhook_secrets(ORG).await.unwrap();
    match replaced {
        Ok(true) => assert_eq!(stored.map(|secrets| secrets.current), Some(secret(1))),
        Err(ApplyError::Concurrent) => assert_eq!(stored, None),
        other => panic!("{other:?}"),
    }
    let length = service.store.org(ORG).await.unwrap().unwrap().config().otp_length;
    assert_eq!(length, if applied.is_ok() { 8 } else { 7 });
}
