//! Ed25519 keys in the files that openssl writes: PKCS#8 and SubjectPublicKeyInfo, as PEM.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use tokio_rustls::rustls::pki_types::{
    PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject,
};

use crate::regular_file;

/// The bytes of a private or a public key, without what is around them in a file.
const KEY_LENGTH: usize = 32;
/// The DER of RFC 8410 before a private key.
const PRIVATE_KEY_PREFIX: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// The DER of RFC 8410 before a public key.
const PUBLIC_KEY_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
/// Only the owner may read and write.
const PRIVATE_MODE: u32 = 0o600;

/// A private key.
pub struct SigningKey(Ed25519KeyPair);

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; KEY_LENGTH]);

impl SigningKey {
    /// Creates a key and its file, which only its owner may read.
    ///
    /// # Errors
    /// The file exists or cannot be written. One line, with the file's name.
    pub fn create(path: &Path) -> Result<Self, String> {
        let cannot = |error: io::Error| format!("{}: {error}", path.display());
        let mut seed = [0; KEY_LENGTH];
        getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
        let pkcs8 = [&PRIVATE_KEY_PREFIX[..], &seed].concat();
        let key = Self::from_pkcs8(&pkcs8)?;
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(PRIVATE_MODE).open(path).map_err(cannot)?;
        let text = pem("PRIVATE KEY", &pkcs8);
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(cannot)?;
        Ok(key)
    }

    /// Reads the file of a key, and warns if others can read it.
    ///
    /// # Errors
    /// In one line, with the file's name.
    pub fn read(path: &Path) -> Result<Self, String> {
        let named = |why: String| format!("{}: {why}", path.display());
        let key = PrivatePkcs8KeyDer::from_pem_file(path)
            .map_err(|error| named(format!("is no private key in PEM: {error}")))?;
        if let Some(warning) = regular_file::exposure("the private key", path) {
            tracing::warn!("{warning}");
        }
        Self::from_pkcs8(key.secret_pkcs8_der()).map_err(named)
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, String> {
        // openssl writes the private key without the public one.
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8);
        key.map(Self).map_err(|error| format!("is no Ed25519 key: {error}"))
    }

    /// Its public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        let mut bytes = [0; KEY_LENGTH];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    /// The signature of a text, in base64.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        STANDARD.encode(self.0.sign(text.as_bytes()))
    }
}

impl PublicKey {
    /// Reads the file of a public key.
    ///
    /// # Errors
    /// In one line, with the file's name.
    pub fn read(path: &Path) -> Result<Self, String> {
        let named = |why: String| format!("{}: {why}", path.display());
        let key = SubjectPublicKeyInfoDer::from_pem_file(path)
            .map_err(|error| named(format!("is no public key in PEM: {error}")))?;
        Self::from_der(&key).ok_or_else(|| named("is no Ed25519 key".to_owned()))
    }

    /// Parses what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_der(&STANDARD.decode(text).ok()?)
    }

    fn from_der(der: &[u8]) -> Option<Self> {
        der.strip_prefix(&PUBLIC_KEY_PREFIX)?.try_into().ok().map(Self)
    }

    fn to_der(&self) -> Vec<u8> {
        [&PUBLIC_KEY_PREFIX[..], &self.0].concat()
    }

    /// The text of its file.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &self.to_der())
    }

    /// Whether the signature, in base64, is that of the text by this key.
    #[must_use]
    pub fn has_signed(&self, text: &str, signature: &str) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        let signature = STANDARD.decode(signature);
        signature.is_ok_and(|it| key.verify(text.as_bytes(), &it).is_ok())
    }
}

/// The base64 text between the first and the last line of its PEM file.
impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&STANDARD.encode(self.to_der()))
    }
}

/// PEM of so few bytes that they fit into one line.
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}
