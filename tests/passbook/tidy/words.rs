//! Words that the glossary bans, in code, contract and documents, also within the names of functions.

use std::{fs, path::PathBuf};

use super::{assert_none, contains_word, root};

/// Where words are checked. The glossary itself and what was published stay as they are.
const CHECKED: [&str; 20] = [
    "src",
    "bench",
    "command",
    "console",
    "migration",
    "terminal",
    "proto/passbook",
    "tests",
    "docs",
    "examples",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    // Beside them are what builds leave behind.
    "clients/README.md",
    "clients/go/README.md",
    "clients/java/README.md",
    "clients/python/README.md",
    "clients/typescript/README.md",
    "deploy",
];
const NOT_CHECKED: [&str; 2] = ["docs/glossary.md", "tests/passbook/tidy/words.rs"];
const EXTENSIONS: [&str; 5] = ["rs", "proto", "md", "toml", "yaml"];

/// The rows of the section `Banned words`: the word, and what to use.
fn banned(glossary: &str) -> Vec<(String, String)> {
    let (_, section) = glossary.split_once("## Banned words").expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let words = rows.filter_map(|row| {
        let (word, rest) = row.split_once("` |")?;
        Some((word.to_owned(), rest.trim().trim_end_matches('|').trim().to_owned()))
    });
    words.collect()
}

/// The name of the function that this line declares, as a sentence: `fn all_is_well(` has the words
/// of `all is well`.
fn function_name(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("fn ")?;
    let name = rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()?;
    Some(name.replace('_', " "))
}

/// Lines of a text that have a banned word, with what to use instead.
fn hits(path: &str, text: &str, banned: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        let name = function_name(line);
        for (word, instead) in banned {
            let is_name = word.chars().any(char::is_uppercase);
            let line = if is_name { line } else { lower.as_str() };
            let in_name = name.as_deref().is_some_and(|name| contains_word(name, word));
            if in_name || contains_word(line, word) {
                found.push(format!("{path}:{}: `{word}`, use {instead}", index + 1));
            }
        }
    }
    found
}

/// The texts, with their paths.
pub fn texts() -> Vec<(String, String)> {
    let mut pending: Vec<PathBuf> = CHECKED.iter().map(|path| root().join(path)).collect();
    let mut texts = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a readable folder");
            pending.extend(entries.map(|entry| entry.expect("an entry").path()));
            continue;
        }
        let name =
            path.strip_prefix(root()).expect("under the root").to_string_lossy().into_owned();
        let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
        if EXTENSIONS.contains(&extension) && !NOT_CHECKED.contains(&name.as_str()) {
            texts.push((name, fs::read_to_string(&path).expect("a readable file")));
        }
    }
    texts.sort();
    texts
}

#[test]
fn no_text_has_a_banned_word() {
    let glossary = fs::read_to_string(root().join("docs/glossary.md")).expect("the glossary");
    let banned = banned(&glossary);
    assert!(banned.len() > 20, "{banned:?}");
    let found = texts().iter().flat_map(|(path, text)| hits(path, text, &banned)).collect();
    assert_none("banned words", found);
}

#[test]
fn a_banned_word_is_seen() {
    let glossary = "## Banned words\n\n| Word | Use |\n|---|---|\n| `lane` | lock wait |\n\
                    | `Book` | `UnitOfWork` |\n\n## More\n| `queue` | nothing |\n";
    let banned = banned(glossary);
    let text = "a Lane of its own\nplane, lanes\nlet book = 1;\nstruct Book;\nqueue\n\
                async fn it_has_a_lane_of_its_own(kind: Kind) {\nfn lanes_are_not_banned() {";
    let found = hits("src/a.rs", text, &banned);
    assert_eq!(
        found,
        [
            "src/a.rs:1: `lane`, use lock wait",
            "src/a.rs:4: `Book`, use `UnitOfWork`",
            "src/a.rs:6: `lane`, use lock wait",
        ]
    );
}
