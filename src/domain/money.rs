//! Currencies and exact amounts.
//!
//! An [`Amount`] always has exactly its currency's number of decimals and an absolute value
//! below 10^(28 - scale). Its mantissa is therefore below 10^28, and a sum of up to seven of
//! them below 2^96 (about 7.9 * 10^28), which is where `rust_decimal` stops being exact. An
//! account's `available` is a sum of three.

use std::{collections::BTreeMap, fmt, sync::Arc};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// Digits of a mantissa: the limit of every amount and balance is 10^(28 - scale).
pub const DIGITS_MAX: u32 = 28;
/// The most decimals that a currency may be configured with: one whole digit must be left.
pub const SCALE_MAX: u32 = DIGITS_MAX - 1;

/// A currency that this server knows: its code and its number of decimals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Currency {
    code: Arc<str>,
    scale: u32,
}

/// Why a text is not a currency.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CurrencyError {
    /// Not `[A-Z][A-Z0-9]{2,11}`.
    #[error("must match [A-Z][A-Z0-9]{{2,11}}, e.g. USD")]
    Malformed,
    /// Neither in ISO 4217 nor configured.
    #[error("is neither in ISO 4217 nor configured on this server (--currency CODE=SCALE)")]
    Unknown,
    /// In ISO 4217, which gives it no number of decimals.
    #[error(
        "has no number of decimals in ISO 4217: configure one on this server, e.g. --currency \
         {0}=4"
    )]
    NoScale(String),
    /// Withdrawn from ISO 4217.
    #[error(
        "was withdrawn from ISO 4217: for a new account it must be configured on this server \
         (--currency {code}={scale})"
    )]
    Withdrawn {
        /// The currency.
        code: String,
        /// The decimals that it had.
        scale: u32,
    },
    /// Configured with two different numbers of decimals.
    #[error("is configured twice, with {first} and with {second} decimals")]
    TwoScales {
        /// The decimals of the first setting.
        first: u32,
        /// The decimals of the later setting.
        second: u32,
    },
    /// Configured with too many decimals.
    #[error("has {0} decimals; at most {SCALE_MAX} are possible")]
    ScaleTooLarge(u32),
    /// Configured with other decimals than ISO 4217 gives it.
    #[error(
        "has {iso} decimals in ISO 4217 and cannot be given {configured}: choose another code, e.g. \
         {own}={configured}"
    )]
    ScaleNotIso {
        /// A code that could be taken instead.
        own: String,
        /// The decimals that ISO 4217 gives it.
        iso: u32,
        /// The decimals that were asked for.
        configured: u32,
    },
}

/// Why a text is not an amount of a currency.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AmountError {
    /// Not a plain decimal.
    #[error("must be a plain decimal in ASCII such as 12.50: -?[0-9]+(\\.[0-9]+)?")]
    Malformed,
    /// More decimals than the currency has.
    #[error("has {decimals} decimals; {code} has {scale}")]
    TooManyDecimals {
        /// How many the text has.
        decimals: usize,
        /// The currency.
        code: Arc<str>,
        /// How many the currency has.
        scale: u32,
    },
    /// Beyond the limit.
    #[error("must be below {limit} in absolute value")]
    OutOfRange {
        /// The limit, exclusive: 10^(28 - scale).
        limit: String,
    },
}

impl Currency {
    /// A currency as the database keeps it with each account.
    pub fn from_parts(code: &str, scale: u32) -> Self {
        Self { code: code.into(), scale }
    }

    /// The ISO 4217 or configured code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The number of decimals.
    pub fn scale(&self) -> u32 {
        self.scale
    }

    /// The amount zero.
    pub fn zero(&self) -> Amount {
        Amount(Decimal::new(0, self.scale))
    }

