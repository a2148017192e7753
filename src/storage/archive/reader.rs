//! Reading an export: lines to rows, and errors with the line and the field.

use std::{
    fmt::Display,
    io::{BufRead, Chain, Cursor},
};

use rust_decimal::Decimal;
use sea_orm::Value;
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use crate::storage::archive::{
    Counts, FORMAT, FORMAT_VERSION,
    fields::{FIELDS, Field, Row},
    input, trailer, values,
};
use crate::{
    domain::{fingerprint::FINGERPRINT_LENGTH, hex::from_hex},
    storage::{
        schema_version,
        tables::{Column, ColumnType, NULL, TABLES, Table},
    },
};

/// The longest line, in bytes. A commit that records 5,000 expired holds has 1.75 MB, if their ids are
/// as long as they can be.
const LINE_LENGTH_MAX: u64 = 4 << 20;

/// The schema before, whose exports have the same lines, but for [`ADDED`] fields and without commits.
/// Their fingerprints are longer, and are cut.
const SCHEMA_BEFORE: &str = "m20261126_000004_scales_are_kept";

/// The fields that lines of the schema before do not have, and their values.
static ADDED: [(&str, Value); 5] = [
    ("below_limit", Value::Bool(Some(false))),
    ("details", NULL),
    ("placed", NULL),
    ("effective_time_us", NULL),
    ("opening_attributes", NULL),
];

/// Reads an export line by line. Its errors name the line, and the field if it is one.
pub struct RecordReader<R> {
    input: Chain<Cursor<Vec<u8>>, R>,
    /// The number of the line read last.
    pub number: u64,
    /// Bytes read so far.
    pub bytes: u64,
    counts: Counts,
    /// The export is one of the schema before.
    is_of_before: bool,
}

impl<R: BufRead> RecordReader<R> {
    /// Reads and checks the header.
    pub fn begin(input: R) -> Result<Self, String> {
        let input = input::begin(input).map_err(|what| format!("line 1: {what}"))?;
        let (counts, is_of_before) = (Counts::default(), false);
        let mut lines = Self { input, number: 0, bytes: 0, counts, is_of_before };
        let Some(header) = lines.object()? else {
            return Err(lines.error("the input is empty"));
        };
        check_header(&header).map_err(|error| lines.field_error(error))?;
        lines.is_of_before = header["schema_version"] == SCHEMA_BEFORE;
        Ok(lines)
    }

    /// The next row and the index of its table in [`TABLES`]; None after the trailer, which is the
    /// last line.
    pub fn next(&mut self) -> Result<Option<(usize, Row)>, String> {
        let Some(object) = self.object()? else {
            return Err(self.error("the trailer is missing: the file was cut off"));
        };
        let name = object.get("type").and_then(Json::as_str).unwrap_or_default();
        if name == "trailer" {
            return self.end(&object).map(|()| None);
        }
        let Some(table) = TABLES.iter().position(|table| table.row_name == name) else {
            return Err(self.field_error(format!("type: {name:?} is not a type of line")));
        };
        let row = row(TABLES[table], &FIELDS[table], &object, self.is_of_before);
        let row = row.map_err(|error| self.field_error(error))?;
        self.counts[table] += 1;
        Ok(Some((table, row)))
    }

    fn end(&mut self, object: &Map<String, Json>) -> Result<(), String> {
        let (said, mut expected) = (object.get("lines"), trailer(&self.counts)["lines"].take());
        // The schema before has no commits.
        if said.is_some_and(|said| said.get("commit").is_none()) && expected["commit"] == 0 {
            expected.as_object_mut().map(|lines| lines.remove("commit"));
        }
        if said != Some(&expected) {
            let said = said.unwrap_or(&Json::Null);
            let what = format!("lines: says {said}, but the file has {expected}");
            return Err(self.field_error(what));
        }
        match self.object()? {
            None => Ok(()),
            Some(_) => Err(self.error("follows the trailer, which must be the last line")),
        }
    }

    /// The next line; None at the end of the file. Only the last lines may be empty.
    fn object(&mut self) -> Result<Option<Map<String, Json>>, String> {
        let mut is_empty = false;
        loop {
            let Some(text) = self.text()? else { return Ok(None) };
            if text.trim_ascii().is_empty() {
                is_empty = true;
                continue;
            }
            if is_empty {
                self.number -= 1;
                return Err(self.error("is empty, but more lines follow"));
            }
            return serde_json::from_slice(&text).map(Some).map_err(|error| {
                // Only the line feed may be missing from the last line.
                if text.last() != Some(&b'\n') {
                    return self.error("was cut off");
                }
                // The error's own line is always 1.
                self.error(&format!("is not a JSON object (at byte {})", error.column()))
            });
        }
    }

