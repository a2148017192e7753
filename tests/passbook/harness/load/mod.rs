//! Many callers at once: a load on a ring of accounts, and rounds of races between servers.

pub mod race;
pub mod ring;
