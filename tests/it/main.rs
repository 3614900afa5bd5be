//! What a user of the library would notice about the artefacts: the header, the symbols, the examples, the installation. One binary,
//! because each costs a link.

mod abi;
mod boundary;
mod c_tests;
mod contract;
mod cpp_tests;
mod header;
mod install;
mod readme;
mod support;
mod tidy;
mod word_count;
