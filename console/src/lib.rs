//! The console: web pages for people who look rather than type.
//!
//! The console is a client of the contract and decides nothing by itself. Each page makes the calls
//! of its browser's session, with the credential of the session, through the layers that every call
//! passes: authentication, policy, limits, audit log. It only reads.
//!
//! * `sessions`: which browser has which credential.
//! * `guard`: what every request and response of the console must have.
//! * `calls`: calls of the contract in the name of a session, and their errors.
//! * `page`: what pages consist of, with their template.
//! * `pages`: a file for each kind of page.
//! * `chart`: lines over time as SVG.
//! * `view`: values of the contract as people read them.

mod assets;
mod calls;
mod chart;
mod guard;
mod login;
mod page;
mod pages;
mod session;
mod sessions;
mod view;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};

pub use crate::calls::{ClientAddress, Services};
use crate::{
    guard::Guard,
    pages::health::History,
    sessions::{SessionLimits, Sessions},
};

/// The most bytes of a form. A token can be as long as in a call (`header_size_max`: 16 KiB by default),
/// and the address of the page to show after the login comes with it.
const FORM_SIZE_MAX: usize = 32 * 1024;

/// The settings of the console.
#[derive(Clone, Copy, Debug)]
pub struct ConsoleConfig {
    /// Whether callers need a credential. Without, there is no login.
    pub is_authenticating: bool,
    /// Whether browsers reach the console by TLS. Session cookies then need TLS, too.
    pub has_tls: bool,
}

/// What all requests share.
struct Console {
    services: Services,
    sessions: Sessions,
    /// None: callers are not authenticated, and there is no login.
    cookie: Option<session::Cookie>,
    history: History,
}

type App = Arc<Console>;

/// The pages of the console. Their calls go to `services`.
pub fn router(services: Services, config: ConsoleConfig) -> Router {
    let cookie = config.is_authenticating.then(|| session::Cookie::new(config.has_tls));
    let console = Arc::new(Console {
        services,
        sessions: Sessions::new(SessionLimits::DEFAULT),
        cookie,
        history: History::default(),
    });
    let guard = Guard { is_authenticating: config.is_authenticating };
    Router::new()
        .route("/", get(pages::accounts::search))
        .route("/account", get(pages::account::show))
        .route("/statement", get(pages::statement::show))
        .route("/transactions", get(pages::transactions::list))
        .route("/transaction", get(pages::transactions::show))
        .route("/holds", get(pages::holds::list))
        .route("/hold", get(pages::holds::show))
        .route("/changes", get(pages::changes::list))
        .route("/verify", get(pages::verify::show))
        .route("/events", get(pages::events::show))
        .route("/request", get(pages::request::show))
        .route("/health", get(pages::health::show))
        .route("/login", post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/console.css", get(assets::style))
        .route("/console.js", get(assets::script))
        .fallback(pages::not_found)
        .layer(DefaultBodyLimit::max(FORM_SIZE_MAX))
        .layer(middleware::from_fn_with_state(guard, guard::check))
        .with_state(console)
}

/// The address from which a browser is connected, as an extension of its requests.
impl From<SocketAddr> for ClientAddress {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}
