//! The user's own table of buckets: a file in the cache directory, written whole or not at all.
//!
//! It says where a login goes, so one that somebody else could have written is not read.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use super::registry::Table;

/// A table of a hundred times the buckets there are is smaller.
const MAX_FILE: u64 = 1 << 20;

impl Table {
    /// Reads the file at `path`; `None` if there is none.
    ///
    /// # Errors
    /// [`io::Error`] also where it belongs to another user, or others may write to it.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        let user = nix::unistd::geteuid().as_raw();
        if ![0, user].contains(&metadata.uid()) {
            return Err(io::Error::other("it belongs to another user"));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(io::Error::other("others may write to it"));
        }
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text)?;
        Ok(Some(Self::parse(&text)))
    }

    /// Writes the file at `path`, mode 0600, and its directory, 0700. Whoever reads it at the same
    /// time sees the old table or the new one.
    ///
    /// # Errors
    /// As the file system says; the old file is then as it was.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let mut file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(directory)?;
        file.write_all(self.text().as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_others_could_write_is_not() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("a/b/buckets.tsv");
        assert!(Table::read(&path).expect("no file").is_none());
        let table = Table::built_in();
        table.write(&path).expect("written");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().expect("a directory")), 0o700);
        let read = Table::read(&path).expect("readable").expect("there");
        assert_eq!(read.rows(), table.rows());
        let open_to_others = Permissions::from_mode(0o620);
        std::fs::set_permissions(&path, open_to_others).expect("chmod");
        assert!(Table::read(&path).is_err());
        table.write(&path).expect("written again");
        assert_eq!(mode(&path), 0o600);
    }
}
