//! The session of a request: from its cookie to the calls that it may make.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Uri, header::COOKIE, request::Parts};

use tokio::time::Instant;

use crate::{
    App,
    calls::{Calls, ClientAddress},
    login,
    sessions::{Asker, SessionLimits},
};

/// The header with which the script of an open page asks for the page again.
const LIVE: &str = "passbook-live";

/// The session cookie: not for scripts, not for requests that another site causes.
pub struct Cookie {
    has_tls: bool,
}

impl Cookie {
    pub const fn new(has_tls: bool) -> Self {
        Self { has_tls }
    }

    /// With TLS, the prefix makes browsers take the cookie only from this host, by TLS.
    const fn name(&self) -> &'static str {
        if self.has_tls { "__Host-passbook-session" } else { "passbook-session" }
    }

    /// The id of the session, if the request has exactly one such cookie.
    pub fn id<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let all = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let pairs =
            all.flat_map(|value| value.split(';')).filter_map(|it| it.trim().split_once('='));
        let mut ids = pairs.filter(|(name, _)| *name == self.name()).map(|(_, id)| id);
        match (ids.next(), ids.next()) {
            (Some(id), None) => Some(id),
            _ => None,
        }
    }

    /// The value of Set-Cookie that begins a session.
    pub fn begin(&self, id: &str) -> Option<HeaderValue> {
        self.set(id, SessionLimits::DEFAULT.time_max.as_secs())
    }

    /// The value of Set-Cookie that removes the cookie.
    pub fn remove(&self) -> Option<HeaderValue> {
        self.set("", 0)
    }

    fn set(&self, id: &str, seconds: u64) -> Option<HeaderValue> {
        let (name, secure) = (self.name(), if self.has_tls { "; Secure" } else { "" });
        let text =
            format!("{name}={id}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
        HeaderValue::try_from(text).ok()
    }
}

/// A valid session, or a server without authentication.
pub struct Session {
    pub calls: Calls,
    pub can_log_out: bool,
    /// Of the page that is asked for.
    pub uri: Uri,
}

impl FromRequestParts<App> for Session {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let session = of_request(parts, app).await;
        session.ok_or_else(|| login::required(&parts.uri, "").into_response())
    }
}

impl OptionalFromRequestParts<App> for Session {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Option<Self>, Infallible> {
        Ok(of_request(parts, app).await)
    }
}

async fn of_request(parts: &Parts, app: &App) -> Option<Session> {
    let authorization = match &app.cookie {
        None => None,
        Some(cookie) => {
            let is_script = parts.headers.contains_key(LIVE);
            let asker = if is_script { Asker::Script } else { Asker::Person };
            Some(app.sessions.credential(cookie.id(&parts.headers)?, asker, Instant::now()).await?)
        }
    };
    let can_log_out = authorization.is_some();
    let address = parts.extensions.get::<ClientAddress>().copied();
    let calls = Calls::new(app.services.clone(), authorization, address);
    Some(Session { calls, can_log_out, uri: parts.uri.clone() })
}
