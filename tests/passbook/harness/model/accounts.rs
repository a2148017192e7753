//! Accounts of the model: opened, updated, frozen, closed.

use std::collections::BTreeSet;

use passbook::proto::*;
use prost_types::Timestamp;
use tonic::Code;

use crate::harness::{
    model::command::{Rejection, Reply, Response},
    model::{Account, Model, currency_mismatch, money_in, text, units},
};

impl Model {
    pub(super) fn create(&mut self, request: &CreateAccountRequest, response: &Response) -> Reply {
        let by_server = response.accounts.first();
        let account_id = match request.account_id.as_str() {
            "" => by_server.map(|account| account.account_id.clone()).unwrap_or_default(),
            account_id => account_id.to_owned(),
        };
        let overdraft_limit = request.overdraft_limit.as_ref().map_or(0, units);
        if let Some(account) = self.accounts.get(&account_id) {
            let now = attributes(account);
            let first = account.changes.first().and_then(|change| change.before.as_ref());
            let opening = first.unwrap_or(&now);
            let is_same = account.currency_code == request.currency_code
                && opening.overdraft_limit.as_ref().map_or(0, units) == overdraft_limit
                && opening.unlimited_overdraft == request.unlimited_overdraft
                && opening.labels == request.labels;
            let metadata = [("account_id", account_id.clone())];
            return match is_same {
                true => self.answer(&account_id),
                false => Err(Rejection::new(Code::AlreadyExists, "ACCOUNT_EXISTS", &metadata)),
            };
        }
        let time = by_server.and_then(|account| account.create_time);
        let account = Account {
            currency_code: request.currency_code.clone(),
            balance: 0,
            overdraft_limit,
            unlimited_overdraft: request.unlimited_overdraft,
            below_limit: false,
            state: AccountState::Open,
            version: 1,
            labels: request.labels.clone(),
            entries: Vec::new(),
            changes: Vec::new(),
            open_holds: BTreeSet::new(),
            create_time: time,
            update_time: time,
            last_hash: "0".repeat(64),
        };
        self.accounts.insert(account_id.clone(), account);
        self.add_opening(self.account_message(&account_id)?);
        self.answer(&account_id)
    }

    fn not_closed(&self, account_id: &str) -> Result<&Account, Rejection> {
        let account = self.account(account_id)?;
        let metadata = [("account_id", account_id.to_owned())];
        match account.state {
            AccountState::Closed => {
                Err(Rejection::new(Code::FailedPrecondition, "ACCOUNT_CLOSED", &metadata))
            }
            _ => Ok(account),
        }
    }

    pub(super) fn set_state(
        &mut self,
        account_id: &str,
        (state, kind): (AccountState, AccountChangeKind),
        reason: &str,
        time: Option<Timestamp>,
    ) -> Reply {
        if state == AccountState::Closed {
            let account = self.account(account_id)?;
            let is_empty = account.balance == 0 && account.open_holds.is_empty();
            if account.state != AccountState::Closed && !is_empty {
                let currency_code = account.currency_code.clone();
                let metadata = [
                    ("account_id", account_id.to_owned()),
                    ("balance", text(&currency_code, account.balance)),
                    ("held", text(&currency_code, self.held(account_id))),
                    ("currency_code", currency_code),
                ];
                let code = Code::FailedPrecondition;
                return Err(Rejection::new(code, "ACCOUNT_NOT_EMPTY", &metadata));
            }
        } else {
            self.not_closed(account_id)?;
        }
        let set = |account: &mut Account| account.state = state;
        self.set(account_id, (kind, reason), time, set)
    }

    pub(super) fn update(
        &mut self,
        request: &UpdateAccountRequest,
        time: Option<Timestamp>,
    ) -> Reply {
        let account_id = &request.account_id;
        let account = self.not_closed(account_id)?;
        let paths = request.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
        let in_mask = |name: &str| paths.iter().any(|path| path == name);
        let takes = |name, is_set| if paths.is_empty() { is_set } else { in_mask(name) };
        let mut after = account.clone();
        if takes("labels", !request.labels.is_empty()) {
            after.labels = request.labels.clone();
        }
        if takes("overdraft_limit", request.overdraft_limit.is_some()) {
            let limit = request.overdraft_limit.as_ref();
            if let Some(limit) = limit.filter(|it| it.currency_code != account.currency_code) {
                return Err(currency_mismatch(account_id, account, &limit.currency_code));
            }
            after.overdraft_limit = limit.map_or(0, units);
            if after.overdraft_limit > 0 {
                after.unlimited_overdraft = false;
            }
        }
        if takes("unlimited_overdraft", request.unlimited_overdraft) {
            after.unlimited_overdraft = request.unlimited_overdraft;
            if request.unlimited_overdraft {
                after.overdraft_limit = 0;
            }
        }
        let spendable = account.balance - self.held(account_id) + after.overdraft_limit;
        let is_reduced =
            account.unlimited_overdraft || after.overdraft_limit < account.overdraft_limit;
        if is_reduced && !after.unlimited_overdraft && spendable < 0 {
            let required = (account.overdraft_limit - after.overdraft_limit).max(0);
            return Err(self.insufficient_funds(account_id, required));
        }
        if let Some(expected) = request.expected_version.filter(|it| *it != account.version) {
            let metadata = [
                ("account_id", account_id.clone()),
                ("expected_version", expected.to_string()),
                ("version", account.version.to_string()),
            ];
            return Err(Rejection::new(Code::Aborted, "VERSION_MISMATCH", &metadata));
        }
        self.set(account_id, (AccountChangeKind::Updated, ""), time, |account| *account = after)
    }

    /// Applies a change of attributes and records it, if it changes anything.
    fn set(
        &mut self,
        account_id: &str,
        (kind, reason): (AccountChangeKind, &str),
        time: Option<Timestamp>,
        set: impl FnOnce(&mut Account),
    ) -> Reply {
        let account = self.accounts.get_mut(account_id).expect("an account");
        let before = attributes(account);
        set(account);
        let after = attributes(account);
        if before != after {
            self.changed(account_id, time);
            let account = self.accounts.get_mut(account_id).expect("an account");
            let change = AccountChange {
                account_id: account_id.to_owned(),
                version: account.version,
                kind: kind.into(),
                reason: reason.to_owned(),
                before: Some(before),
                after: Some(after),
                create_time: account.update_time,
                created_by: String::new(),
            };
            account.changes.push(change.clone());
            self.add_change(change);
        }
        self.answer(account_id)
    }
}

fn attributes(account: &Account) -> AccountAttributes {
    AccountAttributes {
        state: account.state.into(),
        overdraft_limit: Some(money_in(&account.currency_code, account.overdraft_limit)),
        unlimited_overdraft: account.unlimited_overdraft,
        labels: account.labels.clone(),
    }
}
