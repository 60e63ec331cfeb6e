//! `lab-guest`: the first process of an emulated machine, and what it tries out there that the kernel of the machine
//! outside may lack.

mod first;
mod scenes;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        first::run();
    }
    let scene = std::env::args().nth(1).unwrap_or_default();
    match scenes::run(&scene) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:?}");
            ExitCode::FAILURE
        }
    }
}
