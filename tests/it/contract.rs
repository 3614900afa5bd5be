//! A program that uses every item of the contract compiles against include/tine.h.

use crate::support::{command, run};

fn compile(compiler: &str, flags: &[&str]) {
    run(command(compiler)
        .args(flags)
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-fmax-errors=20", "-Iinclude"])
        .arg("tests/c/contract_uses.c"));
}

#[test]
fn every_item_of_the_contract_is_there_in_c() {
    compile("cc", &["-std=c99"]);
}

#[test]
fn every_item_of_the_contract_is_there_in_cpp() {
    compile("c++", &["-x", "c++", "-std=c++17"]);
}
