//! Holds.

use passbook_command::{
    proto::Hold,
    table::{Column, Fields},
};

use crate::{
    output::Row,
    view::{currency_code, enum_name, labels, time, value, value_and_currency},
};

fn state_name(hold: &Hold) -> String {
    enum_name(hold.state().as_str_name(), "HOLD_STATE_")
}

/// All fields of a hold.
pub fn hold_text(hold: &Hold) -> String {
    Fields::default()
        .with("hold_id", &hold.hold_id)
        .with("account_id", &hold.account_id)
        .with("amount", value_and_currency(hold.amount.as_ref()))
        .with("state", state_name(hold))
        .with("captured_amount", value_and_currency(hold.captured_amount.as_ref()))
        .with("transaction_id", &hold.transaction_id)
        .with("expire_time", time(hold.expire_time.as_ref()))
        .with("description", &hold.description)
        .with("labels", labels(&hold.labels))
        .with("create_time", time(hold.create_time.as_ref()))
        .with("update_time", time(hold.update_time.as_ref()))
        .with("request_id", &hold.request_id)
        .with("created_by", &hold.created_by)
        .with("ended_by", &hold.ended_by)
        .text()
}

impl Row for Hold {
    const COLUMNS: &'static [Column] = &[
        Column::text("hold_id"),
        Column::text("account_id"),
        Column::number("amount"),
        Column::number("captured_amount"),
        Column::text("currency_code"),
        Column::text("state"),
        Column::text("expire_time"),
        Column::text("description"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.hold_id.clone(),
            self.account_id.clone(),
            value(self.amount.as_ref()),
            value(self.captured_amount.as_ref()),
            currency_code(self.amount.as_ref()),
            state_name(self),
            time(self.expire_time.as_ref()),
            self.description.clone(),
        ]
    }
}
