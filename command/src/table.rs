//! Tables and lists of fields, as text for people.

use console::{Alignment, Style, measure_text_width, pad_str};

use crate::output::printable;

/// The spaces between two columns.
const GAP: &str = "  ";

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    name: &'static str,
    alignment: Alignment,
}

impl Column {
    /// A column of texts.
    #[must_use]
    pub const fn text(name: &'static str) -> Self {
        Self { name, alignment: Alignment::Left }
    }

    /// A column of numbers. Those below zero are red on a terminal.
    #[must_use]
    pub const fn number(name: &'static str) -> Self {
        Self { name, alignment: Alignment::Right }
    }

    /// The name of the column.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

/// A table that is written in parts of any number of rows. A column is as wide as its widest cell so
/// far.
pub struct Table {
    columns: Vec<Column>,
    widths: Vec<usize>,
    has_header: bool,
}

impl Table {
    /// A table with these columns.
    #[must_use]
    pub fn new(columns: &[Column]) -> Self {
        let widths = columns.iter().map(|column| column.name.len()).collect();
        Self { columns: columns.to_vec(), widths, has_header: false }
    }

    /// The lines of the next rows, behind the header if they are the first.
    pub fn part(&mut self, rows: &[Vec<String>]) -> String {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(measure_text_width(cell));
            }
        }
        let mut text = String::new();
        if !self.has_header {
            self.has_header = true;
            let names = self.columns.iter().map(|column| column.name.to_owned());
            text.push_str(&self.line(&names.collect::<Vec<_>>(), |_, _| Style::new().bold()));
        }
        for row in &rows {
            text.push_str(&self.line(row, |column, cell| match column.alignment {
                Alignment::Right if cell.starts_with('-') => Style::new().red(),
                _ => Style::new(),
            }));
        }
        text
    }

    fn line(&self, cells: &[String], style: impl Fn(&Column, &str) -> Style) -> String {
        let cells =
            self.columns.iter().zip(&self.widths).zip(cells).map(|((column, width), cell)| {
                style(column, cell)
                    .apply_to(pad_str(cell, *width, column.alignment, None))
                    .to_string()
            });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned() + "\n"
    }
}

/// Names with their values, one in each line. Empty values are left out.
#[derive(Default)]
pub struct Fields {
    fields: Vec<(&'static str, String)>,
    is_for_stderr: bool,
}

impl Fields {
    /// Fields for standard error.
    #[must_use]
    pub fn for_stderr() -> Self {
        Self { is_for_stderr: true, ..Self::default() }
    }

    /// With this field, too.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        let value = value.to_string();
        if !value.is_empty() {
            self.fields.push((name, printable(&value)));
        }
        self
    }

    /// The lines.
    #[must_use]
    pub fn text(&self) -> String {
        let width = self.fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let bold = Style::new().bold();
        let bold = if self.is_for_stderr { bold.for_stderr() } else { bold };
        let line = |(name, value): &(&str, String)| {
            format!("{}{GAP}{value}\n", bold.apply_to(format!("{name:width$}")))
        };
        self.fields.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_grow_with_their_cells_from_part_to_part() {
        let columns =
            [Column::text("account_id"), Column::number("balance"), Column::text("state")];
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let mut table = Table::new(&columns);
        let first = table.part(&[row(["a", "-1.00", "open"]), row(["b", "12345678.00", "frozen"])]);
        assert_eq!(
            first,
            "account_id      balance  state\n\
             a                 -1.00  open\n\
             b           12345678.00  frozen\n"
        );
        // Two characters of two columns each, and a control character.
        let second = table.part(&[row(["口座", "0", "open\u{1b}[2J"])]);
        assert_eq!(second, "口座                  0  open\\u{1b}[2J\n");
        assert_eq!(Table::new(&columns).part(&[]), "account_id  balance  state\n");
    }

    #[test]
    fn fields_leave_out_what_is_empty() {
        let fields = Fields::default().with("state", "open").with("created_by", "").with("n", 1);
        assert_eq!(fields.text(), "state  open\nn      1\n");
    }
}
