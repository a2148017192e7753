//! The files that a PostgreSQL URL names. sqlx reads them for each new connection, and its error
//! for a missing file lacks the name.

use std::path::{Path, PathBuf};

use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{regular_file, storage::connect::url::parameters::Parameters};

/// A file, and the parameter or variable that names it.
#[derive(Clone)]
pub(super) struct NamedFile {
    name: &'static str,
    path: PathBuf,
    content: Content,
}

impl NamedFile {
    /// The path.
    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Whether the file has a secret.
    pub(super) fn is_key(&self) -> bool {
        self.name == KEY
    }
}

/// The parameter with the file of the private key.
const KEY: &str = "sslkey";

#[derive(Clone, Copy)]
enum Content {
    Certificates,
    Key,
    /// The other half of a pair is not given, so that this one is of no use.
    Alone,
}

/// The files that sqlx will read, from parameters and from the environment variables that it knows.
pub(super) fn named(parameters: &Parameters) -> Vec<NamedFile> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let value = |names: &[&str], name: &str| {
        parameters.last(names).map(str::to_owned).or_else(|| variable(name))
    };
    let mode = value(&["sslmode", "ssl-mode"], "PGSSLMODE").unwrap_or_default();
    if ["disable", "allow"].contains(&&*mode) {
        return Vec::new();
    }
    let roots = value(&["sslrootcert", "ssl-root-cert", "ssl-ca"], "PGSSLROOTCERT")
        .filter(|_| ["verify-ca", "verify-full"].contains(&&*mode));
    let certificate = value(&["sslcert", "ssl-cert"], "PGSSLCERT");
    let key = value(&["sslkey", "ssl-key"], "PGSSLKEY");
    let is_pair = certificate.is_some() == key.is_some();
    let of_pair = |content| if is_pair { content } else { Content::Alone };
    let files = [
        ("sslrootcert", roots, Content::Certificates),
        ("sslcert", certificate, of_pair(Content::Certificates)),
        (KEY, key, of_pair(Content::Key)),
    ];
    let files = files.into_iter().filter_map(|(name, value, content)| {
        // The value may be the certificate itself.
        let path = value.filter(|value| !value.trim().starts_with("-----BEGIN"))?.into();
        Some(NamedFile { name, path, content })
    });
    files.collect()
}

/// Reads the files. The error names the first that cannot be used.
pub(super) fn check(files: &[NamedFile]) -> Result<(), String> {
    files.iter().try_for_each(|NamedFile { name, path, content }| {
        let wrong = |what: String| format!("{name} {}: {what}", path.display());
        let text = read(path).map_err(wrong)?;
        let first = match content {
            Content::Certificates => CertificateDer::from_pem_slice(&text).map(drop),
            Content::Key => PrivateKeyDer::from_pem_slice(&text).map(drop),
            Content::Alone => {
                return Err(wrong("sslcert and sslkey go together, but one is missing".to_owned()));
            }
        };
        first.map_err(|_| {
            wrong(match content {
                Content::Key => "it has no private key in PEM format".to_owned(),
                Content::Certificates | Content::Alone => {
                    "it has no certificate in PEM format".to_owned()
                }
            })
        })
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    regular_file::read(path).map_err(|error| format!("cannot be read: {error}"))
}