    /// The next line with its line feed, if it has one; None at the end of the file.
    fn text(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut text = Vec::new();
        let mut limited = std::io::Read::take(&mut self.input, LINE_LENGTH_MAX + 1);
        let read = limited.read_until(b'\n', &mut text);
        self.number += 1;
        let length = read.map_err(|error| self.error(&error.to_string()))? as u64;
        self.bytes += length;
        if length > LINE_LENGTH_MAX {
            return Err(self.error(&format!("is longer than {LINE_LENGTH_MAX} bytes")));
        }
        Ok((length > 0).then_some(text))
    }

    fn error(&self, description: &str) -> String {
        format!("line {}: {description}", self.number)
    }

    fn field_error(&self, what: impl Display) -> String {
        format!("line {}, field {what}", self.number)
    }
}

/// The error begins with the name of the field.
fn check_header(header: &Map<String, Json>) -> Result<(), String> {
    let expected: [(&str, Json); 4] = [
        ("type", "header".into()),
        ("format", FORMAT.into()),
        ("format_version", FORMAT_VERSION.into()),
        ("schema_version", schema_version().into()),
    ];
    for (field, expected) in expected {
        match header.get(field) {
            Some(found) if *found == expected => {}
            Some(found) if field == "schema_version" && found == SCHEMA_BEFORE => {}
            Some(found) => {
                return Err(format!("{field}: is {found}; this program reads {expected}"));
            }
            None => {
                return Err(format!("{field}: is missing: the input is not a Passbook export"));
            }
        }
    }
    Ok(())
}

/// The row of a line. The error begins with the name of the field.
fn row(
    table: &Table,
    fields: &[Field],
    object: &Map<String, Json>,
    is_of_before: bool,
) -> Result<Row, String> {
    let added = |name: &str| ADDED.iter().find(|(added, _)| is_of_before && *added == name);
    let cell = |column: &Column| match object.get(column.name) {
        Some(json) => {
            let value =
                value(column, json).map_err(|what| format!("{}: must be {what}", column.name))?;
            if !json.is_null() {
                let checked = values::check(column.name, json);
                checked.map_err(|why| format!("{}: {why}", column.name))?;
            }
            Ok(value)
        }
        None => match added(column.name) {
            Some((_, value)) => Ok(value.clone()),
            None => Err(format!("{}: is missing", column.name)),
        },
    };
    let row = fields.iter().map(|it| cell(&it.column)).collect::<Result<_, _>>()?;
    let is_known = |name: &str| name == "type" || fields.iter().any(|it| it.column.name == name);
    match object.keys().find(|name| !is_known(name)) {
        Some(name) => Err(format!("{name}: is not a field of {:?}", table.row_name)),
        None => Ok(row),
    }
}

/// The value of a column, or what it must be.
fn value(column: &Column, json: &Json) -> Result<Value, &'static str> {
    let text = json.as_str();
    if column.is_nullable && json.is_null() {
        return Ok(NULL);
    }
    let (value, expected): (Option<Value>, _) = match column.kind {
        ColumnType::Text => (text.map(Value::from), "a string"),
        ColumnType::Amount | ColumnType::AmountAsText => {
            (text.filter(|it| is_amount(it)).map(Value::from), "a decimal")
        }
        ColumnType::Uuid => {
            (text.and_then(|it| Uuid::try_parse(it).ok()).map(Value::from), "a UUID")
        }
        ColumnType::Bytes => {
            let mut bytes = text.and_then(from_hex);
            if let Some(fingerprint) = bytes.as_mut().filter(|_| column.name == "fingerprint") {
                fingerprint.truncate(FINGERPRINT_LENGTH);
            }
            (bytes.map(Value::from), "hexadecimal")
        }
        ColumnType::SmallInteger => {
            let number = json.as_i64().and_then(|it| i16::try_from(it).ok());
            (number.map(Value::from), "a whole number of 16 bits")
        }
        ColumnType::Integer => (json.as_i64().map(Value::from), "a whole number of 64 bits"),
        ColumnType::Flag => (json.as_bool().map(Value::from), "true or false"),
        ColumnType::Json => {
            let is_json = json.is_object() || json.is_array();
            (is_json.then(|| json.to_string().into()), "an object or an array")
        }
    };
    let value = value.ok_or(expected)?;
    // PostgreSQL would store null.
    if column.is_nullable && value == column.null_in_arrays().0 {
        return Err("null or not empty");
    }
    Ok(value)
}

