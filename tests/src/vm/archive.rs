//! An initramfs: cpio in the form `newc` (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).

use std::collections::BTreeSet;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTERS: u32 = 0o020_600;

/// An archive in the making.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    /// An empty folder, with those above it.
    pub(super) fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || !self.folders.insert(path.to_owned()) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above);
        }
        self.entry(path, FOLDER, (0, 0), &[]);
    }

    /// A file that may be run.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        let path = path.trim_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above);
        }
        self.entry(path, PROGRAM, (0, 0), content);
    }

    /// A device of characters.
    pub(super) fn device(&mut self, path: &str, numbers: (u32, u32)) {
        let path = path.trim_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above);
        }
        self.entry(path, CHARACTERS, numbers, &[]);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inodes += 1;
        let (size, name) = (content.len() as u32, path.len() as u32 + 1);
        // inode, mode, user, group, links, time, size, device (major, minor), device named (major, minor), name, sum
        let fields = [self.inodes, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn folders_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::default();
        archive.file("/a/b/c", b"12345");
        archive.file("/a/b/d", b"");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let at = |name: &str| text.match_indices(&format!("{name}\0")).map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!((at("a").len(), at("a/b").len(), at("a/b/c").len()), (1, 1, 1), "{text}");
        assert!(at("a") < at("a/b") && at("a/b") < at("a/b/c"), "{text}");
        assert!(bytes.len().is_multiple_of(4));
        // The name is 6 bytes with its end, the header 110: content begins at the next multiple of four.
        let header = at("a/b/c")[0] - 110;
        assert_eq!(&bytes[header + 116..header + 121], b"12345");
    }
}
