//! `passbook export` and `passbook import`: a ledger moves unchanged, or not at all.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Child, Command, Stdio},
};

use passbook::storage::schema_version;

use crate::harness::{checker, *};

on_both_databases! {
    every_request_keeps_its_outcome_after_an_import,
    every_column_of_every_table_is_carried,
    a_ledger_of_the_schema_before_is_converted_and_imported,
    an_import_needs_an_empty_database,
    a_damaged_file_is_an_error_and_leaves_nothing,
    an_import_that_is_killed_leaves_nothing,
    an_export_file_appears_only_when_it_is_complete,
    an_import_creates_a_missing_schema,
}

fn other(kind: Kind) -> Kind {
    match kind {
        Kind::Sqlite => Kind::Postgres,
        Kind::Postgres => Kind::Sqlite,
    }
}

async fn export(database: &TestDatabase) -> String {
    database.passbook(&["export"]).await.must_succeed().stdout
}

async fn import(database: &TestDatabase, text: &str) -> Outcome {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("it is written");
    let path = file.path().to_string_lossy().into_owned();
    database.passbook(&["import", "--input", &path]).await
}

async fn assert_empty(database: &TestDatabase) {
    for table in ["currencies", "accounts", "requests", "entries", "holds", "account_changes"] {
        assert_eq!(database.count(table).await, 0, "{table}");
    }
}

/// A ledger with rows in every table.
async fn ledger(kind: Kind) -> (TestDatabase, Server) {
    let (database, server, client) = start_server_with(kind, &["--currency", "ETH=18"]).await;
    open_funded(&client, "alice", "100").await;
    let labelled = CreateAccountRequest {
        labels: labels(&[("team", "ä \"quoted\" \\ one"), ("a", "b")]),
        ..account_of("bob", "USD")
    };
    open_with(&client, labelled).await;
    open_with(&client, account_of("ether", "ETH")).await;
    client.transfer(transfer("alice", "bob", "40.00")).await.expect("applied");
    client.transfer(transfer("bob", "alice", "40")).await.expect("back to zero");
    let described = DepositRequest {
        amount: money_of("ETH", "0.000000000000000001"),
        description: "one wei, 'quoted' — \\n".to_owned(),
        ..deposit("ether", "1")
    };
    client.deposit(described).await.expect("applied");
    let open_hold = PlaceHoldRequest {
        expire_time: Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 1000 }),
        description: "why".to_owned(),
        ..hold_named("open", "alice", "2.50")
    };
    place(&client, open_hold).await;
    place_all(&client, "alice", "1", &["released", "captured"]).await;
    released(&client, release("released")).await;
    let captured = captured(&client, capture_to("bob", "captured", "1")).await.transaction;
    let transaction_id = captured.expect("a transaction").transaction_id;
    reversed(&client, reversal(&transaction_id)).await;
    freeze(&client, "bob").await;
    fence(&client, "fenced").await;
    (database, server)
}

async fn every_request_keeps_its_outcome_after_an_import(kind: Kind) {
    let (source, server) = ledger(kind).await;
    let client = server.client();
    let made = deposit("alice", "0.50");
    let first = client.deposit(made.clone()).await.expect("applied");
    let too_much = withdrawal("alice", "500");
    client.withdraw(too_much.clone()).await.expect_err("she has 98");
    let target = source.create_beside(other(kind)).await;

    let imported = import(&target, &export(&source).await).await.must_succeed();

    assert!(imported.stdout.contains("imported: 3 accounts, 11 entries, 13 requests"));
    target.passbook(&["verify"]).await.must_succeed();
    assert_eq!(target.count("requests WHERE kind = 'fence'").await, 1);
    let server = Server::start_with(&target, &["--currency", "ETH=18"]).await;
    let client = server.client();
    let again = client.deposit(made).await.expect("the same answer");
    assert_eq!((again.transaction.clone(), again.replayed), (first.transaction, true));
    client.deposit(deposit("alice", "1000")).await.expect("now she has enough");
    let refused_again = client.withdraw(too_much).await;
    let status = must_fail(refused_again, Reason::InsufficientFunds);
    assert_eq!(metadata(&status, "available"), "98.00");
    let fenced = DepositRequest { request_id: "fenced".to_owned(), ..deposit("alice", "1") };
    must_fail(client.deposit(fenced).await, Reason::RequestFenced);
    let transaction = again.transaction.expect("a transaction");
    let found = client.get_transaction(transaction_by_id(&transaction.transaction_id)).await;
    assert_eq!(found.expect("it exists").transaction.expect("it").entries.len(), 1);
}

