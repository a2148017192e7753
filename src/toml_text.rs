//! TOML with errors that fit into one line.

use serde::de::DeserializeOwned;

/// Parses a TOML document.
///
/// # Errors
/// `line 3: missing field ...`
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.get(..at).unwrap_or(text).matches('\n').count() + 1;
        format!("line {line}: {}", error.message().replace('\n', " "))
    })
}
