//! All commands in one session, whose output must be that of `session.txt`. With
//! `PASSBOOK_TEST_UPDATE=1` the test of SQLite writes that file anew.

use std::{fs, path::PathBuf};

use uuid::Uuid;

use crate::harness::{
    credentials::{Callers, identity},
    *,
};

on_both_databases! {
    a_session_with_a_token_prints_what_the_file_has,
    a_session_without_tokens_has_the_same_exit_codes,
}

const TIME: &str = "2026-01-01T00:00:00.000000Z";

/// The ids of a run, by the order in which they came.
#[derive(Default)]
struct Ids(Vec<String>);

impl Ids {
    /// The stand-in for an id: as long as an id, so that tables look the same.
    fn stand_in(index: usize) -> String {
        format!("00000000-0000-7000-8000-{:012}", index + 1)
    }

    /// The text with stand-ins for everything that differs from run to run: ids, times, hashes.
    fn hide(&mut self, text: &str) -> String {
        let mut hidden = String::new();
        let is_part = |it: char| it.is_ascii_alphanumeric() || "-:.+/=".contains(it);
        for piece in text.split_inclusive(|it: char| !is_part(it)) {
            let word = piece.trim_end_matches(|it: char| !is_part(it));
            hidden.push_str(&self.hide_word(word));
            hidden.push_str(&piece[word.len()..]);
        }
        hidden
    }

    fn hide_word(&mut self, word: &str) -> String {
        if word.len() == 36 && Uuid::try_parse(word).is_ok() {
            let known = self.0.iter().position(|id| id == word);
            return Self::stand_in(known.unwrap_or_else(|| {
                self.0.push(word.to_owned());
                self.0.len() - 1
            }));
        }
        let is_hash = word.len() == 44 && word.ends_with('=');
        match word {
            _ if is_hash => "(hash)".to_owned(),
            // A time of the command line, not of this run.
            _ if word.starts_with("2999-") => word.to_owned(),
            _ if humantime::parse_rfc3339(word).is_ok() => TIME.to_owned(),
            _ => word.to_owned(),
        }
    }

    /// The words of a command line, with the ids of this run.
    fn words(&self, line: &str) -> Vec<String> {
        let line =
            self.0.iter().enumerate().fold(line.to_owned(), |line, (index, id)| {
                line.replace(&Self::stand_in(index), id)
            });
        // Every second part is in quotation marks.
        let parts = line.split('\'').enumerate();
        let words = parts.flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        words.collect()
    }
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/passbook/terminal/session.txt")
}

fn expected() -> String {
    fs::read_to_string(file()).expect("the session")
}

/// Runs the commands of a session, and returns the session as it was.
async fn run(session: &str, environment: &[(&str, &str)]) -> String {
    let mut ids = Ids::default();
    let mut text = String::new();
    for line in session.lines().filter_map(|line| line.strip_prefix("$ passbook ")) {
        let words = ids.words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let outcome = passbook_in(environment, &words).await;
        text.push_str(&format!("$ passbook {line}\n"));
        // Errors of clap have several lines that are not ours.
        let is_usage = outcome.stderr.contains("For more information");
        let stderr = if is_usage { "usage" } else { outcome.stderr.as_str() };
        text.extend(ids.hide(stderr).lines().map(|line| format!("2> {line}\n")));
        text.push_str(&ids.hide(&outcome.stdout));
        if outcome.code != Some(0) {
            text.push_str(&format!("exit code {}\n", outcome.code.unwrap_or(-1)));
        }
    }
    text
}

async fn a_session_with_a_token_prints_what_the_file_has(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let callers = Callers::new(&[("ann", "a-token")], &identity("ann", &["*"], &[""]));
    let server = callers.serve(&database, &[]).await;
    let token_file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(token_file.path(), "a-token\n").expect("written");
    let token_file = token_file.path().to_str().expect("a plain path");
    let target = format!("http://{}", server.address);
    let environment = [("PASSBOOK_TARGET", &*target), ("PASSBOOK_TOKEN_FILE", token_file)];

    let session = run(&expected(), &environment).await;

    if kind == Kind::Sqlite && std::env::var_os("PASSBOOK_TEST_UPDATE").is_some() {
        fs::write(file(), &session).expect("written");
    }
    for (line, expected) in session.lines().zip(expected().lines()) {
        assert_eq!(line, expected, "the whole session:\n{session}");
    }
    assert_eq!(session.lines().count(), expected().lines().count(), "{session}");
}

async fn a_session_without_tokens_has_the_same_exit_codes(kind: Kind) {
    let (_database, server, _client) = start_server(kind).await;
    let target = format!("http://{}", server.address);

    let session = run(&expected(), &[("PASSBOOK_TARGET", &target)]).await;

    let codes = |session: &str| {
        let is_code = |line: &&str| line.starts_with("$ ") || line.starts_with("exit code");
        session.lines().filter(is_code).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(codes(&session), codes(&expected()), "{session}");
}
