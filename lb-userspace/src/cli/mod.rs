//! The command line.

use std::process::ExitCode;

/// Entry of the `lb` binary.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
