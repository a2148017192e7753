//! Commands for accounts: open, update, freeze, unfreeze, close.

use uuid::Uuid;

use crate::{
    domain::{
        account::{AccountUpdate, AttributeChange, NewAccount, NewLimit},
        ids::AccountId,
        money::{Amount, Currency, CurrencyError},
    },
    grpc::{
        decode::decoder::{Decoder, Sign, check_length, given},
        error::invalid::Invalid,
    },
    proto::{self, ErrorReason},
};

/// An account to open.
pub fn new_account(
    decoder: &mut Decoder<'_>,
    request: proto::CreateAccountRequest,
) -> Option<NewAccount> {
    let account_id = match given(&request.account_id) {
        None => Some(AccountId::from_uuid(Uuid::now_v7())),
        Some(text) => decoder.account_id("account_id", text),
    };
    let currency = decoder.currency("currency_code", &request.currency_code);
    let overdraft_limit = match &request.overdraft_limit {
        None => currency.as_ref().map(Currency::zero),
        Some(money) => {
            let (field, currency) = ("overdraft_limit", currency.as_ref());
            decoder.money(field, money, currency, Sign::NotNegative).map(|it| it.1)
        }
    };
    decoder.overdraft(overdraft_limit, request.unlimited_overdraft);
    decoder.labels(&request.labels);
    Some(NewAccount {
        account_id: account_id?,
        currency: currency?,
        overdraft_limit: overdraft_limit?,
        unlimited_overdraft: request.unlimited_overdraft,
        labels: request.labels,
        created_by: decoder.caller.clone(),
    })
}

/// The requests of a batch, not decoded yet: an invalid request does not reject the others.
pub fn account_batch(
    request: proto::BatchCreateAccountsRequest,
) -> Result<Vec<proto::CreateAccountRequest>, Invalid> {
    check_length(request.requests.len())?;
    Ok(request.requests)
}

/// Checks that accounts may still be opened in the currency of a new account. All other faults of the
/// currency are found by [`new_account`].
pub fn currency_of_new_account(
    decoder: &mut Decoder<'_>,
    request: &proto::CreateAccountRequest,
) -> Option<()> {
    let currency = match decoder.currencies.get_for_new_account(&request.currency_code) {
        Err(withdrawn @ CurrencyError::Withdrawn { .. }) => Err(withdrawn),
        _ => Ok(()),
    };
    decoder.check(ErrorReason::InvalidCurrencyCode, "currency_code", currency)
}

/// An update of an account's attributes.
pub fn account_update(
    decoder: &mut Decoder<'_>,
    request: proto::UpdateAccountRequest,
) -> Option<AccountUpdate> {
    let fields = [
        ("labels", !request.labels.is_empty()),
        ("overdraft_limit", request.overdraft_limit.is_some()),
        ("unlimited_overdraft", request.unlimited_overdraft),
    ];
    let mask = decoder.update_mask(request.update_mask.as_ref(), &fields);
    decoder.labels(&request.labels);
    let money = request.overdraft_limit.as_ref();
    let sign = if mask.contains("overdraft_limit") { Sign::NotNegative } else { Sign::Any };
    let limit = money.and_then(|money| decoder.money("overdraft_limit", money, None, sign));
    let is_unlimited = mask.contains("unlimited_overdraft") && request.unlimited_overdraft;
    if mask.contains("overdraft_limit") {
        decoder.overdraft(limit.as_ref().map(|limit| limit.1), is_unlimited);
    }
    // An invalid limit is a violation. Without one, None means that no limit was sent.
    let limit = limit.map_or(NewLimit::Zero, |(currency, limit)| NewLimit::Amount(currency, limit));
    let change = AttributeChange::Update {
        labels: mask.contains("labels").then_some(request.labels),
        overdraft_limit: mask.contains("overdraft_limit").then_some(limit),
        unlimited_overdraft: mask
            .contains("unlimited_overdraft")
            .then_some(request.unlimited_overdraft),
    };
    decoder.update(change, &request.account_id, String::new(), request.expected_version)
}

/// An account to freeze.
pub fn freeze(
    decoder: &mut Decoder<'_>,
    request: proto::FreezeAccountRequest,
) -> Option<AccountUpdate> {
    let proto::FreezeAccountRequest { account_id, reason, expected_version } = request;
    decoder.update(AttributeChange::Freeze, &account_id, reason, expected_version)
}

/// An account to unfreeze.
pub fn unfreeze(
    decoder: &mut Decoder<'_>,
    request: proto::UnfreezeAccountRequest,
) -> Option<AccountUpdate> {
    let proto::UnfreezeAccountRequest { account_id, reason, expected_version } = request;
    decoder.update(AttributeChange::Unfreeze, &account_id, reason, expected_version)
}

/// An account to close.
pub fn close(
    decoder: &mut Decoder<'_>,
    request: proto::CloseAccountRequest,
) -> Option<AccountUpdate> {
    let proto::CloseAccountRequest { account_id, reason, expected_version } = request;
    decoder.update(AttributeChange::Close, &account_id, reason, expected_version)
}

impl Decoder<'_> {
    /// An update with this change, and with the fields that all updates have.
    fn update(
        &mut self,
        change: AttributeChange,
        account_id: &str,
        reason: String,
        expected_version: Option<i64>,
    ) -> Option<AccountUpdate> {
        let account_id = self.account_id("account_id", account_id);
        self.text(ErrorReason::InvalidReason, "reason", &reason);
        self.version("expected_version", expected_version);
        let (account_id, created_by) = (account_id?, self.caller.clone());
        Some(AccountUpdate { account_id, change, expected_version, reason, created_by })
    }

    fn overdraft(&mut self, limit: Option<Amount>, is_unlimited: bool) {
        if is_unlimited && limit.is_some_and(Amount::is_positive) {
            let description = "must be zero or absent if unlimited_overdraft is set";
            self.report(ErrorReason::InvalidAmount, "overdraft_limit.value", description);
        }
    }
}
