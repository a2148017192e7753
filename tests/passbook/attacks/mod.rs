//! What a hostile peer can do with all defaults: the server's memory stays small, and others are
//! served.

mod connections;
mod elements;
mod records;
mod shares;
mod unread;

use crate::harness::{
    admin::{ADMIN, Admin},
    credentials::{Callers, identity},
    *,
};

const LIST_TRANSACTIONS: &str = "/passbook.v1.AccountService/ListTransactions";
const STREAM: &str = "/passbook.v1.AccountService/StreamTransactions";
const GET_ACCOUNT: &str = "/passbook.v1.AccountService/GetAccount";
const WATCH_ENTRIES: &str = "/passbook.v1.AccountService/WatchEntries";
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// The most memory that callers without a credential may cost, in MiB.
const NOBODY_MIB_MAX: u64 = 128;
/// The most that one identity may cost.
const IDENTITY_MIB_MAX: u64 = 256;

/// A server with two identities, `a` and `b`, that may do everything, and a database of its own.
struct Target {
    server: Server,
    admin: Admin,
    idle_kib: u64,
    _callers: Callers,
    database: TestDatabase,
}

impl Target {
    async fn start(arguments: &[&str]) -> Self {
        Self::start_on(Kind::Sqlite, arguments).await
    }

    async fn start_on(kind: Kind, arguments: &[&str]) -> Self {
        let database = TestDatabase::create_for(kind, Load::Heavy).await;
        let policy = [identity("a", &["*"], &[""]), identity("b", &["*"], &[""])].concat();
        let callers = Callers::new(&[("a", "a-token"), ("b", "b-token")], &policy);
        let server = callers.serve(&database, &[&ADMIN, arguments].concat()).await;
        let (admin, idle_kib) = (server.admin(), server.memory_kib());
        Self { server, admin, idle_kib, _callers: callers, database }
    }

    fn client(&self, name: &str) -> Client {
        self.server.client_of(&format!("{name}-token"))
    }

    /// Asserts the memory above that of the idle server.
    #[track_caller]
    fn assert_memory(&self, attack: &str, mib_max: u64) {
        let mib = self.server.memory_kib().saturating_sub(self.idle_kib) / 1024;
        println!("{attack}: {mib} MiB above idle");
        assert!(mib < mib_max, "{attack}: {mib} MiB above idle, {mib_max} MiB are allowed");
    }

    /// How often this limit was reached in this scope.
    async fn shed(&self, limit: &str, scope: &str) -> f64 {
        let series = format!("passbook_calls_shed_total{{limit=\"{limit}\",scope=\"{scope}\"}}");
        self.admin.metrics().await.value(&series)
    }

    async fn in_flight(&self) -> f64 {
        self.admin.metrics().await.value("passbook_calls_in_flight")
    }
}
