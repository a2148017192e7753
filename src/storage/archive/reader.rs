//! Reading an export: lines to rows, and errors with the line and the field.

use std::{
    fmt,
    io::{BufRead, Chain, Cursor},
};

use serde_json::{Map, Value};

use crate::storage::archive::{Counts, FORMAT, FORMAT_VERSION, input, trailer};
use crate::storage::{
    schema_version,
    tables::{Column, ColumnType, TABLES, Table},
};

/// The longest line, in bytes: a request with a hundred entries and all labels has about 30,000.
const LINE_LENGTH_MAX: u64 = 1 << 20;

/// Why a line cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct LineError {
    /// The number of the line, from 1.
    pub line: u64,
    /// The field, or empty for the whole line.
    pub field: String,
    /// The reason.
    pub description: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}", self.line)?;
        if !self.field.is_empty() {
            write!(formatter, ", field {}", self.field)?;
        }
        write!(formatter, ": {}", self.description)
    }
}

/// The cells of a row as text; None for null.
pub type Row = Vec<Option<String>>;

/// A row and its table.
pub struct Record {
    /// The index in [`TABLES`].
    pub table: usize,
    /// A cell for each column.
    pub row: Row,
}

/// Reads an export line by line.
pub struct RecordReader<R> {
    input: Chain<Cursor<Vec<u8>>, R>,
    /// The number of the line read last.
    pub number: u64,
    /// Bytes read so far.
    pub bytes: u64,
    counts: Counts,
}

/// Why a field cannot be read.
struct FieldError {
    field: String,
    description: String,
}

fn field_error(field: &str, description: impl Into<String>) -> FieldError {
    FieldError { field: field.to_owned(), description: description.into() }
}

impl<R: BufRead> RecordReader<R> {
    /// Reads and checks the header.
    pub fn begin(input: R) -> Result<Self, LineError> {
        let error = |description| LineError { line: 1, field: String::new(), description };
        let input = input::begin(input).map_err(error)?;
        let mut lines = Self { input, number: 0, bytes: 0, counts: Counts::default() };
        let Some(header) = lines.object()? else {
            return Err(lines.error(field_error("", "there is nothing here")));
        };
        check_header(&header).map_err(|error| lines.error(error))?;
        Ok(lines)
    }

    /// The next row; None after the trailer, which is the last line.
    pub fn next(&mut self) -> Result<Option<Record>, LineError> {
        let Some(object) = self.object()? else {
            let description = "the trailer is missing: the file was cut off";
            return Err(self.error(field_error("", description)));
        };
        let name = object.get("type").and_then(Value::as_str).unwrap_or_default();
        if name == "trailer" {
            return self.end(&object).map(|()| None);
        }
        let Some(table) = TABLES.iter().position(|table| table.row_name == name) else {
            return Err(self.error(field_error("type", format!("{name:?} is not a type of line"))));
        };
        let row = row(TABLES[table], &object).map_err(|error| self.error(error))?;
        self.counts[table] += 1;
        Ok(Some(Record { table, row }))
    }

    fn end(&mut self, object: &Map<String, Value>) -> Result<(), LineError> {
        let expected = trailer(&self.counts);
        if object.get("lines") != expected.get("lines") {
            let said = object.get("lines").map(Value::to_string).unwrap_or_default();
            let found = &expected["lines"];
            return Err(self.error(field_error("lines", format!("is {said}; there are {found}"))));
        }
        match self.object()? {
            None => Ok(()),
            Some(_) => Err(self.error(field_error("", "comes after the trailer"))),
        }
    }

    /// The next line; None at the end of the file. Only the last lines may be empty.
    fn object(&mut self) -> Result<Option<Map<String, Value>>, LineError> {
        let mut is_empty = false;
        loop {
            let Some(text) = self.text()? else { return Ok(None) };
            if text.trim_ascii().is_empty() {
                is_empty = true;
                continue;
            }
            if is_empty {
                self.number -= 1;
                return Err(self.error(field_error("", "is empty, and there is more after it")));
            }
            let object = serde_json::from_slice(&text);
            return object.map(Some).map_err(|error| {
                // Only the line feed may be missing from the last line.
                if text.last() != Some(&b'\n') {
                    return self.error(field_error("", "was cut off"));
                }
                // The error's own line is always 1.
                let column = error.column();
                self.error(field_error("", format!("is not a JSON object (at byte {column})")))
            });
        }
    }

    /// The next line with its line feed, if it has one; None at the end of the file.
    fn text(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        let mut text = Vec::new();
        let mut limited = std::io::Read::take(&mut self.input, LINE_LENGTH_MAX + 1);
        let read = limited.read_until(b'\n', &mut text);
        self.number += 1;
        let length = read.map_err(|error| self.error(field_error("", error.to_string())))? as u64;
        self.bytes += length;
        if length > LINE_LENGTH_MAX {
            let description = format!("is longer than {LINE_LENGTH_MAX} bytes");
            return Err(self.error(field_error("", description)));
        }
        Ok((length > 0).then_some(text))
    }

    fn error(&self, FieldError { field, description }: FieldError) -> LineError {
        LineError { line: self.number, field, description }
    }
}

