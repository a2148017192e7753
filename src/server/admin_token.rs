//! The bearer token of the admin port. Reloads its file when it changes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    audit::{AuditLog, Reloads, Source},
    auth::bearer,
    lock,
    server::file_watch,
};

/// The token that requests for the admin port must have.
pub struct AdminToken {
    file: PathBuf,
    /// The SHA-256 of the token, which itself is not kept.
    sha256: RwLock<[u8; 32]>,
}

impl AdminToken {
    /// Reads the file.
    ///
    /// # Errors
    /// The file cannot be read, or its content is no token. One line, with the file's name.
    pub fn load(file: PathBuf) -> Result<Self, String> {
        let sha256 = RwLock::new(read(&file)?);
        Ok(Self { file, sha256 })
    }

    /// Whether the only `authorization` of these headers has the token. Compares hashes in constant
    /// time, so that the time taken reveals nothing of the token.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(authorization), None) = (values.next(), values.next()) else { return false };
        let Some(token) = bearer(authorization) else { return false };
        lock::read(&self.sha256).ct_eq(&Sha256::digest(token)).into()
    }

    /// Reloads the file after every change, for as long as the future is polled. Content that is no
    /// token changes nothing.
    pub async fn reload_on_change(&self, audit: Option<Arc<AuditLog>>) {
        let in_force = *lock::read(&self.sha256);
        let mut reloads = Reloads::new(audit, vec![self.source()]);
        let reload = |sha256: Result<&[u8; 32], &String>| {
            let sha256 = sha256.copied().map_err(String::clone);
            reloads.record(vec![self.source()], &sha256);
            *lock::write(&self.sha256) = sha256?;
            Ok(())
        };
        file_watch::reload_on_change("admin token", in_force, || read(&self.file), reload).await;
    }

    /// The file, as the audit log names it.
    #[must_use]
    pub fn source(&self) -> Source {
        Source::read(&self.file)
    }
}

/// The SHA-256 of the token in a file.
fn read(file: &Path) -> Result<[u8; 32], String> {
    let text = fs::read_to_string(file)
        .map_err(|error| format!("{}: cannot be read: {error}", file.display()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{}: must contain one token of printable ASCII characters, and nothing else",
            file.display()
        ));
    }
    Ok(Sha256::digest(token).into())
}
