//! The C programs: the tests in tests/c and the examples, against the library that cargo just built.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::support::{build_folder, cdylib, command, root, run, skipped};

/// A folder with the library under the names that the linker and the loader ask for.
fn library_folder(name: &str) -> PathBuf {
    let folder = build_folder(name);
    for link in ["libtine.so".to_owned(), format!("libtine.so.0.{}", env!("CARGO_PKG_VERSION_MINOR"))] {
        let link = folder.join(link);
        let _ = fs::remove_file(&link);
        symlink(cdylib(), &link).expect("the target folder is writable");
    }
    folder
}

#[test]
fn the_c_tests_pass() {
    let library = library_folder("c_tests/lib");
    run(command("make")
        .args(["--no-print-directory", "-C", "tests/c", "check"])
        .arg(format!("LIBDIR={}", library.display()))
        .arg(format!("BUILD={}", build_folder("c_tests").display())));
}

#[test]
fn the_examples_print_what_they_must() {
    if !root().join("c_examples/Makefile").exists() {
        return skipped("c_examples", "no Makefile");
    }
    let library = library_folder("c_examples/lib");
    run(command("make")
        .args(["--no-print-directory", "-C", "c_examples", "check"])
        .arg(format!("LIBDIR={}", library.display()))
        .arg(format!("BUILD={}", build_folder("c_examples").display())));
}
