//! Commands for accounts: open, update, freeze, unfreeze, close.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::{
    domain::{
        account::{AccountUpdate, AttributeChange, NewAccount, NewLimit},
        ids::{AccountId, Identity},
        money::{Amount, Currencies, Currency},
    },
    grpc::{decode::decoder::Decoder, error::invalid::Invalid},
    proto::{self, ErrorReason},
};

/// The fields that an update mask may name.
const UPDATABLE: [&str; 3] = ["labels", "overdraft_limit", "unlimited_overdraft"];

/// An account to open, on behalf of `caller`.
pub fn new_account(
    currencies: &Currencies,
    caller: &Identity,
    request: proto::CreateAccountRequest,
) -> Result<NewAccount, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let account_id = if request.account_id.is_empty() {
        Some(AccountId::from_uuid(Uuid::now_v7()))
    } else {
        decoder.account_id("account_id", &request.account_id)
    };
    let currency = decoder.currency("currency_code", &request.currency_code);
    let overdraft_limit = match (&request.overdraft_limit, &currency) {
        (None, currency) => currency.as_ref().map(Currency::zero),
        (Some(money), currency) => {
            decoder.money("overdraft_limit", money, currency.as_ref()).map(|(_, amount)| amount)
        }
    };
    decoder.overdraft(overdraft_limit, request.unlimited_overdraft);
    decoder.labels(&request.labels);
    let decoded = (|| {
        Some(NewAccount {
            account_id: account_id?,
            currency: currency?,
            overdraft_limit: overdraft_limit?,
            unlimited_overdraft: request.unlimited_overdraft,
            labels: request.labels,
            created_by: caller.clone(),
        })
    })();
    decoder.finish(decoded)
}

/// Checks that accounts may still be opened in the currency of `new`.
pub fn check_currency_of_new_account(
    currencies: &Currencies,
    new: &NewAccount,
) -> Result<(), Invalid> {
    let mut decoder = Decoder::new(currencies);
    let currency = decoder.currency_of_new_account("currency_code", new.currency.code());
    decoder.finish(currency.map(drop))
}

/// An update of an account's attributes, on behalf of `caller`.
pub fn account_update(
    currencies: &Currencies,
    caller: &Identity,
    request: proto::UpdateAccountRequest,
) -> Result<AccountUpdate, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let account_id = decoder.account_id("account_id", &request.account_id);
    let mask = update_mask(&mut decoder, &request);
    decoder.labels(&request.labels);
    let money = request.overdraft_limit.as_ref();
    let limit = money.and_then(|money| decoder.money("overdraft_limit", money, None));
    let is_unlimited = mask.contains("unlimited_overdraft") && request.unlimited_overdraft;
    if mask.contains("overdraft_limit") {
        decoder.overdraft(limit.as_ref().map(|limit| limit.1), is_unlimited);
    }
    // An invalid limit is a violation. Without one, None means that no limit was sent.
    let limit = limit.map_or(NewLimit::Zero, |(currency, limit)| NewLimit::Amount(currency, limit));
    decoder.expected_version(request.expected_version);
    let change = AttributeChange::Update {
        labels: mask.contains("labels").then_some(request.labels),
        overdraft_limit: mask.contains("overdraft_limit").then_some(limit),
        unlimited_overdraft: mask
            .contains("unlimited_overdraft")
            .then_some(request.unlimited_overdraft),
    };
    let (expected_version, reason) = (request.expected_version, String::new());
    let created_by = caller.clone();
    decoder.finish(account_id.map(|account_id| AccountUpdate {
        account_id,
        change,
        expected_version,
        reason,
        created_by,
    }))
}

/// The fields to update: those that the mask names, or, without a mask, those that are set.
fn update_mask(
    decoder: &mut Decoder<'_>,
    request: &proto::UpdateAccountRequest,
) -> BTreeSet<&'static str> {
    let paths = request.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
    let mut mask = BTreeSet::new();
    for (index, path) in paths.iter().enumerate() {
        match UPDATABLE.iter().find(|name| *name == path) {
            Some(name) => drop(mask.insert(*name)),
            None => {
                // Without the path itself, which may be long: details travel in a header.
                let allowed = UPDATABLE.join(", ");
                let description = format!("has a path at {index} that is not one of {allowed}");
                decoder.report(ErrorReason::InvalidUpdateMask, "update_mask", description);
            }
        }
    }
    if paths.is_empty() {
        let is_set = [
            !request.labels.is_empty(),
            request.overdraft_limit.is_some(),
            request.unlimited_overdraft,
        ];
        mask.extend(
            UPDATABLE.iter().zip(is_set).filter_map(|(name, is_set)| is_set.then_some(*name)),
        );
        if mask.is_empty() {
            let description = "is required where no field to update is set";
            decoder.report(ErrorReason::InvalidUpdateMask, "update_mask", description);
        }
    }
    mask
}

/// An account to freeze, on behalf of `caller`.
pub fn freeze(
    currencies: &Currencies,
    caller: &Identity,
    request: proto::FreezeAccountRequest,
) -> Result<AccountUpdate, Invalid> {
    let proto::FreezeAccountRequest { account_id, reason, expected_version } = request;
    let change = AttributeChange::Freeze;
    state_change(currencies, caller, change, &account_id, reason, expected_version)
}

/// An account to unfreeze, on behalf of `caller`.
pub fn unfreeze(
    currencies: &Currencies,
    caller: &Identity,
    request: proto::UnfreezeAccountRequest,
) -> Result<AccountUpdate, Invalid> {
    let proto::UnfreezeAccountRequest { account_id, reason, expected_version } = request;
    let change = AttributeChange::Unfreeze;
    state_change(currencies, caller, change, &account_id, reason, expected_version)
}

/// An account to close, on behalf of `caller`.
pub fn close(
    currencies: &Currencies,
    caller: &Identity,
    request: proto::CloseAccountRequest,
) -> Result<AccountUpdate, Invalid> {
    let proto::CloseAccountRequest { account_id, reason, expected_version } = request;
    let change = AttributeChange::Close;
    state_change(currencies, caller, change, &account_id, reason, expected_version)
}

fn state_change(
    currencies: &Currencies,
    caller: &Identity,
    change: AttributeChange,
    account_id: &str,
    reason: String,
    expected_version: Option<i64>,
) -> Result<AccountUpdate, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let account_id = decoder.account_id("account_id", account_id);
    decoder.text(ErrorReason::InvalidReason, "reason", &reason);
    decoder.expected_version(expected_version);
    let created_by = caller.clone();
    decoder.finish(account_id.map(|account_id| AccountUpdate {
        account_id,
        change,
        expected_version,
        reason,
        created_by,
    }))
}

impl Decoder<'_> {
    fn expected_version(&mut self, version: Option<i64>) {
        if version.is_some_and(|version| version < 1) {
            let reason = ErrorReason::InvalidCondition;
            self.report(reason, "expected_version", "must be at least 1");
        }
    }

    fn overdraft(&mut self, limit: Option<Amount>, is_unlimited: bool) {
        let reason = ErrorReason::InvalidAmount;
        if limit.is_some_and(Amount::is_negative) {
            self.report(reason, "overdraft_limit.value", "must not be negative");
        } else if is_unlimited && limit.is_some_and(Amount::is_positive) {
            let description = "must be zero or absent where unlimited_overdraft is set";
            self.report(reason, "overdraft_limit.value", description);
        }
    }
}
