//! The texts of the statements that write rows.
//!
//! PostgreSQL: rows travel as one array a column (UNNEST), so that the text of a statement does
//! not depend on the number of rows and is planned once a connection. UNNEST stands in the select
//! list: in FROM, PostgreSQL would first copy each array into a table of its own. The rows to update
//! are named by `key = ANY (ARRAY[...])`, which can be found by the index or not at all: with `=`
//! the plan that is made while a table has a few rows can be one that reads all of it.
//!
//! SQLite: rows travel as bound values, several in a statement.

use crate::storage::tables::{Column, ColumnType, Table};

/// Statements for PostgreSQL, with the number of parameters that they have so far.
#[derive(Default)]
pub struct Parameters(usize);

impl Parameters {
    pub fn insert(&mut self, table: &Table, columns: &[&Column]) -> String {
        let values = list(columns, |column| column.element_value(column.name));
        let (name, names, new) = (table.name, names(columns), self.unnest(columns));
        format!("INSERT INTO {name} ({names}) SELECT {values} FROM {new}")
    }

    /// The first columns, so many, name the row.
    pub fn update(&mut self, table: &Table, columns: &[&Column], key_count: usize) -> String {
        let (table, new) = (table.name, self.unnest(columns));
        let set = list(&columns[key_count..], |column| {
            let name = column.name;
            format!("{name} = {}", column.element_value(&format!("new.{name}")))
        });
        // A second key is named by a range: of two lists PostgreSQL may search by the first only.
        let second = columns[1..key_count].iter().map(|column| {
            let (key, new_key) = (column.name, new_key(column));
            format!(" AND {table}.{key} >= {new_key} AND {table}.{key} <= {new_key}")
        });
        let second: String = second.collect();
        let (key, new_key) = (columns[0].name, new_key(columns[0]));
        format!(
            "UPDATE {table} SET {set} FROM {new} \
             WHERE {table}.{key} = ANY (ARRAY[{new_key}]){second}"
        )
    }

    /// The rows of the next parameters, as the table `new`.
    fn unnest(&mut self, columns: &[&Column]) -> String {
        let arrays = list(columns, |column| {
            self.0 += 1;
            format!("UNNEST(${}::{}) AS {}", self.0, column.array_type().1, column.name)
        });
        format!("(SELECT {arrays}) AS new")
    }
}

/// A key in the table `new`, with the order of the column's own table.
fn new_key(column: &Column) -> String {
    match column.kind {
        ColumnType::Text => format!("new.{} COLLATE \"C\"", column.name),
        _ => format!("new.{}", column.name),
    }
}

/// An INSERT for SQLite up to its rows.
pub fn sqlite_insert(table: &Table, columns: &[&Column]) -> String {
    format!("INSERT INTO {} ({}) VALUES ", table.name, names(columns))
}

/// An UPDATE for SQLite up to its rows, and from there on. The first columns, so many, name the
/// row.
pub fn sqlite_update(table: &Table, columns: &[&Column], key_count: usize) -> [String; 2] {
    let table = table.name;
    let equals = columns.iter().zip(1..).map(|(it, n)| format!("{} = new.column{n}", it.name));
    let equals: Vec<String> = equals.collect();
    let (keys, set) = equals.split_at(key_count);
    let (keys, set) = (keys.join(&format!(" AND {table}.")), set.join(", "));
    [format!("UPDATE {table} SET {set} FROM (VALUES "), format!(") AS new WHERE {table}.{keys}")]
}

/// Parameters of so many rows for SQLite.
pub fn sqlite_rows(columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    vec![row; rows].join(", ")
}

fn names(columns: &[&Column]) -> String {
    list(columns, |column| column.name.to_owned())
}

fn list(columns: &[&Column], text: impl FnMut(&&Column) -> String) -> String {
    columns.iter().map(text).collect::<Vec<_>>().join(", ")
}
