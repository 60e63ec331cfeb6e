//! What an emulated machine boots: programs with their libraries, modules, jobs.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{JOBS, Job, MODULES, archive::Archive, modules};
use crate::cleanup::Folder;

/// An image in the making.
#[derive(Debug)]
pub struct Image {
    kernel: PathBuf,
    archive: Archive,
    libraries: BTreeSet<PathBuf>,
    folder: Folder,
}

impl Image {
    /// For the kernel that was unpacked in this folder, with these modules. `first` becomes the first process.
    ///
    /// # Errors
    /// When something is not there.
    pub fn new(kernel: &Path, modules: &[&str], first: &Path) -> Result<Self> {
        let mut archive = Archive::default();
        for folder in ["/proc", "/sys", "/dev", "/tmp", "/run"] {
            archive.folder(folder);
        }
        archive.device("/dev/console", (5, 1));
        for (number, (name, content)) in modules::load_order(kernel, modules)?.iter().enumerate() {
            archive.file(&format!("{MODULES}/{number:02}-{name}"), content);
        }
        let folder = Folder::new("image")?;
        let mut image = Self { kernel: kernel.to_owned(), archive, libraries: BTreeSet::new(), folder };
        image.program(first, "/init")?;
        Ok(image)
    }

    /// Puts a program in at `path`, without its debugging information, and the libraries that it needs.
    ///
    /// # Errors
    /// When it is not there, or `strip` or `ldd` fail.
    pub fn program(&mut self, program: &Path, path: &str) -> Result<()> {
        let stripped = self.folder.path().join("stripped");
        // Debugging information is most of a program, and what the machine boots is all in its memory.
        let mut strip = Command::new("strip");
        output(strip.arg("-o").arg(&stripped).arg(program))?;
        self.archive.file(path, &fs::read(&stripped)?);
        for library in libraries(program)? {
            if self.libraries.insert(library.clone()) {
                let content = fs::read(&library).with_context(|| library.display().to_string())?;
                self.archive.file(&library.to_string_lossy(), &content);
            }
        }
        Ok(())
    }

    /// The kernel and the file with the finished image, which lies in the folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn finish(mut self, jobs: &[Job]) -> Result<(PathBuf, PathBuf, Folder)> {
        let lines: Vec<String> = jobs.iter().map(Job::line).collect();
        self.archive.file(JOBS, lines.join("\n").as_bytes());
        let image = self.folder.path().join("image");
        fs::write(&image, self.archive.finish()).context("writing the image")?;
        let boot = self.kernel.join("boot");
        let mut entries =
            fs::read_dir(&boot).with_context(|| boot.display().to_string())?.filter_map(Result::ok);
        let kernel = entries.find(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz"));
        let kernel = kernel.with_context(|| format!("there is no vmlinuz in {}", boot.display()))?;
        Ok((kernel.path(), image, self.folder))
    }
}

/// The shared libraries of a program and what loads them; none for one that is linked statically.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("ldd").arg(program).output().context("running ldd")?;
    let text = String::from_utf8_lossy(&listed.stdout);
    // `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`, and one without a file.
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    if text.contains("not found") {
        bail!("{} lacks a library: {text}", program.display());
    }
    Ok(text.lines().filter_map(path).collect())
}

fn output(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("running {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
