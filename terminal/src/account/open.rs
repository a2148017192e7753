//! `passbook account open`: opens one account, or many.

use clap::Args;
use passbook_command::{
    CliError,
    proto::{
        BatchCreateAccountsRequest, CreateAccountRequest, create_account_result::Result as Opening,
    },
    table::Table,
};

use crate::{
    account::print,
    arguments::{Labels, money, new_id},
    server::{CallError, CallKind, Server},
    view::{OPENING_COLUMNS, opening_cells},
};

/// The most accounts of one call.
const BATCH_MAX: usize = 1000;

#[derive(Args)]
pub struct Open {
    /// The ids of the accounts: 1-64 characters of [A-Za-z0-9._:-]. Default: a new UUID, which is
    /// printed to standard error before the account is opened.
    #[arg(value_name = "ACCOUNT_ID")]
    account_ids: Vec<String>,

    /// The currency of the accounts, such as USD. Never changes.
    #[arg(long, value_name = "CURRENCY")]
    currency: String,

    /// How far below zero each balance may go. Default: zero.
    #[arg(
        long,
        value_name = "AMOUNT",
        conflicts_with = "unlimited_overdraft",
        allow_negative_numbers = true
    )]
    overdraft_limit: Option<String>,

    /// Let the balances go below zero without a limit.
    #[arg(long)]
    unlimited_overdraft: bool,

    #[command(flatten)]
    labels: Labels,
}

impl Open {
    pub async fn run(self, server: &Server) -> Result<(), CliError> {
        let attributes = CreateAccountRequest {
            account_id: String::new(),
            overdraft_limit: self.overdraft_limit.map(|limit| money(&limit, &self.currency)),
            currency_code: self.currency,
            unlimited_overdraft: self.unlimited_overdraft,
            labels: self.labels.map()?,
        };
        let request = |account_id| CreateAccountRequest { account_id, ..attributes.clone() };
        match self.account_ids.as_slice() {
            [] => {
                // A repeat without an id would open a second account.
                let account_id = new_id();
                server.format().announce("account_id", "accountId", &account_id);
                open_one(server, CallKind::Opening(Some(&account_id)), request(account_id.clone()))
                    .await
            }
            [account_id] => {
                open_one(server, CallKind::Opening(None), request(account_id.clone())).await
            }
            account_ids => {
                open_many(server, account_ids.iter().cloned().map(request).collect()).await
            }
        }
    }
}

async fn open_one(
    server: &Server,
    kind: CallKind<'_>,
    request: CreateAccountRequest,
) -> Result<(), CliError> {
    let send = async |request| server.accounts().create_account(request).await;
    let response = server.call(kind, request, send).await?;
    print(server, response.account)
}

/// Prints a result for each account, and then reports the first error among them.
async fn open_many(server: &Server, requests: Vec<CreateAccountRequest>) -> Result<(), CliError> {
    let mut table = Table::new(OPENING_COLUMNS);
    let mut first_error = None;
    for requests in requests.chunks(BATCH_MAX) {
        let request = BatchCreateAccountsRequest { requests: requests.to_vec() };
        let send = async |request| server.accounts().batch_create_accounts(request).await;
        let results = server.call(CallKind::Opening(None), request, send).await?.results;
        server.format().print_part(&results, || {
            let rows = requests.iter().zip(&results);
            let rows = rows.map(|(request, result)| opening_cells(&request.account_id, result));
            table.part(&rows.collect::<Vec<_>>())
        })?;
        let error = results.into_iter().find_map(|it| match it.result {
            Some(Opening::Error(error)) => Some(CallError::of_result(&error)),
            _ => None,
        });
        first_error = first_error.or(error);
    }
    first_error.map_or(Ok(()), |error| Err(server.fail(CallKind::Opening(None), &error)))
}
