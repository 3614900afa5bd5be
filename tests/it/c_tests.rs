//! The C programs: the tests in tests/c and the examples, against the library that cargo just built.

use crate::support::{build_folder, command, library_folder, run, skipped};

#[test]
fn the_c_tests_pass() {
    let library = library_folder("c_tests/lib");
    let printed = run(command("make")
        .args(["--no-print-directory", "-C", "tests/c", "check"])
        .arg(format!("LIBDIR={}", library.display()))
        .arg(format!("BUILD={}", build_folder("c_tests").display())));
    for why in printed.lines().filter_map(|line| line.strip_prefix("# skipped: ")) {
        skipped("a C test", why);
    }
}

#[test]
fn the_examples_print_what_they_must() {
    let library = library_folder("c_examples/lib");
    run(command("make")
        .args(["--no-print-directory", "-C", "c_examples", "check"])
        .arg(format!("LIBDIR={}", library.display()))
        .arg(format!("BUILD={}", build_folder("c_examples").display())));
}
