//! The files of the workspace.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Neither is part of the source: what is built, and git's own.
const LEFT_OUT: [&str; 2] = ["target", ".git"];

/// A text file.
pub(super) struct File {
    /// From the top of the workspace, with slashes.
    pub(super) path: String,
    pub(super) text: String,
}

/// The top of the workspace.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every text file, by path.
pub(super) fn files() -> Vec<File> {
    let mut paths = Vec::new();
    collect(root(), &mut paths);
    paths.sort();
    let file = |path: PathBuf| {
        let text = String::from_utf8(fs::read(&path).unwrap()).ok()?;
        Some(File { path: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), text })
    };
    let files: Vec<File> = paths.into_iter().filter_map(file).collect();
    assert!(files.len() > 100, "only {} files below {}: a wrong place?", files.len(), root().display());
    files
}

/// Every file whose name ends so.
pub(super) fn files_with(extension: &str) -> Vec<File> {
    files().into_iter().filter(|file| file.path.ends_with(extension)).collect()
}

/// The text of a file that must be there.
pub(super) fn text_of(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Fails with all of `complaints`, one line each.
pub(super) fn nothing_wrong(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n  {}\n", complaints.join("\n  "));
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        // Not through symbolic links: they could lead out of the workspace, or around in it.
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(&entry.path(), paths);
        } else if kind.is_file() {
            paths.push(entry.path());
        }
    }
}
