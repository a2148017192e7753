//! Which PostgreSQL server a session is with, what that server takes, and whether it may be used after
//! another one.

use std::fmt;

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
    /// The timeline: it grows by one with each promotion. None for a standby.
    timeline: Option<u32>,
    /// When it was started, in microseconds since the Unix epoch.
    started_us: i64,
}

impl ServerIdentity {
    /// The columns that [`parse`](Self::parse) takes. On a standby the timeline is NULL: it writes no
    /// log.
    pub const COLUMNS: [&str; 4] = [
        "(SELECT system_identifier::text FROM pg_control_system())",
        "(SELECT oid::text FROM pg_database WHERE datname = current_database())",
        // A log file is named after the timeline, in hexadecimal digits.
        "CASE WHEN NOT pg_is_in_recovery() \
            THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END",
        "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text",
    ];

    /// Reads the values of the columns.
    pub fn parse(
        state: ServerState,
        [system, database]: [String; 2],
        timeline: Option<&str>,
        started_us: &str,
    ) -> Result<Self, String> {
        let wrong = |_| "the server's identity is not a number".to_owned();
        let timeline = timeline.map(|it| u32::from_str_radix(it, 16)).transpose();
        Ok(Self {
            state,
            system,
            database,
            timeline: timeline.map_err(wrong)?,
            started_us: started_us.parse().map_err(wrong)?,
        })
    }

    /// Whether this server was promoted after `known`. A known timeline is later than an unknown one.
    pub fn is_later_than(&self, known: &Self) -> bool {
        self.timeline > known.timeline
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(
        state: ServerState,
        system: &str,
        timeline: Option<&str>,
        started_us: &str,
    ) -> Result<ServerIdentity, String> {
        let identity = [system, "16384"].map(str::to_owned);
        ServerIdentity::parse(state, identity, timeline, started_us)
    }

    fn server(system: &str, timeline: &str) -> ServerIdentity {
        parse(ServerState::Primary, system, Some(timeline), "1764000000000000").unwrap()
    }

    fn standby(system: &str) -> ServerIdentity {
        parse(ServerState::Standby, system, None, "1764000000000000").unwrap()
    }

    #[test]
    fn a_server_of_another_cluster_or_an_earlier_timeline_may_not_be_used() {
        let known = server("7", "0000000A");
        let again = ServerIdentity { started_us: 0, ..known.clone() };
        for (next, expected) in [
            (again, None),
            (server("7", "0000000B"), None),
            (standby("7"), None),
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
            parse(ServerState::Primary, "7", Some(timeline), started_us).unwrap_err();
        }
    }
}