    /// Reads an amount, strictly: `rust_decimal` itself would take `1e5` and `1_000`, and
    /// round beyond 28 digits.
    ///
    /// # Errors
    /// Says what is wrong, in this order: the form, the decimals, the size.
    pub fn parse(&self, text: &str) -> Result<Amount, AmountError> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return Err(AmountError::Malformed),
            Some((whole, fraction)) => (whole, fraction),
            None => (digits, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return Err(AmountError::Malformed);
        }
        if fraction.len() > self.scale as usize {
            return Err(AmountError::TooManyDecimals {
                decimals: fraction.len(),
                code: self.code.clone(),
                scale: self.scale,
            });
        }
        let whole = whole.trim_start_matches('0');
        if whole.len() > (DIGITS_MAX - self.scale) as usize {
            return Err(self.out_of_range());
        }
        // At most 28 digits are left, so neither step can overflow or round.
        let mantissa = whole
            .bytes()
            .chain(fraction.bytes())
            .chain(std::iter::repeat_n(b'0', self.scale as usize - fraction.len()))
            .fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
        let signed = if text.starts_with('-') { -mantissa } else { mantissa };
        Ok(Amount(Decimal::from_i128_with_scale(signed, self.scale)))
    }

    /// Takes a number as the database returns it, which may have fewer or more trailing
    /// zeros (PostgreSQL gives a zero no decimals at all). None if it is not an amount of
    /// this currency.
    #[must_use]
    pub fn amount(&self, mut number: Decimal) -> Option<Amount> {
        number.normalize_assign();
        if number.scale() > self.scale {
            return None;
        }
        number.rescale(self.scale);
        (number.scale() == self.scale && self.within_limit(number)).then_some(Amount(number))
    }

    /// The same of a number that must not be below zero, such as a limit.
    #[must_use]
    pub fn amount_from_zero(&self, number: Decimal) -> Option<Amount> {
        self.amount(number).filter(|amount| !amount.is_negative())
    }

    /// Converts an amount of a currency with the same code and perhaps other decimals. None if the code
    /// is another one, or the amount has more decimals than this currency.
    #[must_use]
    pub fn convert(&self, currency: &Self, amount: Amount) -> Option<Amount> {
        if self.code != currency.code { None } else { self.amount(amount.0) }
    }

    /// The sum, or None where it is beyond the limit. Both are amounts of this currency.
    #[must_use]
    pub fn add(&self, left: Amount, right: Amount) -> Option<Amount> {
        let sum = left.0 + right.0;
        self.within_limit(sum).then_some(Amount(sum))
    }

    /// A sum of amounts, given in the currency's smallest unit. None beyond all numbers, which are several
    /// times the limit of one amount.
    #[must_use]
    pub fn sum_of_units(&self, units: i128) -> Option<Amount> {
        Decimal::try_from_i128_with_scale(units, self.scale).ok().map(Amount)
    }

    /// Formats a sum of amounts, given in the currency's smallest unit. It may be far beyond the limit of
    /// one amount.
    pub fn format_units(&self, units: i128) -> String {
        let scale = self.scale as usize;
        let sign = if units < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", units.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let point = if scale == 0 { "" } else { "." };
        format!("{sign}{whole}{point}{fraction}")
    }

    /// Reads a sum of amounts as a database writes it, with any number of trailing zeros, in the currency's
    /// smallest unit. None if it is no such sum, or beyond 2^127.
    #[must_use]
    pub fn parse_units(&self, text: &str) -> Option<i128> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
            return None;
        }
        let scale = self.scale as usize;
        let (fraction, zeros) = fraction.split_at_checked(scale).unwrap_or((fraction, ""));
        if zeros.bytes().any(|digit| digit != b'0') {
            return None;
        }
        let units: i128 = format!("{whole}{fraction:0<scale$}").parse().ok()?;
        Some(if digits.len() < text.len() { -units } else { units })
    }

    fn within_limit(&self, number: Decimal) -> bool {
        number.mantissa().unsigned_abs() < 10_u128.pow(DIGITS_MAX)
    }

    fn out_of_range(&self) -> AmountError {
        AmountError::OutOfRange {
            limit: format!("1{}", "0".repeat((DIGITS_MAX - self.scale) as usize)),
        }
    }
}

/// An exact amount, or a sum of a few, of a currency known from the context. Prints as it is
/// on the wire: with exactly the currency's decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Amount(Decimal);

impl Amount {
    /// Above zero.
    pub fn is_positive(self) -> bool {
        self.units() > 0
    }

    /// Below zero.
    pub fn is_negative(self) -> bool {
        self.units() < 0
    }

    /// The number, for the database.
    pub fn decimal(self) -> Decimal {
        self.0
    }

    /// The number in the currency's smallest unit.
    pub fn units(self) -> i128 {
        self.0.mantissa()
    }

    /// A sum that may be beyond the limit of one amount: the caller adds at most seven.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The number without trailing zeros: the same text whatever the scale.
    #[must_use]
    pub fn shortest(self) -> Shortest {
        Shortest(self)
    }
}

impl std::ops::Neg for Amount {
    type Output = Self;

    fn neg(self) -> Self {
        // Never "-0.00": rust_decimal keeps the sign of a negated zero.
        if self.0.is_zero() { self } else { Self(-self.0) }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An amount that prints without trailing zeros.
#[derive(Clone, Copy, Debug)]
pub struct Shortest(Amount);

impl fmt::Display for Shortest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0.0;
        // Nearly all amounts have 64 bits, whose division is many times faster.
        let Ok(mut units) = u64::try_from(number.mantissa().unsigned_abs()) else {
            return number.normalize().fmt(formatter);
        };
        let mut scale = number.scale();
        while scale > 0 && units.is_multiple_of(10) {
            units /= 10;
            scale -= 1;
        }
        // From the last digit to the first: at least one before the point.
        let mut text = [0; 32];
        let mut start = text.len();
        let mut put = |byte| {
            start -= 1;
            text[start] = byte;
        };
        let mut digits = 0;
        while units > 0 || digits <= scale {
            if digits == scale && scale > 0 {
                put(b'.');
            }
            put(b'0' + (units % 10) as u8);
            units /= 10;
            digits += 1;
        }
        if number.mantissa() < 0 {
            put(b'-');
        }
        formatter.write_str(std::str::from_utf8(&text[start..]).map_err(|_| fmt::Error)?)
    }
}

