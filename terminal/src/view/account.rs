//! Accounts and their changes.

use passbook_command::{
    proto::{
        Account, AccountAttributes, AccountChange, AccountState, BalanceSum, CreateAccountResult,
        create_account_result::Result as Opening,
    },
    table::{Column, Fields},
};

use crate::{
    output::Row,
    server::CallError,
    view::{enum_name, labels, time, value},
};

fn state_name(state: AccountState) -> String {
    enum_name(state.as_str_name(), "ACCOUNT_STATE_")
}

/// All fields of an account.
pub fn account_text(account: &Account) -> String {
    let overdraft_limit = match account.unlimited_overdraft {
        true => "unlimited".to_owned(),
        false => value(account.overdraft_limit.as_ref()),
    };
    Fields::default()
        .with("account_id", &account.account_id)
        .with("currency_code", &account.currency_code)
        .with("balance", value(account.balance.as_ref()))
        .with("held", value(account.held.as_ref()))
        .with("available", value(account.available.as_ref()))
        .with("overdraft_limit", overdraft_limit)
        .with("state", state_name(account.state()))
        .with("sequence", account.sequence)
        .with("version", account.version)
        .with("labels", labels(&account.labels))
        .with("create_time", time(account.create_time.as_ref()))
        .with("update_time", time(account.update_time.as_ref()))
        .with("created_by", &account.created_by)
        .text()
}

impl Row for Account {
    const COLUMNS: &'static [Column] = &[
        Column::text("account_id"),
        Column::number("balance"),
        Column::number("held"),
        Column::number("available"),
        Column::text("currency_code"),
        Column::text("state"),
        Column::text("labels"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.account_id.clone(),
            value(self.balance.as_ref()),
            value(self.held.as_ref()),
            value(self.available.as_ref()),
            self.currency_code.clone(),
            state_name(self.state()),
            labels(&self.labels),
        ]
    }
}

/// The columns of the results of openings.
pub const OPENING_COLUMNS: &[Column] = &[
    Column::text("account_id"),
    Column::text("state"),
    Column::text("reason"),
    Column::text("message"),
];

/// The row of the result for this account.
pub fn opening_cells(account_id: &str, result: &CreateAccountResult) -> Vec<String> {
    let (state, reason, message) = match &result.result {
        Some(Opening::Account(account)) => {
            (state_name(account.state()), String::new(), String::new())
        }
        Some(Opening::Error(error)) => {
            let error = CallError::of_result(error);
            (String::new(), error.reason().to_owned(), error.message().to_owned())
        }
        None => Default::default(),
    };
    vec![account_id.to_owned(), state, reason, message]
}

impl Row for BalanceSum {
    const COLUMNS: &'static [Column] = &[
        Column::text("currency_code"),
        Column::number("account_count"),
        Column::number("balance"),
        Column::number("held"),
        Column::number("available"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.currency_code.clone(),
            self.account_count.to_string(),
            value(self.balance.as_ref()),
            value(self.held.as_ref()),
            value(self.available.as_ref()),
        ]
    }
}

impl Row for AccountChange {
    const COLUMNS: &'static [Column] = &[
        Column::number("version"),
        Column::text("create_time"),
        Column::text("kind"),
        Column::text("created_by"),
        Column::text("reason"),
        Column::text("change"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.version.to_string(),
            time(self.create_time.as_ref()),
            enum_name(self.kind().as_str_name(), "ACCOUNT_CHANGE_KIND_"),
            self.created_by.clone(),
            self.reason.clone(),
            difference(self.before.as_ref(), self.after.as_ref()),
        ]
    }
}

/// The attributes that differ, with both values.
pub fn difference(before: Option<&AccountAttributes>, after: Option<&AccountAttributes>) -> String {
    let attributes = |it: Option<&AccountAttributes>| {
        let it = it.cloned().unwrap_or_default();
        let limit = match it.unlimited_overdraft {
            true => "unlimited".to_owned(),
            false => value(it.overdraft_limit.as_ref()),
        };
        let labels = format!("[{}]", labels(&it.labels));
        [("state", state_name(it.state())), ("overdraft_limit", limit), ("labels", labels)]
    };
    let pairs = attributes(before).into_iter().zip(attributes(after));
    let changed = pairs.filter(|(before, after)| before != after);
    let texts = changed.map(|((name, before), (_, after))| format!("{name}: {before} -> {after}"));
    texts.collect::<Vec<_>>().join(", ")
}
