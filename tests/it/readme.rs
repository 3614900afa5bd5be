//! The README's C programs compile against the header as it is.

use std::fs;

use crate::support::{build_folder, command, read, run};

/// The text of each block that opens with this fence.
fn blocks(text: &str, fence: &str) -> Vec<String> {
    let fence = format!("\n{fence}\n");
    text.split(&fence).skip(1).map(|rest| rest.split_once("\n```").expect("the block is closed").0.to_owned() + "\n").collect()
}

#[test]
fn the_programs_of_the_readme_compile() {
    let programs = blocks(&read("README.md"), "```c");
    assert!(!programs.is_empty(), "README.md has no ```c block");
    for (number, program) in programs.iter().enumerate() {
        let source = build_folder("readme").join(format!("readme_{number}.c"));
        fs::write(&source, program).expect("the target folder is writable");
        run(command("cc")
            .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-Iinclude", "-fsyntax-only"])
            .arg(source));
    }
}
