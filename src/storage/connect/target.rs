//! Which of the servers of a URL is wanted.

use std::time::Duration;

/// Maximum number of hosts in one URL: a primary and its standbys. All are probed at once.
pub const HOSTS_MAX: usize = 16;
/// How long one host may take to answer a probe: as long as a connection may take at all.
pub const PROBE_TIME_MAX: Duration = Duration::from_secs(2);

/// The role that a server must have to be used: libpq's `target_session_attrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSession {
    /// A primary: it takes changes, and so has all of them.
    Primary,
    /// Any server that answers: for commands that only read and name the server in their output.
    Any,
}
