//! Keeps responses below the size that clients accept by default. Lists are cut by
//! [`crate::grpc::page`]; a response that cannot be cut is rejected here.

use prost::Message;
use tonic::Status;
use tonic_types::pb;

use crate::{
    domain::{
        account::Account,
        text::{LABELS_MAX, LABELS_SIZE_MAX},
    },
    grpc::{encode::accounts, error},
    proto::{
        self, CreateAccountResult, PostTransactionResult, create_account_result,
        post_transaction_result,
    },
};

/// The largest list in a response, in bytes: the 4 MiB that gRPC clients accept by default, less
/// room for the fields beside the list.
pub const RESPONSE_SIZE_MAX: usize = (4 * 1024 - 64) * 1024;

/// The size of a message in a list: with the field's tag, and its length in at most four bytes.
pub fn size_in_list(message: &impl Message) -> usize {
    message.encoded_len() + 5
}

/// Encodes all accounts, or rejects the call: a caller could not see which ones a cut list lacks. None:
/// there are too many to read them.
pub fn accounts(accounts: Option<Vec<Account>>) -> Result<Vec<proto::Account>, Status> {
    let accounts: Option<Vec<_>> =
        accounts.map(|accounts| accounts.into_iter().map(accounts::account).collect());
    let fits = |it: &Vec<_>| it.iter().map(size_in_list).sum::<usize>() <= RESPONSE_SIZE_MAX;
    accounts.filter(fits).ok_or_else(|| {
        let message = format!(
            "the accounts have more than {RESPONSE_SIZE_MAX} bytes, which do not fit into one response: \
             ask for fewer"
        );
        error::response_too_large(RESPONSE_SIZE_MAX as u32, message).into()
    })
}

/// The most bytes of an entry that are not in its leg: sequence and hash, two ids, the balance, and
/// all decimals of a currency.
const ENTRY_SIZE_MORE: usize = 200;
/// The most bytes of a result that are not in its request, or of a shortened error.
const RESULT_SIZE_MORE: usize = 1024;

/// The most bytes of the results of a batch, where each may have some entries. Rejects a batch whose
/// results may not fit into one response, before any request is applied. With the default of
/// `message_size_max` they always fit.
pub fn check_room<M: Message>(
    requests: &[M],
    entries_of: impl Fn(&M) -> usize,
) -> Result<usize, Status> {
    let size_of = |it: &M| it.encoded_len() + entries_of(it) * ENTRY_SIZE_MORE + RESULT_SIZE_MORE;
    let size: usize = requests.iter().map(size_of).sum();
    if size > RESPONSE_SIZE_MAX {
        let message = format!(
            "the results of {} requests could have {size} bytes; at most {RESPONSE_SIZE_MAX} fit into \
             one response: send fewer at a time",
            requests.len()
        );
        return Err(error::request_too_large("response_size", RESPONSE_SIZE_MAX as u32, message));
    }
    Ok(size)
}

/// The most bytes of an account: its labels, each with three tags and lengths, and the rest.
const ACCOUNT_SIZE_MAX: usize = LABELS_SIZE_MAX + LABELS_MAX * 8 + RESULT_SIZE_MORE;

/// The most bytes of a response with so many accounts that exist already: their labels may have grown.
pub fn of_existing_accounts(count: usize) -> usize {
    count.saturating_mul(ACCOUNT_SIZE_MAX).min(RESPONSE_SIZE_MAX)
}

/// Makes the results of a batch fit into one response. [`check_room`] has bounded the applied
/// requests.
pub fn fit_postings(results: &mut [PostTransactionResult]) {
    if exceeds_response(results) {
        let errors = results.iter_mut().filter_map(|it| match &mut it.result {
            Some(post_transaction_result::Result::Error(error)) => Some(error),
            _ => None,
        });
        errors.for_each(shorten);
    }
}

/// Makes the results of a batch fit into one response. [`check_room`] has bounded the new accounts. An
/// existing one may have grown since it was opened: if it does not fit, its result is an error.
pub fn fit_accounts(results: &mut [CreateAccountResult]) {
    if exceeds_response(results) {
        let errors = results.iter_mut().filter_map(|it| match &mut it.result {
            Some(create_account_result::Result::Error(error)) => Some(error),
            _ => None,
        });
        errors.for_each(shorten);
    }
    if !exceeds_response(results) {
        return;
    }
    // Each result may become an error.
    let mut room = RESPONSE_SIZE_MAX.saturating_sub(results.len() * RESULT_SIZE_MORE);
    for result in results {
        let Some(create_account_result::Result::Account(account)) = &result.result else {
            continue;
        };
        let size = size_in_list(account);
        if size <= room {
            room -= size;
            continue;
        }
        let message = format!(
            "account {} exists, but does not fit into the response: read it alone",
            account.account_id
        );
        let error = error::response_too_large(RESPONSE_SIZE_MAX as u32, message);
        result.result = Some(create_account_result::Result::Error(error.into_proto()));
    }
}

