//! Amounts against integer arithmetic.

use proptest::prelude::*;
use rust_decimal::Decimal;

use crate::domain::money::{Amount, AmountError, Currencies, Currency, CurrencyError, DIGITS_MAX};

/// 10^28, exclusive bound of a mantissa.
const LIMIT: i128 = 10_i128.pow(DIGITS_MAX);

fn currency(scale: u32) -> Currency {
    Currency::from_parts("TST", scale)
}

fn mantissa(amount: Amount, scale: u32) -> i128 {
    assert_eq!(amount.decimal().scale(), scale);
    amount.decimal().mantissa()
}

/// What an amount with this mantissa looks like on the wire, by integer arithmetic alone.
fn canonical(mantissa: i128, scale: u32) -> String {
    let sign = if mantissa < 0 { "-" } else { "" };
    let digits = mantissa.unsigned_abs();
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let unit = 10_u128.pow(scale);
    format!("{sign}{}.{:0width$}", digits / unit, digits % unit, width = scale as usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn an_amount_is_read_and_shown_without_losing_a_digit(
        mantissa_in in -LIMIT + 1..LIMIT, scale in 0_u32..=27,
    ) {
        let text = canonical(mantissa_in, scale);
        let amount = currency(scale).parse(&text).unwrap();
        prop_assert_eq!(mantissa(amount, scale), mantissa_in);
        prop_assert_eq!(amount.to_string(), text);
    }

    #[test]
    fn a_sum_is_exact_or_refused(
        left in -LIMIT + 1..LIMIT, right in -LIMIT + 1..LIMIT, scale in 0_u32..=27,
    ) {
        let currency = currency(scale);
        let parse = |number| currency.parse(&canonical(number, scale)).unwrap();
        let sum = currency.add(parse(left), parse(right));
        let expected = left + right;
        prop_assert_eq!(
            sum.map(|sum| mantissa(sum, scale)),
            (expected.abs() < LIMIT).then_some(expected)
        );
    }

    #[test]
    fn a_sum_of_seven_is_exact_even_beyond_the_limit(
        numbers in proptest::collection::vec(-LIMIT + 1..LIMIT, 7), scale in 0_u32..=27,
    ) {
        let currency = currency(scale);
        let parse = |number: &i128| currency.parse(&canonical(*number, scale)).unwrap();
        let sum = numbers.iter().map(parse).fold(currency.zero(), Amount::plus);
        prop_assert_eq!(mantissa(sum, scale), numbers.iter().sum::<i128>());
    }

    #[test]
    fn a_number_from_the_database_is_the_same_amount_whatever_its_scale(
        mantissa_in in -LIMIT + 1..LIMIT, scale in 0_u32..=27,
    ) {
        let currency = currency(scale);
        let amount = currency.parse(&canonical(mantissa_in, scale)).unwrap();
        let normalized = amount.decimal().normalize();
        prop_assert_eq!(currency.amount(normalized), Some(amount));
        prop_assert_eq!(amount.shortest().to_string(), normalized.to_string());
    }

    #[test]
    fn any_text_is_read_by_the_grammar_or_refused(text in r"[-+]?[0-9_eE]{0,31}\.?[0-9]{0,4}\PC?") {
        let currency = currency(2);
        let digits = text.strip_prefix('-').unwrap_or(&text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let ascii = |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
        let in_grammar = ascii(whole) && ascii(fraction);
        let read = currency.parse(&text);
        prop_assert_eq!(in_grammar, read != Err(AmountError::Malformed), "{:?}", text);
        if let Ok(amount) = read {
            // Padded to two decimals, the text without its point is the mantissa.
            let fraction = if digits.contains('.') { fraction } else { "" };
            let number: i128 = format!("{whole}{fraction:0<2}").parse().unwrap();
            let number = if text.starts_with('-') { -number } else { number };
            prop_assert_eq!(mantissa(amount, 2), number);
        }
    }
}

#[test]
fn what_is_not_a_plain_decimal_is_malformed() {
    let usd = Currencies::default().get("USD").unwrap();
    for text in [
        "", "-", ".", ".5", "1.", "+1", "1e2", "1E2", "1_000", "1,000", " 1", "1 ", "--1", "1.2.3",
        "NaN", "Infinity", "-inf", "0x10", "١٢", "１２", "1\0", "½",
    ] {
        assert_eq!(usd.parse(text), Err(AmountError::Malformed), "{text:?}");
    }
}

#[test]
fn decimals_and_size_have_limits() {
    let usd = Currencies::default().get("USD").unwrap();
    assert!(matches!(usd.parse("1.000"), Err(AmountError::TooManyDecimals { .. })));
    let largest = format!("{}.99", "9".repeat(26));
    assert_eq!(usd.parse(&largest).unwrap().to_string(), largest);
    assert!(matches!(
        usd.parse(&format!("1{}", "0".repeat(26))),
        Err(AmountError::OutOfRange { .. })
    ));
    assert!(matches!(usd.parse(&"9".repeat(40)), Err(AmountError::OutOfRange { .. })));
    // Leading zeros do not count.
    assert_eq!(usd.parse(&format!("{}1", "0".repeat(40))).unwrap().to_string(), "1.00");
}

#[test]
fn zero_has_no_sign() {
    let usd = Currencies::default().get("USD").unwrap();
    for zero in [usd.parse("-0").unwrap(), usd.parse("-0.00").unwrap(), -usd.zero()] {
        assert_eq!(zero.to_string(), "0.00");
        assert_eq!(zero.shortest().to_string(), "0");
        assert!(!zero.is_positive() && !zero.is_negative());
    }
    assert_eq!(usd.amount(Decimal::ZERO), Some(usd.zero()));
}

#[test]
fn a_number_that_is_no_amount_of_the_currency_is_noticed() {
    let usd = Currencies::default().get("USD").unwrap();
    assert_eq!(usd.amount("0.001".parse().unwrap()), None);
    assert_eq!(usd.amount(Decimal::MAX), None);
    assert_eq!(usd.amount("100000000000000000000000000".parse().unwrap()), None);
}

#[test]
fn currencies_are_those_of_iso_4217_and_the_configured_ones() {
    let currencies = Currencies::new(&[("ETH".to_owned(), 18), ("CREDIT".to_owned(), 6)]).unwrap();
    for (code, scale) in [("USD", 2), ("JPY", 0), ("KWD", 3), ("ETH", 18), ("CREDIT", 6)] {
        assert_eq!(currencies.get(code).unwrap().scale(), scale, "{code}");
    }
    for code in ["usd", "US", "U$D", "1SD", "", "ABCDEFGHIJKLM"] {
        assert_eq!(currencies.get(code), Err(CurrencyError::Malformed), "{code:?}");
    }
    assert_eq!(currencies.get("BTC"), Err(CurrencyError::Unknown));
}

#[test]
fn codes_of_iso_4217_without_decimals_say_how_they_can_be_used() {
    for code in ["XAU", "XAG", "XDR", "XTS", "XXX"] {
        let error = Currencies::default().get(code).unwrap_err();
        assert_eq!(error, CurrencyError::NoScale(code.to_owned()));
        assert!(error.to_string().contains(&format!("--currency {code}=4")), "{error}");
    }
    let configured = Currencies::new(&[("XAU".to_owned(), 4)]).unwrap();
    assert_eq!(configured.get_for_new_account("XAU").unwrap().scale(), 4);
}

#[test]
fn withdrawn_codes_are_for_accounts_that_there_are_unless_they_are_configured() {
    let currencies = Currencies::default();
    for code in ["HRK", "ZWL", "SLL", "CUC", "BGN"] {
        assert_eq!(currencies.get(code).unwrap().scale(), 2, "{code}");
        let error = currencies.get_for_new_account(code).unwrap_err();
        assert!(error.to_string().contains(&format!("--currency {code}=2")), "{error}");
        let configured = Currencies::new(&[(code.to_owned(), 2)]).unwrap();
        assert!(configured.get_for_new_account(code).is_ok(), "{code}");
    }
    for code in ["USD", "EUR", "ZWG", "SLE", "VED", "VES", "XCG", "CLF", "UYW"] {
        assert!(currencies.get_for_new_account(code).is_ok(), "{code}");
    }
    assert_eq!(currencies.get_for_new_account("BTC"), Err(CurrencyError::Unknown));
}

#[test]
fn a_configured_currency_cannot_contradict_iso_4217() {
    let refused = |code: &str, scale| Currencies::new(&[(code.to_owned(), scale)]).unwrap_err().1;
    for (code, scale, own) in
        [("USD", 6, "USDMICRO=6"), ("USD", 3, "USDMILLI=3"), ("JPY", 2, "JPY2=2")]
    {
        let error = refused(code, scale).to_string();
        assert!(error.contains("cannot be given") && error.contains(own), "{error}");
        let (code, scale) = own.split_once('=').unwrap();
        assert!(Currencies::new(&[(code.to_owned(), scale.parse().unwrap())]).is_ok());
    }
    assert_eq!(refused("ETH", 28), CurrencyError::ScaleTooLarge(28));
    assert_eq!(refused("eth", 18), CurrencyError::Malformed);
    assert!(Currencies::new(&[("USD".to_owned(), 2)]).is_ok());
    let twice = |second| Currencies::new(&[("PTS".to_owned(), 2), ("PTS".to_owned(), second)]);
    assert!(twice(2).is_ok());
    let error = twice(3).unwrap_err();
    assert_eq!(error, ("PTS".to_owned(), CurrencyError::TwoScales { first: 2, second: 3 }));
}

#[test]
fn a_sum_is_read_with_any_zeros_behind_it() {
    let usd = Currency::from_parts("USD", 2);
    for (text, units) in [
        ("0", Some(0)),
        ("-1.5", Some(-150)),
        ("-0.05", Some(-5)),
        ("12.3400", Some(1234)),
        ("12.345", None),
        ("1e5", None),
        ("NaN", None),
        ("1000000000000000000000000000000000.01", Some(10_i128.pow(35) + 1)),
    ] {
        assert_eq!(usd.parse_units(text), units, "{text}");
    }
    assert_eq!(Currency::from_parts("JPY", 0).parse_units("7.0"), Some(7));
}
