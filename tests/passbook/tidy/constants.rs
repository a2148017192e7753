//! Constants that documents name, such as `BATCH_MAX`: a reader who searches for one must find one.

use std::collections::BTreeMap;

use super::{PRODUCT, assert_none, files_under, words::texts};

/// The names between backquotes that look like names of constants.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let is_constant = |name: &&str| {
        let is_part = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit();
        name.contains('_') && name.chars().all(|letter| letter == '_' || is_part(letter))
    };
    text.split('`').skip(1).step_by(2).filter(is_constant)
}

/// The name of the constant that this line defines.
fn defined(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line =
        line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub(super) ")).unwrap_or(line);
    let rest = line.strip_prefix("const ").or(line.strip_prefix("static "))?;
    rest.split(':').next()
}

/// Names in documents that are defined several times in `src`, or only elsewhere.
fn ambiguous(documents: &[(String, String)], sources: &[(String, String)]) -> Vec<String> {
    let mut definitions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (path, text) in sources {
        for name in text.lines().filter_map(defined) {
            definitions.entry(name).or_default().push(path);
        }
    }
    let mut found = Vec::new();
    for (path, text) in documents {
        for name in named(text) {
            let Some(all) = definitions.get(name) else { continue };
            let in_service = all.iter().filter(|path| path.starts_with("src/")).count();
            if in_service != 1 {
                found.push(format!("{path}: `{name}`, in {}", all.join(", ")));
            }
        }
    }
    found
}

#[test]
fn a_constant_that_a_document_names_is_defined_once() {
    let documents: Vec<_> = texts().into_iter().filter(|(path, _)| path.ends_with(".md")).collect();
    assert!(documents.iter().flat_map(|(_, text)| named(text)).count() > 100);
    let sources: Vec<_> =
        files_under(&PRODUCT).into_iter().map(|file| (file.path, file.text)).collect();
    assert_none("rename it by its subject", ambiguous(&documents, &sources));
}

#[test]
fn a_constant_with_two_definitions_is_seen() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let documents =
        [file("docs/a.md", "5 s (`WAIT_MAX`), 1 s (`PAUSE_MIN`), `ONCE_ONLY`, `NOT_OURS`")];
    let sources = [
        file("src/a.rs", "pub const WAIT_MAX: u8 = 5;\nconst ONCE_ONLY: u8 = 1;"),
        file("src/b.rs", "    pub(super) static WAIT_MAX: u8 = 7;"),
        file("bench/src/c.rs", "const PAUSE_MIN: u8 = 1;\nconst ONCE_ONLY: u8 = 2;"),
    ];
    assert_eq!(
        ambiguous(&documents, &sources),
        [
            "docs/a.md: `WAIT_MAX`, in src/a.rs, src/b.rs",
            "docs/a.md: `PAUSE_MIN`, in bench/src/c.rs",
        ]
    );
}
