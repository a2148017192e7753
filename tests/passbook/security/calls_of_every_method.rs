//! A valid call of every method of the contract, for the authorization matrix.

use std::sync::atomic::{AtomicUsize, Ordering};

use passbook::proto::admin_service_client::AdminServiceClient;
use prost::Message;
use tonic::transport::Channel;

use crate::harness::{credentials::Credential, *};

/// The accounts that one policy names one by one.
pub const EXACT: &str = "exact:";
/// Marks a method whose request is sent in a stream.
pub const IN_A_STREAM: &str = " in a stream";
/// The methods whose requests a stream takes.
const STREAMED: [&str; 9] = [
    "Deposit",
    "Withdraw",
    "Transfer",
    "PostTransaction",
    "ReverseTransaction",
    "PlaceHold",
    "UpdateHold",
    "CaptureHold",
    "ReleaseHold",
];

/// Marks a method whose request is forced.
pub const BY_FORCE: &str = " by force";
/// The methods whose requests can be forced.
const FORCED: [&str; 4] = ["Withdraw", "Transfer", "PostTransaction", "ReverseTransaction"];

/// The existing resources that an RPC is called on.
pub struct Target {
    pub account_id: String,
    second_account_id: String,
    empty_account_id: String,
    new_account_id: String,
    hold_id: String,
    transaction_id: String,
}

/// All methods of the contract, and those whose requests a stream takes or that can be forced. A new one
/// needs a call below.
pub fn methods() -> Vec<(String, String)> {
    let files = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("our own");
    let files = files.file.into_iter().filter(|file| file.package() == "passbook.v1");
    let services = files.flat_map(|file| file.service);
    let methods = services.flat_map(|service| {
        let name = service.name().to_owned();
        service.method.into_iter().map(move |method| (name.clone(), method.name().to_owned()))
    });
    let streamed = STREAMED.map(|method| format!("{method}{IN_A_STREAM}"));
    let forced = FORCED.map(|method| format!("{method}{BY_FORCE}"));
    let both = FORCED.map(|method| format!("{method}{BY_FORCE}{IN_A_STREAM}"));
    let changes = streamed.into_iter().chain(forced).chain(both);
    methods.chain(changes.map(|method| ("AccountService".to_owned(), method))).collect()
}

pub async fn target(client: &Client, prefix: &str) -> Target {
    static EXACT_COUNT: AtomicUsize = AtomicUsize::new(0);
    let id = || match prefix {
        EXACT => format!("{EXACT}{}", EXACT_COUNT.fetch_add(1, Ordering::Relaxed)),
        _ => format!("{prefix}{}", &new_request_id()[14..]),
    };
    let target = Target {
        account_id: id(),
        second_account_id: id(),
        empty_account_id: id(),
        new_account_id: id(),
        hold_id: new_request_id(),
        transaction_id: String::new(),
    };
    open_all(client, &[&target.account_id, &target.second_account_id, &target.empty_account_id])
        .await;
    deposited(client, &target.account_id, "50").await;
    let transaction_id = deposited(client, &target.account_id, "100").await.transaction_id;
    let hold = hold_named(&target.hold_id, &target.account_id, "5");
    let hold_id = place(client, hold).await.hold_id;
    Target { hold_id, transaction_id, ..target }
}

pub async fn call_admin(
    channel: Channel,
    credential: Credential,
    method: &str,
) -> Result<(), Status> {
    let mut client = AdminServiceClient::with_interceptor(channel, credential);
    match method {
        "GetWritePathStats" => {
            client.get_write_path_stats(GetWritePathStatsRequest {}).await.map(drop)
        }
        "ListContendedAccounts" => {
            let request = ListContendedAccountsRequest::default();
            client.list_contended_accounts(request).await.map(drop)
        }
        _ => panic!("there is no call of AdminService/{method} in this test"),
    }
}

/// Calls a method with a valid request for the target.
pub async fn call(client: Client, method: &str, target: &Target) -> Result<(), Status> {
    let id = target.account_id.as_str();
    let state = async |id, state| set_state(&client, id, state, "a test", None).await.map(drop);
    match method {
        "CreateAccount" => {
            client.create_account(account_of(&target.new_account_id, "USD")).await.map(drop)
        }
        "BatchCreateAccounts" => {
            let requests = vec![account_of(&target.new_account_id, "USD")];
            let batch = BatchCreateAccountsRequest { requests };
            let mut results = client.batch_create_accounts(batch).await?.results;
            match results.pop().and_then(|result| result.result) {
                Some(create_account_result::Result::Error(error)) => Err(status_of(&error)),
                _ => Ok(()),
            }
        }
        "UpdateAccount" => {
            let update_mask = mask(&["labels"]);
            let request = UpdateAccountRequest { update_mask, ..update_of(id) };
            client.update_account(request).await.map(drop)
        }
        "FreezeAccount" => state(id, AccountState::Frozen).await,
        "UnfreezeAccount" => state(id, AccountState::Open).await,
        "CloseAccount" => state(&target.empty_account_id, AccountState::Closed).await,
        _ => match change(method, target) {
            Some(change) => change.send(&client, PATIENCE).await.map(drop),
            None => call_a_reading_method(client, method, target).await,
        },
    }
}

