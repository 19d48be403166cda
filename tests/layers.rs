//! Who may import whom: the rules of ARCHITECTURE.md, held by reading the paths in the source.
//!
//! A folder imports only the folders below it, nobody imports through `lib.rs`, no files import each
//! other in a circle, and the core knows nothing of the feature `web`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Each folder or top-level file, and what of ours it may import besides itself.
const MAY_IMPORT: &[(&str, &str)] = &[
    ("sync", ""),
    ("logging", ""),
    ("clock", ""),
    ("event", ""),
    ("scheduler", "event"),
    ("delivery", "event"),
    ("handler", "event delivery"),
    ("journal", "event scheduler"),
    ("testing", "event handler"),
    ("actors", "event scheduler delivery handler journal"),
    ("queue", "event scheduler delivery handler journal actors"),
    ("cluster", "event"),
    ("node", "event scheduler delivery handler journal actors queue cluster"),
    ("webhook", "event handler journal queue"),
    ("files", "event scheduler delivery handler queue"),
    ("web", "event scheduler delivery handler queue files cluster"),
];

/// The same inside `web`: by folder, or by file for those that stand in it directly.
const WEB_MAY_IMPORT: &[(&str, &str)] = &[
    ("protocol", ""),
    ("auth", ""),
    ("api", "auth protocol"),
    ("session", "api auth protocol"),
    ("state", "session api auth protocol"),
    ("routes", "state session api auth protocol"),
    ("operator", "state session api auth protocol"),
];

/// Imports that break the rules and are not mended yet: `from -> to`. Only ever gets shorter.
const NOT_YET: &[&str] = &[];

/// One import: where it stands, the module that it stands in, and the path without `crate`.
struct Import {
    place: String,
    from: Vec<String>,
    to: Vec<String>,
}

fn source_files(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let name = tree.split(" as ").next().unwrap_or_default();
        paths.extend((!name.is_empty()).then(|| format!("{prefix}{name}")));
        return;
    };
    let prefix = format!("{prefix}{}", &tree[..open]);
    let inner = &tree[open + 1..tree.rfind('}').expect("a closing brace")];
    let (mut depth, mut begin) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &inner[begin..at], paths);
                begin = (at + 1).min(inner.len());
            }
            _ => {}
        }
    }
}

/// Whether a file is declared under `#[cfg(test)]`, or is in a folder that is: tests may reach for
/// whatever they need.
fn is_for_tests(file: &Path, source: &Path) -> bool {
    let own = file.strip_prefix(source).expect("it is in there").with_extension("");
    own.ancestors().filter(|module| !module.as_os_str().is_empty()).any(|module| {
        let name = module.file_name().expect("it has a name").to_string_lossy();
        let folder = source.join(module.parent().expect("it is in the source"));
        let parent = ["mod.rs", "lib.rs"].map(|parent| folder.join(parent));
        let Some(parent) = parent.iter().find(|parent| parent.exists()) else { return false };
        let declared = fs::read_to_string(parent).expect("it is text");
        ["", "pub(crate) "]
            .iter()
            .any(|visible| declared.contains(&format!("#[cfg(test)]\n{visible}mod {name};")))
    })
}

/// Every path of ours that a file names, `crate::`, `super::` and `self::` resolved.
fn imports(file: &Path, source: &Path) -> Vec<Import> {
    let name = file.strip_prefix(source).expect("it is in there").with_extension("");
    let mut module: Vec<String> =
        name.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    module.retain(|part| part != "mod" && part != "lib");
    let text = fs::read_to_string(file).expect("it is text");
    // Tests beside the code may reach for whatever they need.
    let code = text.split("\nmod tests {").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut lines = code.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut line = line.split("//").next().unwrap_or_default().trim().to_string();
        let statement = line.strip_prefix("pub(crate) ").unwrap_or(&line);
        let mut paths = Vec::new();
        if statement.starts_with("use ") || statement.starts_with("pub use ") {
            while !line.ends_with(';') {
                line += lines.next().expect("a use ends").1.trim();
            }
            let tree = line.split_once("use ").expect("it begins so").1;
            expand("", tree.trim_end_matches(';'), &mut paths);
        } else {
            for root in ["crate::", "super::"] {
                paths.extend(line.match_indices(root).filter_map(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    let path: String = line[at..]
                        .chars()
                        .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':'))
                        .collect();
                    (before != Some(':') && before != Some('(')).then_some(path)
                }));
            }
        }
        for path in paths {
            let mut to = module.clone();
            let mut parts = path.split("::").peekable();
            match parts.peek() {
                Some(&"crate") => to.clear(),
                Some(&("super" | "self")) => {}
                _ => continue,
            }
            for part in parts {
                match part {
                    "crate" | "self" | "" => {}
                    "super" => drop(to.pop()),
                    name => to.push(name.into()),
                }
            }
            let place = format!("src/{}:{}", name.with_extension("rs").display(), number + 1);
            found.push(Import { place, from: module.clone(), to });
        }
    }
    found
}

