//! The compiler as a program of its own, for tests and for embedders that have no program which could become one.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    host::compiler::serve()
}