/// Every currency that this server takes: ISO 4217's, and the configured ones.
#[derive(Clone, Debug, Default)]
pub struct Currencies {
    configured: BTreeMap<String, Currency>,
    /// The currencies of the ledger's accounts. ISO 4217 may have changed their decimals since.
    kept: BTreeMap<String, Currency>,
}

impl Currencies {
    /// The currencies of ISO 4217 and the configured ones.
    ///
    /// # Errors
    /// The first code that is malformed, has too many decimals, or contradicts ISO 4217 or itself.
    pub fn new(configured: &[(String, u32)]) -> Result<Self, (String, CurrencyError)> {
        let mut currencies = BTreeMap::new();
        for (code, scale) in configured {
            let currency = check(code, *scale).map_err(|error| (code.clone(), error))?;
            let before = currencies.insert(code.clone(), currency);
            if let Some(first) = before.map(|it: Currency| it.scale).filter(|it| it != scale) {
                let error = CurrencyError::TwoScales { first, second: *scale };
                return Err((code.clone(), error));
            }
        }
        Ok(Self { configured: currencies, kept: BTreeMap::new() })
    }

    /// These currencies, where those of `kept` have the decimals that they have in the ledger. A code that
    /// is neither in ISO 4217 nor configured stays unknown.
    #[must_use]
    pub fn with_kept(mut self, kept: impl Iterator<Item = Currency>) -> Self {
        self.kept = kept.map(|currency| (currency.code().to_owned(), currency)).collect();
        self
    }

    /// The currency of this code.
    pub fn get(&self, code: &str) -> Result<Currency, CurrencyError> {
        if let Some(currency) = self.configured.get(code) {
            return Ok(currency.clone());
        }
        if !is_currency_code(code) {
            return Err(CurrencyError::Malformed);
        }
        let iso = iso_currency::Currency::from_code(code).ok_or(CurrencyError::Unknown)?;
        if let Some(kept) = self.kept.get(code) {
            return Ok(kept.clone());
        }
        match iso.exponent() {
            None => Err(CurrencyError::NoScale(code.to_owned())),
            Some(scale) => Ok(Currency::from_parts(code, scale.into())),
        }
    }

    /// The currency of this code for a new account: codes that were withdrawn from ISO 4217 have to be
    /// configured.
    pub fn get_for_new_account(&self, code: &str) -> Result<Currency, CurrencyError> {
        let currency = self.get(code)?;
        if is_withdrawn(code) && !self.configured.contains_key(code) {
            let (code, scale) = (code.to_owned(), currency.scale);
            return Err(CurrencyError::Withdrawn { code, scale });
        }
        Ok(currency)
    }

    /// The configured currencies, in order of their codes.
    pub fn configured(&self) -> impl Iterator<Item = &Currency> {
        self.configured.values()
    }
}

fn check(code: &str, scale: u32) -> Result<Currency, CurrencyError> {
    if !is_currency_code(code) {
        return Err(CurrencyError::Malformed);
    }
    if scale > SCALE_MAX {
        return Err(CurrencyError::ScaleTooLarge(scale));
    }
    // Accounts of this currency may exist already, with ISO's decimals.
    if let Some(iso) = iso_scale(code).filter(|iso| *iso != scale) {
        return Err(CurrencyError::ScaleNotIso {
            own: own_code(code, scale),
            iso,
            configured: scale,
        });
    }
    Ok(Currency::from_parts(code, scale))
}

/// Whether a text has the form of a currency's code: `[A-Z][A-Z0-9]{2,11}`.
pub fn is_currency_code(code: &str) -> bool {
    (3..=12).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        && code.starts_with(|first: char| first.is_ascii_uppercase())
}

/// A code for a smaller unit of a currency, e.g. USDMICRO.
fn own_code(code: &str, scale: u32) -> String {
    match scale {
        3 => format!("{code}MILLI"),
        6 => format!("{code}MICRO"),
        9 => format!("{code}NANO"),
        _ => format!("{code}{scale}"),
    }
}

/// Whether ISO 4217 lists the code as historic only. The table has VES as historic, which is wrong:
/// Venezuela has two codes for one currency.
fn is_withdrawn(code: &str) -> bool {
    let iso = iso_currency::Currency::from_code(code);
    code != "VES" && iso.is_some_and(|iso| iso.is_superseded().is_some())
}

/// The minor units of ISO 4217; None for codes that have none (XAU) or do not exist.
fn iso_scale(code: &str) -> Option<u32> {
    iso_currency::Currency::from_code(code)?.exponent().map(u32::from)
}
