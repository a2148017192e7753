//! The file: lines of events, each with the token behind them.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    path::Path,
};

use anyhow::Context;
use passbook::proto::WatchEventsResponse;
use serde_json::{Value, json};

use crate::json;

/// A copy that is continued.
pub struct Copy {
    file: File,
    token: Option<String>,
}

impl Copy {
    /// Opens or creates a file, and cuts off what was not written to its end.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.with_context(|| format!("cannot open {}", path.display()))?;
        file.try_lock().context("another program writes this file")?;
        let (mut token, mut end) = (None, 0);
        // Bytes: what was not written to its end may end within a character.
        let (mut lines, mut line) = (BufReader::new(&file), Vec::new());
        while lines.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            let message: Value = serde_json::from_slice(&line).context("not a line of a copy")?;
            token = Some(message["token"].as_str().context("a line without a token")?.to_owned());
            end += line.len() as u64;
            line.clear();
        }
        file.set_len(end)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, token })
    }

    /// The token behind the last event in the file.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Appends the events of a message. They are on the disk when this returns.
    pub fn append(&mut self, message: WatchEventsResponse) -> anyhow::Result<()> {
        let events: Vec<_> = message.events.iter().map(json::event).collect();
        let line = json!({ "token": message.token, "events": events }).to_string() + "\n";
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()?;
        self.token = Some(message.token);
        Ok(())
    }
}
