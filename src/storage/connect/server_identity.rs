//! Which PostgreSQL server and which ledger a session is with, what the server takes, and whether it may be
//! used after another one.

use std::fmt;

use sea_orm::sqlx::{self, AssertSqlSafe, postgres::PgConnection};

use crate::{domain::event::CommitId, storage::connect::connect_error::reason};

/// What a server takes, and so what it has. The first that answers is the one to read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerState {
    /// Takes changes.
    Primary,
    /// Is no standby, and takes none.
    ReadOnly,
    /// Follows a primary: it may lack the latest changes.
    Standby,
}

/// The identity of a server: two hosts of a URL may be the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerIdentity {
    /// What it takes.
    pub state: ServerState,
    /// The system identifier: the same for a primary and all of its standbys.
    system: String,
    /// The object id of the database: another one after it was dropped and restored.
    database: String,
    /// The object id of the schema with the ledger; None if none in the search path has one.
    pub(super) schema: Option<String>,
    /// The timeline: it grows by one with each promotion. None for a standby.
    timeline: Option<u32>,
    /// When it was started, in microseconds since the Unix epoch.
    started_us: i64,
}

impl ServerIdentity {
    /// The columns that [`parse`](Self::parse) takes. On a standby the timeline is NULL: it writes no
    /// log.
    ///
    /// The last one keeps the session with the schema that has the ledger: PostgreSQL would turn to another
    /// one as soon as that is made in front of it in the search path.
    pub fn columns() -> [String; 7] {
        let of_ledgers = |value: &str| {
            format!(
                "(SELECT string_agg({value}, ', ') FROM pg_namespace n \
                    WHERE nspname = ANY (current_schemas(false)) \
                    AND 3 = (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid \
                        AND relname IN ('accounts', 'entries', 'requests')))"
            )
        };
        let names = of_ledgers("quote_ident(nspname)");
        let keep = format!(
            "set_config('search_path', coalesce({names}, current_setting('search_path')), false)"
        );
        [
            "(SELECT system_identifier::text FROM pg_control_system())".to_owned(),
            "(SELECT oid::text FROM pg_database WHERE datname = current_database())".to_owned(),
            // A log file is named after the timeline, in hexadecimal digits.
            "CASE WHEN NOT pg_is_in_recovery() \
                THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END"
                .to_owned(),
            "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text".to_owned(),
            of_ledgers("oid::text"),
            names,
            keep,
        ]
    }

    /// Reads the values of the columns.
    ///
    /// # Errors
    /// Several schemas of the search path have a ledger, or a column has no number.
    pub fn parse(state: ServerState, columns: [Option<String>; 6]) -> Result<Self, String> {
        let [system, database, timeline, started_us, schema, names] = columns;
        if schema.as_deref().is_some_and(|ids| ids.contains(',')) {
            let names = names.unwrap_or_default();
            return Err(format!(
                "has a ledger in several schemas of the search path ({names}): name the one to use with \
                 options[search_path]= in database_url"
            ));
        }
        let wrong = || "the server's identity is not a number".to_owned();
        let timeline = timeline.map(|it| u32::from_str_radix(&it, 16)).transpose();
        Ok(Self {
            state,
            system: system.ok_or_else(wrong)?,
            database: database.ok_or_else(wrong)?,
            schema,
            timeline: timeline.map_err(|_| wrong())?,
            started_us: started_us.and_then(|it| it.parse().ok()).ok_or_else(wrong)?,
        })
    }

    /// Whether this server was promoted after `known`. A known timeline is later than an unknown one.
    pub fn is_later_than(&self, known: &Self) -> bool {
        self.timeline > known.timeline
    }

    /// Whether this is the same server as `known` after a restart, or another one of the same timeline: two
    /// standbys of one primary that were both promoted have the same.
    pub fn may_be_a_twin_of(&self, known: &Self) -> bool {
        self.timeline.is_some()
            && self.system == known.system
            && self.timeline == known.timeline
            && self.started_us != known.started_us
    }

