//! The shared library as the linker and the loader see it. The golden files are the ABI: after 1.0 they only grow.

use std::collections::BTreeSet;

use crate::support::{build_folder, cdylib, command, golden, header_functions, run};

fn readelf(flags: &str) -> String {
    run(command("readelf").args([flags, "-W"]).arg(cdylib()))
}

/// `[name]` of each line of `readelf -d` with this tag.
fn dynamic(tag: &str) -> Vec<String> {
    let text = readelf("-d");
    let lines = text.lines().filter(|line| line.contains(&format!("({tag})")));
    lines.filter_map(|line| Some(line.split_once('[')?.1.trim_end_matches(']').to_owned())).collect()
}

#[test]
fn exported_symbols_are_the_functions_of_the_header_and_nothing_else() {
    let symbols = run(command("nm").args(["-D", "--defined-only"]).arg(cdylib()));
    let exported: BTreeSet<String> =
        symbols.lines().filter_map(|line| Some(line.split_whitespace().nth(2)?.to_owned())).collect();
    let declared: BTreeSet<String> = header_functions().into_iter().map(|function| function.name).collect();
    let generated = std::fs::read_to_string(concat!(env!("OUT_DIR"), "/tine.symbols")).expect("build.rs wrote it");
    let generated: BTreeSet<String> = generated.lines().filter_map(|line| Some(line.strip_suffix(';')?.to_owned())).collect();
    let generated: BTreeSet<String> = generated.into_iter().filter(|name| name.starts_with("tine_")).collect();

    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
    assert_eq!(only(&exported, &declared), [""; 0], "exported and not in include/tine.h");
    assert_eq!(only(&declared, &exported), [""; 0], "in include/tine.h and not exported");
    assert_eq!(generated, declared, "the generator's list of functions is that of the header");
    golden("tests/abi/exports.txt", &exported.iter().map(|name| format!("{name}\n")).collect::<String>());
}

#[test]
fn the_library_has_a_soname() {
    let [major, minor] = [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR")];
    let expected = if major == "0" { format!("libtine.so.0.{minor}") } else { format!("libtine.so.{major}") };
    assert_eq!(dynamic("SONAME"), [expected]);
}

#[test]
fn the_library_needs_only_what_every_system_has() {
    // The loader's file name has the architecture in it.
    let needed =
        dynamic("NEEDED").into_iter().map(|name| if name.starts_with("ld-linux") { "ld-linux".to_owned() } else { name });
    golden("tests/abi/needed.txt", &needed.map(|name| name + "\n").collect::<String>());
}

#[test]
fn the_library_has_no_executable_stack_and_is_bound_at_load_and_stays_loaded() {
    let segments = readelf("-l");
    let stack = segments.lines().find(|line| line.contains("GNU_STACK")).expect("there is a GNU_STACK segment");
    assert!(stack.contains(" RW ") && !stack.contains("RWE"), "{stack}");
    assert!(segments.contains("GNU_RELRO"), "{segments}");
    let flags = readelf("-d");
    assert!(!flags.contains("TEXTREL"), "{flags}");
    let flags = flags.lines().find(|line| line.contains("(FLAGS_1)")).expect("there are FLAGS_1");
    // Threads and fork handlers may outlive a dlclose().
    assert!(flags.contains("NOW") && flags.contains("NODELETE"), "{flags}");
}

#[test]
fn structs_have_the_layout_that_programs_were_compiled_with() {
    let program = build_folder("abi").join("abi_layout");
    run(command("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-fmax-errors=10", "-Iinclude", "tests/c/abi_layout.c", "-o"])
        .arg(&program));
    // 64-bit Linux is one data model on both architectures.
    golden("tests/abi/layout.txt", &run(&mut command(program.to_str().expect("a path of text"))));
}
