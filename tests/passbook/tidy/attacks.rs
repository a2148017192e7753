//! docs/attacks.md names tests: each of them must be there.

use super::{assert_none, files_under, root};

/// The names between backquotes that have a module.
fn names(table: &str) -> Vec<&str> {
    let between = table.split('`').skip(1).step_by(2);
    between.filter(|name| name.contains("::") && !name.ends_with("::")).collect()
}

#[test]
fn each_test_of_the_table_of_attacks_is_there() {
    let table = std::fs::read_to_string(root().join("docs/attacks.md")).expect("the table");
    let names = names(&table);
    assert!(names.len() > 80, "{}", names.len());
    let sources = files_under(&["src", "tests"]);
    let is_missing = |name: &&str| {
        let mut segments = name.rsplit("::").filter(|segment| *segment != "tests");
        let (Some(test), Some(module)) = (segments.next(), segments.next()) else { return true };
        let (function, module) = (format!("fn {test}("), format!("/{module}"));
        !sources.iter().any(|it| it.path.contains(&module) && it.text.contains(&function))
    };
    let found = names.into_iter().filter(is_missing).map(str::to_owned).collect();
    assert_none("name the test that is there now", found);
}
