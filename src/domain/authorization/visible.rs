//! What a caller sees of what the ledger returns: nothing of the balances of accounts that it may not
//! read.

use std::sync::Arc;

use crate::domain::{
    authorization::{Grant, rule::Right},
    event::Event,
    hold::Hold,
    rejection::Rejection,
    transaction::Transaction,
    unit_of_work::{Effects, RequestRecord},
};

impl Grant {
    /// The transaction with the entries of the accounts that the caller may read.
    pub fn visible_transaction(&self, mut transaction: Arc<Transaction>) -> Arc<Transaction> {
        if !transaction.entries.iter().all(|it| self.allows(Right::Read, &it.account_id)) {
            let entries = &mut Arc::make_mut(&mut transaction).entries;
            entries.retain(|entry| self.allows(Right::Read, &entry.account_id));
        }
        transaction
    }

    /// The effects of the caller's own request. A hold is shown to those who may end it, too.
    pub fn visible_effects(&self, effects: Effects) -> Effects {
        let is_visible = |hold: &Arc<Hold>| {
            [Right::Read, Right::Debit].iter().any(|it| self.allows(*it, &hold.account_id))
        };
        Effects {
            transaction: effects.transaction.map(|it| self.visible_transaction(it)),
            hold: effects.hold.filter(is_visible),
        }
    }

    /// The event with what the caller may read of it; None if that is nothing.
    pub fn visible_event(&self, event: Event) -> Option<Event> {
        match event {
            Event::Request(Effects { transaction, hold }) => {
                let transaction = transaction.map(|it| self.visible_transaction(it));
                let transaction = transaction.filter(|it| !it.entries.is_empty());
                let hold = hold.filter(|it| self.may_read(&it.account_id));
                let is_hidden = transaction.is_none() && hold.is_none();
                (!is_hidden).then_some(Event::Request(Effects { transaction, hold }))
            }
            Event::HoldUpdated(hold) => {
                self.may_read(&hold.account_id).then_some(Event::HoldUpdated(hold))
            }
            Event::HoldExpired(hold) => {
                self.may_read(&hold.account_id).then_some(Event::HoldExpired(hold))
            }
            Event::AccountOpened(account) => {
                self.may_read(&account.account_id).then_some(Event::AccountOpened(account))
            }
            Event::AccountChanged(change) => {
                self.may_read(&change.account_id).then_some(Event::AccountChanged(change))
            }
        }
    }

    /// The record of the caller's own request, which today's policy may no longer allow.
    pub fn visible_record(&self, record: RequestRecord) -> RequestRecord {
        let result = match record.result {
            Ok(effects) => Ok(self.visible_effects(effects)),
            // It may be that of a request that names a hold or a transaction.
            Err(rejection) => Err(self.visible_rejection(rejection, false)),
        };
        RequestRecord { result, ..record }
    }

    /// The rejection, without the figures of an account that the caller may not read. The caller knows
    /// the amounts of a posting and of a new hold; those of other requests depend on a hold or on entries.
    pub fn visible_rejection(&self, rejection: Rejection, has_named_amounts: bool) -> Rejection {
        rejection.visible(has_named_amounts, |account_id| match account_id {
            Some(account_id) => self.allows(Right::Read, account_id),
            None => self.covers_all_accounts(Right::Read),
        })
    }
}
