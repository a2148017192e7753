//! Which file names items of which other: every path in the code, however deep its `use` is nested.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, ItemUse, Macro, UseTree, Visibility, visit::Visit};

/// The names of a path, from the root of the crate.
type Path = Vec<String>;

/// One source file: its path from the root of the repository, and its text.
pub type Source<'a> = (&'a str, &'a str);

/// The files of a crate, and which of them names items of which other.
pub struct ImportGraph {
    /// By the file that names: the files that it names.
    pub edges: BTreeMap<String, BTreeSet<String>>,
}

impl ImportGraph {
    /// Reads the files of one crate. `main.rs` counts as a module that names the crate from outside.
    pub fn of(sources: &[Source]) -> Self {
        let files: Vec<File> = sources.iter().map(|source| File::parse(*source)).collect();
        let index = Index::of(&files);
        let edges = files.iter().map(|file| {
            let targets = file.named.iter().filter_map(|path| index.file_of(path));
            (file.path.clone(), targets.filter(|target| *target != file.path).collect())
        });
        Self { edges: edges.collect() }
    }

    /// The arrows between the folders and files directly below `src/`: `("cli", "server")`.
    pub fn module_arrows(&self) -> BTreeSet<(String, String)> {
        let all = self.edges.iter().flat_map(|(from, targets)| {
            targets.iter().map(|to| (top_module(from), top_module(to)))
        });
        all.filter(|(from, to)| from != to).collect()
    }

    /// Groups of files, each of which can be reached from each other of its group.
    pub fn circles(&self) -> Vec<Vec<String>> {
        let reached: BTreeMap<&String, BTreeSet<&String>> =
            self.edges.keys().map(|file| (file, self.reachable(file))).collect();
        let mut circles = Vec::new();
        let mut seen = BTreeSet::new();
        for (file, targets) in &reached {
            let peers = targets
                .iter()
                .filter(|peer| reached.get(**peer).is_some_and(|targets| targets.contains(*file)));
            let circle: Vec<String> = peers.map(|peer| (*peer).clone()).collect();
            if circle.len() > 1 && seen.insert(circle.clone()) {
                circles.push(circle);
            }
        }
        circles
    }

    fn reachable(&self, from: &String) -> BTreeSet<&String> {
        let mut reached = BTreeSet::new();
        let mut pending: Vec<&String> = self.edges.get(from).into_iter().flatten().collect();
        while let Some(file) = pending.pop() {
            if reached.insert(file) {
                pending.extend(self.edges.get(file).into_iter().flatten());
            }
        }
        reached
    }
}

/// `src/grpc/auth/mod.rs` and `src/grpc.rs` are both of `grpc`.
fn top_module(file: &str) -> String {
    let path = file.trim_start_matches("src/");
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs").to_owned()
}

fn module_path(file: &str) -> Path {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Path::new() } else { path.split('/').map(str::to_owned).collect() }
}

struct File {
    path: String,
    module: Path,
    /// Absolute paths of what its code names.
    named: BTreeSet<Path>,
    /// What it makes known under a name of its own: the name, and the absolute path.
    exports: Vec<(String, Path)>,
}

impl File {
    fn parse((path, text): Source) -> Self {
        let syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let module = module_path(path);
        let mut collector = Collector { module: module.clone(), ..Collector::default() };
        collector.children = syntax.items.iter().filter_map(child_module).collect();
        collector.visit_file(&syntax);
        Self { path: path.to_owned(), module, named: collector.named, exports: collector.exports }
    }
}

fn child_module(item: &Item) -> Option<String> {
    match item {
        Item::Mod(module) if module.content.is_none() => Some(module.ident.to_string()),
        _ => None,
    }
}

#[derive(Default)]
struct Collector {
    module: Path,
    children: BTreeSet<String>,
    named: BTreeSet<Path>,
    exports: Vec<(String, Path)>,
}

