//! The file system as plain async functions: lookup, readdir, open, read. It joins namespace and
//! reader, and has no idea of FUSE; paths are inode numbers, errors are typed.
//!
//! Futures of operations that memory can answer are ready at their first poll.

mod along;
mod changes;
mod directory;
mod failed;
mod handles;
mod kinds;
mod pages;
mod run;
mod siblings;

use std::time::{Duration, SystemTime};

use along::Along;
use directory::{OpenDirectory, Reached};
use failed::FailedLookups;
use handles::Handles;
use pages::KernelPages;
use siblings::{Ahead, Room, Siblings};

pub use changes::{Change, Changes, UnderWay};
pub use pages::Pages;

use crate::cache::Slice;
use crate::namespace::{Answer, Dir, Entry, Namespace, Node, looks_like_a_file};
use crate::reader::{OpenObject, Reader};
use crate::request::Request;
use crate::s3::{self, ObjectVersion};
use crate::sync::Arc;

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// A directory was needed.
    #[error("not a directory")]
    NotADirectory,
    /// A file was needed.
    #[error("is a directory")]
    IsADirectory,
    /// A component of more than 255 bytes.
    #[error("name too long")]
    NameTooLong,
    /// A handle that is not open, or an inode that was forgotten.
    #[error("bad handle")]
    BadHandle,
    /// What S3 said.
    #[error(transparent)]
    Storage(#[from] s3::Error),
}

/// The extended attributes of files.
const ATTRIBUTES: [&str; 5] = [
    "user.s3.bucket",
    "user.s3.etag",
    "user.s3.key",
    "user.s3.last-modified",
    "user.s3.storage-class",
];

/// What all inodes have in common.
#[derive(Clone, Copy, Debug)]
pub struct Ownership {
    /// Of files and directories.
    pub uid: u32,
    /// Of files and directories.
    pub gid: u32,
    /// Permission bits of files.
    pub file_mode: u16,
    /// Permission bits of directories.
    pub dir_mode: u16,
    /// The time of directories, of which S3 knows none.
    pub mounted: SystemTime,
}

/// One mounted bucket.
pub struct Fs {
    namespace: Arc<Namespace>,
    reader: Arc<Reader>,
    ownership: Ownership,
    files: Handles<OpenObject>,
    directories: Handles<OpenDirectory>,
    siblings: Siblings,
    kernel_pages: KernelPages,
    failed: FailedLookups,
    along: Along,
    changes: Arc<Changes>,
}

impl std::fmt::Debug for Fs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fs").finish_non_exhaustive()
    }
}

impl Fs {
    /// The file system over `namespace` and `reader`, which share one bucket.
    pub fn new(namespace: Namespace, reader: Arc<Reader>, ownership: Ownership) -> Self {
        let changes = Arc::<Changes>::default();
        Self {
            namespace: Arc::new(namespace),
            reader,
            ownership,
            files: Handles::default(),
            directories: Handles::default(),
            siblings: Siblings::default(),
            kernel_pages: KernelPages::new(Arc::clone(&changes)),
            failed: FailedLookups::default(),
            along: Along::default(),
            changes,
        }
    }

    /// What the kernel is to forget.
    pub fn changes(&self) -> Arc<Changes> {
        Arc::clone(&self.changes)
    }

    /// Notes that the kernel waits for a lookup or a listing in the directory `inode`, until the answer
    /// is dropped.
    pub fn under_way(&self, inode: u64) -> UnderWay {
        self.changes.under_way(inode)
    }

    /// Uid, gid, modes and time of all inodes.
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// Files and directories that are open.
    pub fn open_handles(&self) -> usize {
        self.files.len() + self.directories.len()
    }

