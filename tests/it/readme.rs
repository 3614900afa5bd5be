//! The README's C programs build and print what it says they print.

use std::fs;

use crate::support::{build_folder, command, library_folder, read, run};

#[test]
fn the_programs_of_the_readme_print_what_it_says() {
    let readme = read("README.md");
    let programs: Vec<&str> = readme.split("\n```c\n").skip(1).collect();
    assert!(!programs.is_empty(), "README.md has no ```c block");
    let library = library_folder("readme/lib");
    for (number, rest) in programs.into_iter().enumerate() {
        let (source, after) = rest.split_once("\n```\n").expect("the block is closed");
        let printed = after.trim_start().strip_prefix("It prints `").and_then(|text| text.split_once('`'));
        let (printed, _) = printed.expect("\"It prints `…`\" stands below the block");
        let file = build_folder("readme").join(format!("readme_{number}.c"));
        let program = file.with_extension("");
        fs::write(&file, format!("{source}\n")).expect("the target folder is writable");
        run(command("cc")
            .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-Iinclude", "-o"])
            .arg(&program)
            .arg(&file)
            .arg(format!("-L{}", library.display()))
            .arg(format!("-Wl,-rpath,{}", library.display()))
            .arg("-ltine"));
        // A program that hangs is a failure too.
        assert_eq!(run(command("timeout").arg("120").arg(&program)).trim_end(), printed);
    }
}
