//! What an object holds, and what S3 says about it: size, ETag, LastModified.
//!
//! Size and ETag of a version are fixed when it is put: a file that changes on disk afterwards must be put again, as
//! an object of S3 would have to be.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest as Digest64};
use md5::{Digest, Md5};
use memmap2::MmapOptions;

use crate::clock::whole_seconds;
use crate::synthetic::{PIECE, piece, start};

/// The bytes of an object.
#[derive(Debug, Clone)]
pub enum Content {
    /// A file, streamed from disk.
    File(PathBuf),
    /// A file that nobody changes while the world lives, served from the page cache as bytes in memory are. It stays
    /// in memory, also when the caches of the machine are dropped.
    Mapped(PathBuf),
    /// Bytes in memory.
    Bytes(Bytes),
    /// Computed from the key, see [`crate::fill`]: costs no memory at any size.
    Synthetic {
        /// Size in bytes.
        size: u64,
    },
}

impl From<&'static str> for Content {
    fn from(text: &'static str) -> Self {
        Self::Bytes(Bytes::from_static(text.as_bytes()))
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// All regular files below `dir`, keyed by their path relative to it with `/` between the components, in key order.
///
/// Left out are symbolic links, which may dangle or lead round in circles, other special files, and names that are not UTF-8,
/// as no S3 key can say them.
pub fn from_directory(dir: impl AsRef<Path>) -> io::Result<Vec<(String, Content)>> {
    let mut objects = Vec::new();
    let mut pending = vec![(String::new(), dir.as_ref().to_path_buf())];
    while let Some((prefix, path)) = pending.pop() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let key = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push((format!("{key}/"), entry.path()));
            } else if kind.is_file() {
                objects.push((key, Content::File(entry.path())));
            }
        }
    }
    objects.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(objects)
}

/// One version of an object, as small as it can be: a bucket may hold a million.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) size: u64,
    /// LastModified in whole seconds since the epoch.
    pub(crate) modified: u64,
    /// GLACIER: listed, but a GET is refused.
    pub(crate) archived: bool,
    etag: u128,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    File(Arc<Path>),
    Mapped(Bytes),
    Bytes(Bytes),
    Synthetic,
}

impl Object {
    /// Version `version` of `key`, put at `now`. Fails when a file cannot be looked at.
    pub(crate) fn new(
        key: &str,
        content: Content,
        version: u64,
        now: SystemTime,
    ) -> io::Result<Self> {
        let (size, modified, etag, source) = match content {
            Content::File(path) => {
                let metadata = fs::metadata(&path)?;
                let etag = file_digest(&path, &metadata, version)?;
                let modified = metadata.modified()?;
                (metadata.len(), modified, etag, Source::File(path.into()))
            }
            Content::Mapped(path) => {
                let file = File::open(&path)?;
                let metadata = file.metadata()?;
                let etag = file_digest(&path, &metadata, version)?;
                let bytes = map(&file)?;
                let modified = metadata.modified()?;
                (bytes.len() as u64, modified, etag, Source::Mapped(bytes))
            }
            // As S3's: the MD5 of the bytes, so the same bytes put again are the same version.
            Content::Bytes(bytes) => (
                bytes.len() as u64,
                now,
                digest(&[&bytes]),
                Source::Bytes(bytes),
            ),
            Content::Synthetic { size } => {
                let etag = digest(&[key.as_bytes(), &size.to_le_bytes(), &version.to_le_bytes()]);
                (size, now, etag, Source::Synthetic)
            }
        };
        Ok(Self {
            size,
            modified: whole_seconds(modified),
            archived: false,
            etag,
            source,
        })
    }

    /// The ETag without its quotes: the MD5 of the bytes where they are at hand, in hex. Others have
    /// the ETag of a multipart upload, with a count of parts behind: clients (rclone) take one without
    /// for the MD5, and refuse bytes that do not fit.
    pub(crate) fn etag(&self) -> String {
        match self.source {
            Source::Bytes(_) => format!("{:032x}", self.etag),
            Source::File(_) | Source::Mapped(_) | Source::Synthetic => {
                format!("{:032x}-1", self.etag)
            }
        }
    }

    /// The checksum of all its bytes; None if they cannot be read.
    pub(crate) fn checksum(&self, key: &str, algorithm: CrcAlgorithm) -> Option<u64> {
        let mut digest = Digest64::new(algorithm);
        match &self.source {
            Source::File(path) => digest.update(&fs::read(path).ok()?),
            Source::Bytes(bytes) | Source::Mapped(bytes) => digest.update(bytes),
            Source::Synthetic => {
                let start = start(key);
                for offset in (0..self.size).step_by(PIECE) {
                    let left = usize::try_from(self.size - offset).unwrap_or(PIECE);
                    digest.update(piece(start, offset, left));
                }
            }
        }
        Some(digest.finalize())
    }

    /// Opens the object for reading; from here on the bytes are those of this version.
    pub(crate) fn open(&self, key: &str) -> io::Result<Reader> {
        Ok(match &self.source {
            Source::File(path) => Reader::File(Arc::new(File::open(path)?)),
            Source::Bytes(bytes) | Source::Mapped(bytes) => Reader::Bytes(bytes.clone()),
            Source::Synthetic => Reader::Synthetic { start: start(key) },
        })
    }
}

/// The ETag of a file: from what its bytes should depend on, as it may be too large to be read for that.
fn file_digest(path: &Path, metadata: &Metadata, version: u64) -> io::Result<u128> {
    let nanos = metadata
        .modified()?
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    Ok(digest(&[
        path.as_os_str().as_encoded_bytes(),
        &metadata.len().to_le_bytes(),
        &nanos.to_le_bytes(),
        &version.to_le_bytes(),
    ]))
}

/// The file in memory, all of it: pages that are mapped outlive a drop of the caches.
fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: the bytes are those of a file that nobody changes: whoever says `Content::Mapped` promises it.
    let mapped = unsafe { MmapOptions::new().populate().map(file)? };
    Ok(Bytes::from_owner(mapped))
}

fn digest(parts: &[&[u8]]) -> u128 {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    u128::from_be_bytes(md5.finalize().into())
}

/// An object opened for reading.
#[derive(Debug, Clone)]
pub(crate) enum Reader {
    File(Arc<File>),
    Bytes(Bytes),
    /// Where in the table of `synthetic` it begins.
    Synthetic {
        start: u64,
    },
}

impl Reader {
    /// The bytes from `offset` on: `len` of them, or fewer but some. Both lie within the object; a file that shrank since
    /// is an error, which cuts the connection.
    pub(crate) async fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                Ok(bytes.slice(start..start + len))
            }
            Self::Synthetic { start } => Ok(Bytes::from_static(piece(*start, offset, len))),
            Self::File(file) => {
                let file = file.clone();
                tokio::task::spawn_blocking(move || {
                    let mut chunk = BytesMut::zeroed(len);
                    file.read_exact_at(&mut chunk, offset)?;
                    Ok(chunk.freeze())
                })
                .await?
            }
        }
    }
}
