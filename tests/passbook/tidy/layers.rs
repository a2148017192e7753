//! Which module may import which: every arrow, and no circles.

use std::collections::BTreeSet;

use super::{
    assert_none,
    imports::{ImportGraph, Source},
    product_files_under,
};

/// For each module below `src/`, the modules that it may import. Arrows run downward.
const ARROWS: [(&str, &[&str]); 13] = [
    ("main", &["cli"]),
    (
        "cli",
        &[
            "audit",
            "auth",
            "budget",
            "config",
            "domain",
            "ledger",
            "server",
            "storage",
            "telemetry",
            "witness",
        ],
    ),
    ("server", &["audit", "auth", "budget", "config", "domain", "grpc", "ledger", "telemetry"]),
    ("grpc", &["audit", "auth", "budget", "domain", "ledger", "proto", "telemetry"]),
    ("config", &["audit", "auth", "domain", "storage"]),
    ("auth", &["budget", "domain", "proto"]),
    ("ledger", &["audit", "budget", "domain", "storage", "telemetry"]),
    ("storage", &["domain"]),
    ("telemetry", &[]),
    ("audit", &["auth", "domain"]),
    ("budget", &["domain"]),
    ("witness", &["domain"]),
    ("domain", &[]),
];
/// Helpers that every module may import, and that import no module.
const LEAVES: [&str; 6] =
    ["lock", "network", "panic_message", "regular_file", "restart", "toml_text"];

fn graph_of(sources: &[Source]) -> ImportGraph {
    ImportGraph::of(sources)
}

/// Arrows that the table does not have.
fn forbidden(graph: &ImportGraph) -> Vec<String> {
    let arrows = graph.module_arrows().into_iter().filter(|(_, to)| !LEAVES.contains(&to.as_str()));
    let is_allowed = |from: &str, to: &str| {
        ARROWS.iter().any(|(module, targets)| *module == from && targets.contains(&to))
    };
    let forbidden = arrows.filter(|(from, to)| !is_allowed(from, to));
    forbidden.map(|(from, to)| format!("{from} -> {to}")).collect()
}

fn product() -> ImportGraph {
    let files = product_files_under(&["src"]);
    let sources: Vec<Source> =
        files.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect();
    graph_of(&sources)
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let graph = product();
    assert_none("add the arrow to ARROWS, or better, turn the import round", forbidden(&graph));
    let arrows = graph.module_arrows();
    let unused = ARROWS.iter().flat_map(|(from, targets)| {
        targets.iter().map(|to| ((*from).to_owned(), (*to).to_owned()))
    });
    let unused = unused.filter(|arrow| !arrows.contains(arrow));
    assert_none("no import needs these arrows of ARROWS", {
        unused.map(|(from, to)| format!("{from} -> {to}")).collect()
    });
}

#[test]
fn the_table_of_arrows_has_no_circle() {
    let mut done: BTreeSet<&str> = BTreeSet::from(["proto"]);
    let mut left: Vec<_> = ARROWS.to_vec();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|(module, targets)| {
            let is_done = targets.iter().all(|target| done.contains(target));
            if is_done {
                done.insert(module);
            }
            !is_done
        });
        assert!(left.len() < before, "a circle among {left:?}");
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let circles = product().circles().into_iter().map(|circle| circle.join(" <-> "));
    assert_none("files that import each other", circles.collect());
}

#[test]
fn a_forbidden_import_is_seen_however_deep_it_is_nested() {
    let leaf = ("src/ledger/mod.rs", "pub struct Ledger;");
    for text in [
        "use crate::{domain::ids::AccountId, ledger::{Ledger, metrics::{self, Load}}};",
        "use crate::{\n    domain::ids::AccountId,\n    ledger as below,\n};",
        "fn f() -> crate::ledger::Ledger { todo!() }",
        "use super::super::super::ledger::Ledger;",
        "fn f() { println!(\"{}\", crate::ledger::NAME); }",
        "pub use crate::ledger::*;",
    ] {
        let graph = graph_of(&[("src/storage/queries/holds.rs", text), leaf]);
        assert_eq!(forbidden(&graph), ["storage -> ledger"], "{text}");
    }
    let tests_only = "#[cfg(test)]\nmod tests {\n    use crate::ledger::Ledger;\n}";
    let graph = graph_of(&[("src/storage/queries/holds.rs", tests_only), leaf]);
    assert_eq!(forbidden(&graph), Vec::<String>::new());
}

#[test]
fn a_circle_is_seen_through_re_exports() {
    let graph = graph_of(&[
        (
            "src/ledger/mod.rs",
            "mod queue;\nmod worker;\npub use queue::Queue;\npub use worker::Worker;",
        ),
        ("src/ledger/queue.rs", "use crate::ledger::Worker;\npub struct Queue;"),
        ("src/ledger/worker.rs", "use crate::ledger::Queue;\npub struct Worker;"),
    ]);
    assert_eq!(graph.circles(), [["src/ledger/queue.rs", "src/ledger/worker.rs"]]);

    let graph = graph_of(&[
        ("src/ledger/mod.rs", "mod queue;\npub use queue::Queue;\npub struct Limits;"),
        ("src/ledger/queue.rs", "use crate::ledger::Limits;\npub struct Queue;"),
    ]);
    assert_eq!(graph.circles(), Vec::<Vec<String>>::new(), "a re-export alone is no import");
}
