//! The FUSE adapter: decodes a request, calls [`Fs`], replies. The only place that knows errno.
//!
//! A session thread never waits for the network. Each operation is a future that holds its reply; the
//! session thread polls it once, which is enough where memory has the answer, and hands it to the
//! runtime otherwise. A panic drops the reply, which answers EIO, and the mount lives on.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr,
};
use tokio::runtime::Handle;
use tracing::{Instrument, Span, trace_span};

use crate::fs::{Error, Fs, Ownership, Pages};
use crate::namespace::Node;
use crate::request::Request;
use crate::s3;
use crate::sync::Arc;

/// Read-ahead and asynchronous direct reads that the kernel may have under way.
const MAX_BACKGROUND: u16 = 128;
/// An inode is one version of an object: its attributes never change, so the kernel may keep them
/// for as long as it remembers it. What a name stands for is another matter.
const ATTRIBUTES_LAST: Duration = Duration::from_secs(24 * 3600);
/// The kernel counts in jiffies: a larger TTL says no more than this one.
const LONGEST_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// When names are forgotten, the kernel is not told of absent ones, which have no inode, nor of
/// directories, in which programs may be at work. It asks again after this time.
const UNTOLD_LASTS: Duration = Duration::from_secs(10);
/// What `st_blksize` says: the largest read that the kernel sends.
const PREFERRED_READ: u32 = 1 << 20;
/// FUSE's generation tells inodes of one number apart; no number is used twice here.
const GENERATION: Generation = Generation(0);

/// Answers the kernel on behalf of one [`Fs`].
pub struct Adapter {
    fs: Arc<Fs>,
    runtime: Handle,
    /// How long one operation may take.
    timeout: Duration,
}

impl Adapter {
    /// An adapter whose operations take at most `timeout`.
    pub fn new(fs: Arc<Fs>, runtime: Handle, timeout: Duration) -> Self {
        Self {
            fs,
            runtime,
            timeout,
        }
    }

    /// Polls `operation` once here, and lets the runtime do the rest, if there is any. All that it
    /// logs is within `span`.
    fn run(&self, span: Span, operation: impl Future<Output = ()> + Send + 'static) {
        let _within = self.runtime.enter();
        let mut operation = Box::pin(operation.instrument(span));
        let poll = || {
            operation
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
        };
        if let Ok(Poll::Pending) = catch_unwind(AssertUnwindSafe(poll)) {
            self.runtime.spawn(operation);
        }
    }

    /// Answers at once. A panic drops the reply, too, and must not end the session thread.
    fn answer(&self, operation: impl FnOnce()) {
        // The hook has logged it.
        let _ = catch_unwind(AssertUnwindSafe(operation));
    }

    fn request(&self) -> Request {
        Request::demand(self.timeout)
    }
}

/// The result of `operation`, or a time-out at the deadline of `request`.
async fn within<T>(
    request: &Request,
    operation: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout_at(request.deadline, operation)
        .await
        .unwrap_or(Err(Error::Storage(s3::Error::TimedOut)))
}

/// The table of `docs/semantics.md`.
fn errno(error: &Error) -> Errno {
    match error {
        Error::NotFound | Error::Storage(s3::Error::NotFound) => Errno::ENOENT,
        Error::NotADirectory => Errno::ENOTDIR,
        Error::IsADirectory => Errno::EISDIR,
        Error::NameTooLong => Errno::ENAMETOOLONG,
        Error::BadHandle => Errno::EBADF,
        Error::Storage(storage) => match storage {
            s3::Error::AccessDenied(_) | s3::Error::Archived => Errno::EACCES,
            s3::Error::Changed => Errno::ESTALE,
            s3::Error::NoCredentials(_) | s3::Error::CredentialsRejected(_) => {
                Errno::from_i32(libc::EKEYEXPIRED)
            }
            s3::Error::TimedOut | s3::Error::Late(_) => Errno::ETIMEDOUT,
            s3::Error::NotFound
            | s3::Error::NoSuchBucket
            | s3::Error::WrongRegion(_)
            | s3::Error::Unavailable(_)
            | s3::Error::WrongBytes(..)
            | s3::Error::Protocol(_) => Errno::EIO,
        },
    }
}

/// Logs what an administrator wants to see, and gives the errno.
fn failed(operation: &str, name: &str, error: &Error) -> Errno {
    match error {
        Error::Storage(storage) => tracing::warn!(name, "{operation}: {storage}"),
        _ => tracing::debug!(name, "{operation}: {error}"),
    }
    errno(error)
}

