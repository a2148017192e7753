//! TLS: the certificate with its key, and the authorities that callers' certificates come from;
//! read again when they change.

use std::{
    fs,
    path::Path,
    sync::{Arc, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use metrics::gauge;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_rustls::rustls::{
    Error, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use x509_parser::{extensions::GeneralName, prelude::*};

use crate::{config::TlsFiles, domain::ids::Identity, lock};

/// The protocol that is spoken inside, as ALPN names it.
const PROTOCOL: &[u8] = b"h2";
/// How often the files are looked at. Their contents, not their times: Kubernetes swaps links.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// How long before it expires a certificate is warned of.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// How often that is said.
const EXPIRY_WARNING_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// What connections are encrypted with, as the files say now.
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Loaded>,
}

/// What the files said when they were read.
#[derive(Clone)]
struct Loaded {
    config: Arc<ServerConfig>,
    expire_time: SystemTime,
    digest: [u8; 32],
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be read, or they do not fit together; in one line, with its name.
    pub fn load(files: TlsFiles) -> Result<Self, String> {
        let current = RwLock::new(load(&files)?);
        Ok(Self { files, current })
    }

    /// For a connection that begins now.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.loaded().config
    }

    /// Reads the files again when they have changed, for as long as the server runs. What does not
    /// fit together changes nothing: a certificate is replaced before its key, or after it.
    pub async fn keep_up_to_date(&self) {
        let mut refused = None;
        let mut warned: Option<Instant> = None;
        loop {
            self.show_expiry(&mut warned);
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let digest = contents(&self.files).map(|contents| digest(&contents));
            if digest.as_ref() == Ok(&self.loaded().digest) || Some(&digest) == refused.as_ref() {
                continue;
            }
            match load(&self.files) {
                Ok(loaded) => {
                    *lock::write(&self.current) = loaded;
                    (refused, warned) = (None, None);
                    tracing::info!("certificates read again");
                }
                Err(error) => {
                    refused = Some(digest);
                    tracing::error!(error, "certificates stay as they were");
                }
            }
        }
    }

    fn loaded(&self) -> Loaded {
        lock::read(&self.current).clone()
    }

    fn show_expiry(&self, warned: &mut Option<Instant>) {
        let expire_time = self.loaded().expire_time;
        let since_epoch = expire_time.duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge!("passbook_tls_certificate_expiry_timestamp_seconds").set(since_epoch.as_secs_f64());
        let is_due = warned.is_none_or(|warned| warned.elapsed() >= EXPIRY_WARNING_INTERVAL);
        if is_due && expire_time < SystemTime::now() + EXPIRY_WARNING {
            let expire_time = humantime::format_rfc3339_seconds(expire_time);
            tracing::warn!(%expire_time, "the certificate expires soon, or has");
            *warned = Some(Instant::now());
        }
    }
}

/// Whom a certificate that was verified is for: its SPIFFE URI, else its first DNS name.
///
/// <https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>
#[must_use]
pub fn identity(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let names = || names.value.general_names.iter();
    let spiffe = names().find_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with("spiffe://") => Some(*uri),
        _ => None,
    });
    let dns = || {
        names().find_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
    };
    spiffe.or_else(dns).map(Identity::from_stored)
}

/// The files' bytes: certificate, key, authorities.
fn contents(files: &TlsFiles) -> Result<[Vec<u8>; 3], String> {
    let read = |path: &Path| {
        fs::read(path).map_err(|error| format!("{}: cannot be read: {error}", path.display()))
    };
    let client_ca = files.client_ca.as_deref().map(read).transpose()?.unwrap_or_default();
    Ok([read(&files.certificate)?, read(&files.key)?, client_ca])
}

fn digest(contents: &[Vec<u8>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for bytes in contents {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    hash.finalize().into()
}

fn load(files: &TlsFiles) -> Result<Loaded, String> {
    let contents = contents(files)?;
    let [certificate, key, client_ca] = &contents;
    let chain = certificates(&files.certificate, certificate)?;
    let expire_time = expire_time(&chain)
        .ok_or_else(|| format!("{}: is not an X.509 certificate", files.certificate.display()))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| format!("{}: has no private key in PEM", files.key.display()))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let mut roots = RootCertStore::empty();
            for root in certificates(path, client_ca)? {
                roots.add(root).map_err(|error| wrong(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match files.client_certificate_required {
                true => verifier,
                false => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(&error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        Error::InconsistentKeys(_) => {
            format!("{}: is not the key of {}", files.key.display(), files.certificate.display())
        }
        other => format!("{}: {other}", files.key.display()),
    })?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A session that is taken up again would be the one that was verified by authorities which
    // may have been replaced since. Connections are few and long.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Loaded { config: Arc::new(config), expire_time, digest: digest(&contents) })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    certificates
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| format!("{}: has no certificate in PEM", path.display()))
}

fn expire_time(chain: &[CertificateDer<'_>]) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}
