//! The benchmark's program: everything it does lives in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_tests::bench::main()
}
