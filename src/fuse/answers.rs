//! What is said in the kernel's words: errno, attributes, and how long they hold. The only place that knows errno.

use std::time::Duration;

use fuser::{Errno, FileAttr, FileType, Generation, INodeNo, ReplyXattr};

use crate::fs::{Error, Ownership};
use crate::namespace::Node;
use crate::s3;

/// An inode is one version of an object: its attributes never change, so the kernel may keep them
/// for as long as it remembers it. What a name stands for is another matter.
pub(super) const ATTRIBUTES_LAST: Duration = Duration::from_secs(24 * 3600);
/// The kernel counts in jiffies: a larger TTL says no more than this one.
const LONGEST_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// When names are forgotten, the kernel is not told of absent ones, which have no inode, nor of
/// directories, in which programs may be at work. It asks again after this time.
const UNTOLD_LASTS: Duration = Duration::from_secs(10);
/// What `st_blksize` says: the largest read that the kernel sends.
const PREFERRED_READ: u32 = 1 << 20;
/// FUSE's generation tells inodes of one number apart; no number is used twice here.
pub(super) const GENERATION: Generation = Generation(0);

/// The table of `docs/semantics.md`.
pub(super) fn errno(error: &Error) -> Errno {
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
pub(super) fn failed(operation: &str, name: &str, error: &Error) -> Errno {
    match error {
        Error::Storage(storage) => tracing::warn!(name, "{operation}: {storage}"),
        _ => tracing::debug!(name, "{operation}: {error}"),
    }
    errno(error)
}

/// How long the kernel may believe what a name stands for, where that is believed `for_now`.
pub(super) fn entry_ttl(node: Option<&Node>, for_now: Duration) -> Duration {
    match node {
        Some(Node::File(_)) => for_now.min(LONGEST_TTL),
        Some(Node::Directory(_)) | None => for_now.min(UNTOLD_LASTS),
    }
}

pub(super) fn number(node: &Node) -> INodeNo {
    INodeNo(node.number().get())
}

pub(super) fn kind(node: &Node) -> FileType {
    match node {
        Node::File(_) => FileType::RegularFile,
        Node::Directory(_) => FileType::Directory,
    }
}

pub(super) fn attributes(node: &Node, ownership: &Ownership) -> FileAttr {
    let (perm, size, time, nlink) = match node {
        Node::File(version) => (
            match version.meta.storage.is_archived() {
                true => 0,
                false => ownership.file_mode,
            },
            version.meta.size,
            version.meta.last_modified,
            1,
        ),
        Node::Directory(_) => (ownership.dir_mode, 0, ownership.mounted, 2),
    };
    FileAttr {
        ino: number(node),
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: kind(node),
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
pub(super) fn absent(ownership: &Ownership) -> FileAttr {
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

/// Answers with `value`, or with its length where the kernel asks for that.
pub(super) fn attribute(value: &[u8], room: u32, reply: ReplyXattr) {
    match u32::try_from(value.len()) {
        Ok(len) if room == 0 => reply.size(len),
        Ok(len) if len <= room => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}
