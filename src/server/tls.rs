//! TLS: the server's certificate and key, and the authorities for client certificates. Reloads the
//! files when they change.

use std::{
    path::Path,
    sync::{Arc, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use metrics::gauge;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};
use tokio_rustls::rustls::{
    Error, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::{extensions::GeneralName, prelude::*};

use crate::{
    audit::{AuditLog, Reloads, Source},
    auth::{PeerCertificate, Principal},
    budget::Connections,
    config::TlsFiles,
    domain::ids::{Identity, IdentityKind},
    lock, regular_file,
    server::file_watch::{self, ReadFailure},
};

/// ALPN's name for HTTP/2.
const GRPC_PROTOCOL: &[u8] = b"h2";
/// ALPN's name for HTTP/1.1.
const HTTP_PROTOCOL: &[u8] = b"http/1.1";
/// How long before its expiry the certificate causes a warning.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// How often the time of expiry is published.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(2);
/// The time between two such warnings.
const EXPIRY_WARNING_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// The TLS configuration of new connections, of the gRPC port, the admin port and the console.
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<Loaded>>,
}

/// The bytes of the files: certificate, key, authorities.
type Contents = [Vec<u8>; 3];

/// What was loaded from the files.
struct Loaded {
    config: Arc<ServerConfig>,
    http_config: Arc<ServerConfig>,
    /// Those of client certificates.
    authorities: Vec<CertificateDer<'static>>,
    expire_time: SystemTime,
    contents: Contents,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read, or the files do not fit together. One line, with the file's name.
    pub fn load(files: TlsFiles) -> Result<Self, String> {
        let loaded = load(&files, contents(&files)?)?;
        let current = RwLock::new(Arc::new(loaded));
        Ok(Self { files, current })
    }

    /// The configuration for a new connection of the gRPC port.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.loaded().config.clone()
    }

    /// The configuration for a new connection of the admin port or the console. It asks for no client
    /// certificate: the probes of orchestrators and browsers have none.
    #[must_use]
    pub fn http_config(&self) -> Arc<ServerConfig> {
        self.loaded().http_config.clone()
    }

    /// Reloads the files after every change, and reports the expiry of the certificate, for as long
    /// as the future is polled. Files that do not fit together change nothing: a certificate is
    /// replaced before its key, or after it. When an authority is removed, closes the connections
    /// that have a client certificate: callers connect again with one of those that are left.
    pub async fn reload_on_change(
        &self,
        connections: Arc<Connections>,
        audit: Option<Arc<AuditLog>>,
    ) {
        let mut reloads = Reloads::new(audit, self.sources());
        let files = self.files.clone();
        let read = move || contents(&files);
        let reload = |contents: Result<&Contents, &ReadFailure>| {
            let read = sources(&self.files, contents);
            let contents = contents.map_err(ToString::to_string);
            let loaded = contents.and_then(|contents| load(&self.files, contents.clone()));
            reloads.record(read, &loaded);
            let loaded = Arc::new(loaded?);
            let before = std::mem::replace(&mut *lock::write(&self.current), loaded.clone());
            if before.authorities.iter().any(|it| !loaded.authorities.contains(it)) {
                connections.close_those_with_certificate();
            }
            Ok(())
        };
        let in_force = self.loaded().contents.clone();
        let reloading = file_watch::reload_on_change("certificates", in_force, read, reload);
        tokio::join!(reloading, self.report_expiry());
    }

    /// The files in force, as the audit log names them.
    #[must_use]
    pub fn sources(&self) -> Vec<Source> {
        sources(&self.files, Ok(&self.loaded().contents))
    }

    fn loaded(&self) -> Arc<Loaded> {
        lock::read(&self.current).clone()
    }

    /// Publishes the time of expiry as a metric, and warns while it is near.
    async fn report_expiry(&self) {
        let mut warned: Option<(Arc<Loaded>, Instant)> = None;
        loop {
            let loaded = self.loaded();
            let expire_time = loaded.expire_time;
            let since_epoch = expire_time.duration_since(UNIX_EPOCH).unwrap_or_default();
            gauge!("passbook_tls_certificate_expiry_timestamp_seconds")
                .set(since_epoch.as_secs_f64());
            let is_known = warned.as_ref().is_some_and(|(warned_of, at)| {
                Arc::ptr_eq(warned_of, &loaded) && at.elapsed() < EXPIRY_WARNING_INTERVAL
            });
            if !is_known && expire_time < SystemTime::now() + EXPIRY_WARNING {
                let expire_time = humantime::format_rfc3339_seconds(expire_time);
                tracing::warn!(%expire_time, "the certificate expires soon or has expired");
                warned = Some((loaded, Instant::now()));
            }
            sleep(EXPIRY_INTERVAL).await;
        }
    }
}

/// What identifies the owner of a client certificate whose chain was verified.
#[must_use]
pub fn peer_certificate(certificate: &CertificateDer<'_>) -> PeerCertificate {
    PeerCertificate {
        principal: principal(certificate),
        sha256: Sha256::digest(certificate).into(),
    }
}

