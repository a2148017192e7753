//! Which of the servers of a URL is wanted.

use std::time::Duration;

/// Maximum number of hosts in one URL: a primary and its standbys. All are probed at once.
pub const HOSTS_MAX: usize = 16;
/// How long a server waits for the start of a session, a probe of a host included: longer means that
/// the database is not well.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// The same for a command such as `migrate` or `verify`. No caller waits for a command, and a busy
/// machine may start a session late.
pub const COMMAND_CONNECT_TIME_MAX: Duration = Duration::from_secs(30);

/// The role that a server must have to be used: libpq's `target_session_attrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSession {
    /// A primary: it takes changes, and so has all of them.
    Primary,
    /// The primary if it answers, or else a standby: for commands that only read.
    PreferPrimary,
}
