//! Helpers for error messages about settings.

/// How similar a misspelled name and a setting must be for an error to suggest the setting, from 0
/// to 1: the value that clap uses for flags.
const SUGGESTION_SIMILARITY_MIN: f64 = 0.7;

/// An error of clap as one line, without its hints about usage.
pub(super) fn one_line(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let lines = rendered.lines().map(str::trim);
    let lines = lines.take_while(|line| !line.starts_with("For more information"));
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

/// The name that is most similar to a misspelled one; None if no name is similar enough.
pub(super) fn suggestion<'a>(
    misspelled: &str,
    names: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let plain = |name: &str| name.replace('-', "_").to_lowercase();
    let misspelled = plain(misspelled);
    let best = names.map(|name| (strsim::jaro_winkler(&misspelled, &plain(name)), name));
    let best = best.max_by(|(left, _), (right, _)| left.total_cmp(right));
    best.filter(|(similarity, _)| *similarity > SUGGESTION_SIMILARITY_MIN).map(|(_, name)| name)
}
