//! The rules that the compiler cannot check, read off the sources: a rule without a test is a wish.

use std::fs;
use std::path::Path;

use crate::support::{root, without_comments};

/// From the bottom up: a layer may import those before it.
const LAYERS: [&str; 11] = ["error", "timeout", "mutant", "sys", "log", "shm", "sync", "ipc", "process", "pool", "ffi"];

/// May contain `unsafe`.
const UNSAFE_LAYERS: [&str; 3] = ["sys", "shm", "ffi"];

struct Source {
    /// From the library's folder.
    path: String,
    text: String,
}

/// Every file below `folder` with one of these extensions, in order.
fn sources(folder: &str, extensions: &[&str]) -> Vec<Source> {
    fn walk(folder: &Path, extensions: &[&str], found: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("it is readable").path();
            if path.is_dir() {
                walk(&path, extensions, found);
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|known| extension == *known)) {
                let relative = path.strip_prefix(root()).expect("it is below").to_string_lossy().into_owned();
                found.push(Source { path: relative, text: fs::read_to_string(&path).expect("sources are text") });
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), extensions, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// `src/sync/lock.rs` and `src/log.rs` belong to `sync` and `log`.
fn layer(path: &str) -> &str {
    path.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default()
}

fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|name| *name == layer)
}

fn identifier(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// The first names after each `crate::`, also of `crate::{a, b::{c, d}}`.
fn imports(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(identifier(rest).to_owned());
            continue;
        };
        let mut depth = 0;
        let mut item = String::new();
        for c in group.chars() {
            match c {
                ',' | '}' if depth == 0 => names.push(identifier(std::mem::take(&mut item).trim()).to_owned()),
                '{' => depth += 1,
                '}' => depth -= 1,
                _ if depth == 0 => item.push(c),
                _ => {}
            }
            if c == '}' && depth == 0 && item.is_empty() {
                break;
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn check(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn layers_import_downward_only() {
    let mut complaints = Vec::new();
    for Source { path, text } in sources("src", &["rs"]) {
        if path == "src/lib.rs" {
            continue;
        }
        let Some(own) = rank(layer(&path)) else {
            complaints.push(format!("{path}: \"{}\" is not in the table of layers", layer(&path)));
            continue;
        };
        let code = without_comments(&text);
        for import in imports(&code) {
            match rank(&import) {
                Some(other) if other > own => complaints.push(format!("{path}: {} may not use crate::{import}", layer(&path))),
                Some(_) => {}
                None => complaints.push(format!("{path}: crate::{import} is not in the table of layers")),
            }
        }
        for (at, _) in code.match_indices("super::super::") {
            let name = identifier(code[at..].trim_start_matches("super::"));
            if rank(name).is_some() && name != layer(&path) {
                complaints.push(format!("{path}: reaches {name} by super::; write crate::{name}"));
            }
        }
    }
    check(complaints);
}

#[test]
fn unsafe_stands_only_in_its_layers() {
    let all = sources("src", &["rs"]);
    // An inner attribute of a folder's mod.rs holds for the files of the folder.
    let forbids = |text: &str| text.lines().find(|line| !line.starts_with("//!")) == Some("#![forbid(unsafe_code)]");
    let forbidden: Vec<&str> = all.iter().filter(|source| forbids(&source.text)).map(|source| &*source.path).collect();
    let mut complaints = Vec::new();
    for Source { path, text } in &all {
        let folder = format!("src/{}/mod.rs", layer(path));
        let covered = forbidden.contains(&&**path) || forbidden.contains(&&*folder);
        if !text.starts_with("//!") {
            complaints.push(format!("{path}: begins without //! that says what it is for"));
        }
        if path == "src/lib.rs" {
            assert!(text.contains("\n#![deny(unsafe_code)]\n"), "{path}: #![deny(unsafe_code)] is missing");
        } else if !UNSAFE_LAYERS.contains(&layer(path)) && !covered {
            complaints.push(format!("{path}: neither it nor {folder} says #![forbid(unsafe_code)] after the //! head"));
        }
    }
    check(complaints);
}

#[test]
fn only_sys_names_the_system_libraries() {
    let mut complaints = Vec::new();
    for Source { path, text } in sources("src", &["rs"]) {
        let code = without_comments(&text);
        for name in ["libc", "nix"] {
            let names_it = code.match_indices(name).any(|(at, _)| {
                let before = code[..at].chars().next_back().unwrap_or(' ');
                let after = &code[at + name.len()..];
                !before.is_alphanumeric() && before != '_' && (after.starts_with("::") || after.starts_with(';'))
            });
            if names_it && layer(&path) != "sys" {
                complaints.push(format!("{path}: only src/sys names {name}"));
            }
        }
    }
    check(complaints);
}

/// An export of src/ffi: its signature without the body, and what the body begins with.
struct Export {
    place: String,
    docs: Vec<String>,
    name: String,
    parameters: Vec<String>,
    result: String,
    body: String,
}

fn exports() -> Vec<Export> {
    let mut exports = Vec::new();
    for Source { path, text } in sources("src/ffi", &["rs"]) {
        // Switched on by a test, it is no part of the header.
        if path.ends_with("/panic_injection.rs") {
            continue;
        }
        for (at, _) in text.match_indices("extern \"C\" fn tine_") {
            let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let above: Vec<&str> = text[..line_start].lines().collect();
            let docs_reversed =
                above.iter().rev().skip_while(|line| line.starts_with("#[")).take_while(|line| line.starts_with("///"));
            let mut docs: Vec<String> = docs_reversed.map(|line| line.trim_start_matches("///").trim().to_owned()).collect();
            docs.reverse();
            let rest = &text[at + "extern \"C\" fn ".len()..];
            let name = identifier(rest).to_owned();
            let open = rest.find('{').expect("an export has a body");
            let (signature, body) = rest.split_at(open);
            let body = without_comments(&body[1..]).trim_start().chars().take(40).collect();
            let (inside, result) = signature[name.len()..].rsplit_once(')').expect("a signature has parameters");
            let parameters = inside.trim_start_matches('(').split(',').filter_map(|parameter| {
                let (name, _) = parameter.split_once(':')?;
                // Parameters of a callback's type are not ours.
                let name = name.trim().trim_start_matches("r#");
                (identifier(name) == name && !name.is_empty()).then(|| name.to_owned())
            });
            exports.push(Export {
                place: format!("{path}: {name}"),
                docs,
                parameters: parameters.collect(),
                result: result.trim().trim_start_matches("->").trim().to_owned(),
                name,
                body,
            });
        }
    }
    assert!(exports.len() > 5, "the exports were not found");
    exports
}

#[test]
fn every_export_is_a_guard_and_nothing_else() {
    let exports = exports();
    let unguarded = exports.iter().filter(|export| !export.body.starts_with("guard::"));
    check(unguarded.map(|export| format!("{}: its body does not begin with guard::", export.place)).collect());
    for Source { path, text } in sources("src", &["rs"]) {
        assert!(layer(&path) == "ffi" || !text.contains("no_mangle"), "{path}: only src/ffi exports functions");
    }
}

#[test]
fn every_export_documents_its_parameters_and_its_result() {
    let mut complaints = Vec::new();
    for export in exports() {
        let told = export.docs.iter().filter_map(|line| Some(identifier(line.strip_prefix("@param ")?.trim()).to_owned()));
        let told: Vec<String> = told.collect();
        if told != export.parameters {
            complaints.push(format!("{}: documents @param {told:?}, has {:?}", export.place, export.parameters));
        }
        let has = |tag: &str| export.docs.iter().any(|line| line.starts_with(tag));
        if !export.result.is_empty() && !has("@return ") {
            complaints.push(format!("{}: @return is missing", export.place));
        }
        if !has("@since ") {
            complaints.push(format!("{}: @since is missing", export.place));
        }
        if export.docs.first().is_none_or(|line| line.is_empty() || line.starts_with('@')) {
            complaints.push(format!("{}: the text begins without saying what {} does", export.place, export.name));
        }
    }
    check(complaints);
}

/// What readers of the header would see verbatim.
#[test]
fn docs_of_the_boundary_are_written_for_c() {
    let mut complaints = Vec::new();
    for Source { path, text } in sources("src/ffi", &["rs"]) {
        for (number, line) in text.lines().enumerate() {
            let Some(doc) = line.trim_start().strip_prefix("///") else { continue };
            for rust in ["[`", "](", "# Safety", "# Errors", "# Panics", "```rust", "crate::", "self::"] {
                // The module's own contracts are for readers of the source.
                if doc.contains(rust) && !(rust == "# Safety" && path.ends_with("/options.rs")) {
                    complaints.push(format!("{path}:{}: \"{rust}\" in a text that C programmers read", number + 1));
                }
            }
        }
    }
    check(complaints);
}

/// Where tests look again and again for what nobody can wait for.
const POLLS: &str = "tests/support/clock.rs";

/// A test that sleeps is slow, and wrong on a busy machine.
#[test]
fn no_test_sleeps() {
    let mut complaints = Vec::new();
    let mut files = sources("tests", &["rs", "c", "h", "cpp"]);
    files.extend(sources("src", &["rs"]).into_iter().filter_map(|Source { path, text }| {
        let (_, tests) = text.split_once("#[cfg(test)]")?;
        Some(Source { path: format!("{path}, tests"), text: tests.to_owned() })
    }));
    for Source { path, text } in files {
        for (number, line) in without_comments(&text).lines().enumerate() {
            let calls = |name: &str| {
                line.match_indices(name).any(|(at, _)| {
                    let before = line[..at].chars().next_back().unwrap_or(' ');
                    !before.is_alphanumeric() && before != '_' && before != '"'
                })
            };
            if path != POLLS && ["sleep(", "usleep(", "nanosleep(", "clock_nanosleep("].iter().any(|name| calls(name)) {
                complaints.push(format!("{path}, about line {}: sleeps; wait for a pipe, an event or a process", number + 1));
            }
        }
    }
    check(complaints);
}
