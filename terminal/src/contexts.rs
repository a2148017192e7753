//! Servers by name, in a file that only its owner can read.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use passbook_command::{CliError, client::ClientConfig};
use serde::{Deserialize, Serialize};

use crate::file;

/// The bits of a file's mode that let other users write it.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The file with the contexts.
#[derive(Args)]
pub struct ContextFile {
    /// The file with the contexts. Default: passbook/contexts.toml in $XDG_CONFIG_HOME, or in
    /// ~/.config.
    #[arg(long, env, value_name = "FILE")]
    context_file: Option<PathBuf>,
}

/// All contexts.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The name of the context of commands that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The contexts by name.
    #[serde(default, rename = "context")]
    pub by_name: BTreeMap<String, Context>,
}

/// How a server is called.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct Context {
    pub target: String,
    #[serde(flatten)]
    pub client: ClientConfig,
}

impl TryFrom<toml::Table> for Context {
    type Error = toml::de::Error;

    /// Not by `flatten`, which accepts unknown keys.
    fn try_from(mut table: toml::Table) -> Result<Self, Self::Error> {
        let missing = || <Self::Error as serde::de::Error>::missing_field("target");
        let target = table.remove("target").ok_or_else(missing)?.try_into()?;
        Ok(Self { target, client: table.try_into()? })
    }
}

impl ContextFile {
    /// The context of this name, or else the current one. None: no context is chosen.
    pub fn select(&self, name: Option<&str>) -> Result<Option<Context>, CliError> {
        if name.is_none() && self.path().is_err() {
            // Without a home there is no file, and none is needed.
            return Ok(None);
        }
        let mut contexts = self.read()?;
        let Some(name) = name.or(contexts.current.as_deref()).map(str::to_owned) else {
            return Ok(None);
        };
        match contexts.by_name.remove(&name) {
            Some(context) => Ok(Some(context)),
            None => Err(contexts.unknown(&name)),
        }
    }

    /// All contexts. There are none if there is no file.
    pub fn read(&self) -> Result<Contexts, CliError> {
        read(&self.path()?)
    }

    /// Replaces the file.
    pub fn write(&self, contexts: &Contexts) -> Result<(), CliError> {
        let path = self.path()?;
        let text = toml::to_string(contexts).map_err(CliError::run)?;
        // That of the default path may not exist yet.
        file::create_folder(&path)?;
        file::replace(&path, &text)
    }

    pub fn path(&self) -> Result<PathBuf, CliError> {
        let folder = |name| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        let config = || folder("XDG_CONFIG_HOME").or(folder("HOME").map(|it| it.join(".config")));
        let default = || config().map(|it| it.join("passbook").join("contexts.toml"));
        self.context_file.clone().or_else(default).ok_or_else(|| {
            CliError::Usage("there is no HOME: name the file with --context-file".to_owned())
        })
    }
}

impl Contexts {
    /// The error about a name that no context has.
    pub fn unknown(&self, name: &str) -> CliError {
        let names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        let known = match names.is_empty() {
            true => "there is none: `passbook context set` adds one".to_owned(),
            false => format!("the contexts are {}", names.join(", ")),
        };
        CliError::Usage(format!("there is no context {name}: {known}"))
    }
}

fn read(path: &Path) -> Result<Contexts, CliError> {
    let wrong = |what: String| CliError::Usage(format!("{}: {what}", path.display()));
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contexts::default()),
        text => text.map_err(|error| wrong(format!("cannot be read: {error}")))?,
    };
    // Who writes the file can send the token of its owner to any server.
    let mode = fs::metadata(path).map_err(|error| wrong(error.to_string()))?.permissions().mode();
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(wrong("other users can write it: chmod 600".to_owned()));
    }
    toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))
}