fn exceeds_response(results: &[impl Message]) -> bool {
    results.iter().map(size_in_list).sum::<usize>() > RESPONSE_SIZE_MAX
}

/// Shortens an error to its first detail, which has the reason.
fn shorten(error: &mut pb::Status) {
    error.details.truncate(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::WatchEntriesResponse;

    /// The largest values: ids of 64 characters, currencies of 12, amounts of 28 digits.
    fn money(value: &str) -> Option<proto::Money> {
        Some(proto::Money { currency_code: "C".repeat(12), value: value.to_owned() })
    }

    fn largest_entry() -> proto::Entry {
        let largest = format!("-{}.{}", "9", "9".repeat(27));
        proto::Entry {
            account_id: "a".repeat(64),
            sequence: i64::MAX,
            transaction_id: uuid::Uuid::max().to_string(),
            amount: money(&largest),
            balance_after: money(&largest),
            create_time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 999_999_999 }),
            effective_time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 999_999_999 }),
            hash: vec![255; 32],
        }
    }

    #[test]
    fn an_entry_has_no_more_than_is_allowed_for_beside_its_leg() {
        let leg =
            proto::Leg { account_id: "a".repeat(64), amount: money("1"), ..proto::Leg::default() };
        let (entry, leg) = (size_in_list(&largest_entry()), leg.encoded_len());
        assert!(entry <= leg + ENTRY_SIZE_MORE, "{entry} bytes, {leg} sent");
    }

    #[test]
    fn a_thousand_entries_always_fit() {
        let message = WatchEntriesResponse::new(vec![largest_entry(); 1000], i64::MAX);
        assert!(message.encoded_len() < RESPONSE_SIZE_MAX / 4, "{}", message.encoded_len());
    }

    #[test]
    fn errors_that_are_too_many_keep_their_reasons_only() {
        let detail = |length| prost_types::Any { value: vec![7; length], ..Default::default() };
        let error = pb::Status { details: vec![detail(400), detail(5000)], ..Default::default() };
        let result = Some(proto::post_transaction_result::Result::Error(error));
        let result = proto::PostTransactionResult { result, replayed: false };
        let mut few = vec![result.clone(); 10];
        fit_postings(&mut few);
        assert_eq!(few, vec![result.clone(); 10]);
        let mut many = vec![result; 1000];
        fit_postings(&mut many);
        assert!(many.iter().map(size_in_list).sum::<usize>() < RESPONSE_SIZE_MAX / 4);
        let Some(proto::post_transaction_result::Result::Error(error)) = &many[0].result else {
            panic!("{:?}", many[0]);
        };
        assert_eq!(error.details, [detail(400)]);
    }

    #[test]
    fn accounts_that_have_grown_are_left_out_where_they_do_not_fit() {
        let labels = [("key".to_owned(), "x".repeat(10_000))].into();
        let account = proto::Account { labels, ..Default::default() };
        let result = Some(create_account_result::Result::Account(account));
        let mut results = vec![CreateAccountResult { result }; 1000];
        fit_accounts(&mut results);
        assert!(!exceeds_response(&results));
        let is_account = |it: &CreateAccountResult| {
            matches!(it.result, Some(create_account_result::Result::Account(_)))
        };
        let count = results.iter().filter(|it| is_account(it)).count();
        assert!((250..500).contains(&count), "{count} accounts fit");
        assert!(is_account(&results[0]) && !is_account(&results[999]));
    }

    #[test]
    fn the_largest_batch_there_can_be_by_default_fits() {
        let legs = vec![proto::Leg { account_id: "a".repeat(64), ..Default::default() }; 5];
        let request = proto::PostTransactionRequest { legs, ..Default::default() };
        let mut requests = vec![request; 1000];
        let left = 1024 * 1024 - requests.iter().map(size_in_list).sum::<usize>();
        requests[0].description = "x".repeat(left);
        assert!(check_room(&requests, |it| it.legs.len()).is_ok());
        requests[0].description = "x".repeat(2 * RESPONSE_SIZE_MAX);
        assert!(check_room(&requests, |it| it.legs.len()).is_err());
    }
}
