//! The FUSE adapter: decodes a request, calls [`Fs`], replies.
//!
//! A session thread never waits for the network. Each operation is a future that holds its reply; the
//! session thread polls it once, which is enough where memory has the answer, and hands it to the
//! runtime otherwise. A panic drops the reply, which answers EIO, and the mount lives on.

mod answers;

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fuser::{
    Errno, FileHandle, FileType, Filesystem, FopenFlags, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr,
};
use tokio::runtime::Handle;
use tracing::{Instrument, Span, trace_span};

use crate::fs::{Error, Fs, Pages};
use crate::namespace::Node;
use crate::request::Request;
use crate::s3;
use crate::sync::Arc;
use answers::{
    ATTRIBUTES_LAST, GENERATION, absent, attribute, attributes, entry_ttl, errno, failed, kind,
    number,
};

/// Read-ahead and asynchronous direct reads that the kernel may have under way.
const MAX_BACKGROUND: u16 = 128;

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

/// The key of an inode, or its prefix, for messages.
fn path(fs: &Fs, inode: INodeNo) -> Arc<str> {
    let node = fs.node(inode.0);
    node.map_or_else(|_| Arc::from(""), |node| Arc::clone(node.path()))
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
            let listed = list(&fs, ino, fh, offset, &request, |next, name, node| {
                let (number, kind) = match node {
                    None => (ino, FileType::Directory),
                    Some((node, _)) => (number(node), kind(node)),
                };
                reply.add(number, next, kind, name)
            });
            match listed.await {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
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
            // The kernel takes no reference to the dots, and looks at no more than their number.
            let mut dot_attributes = absent(fs.ownership());
            dot_attributes.ino = ino;
            dot_attributes.kind = FileType::Directory;
            let listed = list(&fs, ino, fh, offset, &request, |next, name, node| {
                let Some((node, fresh)) = node else {
                    return reply.add(
                        ino,
                        next,
                        name,
                        &Duration::ZERO,
                        &dot_attributes,
                        GENERATION,
                    );
                };
                let attr = attributes(node, fs.ownership());
                let ttl = entry_ttl(Some(node), fresh);
                let full = reply.add(attr.ino, next, name, &ttl, &attr, GENERATION);
                if !full {
                    fs.remember(node);
                }
                full
            });
            match listed.await {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
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

/// Lists a directory from `offset` on, the dots first, until `add` says that the reply is full. It is given the
/// offset behind each entry, the name, and, but for the dots, what that stands for and for how long.
async fn list(
    fs: &Fs,
    ino: INodeNo,
    fh: FileHandle,
    offset: u64,
    request: &Request,
    mut add: impl FnMut(u64, &str, Option<(&Node, Duration)>) -> bool,
) -> Result<(), Errno> {
    let mut next = offset;
    let mut full = false;
    for dot in [".", ".."].iter().skip(skipped(offset, 0)) {
        next += 1;
        full = full || add(next, dot, None);
    }
    // From its beginning, and not from behind the dots.
    let skip = (offset > 0).then(|| skipped(offset, DOTS));
    let read = fs.read_directory(fh.0, skip, request, |entry, fresh| {
        next += 1;
        full = full || add(next, entry.name(), Some((&entry.node, fresh)));
        !full
    });
    let read = within(request, read).await;
    read.map_err(|error| failed("readdir", &path(fs, ino), &error))
}

/// How many of what begins at `from` lie before `offset`.
fn skipped(offset: u64, from: u64) -> usize {
    usize::try_from(offset.saturating_sub(from)).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[path = "fuse_tests.rs"]
mod tests;
