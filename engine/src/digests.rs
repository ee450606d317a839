//! The SHA-256 of small files, such as the ten thousand documents of an inbox.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

/// The digest of a regular file of at most `max_bytes`; symbolic links are followed. `None` for all
/// else, and if the file cannot be read. It never waits for a FIFO or a device.
pub fn of_file(path: &Path, max_bytes: u64) -> Option<[u8; 32]> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let found = file.metadata().ok().filter(|found| found.is_file() && found.len() <= max_bytes)?;
    let mut content = Vec::with_capacity(found.len() as usize + 1);
    file.take(max_bytes + 1).read_to_end(&mut content).ok()?;
    (content.len() as u64 <= max_bytes).then(|| Sha256::digest(&content).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_regular_file_within_the_limit_has_a_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), b"abc").unwrap();
        symlink("file", path("link")).unwrap();
        let digest: Option<[u8; 32]> = Some(Sha256::digest(b"abc").into());
        assert_eq!((of_file(&path("file"), 3), of_file(&path("link"), 3)), (digest, digest));
        assert_eq!(of_file(&path("file"), 2), None);
    }

    #[test]
    fn nothing_else_has_one_or_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for path in [&fifo, folder.path(), Path::new("/dev/zero"), &folder.path().join("missing")] {
            assert_eq!(of_file(path, 100), None, "{path:?}");
        }
    }
}
