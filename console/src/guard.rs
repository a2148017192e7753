//! What every request and response of the console must have.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The headers of all responses. Nothing is loaded from another host or sent to one, nothing in a
/// page is a script or a style, no other page shows this one in a frame, and no copy is kept.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The rules that depend on the settings.
#[derive(Clone, Copy)]
pub struct Guard {
    pub is_authenticating: bool,
}

/// Rejects requests that another site may have caused, and completes the headers of the response.
pub async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let rejection = guard.rejection(request.method(), request.uri(), request.headers());
    let mut response = match rejection {
        Some((status, text)) => (status, format!("{text}\n")).into_response(),
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Guard {
    fn rejection(
        self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Option<(StatusCode, &'static str)> {
        // A name of another site can be made to resolve to this address (DNS rebinding). With
        // authentication, the cookies of such a name are of no use here.
        if !self.is_authenticating && !is_local_name(uri, headers) {
            return Some((
                StatusCode::MISDIRECTED_REQUEST,
                "without authentication, the console is served at an IP address or localhost only",
            ));
        }
        if *method == Method::POST && !is_of_this_site(headers) {
            return Some((StatusCode::FORBIDDEN, "the form is not one of this console"));
        }
        None
    }
}

/// Whether a page of the console has caused the request. Browsers say so in Sec-Fetch-Site, which no
/// page can set; those that do not name the origin.
fn is_of_this_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site == "same-origin";
    }
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let origin = text(ORIGIN).and_then(|origin| origin.split_once("://"));
    matches!((origin, text(HOST)), (Some((_, origin)), Some(host)) if origin == host)
}

/// Whether the browser was sent to an address, or to `localhost`.
fn is_local_name(uri: &Uri, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|value| value.to_str().ok());
    let authority = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    let Some(authority) = authority.as_ref().or(uri.authority()) else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
}
