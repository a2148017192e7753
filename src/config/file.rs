//! The TOML file of settings. A key is the name of a flag with `_` for `-`. The values replace the
//! defaults of the command, so clap validates them like flags, and a flag or a variable overrides
//! them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, Command, builder::OsStr, error::ContextKind, error::ContextValue};

use crate::{
    config::error_text::{one_line, suggestion},
    regular_file,
    storage::DatabaseUrl,
    toml_text,
};

/// The id of the setting with the path of the file. The file itself cannot set it.
pub const CONFIG_ID: &str = "config";

/// An error in the file, as one line that begins with its path.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct FileError {
    path: PathBuf,
    what: String,
}

/// The values of a file by key. Keys and types are validated, the values are not yet parsed.
pub struct Settings {
    path: PathBuf,
    values: BTreeMap<String, Vec<String>>,
}

impl Settings {
    /// Reads a file whose keys are settings of `command` or of its subcommand `serve`.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, or has an unknown key or a value of the wrong type.
    pub fn read(path: &Path, command: &Command) -> Result<Self, FileError> {
        let fail = |what: String| FileError { path: path.to_owned(), what };
        let text = regular_file::read_text_once(path)
            .map_err(|error| fail(format!("cannot be read: {error}")))?;
        let table: toml::Table = toml_text::parse(&text).map_err(fail)?;
        let known = settings(command);
        let mut values = BTreeMap::new();
        for (key, value) in table {
            let Some(argument) = known.get(key.as_str()) else {
                let advice = match suggestion(&key, known.keys().copied()) {
                    Some(name) => format!("did you mean {name}?"),
                    None => "`passbook serve --help` shows all".to_owned(),
                };
                return Err(fail(format!("there is no setting {key:?}: {advice}")));
            };
            let arguments =
                to_arguments(argument, value).map_err(|what| fail(format!("{key} {what}")))?;
            values.insert(key, arguments);
        }
        Ok(Self { path: path.to_owned(), values })
    }

    /// The command with the values of the file as defaults.
    #[must_use]
    pub fn apply(&self, command: Command) -> Command {
        command
            .mut_args(|argument| match self.values.get(argument.get_id().as_str()) {
                Some(values) if is_setting(&argument) => {
                    argument.default_values(values.iter().cloned().map(OsStr::from))
                }
                _ => argument,
            })
            .mut_subcommands(|subcommand| self.apply(subcommand))
    }

    /// A warning if the file has the database's password and others can read it.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let urls = self.values.get("database_url")?;
        let has_password = urls.iter().any(|url| DatabaseUrl::has_password(url));
        has_password.then(|| regular_file::exposure(CONFIG_ID, &self.path)).flatten()
    }

    /// Whether the file sets this key.
    pub(super) fn contains_key(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An error of clap as an error of the file. Flags and variables were parsed before without an
    /// error, so the invalid value is from the file.
    #[must_use]
    pub fn explain(&self, error: &clap::Error) -> FileError {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.as_str()),
            _ => None,
        };
        let argument = text(ContextKind::InvalidArg).unwrap_or_default();
        let name = argument.trim_start_matches('-').split(' ').next().unwrap_or_default();
        let why = one_line(error);
        FileError { path: self.path.clone(), what: format!("{}: {why}", name.replace('-', "_")) }
    }
}

/// The command with `[key: ...]` in the long help of each argument that the file may set.
#[must_use]
pub fn document_keys(command: Command) -> Command {
    let keys = settings(&command).into_keys().map(str::to_owned).collect();
    document(command, &keys)
}

fn document(command: Command, keys: &BTreeSet<String>) -> Command {
    command
        .mut_args(|argument| {
            let key = argument.get_id().to_string();
            let help = argument.get_long_help().or(argument.get_help()).cloned();
            match help.filter(|_| keys.contains(&key) && is_setting(&argument)) {
                Some(help) => argument.long_help(format!("{help}\n\n[key: {key}]")),
                None => argument,
            }
        })
        .mut_subcommands(|subcommand| document(subcommand, keys))
}

/// Whether an argument is a setting: it has a variable, and is not the path of the file.
fn is_setting(argument: &Arg) -> bool {
    argument.get_env().is_some() && argument.get_id() != CONFIG_ID
}

/// The settings of `serve` and the global ones, by key.
fn settings(command: &Command) -> BTreeMap<&str, &Arg> {
    let serve = command.get_subcommands().filter(|it| it.get_name() == "serve");
    let arguments = command.get_arguments().chain(serve.flat_map(Command::get_arguments));
    arguments.filter(|it| is_setting(it)).map(|it| (it.get_id().as_str(), it)).collect()
}

/// The arguments that a flag would need for this value. A list is allowed if the flag can be
/// repeated.
fn to_arguments(argument: &Arg, value: toml::Value) -> Result<Vec<String>, String> {
    let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
    let is_list = matches!(argument.get_action(), ArgAction::Append);
    match value {
        toml::Value::Boolean(value) if is_switch => Ok(vec![value.to_string()]),
        _ if is_switch => Err("must be true or false".to_owned()),
        toml::Value::Array(values) if is_list => {
            values.into_iter().map(scalar).collect::<Option<_>>().ok_or_else(|| {
                "must be a list of texts, like [\"ETH=18\", \"CREDIT=6\"]".to_owned()
            })
        }
        value => Ok(vec![scalar(value).ok_or("must be a text or a number")?]),
    }
}

fn scalar(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => None,
    }
}
