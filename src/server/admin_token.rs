//! The bearer token of the admin port. Reloads its file when it changes.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    audit::{AuditLog, Reloads, Source},
    auth::bearer,
    lock, regular_file,
    server::file_watch::{self, ReadFailure},
};

/// The token that requests for the admin port must have.
pub struct AdminToken {
    file: PathBuf,
    current: RwLock<Hashes>,
}

/// What is kept of a file with a token.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hashes {
    /// The SHA-256 of the token, which itself is not kept.
    token: [u8; 32],
    /// The SHA-256 of the file, for the audit log.
    file: [u8; 32],
}

impl AdminToken {
    /// Reads the file.
    ///
    /// # Errors
    /// The file cannot be read, or its content is no token. One line, with the file's name.
    pub fn load(file: PathBuf) -> Result<Self, String> {
        let current = RwLock::new(read(&file)?);
        Ok(Self { file, current })
    }

    /// Whether the only `authorization` of these headers has the token. Compares hashes in constant
    /// time, so that the time taken reveals nothing of the token.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(authorization), None) = (values.next(), values.next()) else { return false };
        let Some(token) = bearer(authorization) else { return false };
        lock::read(&self.current).token.ct_eq(&Sha256::digest(token)).into()
    }

    /// Reloads the file after every change, for as long as the future is polled. Content that is no
    /// token changes nothing.
    pub async fn reload_on_change(&self, audit: Option<Arc<AuditLog>>) {
        let in_force = *lock::read(&self.current);
        let mut reloads = Reloads::new(audit, vec![self.source()]);
        let file = self.file.clone();
        let reload = |hashes: Result<&Hashes, &ReadFailure>| {
            let source = match hashes {
                Ok(hashes) => Source::of_sha256(&self.file, &hashes.file),
                Err(failure) => failure.source(&self.file),
            };
            let hashes = hashes.copied().map_err(ToString::to_string);
            reloads.record(vec![source], &hashes);
            *lock::write(&self.current) = hashes?;
            Ok(())
        };
        file_watch::reload_on_change("admin token", in_force, move || read(&file), reload).await;
    }

    /// The file in force, as the audit log names it.
    #[must_use]
    pub fn source(&self) -> Source {
        Source::of_sha256(&self.file, &lock::read(&self.current).file)
    }
}

fn read(file: &Path) -> Result<Hashes, String> {
    let text = regular_file::read_text(file)
        .map_err(|error| format!("{}: cannot be read: {error}", file.display()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{}: must contain one token of printable ASCII characters, and nothing else",
            file.display()
        ));
    }
    Ok(Hashes { token: Sha256::digest(token).into(), file: Sha256::digest(&text).into() })
}
