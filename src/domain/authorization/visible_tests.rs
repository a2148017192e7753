//! What a caller sees, without a database.

use std::sync::Arc;

use uuid::Uuid;

use crate::domain::{
    authorization::{
        Right,
        tests::{allow, eur, grant, hold_on, transaction},
    },
    fixtures::id,
    ids::HoldId,
    rejection::Rejection,
    unit_of_work::{Effects, RequestRecord},
};

#[test]
fn nothing_of_an_account_is_shown_without_the_right_to_read_it() {
    let grant = grant([
        allow(&["seen"], &[Right::Read]),
        allow(&["paid"], &[Right::Credit]),
        allow(&["held"], &[Right::Debit]),
    ]);
    let made = Arc::new(transaction(&[("seen", "1"), ("paid", "1"), ("other", "-2")]));
    let seen: Vec<_> = grant.visible_transaction(made.clone()).entries.clone();
    assert_eq!(seen, made.entries[..1]);

    let hold = |account_id| Some(Arc::new(hold_on(account_id, "1")));
    for (account_id, is_shown) in
        [("seen", true), ("held", true), ("paid", false), ("other", false)]
    {
        let effects = Effects { transaction: Some(made.clone()), hold: hold(account_id) };
        let record = RequestRecord {
            fingerprint: [0; 16],
            transaction_id: Uuid::nil(),
            result: Ok(effects),
        };
        let shown = grant.visible_record(record).result.unwrap();
        assert_eq!(shown.hold.is_some(), is_shown, "{account_id}");
        assert_eq!(shown.transaction.unwrap().entries.len(), 1);
    }
}

#[test]
fn a_rejection_has_no_figures_of_an_account_without_the_right_to_read_it() {
    let figure = |text: &str| Some(eur().parse(text).unwrap());
    let exceeded = |account_id| Rejection::HoldAmountExceeded {
        hold_id: HoldId::parse("h").unwrap(),
        account_id,
        currency_code: "EUR".to_owned(),
        held: figure("777"),
        required: eur().parse("1").unwrap(),
    };
    let rejections = |account_id: &str| {
        let (account_id, currency_code) = (id(account_id), "EUR".to_owned());
        [
            Rejection::InsufficientFunds {
                account_id: account_id.clone(),
                currency_code: currency_code.clone(),
                available: figure("777"),
                required: figure("777"),
                version: Some(777),
            },
            Rejection::BalanceOutOfRange {
                account_id: account_id.clone(),
                currency_code,
                balance: figure("777"),
                amount: figure("777"),
            },
            Rejection::ConditionFailed {
                account_id: account_id.clone(),
                condition: "expected_version".to_owned(),
                required: "1".to_owned(),
                actual: Some("777".to_owned()),
                version: Some(777),
            },
            Rejection::CurrencyMismatch {
                account_id: account_id.clone(),
                currency_code: "EUR".to_owned(),
                account_currency_code: Some("X777".to_owned()),
            },
            exceeded(Some(account_id)),
        ]
    };
    let all = grant([allow(&["*"], &[Right::Read])]);
    let grant = grant([allow(&["seen"], &[Right::Read]), allow(&["*"], &[Right::Debit])]);
    for rejection in rejections("seen") {
        assert_eq!(grant.visible_rejection(rejection.clone(), false), rejection);
    }
    for rejection in rejections("hidden") {
        let shown = grant.visible_rejection(rejection, false);
        let stored = serde_json::to_string(&shown).unwrap();
        assert!(!stored.contains("777") && !shown.to_string().contains("777"), "{stored} {shown}");
        assert_eq!(serde_json::from_str::<Rejection>(&stored).unwrap(), shown);
    }
    let record = |rejection| {
        let result = Err(rejection);
        RequestRecord { fingerprint: [0; 16], transaction_id: Uuid::nil(), result }
    };
    let seen = exceeded(Some(id("seen")));
    assert_eq!(grant.visible_record(record(seen.clone())).result, Err(seen));
    // As an older version stored it: without the account.
    let former = exceeded(None);
    let shown = grant.visible_rejection(former.clone(), false);
    assert!(!shown.to_string().contains("777"), "{shown}");
    assert_eq!(all.visible_rejection(former.clone(), false), former);
}
