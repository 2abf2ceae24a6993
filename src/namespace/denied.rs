//! Where LIST is denied: what HEAD tells of a name, and which names the user supplies.
//!
//! S3 answers a HEAD with 200 for a file, and with 403 for all that is missing. That a directory may not
//! be listed is remembered for the TTL and holds for what is below it, so that a name costs one round
//! trip there, too.
//!
//! What S3 has listed may be listed, and so may what lies below: a denial there is a failure, of which
//! nothing is learned. So it is where a HEAD is answered with 404.

use std::num::NonZeroUsize;

use futures_util::{StreamExt as _, stream};
use lru::LruCache;
use tokio::time::Instant;

use super::key_space::{End, Span, just_behind};
use super::known::Place;
use super::names::looks_like_a_file;
use super::{Dir, Namespace, Node, PAGE, split};
use crate::request::Request;
use crate::s3::{Error, ObjectMeta};
use crate::sync::{Arc, lock};

/// Prefixes that are known to be listed. One is enough where all of the bucket may be.
const LISTED: usize = 1024;
/// HEADs side by side for the names of a directory, as LISTs of a large one are.
const SIDE_BY_SIDE: usize = 40;

/// The names of a stretch of a directory, as far as the user supplied them.
pub(super) struct Named {
    pub(super) nodes: Vec<Node>,
    pub(super) end: End,
    /// When S3 was asked about the oldest of it.
    pub(super) asked: Instant,
}

impl Namespace {
    /// Notes that S3 has just denied to list the directory `prefix`.
    pub fn note_denied(&self, prefix: &str) {
        let now = Instant::now();
        self.learn(&prefix.into(), |known, _| known.denied = Some(now));
    }

    /// Notes that S3 has listed the directory `prefix`, for as long as this is mounted.
    pub fn note_listed(&self, prefix: &str) {
        let mut directories = lock(&self.directories);
        if !self.is_any(prefix, |prefix| directories.listed.contains(prefix)) {
            directories.listed.put(Arc::from(prefix), ());
        }
    }

    /// Whether S3 has ever listed `dir`, or a directory above it.
    pub(super) fn was_listed(&self, dir: &Dir) -> bool {
        let directories = lock(&self.directories);
        self.is_any(&dir.prefix, |prefix| directories.listed.contains(prefix))
    }

    /// Whether S3 has denied to list `dir` lately, or a directory above it, and never listed one of them.
    pub(super) fn is_denied(&self, dir: &Dir) -> bool {
        self.is_any(&dir.prefix, |prefix| self.was_just_denied(prefix)) && !self.was_listed(dir)
    }

    /// The same of `dir` alone: where a directory above it was denied, it may be listed all the same.
    pub(super) fn is_itself_denied(&self, dir: &Dir) -> bool {
        self.was_just_denied(&dir.prefix) && !self.was_listed(dir)
    }

    fn was_just_denied(&self, prefix: &str) -> bool {
        let directories = lock(&self.directories);
        let denied = directories.known.peek(prefix).and_then(|dir| dir.denied);
        denied.is_some_and(self.believed())
    }

    /// Whether `is` is true of the directory `prefix`, or of one above it.
    fn is_any(&self, prefix: &str, is: impl Fn(&str) -> bool) -> bool {
        let root = self.root().len();
        let mut all = std::iter::successors(Some(prefix), |&prefix| {
            (prefix.len() > root).then(|| split(prefix).0)
        });
        all.any(is)
    }

    /// Whether the user supplied names in `dir`.
    pub(super) fn has_names(&self, dir: &Dir) -> bool {
        self.keys.has_below(&dir.prefix)
    }

    /// Asks S3 about `name` by HEAD. A 403 is a directory, unless the name looks like a file's, or the
    /// user's list, which names the directories that there are, has others there. Until one request of
    /// these credentials has succeeded in the bucket, a 403 for a file may be about the credentials.
    /// No answer is that S3 says what is missing, which it does to those who may list the bucket.
    pub(super) async fn ask_without_listing(
        &self,
        dir: &Dir,
        name: &str,
        request: &Request,
    ) -> Result<Option<Place>, Error> {
        let asked = Instant::now();
        let key = format!("{}{name}", dir.prefix);
        let (meta, is_directory) = if self.keys.has_below(&format!("{key}/")) {
            (None, true)
        } else {
            let may_be_directory = !looks_like_a_file(name) && !self.has_names(dir);
            match self.s3.head(&key, request).await {
                Ok(meta) => (Some(meta), false),
                Err(Error::NotFound) => return Ok(None),
                Err(error @ Error::AccessDenied(_))
                    if self.was_listed(dir) || self.keys.holds(&key) =>
                {
                    return Err(error);
                }
                Err(Error::AccessDenied(_)) if may_be_directory => (None, true),
                Err(Error::AccessDenied(_)) if self.s3.is_proven() => (None, false),
                Err(error) => return Err(error),
            }
        };
        let file = self.learn_file(dir, name, meta, asked);
        let directory = self.learn_directory(dir, name, is_directory, asked);
        Ok(Some(Place {
            file: Some((file, asked)),
            directory: Some((directory, asked)),
        }))
    }

