//! Other kernels in an emulator: an image of the programs of this machine, booted with a kernel of Debian's.
//!
//! The image is a file system in memory that holds what is put into it and the shared libraries of it, so whatever runs
//! here runs there. Its first process is the program `lab-guest`; it loads the modules, runs the [jobs](Job) one after
//! the other, says on the console what each came to, and switches the machine off.

mod archive;
mod boot;
mod image;
mod modules;

pub use boot::{Report, Result as JobResult, boot};
pub use image::Image;

/// One program to be run in the emulated machine.
#[derive(Clone, Debug)]
pub struct Job {
    /// What the report calls it.
    pub name: String,
    /// Program and arguments, as paths of the image.
    pub command: Vec<String>,
}

impl Job {
    /// A job.
    pub fn new(name: &str, command: &[&str]) -> Self {
        Self { name: name.to_owned(), command: command.iter().map(|&word| word.to_owned()).collect() }
    }

    /// A line of the file `/jobs`.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}\t{}", self.name, self.command.join("\t"))
    }

    /// Reads such a line; `None` where there is no command.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split('\t').map(str::to_owned);
        let (name, command) = (words.next()?, words.collect::<Vec<_>>());
        (!command.is_empty()).then_some(Self { name, command })
    }
}

/// Before the output of a job stands this, a blank and its name, on a line.
pub const BEGIN: &str = "@@begin";
/// After it this, its name and its exit status (-1: a signal).
pub const END: &str = "@@end";
/// After the last one.
pub const DONE: &str = "@@done";
/// File of the image with a line for each job.
pub const JOBS: &str = "/jobs";
/// Folder of the image with the modules, which are loaded by their numbers in front.
pub const MODULES: &str = "/modules";
