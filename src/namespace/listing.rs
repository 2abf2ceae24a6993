//! Listing a directory, a page at a time.
//!
//! S3 lists the file `x` as `x` and the directory `x` as `x/`, with every `x-...` between them. A
//! file at the end of a page is held back until the listing has passed `x/`, because a directory hides
//! a file of the same name.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::key_space::{End, Span, just_behind};
use super::known::Revision;
use super::names::{is_sayable, warn_of_left_out};
use super::ranges::{Listed, Ranges, keys_of};
use super::{Dir, Namespace, Node};
use crate::request::Request;
use crate::s3::{Error, ObjectMeta, Page};
use crate::sync::Arc;

/// One name of a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What the name stands for.
    pub node: Node,
    /// When S3 was asked.
    asked: Instant,
}

impl Entry {
    /// The last component.
    pub fn name(&self) -> &str {
        let path = self.node.path().trim_end_matches('/');
        path.rsplit_once('/').map_or(path, |(_, name)| name)
    }
}

/// A place at which a listing can begin again.
#[derive(Clone, Debug)]
pub struct Mark(End);

/// Of which state of a directory's knowledge a listing is, so far.
#[derive(Clone, Copy, Debug)]
enum Stands {
    /// Nothing was listed.
    ForAny,
    For(Revision),
    /// What comes now does not belong to what came before.
    ForNone,
}

/// What came of learning a page.
pub(super) struct Learned {
    /// What a path can name.
    pub(super) nodes: Vec<Node>,
    /// How many names no path can say.
    pub(super) left_out: usize,
    was: Revision,
    is: Revision,
}

/// A listing under way.
#[derive(Debug)]
pub struct Listing {
    dir: Arc<Dir>,
    /// Where in key space the next entries begin; none at the end.
    reached: End,
    /// The rest, once S3 is asked for it.
    ranges: Option<Ranges>,
    /// S3 denies to list it, and the user supplies its names.
    is_named: bool,
    /// What is known goes on, though it may not be believed any more.
    is_as_known: bool,
    /// Files whose name a directory further on may have.
    held: Vec<Entry>,
    /// Names that were left out, because no path can say them.
    unsayable: usize,
    stands: Stands,
}

impl Listing {
    pub(super) fn new(dir: Arc<Dir>) -> Self {
        Self::from_mark(dir, Mark(Some(Box::default())))
    }

    pub(super) fn from_mark(dir: Arc<Dir>, mark: Mark) -> Self {
        Self {
            dir,
            reached: mark.0,
            ranges: None,
            is_named: false,
            is_as_known: false,
            held: Vec::new(),
            unsayable: 0,
            stands: Stands::ForAny,
        }
    }

    /// The state of the directory that all is of which was listed, if it is one state.
    pub fn revision(&self) -> Option<Revision> {
        match self.stands {
            Stands::For(revision) => Some(revision),
            Stands::ForAny | Stands::ForNone => None,
        }
    }

    /// Notes that the next entries were found where `was` was known, and `is` is known now.
    fn stand(&mut self, was: Revision, is: Revision) {
        self.stands = match self.stands {
            Stands::ForAny => Stands::For(is),
            Stands::For(before) if before == was => Stands::For(is),
            Stands::For(_) | Stands::ForNone => Stands::ForNone,
        };
    }

    /// From here on, it is the rest of a listing that was true when it began.
    pub fn go_on_as_known(&mut self) {
        self.is_as_known = true;
    }

    /// Whether there are no more entries.
    pub fn is_over(&self) -> bool {
        self.reached.is_none()
    }

    /// Where the next entries begin; none while a file before that is held back.
    pub fn mark(&self) -> Option<Mark> {
        self.held.is_empty().then(|| Mark(self.reached.clone()))
    }

