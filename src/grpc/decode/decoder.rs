//! Reads the fields of one request, and collects the violations.

use std::{cmp::Ordering, collections::BTreeSet, fmt};

use uuid::Uuid;

use crate::{
    domain::{
        account::Labels,
        command::{Action, Condition, Request},
        effective_time::TIMES_US,
        ids::{AccountId, HoldId, Identity, RequestId, RequestKey, TransactionId},
        money::{Amount, AmountError, Currencies, Currency},
        text::{
            LABEL_KEY_LENGTH_MAX, LABEL_VALUE_LENGTH_MAX, LABELS_MAX, TEXT_LENGTH_MAX,
            is_invisible, is_label_key, is_label_value,
        },
    },
    grpc::{
        decode::BATCH_MAX,
        error::invalid::{Invalid, Violation},
    },
    proto::{self, ErrorReason},
};

/// The amounts that a field allows.
#[derive(Clone, Copy)]
pub enum Sign {
    Any,
    NotNegative,
    Positive,
    NotZero,
}

impl Sign {
    /// The rule that an amount breaks, by its comparison with zero.
    fn broken_rule(self, to_zero: Ordering) -> Option<&'static str> {
        match (self, to_zero) {
            (Self::NotNegative, Ordering::Less) => Some("must not be negative"),
            (Self::Positive, Ordering::Less | Ordering::Equal) => Some("must be above zero"),
            (Self::NotZero, Ordering::Equal) => Some("must not be zero"),
            _ => None,
        }
    }
}

/// Reads the fields of one request. A method that reads a field returns None, and adds a violation,
/// if the field is invalid.
pub struct Decoder<'a> {
    pub currencies: &'a Currencies,
    /// The identity under which requests of the caller are recorded.
    pub caller: &'a Identity,
    violations: Vec<Violation>,
}

