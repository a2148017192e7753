//! Answers that stock clients take: lists are cut, and what cannot be cut is refused.

use prost::Message;
use tonic::Status;

use crate::{
    domain::account::Account,
    grpc::{encode, status},
    proto,
};

/// What the list in an answer may have, in bytes: below the 4 MiB that gRPC's clients take, unless
/// they are told otherwise, with room for what is beside it.
pub const RESPONSE_SIZE_MAX: usize = (4 * 1024 - 64) * 1024;

/// What a message takes in a list: with the field's tag, and its length in at most four bytes.
pub fn size_in_list(message: &impl Message) -> usize {
    message.encoded_len() + 5
}

/// All of them, or none: nobody would know which are left out.
pub fn accounts(accounts: Vec<Account>) -> Result<Vec<proto::Account>, Status> {
    let count = accounts.len();
    let accounts: Vec<_> = accounts.into_iter().map(encode::account).collect();
    let size: usize = accounts.iter().map(size_in_list).sum();
    if size > RESPONSE_SIZE_MAX {
        let message = format!(
            "{count} accounts have {size} bytes; at most {RESPONSE_SIZE_MAX} fit into one answer: ask \
             for fewer"
        );
        return Err(status::response_too_large(RESPONSE_SIZE_MAX as u32, message));
    }
    Ok(accounts)
}

/// What an entry has that was not sent with its leg, in bytes, at most: its sequence and hash, two
/// ids, the balance, and all decimals of a currency.
const ENTRY_SIZE_MORE: usize = 200;
/// The same of a result and its request, or of an error in short.
const RESULT_SIZE_MORE: usize = 1024;

/// These requests, if their results fit into one answer, which must be known before they are
/// applied. They always do within the default of `message_size_max`.
pub fn check_room(
    requests: Vec<proto::PostTransactionRequest>,
) -> Result<Vec<proto::PostTransactionRequest>, Status> {
    let size_of = |it: &proto::PostTransactionRequest| {
        it.encoded_len() + it.legs.len() * ENTRY_SIZE_MORE + RESULT_SIZE_MORE
    };
    let size: usize = requests.iter().map(size_of).sum();
    if size > RESPONSE_SIZE_MAX {
        let message = format!(
            "the results of {} requests could have {size} bytes; at most {RESPONSE_SIZE_MAX} fit into \
             one answer: send fewer at a time",
            requests.len()
        );
        return Err(status::request_too_large("response_size", RESPONSE_SIZE_MAX as u32, message));
    }
    Ok(requests)
}

/// Makes the results of a batch fit into one answer. What was applied is bounded by what was sent
/// (see [`check_room`]); of what was refused, only the first detail, which has the reason, must be
/// told.
pub fn shorten(results: &mut [proto::PostTransactionResult]) {
    if results.iter().map(size_in_list).sum::<usize>() <= RESPONSE_SIZE_MAX {
        return;
    }
    for result in results {
        if let Some(proto::post_transaction_result::Result::Error(error)) = &mut result.result {
            error.details.truncate(1);
        }
    }
}
