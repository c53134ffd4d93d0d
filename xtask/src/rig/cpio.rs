//! The archive a kernel unpacks as its first file system ("newc" cpio).
//!
//! What lives here: [`Archive`], which writes one. The format is simple enough that needing a program
//! for it would be the greater burden.

/// An archive in the making.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder. Parents have to be added first.
    pub fn folder(&mut self, path: &str) {
        self.entry(path, 0o040_755, &[]);
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, executable: bool, content: &[u8]) {
        self.entry(path, if executable { 0o100_755 } else { 0o100_644 }, content);
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        // ino, mode, uid, gid, nlink, mtime, size, device and its minor, special device and its
        // minor, length of the name with its NUL, checksum (unused).
        let (inode, mode) = (u64::from(self.entries), u64::from(mode));
        let fields = [inode, mode, 0, 0, 1, 0, length(content), 0, 0, 0, 0, length(path.as_bytes()) + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn headers_names_and_contents_are_aligned() {
        let mut archive = Archive::default();
        archive.folder("a");
        archive.file("a/b", true, b"hello");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        // 110 bytes of header and "a\0" make 112; the second entry starts right there.
        assert_eq!(&bytes[112..118], b"070701");
        assert_eq!(&bytes[112 + 14..112 + 22], b"000081ed");
        assert_eq!(&bytes[112 + 110..112 + 114], b"a/b\0");
        assert_eq!(&bytes[112 + 116..112 + 121], b"hello");
    }
}
