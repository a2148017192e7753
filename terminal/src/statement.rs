//! `passbook statement`: prints the entries of an account.

use clap::Args;
use passbook_command::{
    CliError,
    proto::{EntryOrder, ListEntriesRequest},
};
use prost_types::Timestamp;

use crate::{
    arguments::{Basis, parse_past},
    output::{ListArguments, Page, print_pages},
    server::{CallKind, Server},
};

#[derive(Args)]
pub struct Statement {
    /// The id of the account.
    account_id: String,

    /// Only entries at or after this time: like 2026-11-26T09:42:23Z, a date, or a duration before
    /// now like 7days.
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    since: Option<Timestamp>,

    /// Only entries before this time, written in the same ways.
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    until: Option<Timestamp>,

    /// Only entries after the one with this sequence.
    #[arg(long, value_name = "N", default_value_t = 0)]
    after_sequence: i64,

    /// Print the newest entry first.
    #[arg(long)]
    newest_first: bool,

    #[command(flatten)]
    basis: Basis,

    #[command(flatten)]
    list: ListArguments,
}

impl Statement {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let order = match self.newest_first {
            true => EntryOrder::Descending,
            false => EntryOrder::Ascending,
        };
        let filter = ListEntriesRequest {
            account_id: self.account_id,
            after_sequence: self.after_sequence,
            start_time: self.since,
            end_time: self.until,
            order: order.into(),
            time_basis: self.basis.time_basis().into(),
            ..Default::default()
        };
        print_pages(&self.list, server.format(), async |Page { page_size, page_token }| {
            let request = ListEntriesRequest { page_size, page_token, ..filter.clone() };
            let send = async |request| server.accounts().list_entries(request).await;
            let page = server.call(CallKind::Read, request, send).await?;
            Ok((page.entries, page.next_page_token))
        })
        .await
    }
}
