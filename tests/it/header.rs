//! include/tine.h is what src/ffi says, and it compiles wherever it may be included.

use crate::support::{build_folder, command, difference, read, root, run};

#[test]
fn the_checked_in_header_is_the_generated_one() {
    let generated = std::fs::read_to_string(concat!(env!("OUT_DIR"), "/tine.h")).expect("build.rs wrote it");
    let checked_in = read("include/tine.h");
    assert!(checked_in == generated, "include/tine.h is stale; run `make header`\n{}", difference(&checked_in, &generated));
}

#[test]
fn the_versions_of_cargo_header_and_changelog_are_one() {
    let version = env!("CARGO_PKG_VERSION");
    let header = read("include/tine.h");
    let number = |name: &str| {
        let define = format!("#define {name} ");
        let line = header.lines().find(|line| line.starts_with(&define)).unwrap_or_else(|| panic!("{name} is not in the header"));
        line[define.len()..].trim().parse::<u32>().expect("a version is a number")
    };
    let [major, minor, patch] = ["MAJOR", "MINOR", "PATCH"].map(|part| number(&format!("TINE_VERSION_{part}")));
    assert_eq!(format!("{major}.{minor}.{patch}"), version);
    assert_eq!(number("TINE_VERSION_NUMBER"), major * 10000 + minor * 100 + patch);

    let changelog = read("CHANGELOG.md");
    let newest = changelog.lines().find(|line| line.starts_with("## ")).expect("CHANGELOG.md has versions");
    assert!(newest[3..].starts_with(version), "CHANGELOG.md begins with \"{newest}\", Cargo.toml says {version}");
}

#[test]
fn the_header_alone_is_a_program_in_each_language() {
    for (compiler, standard) in
        [("cc", "c99"), ("cc", "c11"), ("cc", "c17"), ("c++", "c++11"), ("c++", "c++17"), ("c++", "c++20")]
    {
        let language = if compiler == "cc" { "c" } else { "c++" };
        let source = if compiler == "cc" { "tests/cpp/header_alone.c" } else { "tests/cpp/header_alone.cpp" };
        run(command(compiler)
            .args(["-x", language, &format!("-std={standard}"), "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"])
            .args(["-fsyntax-only", "-Iinclude", source]));
    }
}

#[test]
fn two_files_that_include_the_header_twice_link_into_one_program() {
    let program = build_folder("header").join("double_include");
    run(command("c++")
        .args(["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Iinclude", "-o"])
        .arg(&program)
        .args(["tests/cpp/double_include_a.cpp", "tests/cpp/double_include_b.cpp"]));
    run(command(program.to_str().expect("a path of text")).current_dir(root()));
}
