//! Circles of files: files of one crate that import from each other, directly or through others.
//!
//! An import counts for the file of the module that it names and, where that exports the item of another file again, for
//! that file, too. A crate's root is in no circle, a `mod.rs` in none with its own folder, and tests import as they like.

use std::collections::{HashMap, HashSet};

use petgraph::algo::tarjan_scc;
use petgraph::prelude::DiGraphMap;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Item, ItemUse, UseTree};

use crate::finding::Finding;
use crate::modules;
use crate::rust_file::RustFile;
use crate::source::Sources;

/// Finds the files in circles, each with the imports that hold it in its circle.
pub(crate) fn find(sources: &Sources) -> Vec<Finding> {
    let files: HashMap<&str, &RustFile> = sources
        .rust
        .iter()
        .map(|file| (file.path.as_str(), file))
        .collect();
    let mut findings = Vec::new();
    let mut seen = HashSet::new();
    for root in &sources.rust {
        if !is_crate_root(sources, root) {
            continue;
        }
        let read = Crate::read(root, &files);
        let imports = read.imports();
        for mut circle in tarjan_scc(&imports) {
            if circle.len() == 1 {
                continue;
            }
            circle.sort_unstable();
            for path in &circle {
                // A module that two crates share is counted once.
                if !seen.insert((*path).to_owned()) {
                    continue;
                }
                let inside = imports.edges(path).filter(|edge| circle.contains(&edge.1));
                let mut inside: Vec<_> = inside.map(|(_, target, line)| (target, line)).collect();
                inside.sort_unstable();
                let listed: Vec<String> = inside
                    .iter()
                    .map(|(target, line)| format!("{} (line {line})", file_name(target, &circle)))
                    .collect();
                let line = inside.first().map_or(1, |(_, line)| **line);
                let text = format!("circle of {}, imports {}", circle.len(), listed.join(", "));
                findings.push(Finding::new(path, line, &text).with_weight(circle.len()));
            }
        }
    }
    findings
}

/// Returns true if `root` is the `mod.rs` of a folder that the file is in.
fn stands_for(root: &str, file: &str) -> bool {
    root.strip_suffix("mod.rs")
        .is_some_and(|folder| file.starts_with(folder))
}

/// The file's name, with its folder where another file of the circle has that name, too.
fn file_name<'a>(path: &'a str, circle: &[&str]) -> &'a str {
    let short = |path: &'a str| path.rsplit('/').next().unwrap_or(path);
    let name = short(path);
    let same = circle
        .iter()
        .filter(|other| other.rsplit('/').next() == Some(name))
        .count();
    if same > 1 { path } else { name }
}

fn is_crate_root(sources: &Sources, file: &RustFile) -> bool {
    if file.is_test {
        return false;
    }
    let package = sources.package_of(&file.path);
    let inside = file.path[package.len()..].trim_start_matches('/');
    let binary = inside
        .strip_prefix("src/bin/")
        .is_some_and(|name| !name.contains('/') || name.ends_with("/main.rs"));
    binary || ["src/lib.rs", "src/main.rs"].contains(&inside)
}

type ModulePath = Vec<String>;

/// The files that each file imports, with the line of the first import.
type Imports<'a> = DiGraphMap<&'a str, usize>;

#[derive(Debug, Default)]
struct Module {
    file: String,
    items: HashSet<String>,
    uses: Vec<Import>,
}

#[derive(Debug)]
struct Import {
    path: Vec<String>,
    /// The name that it has here; none for a glob.
    name: Option<String>,
    line: usize,
}

/// A crate's modules, by their paths from its root.
#[derive(Debug, Default)]
struct Crate {
    modules: HashMap<ModulePath, Module>,
}

impl Crate {
    fn read(root: &RustFile, files: &HashMap<&str, &RustFile>) -> Self {
        let mut read = Self::default();
        let mut waiting = vec![(ModulePath::new(), root)];
        while let Some((path, file)) = waiting.pop() {
            read.add(&path, file, &file.syntax.items);
            for declared in modules::declared(file, &|path| files.contains_key(path)) {
                let Some(child) = files
                    .get(declared.path.as_str())
                    .filter(|child| !child.is_test)
                else {
                    continue;
                };
                let mut names = path.clone();
                names.extend(declared.names);
                if !read.modules.contains_key(&names) {
                    waiting.push((names, child));
                }
            }
        }
        read
    }

