//! An account service with a lock per request, to compare Passbook with.
//!
//! This is the usual design with SeaORM, behind the same gRPC transport: each call begins a database
//! transaction, locks the row (`lock_exclusive()`), updates it, inserts an entry, and commits. It is
//! tuned: prepared statements, no row is read back, integers for money, as many connections as pgbench
//! has clients, no test of connections. It does less than Passbook: it has no hash chain, no stored
//! rejections, one table fewer, and no labels.
//!
//! `cargo run --release --example compare` starts this program. By hand:
//!
//! ```text
//! PASSBOOK_DATABASE_URL=postgres://... cargo run --release --example lock_per_request
//! ```

mod service;

use std::time::Duration;

use clap::Parser;
use passbook::{
    config::LimitsConfig,
    domain::money::Currencies,
    proto::{self, account_service_server::AccountServiceServer},
    server,
};
use sea_orm::{
    ActiveValue::Set, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend,
    DbErr, QuerySelect, SqliteTransactionMode, TransactionOptions, TransactionTrait,
    entity::prelude::*, prelude::Expr,
};
use tokio::net::TcpListener;
use tonic::{Status, transport::server::TcpIncoming};

/// The number of connections: that of pgbench's clients in the same comparison.
const POSTGRES_CONNECTIONS: u32 = 32;

mod account {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, DeriveEntityModel)]
    #[sea_orm(table_name = "plain_accounts")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub account_id: String,
        pub balance_cents: i64,
        pub overdraft_limit_cents: i64,
        pub sequence: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod entry {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, DeriveEntityModel)]
    #[sea_orm(table_name = "plain_entries")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub account_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub sequence: i64,
        #[sea_orm(unique)]
        pub request_id: String,
        pub amount_cents: i64,
        pub balance_after_cents: i64,
        pub create_time_us: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

const SCHEMA: &str = "\
    CREATE TABLE IF NOT EXISTS plain_accounts (account_id TEXT PRIMARY KEY, \
        balance_cents BIGINT NOT NULL, overdraft_limit_cents BIGINT NOT NULL, \
        sequence BIGINT NOT NULL); \
    CREATE TABLE IF NOT EXISTS plain_entries (account_id TEXT NOT NULL, \
        sequence BIGINT NOT NULL, request_id TEXT NOT NULL UNIQUE, \
        amount_cents BIGINT NOT NULL, balance_after_cents BIGINT NOT NULL, \
        create_time_us BIGINT NOT NULL, PRIMARY KEY (account_id, sequence));";

/// Serves with the same transport as Passbook.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    limits: LimitsConfig,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { limits } = Arguments::parse();
    let database = connect(&std::env::var("PASSBOOK_DATABASE_URL")?).await?;
    // Each page has room for the next version of a row, like the tables of Passbook.
    let fillfactor = match database.get_database_backend() {
        DbBackend::Postgres => "ALTER TABLE plain_accounts SET (fillfactor = 70);",
        _ => "",
    };
    database.execute_unprepared(&format!("{SCHEMA}{fillfactor}")).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    println!("ready: listening on {address}, a lock per request");
    let service = AccountServiceServer::new(Plain { database });
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    server::transport(&limits).add_service(service).serve_with_incoming(incoming).await?;
    Ok(())
}

async fn connect(url: &str) -> Result<DatabaseConnection, DbErr> {
    let is_sqlite = url.starts_with("sqlite:");
    let mut options = ConnectOptions::new(url);
    let connections = if is_sqlite { 1 } else { POSTGRES_CONNECTIONS };
    options
        .max_connections(connections)
        .min_connections(connections)
        .acquire_timeout(Duration::from_secs(60))
        .test_before_acquire(false)
        .sqlx_logging(false);
    let database = Database::connect(options).await?;
    if is_sqlite {
        // The same durability as that of Passbook.
        database.execute_unprepared("PRAGMA journal_mode = WAL").await?;
        database.execute_unprepared("PRAGMA synchronous = FULL").await?;
    }
    Ok(database)
}

struct Plain {
    database: DatabaseConnection,
}

impl Plain {
    async fn change(
        &self,
        request_id: String,
        account_id: String,
        cents: i64,
    ) -> Result<proto::Transaction, Status> {
        let create_time_us = now_us();
        let is_sqlite = self.database.get_database_backend() == DbBackend::Sqlite;
        let options = TransactionOptions {
            sqlite_transaction_mode: is_sqlite.then_some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let transaction = self.database.begin_with_options(options).await.map_err(status)?;
        let account = account::Entity::find_by_id(account_id.as_str())
            .lock_exclusive()
            .one(&transaction)
            .await
            .map_err(status)?
            .ok_or_else(|| Status::not_found("no such account"))?;
        let balance_cents = account.balance_cents + cents;
        if cents < 0 && balance_cents + account.overdraft_limit_cents < 0 {
            return Err(Status::failed_precondition("insufficient funds"));
        }
        let sequence = account.sequence + 1;
        account::Entity::update_many()
            .col_expr(account::Column::BalanceCents, Expr::value(balance_cents))
            .col_expr(account::Column::Sequence, Expr::value(sequence))
            .filter(account::Column::AccountId.eq(account_id.as_str()))
            .exec(&transaction)
            .await
            .map_err(status)?;
        let row = entry::ActiveModel {
            account_id: Set(account_id.clone()),
            sequence: Set(sequence),
            request_id: Set(request_id.clone()),
            amount_cents: Set(cents),
            balance_after_cents: Set(balance_cents),
            create_time_us: Set(create_time_us),
        };
        entry::Entity::insert(row).exec_without_returning(&transaction).await.map_err(status)?;
        transaction.commit().await.map_err(status)?;
        let entry = proto::Entry {
            account_id,
            sequence,
            amount: Some(dollars(cents)),
            balance_after: Some(dollars(balance_cents)),
            ..Default::default()
        };
        Ok(proto::Transaction { request_id, entries: vec![entry], ..Default::default() })
    }

    async fn accounts(&self, ids: &[String]) -> Result<Vec<proto::Account>, Status> {
        let rows = account::Entity::find()
            .filter(account::Column::AccountId.is_in(ids.iter().map(String::as_str)))
            .all(&self.database)
            .await
            .map_err(status)?;
        Ok(rows.into_iter().map(encode).collect())
    }
}

fn encode(row: account::Model) -> proto::Account {
    proto::Account {
        account_id: row.account_id,
        currency_code: "USD".to_owned(),
        balance: Some(dollars(row.balance_cents)),
        sequence: row.sequence,
        ..Default::default()
    }
}

fn now_us() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn dollars(cents: i64) -> proto::Money {
    let value = rust_decimal::Decimal::new(cents, 2).to_string();
    proto::Money { currency_code: "USD".to_owned(), value }
}

fn cents(money: Option<proto::Money>) -> Result<i64, Status> {
    let money = money.unwrap_or_default();
    let refused = |error: &dyn std::error::Error| Status::invalid_argument(error.to_string());
    let currency =
        Currencies::default().get(&money.currency_code).map_err(|error| refused(&error))?;
    let amount = currency.parse(&money.value).map_err(|error| refused(&error))?;
    i64::try_from(amount.decimal().mantissa()).map_err(|error| refused(&error))
}

fn status(error: DbErr) -> Status {
    match error.sql_err() {
        Some(sea_orm::SqlErr::UniqueConstraintViolation(_)) => {
            Status::already_exists("the request_id was used before")
        }
        _ => Status::unavailable(error.to_string()),
    }
}
