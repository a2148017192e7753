//! The bug: a balance is read, changed in memory and written back, and no lock is taken.

use sea_orm::{
    ActiveModelTrait, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, EntityTrait,
    Schema, Set, sea_query::Table,
};
use tokio::sync::Barrier;

use crate::story::{CHANGE, START};

/// The table of the bug. Passbook does not know it.
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

/// Whether the unlucky moment is arranged.
#[derive(Clone, Copy)]
pub enum Moment {
    /// Neither writes before both have read.
    Arranged,
    /// Both start together; the rest is chance.
    LeftToChance,
}

/// What one process saw and did.
pub struct Change {
    pub read: i64,
    pub written: i64,
}

/// What both did, and what the account holds after it.
pub struct Round {
    pub deposit: Change,
    pub withdrawal: Change,
    pub balance: i64,
}

/// One table and two connections. Each connection stands for a process: a database knows sessions,
/// not programs, so two connections of one program meet as two programs would.
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

    /// One round on an account of its own.
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

    /// Leaves the database as it was.
    pub async fn remove(self) -> anyhow::Result<()> {
        self.withdrawer.close().await?;
        let table = Table::drop().table(account::Entity).to_owned();
        self.depositor.execute(&table).await?;
        self.depositor.close().await?;
        Ok(())
    }
}

/// The bug itself. Each statement is right, and so is the sum; between the two lines that touch
/// the database another process may write, and that is overwritten.
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
