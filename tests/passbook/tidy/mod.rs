//! The rules of the source tree, held by a test: layers and sizes.

mod attacks;
mod constants;
mod imports;
mod layers;
mod words;

use std::{
    fs,
    path::{Path, PathBuf},
};

use passbook::proto::methods::{ACCOUNT_SERVICE, ADMIN_SERVICE, METHODS};

const LINE_LENGTH_MAX: usize = 120;
const FILE_LENGTH_MAX: usize = 450;

/// Where the program is written: the service's crate, and the other members.
const PRODUCT: [&str; 6] =
    ["src", "bench/src", "command/src", "console/src", "migration/src", "terminal/src"];

pub struct SourceFile {
    /// From the root of the repository, with `/`.
    path: String,
    pub text: String,
}

impl SourceFile {
    fn is_under(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    /// Its lines with their numbers, without comments and without a module of unit tests, which
    /// comes last.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let lines = self.text[..tests].lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The files that it says are for tests only: `#[cfg(test)] mod name;`.
    fn test_modules(&self) -> Vec<String> {
        let folder = match self.path.strip_suffix("/mod.rs") {
            Some(folder) => folder,
            // Beside it, or in the folder of its name.
            None => self.path.strip_suffix(".rs").unwrap_or_default(),
        };
        let beside = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let declarations = self.text.split("#[cfg(test)]\n").skip(1);
        let names = declarations.filter_map(|rest| {
            let line = rest.lines().next()?.trim_start_matches("pub ");
            line.strip_prefix("mod ")?.strip_suffix(';')
        });
        names.flat_map(|name| [folder, beside].map(|it| format!("{it}/{name}.rs"))).collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files under these folders.
pub fn files_under(folders: &[&str]) -> Vec<SourceFile> {
    let mut pending: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut files = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a readable folder");
            pending.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a readable file");
            let path = path.strip_prefix(root()).expect("under the root");
            files.push(SourceFile { path: path.to_string_lossy().replace('\\', "/"), text });
        }
    }
    assert!(!files.is_empty(), "no files under {folders:?}");
    files.sort_by(|left, right| left.path.cmp(&right.path));
    files
}

/// The same without files that are for tests only.
fn product_files_under(folders: &[&str]) -> Vec<SourceFile> {
    let mut files = files_under(folders);
    let tests: Vec<String> = files.iter().flat_map(SourceFile::test_modules).collect();
    files.retain(|file| !tests.contains(&file.path));
    files
}

#[track_caller]
fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// Lines of code that contain one of these words, in files that must not.
fn lines_with(words: &[&str], must_not: impl Fn(&SourceFile) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in product_files_under(&["src"]).iter().filter(|file| must_not(file)) {
        for (number, line) in file.code() {
            // What is in quotation marks is text for people, and no use of anything.
            let unquoted: String = line.split('"').step_by(2).collect();
            if words.iter().any(|word| contains_word(&unquoted, word)) {
                found.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    found
}

/// Whether the line has the word, not as a part of a longer one.
fn contains_word(line: &str, word: &str) -> bool {
    let is_part =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    line.match_indices(word).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|at| line.as_bytes().get(at));
        let is_open = word.ends_with('(') || !is_part(line.as_bytes().get(at + word.len()));
        is_open && !is_part(before)
    })
}

#[test]
fn the_domain_is_pure() {
    let impure = ["tokio", "tonic", "tonic_types", "sea_orm", "prost", "prost_types", "sqlx"];
    let found = lines_with(&impure, |file| file.is_under(&["src/domain/"]));
    assert_none("src/domain knows no runtime, wire or database", found);
}

#[test]
fn types_of_the_wire_never_leave_grpc() {
    let found = lines_with(&["Status"], |file| {
        !file.is_under(&["src/grpc/"]) && file.text.contains("tonic::Status")
    });
    assert_none("tonic::Status never leaves src/grpc", found);
    let found =
        lines_with(&["tonic::Status", "tonic_types"], |file| !file.is_under(&["src/grpc/"]));
    let found = found.into_iter().filter(|line| !line.contains("FILE_DESCRIPTOR_SET")).collect();
    assert_none("tonic::Status and error details never leave src/grpc", found);
}

#[test]
fn the_database_never_leaves_storage() {
    let words = ["sea_orm", "sqlx", "DbErr", "DatabaseConnection", "sea_query"];
    let found = lines_with(&words, |file| !file.is_under(&["src/storage/"]));
    assert_none("SeaORM is storage's", found);
}

#[test]
fn only_the_ledger_begins_and_commits() {
    // The writer is how the ledger does it; the schema is there before there is a ledger; a
    // snapshot only reads; an import fills a database in which nothing has happened yet.
    let allowed = [
        "src/ledger/",
        "src/storage/write/transaction.rs",
        "src/storage/schema/",
        "src/storage/snapshot.rs",
        "src/storage/archive/import.rs",
    ];
    let words = ["commit()", "begin()", "begin_with_options("];
    let found = lines_with(&words, |file| !file.is_under(&allowed));
    assert_none("transactions are begun and committed by the ledger, through the writer", found);
}

#[test]
fn files_and_lines_are_short_enough_to_read() {
    let mut found = Vec::new();
    for file in files_under(&[&PRODUCT, ["tests", "examples"].as_slice()].concat()) {
        let lines = file.text.lines().count();
        if lines > FILE_LENGTH_MAX {
            found.push(format!("{} has {lines} lines", file.path));
        }
        for (index, line) in file.text.lines().enumerate() {
            let length = line.chars().count();
            if length > LINE_LENGTH_MAX {
                found.push(format!("{}:{} has {length} characters", file.path, index + 1));
            }
        }
    }
    assert_none("too long", found);
}

#[test]
fn every_test_file_is_part_of_the_suite() {
    let files = files_under(&["tests/passbook"]);
    let mut found = Vec::new();
    for file in &files {
        let (folder, name) = file.path.rsplit_once('/').expect("a folder");
        let (folder, name) = match name {
            "main.rs" => continue,
            "mod.rs" => folder.rsplit_once('/').expect("a folder"),
            name => (folder, name.trim_end_matches(".rs")),
        };
        let declares = [format!("mod {name};"), format!("pub mod {name};")];
        let parents = ["main.rs", "mod.rs"].map(|parent| format!("{folder}/{parent}"));
        let is_named = files.iter().filter(|file| parents.contains(&file.path)).any(|parent| {
            parent.text.lines().any(|line| declares.iter().any(|declared| line == declared))
        });
        if !is_named {
            found.push(file.path.clone());
        }
    }
    assert_none("not part of the suite", found);
}

#[test]
fn every_rpc_is_called_by_a_test() {
    let rpcs: Vec<&str> = METHODS
        .iter()
        .filter(|method| [ACCOUNT_SERVICE, ADMIN_SERVICE].contains(&method.service.as_str()))
        .map(|method| method.name.as_str())
        .collect();
    assert!(rpcs.len() >= 35, "{rpcs:?}");
    // The harness has helpers that any test may call, or none.
    let tests = files_under(&["tests/passbook"]).into_iter();
    let tests: String = tests
        .filter(|file| !file.is_under(&["tests/passbook/harness"]))
        .map(|it| it.text)
        .collect();
    let untested =
        rpcs.into_iter().filter(|rpc| !tests.contains(&format!(".{}(", snake_case(rpc))));
    assert_none("no test calls it", untested.map(str::to_owned).collect());
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}