    fn add(&mut self, path: &ModulePath, file: &RustFile, items: &[Item]) {
        let mut module = Module {
            file: file.path.clone(),
            ..Module::default()
        };
        for item in items {
            if file.is_test_line(item.span().start().line) {
                continue;
            }
            match item {
                Item::Mod(inner) => {
                    if let Some((_, items)) = &inner.content {
                        let mut path = path.clone();
                        path.push(inner.ident.to_string());
                        self.add(&path, file, items);
                    }
                }
                item => {
                    module.items.extend(declared_name(item));
                    let mut finder = UseFinder {
                        uses: &mut module.uses,
                    };
                    finder.visit_item(item);
                }
            }
        }
        self.modules.insert(path.clone(), module);
    }

    fn imports(&self) -> Imports<'_> {
        let mut imports = Imports::new();
        for (path, module) in self.modules.iter().filter(|(path, _)| !path.is_empty()) {
            for import in &module.uses {
                let named = self.named(path, import);
                let declares = self.declaring(path, &import.path, &mut Vec::new());
                for target in named.into_iter().chain(declares) {
                    if self.counts(&module.file, target) {
                        let known = imports.edge_weight(&module.file, target);
                        let line = known.map_or(import.line, |known| import.line.min(*known));
                        imports.add_edge(&module.file, target, line);
                    }
                }
            }
        }
        imports
    }

    /// Returns true for an import that can be part of a circle: of neither the root nor within a folder and its `mod.rs`.
    fn counts(&self, file: &str, target: &str) -> bool {
        let root = self.modules.get(&ModulePath::new());
        let is_root = root.is_some_and(|root| root.file == target);
        target != file && !is_root && !stands_for(file, target) && !stands_for(target, file)
    }

    /// Follows a path from the module `from` through the modules of this crate: the last of them, and the rest of the path.
    fn descend<'a>(
        &self,
        from: &ModulePath,
        path: &'a [String],
    ) -> Option<(ModulePath, &'a [String])> {
        let mut at = from.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => {
                at.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|part| part == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            first if !self.knows(&at, first) => return None,
            _ => {}
        }
        while let Some(part) = rest.first() {
            at.push(part.clone());
            if !self.modules.contains_key(&at) {
                at.pop();
                break;
            }
            rest = &rest[1..];
        }
        Some((at, rest))
    }

    /// The file of the module that an import names.
    fn named(&self, from: &ModulePath, import: &Import) -> Option<&str> {
        let (at, _) = self.descend(from, &import.path)?;
        Some(&self.modules.get(&at)?.file)
    }

    /// The file that declares the item that a path in the module `from` names, through every export of it.
    fn declaring(
        &self,
        from: &ModulePath,
        path: &[String],
        met: &mut Vec<(ModulePath, Vec<String>)>,
    ) -> Option<&str> {
        let asked = (from.clone(), path.to_vec());
        if met.contains(&asked) {
            return None;
        }
        met.push(asked);
        let (at, rest) = self.descend(from, path)?;
        let module = self.modules.get(&at)?;
        let Some(item) = rest.first().filter(|item| !module.items.contains(*item)) else {
            return Some(&module.file);
        };
        module.uses.iter().find_map(|exported| {
            let rest = match &exported.name {
                Some(name) if name == item => &rest[1..],
                Some(_) => return None,
                None => rest,
            };
            let path = [exported.path.as_slice(), rest].concat();
            self.declaring(&at, &path, met)
        })
    }

    /// Returns true if a name that begins a path belongs to this module, and is no crate.
    fn knows(&self, at: &ModulePath, name: &str) -> bool {
        let mut child = at.clone();
        child.push(name.to_owned());
        let declares = |module: &Module| {
            module.items.contains(name)
                || module
                    .uses
                    .iter()
                    .any(|import| import.name.as_deref() == Some(name) && import.path[0] != name)
        };
        self.modules.contains_key(&child) || self.modules.get(at).is_some_and(declares)
    }
}