/// The key of an inode, or its prefix, for messages.
fn path(fs: &Fs, inode: INodeNo) -> Arc<str> {
    let node = fs.node(inode.0);
    node.map_or_else(|_| Arc::from(""), |node| Arc::clone(node.path()))
}

/// How long the kernel may believe what a name stands for, where that is believed `for_now`.
fn entry_ttl(node: Option<&Node>, for_now: Duration) -> Duration {
    match node {
        Some(Node::File(_)) => for_now.min(LONGEST_TTL),
        Some(Node::Directory(_)) | None => for_now.min(UNTOLD_LASTS),
    }
}

fn attributes(node: &Node, ownership: &Ownership) -> FileAttr {
    let (kind, perm, size, time, nlink) = match node {
        Node::File(version) => (
            FileType::RegularFile,
            match version.meta.storage.is_archived() {
                true => 0,
                false => ownership.file_mode,
            },
            version.meta.size,
            version.meta.last_modified,
            1,
        ),
        Node::Directory(_) => (
            FileType::Directory,
            ownership.dir_mode,
            0,
            ownership.mounted,
            2,
        ),
    };
    FileAttr {
        ino: INodeNo(node.number().get()),
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm,
        nlink,
        uid: ownership.uid,
        gid: ownership.gid,
        rdev: 0,
        blksize: PREFERRED_READ,
        flags: 0,
    }
}

/// The answer for a name that is known to be absent: an entry with inode 0, which the kernel caches,
/// as it does not cache ENOENT.
fn absent(ownership: &Ownership) -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: ownership.mounted,
        mtime: ownership.mounted,
        ctime: ownership.mounted,
        crtime: ownership.mounted,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// `.` and `..` come before the entries: offset 2 is the first of these.
const DOTS: u64 = 2;

