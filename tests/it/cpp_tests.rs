//! The C++ programs in tests/cpp that are run, against the library that cargo just built.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::{build_folder, cdylib, command, run};

#[test]
fn exceptions_and_destructors_stay_in_their_process() {
    let folder = build_folder("cpp");
    let program = folder.join("children");
    // A program looks for the library by its soname.
    let library = folder.join(concat!("libtine.so.0.", env!("CARGO_PKG_VERSION_MINOR")));
    let _ = fs::remove_file(&library);
    symlink(cdylib(), &library).expect("the target folder is writable");
    run(command("c++")
        .args(["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-terminate", "-g", "-Iinclude"])
        .args(["tests/cpp/children.cpp", "-o"])
        .arg(&program)
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", folder.display())));
    assert_eq!(run(&mut command(program.to_str().expect("a path of text"))), "done\n");
}
