//! Who calls, and what they may do.

use std::{net::SocketAddr, sync::Arc};

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Where that is.
    pub address: Option<SocketAddr>,
    /// Who the certificate says it is, if one was shown: it has been verified.
    pub certificate_identity: Option<Arc<str>>,
}

/// Who makes a call: in the extensions of its request, and of its response.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name under which the policy knows them; empty if nobody is asked.
    pub identity: Arc<str>,
}
