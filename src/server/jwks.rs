//! The keys that verify JWTs: read from a file or fetched from a URL, again and again.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use metrics::gauge;
use passbook_command::client::reason;
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::{
    audit::{AuditLog, Reloads, Source},
    auth::{JwtIssuer, KeySet},
    config::JwksSource,
    regular_file,
    server::file_watch::{self, ReadFailure},
};

/// The time between two fetches. A key that the issuer withdraws stays valid for this long.
const FETCH_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The time between two fetches after an error, or when a token names an unknown key. Callers can
/// cause no more fetches than this allows.
const FETCH_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// How long a fetch may take.
const FETCH_TIME_MAX: Duration = Duration::from_secs(5);
/// The most bytes of a key set. Common ones have some thousand.
const SIZE_MAX: usize = 256 * 1024;

type Client = legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// The keys of an issuer, kept current.
pub struct Jwks {
    source: JwksSource,
    client: Client,
    issuer: Arc<JwtIssuer>,
    /// The text of the keys that are in force.
    text: String,
}

impl Jwks {
    /// The keys of this source, none of which are in force yet.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(source: JwksSource, issuer: Arc<JwtIssuer>) -> Result<Self, String> {
        Ok(Self { source, client: client()?, issuer, text: String::new() })
    }

    /// Checks the keys in a file. Connects to no URL.
    ///
    /// # Errors
    /// The file cannot be read or is no key set, or none of its keys is usable. One line, with the
    /// name of the file.
    pub fn check(source: &JwksSource) -> Result<(), String> {
        let JwksSource::File(path) = source else { return Ok(()) };
        let keys = read_file(path).and_then(|text| KeySet::parse(&text));
        keys.and_then(|keys| keys.check_usable()).map_err(|error| format!("{source}: {error}"))
    }

    /// Puts the keys that the source has now in force.
    ///
    /// # Errors
    /// The source cannot be read or is no key set: the keys from before stay in force. One line,
    /// with the file or the URL.
    pub async fn load(&mut self) -> Result<(), String> {
        let text = self.read().await;
        self.replace(text, &mut Reloads::new(None, Vec::new()))?;
        if let JwksSource::Url(_) = self.source {
            note_fetch();
        }
        Ok(())
    }

    /// The keys in force, as the audit log names them.
    #[must_use]
    pub fn in_force(&self) -> Source {
        let (text, keys) = (Ok(self.text.clone()), KeySet::parse(&self.text));
        self.audited(&text, &keys)
    }

    /// Loads the keys again for as long as the future is polled: those of a file after each change,
    /// those of a URL regularly and when a token names an unknown key.
    pub async fn reload_on_change(mut self, audit: Option<Arc<AuditLog>>) {
        let mut reloads = Reloads::new(audit, vec![self.in_force()]);
        match self.source.clone() {
            JwksSource::File(path) => {
                let in_force = self.text.clone();
                let read = move || read_file(&path);
                let reload = |text: Result<&String, &ReadFailure>| {
                    self.replace(text.cloned().map_err(ReadFailure::clone), &mut reloads)
                };
                file_watch::reload_on_change("keys for JWTs", in_force, read, reload).await;
            }
            JwksSource::Url(_) => self.fetch_regularly(reloads).await,
        }
    }

    async fn fetch_regularly(mut self, mut reloads: Reloads) {
        let mut fetched = Ok(self.text.clone());
        let mut is_failing = false;
        loop {
            sleep(FETCH_INTERVAL_MIN).await;
            if !is_failing {
                // Too late or in time, the keys are fetched.
                let unknown_key = self.issuer.unknown_key_seen();
                let _ = timeout(FETCH_INTERVAL - FETCH_INTERVAL_MIN, unknown_key).await;
            }
            let text = self.read().await;
            if text != fetched {
                let replaced = self.replace(text.clone(), &mut reloads);
                is_failing = replaced.is_err();
                if let Err(error) = replaced {
                    tracing::error!(error, "keys for JWTs not reloaded");
                }
                fetched = text;
            }
            if !is_failing {
                note_fetch();
            }
        }
    }

    /// Puts the keys in this text in force, and records this or the error.
    fn replace(
        &mut self,
        text: Result<String, ReadFailure>,
        reloads: &mut Reloads,
    ) -> Result<(), String> {
        let keys = text.as_ref().map_err(ToString::to_string).and_then(|text| KeySet::parse(text));
        let keys = keys.map_err(|error| format!("{}: {error}", self.source));
        reloads.record(vec![self.audited(&text, &keys)], &keys);
        let (keys, text) = (keys?, text.map_err(|error| error.to_string())?);
        if text == self.text {
            return Ok(());
        }
        tracing::info!(?keys, "keys for JWTs loaded");
        if keys.ids().next().is_none() {
            tracing::error!("no JWT is accepted: the key set of jwt_jwks has no usable key");
        }
        gauge!("passbook_jwt_keys").set(keys.ids().count() as f64);
        self.issuer.replace_keys(keys);
        self.text = text;
        Ok(())
    }

    fn audited(&self, text: &Result<String, ReadFailure>, keys: &Result<KeySet, String>) -> Source {
        let source = match (&self.source, text) {
            (JwksSource::Url(url), text) => {
                Source::of_url(&url.to_string(), text.as_ref().ok().map(String::as_bytes))
            }
            (JwksSource::File(path), Ok(text)) => Source::new(path, text.as_bytes()),
            (JwksSource::File(path), Err(failure)) => failure.source(path),
        };
        match keys {
            Ok(keys) => source.with_key_ids(keys.ids().map(str::to_owned).collect()),
            Err(_) => source,
        }
    }

    async fn read(&self) -> Result<String, ReadFailure> {
        let read = match &self.source {
            JwksSource::File(path) => read_file(path),
            JwksSource::Url(url) => {
                let fetched = timeout(FETCH_TIME_MAX, fetch(&self.client, url)).await;
                fetched.unwrap_or_else(|_| Err("the fetch timed out".to_owned()))
            }
        };
        read.map_err(ReadFailure::Unreadable)
    }
}

/// Publishes that the URL has a key set now.
fn note_fetch() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge!("passbook_jwks_fetch_timestamp_seconds").set(now.as_secs_f64());
}

fn read_file(path: &Path) -> Result<String, String> {
    regular_file::read_text(path).map_err(|error| format!("cannot be read: {error}"))
}

/// An HTTP client that trusts the certificate authorities of this machine and follows no redirects.
fn client() -> Result<Client, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Plain HTTP is for this machine only: the setting has no other such URL.
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    Ok(legacy::Client::builder(TokioExecutor::new()).build(connector))
}

async fn fetch(client: &Client, url: &Uri) -> Result<String, String> {
    let response = client.get(url.clone()).await.map_err(|error| reason(&error))?;
    if response.status() != StatusCode::OK {
        return Err(format!("the response is {}", response.status()));
    }
    let body = Limited::new(response.into_body(), SIZE_MAX).collect().await;
    let body = body.map_err(|error| reason(&*error))?.to_bytes();
    String::from_utf8(body.to_vec()).map_err(|error| error.to_string())
}
