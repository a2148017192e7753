//! The ledger of `passbook serve --ephemeral`.

use std::net::SocketAddr;

use passbook_command::CliError;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tempfile::TempDir;

use crate::storage::DatabaseUrl;

/// The characters of a path that its URL has in another form.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// An empty SQLite database in a folder of its own. Dropping it removes the folder.
pub struct EphemeralLedger {
    _folder: TempDir,
    url: String,
}

impl EphemeralLedger {
    /// Creates the folder. The server creates the file.
    pub fn create() -> Result<Self, CliError> {
        let folder = tempfile::Builder::new().prefix("passbook-").tempdir();
        let folder = folder
            .map_err(|error| CliError::Run(format!("cannot create a temporary folder: {error}")))?;
        let path = folder.path().join("ledger.db");
        let Some(path) = path.to_str() else {
            return Err(CliError::Run(format!("{} is not UTF-8", path.display())));
        };
        let url = format!("sqlite://{}?mode=rwc", utf8_percent_encode(path, ENCODED));
        Ok(Self { _folder: folder, url })
    }

    pub fn url(&self) -> Result<DatabaseUrl, CliError> {
        DatabaseUrl::parse(&self.url).map_err(CliError::run)
    }

    /// The line that says that the server is ready, for programs to read.
    pub fn ready_line(&self, address: SocketAddr) -> String {
        json!({ "address": address, "database_url": self.url }).to_string()
    }
}
