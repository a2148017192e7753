//! The console: its pages, sessions, attacks on it, and a real browser.

mod accounts_by_the_million;
mod appearance;
mod attacks;
mod chromium;
mod events;
mod jwt;
mod pages;
mod sessions;
