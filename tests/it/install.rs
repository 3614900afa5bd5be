//! `make install`, as a packager and a user meet it: the tree, C and C++ consumers through pkg-config, shared and static, after the
//! tree was moved.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::support::{cargo, command, has, nested_target, read, run, skipped};

const CONSUMER: &str = r#"
#include <stdio.h>
#include <string.h>
#include "tine.h"

int main(void) {
    if (tine_version_number() != TINE_VERSION_NUMBER) return 1;
    return strcmp(tine_strerror(TINE_OK), "done") == 0 && puts(tine_version()) >= 0 ? 0 : 1;
}
"#;

/// `make install` builds into one folder: one at a time.
static MAKE: Mutex<()> = Mutex::new(());

fn make(target: &str, settings: &[String]) {
    let _one = MAKE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    run(command("make").args(["--no-print-directory", target]).args(settings));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// Installs below a DESTDIR and moves the tree to `prefix`, which nothing in it knows.
fn install(temporary: &Path) -> PathBuf {
    let [staging, prefix] = ["staging", "moved"].map(|name| temporary.join(name));
    make("install", &["PREFIX=/opt/tine".to_owned(), format!("DESTDIR={}", staging.display())]);
    fs::rename(staging.join("opt/tine"), &prefix).expect("it was installed there");
    prefix
}

fn pkg_config(prefix: &Path, arguments: &[&str]) -> Vec<String> {
    let mut pkg_config = command("pkg-config");
    pkg_config.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).args(arguments).arg("tine");
    run(&mut pkg_config).split_whitespace().map(str::to_owned).collect()
}

/// Builds the consumer with what pkg-config says and runs it.
fn consume(compiler: &[&str], source: &Path, flags: &[String], run_path: Option<&Path>) -> PathBuf {
    let program = source.with_extension(if run_path.is_some() { "shared" } else { "static" });
    run(command(compiler[0])
        .args(&compiler[1..])
        .args(["-Wall", "-Wextra", "-Werror"])
        .arg(source)
        .args(flags)
        .arg("-o")
        .arg(&program));
    let mut consumer = command(text(&program));
    if let Some(path) = run_path {
        consumer.env("LD_LIBRARY_PATH", path);
    }
    assert_eq!(run(&mut consumer).trim(), env!("CARGO_PKG_VERSION"));
    program
}

#[test]
fn what_is_installed_builds_and_runs_programs() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let prefix = install(temporary.path());
    let version = env!("CARGO_PKG_VERSION");
    let [major, minor] = [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR")];
    let abi = if major == "0" { format!("0.{minor}") } else { major.to_owned() };
    let link = |name: &str| fs::read_link(prefix.join("lib").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(link("libtine.so"), Path::new(&format!("libtine.so.{abi}")));
    assert_eq!(link(&format!("libtine.so.{abi}")), Path::new(&format!("libtine.so.{version}")));

    if !has("pkg-config") {
        return skipped("consumers through pkg-config", "pkg-config is missing");
    }
    assert_eq!(pkg_config(&prefix, &["--modversion"]), [version]);
    let [c, cpp] = ["consumer.c", "consumer.cpp"].map(|name| temporary.path().join(name));
    fs::write(&c, CONSUMER).expect("a temporary folder is writable");
    fs::write(&cpp, CONSUMER).expect("a temporary folder is writable");
    let compilers: [(&[&str], &Path); 2] = [(&["cc", "-std=c99"], &c), (&["c++", "-std=c++17"], &cpp)];

    for (compiler, source) in compilers {
        let program = consume(compiler, source, &pkg_config(&prefix, &["--cflags", "--libs"]), Some(&prefix.join("lib")));
        let needed = run(command("readelf").args(["-d", text(&program)]));
        assert!(needed.contains(&format!("[libtine.so.{abi}]")), "the program does not ask for the soname:\n{needed}");
    }

    // Where only the archive is installed, -ltine is the archive.
    for entry in fs::read_dir(prefix.join("lib")).expect("it is there") {
        let path = entry.expect("it is readable").path();
        if text(&path).contains("libtine.so") {
            fs::remove_file(path).expect("it is ours");
        }
    }
    for (compiler, source) in compilers {
        let program = consume(compiler, source, &pkg_config(&prefix, &["--static", "--cflags", "--libs"]), None);
        let needed = run(command("readelf").args(["-d", text(&program)]));
        assert!(!needed.contains("libtine"), "the program is not linked statically:\n{needed}");
    }
}

#[test]
fn uninstall_leaves_nothing() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let settings = ["LIB=lib64".to_owned(), format!("PREFIX={}", temporary.path().display())];
    make("install", &settings);
    assert!(temporary.path().join("lib64/pkgconfig/tine.pc").exists());
    make("uninstall", &settings);
    let left = run(command("find").args([text(temporary.path()), "-not", "-type", "d"]));
    assert_eq!(left, "");
}

/// What rustc says a static library needs changes with its version: then tine.pc.in has to follow.
#[test]
fn the_static_libraries_of_pkg_config_are_those_that_rustc_names() {
    let mut rustc = cargo();
    rustc.args(["rustc", "--lib", "--crate-type", "staticlib", "--target-dir"]).arg(nested_target());
    // cargo replays what the compiler said when there is nothing to do.
    let output = rustc.args(["--", "--print", "native-static-libs"]).output().expect("cargo runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let named =
        stderr.lines().find_map(|line| Some(line.split_once("native-static-libs: ")?.1)).unwrap_or_else(|| panic!("{stderr}"));
    let named: BTreeSet<&str> = named.split_whitespace().collect();
    let template = read("tine.pc.in");
    let private = template.lines().find_map(|line| line.strip_prefix("Libs.private:")).expect("tine.pc.in has Libs.private");
    assert_eq!(private.split_whitespace().collect::<BTreeSet<_>>(), named, "tine.pc.in, Libs.private");
}