    /// The next entries, in key order but for files that were held back; `None` at the end. After an
    /// error the same page is asked for again. What memory knows is not asked for, unless it is no
    /// more than a few names.
    ///
    /// # Errors
    /// As S3 says.
    pub async fn next(
        &mut self,
        namespace: &Arc<Namespace>,
        request: &Request,
    ) -> Result<Option<Vec<Entry>>, Error> {
        let Some(from) = self.reached.clone() else {
            return Ok(None);
        };
        if from.is_empty() {
            namespace.entered(&self.dir, request);
        }
        self.is_named |= self.ranges.is_none()
            && namespace.is_itself_denied(&self.dir)
            && namespace.has_names(&self.dir);
        if self.is_named {
            return self.next_named(namespace, &from, request).await.map(Some);
        }
        if self.ranges.is_none()
            && let Some(entries) = self.next_known(namespace, &from).await
        {
            return Ok(Some(entries));
        }
        self.next_asked(namespace, from, request).await.map(Some)
    }

    /// The next entries, if memory has them, or gets them from a listing ahead.
    async fn next_known(&mut self, namespace: &Arc<Namespace>, from: &[u8]) -> Option<Vec<Entry>> {
        let run = match namespace.known_run(&self.dir, from, self.is_as_known) {
            Some(run) => run,
            None => {
                namespace.listed_ahead(&self.dir).await;
                namespace.known_run(&self.dir, from, false)?
            }
        };
        self.stand(run.revision, run.revision);
        self.reached = run.end;
        Some(self.entries(run.nodes, run.asked))
    }

    /// The next entries, as S3 lists them.
    async fn next_asked(
        &mut self,
        namespace: &Arc<Namespace>,
        from: Box<[u8]>,
        request: &Request,
    ) -> Result<Vec<Entry>, Error> {
        let is_new = self.ranges.is_none();
        let ranges = self.ranges.get_or_insert_with(|| {
            let (s3, prefix) = (Arc::clone(&namespace.s3), Arc::clone(&self.dir.prefix));
            Ranges::new(s3, prefix, before(&from))
        });
        let Listed {
            mut keys,
            end,
            asked,
        } = match ranges.next(request).await {
            Ok(listed) => listed,
            Err(error) if error.is_denial() => {
                namespace.note_denied(&self.dir.prefix);
                if !is_new || !namespace.has_names(&self.dir) {
                    return Err(error);
                }
                self.ranges = None;
                self.is_named = true;
                return self.next_named(namespace, &from, request).await;
            }
            Err(error) => return Err(error),
        };
        if is_new {
            namespace.note_listed(&self.dir.prefix);
        }
        // A listing that begins inside a common prefix begins with that prefix.
        let behind = self.dir.prefix.len();
        keys.retain(|(key, _)| key.as_bytes()[behind..] >= *from);
        // All of it may lie before the place that was asked for.
        let end = end.map(|end| end.max(from.clone()));
        let span = Span {
            start: from.into(),
            end: end.clone().map(Into::into),
        };
        let learned = namespace.learn_keys(&self.dir.prefix, span, asked, keys);
        self.stand(learned.was, learned.is);
        self.unsayable += learned.left_out;
        self.reached = end;
        let entries = self.entries(learned.nodes, asked);
        if self.reached.is_none() {
            warn_of_left_out(&self.dir.prefix, self.unsayable);
        }
        Ok(entries)
    }

    /// The next entries, by the user's list of keys.
    async fn next_named(
        &mut self,
        namespace: &Arc<Namespace>,
        from: &[u8],
        request: &Request,
    ) -> Result<Vec<Entry>, Error> {
        let named = namespace.named(&self.dir, from, request).await?;
        self.stands = Stands::ForNone;
        self.reached = named.end;
        Ok(self.entries(named.nodes, named.asked))
    }