/// Whether a text is a plain decimal with no more digits than an amount can have.
fn is_amount(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
    are_digits(whole) && are_digits(fraction) && Decimal::from_str_exact(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::RecordReader;
    use crate::storage::schema_version;

    fn read(text: &str) -> Result<usize, String> {
        let mut lines = RecordReader::begin(text.as_bytes())?;
        let mut count = 0;
        while lines.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    fn header() -> String {
        let version = schema_version();
        format!(
            r#"{{"type":"header","format":"passbook","format_version":1,"schema_version":"{version}"}}"#
        )
    }

    fn trailer(currencies: u64) -> String {
        super::trailer(&[currencies, 0, 0, 0, 0, 0, 0]).to_string()
    }

    const ETHER: &str = r#"{"type":"currency","currency_code":"ETH","currency_scale":18}"#;

    #[test]
    fn a_whole_file_is_read() {
        assert_eq!(read(&format!("{}\n{}\n", header(), trailer(0))), Ok(0));
        assert_eq!(read(&format!("{}\n{ETHER}\n{}\n", header(), trailer(1))), Ok(1));
    }

    #[test]
    fn what_editors_do_to_a_file_does_not_matter() {
        let text = format!("{}\n{ETHER}\n{}\n", header(), trailer(1));
        for changed in [
            format!("\u{feff}{text}"),
            text.replace('\n', "\r\n"),
            format!("\u{feff}{}", text.replace('\n', "\r\n")),
            format!("{text}\n"),
            format!("{text}\r\n  \n\n"),
            text.trim_end().to_owned(),
        ] {
            assert_eq!(read(&changed), Ok(1), "{changed:?}");
        }
    }

    #[test]
    fn a_fault_is_reported_with_its_line_and_field() {
        let (header, none, one) = (header(), trailer(0), trailer(1));
        let hold = r#"{"type":"hold","hold_id":"h","account_id":"a","amount":"1e5"}"#;
        let with = |name: &str, value: &str| {
            let begin = r#"{"type":"hold","hold_id":"h","account_id":"a","amount":"1""#;
            let nulls = r#""state":"open","expire_time_us":null,"captured_amount":null,"#;
            let line = format!(r#"{begin},{nulls}"transaction_id":null}}"#);
            line.replace(&format!("\"{name}\":null"), &format!("\"{name}\":{value}"))
        };
        let nil = "\"00000000-0000-0000-0000-000000000000\"";
        let cases = [
            (String::new(), "line 1: the input is empty"),
            ("{}\n".to_owned(), "line 1, field type: is missing"),
            (header.replace("_version\":1", "_version\":2") + "\n", "field format_version: is 2;"),
            (format!("{header}\n"), "line 2: the trailer is missing"),
            (format!("{header}\n{}", &ETHER[..40]), "line 2: was cut off"),
            (format!("{header}\n{ETHER}"), "line 3: the trailer is missing"),
            (format!("{header}\n\n{none}\n"), "line 2: is empty, but more"),
            (format!("{header}\n{none}\n\n{ETHER}\n"), "line 3: is empty, but more"),
            ("SQLite format 3\0".to_owned(), "line 1: is a SQLite database"),
            ("\0{\0\"".to_owned(), "line 1: is in UTF-16: iconv"),
            ("PK\u{3}\u{4}".to_owned(), "line 1: is a zip archive"),
            ("--\n-- PostgreSQL database dump\n".to_owned(), "with psql"),
            (format!("{header}\n{ETHER}\n{none}\n"), "line 3, field lines: says {"),
            (format!("{header}\n{one}\n"), "line 2, field lines: says {"),
            (format!("{header}\n{none}\n{ETHER}\n"), "line 3: follows the trailer"),
            (format!("{header}\nnonsense\n"), "line 2: is not a JSON object (at byte"),
            (format!("{header}\n[]\n"), "line 2: is not a JSON object"),
            (
                format!("{header}\n{}\n", ETHER.replace("18", "\"18\"")),
                "line 2, field currency_scale",
            ),
            (format!("{header}\n{}\n", ETHER.replace("18", "99999")), "field currency_scale"),
            (
                format!("{header}\n{}\n", ETHER.replace("18", "-5")),
                "line 2, field currency_scale: must be from 0 to 27",
            ),
            (
                format!("{header}\n{}\n", ETHER.replace("18", "28")),
                "line 2, field currency_scale: must be from 0 to 27",
            ),
            (
                format!("{header}\n{}\n", ETHER.replace("ETH", "eth")),
                "line 2, field currency_code: must match [A-Z][A-Z0-9]{2,11}",
            ),
            (
                format!("{header}\n{}\n", ETHER.replace("_code", "_name")),
                "currency_code: is missing",
            ),
            (
                format!("{header}\n{}\n", ETHER.replace("18", "18,\"x\":1")),
                "field x: is not a field",
            ),
            (format!("{header}\n{}\n", ETHER.replace("currency\"", "coin\"")), "\"coin\" is not a"),
            (format!("{header}\n{hold}\n"), "line 2, field amount: must be a decimal"),
            (
                format!("{header}\n{}\n", with("expire_time_us", "0")),
                "expire_time_us: must be null",
            ),
            (
                format!("{header}\n{}\n", with("transaction_id", nil)),
                "transaction_id: must be null",
            ),
            (format!("{header}\n{}\n", " ".repeat(5 << 20)), "line 2: is longer than"),
        ];
        for (text, words) in cases {
            let error = read(&text).expect_err(words);
            assert!(error.contains(words), "{error}\n{words}");
        }
    }
}