async fn every_column_of_every_table_is_carried(kind: Kind) {
    let (source, server) = ledger(kind).await;
    let client = server.client();
    let forced = WithdrawRequest { force: true, ..withdrawal("bob", "100") };
    client.withdraw(forced).await.expect("applied");
    let year_ago_us = microseconds(&Some(from_now(seconds(0)))) - 365 * 86_400_000_000;
    let effective_time = Some(timestamp(year_ago_us));
    let dated = DepositRequest { effective_time, ..deposit("alice", "3") };
    let dated = client.deposit(dated).await.expect("applied").transaction;
    let transaction_id = dated.expect("a transaction").transaction_id;
    let part = ReverseTransactionRequest { amount: money("1"), ..reversal(&transaction_id) };
    reversed(&client, part.clone()).await;
    let update = hold_update("open", "3");
    let updated = client.update_hold(update.clone()).await.expect("applied").hold;
    captured(&client, capture_and_keep("open", "1")).await;
    let (events, _) = read_events(&client, all_events()).await;
    let text = export(&source).await;
    let target = source.create_beside(other(kind)).await;
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let types = [
        ("currencies", "currency"),
        ("accounts", "account"),
        ("requests", "request"),
        ("entries", "entry"),
        ("holds", "hold"),
        ("account_changes", "account_change"),
        ("commits", "commit"),
    ];
    for (table, name) in types {
        let columns = source.columns(table).await.into_iter();
        // The keys of accounts and the numbers of commits belong to the database.
        let in_a_line = |column: String| match (table, column.as_str()) {
            ("accounts", "account_key") | ("commits", "number") => None,
            ("entries" | "holds", "account_key") => Some("account_id".to_owned()),
            ("requests", "entry_keys") => Some("entry_names".to_owned()),
            _ => Some(column),
        };
        let columns: BTreeSet<String> = columns.filter_map(in_a_line).collect();
        let mut of_type = lines.iter().filter(|line| line["type"] == name);
        let line = of_type.next().and_then(|line| line.as_object()).expect("a line");
        let fields: BTreeSet<String> = line.keys().filter(|key| *key != "type").cloned().collect();
        assert_eq!(fields, columns, "{table}");
    }
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
    if kind == Kind::Postgres {
        let count: i64 = source.rows(tables).await[0].try_get_by_index(0).expect("a count");
        assert_eq!(count, types.len() as i64 + 1, "passbook_migrations is the only other table");
    }

    import(&target, &text).await.must_succeed();

    let body = |text: &str| text.split_once('\n').expect("a header").1.to_owned();
    assert_eq!(body(&export(&target).await), body(&text));
    checker::assert_consistent(&target).await;
    let server = Server::start_with(&target, &["--currency", "ETH=18"]).await;
    assert_eq!(read_events(&server.client(), all_events()).await.0, events);
    let again = server.client().reverse_transaction(part).await.expect("the same answer");
    assert!(again.replayed);
    let again = server.client().update_hold(update).await.expect("the same answer");
    assert_eq!((again.hold, again.replayed), (updated, true));
    let rest = reversed(&server.client(), reversal(&transaction_id)).await;
    assert_eq!(value(&rest.entries[0].amount), "-2.00");
}

