//! The C++ programs in tests/cpp that are run, against the library that cargo just built.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::{build_folder, cdylib, command, run};

#[test]
fn exceptions_and_destructors_stay_in_their_process() {
    assert_eq!(run(&mut program("children")), "done\n");
}

#[test]
fn an_exception_out_of_a_task_ends_its_worker_without_a_word() {
    let output = program("tasks").output().expect("the program can be run");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*stdout, &*stderr), (Some(0), "done\n", ""));
}

/// tests/cpp/NAME.cpp, built.
fn program(name: &str) -> Command {
    let folder = build_folder(&format!("cpp_{name}"));
    let program = folder.join(name);
    // A program looks for the library by its soname.
    let library = folder.join(concat!("libtine.so.0.", env!("CARGO_PKG_VERSION_MINOR")));
    let _ = fs::remove_file(&library);
    symlink(cdylib(), &library).expect("the target folder is writable");
    run(command("c++")
        .args(["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-terminate", "-g", "-Iinclude"])
        .args(["-o"])
        .arg(&program)
        .arg(format!("tests/cpp/{name}.cpp"))
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", folder.display())));
    command(program.to_str().expect("a path of text"))
}
