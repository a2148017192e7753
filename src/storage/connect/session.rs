//! What a session with PostgreSQL must be like.
//!
//! Each new connection gets its settings by one statement, which also reads them back: start-up
//! options do not reach the server through a pooler, and a role or a database may have defaults of
//! its own. What a promise rests on and is not as needed refuses the connection, by name. What the
//! database URL sets (`options`) counts more than what is set here, but for the promises.

use std::collections::BTreeMap;

use sea_orm::sqlx::{
    self, AssertSqlSafe, Row,
    postgres::{PgConnectOptions, PgConnection, PgRow},
};

use crate::storage::connect::{refusal::reason, target::TargetSession};

/// The name of every connection of a server: by it one tells its peers' locks from a stranger's.
pub(in crate::storage) const APPLICATION_NAME: &str = "passbook";
/// That of maintenance: it may take for hours what a server's transaction has for milliseconds, and
/// nobody waits for it as for one of these.
const MAINTENANCE_APPLICATION_NAME: &str = "passbook-admin";
/// How long a transaction that has no turn waits for a lock. A wait that is longer means that
/// other servers change the same accounts: then they take turns, rather than that each holds some
/// rows while it waits for others. Too short, and a collision that would be over in a moment costs
/// a transaction; too long, and servers collide for long before they take turns.
pub(in crate::storage) const WRITER_LOCK_TIMEOUT: &str = "2ms";
/// A writer's statement that runs longer is broken off: far above any healthy one, and below the
/// time of an attempt. (COMMIT is not subject to it, and must not be: one that waits for a
/// synchronous standby would be made without it.)
const WRITER_STATEMENT_TIMEOUT: &str = "4s";
/// A read that takes longer is broken off.
const READER_STATEMENT_TIMEOUT: &str = "6s";
/// A transaction that nobody drives any more is ended after this.
const READER_IDLE_TIMEOUT: &str = "10s";
/// The same for a writer's, which holds locks: between two of its statements lie milliseconds.
/// Below the time of an attempt, so that who tries again finds the rows free.
const WRITER_IDLE_TIMEOUT: &str = "5s";
/// How soon a kind that waits for a lock notices that its server process was killed.
const CONNECTION_CHECK: &str = "2s";
/// The database's system asks a silent peer for a sign of life after this many seconds, and again
/// this many times, a second apart; then it ends the session. Without it, one whose packets were
/// lost in the middle of a message would keep its locks for hours: no time-out of the database
/// counts while it waits for the rest.
const KEEPALIVES_IDLE: &str = "4";
const KEEPALIVES_INTERVAL: &str = "1";
const KEEPALIVES_COUNT: &str = "4";
const NO_LIMIT: &str = "0";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) enum Role {
    /// Reads of callers.
    Reader,
    /// Changes.
    Writer,
    /// On SQLite: looks whether the write lock is free, and never waits for it.
    Probe,
    /// Migrations and imports: no limit of time cuts them off.
    Maintenance,
    /// Verifications and exports: the same, and every transaction reads one snapshot.
    Snapshot,
}

/// A setting, and the value that it gets where the URL sets none.
type Setting = (&'static str, &'static str);

/// What promises rest on, and the values with which they are kept.
const PROMISES: [(&str, &[&str]); 7] = [
    // An acknowledged change is on disk, whatever the server's default is.
    ("synchronous_commit", &["on", "remote_apply"]),
    // Servers know each other by it.
    ("application_name", &[APPLICATION_NAME]),
    ("client_encoding", &["UTF8"]),
    ("standard_conforming_strings", &["on"]),
    // Any other would refuse some texts, each as it comes. SQL_ASCII keeps bytes as they are.
    ("server_encoding", &["UTF8", "SQL_ASCII"]),
    // Under `replica` no trigger guards the entries.
    ("session_replication_role", &["origin", "local"]),
    // With any other a statement after the lock does not see what the wait let through.
    ("default_transaction_isolation", &["read committed"]),
];

