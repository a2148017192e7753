//! What the values of an export must be beyond the types of their columns: what a server reads.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value as Json;

use crate::{
    domain::{
        account::{COUNT_MAX, Labels},
        fingerprint::FINGERPRINT_LENGTH,
        ids::{AccountId, HoldId, IDENTITY_LENGTH_MAX, IdError, Identity, RequestId},
        money::{CurrencyError, SCALE_MAX, is_currency_code},
        rejection::Rejection,
        text::{
            LABEL_KEY_LENGTH_MAX, LABEL_VALUE_LENGTH_MAX, LABELS_MAX, TEXT_LENGTH_MAX,
            are_stored_labels, is_stored_text,
        },
    },
    storage::{
        archive::fields::EntryName,
        entity::{
            account_changes::StoredAttributes, accounts::StoredOpening, commits::OtherEvents,
            details::StoredDetails, holds::StoredTerms,
        },
    },
};

/// The hexadecimal digits of a UUID.
const UUID_DIGITS: usize = 32;
/// The bytes of a SHA-256, as hexadecimal digits.
const SHA_256_DIGITS: usize = 64;
/// Those of a fingerprint, which are the first half of a SHA-256.
const FINGERPRINT_DIGITS: usize = 2 * FINGERPRINT_LENGTH;

/// Checks the value of a column, which has the column's type and is not null.
///
/// # Errors
/// What is wrong, as the rest of a sentence about the column.
pub fn check(column: &str, json: &Json) -> Result<(), String> {
    let text = json.as_str().unwrap_or_default();
    let must_be = |what: &str| Err(format!("must be {what}"));
    let id = |parsed: Result<(), IdError>| parsed.map_err(|error| error.to_string());
    match column {
        "account_id" => id(AccountId::parse(text).map(drop)),
        "hold_id" => id(HoldId::parse(text).map(drop)),
        "request_id" => id(RequestId::parse(text).map(drop)),
        "currency_code" if !is_currency_code(text) => Err(CurrencyError::Malformed.to_string()),
        "currency_scale" if !(0..=i64::from(SCALE_MAX)).contains(&json.as_i64().unwrap_or(-1)) => {
            Err(format!("must be from 0 to {SCALE_MAX}"))
        }
        "sequence" if !(0..=COUNT_MAX).contains(&json.as_i64().unwrap_or(-1)) => {
            Err(format!("must be from 0 to {COUNT_MAX}"))
        }
        "version" if !(1..=COUNT_MAX).contains(&json.as_i64().unwrap_or(-1)) => {
            Err(format!("must be from 1 to {COUNT_MAX}"))
        }
        "fingerprint" if ![FINGERPRINT_DIGITS, SHA_256_DIGITS].contains(&text.len()) => {
            Err(format!("must be {FINGERPRINT_DIGITS} or {SHA_256_DIGITS} hexadecimal digits"))
        }
        "transaction_ids" if !text.len().is_multiple_of(UUID_DIGITS) => {
            must_be("ids of 32 hexadecimal digits each")
        }
        "other_events" if serde_json::from_str::<OtherEvents>(text).is_err() => {
            must_be("events, as JSON in a string")
        }
        "hash" | "last_hash" if text.len() != SHA_256_DIGITS => {
            Err(format!("must be {SHA_256_DIGITS} hexadecimal digits"))
        }
        "caller" | "end_caller" if !Identity::is_stored(text) => must_be(&format!(
            "empty or an identity: at most {IDENTITY_LENGTH_MAX} printable ASCII characters \
             without spaces"
        )),
        "description" | "reason" if !is_stored_text(text) => must_be(&format!(
            "a text of at most {TEXT_LENGTH_MAX} bytes, without control characters"
        )),
        "labels" => match Labels::deserialize(json) {
            Ok(labels) if are_stored_labels(&labels) => Ok(()),
            Ok(_) => must_be(&label_rule()),
            Err(_) => must_be("an object of strings"),
        },
        "entry_names" if !is::<Vec<EntryName>>(json) => {
            must_be("a list of account ids and sequences")
        }
        "attributes_before" | "attributes_after" => match StoredAttributes::deserialize(json) {
            Ok(attributes) if are_stored_labels(&attributes.labels) => Ok(()),
            Ok(_) => Err(format!("its labels must be {}", label_rule())),
            Err(_) => must_be("the attributes of an account"),
        },
        "opening_attributes" => match StoredOpening::deserialize(json) {
            Ok(opening) if are_stored_labels(&opening.labels) => Ok(()),
            Ok(_) => Err(format!("its labels must be {}", label_rule())),
            Err(_) => must_be("the attributes of an account at its opening"),
        },
        "placed" if !is::<StoredTerms>(json) => must_be("an amount and an expire time"),
        "details" if !is::<StoredDetails>(json) => must_be("the details of a request"),
        "rejection" if serde_json::from_str::<Rejection>(text).is_err() => {
            must_be("a rejection, as JSON in a string")
        }
        _ => Ok(()),
    }
}

/// What labels must be.
fn label_rule() -> String {
    format!(
        "at most {LABELS_MAX}, with keys of 1-{LABEL_KEY_LENGTH_MAX} characters of [A-Za-z0-9._/-] and \
         values of at most {LABEL_VALUE_LENGTH_MAX} bytes, without control characters"
    )
}

fn is<T: DeserializeOwned>(json: &Json) -> bool {
    T::deserialize(json).is_ok()
}
