//! Lists: tables, JSON Lines or CSV, printed page by page.

use std::marker::PhantomData;

use clap::Args;
use passbook_command::{
    CliError, output,
    table::{Column, Table},
};
use prost::Name;

use crate::output::{Format, json};

/// The most elements of one page.
const PAGE_SIZE_MAX: u32 = 1000;

/// A message that is a row of a table.
pub trait Row: Name {
    const COLUMNS: &'static [Column];

    /// One text for each column.
    fn cells(&self) -> Vec<String>;
}

/// How a list is printed.
#[derive(Args)]
pub struct ListArguments {
    /// Print at most this many. Default: all.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,

    /// Print comma-separated values with a header line.
    #[arg(long, conflicts_with_all = ["output", "json"], help_heading = "Output")]
    csv: bool,
}

enum Writer {
    Table(Table),
    Json,
    Csv { has_header: bool },
}

/// The output of a list.
pub struct Rows<R> {
    writer: Writer,
    /// How many more rows are printed. None: all.
    left: Option<u32>,
    row: PhantomData<R>,
}

impl<R: Row> Rows<R> {
    /// All rows, as a table or JSON.
    pub fn all(format: Format) -> Self {
        let writer = match format {
            Format::Table => Writer::Table(Table::new(R::COLUMNS)),
            Format::Json => Writer::Json,
        };
        Self { writer, left: None, row: PhantomData }
    }

    /// The rows that are wanted.
    pub fn new(arguments: &ListArguments, format: Format) -> Self {
        let rows = Self { left: arguments.limit, ..Self::all(format) };
        match arguments.csv {
            true => Self { writer: Writer::Csv { has_header: false }, ..rows },
            false => rows,
        }
    }

    /// How many rows the next page should have. Zero: the list is complete.
    pub fn wanted(&self) -> u32 {
        self.left.map_or(PAGE_SIZE_MAX, |left| left.min(PAGE_SIZE_MAX))
    }

    /// Prints the next rows, as far as they are wanted.
    pub fn print(&mut self, rows: &[R]) -> Result<(), CliError> {
        let wanted = self.left.map_or(rows.len(), |left| rows.len().min(left as usize));
        let rows = &rows[..wanted];
        let printed = u32::try_from(wanted).unwrap_or(u32::MAX);
        self.left = self.left.map(|left| left.saturating_sub(printed));
        let text = match &mut self.writer {
            Writer::Table(table) => {
                let cells: Vec<_> = rows.iter().map(Row::cells).collect();
                table.part(&cells)
            }
            Writer::Json => json::lines(rows)?,
            Writer::Csv { has_header } => {
                let header = (!std::mem::replace(has_header, true)).then_some(R::COLUMNS);
                to_csv(header, rows).map_err(CliError::run)?
            }
        };
        output::part(&text)
    }
}

fn to_csv<R: Row>(header: Option<&[Column]>, rows: &[R]) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    if let Some(columns) = header {
        writer.write_record(columns.iter().map(Column::name))?;
    }
    for row in rows {
        writer.write_record(row.cells())?;
    }
    let bytes = writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Which page of a list comes next: the fields of that name in a request.
pub struct Page {
    pub page_size: i32,
    pub page_token: String,
}

/// Prints a list page by page. `fetch` returns a page and the token of the next one.
pub async fn print_pages<R: Row>(
    arguments: &ListArguments,
    format: Format,
    mut fetch: impl AsyncFnMut(Page) -> Result<(Vec<R>, String), CliError>,
) -> Result<(), CliError> {
    let mut rows = Rows::new(arguments, format);
    let mut page_token = String::new();
    loop {
        // A page of zero elements would have the default size.
        let page_size = rows.wanted().max(1).cast_signed();
        let (page, next) = fetch(Page { page_size, page_token }).await?;
        rows.print(&page)?;
        if next.is_empty() || rows.wanted() == 0 {
            return Ok(());
        }
        page_token = next;
    }
}