/// The owner of a client certificate whose chain was verified: its only URI, which is a SPIFFE ID,
/// or else its only DNS name. The certificate must be one for clients, as X.509-SVID says.
///
/// <https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>
///
/// # Errors
/// The certificate is not one of a caller, in one sentence.
fn principal(certificate: &CertificateDer<'_>) -> Result<Principal, &'static str> {
    let malformed = |_: X509Error| "the client certificate is malformed";
    let (_, certificate) = X509Certificate::from_der(certificate)
        .map_err(|_| "the client certificate is malformed")?;
    if certificate.is_ca() {
        return Err("the client certificate is one of an authority");
    }
    let usage = certificate.extended_key_usage().map_err(malformed)?;
    if !usage.is_some_and(|usage| usage.value.client_auth) {
        return Err("the client certificate has no extended key usage for clients (clientAuth)");
    }
    let usage = certificate.key_usage().map_err(malformed)?;
    let is_signature =
        |usage: &KeyUsage| usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign();
    if usage.is_some_and(|usage| !is_signature(usage.value)) {
        return Err("the client certificate's key usage is not for signatures of calls only");
    }
    let names = certificate.subject_alternative_name().map_err(malformed)?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(name) => dns_names.push(*name),
            _ => {}
        }
    }
    let identity = match (&uris[..], &dns_names[..]) {
        ([uri], _) => Identity::new(IdentityKind::Spiffe, uri),
        ([], [name]) => Identity::new(IdentityKind::Dns, name),
        _ => {
            return Err(
                "the client certificate must have exactly one URI, or no URI and exactly one DNS name",
            );
        }
    };
    let identity = identity
        .map_err(|_| "the name in the client certificate is not a SPIFFE ID or a DNS name")?;
    // A time before 1970 has passed as well.
    let expire_time = Some(expire_time(&certificate).unwrap_or(UNIX_EPOCH));
    Ok(Principal { identity, groups: Arc::default(), expire_time })
}

/// The files as the audit log names them, with their contents if they could be read.
fn sources(files: &TlsFiles, contents: Result<&Contents, &ReadFailure>) -> Vec<Source> {
    let paths = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
    match contents {
        Ok(contents) => {
            let read = paths.into_iter().zip(contents);
            read.filter_map(|(path, content)| Some(Source::new(path?, content))).collect()
        }
        Err(failure) => paths.into_iter().flatten().map(|path| failure.source(path)).collect(),
    }
}

fn contents(files: &TlsFiles) -> Result<Contents, String> {
    let read = |path: &Path| {
        let content = regular_file::read(path);
        content.map_err(|error| format!("{}: cannot be read: {error}", path.display()))
    };
    let client_ca = files.client_ca.as_deref().map(read).transpose()?.unwrap_or_default();
    Ok([read(&files.certificate)?, read(&files.key)?, client_ca])
}

fn load(files: &TlsFiles, contents: Contents) -> Result<Loaded, String> {
    let [certificate, key, client_ca] = &contents;
    let chain = certificates(&files.certificate, certificate)?;
    let own = chain.first().and_then(|own| X509Certificate::from_der(own).ok());
    let expire_time = own
        .and_then(|(_, own)| expire_time(&own))
        .ok_or_else(|| format!("{}: is not an X.509 certificate", files.certificate.display()))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| format!("{}: has no private key in PEM", files.key.display()))?;
    let provider = Arc::new(ring::default_provider());
    let config = |verifier: Arc<dyn ClientCertVerifier>, protocol: &[u8]| {
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| match error {
                Error::InconsistentKeys(_) => {
                    let (key, certificate) = (files.key.display(), files.certificate.display());
                    format!("{key}: is not the key of {certificate}")
                }
                other => format!("{}: {other}", files.key.display()),
            })?;
        config.alpn_protocols = vec![protocol.to_vec()];
        // No session is resumed: its client certificate was verified by authorities that may have
        // been replaced since. Full handshakes cost little, because connections are few and long.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok::<_, String>(Arc::new(config))
    };
    let anyone = WebPkiClientVerifier::no_client_auth;
    let mut authorities = Vec::new();
    let callers = match &files.client_ca {
        None => anyone(),
        Some(path) => {
            let in_file = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            authorities = certificates(path, client_ca)?;
            let mut roots = RootCertStore::empty();
            for root in authorities.iter().cloned() {
                roots.add(root).map_err(|error| in_file(&error))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            let verifier = match files.client_certificate_required {
                true => verifier,
                false => verifier.allow_unauthenticated(),
            };
            verifier.build().map_err(|error| in_file(&error))?
        }
    };
    let http_config = config(anyone(), HTTP_PROTOCOL)?;
    let config = config(callers, GRPC_PROTOCOL)?;
    Ok(Loaded { config, http_config, authorities, expire_time, contents })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    certificates
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| format!("{}: has no certificate in PEM", path.display()))
}

fn expire_time(certificate: &X509Certificate<'_>) -> Option<SystemTime> {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}