/// The settings of every session.
const OF_ALL: [Setting; 12] = [
    ("application_name", APPLICATION_NAME),
    ("synchronous_commit", "on"),
    ("client_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
    ("client_connection_check_interval", CONNECTION_CHECK),
    ("tcp_keepalives_idle", KEEPALIVES_IDLE),
    ("tcp_keepalives_interval", KEEPALIVES_INTERVAL),
    ("tcp_keepalives_count", KEEPALIVES_COUNT),
    // A pool keeps sessions that have nothing to do.
    ("idle_session_timeout", NO_LIMIT),
    // Compiling these short statements costs more than running them.
    ("jit", "off"),
    ("enable_indexscan", "on"),
    ("enable_nestloop", "on"),
];

const OF_READERS: [Setting; 5] = [
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", READER_STATEMENT_TIMEOUT),
    ("lock_timeout", NO_LIMIT),
    ("idle_in_transaction_session_timeout", READER_IDLE_TIMEOUT),
    // A generic plan made while a table was empty scans it when it is large.
    ("plan_cache_mode", "force_custom_plan"),
];

const OF_WRITERS: [Setting; 8] = [
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", WRITER_STATEMENT_TIMEOUT),
    ("lock_timeout", WRITER_LOCK_TIMEOUT),
    ("idle_in_transaction_session_timeout", WRITER_IDLE_TIMEOUT),
    // All that a writer does is to find rows by their keys, for which one plan is right whatever
    // the size of the tables: an index look-up for each. So each statement is planned once a
    // connection, and without the choices that would be right only for the size of the moment.
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];

const OF_MAINTENANCE: [Setting; 5] = [
    ("application_name", MAINTENANCE_APPLICATION_NAME),
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", NO_LIMIT),
    ("lock_timeout", NO_LIMIT),
    ("idle_in_transaction_session_timeout", NO_LIMIT),
];

/// So that BEGIN alone begins such a transaction.
const OF_SNAPSHOTS: [Setting; 6] = [
    ("application_name", MAINTENANCE_APPLICATION_NAME),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_read_only", "on"),
    ("statement_timeout", NO_LIMIT),
    ("lock_timeout", NO_LIMIT),
    ("idle_in_transaction_session_timeout", NO_LIMIT),
];

/// Read back as another value where they mean nothing: through a Unix socket.
const NOT_COMPARED: &str = "tcp_keepalives_";

impl Role {
    fn settings(self) -> impl Iterator<Item = Setting> {
        let of_role: &[Setting] = match self {
            Self::Reader => &OF_READERS,
            Self::Writer => &OF_WRITERS,
            Self::Maintenance => &OF_MAINTENANCE,
            Self::Snapshot => &OF_SNAPSHOTS,
            Self::Probe => &[],
        };
        let is_ours = |(name, _): &&Setting| of_role.iter().all(|(own, _)| own != name);
        OF_ALL.iter().filter(is_ours).chain(of_role).copied()
    }
}

/// What a new session for one role gets, and must be like.
pub(in crate::storage) struct Session {
    target: TargetSession,
    /// Sets and reads all of it.
    statement: String,
    /// What the statement's first columns must say: a name and the values that it may have.
    expected: Vec<(&'static str, Vec<&'static str>)>,
}

impl Session {
    /// For connections with these options.
    pub(in crate::storage) fn new(
        options: &PgConnectOptions,
        role: Role,
        target: TargetSession,
    ) -> Self {
        let mut of_url = settings_in(options.get_options().unwrap_or_default());
        let (mut columns, mut expected) = (Vec::new(), Vec::new());
        for (name, value) in role.settings() {
            let promised = promised(name, role);
            let given = of_url.remove(name);
            let allowed = match (promised, &given) {
                (Some(allowed), _) => allowed,
                (None, Some(_)) => Vec::new(),
                (None, None) if name.starts_with(NOT_COMPARED) => Vec::new(),
                (None, None) => vec![value],
            };
            columns.push(set(name, given.as_deref().unwrap_or(value)));
            expected.push((name, allowed));
        }
        for name in ["server_encoding", "session_replication_role"] {
            of_url.remove(name);
            columns.push(format!("current_setting('{name}')"));
            expected.push((name, promised(name, role).unwrap_or_default()));
        }
        columns.push("pg_is_in_recovery()::text".to_owned());
        columns.push("current_setting('transaction_read_only')".to_owned());
        // What else the URL sets, where it did not arrive.
        columns.extend(of_url.iter().map(|(name, value)| {
            let (quoted, wanted, set) = (literal(name), literal(value), set(name, value));
            format!(
                "CASE WHEN current_setting({quoted}, true) IS DISTINCT FROM {wanted} THEN {set} END"
            )
        }));
        // Only newer servers know it.
        let no_limit = set("transaction_timeout", NO_LIMIT);
        columns.push(format!(
            "CASE WHEN current_setting('server_version_num')::integer >= 170000 THEN {no_limit} END"
        ));
        Self { target, statement: format!("SELECT {}", columns.join(", ")), expected }
    }

    /// Makes a new connection such a session, in one round trip.
    ///
    /// # Errors
    /// Why it cannot be used: it is not what is wanted, or a setting is not as it must be.
    pub(in crate::storage) async fn prepare(
        &self,
        connection: &mut PgConnection,
    ) -> Result<(), String> {
        if self.target == TargetSession::Any {
            // A standby begins no transaction that would be serializable.
            let isolation = "SET default_transaction_isolation = 'read committed'";
            sqlx::raw_sql(isolation).execute(&mut *connection).await.map_err(|it| reason(&it))?;
        }
        let statement = sqlx::raw_sql(AssertSqlSafe(self.statement.clone()));
        let row = statement.fetch_one(connection).await.map_err(|error| reason(&error))?;
        let column = |index: usize| text(&row, index);
        for (index, (name, allowed)) in self.expected.iter().enumerate() {
            let value = column(index)?;
            if !allowed.is_empty() && !allowed.contains(&value.as_str()) {
                return Err(refusal(name, &value, allowed));
            }
        }
        let (is_standby, read_only) =
            (column(self.expected.len())?, column(self.expected.len() + 1)?);
        match (self.target, &*is_standby, &*read_only) {
            (TargetSession::Any, _, _) | (TargetSession::Primary, "false", "off") => Ok(()),
            (TargetSession::Primary, "true", _) => Err("is a standby".to_owned()),
            (TargetSession::Primary, _, _) => Err("is read-only".to_owned()),
        }
    }
}

/// How a session begins: with nothing that a pooler does not know.
pub(in crate::storage) fn start_up(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name(APPLICATION_NAME).extra_float_digits(None)
}

/// The settings that a URL gives itself, of those that are set here otherwise: for the log.
pub(in crate::storage) fn overridden(options: &PgConnectOptions) -> Vec<String> {
    let of_url = settings_in(options.get_options().unwrap_or_default());
    let ours = [Role::Reader, Role::Writer].map(Role::settings);
    let mut names: Vec<_> = ours.into_iter().flatten().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    let given = names.into_iter().filter_map(|name| of_url.get_key_value(name));
    given.map(|(name, value)| format!("{name}={value}")).collect()
}

/// The values with which a promise is kept, if one rests on this setting.
fn promised(name: &str, role: Role) -> Option<Vec<&'static str>> {
    if (name, role) == ("default_transaction_isolation", Role::Snapshot) {
        return Some(vec!["repeatable read"]);
    }
    if name == "application_name" && matches!(role, Role::Maintenance | Role::Snapshot) {
        return Some(vec![MAINTENANCE_APPLICATION_NAME]);
    }
    let (_, allowed) = PROMISES.iter().find(|(promise, _)| *promise == name)?;
    Some(allowed.to_vec())
}

