//! The commands for people, as they and their scripts use them.

mod connections;
mod contexts;
mod help;
mod session;
