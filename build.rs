//! Writes the C header into OUT_DIR and gives the shared library its name; nothing else.
//!
//! The header is checked in as `include/tine.h`; a test compares the two, `make header` copies (build scripts must not write into
//! the source tree).

use std::env;
use std::path::PathBuf;

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for path in ["src/ffi", "include/cbindgen.toml", "Cargo.toml", "build.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }

    let config = cbindgen::Config::from_file(root.join("include/cbindgen.toml")).expect("include/cbindgen.toml is valid");
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(root.join("src/ffi/mod.rs"))
        .generate()
        .expect("cbindgen reads src/ffi");
    bindings.write_to_file(out.join("tine.h"));
    bindings.generate_symfile(out.join("tine.symbols"));

    // cargo-c's rule: before 1.0 the minor version is part of the ABI's name.
    let major = env::var("CARGO_PKG_VERSION_MAJOR").expect("cargo sets the version");
    let minor = env::var("CARGO_PKG_VERSION_MINOR").expect("cargo sets the version");
    let soname = if major == "0" { format!("libtine.so.0.{minor}") } else { format!("libtine.so.{major}") };
    println!("cargo::rustc-link-arg-cdylib=-Wl,-soname,{soname}");
    // Threads and fork handlers of the library may outlive a dlclose().
    println!("cargo::rustc-link-arg-cdylib=-Wl,-z,nodelete");
}