fn refusal(name: &str, value: &str, allowed: &[&str]) -> String {
    let allowed = allowed.join(" or ");
    let advice = match name {
        "server_encoding" => "create the database with ENCODING 'UTF8' TEMPLATE template0",
        "session_replication_role" => "take it from the role and the database (ALTER ... RESET)",
        _ => "take it out of the options of database_url and of PGOPTIONS",
    };
    format!("{name} is {value} and must be {allowed}: {advice}")
}

fn text(row: &PgRow, index: usize) -> Result<String, String> {
    row.try_get(index).map_err(|error| format!("the session's settings cannot be read: {error}"))
}

fn set(name: &str, value: &str) -> String {
    format!("set_config({}, {}, false)", literal(name), literal(value))
}

/// A text in SQL, whatever `standard_conforming_strings` is yet.
fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') {
        format!("E'{}'", doubled.replace('\\', r"\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// What PostgreSQL's start-up parameter `options` sets: `-c name=value` or `--name=value`, with
/// white space and backslashes escaped by a backslash. The last of a name counts.
fn settings_in(options: &str) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let words = words(options);
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let setting = match (word, word.strip_prefix("--"), word.strip_prefix("-c")) {
            ("-c", _, _) => words.next(),
            (_, Some(long), _) => Some(long),
            (_, _, short) => short,
        };
        let Some((name, value)) = setting.and_then(|it| it.split_once('=')) else { continue };
        let name = name.trim().to_lowercase().replace('-', "_");
        settings.insert(name, value.to_owned());
    }
    settings
}

fn words(text: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => word.get_or_insert_default().extend(letters.next()),
            letter if letter.is_ascii_whitespace() => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn options(text: &str) -> PgConnectOptions {
        PgConnectOptions::from_str(&format!("postgres://u@h/db?{text}")).unwrap()
    }

    #[test]
    fn options_are_read_as_the_server_reads_them() {
        let text = r"-c a=1 -cb=two\ words --plan-cache-mode=auto  -c A=3 -d 5 -c c=\\x'y -c";
        let read = settings_in(text);
        let expected =
            [("a", "3"), ("b", "two words"), ("c", r"\x'y"), ("plan_cache_mode", "auto")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read, BTreeMap::from(expected));
        assert!(settings_in("").is_empty());
    }

    #[test]
    fn what_a_url_sets_is_quoted() {
        let session = Session::new(
            &options("options[bank.note]=it's\\here"),
            Role::Writer,
            TargetSession::Primary,
        );
        let quoted = r"set_config('bank.note', E'it''s\\here', false)";
        assert!(session.statement.contains(quoted), "{}", session.statement);
    }

    #[test]
    fn a_url_overrides_plans_and_limits_and_is_held_to_promises() {
        let given = options("options[plan_cache_mode]=auto&options=-c%20synchronous_commit%3Doff");
        let session = Session::new(&given, Role::Writer, TargetSession::Primary);
        let set = "set_config('plan_cache_mode', 'auto', false)";
        assert!(session.statement.contains(set), "{}", session.statement);
        let allowed = |name| {
            let (_, allowed) = session.expected.iter().find(|(it, _)| *it == name).unwrap();
            allowed.clone()
        };
        assert!(allowed("plan_cache_mode").is_empty());
        assert_eq!(allowed("enable_seqscan"), ["off"]);
        assert_eq!(allowed("synchronous_commit"), ["on", "remote_apply"]);
        assert_eq!(overridden(&given), ["plan_cache_mode=auto", "synchronous_commit=off"]);
    }
}
