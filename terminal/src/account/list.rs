//! Accounts that match filters, and the sums of such accounts.

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use passbook_command::{
    CliError,
    proto::{AccountState, ListAccountsRequest, SumBalancesRequest},
};
use prost_types::Timestamp;

use crate::{
    arguments::{LabelFilter, parse_past},
    output::{ListArguments, Page, Rows, print_pages},
    server::{CallKind, Server},
};

/// Which accounts are meant: those that match all filters.
#[derive(Args)]
struct Filters {
    /// Only accounts whose ids begin with this.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PREFIX")]
    prefix: String,

    /// Only accounts in this currency.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "CURRENCY")]
    currency: String,

    /// Only accounts in this state.
    #[arg(long, value_name = "STATE", value_parser = state_parser())]
    state: Option<AccountState>,

    #[command(flatten)]
    labels: LabelFilter,
}

fn state_parser() -> impl TypedValueParser<Value = AccountState> {
    PossibleValuesParser::new(["open", "frozen", "closed"]).map(|name| {
        let name = format!("ACCOUNT_STATE_{}", name.to_uppercase());
        AccountState::from_str_name(&name).unwrap_or_default()
    })
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    filters: Filters,

    #[command(flatten)]
    list: ListArguments,
}

impl List {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let filter = ListAccountsRequest {
            currency_code: self.filters.currency,
            state: self.filters.state.unwrap_or_default().into(),
            labels: self.filters.labels.map()?,
            account_id_prefix: self.filters.prefix,
            ..Default::default()
        };
        print_pages(&self.list, server.format(), async |Page { page_size, page_token }| {
            let request = ListAccountsRequest { page_size, page_token, ..filter.clone() };
            let send = async |request| server.accounts().list_accounts(request).await;
            let page = server.call(CallKind::Read, request, send).await?;
            Ok((page.accounts, page.next_page_token))
        })
        .await
    }
}

#[derive(Args)]
pub struct Sum {
    #[command(flatten)]
    filters: Filters,

    /// The balances at this time: like 2026-11-26T09:42:23Z, a date, or a duration before now like
    /// 7days. Default: now.
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    at: Option<Timestamp>,
}

impl Sum {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let request = SumBalancesRequest {
            account_id_prefix: self.filters.prefix,
            currency_code: self.filters.currency,
            state: self.filters.state.unwrap_or_default().into(),
            labels: self.filters.labels.map()?,
            at_time: self.at,
        };
        let send = async |request| server.accounts().sum_balances(request).await;
        let response = server.call(CallKind::Read, request, send).await?;
        Rows::all(server.format()).print(&response.sums)
    }
}
