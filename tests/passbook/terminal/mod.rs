//! The commands for people, as they and their scripts use them.

mod check_statement;
mod completions;
mod connections;
mod contexts;
mod events;
mod help;
mod session;
