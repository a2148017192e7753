//! The settings of a session with PostgreSQL.
//!
//! One statement sets them on each new connection and reads them back: start-up options do not
//! reach the server through a pooler, and a role or a database may have its own defaults. If a
//! setting on which a promise rests has another value, the connection is refused, and the error
//! names the setting. The database URL (`options`) overrides all other settings.

use std::collections::BTreeMap;

use sea_orm::{
    SqlxError,
    sqlx::{
        self, AssertSqlSafe, Row,
        postgres::{PgConnectOptions, PgConnection, PgRow},
    },
};

use crate::storage::connect::{
    connect_error::reason,
    server_identity::{ServerIdentity, ServerState},
    target::TargetSession,
};

/// The `application_name` of a server's connections: it distinguishes locks of peers from foreign ones.
pub const APPLICATION_NAME: &str = "passbook";
/// The `application_name` of maintenance, whose locks may last for hours: servers do not wait for
/// them as for a peer's.
const MAINTENANCE_APPLICATION_NAME: &str = "passbook-admin";
/// How long a transaction without a turn waits for a lock. If a batch had to wait longer, it collides,
/// and the worker's next one leaves out what is locked (see `turns` in the ledger). Too short, and a
/// brief collision costs a transaction; too long, and rows stay locked while others wait for them.
pub const WRITER_LOCK_TIMEOUT: &str = "2ms";
/// Time limit of a writer's statement: far above any healthy one, and below the time of an attempt.
/// (It does not apply to COMMIT, and must not: a COMMIT that waits for a synchronous standby would
/// be made without the standby.)
const WRITER_STATEMENT_TIMEOUT: &str = "4s";
/// Time limit of a read.
const READER_STATEMENT_TIMEOUT: &str = "6s";
/// How long a reader's transaction may be idle before PostgreSQL ends it.
const READER_IDLE_TIMEOUT: &str = "10s";
/// How long a writer's transaction, which holds locks, may be idle: between two of its statements
/// lie milliseconds. Below the time of an attempt, so that a retry finds the rows free.
const WRITER_IDLE_TIMEOUT: &str = "5s";
/// How soon a session that waits for a lock notices that its server process was killed.
const CONNECTION_CHECK: &str = "2s";
/// TCP keepalives of the database's host: the first probe after this many seconds of silence, then
/// this many more, a second apart; then the session ends. Without them, a session whose packets
/// were lost in the middle of a message would keep its locks for hours: no timeout of the database
/// runs while it waits for the rest of a message.
const KEEPALIVES_IDLE: &str = "4";
const KEEPALIVES_INTERVAL: &str = "1";
const KEEPALIVES_COUNT: &str = "4";
const NO_LIMIT: &str = "0";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// For reads.
    Reader,
    /// For changes.
    Writer,
    /// For probes of SQLite's write lock, which never wait for it.
    Probe,
    /// For migrations and imports, without time limits.
    Maintenance,
    /// For verifications and exports, without time limits; each transaction reads one snapshot.
    Snapshot,
}

/// A setting and its value, which the URL may override.
type Setting = (&'static str, &'static str);

/// The settings on which promises rest: the URL must not give them another value.
const PROMISES: [&str; 6] = [
    // An acknowledged change is on disk. `remote_apply` promises more, and is allowed, too.
    "synchronous_commit",
    // Servers recognize each other by it.
    "application_name",
    "client_encoding",
    "standard_conforming_strings",
    // At a higher level a statement after the lock does not see what was committed during the wait.
    "default_transaction_isolation",
    // Otherwise rows that a policy of the table hides look as if they were not there.
    "row_security",
];

/// Settings that are not set here, and the values that promises need.
const REQUIRED: [(&str, &[&str]); 3] = [
    // Any other encoding refuses some texts. SQL_ASCII keeps bytes as they are.
    ("server_encoding", &["UTF8", "SQL_ASCII"]),
    // Under `replica` no trigger guards the entries.
    ("session_replication_role", &["origin", "local"]),
    // Without it, a commit is not on disk when it is confirmed, whatever synchronous_commit says.
    ("fsync", &["on"]),
];

