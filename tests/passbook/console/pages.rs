//! What the pages show, on both databases, with and without authentication.

use crate::harness::{
    console::{Browser, Console, encoded},
    credentials::{Callers, identity},
    *,
};

/// A ledger with something of everything: a deposit, a transfer, a reversal, a hold, a freeze and a
/// rejected request.
pub(super) struct Story {
    pub(super) transfer: Transaction,
    pub(super) hold: Hold,
}

pub(super) async fn play(client: &Client) -> Story {
    let labels = labels(&[("customer", "4711")]);
    open_with(client, CreateAccountRequest { labels, ..account_of("alice", "USD") }).await;
    open(client, "shop").await;
    deposited(client, "alice", "100.00").await;
    let request = TransferRequest {
        request_id: "order-1".to_owned(),
        description: "two tickets".to_owned(),
        ..transfer("alice", "shop", "40.00")
    };
    let applied = client.transfer(request).await.expect("applied");
    let hold = place(client, hold_named("booking", "alice", "25.00")).await;
    let too_much =
        WithdrawRequest { request_id: "order-2".to_owned(), ..withdrawal("alice", "99") };
    client.withdraw(too_much).await.expect_err("rejected");
    let reason = "chargeback".to_owned();
    let freeze =
        FreezeAccountRequest { account_id: "alice".to_owned(), reason, ..Default::default() };
    client.freeze_account(freeze).await.expect("frozen");
    Story { transfer: applied.transaction.expect("a transaction"), hold }
}

/// Asserts that a page has these texts.
#[track_caller]
pub(super) fn has(page: &str, texts: &[&str]) {
    for text in texts {
        assert!(page.contains(text), "{text:?} is not in: {page}");
    }
}

/// Asks the questions of support.
async fn ask(browser: &Browser<'_>, story: &Story, who: &str) {
    let page = browser.page("/?prefix=al").await;
    has(&page, &["href=\"/account?id=alice\"", "60.00", "frozen", "customer=4711"]);
    assert!(!page.contains("id=shop"), "{page}");
    has(&browser.page("/?label=customer%3D4711").await, &["/account?id=alice"]);
    has(&browser.page("/?state=OPEN").await, &["/account?id=shop"]);
    has(&browser.page("/?prefix=nobody").await, &["No account matches."]);

    let account = browser.page("/account?id=alice").await;
    // On hold: which hold, and of how much.
    has(&account, &["60.00 USD", "25.00 USD", "35.00 USD", "<polyline points=", "booking"]);
    // Frozen: by whom and why.
    has(&account, &["frozen", "chargeback", "state: &#34;open&#34; to &#34;frozen&#34;"]);
    let changes = browser.page("/changes?account_id=alice").await;
    has(&changes, &["chargeback", who]);

    // The 40.00: from the statement to the transaction to the other account.
    let statement = browser.page("/statement?account_id=alice").await;
    let id = &story.transfer.transaction_id;
    has(&statement, &["-40.00", &format!("href=\"/transaction?id={id}\"")]);
    let transaction = browser.page(&format!("/transaction?id={id}")).await;
    has(&transaction, &["two tickets", "order-1", "href=\"/account?id=shop\"", who]);
    let list = browser.page("/transactions?account_id=alice&kind=TRANSFER").await;
    has(&list, &["two tickets", "alice -40.00 USD, shop 40.00 USD"]);
    assert!(!list.contains("<td>deposit"), "{list}");

    let hold = browser.page(&format!("/hold?id={}", encoded(&story.hold.hold_id))).await;
    has(&hold, &["booking", "25.00 USD", "open", who]);
    has(&browser.page("/holds?account_id=alice&state=OPEN").await, &["booking"]);
    has(&browser.page("/holds?account_id=alice&state=EXPIRED").await, &["no such holds"]);

    has(&browser.page("/request?id=order-1").await, &["applied", "two tickets"]);
    has(&browser.page("/request?id=order-2").await, &["rejected", "INSUFFICIENT_FUNDS"]);
    has(&browser.page("/request?id=order-3").await, &["not seen", "may still arrive"]);
    has(&browser.page("/verify?account_id=alice").await, &[">valid", ">2<"]);
    let health = browser.page("/health").await;
    has(&health, &["Since the server started", "wait for row locks", "Contended accounts"]);
}

async fn questions_of_support_have_a_page(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let policy = identity("clerk", &["*"], &[""]);
    let callers = Callers::new(&[("clerk", "clerk-token")], &policy);
    let (server, console) = callers.serve_with_console(&database, &[]).await;
    let story = play(&server.client_of("clerk-token")).await;
    ask(&console.signed_in("clerk-token").await, &story, "clerk").await;
}

