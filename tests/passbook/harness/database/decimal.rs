//! Exact decimals for the checker, which must not share code with what it checks.

use std::{fmt, ops::AddAssign};

/// `digits` / 10^`scale`.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: i128,
    scale: u32,
}

impl Decimal {
    pub const ZERO: Self = Self { digits: 0, scale: 0 };

    /// Reads a plain decimal, as the API and the databases write it.
    pub fn parse(text: &str) -> Self {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{fraction}").parse();
        let digits = digits.unwrap_or_else(|_| panic!("not a plain decimal: {text:?}"));
        Self { digits, scale: fraction.len() as u32 }
    }

    /// The canonical form in the hash of an entry: no trailing zeros after the point.
    pub fn canonical(self) -> String {
        let text = self.to_string();
        match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text,
        }
    }

    pub fn negative(self) -> Self {
        Self { digits: -self.digits, ..self }
    }

    pub fn plus(self, other: Self) -> Self {
        let scale = self.scale.max(other.scale);
        Self { digits: self.at(scale) + other.at(scale), scale }
    }

    pub fn is_negative(self) -> bool {
        self.digits < 0
    }

    fn at(self, scale: u32) -> i128 {
        let factor = 10_i128.checked_pow(scale - self.scale).expect("a scale within the limits");
        self.digits.checked_mul(factor).expect("an amount within the limits")
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        let scale = self.scale.max(other.scale);
        self.at(scale) == other.at(scale)
    }
}

impl AddAssign for Decimal {
    fn add_assign(&mut self, other: Self) {
        *self = self.plus(other);
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.digits < 0 { "-" } else { "" };
        let scale = self.scale as usize;
        let digits = format!("{:0>width$}", self.digits.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let point = if fraction.is_empty() { "" } else { "." };
        write!(formatter, "{sign}{whole}{point}{fraction}")
    }
}

#[test]
fn exact_decimals_add_compare_and_print_without_loss() {
    let sum = Decimal::parse("0.10").plus(Decimal::parse("-5.2"));
    assert_eq!(sum.to_string(), "-5.10");
    assert_eq!(sum.canonical(), "-5.1");
    assert_eq!(Decimal::parse("100.00").canonical(), "100");
    assert_eq!(Decimal::parse("100").canonical(), "100");
    assert_eq!(Decimal::parse("-0.50"), Decimal::parse("0.5").negative());
    assert_ne!(
        Decimal::parse("9999999999.999999999999999999"),
        Decimal::parse("9999999999.999999999999999998")
    );
}
