//! What pages consist of. A page is a list of sections, so that all pages have one template.

use std::fmt;

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use http::{StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{calls::Problem, chart::Chart, login, session::Session};

/// What stays as it is in the value of a query.
const QUERY_VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The most rows of a feed, of one page and of all that the script has loaded.
pub const FEED_ROWS_MAX: usize = 200;

/// A page.
#[derive(Template)]
#[template(path = "page.html", whitespace = "minimize")]
pub struct Page {
    status: StatusCode,
    title: String,
    can_log_out: bool,
    sections: Vec<Section>,
}

/// A part of a page with a heading.
pub struct Section {
    id: &'static str,
    heading: String,
    /// The script loads the section again and again.
    is_live: bool,
    /// Where the rows after those of this section are, if it is a feed: the script puts them above those
    /// that are there.
    next: Option<String>,
    contents: Vec<Content>,
}

pub enum Content {
    Fields(Vec<(&'static str, Cell)>),
    Table(Table),
    Chart(Chart),
    Form(Form),
    Links(Vec<Link>),
    Note(String),
    Problem(Problem),
}

/// A text, and where it leads.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    href: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Link {
    text: String,
    href: String,
}

pub struct Table {
    /// What the table is, for readers that do not see it.
    caption: &'static str,
    columns: &'static [Column],
    rows: Vec<Vec<Cell>>,
    /// What stands in place of no rows.
    empty: &'static str,
}

pub struct Column {
    name: &'static str,
    /// The class of the style.
    class: &'static str,
}

/// A form that leads to another page of the console.
pub struct Form {
    pub action: &'static str,
    pub inputs: Vec<Input>,
    pub submit: &'static str,
}

pub struct Input {
    pub name: &'static str,
    pub label: &'static str,
    pub value: String,
    pub kind: InputKind,
}

pub enum InputKind {
    Hidden,
    Text {
        placeholder: &'static str,
    },
    /// A time in UTC.
    Time,
    /// One of these values, each with its text.
    Choice(&'static [(&'static str, &'static str)]),
}

/// Why there is no page.
pub enum PageError {
    /// The page has only this problem.
    Problem { problem: Problem, can_log_out: bool },
    /// The session is no longer valid for the page at this path.
    LoginRequired(Uri),
}

impl Page {
    pub fn new(title: impl Into<String>, session: &Session) -> Self {
        Self::of(title.into(), session.can_log_out)
    }

    const fn of(title: String, can_log_out: bool) -> Self {
        Self { status: StatusCode::OK, title, can_log_out, sections: Vec::new() }
    }

    pub fn with(mut self, section: Section) -> Self {
        self.sections.push(section);
        self
    }

    /// Adds what the page is about, or why there is nothing, below the form that asked for it.
    pub fn with_result(
        self,
        result: Result<Section, Problem>,
        session: &Session,
    ) -> Result<Self, PageError> {
        match result {
            Ok(section) => Ok(self.with(section)),
            Err(problem) if problem.is_unauthenticated() => Err(PageError::of(problem, session)),
            Err(problem) => Ok(self.with_problem(problem)),
        }
    }

    fn with_problem(mut self, problem: Problem) -> Self {
        self.status = problem.http_status();
        self.with(Section::new("problem", "No result").with(Content::Problem(problem)))
    }

    fn is_live(&self) -> bool {
        self.sections.iter().any(|section| section.is_live)
    }
}

impl Section {
    pub fn new(id: &'static str, heading: impl Into<String>) -> Self {
        Self { id, heading: heading.into(), is_live: false, next: None, contents: Vec::new() }
    }

    pub fn live(mut self) -> Self {
        self.is_live = true;
        self
    }

    pub fn feed(self, next: String) -> Self {
        Self { next: Some(next), ..self.live() }
    }

    pub fn with(mut self, content: Content) -> Self {
        self.contents.push(content);
        self
    }

    pub fn links(self, links: impl IntoIterator<Item = Link>) -> Self {
        let links: Vec<_> = links.into_iter().collect();
        if links.is_empty() { self } else { self.with(Content::Links(links)) }
    }

    /// Adds what a call returned, or why it returned nothing. A person may read a part of a page.
    pub fn with_result(self, result: Result<impl Into<Content>, Problem>) -> Self {
        match result {
            Ok(content) => self.with(content.into()),
            Err(problem) => self.with(Content::Problem(problem)),
        }
    }
}

impl From<Table> for Content {
    fn from(table: Table) -> Self {
        Self::Table(table)
    }
}

impl From<String> for Content {
    fn from(note: String) -> Self {
        Self::Note(note)
    }
}

impl Cell {
    pub fn link(text: impl Into<String>, href: String) -> Self {
        let text = text.into();
        let href = (!text.is_empty()).then_some(href);
        Self { text, href }
    }

    pub const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl<T: fmt::Display> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.to_string(), href: None }
    }
}

impl Link {
    pub fn new(text: impl Into<String>, href: String) -> Self {
        Self { text: text.into(), href }
    }
}

impl Table {
    pub const fn new(
        caption: &'static str,
        columns: &'static [Column],
        rows: Vec<Vec<Cell>>,
        empty: &'static str,
    ) -> Self {
        Self { caption, columns, rows, empty }
    }

    /// The cells of a row, each with its column.
    fn cells<'a>(&self, row: &'a [Cell]) -> impl Iterator<Item = (&'static Column, &'a Cell)> {
        self.columns.iter().zip(row)
    }
}

impl Column {
    pub const fn text(name: &'static str) -> Self {
        Self { name, class: "" }
    }

    /// Texts that people have written, which may be long.
    pub const fn prose(name: &'static str) -> Self {
        Self { name, class: "prose" }
    }

    pub const fn number(name: &'static str) -> Self {
        Self { name, class: "number" }
    }
}

impl Input {
    fn is_chosen(&self, value: &str) -> bool {
        self.value == value
    }
}

impl PageError {
    /// The error of a page whose call had this problem.
    pub fn of(problem: impl Into<Problem>, session: &Session) -> Self {
        let problem = problem.into();
        if problem.is_unauthenticated() {
            return Self::LoginRequired(session.uri.clone());
        }
        Self::Problem { problem, can_log_out: session.can_log_out }
    }
}

impl IntoResponse for PageError {
    /// The response in place of the page.
    fn into_response(self) -> Response {
        match self {
            Self::LoginRequired(uri) => {
                login::required(&uri, "You are signed out: your token is no longer valid.")
            }
            Self::Problem { problem, can_log_out } => {
                Page::of("No result".to_owned(), can_log_out).with_problem(problem).into_response()
            }
        }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        match self.render() {
            Ok(html) => (self.status, Html(html)).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

/// Path and query of a page. Empty values are left out.
pub fn href(path: &str, query: &[(&str, &str)]) -> String {
    let given = query.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<_> = given
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY_VALUE)))
        .collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_never_leaves_its_place_in_a_query() {
        let hostile = "a&b=c#d?e/..%2f+\"'<>\r\n é";
        assert_eq!(
            href("/hold", &[("id", hostile), ("page", "")]),
            "/hold?id=a%26b%3Dc%23d%3Fe%2F..%252f%2B%22%27%3C%3E%0D%0A%20%C3%A9"
        );
        assert_eq!(href("/", &[("page", "")]), "/");
    }
}
