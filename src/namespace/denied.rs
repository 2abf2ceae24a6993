//! Where LIST is denied: what HEAD tells of a name, and which names the user supplies.
//!
//! S3 answers a HEAD with 200 for a file, and with 403 for all that is missing. Whether a directory may
//! be listed is remembered for the TTL and holds for what is below it until that is known better, so
//! that a name costs one round trip there, too.

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use super::key_space::{End, Span, just_behind};
use super::known::Place;
use super::names::looks_like_a_file;
use super::{Dir, Namespace, Node, PAGE, split};
use crate::request::Request;
use crate::s3::{Error, ObjectMeta};

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
    /// Notes that S3 has just listed the directory `prefix`, or denied it.
    pub fn note_denied(&self, prefix: &str, is_denied: bool) {
        let denied = (is_denied, Instant::now());
        self.learn(&prefix.into(), |known, _| known.denied = Some(denied));
    }

    /// Whether S3 has denied to list `dir` lately, or the nearest directory above it of which it is
    /// known.
    pub(super) fn is_denied(&self, dir: &Dir) -> bool {
        let believed = self.believed();
        let directories = crate::sync::lock(&self.directories);
        let mut prefix = &*dir.prefix;
        loop {
            let known = directories.known.peek(prefix);
            match known.and_then(|known| known.denied) {
                Some((is_denied, asked)) if believed(asked) => return is_denied,
                _ if prefix.len() <= self.root().len() => return false,
                _ => prefix = split(prefix).0,
            }
        }
    }

    /// Whether the user supplied names in `dir`.
    pub(super) fn has_names(&self, dir: &Dir) -> bool {
        self.keys.has_below(&dir.prefix)
    }

    /// Asks S3 about `name` by HEAD. A 403 is a directory, unless the name looks like a file's, or the
    /// user's list, which names the directories that there are, has others there. Until one request of
    /// these credentials has succeeded in the bucket, a 403 for a file may be about the credentials.
    pub(super) async fn ask_without_listing(
        &self,
        dir: &Dir,
        name: &str,
        asked: Instant,
        request: &Request,
    ) -> Result<Place, Error> {
        let key = format!("{}{name}", dir.prefix);
        let (meta, is_directory) = if self.keys.has_below(&format!("{key}/")) {
            (None, true)
        } else {
            let may_be_directory = !looks_like_a_file(name) && !self.has_names(dir);
            match self.s3.head(&key, request).await {
                Ok(meta) => (Some(meta), false),
                Err(Error::NotFound) => (None, false),
                Err(error @ Error::AccessDenied(_)) if self.keys.holds(&key) => return Err(error),
                Err(Error::AccessDenied(_)) if may_be_directory => (None, true),
                Err(Error::AccessDenied(_)) if self.s3.is_proven() => (None, false),
                Err(error) => return Err(error),
            }
        };
        let file = self.learn_file(dir, name, meta, asked);
        let directory = self.learn_directory(dir, name, is_directory, asked);
        Ok(Place {
            file: Some((file, asked)),
            directory: Some((directory, asked)),
        })
    }

    /// The next names that the user supplied in `dir`, from the place `from` on: as many as S3 would
    /// list. Sizes and versions come from S3, side by side; names that S3 has not, or denies, are left
    /// out.
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
        let heads: Vec<_> = stream::iter(heads).buffered(SIDE_BY_SIDE).collect().await;
        let mut named = Named {
            nodes: Vec::with_capacity(page.len()),
            end: end.map(|last| just_behind(last).into_boxed_slice()),
            asked: Instant::now(),
        };
        // Numbers are given in the order of the names, not of the answers.
        for (at, found) in page.iter().zip(heads) {
            let (node, asked) = match found? {
                Found::Known(node, asked) => (node, asked),
                Found::Directory => {
                    let name = at.trim_end_matches('/');
                    (
                        self.learn_directory(dir, name, true, named.asked),
                        named.asked,
                    )
                }
                Found::Head(meta, asked) => (self.learn_file(dir, at, meta, asked), asked),
            };
            named.asked = named.asked.min(asked);
            named.nodes.extend(node);
        }
        Ok(named)
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

/// What is found out about a supplied place.
enum Found {
    Known(Option<Node>, Instant),
    Directory,
    Head(Option<ObjectMeta>, Instant),
}