/// The settings of every session.
const OF_ALL: [Setting; 13] = [
    ("application_name", APPLICATION_NAME),
    ("synchronous_commit", "on"),
    ("client_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
    ("client_connection_check_interval", CONNECTION_CHECK),
    ("tcp_keepalives_idle", KEEPALIVES_IDLE),
    ("tcp_keepalives_interval", KEEPALIVES_INTERVAL),
    ("tcp_keepalives_count", KEEPALIVES_COUNT),
    // A statement with hidden rows is an error, not an answer without them.
    ("row_security", "off"),
    // A pool keeps idle sessions.
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
    // A writer only finds rows by their keys. One plan is right for that whatever the size of the
    // tables, an index look-up for each row: each statement is planned once a connection, without
    // the choices that are right for small tables only.
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

/// With these, BEGIN alone begins a read-only transaction on one snapshot.
const OF_SNAPSHOTS: [Setting; 6] = [
    ("application_name", MAINTENANCE_APPLICATION_NAME),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_read_only", "on"),
    ("statement_timeout", NO_LIMIT),
    ("lock_timeout", NO_LIMIT),
    ("idle_in_transaction_session_timeout", NO_LIMIT),
];

/// The prefix of settings that read back as another value on a Unix socket.
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

/// The settings of new sessions for one role, and the values that they must have.
pub struct Session {
    target: TargetSession,
    /// Sets and reads all settings.
    statement: String,
    /// The settings in the statement's first columns, each with its allowed values; none for any.
    expected: Vec<(&'static str, Vec<&'static str>)>,
    /// The first column of the server's identity.
    identity_at: usize,
}

impl Session {
    /// The session of a role on connections with these options.
    pub fn new(options: &PgConnectOptions, role: Role, target: TargetSession) -> Self {
        let mut of_url = settings_in(options.get_options().unwrap_or_default());
        let (mut columns, mut expected) = (Vec::new(), Vec::new());
        for (name, value) in role.settings() {
            let given = of_url.remove(name);
            let is_promise = PROMISES.contains(&name);
            let is_compared = given.is_none() && !name.starts_with(NOT_COMPARED);
            let has_limits = is_promise || is_compared;
            let allowed = if has_limits { allowed_instead(name, value) } else { Vec::new() };
            columns.push(set(name, given.as_deref().unwrap_or(value)));
            expected.push((name, allowed));
        }
        for (name, allowed) in REQUIRED {
            of_url.remove(name);
            columns.push(format!("current_setting('{name}')"));
            expected.push((name, allowed.to_vec()));
        }
        columns.push("pg_is_in_recovery()::text".to_owned());
        columns.push("current_setting('transaction_read_only')".to_owned());
        // The URL's other settings, if a pooler did not pass them on.
        columns.extend(of_url.iter().map(|(name, value)| {
            let (quoted, wanted, set) = (literal(name), literal(value), set(name, value));
            format!(
                "CASE WHEN current_setting({quoted}, true) IS DISTINCT FROM {wanted} THEN {set} END"
            )
        }));
        // PostgreSQL 17 and later have it.
        let no_limit = set("transaction_timeout", NO_LIMIT);
        columns.push(format!(
            "CASE WHEN current_setting('server_version_num')::integer >= 170000 THEN {no_limit} END"
        ));
        // The URL may have set the search path.
        let identity_at = columns.len();
        columns.extend(ServerIdentity::columns());
        Self { target, statement: format!("SELECT {}", columns.join(", ")), expected, identity_at }
    }

    /// Sets up a new connection in one round trip, or says why it cannot be used. Returns the server
    /// to which it leads.
    pub async fn prepare(&self, connection: &mut PgConnection) -> Result<ServerIdentity, String> {
        if self.target == TargetSession::PreferPrimary {
            // A standby refuses transactions at the serializable level.
            let isolation = "SET default_transaction_isolation = 'read committed'";
            sqlx::raw_sql(isolation).execute(&mut *connection).await.map_err(|it| reason(&it))?;
        }
        let statement = sqlx::raw_sql(AssertSqlSafe(self.statement.clone()));
        let row = statement.fetch_one(connection).await.map_err(|error| reason(&error))?;
        let column = |index: usize| text(&row, index);
        for (index, (name, allowed)) in self.expected.iter().enumerate() {
            let value = column(index)?;
            if !allowed.is_empty() && !allowed.contains(&value.as_str()) {
                return Err(unsafe_setting(name, &value, allowed));
            }
        }
        let next = self.expected.len();
        let (is_standby, read_only) = (column(next)?, column(next + 1)?);
        let state = match (&*is_standby, &*read_only) {
            ("false", "off") => ServerState::Primary,
            ("false", _) => ServerState::ReadOnly,
            _ => ServerState::Standby,
        };
        match (self.target, state) {
            (TargetSession::Primary, ServerState::Standby) => Err("is a standby".to_owned()),
            (TargetSession::Primary, ServerState::ReadOnly) => Err("is read-only".to_owned()),
            _ => {
                let mut identity = [const { None }; 6];
                for (index, value) in (self.identity_at..).zip(&mut identity) {
                    *value = row.try_get(index).map_err(unreadable)?;
                }
                ServerIdentity::parse(state, identity)
            }
        }
    }
}

/// The start-up options of a session: only what a pooler accepts.
pub fn start_up(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name(APPLICATION_NAME).extra_float_digits(None)
}

/// The first setting in a URL with which no connection could be used, as far as the URL alone says.
pub fn unsafe_option(options: &PgConnectOptions) -> Option<String> {
    let of_url = settings_in(options.get_options().unwrap_or_default());
    let promises = Role::Writer.settings().filter(|(name, _)| PROMISES.contains(name));
    let promises = promises.map(|(name, value)| (name, allowed_instead(name, value)));
    let required = REQUIRED.map(|(name, allowed)| (name, allowed.to_vec()));
    let mut held = promises.chain(required);
    held.find_map(|(name, allowed)| {
        let given = of_url.get(name)?;
        let is_allowed = allowed.iter().any(|it| normal(it) == normal(given));
        (!is_allowed).then(|| unsafe_setting(name, given, &allowed))
    })
}

/// One spelling of the values that PostgreSQL takes for the same.
fn normal(value: &str) -> String {
    match value.to_lowercase().as_str() {
        "true" | "yes" | "1" => "on".to_owned(),
        "false" | "no" | "0" => "off".to_owned(),
        "utf-8" | "unicode" => "utf8".to_owned(),
        other => other.to_owned(),
    }
}

/// The values that a promise allows for a setting with this one.
fn allowed_instead(name: &str, value: &'static str) -> Vec<&'static str> {
    match name {
        "synchronous_commit" => vec![value, "remote_apply"],
        _ => vec![value],
    }
}

/// The settings of this file that a URL overrides, for the log.
pub fn overridden(options: &PgConnectOptions) -> Vec<String> {
    let of_url = settings_in(options.get_options().unwrap_or_default());
    let ours = [Role::Reader, Role::Writer].map(Role::settings);
    let mut names: Vec<_> = ours.into_iter().flatten().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    let given = names.into_iter().filter_map(|name| of_url.get_key_value(name));
    given.map(|(name, value)| format!("{name}={value}")).collect()
}

fn unsafe_setting(name: &str, value: &str, allowed: &[&str]) -> String {
    let allowed = allowed.join(" or ");
    let advice = match name {
        "server_encoding" => "create the database with ENCODING 'UTF8' TEMPLATE template0",
        "session_replication_role" => "reset it for the role and the database (ALTER ... RESET)",
        "fsync" => "set it in postgresql.conf, and reload the configuration",
        _ => "remove it from the options of database_url and from PGOPTIONS",
    };
    format!("{name} is {value} and must be {allowed}: {advice}")
}

fn text(row: &PgRow, index: usize) -> Result<String, String> {
    row.try_get(index).map_err(unreadable)
}

fn unreadable(error: SqlxError) -> String {
    format!("the session's settings cannot be read: {error}")
}

fn set(name: &str, value: &str) -> String {
    format!("set_config({}, {}, false)", literal(name), literal(value))
}

/// A text as an SQL literal that does not depend on `standard_conforming_strings`.
fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') {
        format!("E'{}'", doubled.replace('\\', r"\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// The settings in PostgreSQL's start-up parameter `options`: `-c name=value` or `--name=value`,
/// with white space and backslashes escaped by a backslash. The last setting of a name counts.
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
        let why = unsafe_option(&given).unwrap();
        assert!(why.starts_with("synchronous_commit is off"), "{why}");
        let fsync = unsafe_option(&options("options[fsync]=off")).unwrap();
        assert!(fsync.starts_with("fsync is off"), "{fsync}");
        for allowed in [
            "options[synchronous_commit]=remote_apply",
            "options[synchronous_commit]=True",
            "options[row_security]=0",
            "options[client_encoding]=utf-8",
            "options[default_transaction_isolation]=READ%20COMMITTED",
            "options[jit]=on",
            "",
        ] {
            assert_eq!(unsafe_option(&options(allowed)), None, "{allowed}");
        }
    }
}
