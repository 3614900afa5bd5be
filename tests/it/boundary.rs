//! No panic leaves the library: one is injected through every export of a build made for this.

use std::process::Stdio;

use crate::support::{build_folder, cargo, command, header_functions, nested_target, run};

const EPANIC: i32 = -6;

#[test]
fn a_panic_in_any_export_becomes_a_status() {
    run(cargo()
        .args(["rustc", "--lib", "--crate-type", "cdylib", "--features", "panic_injection"])
        .arg("--target-dir")
        .arg(nested_target()));
    let library = nested_target().join("debug/libtine.so");
    let caller = build_folder("boundary").join("call_all");
    run(command("cc")
        .args(["-std=c99", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "tests/c/call_all.c", "-o"])
        .arg(&caller)
        .arg("-ldl"));

    let functions = header_functions();
    let mut call_all = command(caller.to_str().expect("a path of text"));
    call_all.arg(&library).args(functions.iter().map(|function| &function.name));
    let output = call_all.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("it was just built");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: the last name below has no guard\n{stdout}\n{stderr}", output.status);
    assert_eq!(stderr, "", "the library wrote to stderr");

    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), functions.len(), "{stdout}");
    for (function, line) in functions.iter().zip(lines) {
        let name = &function.name;
        let (returned, message) = line
            .strip_prefix(&format!("{name} "))
            .and_then(|rest| rest.split_once(' '))
            .unwrap_or_else(|| panic!("{name}: {line}"));
        assert!(message.contains("injected"), "{name} has no guard: its message is \"{message}\"");
        if function.result == "tine_status_t" || name == "tine_fork" {
            assert_eq!(returned.parse(), Ok(EPANIC), "{name}: {line}");
        }
    }
}

/// The feature is never on in what ships: the symbol that arms it would be exported.
#[test]
fn the_library_that_ships_has_no_injection() {
    let symbols = run(command("nm").args(["-D", "--defined-only"]).arg(crate::support::cdylib()));
    assert!(!symbols.contains("tine_test_inject_panics"), "{symbols}");
}
