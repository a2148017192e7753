//! Which PostgreSQL server a session is with, and whether it may be used after another one.

use std::fmt;

/// The identity of a primary: two hosts of a URL may be the same one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerIdentity {
    /// The system identifier: the same for a primary and all of its standbys.
    system: String,
    /// The timeline: it grows by one with each promotion.
    timeline: u32,
    /// When it was started, in microseconds since the Unix epoch.
    started_us: i64,
}

impl ServerIdentity {
    /// The columns that [`parse`](Self::parse) takes. On a standby the timeline is NULL: it writes no
    /// log.
    pub const COLUMNS: [&str; 3] = [
        "(SELECT system_identifier::text FROM pg_control_system())",
        // A log file is named after the timeline, in hexadecimal digits.
        "CASE WHEN NOT pg_is_in_recovery() \
            THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END",
        "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text",
    ];

    /// Reads the values of the columns.
    pub fn parse(system: String, timeline: &str, started_us: &str) -> Result<Self, String> {
        let wrong = |_| "the server's identity is not a number".to_owned();
        Ok(Self {
            system,
            timeline: u32::from_str_radix(timeline, 16).map_err(wrong)?,
            started_us: started_us.parse().map_err(wrong)?,
        })
    }

    /// Whether this server was promoted after `known`.
    pub fn is_later_than(&self, known: &Self) -> bool {
        self.timeline > known.timeline
    }

    /// Checks that this server may be used after `known`: it has what was acknowledged there.
    ///
    /// # Errors
    /// The reason, which continues the name of a host.
    pub fn check_after(&self, known: &Self) -> Result<(), String> {
        if self.system != known.system {
            let than = "than the server used before";
            return Err(format!("belongs to another cluster ({self}) {than} ({known})"));
        }
        if known.is_later_than(self) {
            let later = "a later one was used before";
            return Err(format!("is an outdated primary ({self}): {later} ({known})"));
        }
        Ok(())
    }
}

impl fmt::Display for ServerIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "system identifier {}, timeline {}", self.system, self.timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(system: &str, timeline: &str) -> ServerIdentity {
        ServerIdentity::parse(system.to_owned(), timeline, "1764000000000000").unwrap()
    }

    #[test]
    fn a_server_of_another_cluster_or_an_earlier_timeline_may_not_be_used() {
        let known = server("7", "0000000A");
        let again = ServerIdentity { started_us: 0, ..known.clone() };
        for (next, expected) in [
            (again, None),
            (server("7", "0000000B"), None),
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
        ] {
            assert_eq!(next.check_after(&known).err().as_deref(), expected);
        }
    }

    #[test]
    fn an_identity_that_is_no_number_is_an_error() {
        for (timeline, started_us) in [("", "1"), ("0000000G", "1"), ("00000001", "now")] {
            ServerIdentity::parse("7".to_owned(), timeline, started_us).unwrap_err();
        }
    }
}