impl<'a> Decoder<'a> {
    /// Decodes a request with `read`, which returns None only after a violation.
    pub fn decode<T, D>(
        currencies: &'a Currencies,
        caller: &'a Identity,
        request: T,
        read: impl FnOnce(&mut Decoder<'_>, T) -> Option<D>,
    ) -> Result<D, Invalid> {
        let mut decoder = Self { currencies, caller, violations: Vec::new() };
        let decoded = read(&mut decoder, request);
        let violations = decoder.violations;
        decoded.filter(|_| violations.is_empty()).ok_or_else(|| Invalid::of(violations))
    }

    /// Adds a violation. `field` is a path, best as `format_args!`, which is formatted only here.
    pub fn report(
        &mut self,
        reason: ErrorReason,
        field: impl fmt::Display,
        description: impl ToString,
    ) {
        self.violations.push(Violation::new(reason, field, description));
    }

    /// The value of a field, if it is valid.
    pub fn check<T, E: ToString>(
        &mut self,
        reason: ErrorReason,
        field: impl fmt::Display,
        value: Result<T, E>,
    ) -> Option<T> {
        value.map_err(|error| self.report(reason, field, error)).ok()
    }

    /// An account id.
    pub fn account_id(&mut self, field: impl fmt::Display, text: &str) -> Option<AccountId> {
        self.check(ErrorReason::InvalidAccountId, field, AccountId::parse(text))
    }

    /// A request id.
    pub fn request_id(&mut self, text: &str) -> Option<RequestId> {
        self.check(ErrorReason::InvalidRequestId, "request_id", RequestId::parse(text))
    }

    /// The name of a new hold.
    pub fn new_hold_id(&mut self, text: &str) -> Option<HoldId> {
        self.check(ErrorReason::InvalidHoldId, "hold_id", HoldId::parse_new(text))
    }

    /// The id of a hold.
    pub fn hold_id(&mut self, text: &str) -> Option<HoldId> {
        self.check(ErrorReason::InvalidHoldId, "hold_id", HoldId::parse(text))
    }

    /// A transaction id.
    pub fn transaction_id(&mut self, text: &str) -> Option<TransactionId> {
        let id = Uuid::try_parse(text).map_err(|_| "must be a UUID");
        self.check(ErrorReason::InvalidTransactionId, "transaction_id", id)
    }

    /// A currency by its code.
    pub fn currency(&mut self, field: impl fmt::Display, code: &str) -> Option<Currency> {
        self.check(ErrorReason::InvalidCurrencyCode, field, self.currencies.get(code))
    }

    /// An amount of this sign; in the `prescribed` currency, if there is one.
    pub fn money(
        &mut self,
        field: impl fmt::Display,
        money: &proto::Money,
        prescribed: Option<&Currency>,
        sign: Sign,
    ) -> Option<(Currency, Amount)> {
        let currency =
            self.currency(format_args!("{field}.currency_code"), &money.currency_code)?;
        if let Some(other) = prescribed.filter(|prescribed| **prescribed != currency) {
            let description = format!("must be {}, as in the rest of the request", other.code());
            let field = format_args!("{field}.currency_code");
            self.report(ErrorReason::InvalidCurrencyCode, field, description);
            return None;
        }
        let parsed = currency.parse(&money.value);
        let to_zero = parsed.as_ref().ok().map(|amount| amount.units().cmp(&0));
        let broken_rule = to_zero.and_then(|to_zero| sign.broken_rule(to_zero));
        if let Some(rule) = broken_rule {
            self.report(ErrorReason::InvalidAmount, format_args!("{field}.value"), rule);
        }
        let error = match parsed {
            Ok(amount) => return broken_rule.is_none().then_some((currency, amount)),
            Err(error) => error,
        };
        let reason = match error {
            AmountError::Malformed | AmountError::TooManyDecimals { .. } => {
                ErrorReason::InvalidAmount
            }
            AmountError::OutOfRange { .. } => ErrorReason::BalanceOutOfRange,
        };
        let mut violation = Violation::new(reason, format_args!("{field}.value"), &error);
        if let AmountError::OutOfRange { limit } = error {
            violation.limit = Some(limit);
        }
        self.violations.push(violation);
        None
    }

    /// A required amount of this sign, in any currency.
    pub fn amount(
        &mut self,
        field: impl fmt::Display,
        money: Option<&proto::Money>,
        sign: Sign,
    ) -> Option<(Currency, Amount)> {
        let Some(money) = money else {
            self.report(ErrorReason::InvalidAmount, field, "is required");
            return None;
        };
        self.money(field, money, None, sign)
    }

    /// A request with this action, and with the fields that most requests have.
    pub fn request(
        &mut self,
        request_id: &str,
        action: Option<Action>,
        description: String,
        labels: Labels,
    ) -> Option<Request> {
        let request_id = self.request_id(request_id);
        self.text(ErrorReason::InvalidDescription, "description", &description);
        self.labels(&labels);
        let key = RequestKey { caller: self.caller.clone(), request_id: request_id? };
        Some(Request { description, labels, ..Request::new(key, Uuid::now_v7(), action?) })
    }

    /// Checks a text for people.
    pub fn text(&mut self, reason: ErrorReason, field: &str, text: &str) {
        if text.len() > TEXT_LENGTH_MAX {
            let description =
                format!("has {} bytes; at most {TEXT_LENGTH_MAX} are allowed", text.len());
            self.report(reason, field, description);
        } else if text.chars().any(is_invisible) {
            let description = "has a control character, a line separator or an invisible character \
                               of formatting: write spaces for line feeds and tabs";
            self.report(reason, field, description);
        }
    }

    /// Checks labels.
    pub fn labels(&mut self, labels: &Labels) {
        let reason = ErrorReason::InvalidLabels;
        if labels.len() > LABELS_MAX {
            let description =
                format!("has {} labels; at most {LABELS_MAX} are allowed", labels.len());
            self.report(reason, "labels", description);
            return;
        }
        for (key, value) in labels {
            if !is_label_key(key) {
                let description = format!(
                    "has a key that is not 1-{LABEL_KEY_LENGTH_MAX} characters of [A-Za-z0-9._/-]"
                );
                self.report(reason, "labels", description);
            } else if !is_label_value(value) {
                let description = format!(
                    "must have at most {LABEL_VALUE_LENGTH_MAX} bytes, without control \
                     characters, line separators and invisible characters of formatting"
                );
                self.report(reason, format_args!("labels[{key}]"), description);
            }
        }
    }

    /// The condition on an account of this currency. Empty if the field is absent.
    pub fn condition(
        &mut self,
        field: impl fmt::Display,
        condition: Option<&proto::Condition>,
        currency: Option<&Currency>,
    ) -> Option<Condition> {
        let Some(condition) = condition else { return Some(Condition::default()) };
        let expected_version = condition.expected_version;
        let version = self.version(format_args!("{field}.expected_version"), expected_version);
        let mut bound = |name: &str, money: &Option<proto::Money>| match money {
            None => Some(None),
            Some(money) => {
                let field = format_args!("{field}.{name}");
                self.money(field, money, currency, Sign::Any).map(|it| Some(it.1))
            }
        };
        let min = bound("min_balance_after", &condition.min_balance_after);
        let max = bound("max_balance_after", &condition.max_balance_after);
        let (min_balance_after, max_balance_after) = (min?, max?);
        if let (Some(min), Some(max)) = (min_balance_after, max_balance_after)
            && min > max
        {
            let field = format_args!("{field}.max_balance_after");
            let description = "must not be below min_balance_after";
            self.report(ErrorReason::InvalidCondition, field, description);
            return None;
        }
        version?;
        Some(Condition { expected_version, min_balance_after, max_balance_after })
    }

    /// The fields to update: those that the mask names, or, without a mask, those that are set. `fields`
    /// are those that can be updated, and whether each is set.
    pub fn update_mask(
        &mut self,
        mask: Option<&prost_types::FieldMask>,
        fields: &[(&'static str, bool)],
    ) -> BTreeSet<&'static str> {
        let paths = mask.map_or(&[][..], |mask| &mask.paths);
        let mut named = BTreeSet::new();
        for (index, path) in paths.iter().enumerate() {
            match fields.iter().find(|(name, _)| *name == path) {
                Some((name, _)) => drop(named.insert(*name)),
                None => {
                    // Without the path itself, which may be long: details travel in a header.
                    let allowed: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
                    let allowed = allowed.join(", ");
                    let description = format!("has paths[{index}], which is not one of {allowed}");
                    self.report(ErrorReason::InvalidUpdateMask, "update_mask", description);
                }
            }
        }
        if paths.is_empty() {
            named.extend(fields.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name));
            if named.is_empty() {
                let description = "is required if no field to update is set";
                self.report(ErrorReason::InvalidUpdateMask, "update_mask", description);
            }
        }
        named
    }

    /// Checks the version that an account must have.
    pub fn version(&mut self, field: impl fmt::Display, version: Option<i64>) -> Option<()> {
        let version =
            if version.is_some_and(|it| it < 1) { Err("must be at least 1") } else { Ok(()) };
        self.check(ErrorReason::InvalidCondition, field, version)
    }

    /// When a transaction takes effect.
    pub fn effective_time(&mut self, time: Option<&prost_types::Timestamp>) -> Option<i64> {
        self.time(ErrorReason::EffectiveTimeOutOfRange, "effective_time", time)
    }

    /// A time in microseconds since the Unix epoch, rounded up. Entries have whole microseconds, so
    /// "at this time or later" and "before this time" both mean the next whole one.
    pub fn time(
        &mut self,
        reason: ErrorReason,
        field: &str,
        time: Option<&prost_types::Timestamp>,
    ) -> Option<i64> {
        let time = time?;
        let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
        let time_us = nanos.and_then(|nanos| {
            let start_us =
                time.seconds.checked_mul(1_000_000).filter(|it| TIMES_US.contains(it))?;
            // The last microsecond of the year 9999 has no next one to round up to.
            Some((start_us + i64::from(nanos.div_ceil(1000))).min(*TIMES_US.end()))
        });
        if time_us.is_none() {
            self.report(reason, field, "is not a valid timestamp");
        }
        time_us
    }
}

/// Checks the number of requests in a batch.
pub fn check_length(length: usize) -> Result<(), Invalid> {
    if length == 0 || length > BATCH_MAX {
        let description = format!("has {length} requests; 1-{BATCH_MAX} are allowed");
        return Err(Invalid::new(ErrorReason::InvalidRequests, "requests", description));
    }
    Ok(())
}

/// The text of a field that may be empty.
pub fn given(text: &str) -> Option<&str> {
    Some(text).filter(|it| !it.is_empty())
}
