//! Fingerprints of requests: whether a repeat has the body of the first.

use sha2::{Digest, Sha256};

use crate::domain::{
    command::{Action, Leg, Request, Reversal},
    hold::{Capture, HoldUpdate, NewExpiry, NewHold},
    money::{Amount, Currency},
};

/// The bytes of a request's fingerprint. For 128 bits of SHA-256, another body under the same request
/// id has the same fingerprint once in 2^128 attempts. Two such bodies can be found in 2^64 attempts, by
/// the caller who sends both, and who then gets the result of the first for the second.
pub const FINGERPRINT_LENGTH: usize = 16;

impl Request {
    /// The first 128 bits of SHA-256 over the body of the request: it distinguishes a retry from
    /// another request under the same id. Fields are length-prefixed and named, and those at their
    /// default are left out, so that a field added later does not change the fingerprints of old
    /// requests.
    /// `validate_only` is not part of it: a dry run and the real one are the same request.
    pub fn fingerprint(&self) -> [u8; FINGERPRINT_LENGTH] {
        let mut body = Fingerprint(Sha256::new());
        body.field("kind", self.action.name());
        match &self.action {
            Action::Post(_, legs) => legs.iter().for_each(|leg| body.leg(leg)),
            Action::PlaceHold(new) => body.new_hold(new),
            Action::UpdateHold(update) => body.hold_update(update),
            Action::CaptureHold(capture) => body.capture(capture),
            Action::ReleaseHold(hold) => body.field("hold_id", hold.hold_id.as_str()),
            Action::Reverse(reversal) => body.reversal(reversal),
            Action::Fence => {}
        }
        if self.force {
            body.field("force", "true");
        }
        if self.require_balanced {
            body.field("require_balanced", "true");
        }
        if let Some(effective_time_us) = self.effective_time_us {
            body.field("effective_time_us", &effective_time_us.to_string());
        }
        if !self.description.is_empty() {
            body.field("description", &self.description);
        }
        for (key, value) in &self.labels {
            body.field("label", key);
            body.field("value", value);
        }
        let mut fingerprint = [0; FINGERPRINT_LENGTH];
        fingerprint.copy_from_slice(&body.0.finalize()[..FINGERPRINT_LENGTH]);
        fingerprint
    }
}

struct Fingerprint(Sha256);

impl Fingerprint {
    fn field(&mut self, name: &str, value: &str) {
        for part in [name, value] {
            self.0.update((part.len() as u64).to_be_bytes());
            self.0.update(part.as_bytes());
        }
    }

    fn amount(&mut self, currency: &Currency, amount: Amount) {
        self.field("currency_code", currency.code());
        self.field("amount", &amount.shortest().to_string());
    }

    fn leg(&mut self, leg: &Leg) {
        self.field("account_id", leg.account_id.as_str());
        self.amount(&leg.currency, leg.amount);
        if let Some(version) = leg.condition.expected_version {
            self.field("expected_version", &version.to_string());
        }
        if let Some(amount) = leg.condition.min_balance_after {
            self.field("min_balance_after", &amount.shortest().to_string());
        }
        if let Some(amount) = leg.condition.max_balance_after {
            self.field("max_balance_after", &amount.shortest().to_string());
        }
    }

    fn new_hold(&mut self, new: &NewHold) {
        if let Some(hold_id) = &new.hold_id {
            self.field("hold_id", hold_id.as_str());
        }
        self.field("account_id", new.account_id.as_str());
        self.amount(&new.currency, new.amount);
        if let Some(expire_time_us) = new.expire_time_us {
            self.field("expire_time_us", &expire_time_us.to_string());
        }
    }

    fn reversal(&mut self, reversal: &Reversal) {
        self.field("transaction_id", &reversal.transaction.transaction_id.to_string());
        if let Some((currency, amount)) = &reversal.amount {
            self.amount(currency, *amount);
        }
    }

    fn capture(&mut self, capture: &Capture) {
        self.field("hold_id", capture.hold.hold_id.as_str());
        if let Some((currency, amount)) = &capture.amount {
            self.amount(currency, *amount);
        }
        if let Some(account_id) = &capture.destination_account_id {
            self.field("destination_account_id", account_id.as_str());
        }
        if capture.keep_open {
            self.field("keep_open", "true");
        }
        if capture.allow_excess {
            self.field("allow_excess", "true");
        }
    }

    fn hold_update(&mut self, update: &HoldUpdate) {
        self.field("hold_id", update.hold.hold_id.as_str());
        if let Some((currency, amount)) = &update.amount {
            self.amount(currency, *amount);
        }
        match update.expiry {
            None => {}
            Some(NewExpiry::Never) => self.field("expire_time_us", "never"),
            Some(NewExpiry::At(time_us)) => self.field("expire_time_us", &time_us.to_string()),
        }
    }
}
