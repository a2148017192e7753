//! `passbook context`: names servers, and chooses the one that commands call.

use clap::{Args, Subcommand};
use passbook_command::{
    CliError,
    client::ClientConfig,
    output,
    table::{Column, Table},
};

use crate::{
    contexts::{Context, ContextFile, Contexts},
    output::{Format, OutputArguments},
    server::TARGET_DEFAULT,
};

#[derive(Subcommand)]
pub enum ContextCommand {
    /// Add a context, or replace the one with this name.
    Set(Set),
    /// Choose the context of commands that name none.
    Use(Select),
    /// Print all contexts.
    List(List),
    /// Remove a context.
    Remove(Remove),
}

#[derive(Args)]
pub struct Set {
    /// The name of the context, such as prod.
    name: String,

    /// The server: http://HOST:PORT, https://HOST:PORT, or HOST:PORT.
    #[arg(long, value_name = "ADDRESS")]
    target: String,

    #[command(flatten)]
    client: ClientConfig,

    #[command(flatten)]
    file: ContextFile,
}

#[derive(Args)]
pub struct Select {
    /// The name of the context.
    name: String,

    #[command(flatten)]
    file: ContextFile,
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    file: ContextFile,
}

#[derive(Args)]
pub struct Remove {
    /// The name of the context.
    name: String,

    #[command(flatten)]
    file: ContextFile,
}

impl ContextCommand {
    pub fn run(self) -> Result<(), CliError> {
        match self {
            Self::Set(command) => command.run(),
            Self::Use(command) => command.run(),
            Self::List(command) => command.run(),
            Self::Remove(command) => command.run(),
        }
    }
}

impl Set {
    fn run(self) -> Result<(), CliError> {
        let mut contexts = self.file.read()?;
        // A wrong address or file is found now, not by the first call.
        self.client.endpoint(&self.target)?;
        self.client.authorization()?;
        let client = self.client.with_absolute_paths().map_err(CliError::run)?;
        let context = Context { target: self.target, client };
        contexts.by_name.insert(self.name.clone(), context);
        self.file.write(&contexts)?;
        match contexts.current {
            Some(_) => output::line(format_args!("context {} is set", self.name)),
            None => output::line(format_args!(
                "context {0} is set: `passbook context use {0}` chooses it",
                self.name
            )),
        }
    }
}

impl Select {
    fn run(self) -> Result<(), CliError> {
        let mut contexts = self.file.read()?;
        let Some(context) = contexts.by_name.get(&self.name) else {
            return Err(contexts.unknown(&self.name));
        };
        let target = context.target.clone();
        contexts.current = Some(self.name.clone());
        self.file.write(&contexts)?;
        output::line(format_args!("commands call {target} (context {})", self.name))
    }
}

impl List {
    fn run(self) -> Result<(), CliError> {
        let contexts = self.file.read()?;
        match self.output.format() {
            Format::Table => output::lines(&table(&contexts)),
            Format::Json => {
                for (name, context) in &contexts.by_name {
                    let is_current = contexts.current.as_ref() == Some(name);
                    output::line(serde_json::json!({
                        "name": name,
                        "current": is_current,
                        "settings": context,
                    }))?;
                }
                Ok(())
            }
        }
    }
}

fn table(contexts: &Contexts) -> String {
    let columns = ["current", "name", "target", "token_file"].map(Column::text);
    let rows = contexts.by_name.iter().map(|(name, context)| {
        let is_current = contexts.current.as_ref() == Some(name);
        let token_file = context.client.token_file().map(|path| path.display().to_string());
        vec![
            if is_current { "*" } else { "" }.to_owned(),
            name.clone(),
            context.target.clone(),
            token_file.unwrap_or_default(),
        ]
    });
    Table::new(&columns).part(&rows.collect::<Vec<_>>())
}

impl Remove {
    fn run(self) -> Result<(), CliError> {
        let mut contexts = self.file.read()?;
        if contexts.by_name.remove(&self.name).is_none() {
            return Err(contexts.unknown(&self.name));
        }
        let was_current = contexts.current.as_ref() == Some(&self.name);
        if was_current {
            contexts.current = None;
        }
        self.file.write(&contexts)?;
        match was_current {
            false => output::line(format_args!("context {} is removed", self.name)),
            true => output::line(format_args!(
                "context {} is removed; it was the chosen one: commands call {TARGET_DEFAULT} now",
                self.name
            )),
        }
    }
}