fn check_header(header: &Map<String, Value>) -> Result<(), FieldError> {
    let expected: [(&str, Value); 4] = [
        ("type", "header".into()),
        ("format", FORMAT.into()),
        ("format_version", FORMAT_VERSION.into()),
        ("schema_version", schema_version().into()),
    ];
    for (field, expected) in expected {
        match header.get(field) {
            Some(found) if *found == expected => {}
            Some(found) => {
                let description = format!("is {found}; this program reads {expected}");
                return Err(field_error(field, description));
            }
            None => return Err(field_error(field, "is missing: this is no export of Passbook's")),
        }
    }
    Ok(())
}

fn row(table: &Table, object: &Map<String, Value>) -> Result<Row, FieldError> {
    let mut row = Vec::with_capacity(table.columns.len());
    for column in table.columns {
        let Some(value) = object.get(column.name) else {
            return Err(field_error(column.name, "is missing"));
        };
        row.push(cell(column, value)?);
    }
    let is_known = |name: &str| name == "type" || table.columns.iter().any(|it| it.name == name);
    match object.keys().find(|name| !is_known(name)) {
        Some(unknown) => {
            Err(field_error(unknown, format!("is not a field of {:?}", table.row_name)))
        }
        None => Ok(row),
    }
}

/// The value as the text of its column, None for null.
fn cell(column: &Column, value: &Value) -> Result<Option<String>, FieldError> {
    let is = |what: &str| field_error(column.name, format!("must be {what}"));
    if value.is_null() && column.is_nullable {
        return Ok(None);
    }
    let text = value.as_str();
    let text = match column.kind {
        ColumnType::Text => text.ok_or_else(|| is("a string"))?.to_owned(),
        ColumnType::Amount => {
            text.filter(|it| is_amount(it)).ok_or_else(|| is("a decimal"))?.to_owned()
        }
        ColumnType::Uuid => {
            let parsed = text.and_then(|it| uuid::Uuid::try_parse(it).ok());
            parsed.ok_or_else(|| is("a UUID"))?.to_string()
        }
        ColumnType::Bytes => {
            let is_hex = |it: &&str| {
                it.len().is_multiple_of(2) && it.bytes().all(|it| it.is_ascii_hexdigit())
            };
            text.filter(is_hex).ok_or_else(|| is("hexadecimal"))?.to_owned()
        }
        ColumnType::SmallInteger => {
            let number = value.as_i64().and_then(|it| i16::try_from(it).ok());
            number.ok_or_else(|| is("a whole number of 16 bits"))?.to_string()
        }
        ColumnType::Integer => {
            value.as_i64().ok_or_else(|| is("a whole number of 64 bits"))?.to_string()
        }
        ColumnType::Flag => value.as_bool().ok_or_else(|| is("true or false"))?.to_string(),
        ColumnType::Json if value.is_object() || value.is_array() => value.to_string(),
        ColumnType::Json => return Err(is("an object or an array")),
    };
    // No nullable column has empty texts, so an empty text stands for null on the way to
    // PostgreSQL.
    if column.is_nullable && text.is_empty() {
        return Err(is("null or not empty"));
    }
    Ok(Some(text))
}

/// Whether a text is a plain decimal with no more digits than an amount can have.
fn is_amount(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
    are_digits(whole) && are_digits(fraction) && rust_decimal::Decimal::from_str_exact(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{LineError, RecordReader};
    use crate::storage::schema_version;

    fn read(text: &str) -> Result<usize, LineError> {
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

    fn trailer(currencies: usize) -> String {
        let lines = serde_json::json!({
            "currency": currencies, "account": 0, "request": 0, "entry": 0, "hold": 0,
            "account_change": 0,
        });
        format!(r#"{{"type":"trailer","lines":{lines}}}"#)
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
        let cases = [
            (String::new(), "line 1: there is nothing here"),
            ("{}\n".to_owned(), "line 1, field type: is missing"),
            (header.replace("_version\":1", "_version\":2") + "\n", "field format_version: is 2;"),
            (format!("{header}\n"), "line 2: the trailer is missing"),
            (format!("{header}\n{}", &ETHER[..40]), "line 2: was cut off"),
            (format!("{header}\n{ETHER}"), "line 3: the trailer is missing"),
            (format!("{header}\n\n{none}\n"), "line 2: is empty, and there is more"),
            (format!("{header}\n{none}\n\n{ETHER}\n"), "line 3: is empty, and there is more"),
            ("SQLite format 3\0".to_owned(), "line 1: is a SQLite database"),
            ("\0{\0\"".to_owned(), "line 1: is in UTF-16: iconv"),
            ("PK\u{3}\u{4}".to_owned(), "line 1: is a zip archive"),
            ("--\n-- PostgreSQL database dump\n".to_owned(), "psql reads it"),
            (format!("{header}\n{ETHER}\n{none}\n"), "line 3, field lines: is {"),
            (format!("{header}\n{one}\n"), "line 2, field lines: is {"),
            (format!("{header}\n{none}\n{ETHER}\n"), "line 3: comes after the trailer"),
            (format!("{header}\nnonsense\n"), "line 2: is not a JSON object (at byte"),
            (format!("{header}\n[]\n"), "line 2: is not a JSON object"),
            (
                format!("{header}\n{}\n", ETHER.replace("18", "\"18\"")),
                "line 2, field currency_scale",
            ),
            (format!("{header}\n{}\n", ETHER.replace("18", "99999")), "field currency_scale"),
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
            (format!("{header}\n{}\n", " ".repeat(2 << 20)), "line 2: is longer than"),
        ];
        for (text, words) in cases {
            let error = read(&text).expect_err(words).to_string();
            assert!(error.contains(words), "{error}\n{words}");
        }
    }
}
