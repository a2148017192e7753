//! The beginning of an import: detects files of other formats and skips a byte order mark.

use std::io::{self, BufRead, Chain, Cursor, Read};

/// The byte order mark with which some programs begin UTF-8.
const UTF_8_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
/// The number of bytes that identify a format.
const BEGINNING_LENGTH: usize = 32;

/// The first bytes of other formats, and what to do with such a file.
const OTHERS: [(&[u8], &str); 12] = [
    (b"SQLite format 3\0", "is a SQLite database, not an export: make one with passbook export"),
    (b"\x1f\x8b", "is compressed with gzip: gzip -dc FILE | passbook import --database-url URL"),
    (
        b"\x28\xb5\x2f\xfd",
        "is compressed with zstd: zstd -dc FILE | passbook import --database-url URL",
    ),
    (b"\xfd7zXZ\0", "is compressed with xz: xz -dc FILE | passbook import --database-url URL"),
    (b"BZh", "is compressed with bzip2: bzip2 -dc FILE | passbook import --database-url URL"),
    (b"PK\x03\x04", "is a zip archive: unzip -p FILE | passbook import --database-url URL"),
    (b"PGDMP", "is a PostgreSQL dump, not an export: restore it with pg_restore"),
    (
        b"--\n-- PostgreSQL database dump",
        "is a PostgreSQL dump, not an export: restore it with psql",
    ),
    (b"\xff\xfe", UTF_16),
    (b"\xfe\xff", UTF_16),
    (b"{\0", UTF_16),
    (b"\0{", UTF_16),
];
const UTF_16: &str =
    "is in UTF-16: iconv -f UTF-16 -t UTF-8 FILE | passbook import --database-url URL";

/// The input without the byte order mark, or why it is no export.
pub(super) fn begin<R: BufRead>(mut input: R) -> Result<Chain<Cursor<Vec<u8>>, R>, String> {
    let mut beginning = Vec::new();
    let mut limited = Read::take(&mut input, BEGINNING_LENGTH as u64);
    limited.read_to_end(&mut beginning).map_err(|error: io::Error| error.to_string())?;
    if let Some((_, what)) = OTHERS.iter().find(|(bytes, _)| beginning.starts_with(bytes)) {
        return Err((*what).to_owned());
    }
    if beginning.starts_with(&UTF_8_MARK) {
        beginning.drain(..UTF_8_MARK.len());
    }
    Ok(Cursor::new(beginning).chain(input))
}
