//! The figures. Figures that are compared are neighbors in the list, so that a slower phase of the
//! machine affects both.

/// One figure.
pub struct Figure {
    pub name: &'static str,
    pub subject: Subject,
}

/// The way in which a figure is measured. Rates are changes a second.
#[derive(Clone, Copy)]
pub enum Subject {
    /// `passbook bench` with servers of its own.
    Passbook { database: Database, load: Load, servers: u32 },
    /// `passbook bench` with a server of `lock_per_request`.
    LockPerRequest { database: Database, load: Load },
    /// pgbench with `scripts/pgbench_change.sql`.
    Pgbench { accounts: u32, clients: u32 },
    /// One connection that writes 1000 changes in each database transaction, by UNNEST.
    Wall { accounts: usize },
    /// Uniform load while psql has locked one row.
    ForeignLock,
    /// The memory of the server.
    Memory,
    /// The load on an empty database, or on the full one.
    Growth { full: bool },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

/// The parameters of `passbook bench`.
#[derive(Clone, Copy)]
pub struct Load {
    pub workload: &'static str,
    pub mode: &'static str,
    pub in_flight: u32,
}

/// The number of accounts, except for the growth.
pub const ACCOUNTS: u32 = 10_000;

const fn load(workload: &'static str, mode: &'static str, in_flight: u32) -> Load {
    Load { workload, mode, in_flight }
}

const fn passbook(name: &'static str, load: Load) -> Figure {
    Figure { name, subject: Subject::Passbook { database: Database::Postgres, load, servers: 1 } }
}

const fn plain(name: &'static str, load: Load) -> Figure {
    Figure { name, subject: Subject::LockPerRequest { database: Database::Postgres, load } }
}

const fn pgbench(name: &'static str, accounts: u32, clients: u32) -> Figure {
    Figure { name, subject: Subject::Pgbench { accounts, clients } }
}

/// Calls that touch no ledger: the way to the server and back.
const NO_LEDGER: &str = "stats";
const HOT: Load = load("hot", "unary", 512);
const UNIFORM: Load = load("uniform", "unary", 512);

pub const FIGURES: &[Figure] = &[
    passbook("no ledger 512", load(NO_LEDGER, "unary", 512)),
    passbook("hot 512", HOT),
    plain("hot 512, lock per request", HOT),
    pgbench("hot, pgbench 32", 1, 32),
    passbook("hot stream 512", load("hot", "stream", 512)),
    Figure {
        name: "hot 512, three servers",
        subject: Subject::Passbook { database: Database::Postgres, load: HOT, servers: 3 },
    },
    passbook("hot 32", load("hot", "unary", 32)),
    passbook("no ledger 32", load(NO_LEDGER, "unary", 32)),
    passbook("uniform 512", UNIFORM),
    plain("uniform 512, lock per request", UNIFORM),
    pgbench("uniform, pgbench 32", ACCOUNTS, 32),
    passbook("uniform stream 512", load("uniform", "stream", 512)),
    Figure { name: "uniform, UNNEST wall", subject: Subject::Wall { accounts: ACCOUNTS as usize } },
    passbook("uniform 32", load("uniform", "unary", 32)),
    passbook("uniform 16", load("uniform", "unary", 16)),
    pgbench("uniform, pgbench 16", ACCOUNTS, 16),
    passbook("uniform 1", load("uniform", "unary", 1)),
    pgbench("uniform, pgbench 1", ACCOUNTS, 1),
    passbook("transfer 512", load("transfer", "unary", 512)),
    Figure {
        name: "SQLite hot 512",
        subject: Subject::Passbook { database: Database::Sqlite, load: HOT, servers: 1 },
    },
    Figure {
        name: "SQLite hot 512, lock per request",
        subject: Subject::LockPerRequest { database: Database::Sqlite, load: HOT },
    },
    Figure {
        name: "SQLite uniform 512",
        subject: Subject::Passbook { database: Database::Sqlite, load: UNIFORM, servers: 1 },
    },
    Figure {
        name: "SQLite uniform 512, lock per request",
        subject: Subject::LockPerRequest { database: Database::Sqlite, load: UNIFORM },
    },
    Figure { name: "row locked", subject: Subject::ForeignLock },
    Figure { name: "memory", subject: Subject::Memory },
    Figure { name: "growth, empty", subject: Subject::Growth { full: false } },
    Figure { name: "growth, full", subject: Subject::Growth { full: true } },
];