async fn a_ledger_of_the_schema_before_is_converted_and_imported(kind: Kind) {
    let (database, server) = ledger(kind).await;
    drop(server);
    let text = export(&database).await;
    // The keys of accounts, and so the order of the lines, are others after a conversion.
    let lines = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<BTreeSet<_>>();

    database.migrate_down_before("account_keys").await;
    let migrated = database.passbook(&["migrate", "up"]).await.must_succeed();
    assert!(migrated.stderr.contains("the migration copies the entries"), "{}", migrated.stderr);

    assert_eq!(lines(&export(&database).await), lines(&text));
    database.passbook(&["verify"]).await.must_succeed();

    // An export of that schema has other fingerprints: twice as long, with the same first half.
    let before = text.replace(&schema_version(), "m20261126_000004_scales_are_kept");
    let before = before.replace("\"below_limit\":false,", "").replace(",\"details\":null", "");
    let before = before.replace(",\"placed\":null", "").replace(",\"effective_time_us\":null", "");
    let before = without_openings(&before);
    let mut before = before.split("\"fingerprint\":\"").map(str::to_owned).collect::<Vec<_>>();
    for line in &mut before[1..] {
        line.insert_str(32, &"7".repeat(32));
    }
    let before = before.join("\"fingerprint\":\"");
    // And it has no commits.
    let count = text.lines().filter(|line| line.contains("\"type\":\"commit\"")).count();
    let before = before.replace(&format!(",\"commit\":{count}"), "");
    let before = before.lines().filter(|line| !line.contains("\"type\":\"commit\""));
    let before = before.collect::<Vec<_>>().join("\n");
    let target = database.create_beside(other(kind)).await;
    import(&target, &before).await.must_succeed();
    assert_eq!(lines(&export(&target).await), lines(&text));
}