    /// What `name` in the directory `parent` stands for. The caller remembers the node with
    /// [`Fs::remember`] if it passes it on to the kernel.
    ///
    /// # Errors
    /// [`Error::NotADirectory`], [`Error::NameTooLong`], [`Error::BadHandle`], and as S3 says.
    pub async fn lookup(
        &self,
        parent: u64,
        name: &str,
        request: &Request,
    ) -> Result<Answer, Error> {
        if name.len() > 255 {
            return Err(Error::NameTooLong);
        }
        let dir = self.directory(parent)?;
        if dir.prefix.len() + name.len() > s3::LONGEST_KEY {
            return Err(Error::NotFound);
        }
        if let Some(answer) = self.namespace.known(&dir, name) {
            return Ok(answer);
        }
        if let Some(error) = self.failed.recent(parent, name) {
            return Err(error);
        }
        // What begins with a dot are settings that a program looks for everywhere.
        let is_read_next = looks_like_a_file(name) && !name.starts_with('.') && self.along.spend();
        let first = is_read_next.then(|| {
            let key = format!("{}{name}", dir.prefix);
            self.reader.fetch_by_name(key, request.clone())
        });
        let answer = self.namespace.lookup(&dir, name, request).await?;
        if let Some(Node::File(version)) = &answer.node {
            self.along.asked(version.number);
            if let Some(first) = first {
                self.reader.adopt(version, first).await;
            }
        }
        Ok(answer)
    }

    /// Notes that a lookup ended with `error`, which answers the next one if that comes at once.
    pub fn note_failed(&self, parent: u64, name: &str, error: &Error) {
        self.failed.note(parent, name, error);
    }

    /// Notes that the kernel knows `node` once more.
    pub fn remember(&self, node: &Node) {
        self.namespace.inodes().remember(node);
    }

    /// Notes that the kernel gave back `lookups` of an inode.
    pub fn forget(&self, inode: u64, lookups: u64) {
        self.namespace.inodes().forget(inode, lookups);
        if self.namespace.inodes().get(inode).is_none() {
            self.kernel_pages.forget(inode);
        }
    }

    /// The node of an inode that the kernel remembers.
    ///
    /// # Errors
    /// [`Error::BadHandle`] if it does not.
    pub fn node(&self, inode: u64) -> Result<Node, Error> {
        self.namespace.inodes().get(inode).ok_or(Error::BadHandle)
    }

    fn directory(&self, inode: u64) -> Result<Arc<Dir>, Error> {
        match self.node(inode)? {
            Node::Directory(dir) => Ok(dir),
            Node::File(_) => Err(Error::NotADirectory),
        }
    }

    /// Opens a file; sends nothing.
    ///
    /// # Errors
    /// [`Error::IsADirectory`], [`Error::BadHandle`]; [`s3::Error::Archived`] if it cannot be read.
    pub fn open(&self, inode: u64) -> Result<u64, Error> {
        match self.node(inode)? {
            Node::File(version) if version.meta.storage.is_archived() => {
                Err(s3::Error::Archived.into())
            }
            Node::File(version) => Ok(self.files.insert(self.reader.open(version))),
            Node::Directory(_) => Err(Error::IsADirectory),
        }
    }

    /// Up to `len` bytes from `offset` on, fewer only at the end of the file.
    ///
    /// # Errors
    /// As S3 says; when the object was replaced, its name is forgotten and told of as well.
    pub async fn read(
        &self,
        handle: u64,
        offset: u64,
        len: u64,
        request: &Request,
    ) -> Result<Slice, Error> {
        let file = self.files.get(handle).ok_or(Error::BadHandle)?;
        let mut whole = Vec::new();
        if file.is_begun_by(offset, len) {
            let ahead = self.siblings_ahead(file.object(), len);
            if offset == 0 {
                self.along.read(file.object().number);
            }
            for sibling in ahead.first {
                match offset {
                    0 => self.reader.fetch_start(sibling, len),
                    _ => self.reader.fetch_places(&sibling),
                }
            }
            whole = ahead.whole;
        }
        let read = file.read(offset, len, request).await;
        // What this file itself needs has been asked for.
        for sibling in whole {
            let size = sibling.meta.size;
            self.reader.fetch_start(sibling, size);
        }
        if file.was_just_read_through() {
            let ObjectVersion { key, meta, .. } = file.object();
            self.siblings.read_through(key, meta.size);
        }
        if let Err(s3::Error::Changed | s3::Error::NotFound) = &read
            && let Some((parent, name)) = self.namespace.forget_version(file.object())
        {
            self.changes.add(parent, name);
        }
        read.map_err(|error| match error {
            // It was there when it was opened.
            s3::Error::NotFound => s3::Error::Changed.into(),
            error => error.into(),
        })
    }

