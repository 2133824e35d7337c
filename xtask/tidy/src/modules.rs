//! The files that a file's `mod` declarations name.

use std::path::{Component, Path, PathBuf};

use syn::spanned::Spanned;
use syn::{Expr, ExprLit, Item, ItemMod, Lit, Meta};

use crate::rust_file::RustFile;

/// A module with a file of its own.
#[derive(Debug)]
pub(crate) struct Declared {
    /// The names from the declaring file's module to this one.
    pub(crate) names: Vec<String>,
    /// The path of the module's file.
    pub(crate) path: String,
    /// The line of the declaration.
    pub(crate) line: usize,
}

/// The modules that a file declares, where `exists` knows their files.
pub(crate) fn declared(file: &RustFile, exists: &dyn Fn(&str) -> bool) -> Vec<Declared> {
    let mut found = Vec::new();
    collect(
        &file.syntax.items,
        &file.path,
        &mut Vec::new(),
        exists,
        &mut found,
    );
    found
}

fn collect(
    items: &[Item],
    file: &str,
    inline: &mut Vec<String>,
    exists: &dyn Fn(&str) -> bool,
    found: &mut Vec<Declared>,
) {
    for item in items {
        let Item::Mod(module) = item else { continue };
        let name = module.ident.to_string();
        if let Some((_, items)) = &module.content {
            inline.push(name);
            collect(items, file, inline, exists, found);
            inline.pop();
            continue;
        }
        if let Some(path) = candidates(file, inline, module)
            .into_iter()
            .find(|path| exists(path))
        {
            let mut names = inline.clone();
            names.push(name);
            let line = module.span().start().line;
            found.push(Declared { names, path, line });
        }
    }
}

/// The paths that a module's file can have.
fn candidates(file: &str, inline: &[String], module: &ItemMod) -> Vec<String> {
    let path = Path::new(file);
    let beside = path.parent().unwrap_or(Path::new(""));
    if let Some(named) = path_attribute(module) {
        return vec![normal(&beside.join(named))];
    }
    let name = module.ident.to_string();
    let stem = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    let mut folders = vec![beside.join(stem)];
    if is_folder_root(file) {
        folders[0] = beside.to_owned();
    } else {
        // The root of a binary or a test, whose modules are beside it.
        folders.push(beside.to_owned());
    }
    let mut paths = Vec::new();
    for folder in folders {
        let folder = inline.iter().fold(folder, |folder, part| folder.join(part));
        paths.push(normal(&folder.join(format!("{name}.rs"))));
        paths.push(normal(&folder.join(&name).join("mod.rs")));
    }
    paths
}

/// Returns true for a file that stands for its folder: a crate's root or a `mod.rs`.
fn is_folder_root(path: &str) -> bool {
    ["mod.rs", "lib.rs", "main.rs"].contains(&path.rsplit('/').next().unwrap_or_default())
}

fn path_attribute(module: &ItemMod) -> Option<String> {
    module
        .attrs
        .iter()
        .find_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
                Expr::Lit(ExprLit {
                    lit: Lit::Str(text),
                    ..
                }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        })
}

/// A path without `.` and `..`, with slashes.
fn normal(path: &Path) -> String {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal.to_string_lossy().replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_files_of_modules() {
        let text = "mod a; mod b; mod inner { mod c; } #[path = \"../other/d.rs\"] mod d;";
        let file = RustFile::parse("x/src/lib.rs", text.to_owned(), false).expect("Rust");
        let files = [
            "x/src/a.rs",
            "x/src/b/mod.rs",
            "x/src/inner/c.rs",
            "x/other/d.rs",
        ];
        let found: Vec<String> = declared(&file, &|path| files.contains(&path))
            .into_iter()
            .map(|d| d.path)
            .collect();
        assert_eq!(found, files);
    }
}