    /// The entries that are certain now that the listing has come to `reached`.
    fn entries(&mut self, nodes: Vec<Node>, asked: Instant) -> Vec<Entry> {
        let directories: HashSet<Arc<str>> = nodes
            .iter()
            .filter_map(|node| match node {
                Node::File(_) => None,
                Node::Directory(dir) => Some(Arc::clone(&dir.prefix)),
            })
            .collect();
        let files = std::mem::take(&mut self.held);
        let held_before = files.len();
        let new = nodes.into_iter().map(|node| Entry { node, asked });
        let mut entries = Vec::with_capacity(new.len() + held_before);
        for entry in files.into_iter().chain(new) {
            let Node::File(version) = &entry.node else {
                entries.push(entry);
                continue;
            };
            let as_directory = format!("{}/", version.key);
            if directories.contains(as_directory.as_str()) {
                continue;
            }
            let at = &as_directory.as_bytes()[self.dir.prefix.len()..];
            if self.reached.as_deref().is_none_or(|reached| at < reached) {
                entries.push(entry);
            } else {
                self.held.push(entry);
            }
        }
        entries.sort_by(|a, b| a.node.path().cmp(b.node.path()));
        entries
    }
}
impl Namespace {
    /// Notes that S3, asked at `asked`, has `keys` in `span` of the directory `prefix`, in this order,
    /// directories with their final `/`, and nothing else.
    pub(super) fn learn_keys(
        &self,
        prefix: &Arc<str>,
        span: Span,
        asked: Instant,
        mut keys: Vec<(String, Option<ObjectMeta>)>,
    ) -> Learned {
        let behind = prefix.len();
        // The empty place is the directory's own marker.
        keys.retain(|(key, meta)| !(key.len() == behind && meta.is_some()));
        let all = keys.len();
        keys.retain(|(key, _)| {
            let place = &key[behind..];
            is_sayable(place.strip_suffix('/').unwrap_or(place))
        });
        let left_out = all - keys.len();
        // Inodes are numbered in this order, so that tools that sort by them read as S3 lists.
        self.learn(prefix, |known, inodes| {
            let was = known.revision();
            let nodes = keys.into_iter().map(|(key, meta)| match meta {
                Some(meta) => known.version(inodes, &key, meta),
                None => known.directory(inodes, &key),
            });
            let nodes: Vec<Node> = nodes.collect();
            let is = match known.learn(span, asked, nodes.clone()) {
                true => known.revision(),
                // It is known otherwise by now.
                false => Revision::next(),
            };
            Learned {
                nodes,
                left_out,
                was,
                is,
            }
        })
    }

    /// Notes a page of `dir`, from its beginning or behind a key. Returns the place where it ends, if that
    /// is not the end of the directory.
    pub(super) fn learn_page(
        &self,
        dir: &Dir,
        after: Option<&str>,
        page: Page,
        asked: Instant,
    ) -> Option<Vec<u8>> {
        self.note_listed(&dir.prefix);
        let behind = dir.prefix.len();
        let end = page
            .breaks_off_at()
            .map(|last| just_behind(&last[behind..]));
        let span = Span {
            start: after.map_or_else(Vec::new, |after| just_behind(&after[behind..])),
            end: end.clone(),
        };
        let learned = self.learn_keys(&dir.prefix, span, asked, keys_of(page));
        warn_of_left_out(&dir.prefix, learned.left_out);
        end
    }

    /// For how long an entry may be believed.
    pub fn entry_fresh_for(&self, entry: &Entry) -> Duration {
        self.fresh_for(entry.asked)
    }
}

/// A place behind which all places from `from` on lie, and few others.
pub(super) fn before(from: &[u8]) -> String {
    let Some((last, head)) = from.split_last() else {
        return String::new();
    };
    match (std::str::from_utf8(head), last) {
        (Ok(head), 0) => head.to_owned(),
        // Where the keys with a prefix end: behind the last of them.
        (Ok(head), 1..=127) => format!("{head}{}\u{10FFFF}", char::from(last - 1)),
        (Ok(head), _) => head.to_owned(),
        (Err(error), _) => String::from_utf8_lossy(&head[..error.valid_up_to()]).into_owned(),
    }
}
