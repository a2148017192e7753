//! The lost update: reads a balance, changes it in memory and writes it back, without a lock.

use sea_orm::{
    ActiveModelTrait, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, EntityTrait,
    Schema, Set, sea_query::Table,
};
use tokio::sync::Barrier;

use crate::story::{CHANGE, START};

/// The table without a lock. It is no table of Passbook.
mod account {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "joint_account_without_lock")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub balance: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The moment at which the two processes write.
#[derive(Clone, Copy)]
pub enum Moment {
    /// Both processes have read before one of them writes.
    Arranged,
    /// Both processes start at the same time, and nothing else is arranged.
    LeftToChance,
}

/// The balance that one process read, and the one that it wrote.
pub struct Change {
    pub read: i64,
    pub written: i64,
}

/// The changes of both processes, and the final balance.
pub struct Round {
    pub deposit: Change,
    pub withdrawal: Change,
    pub balance: i64,
}

/// One table and two connections. Each connection stands for a process: a database distinguishes
/// sessions, so two connections of one program conflict like two programs.
pub struct UnlockedAccounts {
    depositor: DatabaseConnection,
    withdrawer: DatabaseConnection,
    next_id: i64,
}

impl UnlockedAccounts {
    pub async fn create(database_url: &str) -> anyhow::Result<Self> {
        let depositor = connect(database_url).await?;
        let withdrawer = connect(database_url).await?;
        let left_over = Table::drop().table(account::Entity).if_exists().to_owned();
        depositor.execute(&left_over).await?;
        let table =
            Schema::new(depositor.get_database_backend()).create_table_from_entity(account::Entity);
        depositor.execute(&table).await?;
        Ok(Self { depositor, withdrawer, next_id: 1 })
    }

    /// Plays one round on a new account.
    pub async fn play(&mut self, moment: Moment) -> anyhow::Result<Round> {
        let id = self.next_id;
        self.next_id += 1;
        let opened = account::ActiveModel { id: Set(id), balance: Set(START) };
        opened.insert(&self.depositor).await?;
        let barrier = Barrier::new(2);
        let (deposit, withdrawal) = tokio::join!(
            change_without_lock(&self.depositor, id, CHANGE, moment, &barrier),
            change_without_lock(&self.withdrawer, id, -CHANGE, moment, &barrier),
        );
        Ok(Round {
            deposit: deposit?,
            withdrawal: withdrawal?,
            balance: read(&self.depositor, id).await?.balance,
        })
    }

    /// Removes the table.
    pub async fn remove(self) -> anyhow::Result<()> {
        self.withdrawer.close().await?;
        let table = Table::drop().table(account::Entity).to_owned();
        self.depositor.execute(&table).await?;
        self.depositor.close().await?;
        Ok(())
    }
}

/// Changes a balance without a lock. Between the read and the write another process may write, and
/// its change is overwritten.
async fn change_without_lock(
    database: &DatabaseConnection,
    id: i64,
    amount: i64,
    moment: Moment,
    barrier: &Barrier,
) -> anyhow::Result<Change> {
    if matches!(moment, Moment::LeftToChance) {
        barrier.wait().await;
    }
    let account = read(database, id).await?;
    if matches!(moment, Moment::Arranged) {
        barrier.wait().await;
    }
    let (read, written) = (account.balance, account.balance + amount);
    let mut account = account::ActiveModel::from(account);
    account.balance = Set(written);
    account.update(database).await?;
    Ok(Change { read, written })
}

async fn read(database: &DatabaseConnection, id: i64) -> anyhow::Result<account::Model> {
    let account = account::Entity::find_by_id(id).one(database).await?;
    account.ok_or_else(|| anyhow::anyhow!("account {id} is gone"))
}

async fn connect(database_url: &str) -> anyhow::Result<DatabaseConnection> {
    let mut options = ConnectOptions::new(database_url);
    options.max_connections(1).sqlx_logging(false);
    Ok(Database::connect(options).await?)
}
