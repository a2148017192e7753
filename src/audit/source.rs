//! A file of credentials, as the audit log names it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::audit::entry::{hex, timestamp};

/// What the file system says of a file: its content, and who changed it when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Where it is.
    pub file: PathBuf,
    /// SHA-256 of the content. None if the file cannot be read.
    pub sha256: Option<String>,
    owner_uid: Option<u32>,
    modify_time: Option<String>,
}

impl Source {
    /// Reads the file.
    #[must_use]
    pub fn read(file: &Path) -> Self {
        let metadata = fs::metadata(file).ok();
        let modified = metadata.as_ref().and_then(|it| it.modified().ok());
        Self {
            file: file.to_owned(),
            sha256: fs::read(file).ok().map(|content| hex(&Sha256::digest(content))),
            owner_uid: metadata.as_ref().map(MetadataExt::uid),
            modify_time: modified.map(timestamp),
        }
    }
}
