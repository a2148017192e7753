//! The file of signed heads: one JSON object a line. `docs/entry-hash.md` has its format.
//!
//! Each head has a signature, so that it can be given away alone. The trailer signs all lines before
//! it, so that a missing line is noticed.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    domain::{hex::to_hex, verification::Head},
    witness::{PublicKey, SigningKey},
};

const FORMAT: &str = "passbook.heads";
/// Rises with each change that older readers cannot read.
const FORMAT_VERSION: u64 = 1;
/// Bytes of the longest line: several times what a head can have.
const LINE_LENGTH_MAX: u64 = 4096;

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    Header { format: String, format_version: u64, create_time: String, public_key: String },
    Head(SignedHead),
    Trailer(Trailer),
}

#[derive(Serialize, Deserialize)]
struct SignedHead {
    #[serde(flatten)]
    head: Head,
    create_time: String,
    signature: String,
}

#[derive(Serialize, Deserialize)]
struct Trailer {
    /// The number of heads.
    heads: u64,
    /// The SHA-256 of all lines before this one, with their line feeds, in hexadecimal.
    sha256: String,
    create_time: String,
    signature: String,
}

impl SignedHead {
    /// No two heads have the same text: a value with a line feed would make more than seven lines.
    fn text(&self) -> String {
        let Head { account_id, sequence, hash, balance, currency_code } = &self.head;
        let create_time = &self.create_time;
        format!(
            "passbook.head.v1\n{create_time}\n{account_id}\n{sequence}\n{hash}\n{balance}\n\
             {currency_code}\n"
        )
    }
}

impl Trailer {
    fn text(&self) -> String {
        let Self { heads, sha256, create_time, .. } = self;
        format!("passbook.heads.v1\n{create_time}\n{heads}\n{sha256}\n")
    }
}

/// Writes signed heads.
pub struct HeadsWriter<'a, W> {
    output: W,
    key: &'a SigningKey,
    create_time: String,
    sha256: Sha256,
    heads: u64,
}

impl<'a, W: Write> HeadsWriter<'a, W> {
    /// Writes the header.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn begin(output: W, key: &'a SigningKey, create_time: &str) -> io::Result<Self> {
        let create_time = create_time.to_owned();
        let header = Line::Header {
            format: FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            create_time: create_time.clone(),
            public_key: key.public_key().to_string(),
        };
        let mut writer = Self { output, key, create_time, sha256: Sha256::new(), heads: 0 };
        writer.write(&header)?;
        Ok(writer)
    }

    /// Signs and writes a head.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn push(&mut self, head: Head) -> io::Result<()> {
        let create_time = self.create_time.clone();
        let mut signed = SignedHead { head, create_time, signature: String::new() };
        signed.signature = self.key.sign(&signed.text());
        self.heads += 1;
        self.write(&Line::Head(signed))
    }

    /// Signs the file, and returns the number of heads.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn finish(mut self) -> io::Result<u64> {
        let heads = self.heads;
        let sha256 = digits(&self.sha256);
        let create_time = self.create_time.clone();
        let mut trailer = Trailer { heads, sha256, create_time, signature: String::new() };
        trailer.signature = self.key.sign(&trailer.text());
        self.write(&Line::Trailer(trailer))?;
        self.output.flush()?;
        Ok(heads)
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.sha256.update(&text);
        self.output.write_all(text.as_bytes())
    }
}

/// Reads signed heads, and checks every signature.
pub struct HeadsReader<R> {
    input: R,
    key: PublicKey,
    create_time: String,
    sha256: Sha256,
    /// The number of the line read last.
    number: u64,
    heads: u64,
}

