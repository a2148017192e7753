//! What a valid credential proves.

use std::{sync::Arc, time::SystemTime};

use crate::domain::ids::Identity;

/// The owner of a valid credential. Cheap to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The name of the owner.
    pub identity: Identity,
    /// The groups that a JWT names. Other credentials have none.
    pub groups: Arc<[String]>,
    /// When the credential expires. None: without a time limit.
    pub expire_time: Option<SystemTime>,
}
