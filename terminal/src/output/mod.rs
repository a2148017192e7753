//! What commands print: text for people, or JSON.

mod json;
mod rows;

use clap::{Args, ValueEnum};
use passbook_command::{CliError, output};
use prost::Name;

pub use crate::output::rows::{ListArguments, Page, Row, Rows, print_pages};

/// The form of what a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and fields, for people.
    Table,
    /// JSON Lines: each message of the contract is one line, in the JSON form of Protocol Buffers.
    Json,
}

/// How a command prints what it gets.
#[derive(Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArguments {
    /// The form of the output.
    #[arg(long, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,

    /// Short for --output json.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

impl OutputArguments {
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

impl Format {
    /// Prints a message: as JSON, or as this text.
    pub fn print(self, message: &impl Name, text: impl FnOnce() -> String) -> Result<(), CliError> {
        match self {
            Self::Table => output::lines(&text()),
            Self::Json => output::line(json::of(message)?),
        }
    }

    /// Prints messages: as JSON, or as this part of a longer text.
    pub fn print_part(
        self,
        messages: &[impl Name],
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        output::part(&match self {
            Self::Table => text(),
            Self::Json => json::lines(messages)?,
        })
    }

    /// Prints a value that the caller should know before the call, to standard error.
    pub fn announce(self, name: &str, json_name: &str, value: &str) {
        match self {
            Self::Table => output::error_line(format_args!("{name}: {value}")),
            Self::Json => output::error_line(serde_json::json!({ json_name: value })),
        }
    }
}