    /// The next names that the user supplied in `dir`, from the place `from` on: as many as S3 would
    /// list. Sizes and versions come from S3, side by side; names that S3 has not, or denies though it never
    /// listed them, are left out.
    pub(super) async fn named(
        &self,
        dir: &Dir,
        from: &[u8],
        request: &Request,
    ) -> Result<Named, Error> {
        let mut places = self.keys.places(&dir.prefix, from);
        let page: Vec<String> = places.by_ref().take(PAGE).map(str::to_owned).collect();
        let end = page.last().filter(|_| places.next().is_some());
        let heads: Vec<_> = page
            .iter()
            .cloned()
            .map(|at| self.head_of(dir, at, request))
            .collect();
        let mut heads = stream::iter(heads).buffered(SIDE_BY_SIDE);
        let mut named = Named {
            nodes: Vec::with_capacity(page.len()),
            end: end.map(|last| just_behind(last).into_boxed_slice()),
            asked: Instant::now(),
        };
        let mut failed = None;
        // Numbers are given in the order of the names, not of the answers. All that comes is learned, as it
        // comes: where one fails, or the time is over, who asks again goes on from there.
        for at in &page {
            let Some(found) = heads.next().await else {
                break;
            };
            match found {
                Ok(found) => {
                    let (node, asked) = self.learn_found(dir, at, found, named.asked);
                    named.asked = named.asked.min(asked);
                    named.nodes.extend(node);
                }
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            None => Ok(named),
            Some(error) => Err(error),
        }
    }

    /// Notes what was found at a supplied place, a directory at `asked`.
    fn learn_found(
        &self,
        dir: &Dir,
        at: &str,
        found: Found,
        asked: Instant,
    ) -> (Option<Node>, Instant) {
        match found {
            Found::Known(node, asked) => (node, asked),
            Found::Directory => {
                let name = at.trim_end_matches('/');
                (self.learn_directory(dir, name, true, asked), asked)
            }
            Found::Head(meta, asked) => (self.learn_file(dir, at, meta, asked), asked),
        }
    }

    /// What stands at a supplied place.
    async fn head_of(&self, dir: &Dir, at: String, request: &Request) -> Result<Found, Error> {
        if at.ends_with('/') {
            return Ok(Found::Directory);
        }
        if let Some((node, asked)) = self.place(dir, &at, self.believed()).file {
            return Ok(Found::Known(node, asked));
        }
        let asked = Instant::now();
        let key = format!("{}{at}", dir.prefix);
        match self.s3.head(&key, request).await {
            Ok(meta) => Ok(Found::Head(Some(meta), asked)),
            Err(error @ Error::AccessDenied(_)) if self.was_listed(dir) => Err(error),
            Err(error @ (Error::NotFound | Error::AccessDenied(_))) => {
                tracing::warn!(key, "a key of the list (--keys) is left out: {error}");
                Ok(Found::Head(None, asked))
            }
            Err(error) => Err(error),
        }
    }

    /// Notes what HEAD said of the file `name`.
    fn learn_file(
        &self,
        dir: &Dir,
        name: &str,
        meta: Option<ObjectMeta>,
        asked: Instant,
    ) -> Option<Node> {
        let key = format!("{}{name}", dir.prefix);
        self.learn(&dir.prefix, |known, inodes| {
            let file = meta.map(|meta| known.version(inodes, &key, meta));
            known.learn(Span::point(name), asked, Vec::from_iter(file.clone()));
            file
        })
    }
}

/// None listed yet.
pub(super) fn no_prefixes() -> LruCache<Arc<str>, ()> {
    LruCache::new(NonZeroUsize::new(LISTED).expect("not zero"))
}

/// What is found out about a supplied place.
enum Found {
    Known(Option<Node>, Instant),
    Directory,
    Head(Option<ObjectMeta>, Instant),
}
