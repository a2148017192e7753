//! The texts of all statements that are built from `tables`, as `statement_texts.sql` has them. With
//! `PASSBOOK_TEST_UPDATE=1` the test writes that file anew.

use std::{fs, path::Path};

use crate::storage::{
    dialect::{DatabaseKind, Sql},
    queries::{
        effective_times, entries, events, holds, new_entries, opening_attributes, requests,
        transactions,
    },
    write::{
        postgres,
        rows::{self, Rows},
    },
};

#[test]
fn statement_texts_are_as_written_down() {
    let mut texts = vec![
        named("INSERT_ACCOUNTS", "postgres", &postgres::INSERT_ACCOUNTS),
        named("INSERT_POSTINGS", "postgres", &postgres::INSERT_POSTINGS),
        named("UPDATE_ACCOUNTS", "postgres", &postgres::UPDATE_ACCOUNTS),
        named("INSERT_HOLDS", "postgres", &postgres::INSERT_HOLDS),
        named("UPDATE_HOLDS", "postgres", &postgres::UPDATE_HOLDS),
        of_sqlite("NEW_ACCOUNTS", &rows::NEW_ACCOUNTS),
        of_sqlite("NEW_REQUESTS", &rows::NEW_REQUESTS),
        of_sqlite("NEW_ENTRIES", &rows::NEW_ENTRIES),
        of_sqlite("NEW_COMMITS", &rows::NEW_COMMITS),
        of_sqlite("BALANCE_UPDATES", &rows::BALANCE_UPDATES),
        of_sqlite("ACCOUNT_UPDATES", &rows::ACCOUNT_UPDATES),
        of_sqlite("NEW_ACCOUNT_CHANGES", &rows::NEW_ACCOUNT_CHANGES),
        of_sqlite("NEW_HOLDS", &rows::NEW_HOLDS),
        of_sqlite("CHANGED_HOLDS", &rows::CHANGED_HOLDS),
    ];
    let queries: [(&str, &Sql); 17] = [
        ("requests::RECORDS", &requests::RECORDS),
        ("requests::BY_ID", &requests::BY_ID),
        ("requests::REVERSALS", &requests::REVERSALS),
        ("entries::BY_KEY", &entries::BY_KEY),
        ("events::NEW_COMMITS", &events::NEW_COMMITS),
        ("events::LAST_COMMIT", &events::LAST_COMMIT),
        ("events::COMMITS_OF_PAGE", &events::COMMITS_OF_PAGE),
        ("events::CHANGES_BY_KEY", &events::CHANGES_BY_KEY),
        ("holds::BY_KEY", &holds::BY_KEY),
        ("new_entries::NEW_ENTRIES", &new_entries::NEW_ENTRIES),
        ("opening_attributes::FIRST_CHANGES", &opening_attributes::FIRST_CHANGES),
        ("transactions::LIST", &transactions::LIST),
        ("transactions::LIST_OF_ACCOUNT", &transactions::LIST_OF_ACCOUNT),
        ("effective_times::ASCENDING", &effective_times::ASCENDING),
        ("effective_times::DESCENDING", &effective_times::DESCENDING),
        ("effective_times::MATCHING", &effective_times::MATCHING),
        ("effective_times::BALANCE", &effective_times::BALANCE),
    ];
    for (name, sql) in queries {
        texts.push(named(name, "postgres", sql.text(DatabaseKind::Postgres)));
        texts.push(named(name, "sqlite", sql.text(DatabaseKind::Sqlite)));
    }
    let texts = texts.join("\n");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/storage/statement_texts.sql");
    if std::env::var_os("PASSBOOK_TEST_UPDATE").is_some() {
        fs::write(&file, &texts).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap();
    assert_eq!(
        texts, written,
        "PASSBOOK_TEST_UPDATE=1 cargo test --lib statement_texts updates it"
    );
}

/// The text in lines of readable length, broken at spaces only.
fn named(name: &str, database: &str, text: &str) -> String {
    let mut lines = vec![format!("-- {name}, {database}"), String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().filter(|line| line.len() + word.len() < 100);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => *line = format!("{line} {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}

fn of_sqlite<R>(name: &str, rows: &Rows<R>) -> String {
    let [before, after] = &rows.sqlite;
    named(name, "sqlite", &format!("{before}(...){after}"))
}