struct UseFinder<'a> {
    uses: &'a mut Vec<Import>,
}

impl<'ast> Visit<'ast> for UseFinder<'_> {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let line = item.span().start().line;
        if item.leading_colon.is_none() {
            flatten(&item.tree, &mut Vec::new(), line, self.uses);
        }
        visit::visit_item_use(self, item);
    }
}

fn flatten(tree: &UseTree, path: &mut Vec<String>, line: usize, uses: &mut Vec<Import>) {
    let mut add = |path: Vec<String>, name: Option<String>| uses.push(Import { path, name, line });
    match tree {
        UseTree::Path(inner) => {
            path.push(inner.ident.to_string());
            flatten(&inner.tree, path, line, uses);
            path.pop();
        }
        UseTree::Name(name) if name.ident == "self" => add(path.clone(), path.last().cloned()),
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            let mut path = path.clone();
            path.push(name.clone());
            add(path, Some(name));
        }
        UseTree::Rename(rename) => {
            let mut path = path.clone();
            if rename.ident != "self" {
                path.push(rename.ident.to_string());
            }
            add(path, Some(rename.rename.to_string()));
        }
        UseTree::Glob(_) => add(path.clone(), None),
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, path, tree.span().start().line, uses);
            }
        }
    }
}

fn declared_name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::sources;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        find(&sources(files))
            .into_iter()
            .map(|finding| finding.path)
            .collect()
    }

    #[test]
    fn finds_files_that_import_each_other() {
        let files = [
            ("src/lib.rs", "mod a; mod b; mod c;"),
            ("src/a.rs", "use crate::b::B;\npub struct A;"),
            ("src/b.rs", "fn b() { use super::a::A; }\npub struct B;"),
            ("src/c.rs", "use crate::a::A;"),
        ];
        let findings = find(&sources(&files));
        assert_eq!(findings.len(), 2);
        assert_eq!(findings[0].text, "circle of 2, imports b.rs (line 1)");
    }

    #[test]
    fn follows_exports_of_folders() {
        let files = [
            ("src/lib.rs", "mod a; mod rooms;"),
            (
                "src/rooms/mod.rs",
                "mod door; pub use door::Door; pub struct Wall;",
            ),
            (
                "src/rooms/door.rs",
                "use super::Wall; use crate::a::*; pub struct Door;",
            ),
            ("src/a.rs", "use crate::rooms::{self, Door}; pub struct A;"),
        ];
        assert_eq!(found(&files), ["src/a.rs", "src/rooms/door.rs"]);
    }

    #[test]
    fn own_folder_root_and_tests_are_exempt() {
        let files = [
            ("src/lib.rs", "mod a; mod rooms; pub use a::A;"),
            (
                "src/rooms/mod.rs",
                "mod door; use door::Door; pub struct Wall;",
            ),
            ("src/rooms/door.rs", "use super::Wall; pub struct Door;"),
            (
                "src/a.rs",
                "use crate::rooms::Wall; pub struct A;\n#[cfg(test)]\nmod tests { use crate::b::B; }",
            ),
            ("src/b.rs", "use crate::A; pub struct B;"),
        ];
        assert_eq!(found(&files), Vec::<String>::new());
    }

    #[test]
    fn folder_is_no_exemption_for_others() {
        let files = [
            ("src/lib.rs", "mod a; mod rooms;"),
            ("src/rooms/mod.rs", "use crate::a::A; pub struct Wall;"),
            ("src/a.rs", "use crate::rooms::Wall; pub struct A;"),
        ];
        assert_eq!(found(&files), ["src/a.rs", "src/rooms/mod.rs"]);
    }

    #[test]
    fn other_crates_are_no_files() {
        let files = [
            ("src/lib.rs", "mod a; mod b;"),
            ("src/a.rs", "use std::b::B; use b::X; pub struct A;"),
            ("src/b.rs", "use crate::a::A; pub struct B;"),
        ];
        assert_eq!(found(&files), Vec::<String>::new());
    }
}