impl Filesystem for Adapter {
    fn init(&mut self, _req: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
        ] {
            if config.add_capabilities(wanted).is_err() {
                tracing::debug!("this kernel lacks {wanted:?}");
            }
        }
        // Only zero is refused.
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, request) = (Arc::clone(&self.fs), self.request());
        let Some(name) = name.to_str().map(str::to_owned) else {
            // Keys are UTF-8: nothing has such a name.
            return reply.error(Errno::ENOENT);
        };
        let span = trace_span!("lookup", parent = parent.0, name);
        let under_way = self.fs.under_way(parent.0);
        self.run(span, async move {
            let _until_answered = under_way;
            match within(&request, fs.lookup(parent.0, &name, &request)).await {
                Ok(answer) => {
                    let ttl = entry_ttl(answer.node.as_ref(), answer.fresh_for);
                    match answer.node {
                        Some(node) => {
                            fs.remember(&node);
                            let attr = attributes(&node, fs.ownership());
                            reply.entry_with_ttls(&ATTRIBUTES_LAST, &ttl, &attr, GENERATION);
                        }
                        None if ttl.is_zero() => reply.error(Errno::ENOENT),
                        None => {
                            reply.entry(&ttl, &absent(fs.ownership()), GENERATION);
                        }
                    }
                }
                Err(error) => {
                    fs.note_failed(parent.0, &name, &error);
                    reply.error(failed("lookup", &name, &error));
                }
            }
        });
    }

    fn forget(&self, _req: &fuser::Request, ino: INodeNo, nlookup: u64) {
        self.answer(|| self.fs.forget(ino.0, nlookup));
    }

    fn getattr(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        _fh: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        self.answer(|| match self.fs.node(ino.0) {
            Ok(node) => reply.attr(&ATTRIBUTES_LAST, &attributes(&node, self.fs.ownership())),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn open(&self, _req: &fuser::Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.answer(|| match self.fs.open(ino.0) {
            // The inode is one version, so its pages stay true.
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(failed("open", &path(&self.fs, ino), &error)),
        });
    }

    fn read(
        &self,
        _req: &fuser::Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (fs, request) = (Arc::clone(&self.fs), self.request());
        let span = trace_span!("read", handle = fh.0, offset, size);
        self.run(span, async move {
            let read = fs.read(fh.0, offset, u64::from(size), &request);
            match within(&request, read).await {
                Ok(slice) => reply.data(slice.as_bytes()),
                Err(error) => {
                    let key = fs.key(fh.0);
                    reply.error(failed("read", key.as_deref().unwrap_or_default(), &error));
                }
            }
        });
    }

    fn release(
        &self,
        _req: &fuser::Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.answer(|| {
            self.fs.release(fh.0);
            reply.ok();
        });
    }

    fn opendir(&self, _req: &fuser::Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.answer(|| match self.fs.open_directory(ino.0) {
            Ok((handle, pages)) => {
                let flags = match pages {
                    Pages::Forget => FopenFlags::empty(),
                    Pages::Renew => FopenFlags::FOPEN_CACHE_DIR,
                    Pages::Use => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
                };
                reply.opened(FileHandle(handle), flags);
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn readdir(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let (fs, request) = (Arc::clone(&self.fs), self.request());
        let span = trace_span!("readdir", handle = fh.0, offset);
        let under_way = self.fs.under_way(ino.0);
        self.run(span, async move {
            let _until_answered = under_way;
            let mut next = offset;
            let mut full = false;
            for dot in [".", ".."].iter().skip(skipped(offset, 0)) {
                next += 1;
                full = full || reply.add(ino, next, FileType::Directory, dot);
            }
            let read = fs.read_directory(fh.0, skipped(offset, DOTS), &request, |entry, _| {
                next += 1;
                let kind = match entry.node {
                    Node::File(_) => FileType::RegularFile,
                    Node::Directory(_) => FileType::Directory,
                };
                let number = INodeNo(entry.node.number().get());
                full = full || reply.add(number, next, kind, entry.name());
                !full
            });
            match within(&request, read).await {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(failed("readdir", &path(&fs, ino), &error)),
            }
        });
    }

    fn readdirplus(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let (fs, request) = (Arc::clone(&self.fs), self.request());
        let span = trace_span!("readdir", handle = fh.0, offset);
        let under_way = self.fs.under_way(ino.0);
        self.run(span, async move {
            let _until_answered = under_way;
            let mut next = offset;
            let mut full = false;
            // The kernel takes no reference to the dots, and looks at no more than their number.
            let mut dot_attributes = absent(fs.ownership());
            dot_attributes.ino = ino;
            dot_attributes.kind = FileType::Directory;
            for dot in [".", ".."].iter().skip(skipped(offset, 0)) {
                next += 1;
                let zero = Duration::ZERO;
                full = full || reply.add(ino, next, dot, &zero, &dot_attributes, GENERATION);
            }
            let read = fs.read_directory(fh.0, skipped(offset, DOTS), &request, |entry, fresh| {
                next += 1;
                let attr = attributes(&entry.node, fs.ownership());
                let ttl = entry_ttl(Some(&entry.node), fresh);
                full = full || reply.add(attr.ino, next, entry.name(), &ttl, &attr, GENERATION);
                if !full {
                    fs.remember(&entry.node);
                }
                !full
            });
            match within(&request, read).await {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(failed("readdir", &path(&fs, ino), &error)),
            }
        });
    }

    fn releasedir(
        &self,
        _req: &fuser::Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.answer(|| {
            self.fs.release_directory(fh.0);
            reply.ok();
        });
    }

    fn getxattr(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let name = name
            .to_str()
            .filter(|name| name.starts_with(ATTRIBUTE_PREFIX));
        // Not ENODATA, after which `ls -l` goes on asking for each file.
        let Some(name) = name else {
            return reply.error(Errno::EOPNOTSUPP);
        };
        self.answer(|| match self.fs.attribute(ino.0, name) {
            Ok(Some(value)) => attribute(value.as_bytes(), size, reply),
            Ok(None) => reply.error(Errno::ENODATA),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn listxattr(&self, _req: &fuser::Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.answer(|| match self.fs.attribute_names(ino.0) {
            Ok(names) => {
                let terminated = names.iter().flat_map(|name| name.bytes().chain([0]));
                attribute(&terminated.collect::<Vec<_>>(), size, reply);
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    /// S3 has no size: `df` shows a pebibyte, all of it free, so that no monitor takes the mount for
    /// a full disk.
    fn statfs(&self, _req: &fuser::Request, _ino: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u32 = 4096;
        const BLOCKS: u64 = (1 << 50) / BLOCK as u64;
        const FILES: u64 = 1 << 40;
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, FILES, FILES, BLOCK, 255, BLOCK);
    }
}

/// All extended attributes begin with this.
const ATTRIBUTE_PREFIX: &str = "user.s3.";

/// Answers with `value`, or with its length where the kernel asks for that.
fn attribute(value: &[u8], room: u32, reply: ReplyXattr) {
    match u32::try_from(value.len()) {
        Ok(len) if room == 0 => reply.size(len),
        Ok(len) if len <= room => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

/// How many of what begins at `from` lie before `offset`.
fn skipped(offset: u64, from: u64) -> usize {
    usize::try_from(offset.saturating_sub(from)).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[path = "fuse_tests.rs"]
mod tests;
