//! Many callers at once: loads on a ring of accounts and on holds, and rounds of races between servers.

pub mod holds;
pub mod race;
pub mod ring;