impl<R: BufRead> HeadsReader<R> {
    /// Reads the header. Without an expected key, the key in the header counts.
    ///
    /// # Errors
    /// It is no file of heads, or signed by another key. One line, as of all errors here.
    pub fn begin(mut input: R, expected: Option<&PublicKey>) -> Result<Self, String> {
        let first = || "line 1: it is not the header of a file of signed heads".to_owned();
        let text = read_line(&mut input).map_err(|error| format!("line 1: {error}"))?;
        let Ok(Line::Header { format, format_version, create_time, public_key }) =
            serde_json::from_slice(&text)
        else {
            return Err(first());
        };
        if format != FORMAT {
            return Err(first());
        }
        if format_version != FORMAT_VERSION {
            return Err(format!(
                "line 1: format_version is {format_version}; this program reads {FORMAT_VERSION}"
            ));
        }
        let key = PublicKey::parse(&public_key)
            .ok_or_else(|| "line 1: public_key is no Ed25519 key".to_owned())?;
        if let Some(expected) = expected.filter(|expected| **expected != key) {
            return Err(format!("line 1: it is signed by the key {key}, not by {expected}"));
        }
        let sha256 = Sha256::new_with_prefix(&text);
        Ok(Self { input, key, create_time, sha256, number: 1, heads: 0 })
    }

    /// The next head; None after the trailer, which is the last line.
    ///
    /// # Errors
    /// A line was changed, or lines are missing.
    pub fn next_head(&mut self) -> Result<Option<Head>, String> {
        self.number += 1;
        let text = read_line(&mut self.input).map_err(|error| self.error(&error.to_string()))?;
        if text.is_empty() {
            return Err(self.error("the trailer is missing: the file was cut off"));
        }
        let line = serde_json::from_slice(&text);
        match line.map_err(|_| self.error("it is no line of signed heads"))? {
            Line::Header { .. } => Err(self.error("it is a second header")),
            Line::Head(signed) => {
                if !self.key.has_signed(&signed.text(), &signed.signature) {
                    return Err(self.error("the signature does not match the head"));
                }
                self.sha256.update(&text);
                self.heads += 1;
                Ok(Some(signed.head))
            }
            Line::Trailer(trailer) => self.end(&trailer).map(|()| None),
        }
    }

    fn end(&mut self, trailer: &Trailer) -> Result<(), String> {
        if !self.key.has_signed(&trailer.text(), &trailer.signature) {
            return Err(self.error("the signature does not match the trailer"));
        }
        if trailer.heads != self.heads || trailer.sha256 != digits(&self.sha256) {
            let (signed, found) = (trailer.heads, self.heads);
            return Err(self.error(&format!(
                "the lines before it are not those that were signed: {signed} heads were signed, \
                 {found} are here"
            )));
        }
        match read_line(&mut self.input) {
            Ok(rest) if rest.is_empty() => Ok(()),
            _ => Err(self.error("there is more after the trailer")),
        }
    }

    fn error(&self, why: &str) -> String {
        format!("line {}: {why}", self.number)
    }

    /// The key by which the file is signed.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The time of the heads.
    pub fn create_time(&self) -> &str {
        &self.create_time
    }
}

/// The next line with its line feed; empty at the end of the input.
fn read_line(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    Read::take(input, LINE_LENGTH_MAX).read_until(b'\n', &mut text)?;
    Ok(text)
}

fn digits(sha256: &Sha256) -> String {
    to_hex(&sha256.clone().finalize())
}

#[cfg(test)]
mod tests {
    use super::HeadsReader;

    #[test]
    fn the_documented_file_is_signed_as_documented() {
        let document = include_str!("../../docs/entry-hash.md");
        let block = document.split("```json\n").nth(1).and_then(|rest| rest.split("```").next());
        let file = block.expect("a block of JSON");
        let mut reader = HeadsReader::begin(file.as_bytes(), None).expect("a header");
        let alice = reader.next_head().expect("a line").expect("a head");
        assert_eq!((alice.account_id.as_str(), alice.balance.as_str()), ("alice", "94.9"));
        assert_eq!(document.matches(&alice.hash).count(), 2, "the last entry of the example");
        assert!(reader.next_head().expect("a line").is_some());
        assert_eq!(reader.next_head(), Ok(None));
    }
}