async fn without_authentication_there_is_no_login(kind: Kind) {
    let database = TestDatabase::create(kind).await;
    let (server, console) = Server::start_with_console(&database, &[]).await;
    let story = play(&server.client()).await;
    let browser = console.browser();
    ask(&browser, &story, "").await;
    assert!(!browser.page("/").await.contains("Sign out"));
    assert_eq!(browser.post("/login", "token=any").await.header("location"), Some("/"));
}

on_both_databases!(questions_of_support_have_a_page, without_authentication_there_is_no_login);

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_has_pages_and_windows_of_time() {
    let (_database, server, console) = start_console(&[]).await;
    let client = server.client();
    open(&client, "alice").await;
    post_many(&client, "alice", 60).await;
    let browser = console.browser();
    let first = browser.page("/statement?account_id=alice").await;
    has(&first, &["data-live", ">60<", ">11<"]);
    let next = next_page(&first);
    let second = browser.page(&next).await;
    has(&second, &[">10<", ">1<", "First page"]);
    assert!(!second.contains("data-live") && !second.contains("Next page"), "{second}");
    let oldest = browser.page("/statement?account_id=alice&order=oldest").await;
    has(&oldest, &[">1<", ">50<"]);
    assert!(!oldest.contains("data-live"), "{oldest}");
    let past = "from=2020-01-01T00%3A00&until=2020-01-02T00%3A00%3A00";
    let past = browser.page(&format!("/statement?account_id=alice&{past}")).await;
    has(&past, &["There are no entries.", "value=\"2020-01-01T00:00\""]);
}

/// Path and query of the link to the next page.
fn next_page(page: &str) -> String {
    let (before, _) = page.split_once("\">Next page").expect("a next page");
    let (_, path) = before.rsplit_once("href=\"").expect("a link");
    path.replace("&#38;", "&").replace("&amp;", "&")
}

/// A ledger in SQLite with a console without authentication.
pub async fn start_console(arguments: &[&str]) -> (TestDatabase, Server, Console) {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let (server, console) = Server::start_with_console(&database, arguments).await;
    (database, server, console)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_problem_is_a_page_with_its_status() {
    let (_database, _server, console) = start_console(&[]).await;
    let browser = console.browser();
    for (path, status, text) in [
        ("/account?id=nobody", 404, "ACCOUNT_NOT_FOUND"),
        ("/account", 400, "INVALID_ACCOUNT_ID"),
        ("/transaction?id=1", 400, "INVALID_TRANSACTION_ID"),
        ("/hold?id=nothing", 404, "HOLD_NOT_FOUND"),
        ("/statement?account_id=nobody", 404, "ACCOUNT_NOT_FOUND"),
        ("/statement?account_id=nobody&from=now", 400, "is no time"),
        ("/transactions?label=team", 400, "write key=value"),
        ("/?prefix=%2F", 400, "INVALID_FILTER"),
        ("/?page=nonsense", 400, "INVALID_PAGE_TOKEN"),
        ("/nothing", 404, "No such page"),
    ] {
        let response = browser.get(path).await;
        assert_eq!(response.status, status, "{path}: {}", response.body);
        has(&response.body, &[text]);
    }
}

/// A person may read a part of a page.
#[tokio::test(flavor = "multi_thread")]
async fn the_policy_decides_what_a_person_sees() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let policy = [
        identity("boss", &["*"], &[""]),
        identity("clerk", &["ListAccounts", "GetAccount", "ListEntries"], &["a"]),
    ];
    let tokens = [("boss", "boss-token"), ("clerk", "clerk-token")];
    let callers = Callers::new(&tokens, &policy.concat());
    let (server, console) = callers.serve_with_console(&database, &[]).await;
    let client = server.client_of("boss-token");
    open_all(&client, &["alice", "bob"]).await;
    deposited(&client, "alice", "5.00").await;

    let browser = console.signed_in("clerk-token").await;
    let accounts = browser.page("/").await;
    assert!(accounts.contains("id=alice") && !accounts.contains("id=bob"), "{accounts}");
    let alice = browser.page("/account?id=alice").await;
    has(&alice, &["5.00 USD", "PERMISSION_DENIED", "ListHolds", "ListAccountChanges"]);
    let bob = browser.get("/account?id=bob").await;
    assert_eq!(bob.status, 403, "{}", bob.body);
    has(&bob.body, &["PERMISSION_DENIED"]);
    let nobody = browser.get("/account?id=nobody").await;
    assert_eq!(bob.body.replace("bob", ""), nobody.body.replace("nobody", ""), "reveals nothing");
    assert!(browser.get("/transactions").await.body.contains("name=\"account_id\""), "the form");
    for path in ["/health", "/request?id=1", "/verify?account_id=alice", "/transactions"] {
        assert_eq!(browser.get(path).await.status, 403, "{path}");
    }
    let boss = console.signed_in("boss-token").await;
    has(&boss.page("/account?id=bob").await, &["0.00 USD"]);
}
