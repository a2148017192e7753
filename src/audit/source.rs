//! The files that the server reads again when they change, as the audit log names them.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{audit::entry::timestamp, domain::hex::to_hex, regular_file};

/// A file as it was read: its content, and who changed it when, as far as the file system says.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    file: PathBuf,
    /// Of the content. None if the file cannot be read.
    pub(super) sha256: Option<String>,
    owner_uid: Option<u32>,
    modify_time: Option<String>,
    /// Of a key set: the ids of its usable keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_ids: Option<Vec<String>>,
}

impl Source {
    /// A file that was read with this content.
    #[must_use]
    pub fn new(file: &Path, content: &[u8]) -> Self {
        Self::of_sha256(file, &Sha256::digest(content))
    }

    /// A file that was read, with the SHA-256 of its content.
    #[must_use]
    pub fn of_sha256(file: &Path, sha256: &[u8]) -> Self {
        Self { sha256: Some(to_hex(sha256)), ..Self::unread(file) }
    }

    /// A file of which it is not known whether it can be read.
    #[must_use]
    pub fn read(file: &Path) -> Self {
        let content = regular_file::read(file).ok();
        content.map_or_else(|| Self::unread(file), |content| Self::new(file, &content))
    }

    /// A file whose content is not known.
    fn unread(file: &Path) -> Self {
        let metadata = fs::metadata(file).ok();
        let modified = metadata.as_ref().and_then(|it| it.modified().ok());
        Self {
            owner_uid: metadata.as_ref().map(MetadataExt::uid),
            modify_time: modified.map(timestamp),
            ..Self::untouched(file)
        }
    }

    /// A file on a file system that hangs, of which nothing is asked.
    #[must_use]
    pub fn untouched(file: &Path) -> Self {
        let file = file.to_owned();
        Self { file, sha256: None, owner_uid: None, modify_time: None, key_ids: None }
    }

    /// What a URL returned. None: nothing.
    #[must_use]
    pub fn of_url(url: &str, content: Option<&[u8]>) -> Self {
        let sha256 = content.map(|content| to_hex(&Sha256::digest(content)));
        Self { sha256, ..Self::untouched(Path::new(url)) }
    }

    /// The same for a key set that has these keys.
    #[must_use]
    pub fn with_key_ids(self, key_ids: Vec<String>) -> Self {
        Self { key_ids: Some(key_ids), ..self }
    }
}