    /// The files that are probably read after `object`, of which the first `len` bytes are read.
    fn siblings_ahead(&self, object: &ObjectVersion, len: u64) -> Ahead {
        let from = |key: &str, way, most| {
            let mut files = self.namespace.files_from(key, way, most);
            files.retain(|file| !file.meta.storage.is_archived());
            files
        };
        let room = Room {
            starts: self.reader.most_starts(object, len),
            whole: self.reader.most_ahead(),
        };
        let now = tokio::time::Instant::now();
        self.siblings.read(&object.key, room, now, from)
    }

    /// The key of an open file, for messages.
    pub fn key(&self, handle: u64) -> Option<Arc<str>> {
        Some(Arc::clone(&self.files.get(handle)?.object().key))
    }

    /// Closes a file.
    pub fn release(&self, handle: u64) {
        self.files.remove(handle);
    }

    /// The names of the extended attributes of an inode.
    ///
    /// # Errors
    /// [`Error::BadHandle`].
    pub fn attribute_names(&self, inode: u64) -> Result<&'static [&'static str], Error> {
        Ok(match self.node(inode)? {
            Node::File(_) => &ATTRIBUTES,
            Node::Directory(_) => &[],
        })
    }

    /// The value of an extended attribute, if the inode has one of that name.
    ///
    /// # Errors
    /// [`Error::BadHandle`].
    pub fn attribute(&self, inode: u64, name: &str) -> Result<Option<String>, Error> {
        let Node::File(version) = self.node(inode)? else {
            return Ok(None);
        };
        let meta = &version.meta;
        Ok(Some(match name {
            "user.s3.bucket" => self.namespace.bucket().to_owned(),
            "user.s3.key" => version.key.to_string(),
            "user.s3.etag" => meta.etag.to_string(),
            "user.s3.storage-class" => meta.storage.class().to_owned(),
            "user.s3.last-modified" => {
                humantime::format_rfc3339_seconds(meta.last_modified).to_string()
            }
            _ => return Ok(None),
        }))
    }

    /// Forgets all that is known of names, here and in the kernel. Returns how many names of files the
    /// kernel has.
    pub fn forget_names(&self) -> usize {
        self.kernel_pages.forget_all();
        self.failed.forget();
        let names = self.namespace.forget_all();
        let count = names.len();
        self.changes.replace(names);
        count
    }

    /// Bytes that the names take which the kernel remembers, about: now, and at most since
    /// [`Fs::shrink_names`].
    pub fn bytes_of_names(&self) -> (u64, u64) {
        self.namespace.bytes()
    }

    /// Gives back the room of names that are forgotten.
    pub fn shrink_names(&self) {
        self.namespace.shrink();
    }

    /// Opens a directory; sends nothing.
    ///
    /// # Errors
    /// [`Error::NotADirectory`], [`Error::BadHandle`].
    pub fn open_directory(&self, inode: u64) -> Result<(u64, Pages), Error> {
        let dir = self.directory(inode)?;
        let pages = match self.namespace.is_believed_for_a_while() {
            true => self.kernel_pages.open(inode, self.namespace.whole(&dir)),
            false => Pages::Forget,
        };
        let open = OpenDirectory::new(&self.namespace, dir, pages);
        Ok((self.directories.insert(open), pages))
    }

    /// Hands the entries of an open directory to `take`, from the `skip`-th on, until it answers
    /// false or there are no more. Without `skip` it begins, and after other reads it lists anew, as
    /// `rewinddir` does.
    ///
    /// # Errors
    /// As S3 says, if not one entry could be handed out.
    pub async fn read_directory(
        &self,
        handle: u64,
        skip: Option<usize>,
        request: &Request,
        take: impl FnMut(&Entry, Duration) -> bool,
    ) -> Result<(), Error> {
        let open = self.directories.get(handle).ok_or(Error::BadHandle)?;
        let reached = open.read(&self.namespace, skip, request, take).await?;
        if let Reached::End(revision) = reached
            && open.pages != Pages::Forget
        {
            let whole = self.namespace.whole(&open.dir);
            let whole = whole.filter(|(is, _)| Some(*is) == revision);
            self.kernel_pages.filled(open.dir.number.get(), whole);
        }
        Ok(())
    }

    /// Closes a directory.
    pub fn release_directory(&self, handle: u64) {
        if let Some(open) = self.directories.remove(handle) {
            self.kernel_pages.close(open.dir.number.get(), open.pages);
        }
    }
}