/// All imports of the source, and the modules that there are.
fn all() -> (Vec<Import>, BTreeSet<Vec<String>>) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    source_files(&source, &mut files);
    files.retain(|file| !is_for_tests(file, &source));
    let modules = files.iter().map(|file| {
        let name = file.strip_prefix(&source).expect("it is in there").with_extension("");
        let parts = name.iter().map(|part| part.to_string_lossy().into_owned());
        parts.filter(|part| part != "mod" && part != "lib").collect()
    });
    let modules = modules.collect();
    (files.iter().flat_map(|file| imports(file, &source)).collect(), modules)
}

fn is_known(from: &[String], to: &[String]) -> bool {
    let arrow = format!("{} -> {}", from.join("::"), to.join("::"));
    NOT_YET.iter().any(|known| arrow == *known || arrow.starts_with(&format!("{known}::")))
}

fn may(rules: &[(&str, &str)], from: &str, to: &str) -> Option<bool> {
    let (_, allowed) = rules.iter().find(|(folder, _)| *folder == from)?;
    Some(
        from == to
            || to == "logging"
            || to == "clock"
            || to == "sync"
            || allowed.split(' ').any(|folder| folder == to),
    )
}

#[test]
fn a_folder_imports_only_what_is_below_it() {
    let mut broken = Vec::new();
    for Import { place, from, to } in all().0 {
        let Some(folder) = from.first() else { continue };
        let target = to.first().map_or("lib.rs", String::as_str);
        let through_lib = target.starts_with(|c: char| c.is_uppercase());
        let allowed = may(MAY_IMPORT, folder, target);
        let mut right =
            allowed.unwrap_or_else(|| panic!("{place}: ARCHITECTURE.md has no {folder}"));
        if folder == "web"
            && target == "web"
            && let (Some(inner), Some(target)) = (from.get(1), to.get(1))
            && WEB_MAY_IMPORT.iter().any(|(folder, _)| folder == target)
        {
            right &= may(WEB_MAY_IMPORT, inner, target).unwrap_or(true);
        }
        if (!right || through_lib) && !is_known(&from, &to) {
            broken.push(format!("{place}: {} -> {}", from.join("::"), to.join("::")));
        }
    }
    assert!(broken.is_empty(), "imports that run the wrong way:\n{}", broken.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let (imports, modules) = all();
    let mut arrows: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for Import { from, mut to, .. } in imports {
        while !to.is_empty() && !modules.contains(&to) {
            to.pop();
        }
        if !to.is_empty() && !from.is_empty() && to != from && !is_known(&from, &to) {
            arrows.entry(from).or_default().insert(to);
        }
    }
    // Takes away what imports nothing that is left, until only circles are left.
    while let Some(free) = arrows
        .iter()
        .find(|(_, to)| !to.iter().any(|to| arrows.contains_key(to)))
        .map(|(from, _)| from.clone())
    {
        arrows.remove(&free);
    }
    let left: Vec<String> = arrows
        .iter()
        .map(|(from, to)| {
            let to: Vec<_> = to.iter().filter(|to| arrows.contains_key(*to)).collect();
            format!(
                "{} -> {:?}",
                from.join("::"),
                to.iter().map(|to| to.join("::")).collect::<Vec<_>>()
            )
        })
        .collect();
    assert!(left.is_empty(), "circles, and what leads to them:\n{}", left.join("\n"));
}

#[test]
fn the_core_knows_no_feature_of_the_web() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    for folder in ["event", "scheduler", "delivery", "handler", "actors", "queue"] {
        source_files(&source.join(folder), &mut files);
    }
    assert!(files.len() > 30, "the core is not where it was");
    let asks = |file: &std::path::PathBuf| {
        fs::read_to_string(file).expect("it is text").contains("feature = \"web\"")
    };
    let asking: Vec<_> = files.into_iter().filter(asks).collect();
    assert!(asking.is_empty(), "{asking:?}");
}