/// The lines without the opening attributes of accounts.
fn without_openings(text: &str) -> String {
    let without = |line: &str| {
        let mut object: serde_json::Value = serde_json::from_str(line).expect("JSON");
        object
            .as_object_mut()
            .expect("an object")
            .remove("opening_attributes")
            .expect("it is there");
        object.to_string()
    };
    let lines = text.lines().map(|line| match line.contains("\"type\":\"account\"") {
        true => without(line),
        false => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

async fn an_import_needs_an_empty_database(kind: Kind) {
    let (source, _server) = ledger(kind).await;
    let text = export(&source).await;
    let target = source.create_beside(other(kind)).await;
    let server = Server::start_with(&target, &["--currency", "ETH=18"]).await;
    open(&server.client(), "someone").await;

    let outcome = import(&target, &text).await;

    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("the database is not empty"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("accounts"), "{}", outcome.stderr);
    assert_eq!(target.count("accounts").await, 1);
    assert_eq!(target.count("entries").await, 0);

    // A server has registered its currencies, which does not count as content.
    let registered = source.create_beside(other(kind)).await;
    drop(Server::start_with(&registered, &["--currency", "ETH=18"]).await);
    import(&registered, &text).await.must_succeed();
    let contradicting = source.create_beside(other(kind)).await;
    drop(Server::start_with(&contradicting, &["--currency", "ETH=17"]).await);
    let outcome = import(&contradicting, &text).await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("of type currency"), "{}", outcome.stderr);
}

async fn a_damaged_file_is_an_error_and_leaves_nothing(kind: Kind) {
    let (source, _server) = ledger(kind).await;
    let text = export(&source).await;
    let target = source.create_beside(other(kind)).await;
    let lines: Vec<&str> = text.lines().collect();
    let count = lines.len();
    let without = |wanted: &str| {
        let at = lines.iter().position(|line| line.contains(wanted)).expect(wanted);
        let rest = lines.iter().enumerate().filter(|(index, _)| *index != at);
        rest.fold(String::new(), |text, (_, line)| text + line + "\n")
    };
    let a_hold = |hold_id: &str| format!("\"type\":\"hold\",\"hold_id\":\"{hold_id}\"");
    let last = &lines[count - 1];
    let entry = "\"entry\",\"account_id\":\"alice\",\"sequence\":1,";
    let more = format!("{entry}\"");
    let cases = [
        (text[..text.len() / 2].to_owned(), "was cut off"),
        (text.replace(last, "").trim_end().to_owned() + "\n", "the trailer is missing"),
        (String::new(), "line 1: the input is empty"),
        (without(entry), "field lines: says"),
        (without("\"request\""), "field lines: says"),
        (without("\"header\""), "line 1, field type"),
        (text.replace("\"100.00\"", "\"100.0.0\""), "field balance: must be a decimal"),
        (text.replace("\"100.00\"", "100.00"), "field balance: must be a decimal"),
        (text.replace(entry, "\"entry\",\"account_id\":\"alice\","), "field sequence: is missing"),
        (text.replace(&more[..more.len() - 1], &format!("{entry}\"x\":1,")), "field x: is not a"),
        (text.replace("\"state\":\"open\",\"seq", "\"state\":\"mad\",\"seq"), "of type account: "),
        (text.replace("\"held\":\"2.50\"", "\"held\":\"2.51\""), "its held is 2.51"),
        (text.replace(&a_hold("released"), &a_hold("open")), "of type hold: "),
        (
            text.replacen("\"amount\":\"100.00\"", "\"amount\":\"100.01\"", 1),
            "account alice, entry 1",
        ),
        (text.replace(&schema_version(), "m29991125_000003"), "field schema_version"),
    ];

    for (changed, words) in cases {
        let outcome = import(&target, &changed).await;
        assert_eq!(outcome.code, Some(1), "{words}");
        assert!(outcome.stderr.contains(words), "{words}:\n{}", outcome.stderr);
        assert_empty(&target).await;
    }
}

/// An import that reads from a pipe of this test.
fn import_from_pipe(database: &TestDatabase) -> Child {
    let mut command = Command::new(program());
    command.args(["import", "--database-url", database.url()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary starts")
}

async fn an_import_that_is_killed_leaves_nothing(kind: Kind) {
    let (source, _server) = ledger(kind).await;
    let text = export(&source).await;
    let target = source.create_beside(other(kind)).await;
    let mut child = import_from_pipe(&target);
    let mut pipe = child.stdin.take().expect("a pipe");
    // Everything but the trailer, and far more than the pipe and all buffers hold: once it is
    // written, a part of it is in the database.
    let at = text.rfind("{\"type\":\"account_change\"").expect("a change");
    pipe.write_all(&text.as_bytes()[..at]).expect("it reads");
    let change = text[at..].lines().next().expect("a line");
    for version in 7..20_000 {
        let change = change.replace("\"version\":6", &format!("\"version\":{version}"));
        writeln!(pipe, "{change}").expect("it reads");
    }

    child.kill().expect("it is killed");
    child.wait().expect("it ends");

    let words = async || {
        let outcome = import(&target, &text).await;
        outcome.code == Some(0) || !outcome.stderr.contains("not empty")
    };
    assert_empty(&target).await;
    assert!(words().await, "the state is unchanged");
    eventually("the import can be made", async || target.count("accounts").await == 3).await;
    target.passbook(&["verify"]).await.must_succeed();
}

async fn an_export_file_appears_only_when_it_is_complete(kind: Kind) {
    let (source, _server) = ledger(kind).await;
    let directory = tempfile::tempdir().expect("a folder");
    let file = directory.path().join("ledger.jsonl");
    let path = file.to_string_lossy().into_owned();

    let said = source.passbook(&["export", "--output", &path]).await.must_succeed().stdout;

    let text = std::fs::read_to_string(&file).expect("the file exists");
    let rows = text.lines().count() - 2;
    assert_eq!(said, format!("exported: {rows} lines to {path}\n"));
    let names: Vec<_> = std::fs::read_dir(directory.path()).expect("the folder").collect();
    assert_eq!(names.len(), 1, "nothing else is left: {names:?}");
    let body = |text: &str| text.split_once('\n').expect("a header").1.to_owned();
    assert_eq!(body(&text), body(&export(&source).await), "standard output has the same");
    let nowhere = directory.path().join("no/such/folder");
    let nowhere = nowhere.to_string_lossy().into_owned();
    let outcome = source.passbook(&["export", "--output", &nowhere]).await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains(&nowhere), "{}", outcome.stderr);
}

async fn an_import_creates_a_missing_schema(kind: Kind) {
    let (source, _server) = ledger(kind).await;
    let text = export(&source).await;
    let target = source.create_empty_beside(other(kind)).await;

    import(&target, &text).await.must_succeed();

    assert_eq!(target.count("entries").await, 10);
    let empty = source.create_empty_beside(kind).await;
    // On SQLite this makes the file.
    empty.execute("CREATE TABLE other (id int)").await;
    let outcome = empty.passbook(&["export"]).await;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
    assert!(outcome.stderr.contains("no schema"), "{}", outcome.stderr);
}
