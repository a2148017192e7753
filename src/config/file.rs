//! The TOML file of settings. Its keys are the flags' names with `_` for `-`, and its values take
//! the place of the defaults; so clap checks them like those of flags, and a flag or a variable
//! wins over them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, Command, builder::OsStr, error::ContextKind, error::ContextValue};

use crate::{
    config::error_text::{one_line, suggestion},
    toml_text,
};

/// The id of the setting that names the file. It cannot be set in the file.
pub const CONFIG_ID: &str = "config";

/// What is wrong with the file, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct FileError {
    path: PathBuf,
    what: String,
}

/// The values of a file, by their keys; they fit the settings in name and kind, and are not
/// checked further.
pub struct Settings {
    path: PathBuf,
    values: BTreeMap<String, Vec<String>>,
}

impl Settings {
    /// Reads a file whose keys are settings of this command or one of its verbs.
    ///
    /// # Errors
    /// It cannot be read, is no TOML, or has a key that is no setting, or a value of a wrong type.
    pub fn read(path: &Path, command: &Command) -> Result<Self, FileError> {
        let fail = |what: String| FileError { path: path.to_owned(), what };
        let text = std::fs::read_to_string(path)
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
            let texts = texts(argument, value).map_err(|what| fail(format!("{key} {what}")))?;
            values.insert(key, texts);
        }
        Ok(Self { path: path.to_owned(), values })
    }

    /// The command with these values as its defaults.
    #[must_use]
    pub fn apply(&self, command: Command) -> Command {
        command
            .mut_args(|argument| match self.values.get(argument.get_id().as_str()) {
                Some(values) if is_setting(&argument) => {
                    argument.default_values(values.iter().cloned().map(OsStr::from))
                }
                _ => argument,
            })
            .mut_subcommands(|verb| self.apply(verb))
    }

    /// Whether it has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What clap says of a value that came from the file, since all others are right.
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

/// The command with the key of each setting in its long help.
#[must_use]
pub fn document_keys(command: Command) -> Command {
    command
        .mut_args(|argument| {
            let help = argument.get_long_help().or(argument.get_help()).cloned();
            match help.filter(|_| is_setting(&argument)) {
                Some(help) => {
                    let key = argument.get_id().to_string();
                    argument.long_help(format!("{help}\n\n[key: {key}]"))
                }
                None => argument,
            }
        })
        .mut_subcommands(document_keys)
}

/// A setting is what has a variable; of those, the file cannot name itself.
fn is_setting(argument: &Arg) -> bool {
    argument.get_env().is_some() && argument.get_id() != CONFIG_ID
}

/// All settings of `serve`, and of all verbs.
fn settings(command: &Command) -> BTreeMap<&str, &Arg> {
    let serve = command.get_subcommands().filter(|verb| verb.get_name() == "serve");
    let arguments = command.get_arguments().chain(serve.flat_map(Command::get_arguments));
    arguments.filter(|it| is_setting(it)).map(|it| (it.get_id().as_str(), it)).collect()
}

/// A value as it would be written behind the flag; more than one where the flag may be repeated.
fn texts(argument: &Arg, value: toml::Value) -> Result<Vec<String>, String> {
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