/// A valid request of a method that takes a `request_id`, or of one in a stream.
fn change(method: &str, target: &Target) -> Option<Change> {
    if let Some(method) = method.strip_suffix(IN_A_STREAM) {
        return change(method, target).map(Change::in_stream);
    }
    if let Some(method) = method.strip_suffix(BY_FORCE) {
        return change(method, target).map(forced);
    }
    let (id, posting) = (target.account_id.as_str(), posting(&[(&target.account_id, "1")]));
    let change = match method {
        "Deposit" => deposit(id, "1").into(),
        "Withdraw" => withdrawal(id, "1").into(),
        "Transfer" => transfer(id, &target.second_account_id, "1").into(),
        "PostTransaction" => posting.into(),
        "BatchPostTransactions" => Change::PostInBatch(posting),
        "StreamTransactions" => Change::PostInStream(posting),
        "PlaceHold" => hold(id, "1").into(),
        "UpdateHold" => hold_update(&target.hold_id, "6").into(),
        "CaptureHold" => capture(&target.hold_id).into(),
        "ReleaseHold" => release(&target.hold_id).into(),
        "ReverseTransaction" => reversal(&target.transaction_id).into(),
        _ => return None,
    };
    Some(change)
}

fn forced(change: Change) -> Change {
    let force = true;
    match change {
        Change::Withdraw(it) => WithdrawRequest { force, ..it }.into(),
        Change::Transfer(it) => TransferRequest { force, ..it }.into(),
        Change::Post(it) => {
            let legs = vec![leg(&it.legs[0].account_id, "-1")];
            PostTransactionRequest { force, legs, ..it }.into()
        }
        Change::Reverse(it) => ReverseTransactionRequest { force, ..it }.into(),
        other => panic!("cannot be forced: {other:?}"),
    }
}

async fn call_a_reading_method(
    client: Client,
    method: &str,
    target: &Target,
) -> Result<(), Status> {
    let id = target.account_id.as_str();
    let account_id = id.to_owned();
    match method {
        "GetAccount" => client.get_account(GetAccountRequest { account_id }).await.map(drop),
        "BatchGetAccounts" => {
            let account_ids = vec![account_id, target.second_account_id.clone()];
            client.batch_get_accounts(BatchGetAccountsRequest { account_ids }).await.map(drop)
        }
        "ListAccounts" => client.list_accounts(ListAccountsRequest::default()).await.map(drop),
        "SumBalances" => client.sum_balances(SumBalancesRequest::default()).await.map(drop),
        "ListAccountChanges" => client.list_account_changes(changes_of(id)).await.map(drop),
        "GetHold" => {
            let hold_id = target.hold_id.clone();
            client.get_hold(GetHoldRequest { hold_id }).await.map(drop)
        }
        "ListHolds" => client.list_holds(holds_of(id)).await.map(drop),
        "GetTransaction" => {
            client.get_transaction(transaction_by_id(&target.transaction_id)).await.map(drop)
        }
        "ListTransactions" => {
            let time_basis = TimeBasis::EffectiveTime.into();
            let dated = ListTransactionsRequest { time_basis, ..transactions_of(id) };
            let dated = client.list_transactions(dated).await;
            alike(client.list_transactions(transactions_of(id)).await, dated)
        }
        "ListEntries" => {
            let time_basis = TimeBasis::EffectiveTime.into();
            let dated = ListEntriesRequest { time_basis, ..entries_of(id) };
            alike(client.list_entries(entries_of(id)).await, client.list_entries(dated).await)
        }
        "GetBalance" => {
            let request = GetBalanceRequest { account_id, ..Default::default() };
            let (at_time, time_basis) = (Some(timestamp(0)), TimeBasis::EffectiveTime.into());
            let dated = GetBalanceRequest { at_time, time_basis, ..request.clone() };
            alike(client.get_balance(request).await, client.get_balance(dated).await)
        }
        "WatchEntries" => client.watch_entries(watch(id, 0)).await.map(drop),
        "WatchEvents" => client.watch_events(all_events()).await.map(drop),
        "GetRequestOutcome" => {
            let request = GetRequestOutcomeRequest { request_id: new_request_id() };
            client.get_request_outcome(request).await.map(drop)
        }
        "FenceRequest" => {
            let request = FenceRequestRequest { request_id: new_request_id() };
            client.fence_request(request).await.map(drop)
        }
        "VerifyAccount" => {
            client.verify_account(VerifyAccountRequest { account_id }).await.map(drop)
        }
        _ => panic!("there is no call of {method} in this test"),
    }
}

/// The result of two calls that need the same rights.
fn alike<T>(left: Result<T, Status>, right: Result<T, Status>) -> Result<(), Status> {
    let message = |result: &Result<T, Status>| {
        result.as_ref().err().map(|status| (status.code(), status.message().to_owned()))
    };
    assert_eq!(message(&left), message(&right));
    left.map(drop)
}