impl Collector {
    /// From the root of the crate, or None for what is not of this crate.
    fn absolute(&self, names: &[String]) -> Option<Path> {
        let (first, rest) = names.split_first()?;
        let mut path = match first.as_str() {
            "crate" => Path::new(),
            "passbook" if self.module == ["main"] => Path::new(),
            "self" => self.module.clone(),
            "super" => {
                let mut parent = self.module.clone();
                parent.pop();
                parent
            }
            child if self.children.contains(child) => {
                [self.module.clone(), vec![child.to_owned()]].concat()
            }
            _ => return None,
        };
        for name in rest {
            match name.as_str() {
                "super" => drop(path.pop()),
                _ => path.push(name.clone()),
            }
        }
        Some(path)
    }

    fn name(&mut self, names: &[String]) {
        self.named.extend(self.absolute(names));
    }

    /// Paths in what a macro is given, which is not parsed.
    fn name_tokens(&mut self, tokens: TokenStream) {
        let mut names: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.name(&std::mem::take(&mut names));
                    }
                    names.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.name(&std::mem::take(&mut names));
                    colons = 0;
                    self.name_tokens(group.stream());
                }
                _ => {
                    self.name(&std::mem::take(&mut names));
                    colons = 0;
                }
            }
        }
        self.name(&names);
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_public = !matches!(item.vis, Visibility::Inherited);
        for (name, names) in flatten(&item.tree) {
            let Some(path) = self.absolute(&names) else { continue };
            let is_own_child = path.starts_with(&self.module) && path.len() > self.module.len();
            if is_public {
                self.exports.push((name, path.clone()));
            }
            if !(is_public && is_own_child) {
                self.named.insert(path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|it| it.ident.to_string()).collect();
        // A single name is in scope already, by a `use` that is counted.
        if names.len() > 1 {
            self.name(&names);
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.name_tokens(call.tokens.clone());
    }
}

/// `a::{b, c::{d as e}}` as `(b, a::b)` and `(e, a::c::d)`: the names in scope, and their paths.
pub fn flatten(tree: &UseTree) -> Vec<(String, Vec<String>)> {
    match tree {
        UseTree::Path(path) => {
            let prefix = path.ident.to_string();
            let mut all = flatten(&path.tree);
            for (name, names) in &mut all {
                if names == &["self"] {
                    names.clear();
                    name.clone_from(&prefix);
                }
                names.insert(0, prefix.clone());
            }
            all
        }
        UseTree::Name(name) => vec![(name.ident.to_string(), vec![name.ident.to_string()])],
        UseTree::Rename(rename) => {
            vec![(rename.rename.to_string(), vec![rename.ident.to_string()])]
        }
        UseTree::Glob(_) => vec![("*".to_owned(), Vec::new())],
        UseTree::Group(group) => group.items.iter().flat_map(flatten).collect(),
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

/// In which file the item of a path is.
struct Index {
    files: BTreeMap<Path, String>,
    exports: BTreeMap<Path, Path>,
}

impl Index {
    fn of(files: &[File]) -> Self {
        let exports = files.iter().flat_map(|file| {
            file.exports.iter().map(|(name, path)| {
                ([file.module.clone(), vec![name.clone()]].concat(), path.clone())
            })
        });
        Self {
            files: files.iter().map(|file| (file.module.clone(), file.path.clone())).collect(),
            exports: exports.collect(),
        }
    }

    /// Follows re-exports to where the item stands.
    fn file_of(&self, path: &[String]) -> Option<String> {
        for length in 0..=path.len() {
            let (module, rest) = path.split_at(length);
            if !self.files.contains_key(module)
                && let Some(target) = self.exports.get(module)
            {
                return self.file_of(&[target.clone(), rest.to_vec()].concat());
            }
        }
        let longest = (0..=path.len()).rev().find_map(|length| self.files.get(&path[..length]));
        longest.cloned()
    }
}
