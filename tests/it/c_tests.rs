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

/// The library tells the sanitizer what its objects order; a plain race is found, or this would prove nothing.
#[test]
fn the_thread_sanitizer_sees_the_objects_at_work() {
    let probe = build_folder("tsan").join("probe");
    let mut compile = command("sh");
    compile
        .args(["-c", "echo 'int main(void) { return 0; }' | cc -x c -fsanitize=thread -o \"$0\" - && setarch -R \"$0\""])
        .arg(&probe);
    if !compile.output().is_ok_and(|output| output.status.success()) {
        return skipped(
            "tests/c/test_threads under the thread sanitizer",
            "cc has no -fsanitize=thread, or it does not run here",
        );
    }
    let library = library_folder("tsan/lib");
    run(command("make")
        .args(["--no-print-directory", "-C", "tests/c", "tsan"])
        .arg(format!("LIBDIR={}", library.display()))
        .arg(format!("TSAN_BUILD={}", build_folder("tsan").display())));
}

#[test]
fn the_examples_print_what_they_must() {
    let library = library_folder("c_examples/lib");
    run(command("make")
        .args(["--no-print-directory", "-C", "c_examples", "check"])
        .arg(format!("LIBDIR={}", library.display()))
        .arg(format!("BUILD={}", build_folder("c_examples").display())));
}
