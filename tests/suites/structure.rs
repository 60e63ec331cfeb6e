//! What the code must look like, and what the documents say of it.
//!
//! Needs no root and starts nothing but `lab --help`. Every failure names the file to change and how.

#[cfg(test)]
#[path = "structure/commands.rs"]
mod commands;
#[cfg(test)]
#[path = "structure/dependencies.rs"]
mod dependencies;
#[cfg(test)]
#[path = "structure/documents.rs"]
mod documents;
#[cfg(test)]
#[path = "structure/files.rs"]
mod files;
#[cfg(test)]
#[path = "structure/layout.rs"]
mod layout;
#[cfg(test)]
#[path = "structure/markdown.rs"]
mod markdown;
#[cfg(test)]
#[path = "structure/rust.rs"]
mod rust;
#[cfg(test)]
#[path = "structure/workspace.rs"]
mod workspace;
