//! Running tools and saying what went wrong with them.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The library's folder.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A folder for one test to build in, kept between runs so that the next one is quick.
pub fn build_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}

/// The shared library that cargo built along with this test, from the folder where no other build puts its own.
pub fn cdylib() -> PathBuf {
    let test = env::current_exe().expect("a test knows its own path");
    test.with_file_name("libtine.so")
}

/// A folder with the library under the names that the linker and the loader ask for.
pub fn library_folder(name: &str) -> PathBuf {
    let folder = build_folder(name);
    for link in ["libtine.so".to_owned(), format!("libtine.so.0.{}", env!("CARGO_PKG_VERSION_MINOR"))] {
        let link = folder.join(link);
        let _ = fs::remove_file(&link);
        symlink(cdylib(), &link).expect("the target folder is writable");
    }
    folder
}

/// A command in the library's folder, as somebody would type it in a fresh shell: what cargo and make tell their children is left out.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let told = name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_BIN_") || name == "CARGO_TARGET_DIR";
        if told || ["LD_LIBRARY_PATH", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CFLAGS", "LDFLAGS"].contains(&&*name) {
            command.env_remove(name);
        }
    }
    command
}

/// The cargo that runs this test, building into a folder of its own: the one that runs us may hold the lock of its own. Everything is
/// there since this test was built.
pub fn cargo() -> Command {
    let mut cargo = command(&env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    cargo.args(["--offline"]);
    cargo
}

/// Where `cargo()` builds.
pub fn nested_target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("nested")
}

/// Runs it to its end and gives what it printed; panics with what it said if it fails.
pub fn run(command: &mut Command) -> String {
    let line: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    let line = line.join(" ");
    let output = command.output().unwrap_or_else(|error| panic!("{line}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}\n{}\n--- stdout\n{}\n--- stderr\n{}", output.status, stdout, stderr);
    stdout
}

/// Is there such a program?
pub fn has(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// Says that this machine cannot run a check, where the test harness cannot swallow it.
pub fn skipped(what: &str, why: &str) {
    let _ = writeln!(io::stdout(), "skipped: {what}: {why}");
}

/// Compares with a checked-in file; TINE_BLESS=1 writes it instead.
pub fn golden(path: &str, actual: &str) {
    if env::var_os("TINE_BLESS").is_some() {
        fs::write(root().join(path), actual).expect("the golden file is writable");
    }
    let expected = fs::read_to_string(root().join(path)).unwrap_or_default();
    assert!(
        actual == expected,
        "{path} differs; if that is meant: TINE_BLESS=1 cargo test --test it\n{}",
        difference(&expected, actual)
    );
}

/// The lines of one text that the other has not, in order: enough to see what changed.
pub fn difference(expected: &str, actual: &str) -> String {
    let missing = expected.lines().filter(|line| !actual.lines().any(|other| other == *line)).map(|line| format!("- {line}"));
    let added = actual.lines().filter(|line| !expected.lines().any(|other| other == *line)).map(|line| format!("+ {line}"));
    missing.chain(added).take(40).collect::<Vec<_>>().join("\n")
}

/// A function of include/tine.h.
#[derive(Debug)]
pub struct Function {
    pub name: String,
    /// The return type, without attributes.
    pub result: String,
    /// The names of the parameters.
    pub parameters: Vec<String>,
}

/// Every function that the header declares, in its order.
pub fn header_functions() -> Vec<Function> {
    let header = without_comments(&read("include/tine.h"));
    // Directives end with their line, not with a semicolon.
    let code: Vec<&str> = header.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let code = code.join(" ").replace("extern \"C\" {", "").replace("TINE_MUST_USE", "");
    let mut depth = 0;
    let outside_of_structs = code.chars().filter(|&c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0
    });
    let outside_of_structs: String = outside_of_structs.collect();
    let statements = outside_of_structs.split(';').map(str::trim);
    let declarations = statements.filter(|text| !text.starts_with("typedef") && text.contains('('));
    let functions = declarations.map(|text| {
        let (before, inside) = text.split_once('(').expect("checked above");
        let (name, result) = last_word(before.trim());
        let parameters = inside.trim_end_matches(')').split(',').map(|parameter| last_word(parameter.trim()).0.to_owned());
        Function {
            name: name.to_owned(),
            result: result.split_whitespace().collect::<Vec<_>>().join(" "),
            parameters: parameters.collect(),
        }
    });
    functions.collect()
}

/// The identifier at the end of a declaration, and what stands before it.
fn last_word(text: &str) -> (&str, &str) {
    let start = text.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |at| at + 1);
    (&text[start..], &text[..start])
}

/// C or Rust text without its comments.
pub fn without_comments(text: &str) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some(at) = rest.find("/*").into_iter().chain(rest.find("//")).min() {
        out.push_str(&rest[..at]);
        let end = if rest[at..].starts_with("/*") {
            rest[at..].find("*/").map_or(rest.len(), |end| at + end + 2)
        } else {
            rest[at..].find('\n').map_or(rest.len(), |end| at + end)
        };
        rest = &rest[end..];
    }
    out + rest
}
