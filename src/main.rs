//! The `sockscope` binary: hands the command line to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sockscope::cli::main()
}
