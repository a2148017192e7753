//! Environment variables: an empty variable counts as not set, a misspelled one causes a warning, and
//! an error names the variable that has the invalid value.

use std::{collections::BTreeSet, ffi::OsStr};

use clap::{
    Arg, ArgMatches, Command,
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};

use crate::config::{
    error_text::{one_line, suggestion},
    file::{CONFIG_ID, Settings},
};

const PREFIX: &str = "PASSBOOK_";
/// The prefixes of variables that are no settings: the scripts and tests of this project use them.
const SCRIPT_PREFIXES: [&str; 5] = [
    "PASSBOOK_TEST_",
    "PASSBOOK_BENCH_",
    "PASSBOOK_POSTGRES_",
    "PASSBOOK_PREVIOUS_",
    "PASSBOOK_VERSION",
];

/// The command with the prefix before the name of each variable, which clap derives from the field.
#[must_use]
pub fn with_prefix(command: Command) -> Command {
    command
        .mut_args(|argument| match argument.get_env().and_then(OsStr::to_str) {
            Some(name) => {
                let name = format!("{PREFIX}{name}");
                argument.env(name)
            }
            None => argument,
        })
        .mut_subcommands(with_prefix)
}

/// The command without its empty variables. Compose, for example, passes a variable that is not set
/// as an empty one.
#[must_use]
pub fn without_empty_variables(command: Command) -> Command {
    command
        .mut_args(|argument| match empty_variable(&argument) {
            Some(name) => {
                let help = argument.get_long_help().or(argument.get_help()).cloned();
                let help = help.unwrap_or_default();
                argument.env(None::<&str>).long_help(format!("{help}\n\n[env: {name}=]"))
            }
            None => argument,
        })
        .mut_subcommands(without_empty_variables)
}

fn empty_variable(argument: &Arg) -> Option<String> {
    let name = argument.get_env()?.to_str()?;
    let value = std::env::var(name).ok()?;
    value.trim().is_empty().then(|| name.to_owned())
}

/// The error as one line that begins with the variable; None if the error is not about a variable.
#[must_use]
pub fn explain(error: &clap::Error, command: &Command) -> Option<String> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = argument.split([' ', '=']).next()?;
    let is_given = |text: String| text.split('=').next() == Some(flag);
    if std::env::args_os().any(|text| is_given(text.to_string_lossy().into_owned())) {
        return None;
    }
    let variables = variables(command);
    let variable = format!("{PREFIX}{}", flag.trim_start_matches('-').replace('-', "_"));
    let variable = variables.get(&variable.to_uppercase())?;
    std::env::var_os(variable)?;
    Some(format!("{variable}: {}", one_line(error)))
}

/// One warning for each `PASSBOOK_` variable that is no setting, with the most similar setting.
#[must_use]
pub fn unknown_variables(command: &Command) -> Vec<String> {
    let known = variables(command);
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut unknown: Vec<_> = names
        .filter(|name| name.starts_with(PREFIX) && !known.contains(name))
        .filter(|name| !SCRIPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| !is_kubernetes_variable(name))
        .collect();
    unknown.sort_unstable();
    // The common prefix would make all names similar.
    let without_prefix = |name: &'_ str| name.strip_prefix(PREFIX).unwrap_or_default().to_owned();
    let settings: Vec<_> = known.iter().map(|name| without_prefix(name)).collect();
    let advice = |name: &String| match suggestion(
        &without_prefix(name),
        settings.iter().map(String::as_str),
    ) {
        Some(setting) => format!("{name} is no setting: did you mean {PREFIX}{setting}?"),
        None => format!("{name} is no setting: `passbook serve --help` shows all"),
    };
    unknown.iter().map(advice).collect()
}

/// Whether Kubernetes sets this variable. It sets several for each service of a namespace. Behind
/// the name of the service they have `_SERVICE_HOST`, `_SERVICE_PORT`, `_SERVICE_PORT_GRPC`, `_PORT`,
/// `_PORT_50051_TCP`, `_PORT_50051_TCP_ADDR` ...
fn is_kubernetes_variable(name: &str) -> bool {
    let is_link = |(_, rest): (&str, &str)| {
        let mut words = rest.split('_');
        let number = words.next().unwrap_or_default();
        let protocol = words.next().unwrap_or_default();
        number.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].contains(&protocol)
    };
    name.ends_with("_PORT")
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT_")
        || name.split_once("_PORT_").is_some_and(is_link)
}

/// The variables of the command and of all its subcommands.
fn variables(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(Arg::get_env);
    let own = own.filter_map(|name| Some(name.to_str()?.to_owned()));
    own.chain(command.get_subcommands().flat_map(variables)).collect()
}

/// The variables and files that set the settings which a message names, in brackets. A caller
/// appends this to the message. Empty if flags set them all.
#[must_use]
pub fn sources(message: &str, matches: &ArgMatches, file: Option<&Settings>) -> String {
    let mut subcommand = matches;
    while let Some((_, next)) = subcommand.subcommand() {
        subcommand = next;
    }
    let is_name = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
    let words: BTreeSet<&str> = message.split(|it| !is_name(it)).collect();
    let source = |id: &str| match subcommand.value_source(id)? {
        ValueSource::EnvVariable => Some(format!("{id} is {PREFIX}{}", id.to_uppercase())),
        ValueSource::DefaultValue => file
            .filter(|it| it.contains_key(id))
            .map(|it| format!("{id} is in {}", it.path().display())),
        _ => None,
    };
    // A message about the content of a file begins with its path.
    let begins_with_file = |id: &str| {
        let mut values = subcommand.get_raw(id).into_iter().flatten();
        (id.ends_with("_file") || id == CONFIG_ID)
            && values.any(|it| message.starts_with(&format!("{}: ", it.to_string_lossy())))
    };
    let ids = subcommand.ids().map(clap::Id::as_str);
    let named = ids.filter(|id| words.contains(id) || begins_with_file(id));
    let sources: Vec<_> = named.filter_map(source).collect();
    if sources.is_empty() { String::new() } else { format!(" ({})", sources.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_kubernetes_services_are_recognized() {
        for name in [
            "PASSBOOK_PORT",
            "PASSBOOK_SERVICE_HOST",
            "PASSBOOK_SERVICE_PORT",
            "PASSBOOK_SERVICE_PORT_GRPC",
            "PASSBOOK_PORT_50051_TCP",
            "PASSBOOK_PORT_50051_TCP_ADDR",
            "PASSBOOK_PORT_50051_TCP_PORT",
            "PASSBOOK_PORT_50051_TCP_PROTO",
            "PASSBOOK_ADMIN_SERVICE_HOST",
            "PASSBOOK_ADMIN_PORT_9090_TCP_ADDR",
        ] {
            assert!(is_kubernetes_variable(name), "{name}");
        }
        for name in ["PASSBOOK_DATBASE_URL", "PASSBOOK_SERVICE", "PASSBOOK_PORT_NUMBER"] {
            assert!(!is_kubernetes_variable(name), "{name}");
        }
    }
}
