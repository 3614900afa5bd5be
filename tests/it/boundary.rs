//! Nothing that a caller does wrong, and no failure of ours, comes out of the library as a crash: each export is called with zeros for
//! all arguments, as it is and with a panic injected into it.

use std::path::Path;

use crate::support::{Function, build_folder, cargo, cdylib, command, header_functions, nested_target, run};

const EPANIC: i32 = -6;

struct Called {
    function: Function,
    returned: i32,
    message: String,
}

/// Calls functions of a library with zeros.
fn call_all(library: &Path, functions: Vec<Function>) -> Vec<Called> {
    let folder = tempfile::tempdir_in(build_folder("boundary")).expect("the target folder is writable");
    let caller = folder.path().join("call_all");
    run(command("cc")
        .args(["-std=c99", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "tests/c/call_all.c", "-o"])
        .arg(&caller)
        .arg("-ldl"));
    let mut command = command(caller.to_str().expect("a path of text"));
    let output = command.arg(library).args(functions.iter().map(|function| &function.name)).output().expect("it was just built");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: the last name below took the process down\n{stdout}\n{stderr}", output.status);
    assert_eq!(stderr, "", "the library wrote to stderr");
    assert_eq!(stdout.lines().count(), functions.len(), "{stdout}");
    let called = functions.into_iter().zip(stdout.lines()).map(|(function, line)| {
        let mut words = line.splitn(3, ' ');
        assert_eq!(words.next(), Some(&*function.name), "{line}");
        let returned = words.next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        Called { function, returned, message: words.next().unwrap_or_default().to_owned() }
    });
    called.collect()
}

fn answers_status(function: &Function) -> bool {
    function.result == "tine_status_t" || function.name == "tine_fork"
}

#[test]
fn a_panic_in_any_export_becomes_a_status() {
    run(cargo()
        .args(["rustc", "--lib", "--crate-type", "cdylib", "--features", "panic_injection", "--target-dir"])
        .arg(nested_target()));
    for Called { function, returned, message } in call_all(&nested_target().join("debug/libtine.so"), header_functions()) {
        let name = &function.name;
        assert!(message.contains("injected"), "{name} has no guard: its message is \"{message}\"");
        assert!(!answers_status(&function) || returned == EPANIC, "{name} returned {returned}");
    }
}

#[test]
fn null_for_every_argument_is_an_error_that_names_one() {
    let functions = header_functions().into_iter().filter(|function| function.result == "tine_status_t").collect();
    for Called { function, returned, message } in call_all(&cdylib(), functions) {
        let name = &function.name;
        assert!(returned < 0 && returned != EPANIC, "{name} returned {returned}");
        let names_one = function
            .parameters
            .iter()
            .any(|parameter| message.contains(&format!("{parameter} is NULL")) || message.starts_with(&format!("{parameter}: ")));
        assert!(names_one, "{name}: \"{message}\" names none of {:?}", function.parameters);
    }
}

/// The feature is never on in what ships: the symbol that arms it would be exported.
#[test]
fn the_library_that_ships_has_no_injection() {
    let symbols = run(command("nm").args(["-D", "--defined-only"]).arg(cdylib()));
    assert!(!symbols.contains("tine_test_inject_panics"), "{symbols}");
}
