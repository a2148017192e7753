//! The files that the server reads again when they change, as the audit log names them.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{audit::entry::timestamp, domain::hex::to_hex};

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
        Self::with(file, Some(content))
    }

    /// A file of which it is not known whether it can be read.
    #[must_use]
    pub fn read(file: &Path) -> Self {
        Self::with(file, fs::read(file).ok().as_deref())
    }

    fn with(file: &Path, content: Option<&[u8]>) -> Self {
        let metadata = fs::metadata(file).ok();
        let modified = metadata.as_ref().and_then(|it| it.modified().ok());
        Self {
            file: file.to_owned(),
            sha256: content.map(|content| to_hex(&Sha256::digest(content))),
            owner_uid: metadata.as_ref().map(MetadataExt::uid),
            modify_time: modified.map(timestamp),
            key_ids: None,
        }
    }

    /// The same for a key set that has these keys.
    #[must_use]
    pub fn with_key_ids(self, key_ids: Vec<String>) -> Self {
        Self { key_ids: Some(key_ids), ..self }
    }
}