    /// Checks that this server may be used after `known`: it is of the same ledger, and a primary has
    /// what was acknowledged there.
    ///
    /// # Errors
    /// The reason, which continues the name of a host.
    pub fn check_after(&self, known: &Self) -> Result<(), String> {
        if self.system != known.system {
            let than = "than the server used before";
            return Err(format!("belongs to another cluster ({self}) {than} ({known})"));
        }
        if self.database != known.database {
            let name = "has another database of this name than the one used before";
            return Err(format!("{name}: if it was restored, restart all servers"));
        }
        if self.schema.is_some() && known.schema.is_some() && self.schema != known.schema {
            let name = "has a ledger in another schema than the one used before";
            return Err(format!("{name}: set search_path back, or restart all servers"));
        }
        if self.timeline.is_some() && known.is_later_than(self) {
            let later = "a later one was used before";
            return Err(format!("is an outdated primary ({self}): {later} ({known})"));
        }
        Ok(())
    }
}

impl fmt::Display for ServerIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "system identifier {}, ", self.system)?;
        match self.timeline {
            Some(timeline) => write!(formatter, "timeline {timeline}"),
            None => write!(formatter, "a standby"),
        }
    }
}

/// Checks that the server has this commit, which was read from another one.
///
/// # Errors
/// It lacks the commit, or does not answer.
pub async fn require_commit(connection: &mut PgConnection, commit: CommitId) -> Result<(), String> {
    let CommitId { number, time_us } = commit;
    let sql =
        format!("SELECT 1 FROM commits WHERE number = {number} AND create_time_us = {time_us}");
    let found = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(connection).await;
    match found.map_err(|error| reason(&error))? {
        Some(_) => Ok(()),
        None => Err(format!(
            "lacks commit {number}, which was read from another primary of the same timeline: stop the \
             one that is wrong, and restart all servers"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(
        state: ServerState,
        system: &str,
        timeline: Option<&str>,
        started_us: &str,
        schema: Option<&str>,
    ) -> Result<ServerIdentity, String> {
        let columns =
            [Some(system), Some("16384"), timeline, Some(started_us), schema, Some("public, b")];
        ServerIdentity::parse(state, columns.map(|it| it.map(str::to_owned)))
    }

    fn primary(system: &str, timeline: &str, schema: Option<&str>) -> ServerIdentity {
        let started_us = "1764000000000000";
        parse(ServerState::Primary, system, Some(timeline), started_us, schema).unwrap()
    }

    fn server(system: &str, timeline: &str) -> ServerIdentity {
        primary(system, timeline, Some("2200"))
    }

    fn standby(system: &str) -> ServerIdentity {
        parse(ServerState::Standby, system, None, "1764000000000000", Some("2200")).unwrap()
    }

    #[test]
    fn a_server_of_another_cluster_or_an_earlier_timeline_may_not_be_used() {
        let known = server("7", "0000000A");
        let again = ServerIdentity { started_us: 0, ..known.clone() };
        for (next, expected) in [
            (again, None),
            (server("7", "0000000B"), None),
            (standby("7"), None),
            (primary("7", "0000000A", None), None),
            (
                primary("7", "0000000A", Some("16400")),
                Some(
                    "has a ledger in another schema than the one used before: set search_path back, \
                     or restart all servers",
                ),
            ),
            (
                server("7", "00000009"),
                Some(
                    "is an outdated primary (system identifier 7, timeline 9): a later one was \
                     used before (system identifier 7, timeline 10)",
                ),
            ),
            (
                server("8", "0000000B"),
                Some(
                    "belongs to another cluster (system identifier 8, timeline 11) than the \
                     server used before (system identifier 7, timeline 10)",
                ),
            ),
            (
                standby("8"),
                Some(
                    "belongs to another cluster (system identifier 8, a standby) than the server \
                     used before (system identifier 7, timeline 10)",
                ),
            ),
        ] {
            assert_eq!(next.check_after(&known).err().as_deref(), expected);
        }
    }

    #[test]
    fn an_identity_that_is_no_number_is_an_error() {
        for (timeline, started_us) in [("", "1"), ("0000000G", "1"), ("00000001", "now")] {
            parse(ServerState::Primary, "7", Some(timeline), started_us, None).unwrap_err();
        }
    }

    #[test]
    fn two_ledgers_in_the_search_path_are_an_error() {
        let schemas = Some("2200, 16400");
        let error = parse(ServerState::Primary, "7", Some("0000000A"), "1", schemas).unwrap_err();
        assert!(error.contains("several schemas of the search path (public, b)"), "{error}");
    }
}
