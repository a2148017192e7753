//! The keys that verify JWTs: read from a file or fetched from a URL, again and again.

use std::{
    fs,
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
    auth::{JwtIssuer, KeySet},
    config::JwksSource,
    server::file_watch,
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
        let text = self.read().await.map_err(|error| self.in_source(error))?;
        if text != self.text {
            self.replace_keys(&text)?;
            self.text = text;
        }
        if let JwksSource::Url(_) = self.source {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            gauge!("passbook_jwks_fetch_timestamp_seconds").set(now.as_secs_f64());
        }
        Ok(())
    }

    /// Loads the keys again for as long as the future is polled: those of a file after each change,
    /// those of a URL regularly and when a token names an unknown key.
    pub async fn reload_on_change(self) {
        match self.source.clone() {
            JwksSource::File(path) => {
                let read = || read_file(&path).map_err(|error| self.in_source(error));
                let reload = |text: Result<&String, &String>| {
                    self.replace_keys(text.map_err(String::clone)?)
                };
                let in_force = self.text.clone();
                file_watch::reload_on_change("keys for JWTs", in_force, read, reload).await;
            }
            JwksSource::Url(_) => self.fetch_regularly().await,
        }
    }

    async fn fetch_regularly(mut self) {
        let mut last_error = None;
        loop {
            sleep(FETCH_INTERVAL_MIN).await;
            if last_error.is_none() {
                // Too late or in time, the keys are fetched.
                let unknown_key = self.issuer.unknown_key_seen();
                let _ = timeout(FETCH_INTERVAL - FETCH_INTERVAL_MIN, unknown_key).await;
            }
            let error = self.load().await.err();
            if let Some(error) = error.as_ref().filter(|_| error != last_error) {
                tracing::error!(error, "keys for JWTs not reloaded");
            }
            last_error = error;
        }
    }

    fn replace_keys(&self, text: &str) -> Result<(), String> {
        let keys = KeySet::parse(text).map_err(|error| self.in_source(error))?;
        tracing::info!(?keys, "keys for JWTs loaded");
        if keys.count() == 0 {
            tracing::error!("no JWT is accepted: the key set of jwt_jwks has no usable key");
        }
        gauge!("passbook_jwt_keys").set(keys.count() as f64);
        self.issuer.replace_keys(keys);
        Ok(())
    }

    fn in_source(&self, error: String) -> String {
        format!("{}: {error}", self.source)
    }

    async fn read(&self) -> Result<String, String> {
        match &self.source {
            JwksSource::File(path) => read_file(path),
            JwksSource::Url(url) => {
                let fetched = timeout(FETCH_TIME_MAX, fetch(&self.client, url)).await;
                fetched.map_err(|_| "the fetch timed out")?
            }
        }
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))
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
