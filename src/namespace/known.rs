//! What is known of one directory: intervals of key space, each with what was found in it.
//!
//! An interval says when S3 was asked about all places in it ([`key_space`](super::key_space)), and what stood
//! there; nothing else did. Intervals are half open, disjoint, and newer ones take the place of older ones, in
//! whatever order they come: a page that was fetched ahead of a reader is learned when he takes it.

use std::collections::BTreeMap;
use std::ops::Bound;

use tokio::time::Instant;

use super::guess::Habit;
use super::key_space::{End, Span, Way};
use super::{Dir, Inodes, Node};
use crate::s3::{ObjectMeta, ObjectVersion};
use crate::sync::{Arc, AtomicU64, Ordering};

/// What is known about one name: of the file, and of the directory of that name. The outer option is
/// whether it is known, the inner whether it exists.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) file: Option<(Option<Node>, Instant)>,
    pub(super) directory: Option<(Option<Node>, Instant)>,
}

impl Place {
    /// What the name stands for, if that is known, and since when. A directory hides a file.
    pub(super) fn decided(&self) -> Option<(Option<Node>, Instant)> {
        match (&self.directory, &self.file) {
            (Some((Some(dir), asked)), _) => Some((Some(dir.clone()), *asked)),
            (Some((None, asked)), Some((file, file_asked))) => {
                Some((file.clone(), *asked.min(file_asked)))
            }
            _ => None,
        }
    }
}

/// What stood in a stretch of key space when S3 was asked.
#[derive(Debug)]
struct Interval {
    end: End,
    asked: Instant,
    /// In the order of their places.
    nodes: Vec<Node>,
}

/// Known places without a gap.
#[derive(Debug)]
pub(super) struct Run {
    /// In the order of their places.
    pub(super) nodes: Vec<Node>,
    pub(super) end: End,
    /// When S3 was asked about the oldest of it.
    pub(super) asked: Instant,
    pub(super) revision: Revision,
}

/// A state of a directory's knowledge: all that is learned or forgotten makes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision(u64);

impl Revision {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

#[derive(Debug)]
pub(super) struct Directory {
    prefix: Arc<str>,
    /// What was asked up to then is to be forgotten.
    forgotten: Option<Instant>,
    revision: Revision,
    pub(super) habit: Habit,
    /// When S3 denied to list it last.
    pub(super) denied: Option<Instant>,
    /// By start.
    intervals: BTreeMap<Box<[u8]>, Interval>,
    bytes: u64,
}

/// What a directory costs of which nothing is known: this, and its place in the table.
const EMPTY_BYTES: u64 = 300;
/// What an interval costs beside the bytes of its bounds: tree node, vector, allocations.
const INTERVAL_BYTES: u64 = 200;
/// What a file costs beside its key: version with its ETag, reference counts, allocations.
const FILE_BYTES: u64 = 160;
/// What a directory costs beside its prefix.
const DIRECTORY_BYTES: u64 = 80;

impl Directory {
    /// Of which nothing is known, and nothing will be that was asked up to `forgotten`.
    pub(super) fn new(prefix: Arc<str>, forgotten: Option<Instant>) -> Self {
        let bytes = EMPTY_BYTES + prefix.len() as u64;
        Self {
            prefix,
            forgotten,
            revision: Revision::next(),
            habit: Habit::default(),
            denied: None,
            intervals: BTreeMap::new(),
            bytes,
        }
    }

    /// Bytes that this takes, about.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing is known of its names.
    pub(super) fn is_blank(&self) -> bool {
        self.intervals.is_empty()
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// The interval that `at` falls into.
    fn interval(&self, at: &[u8]) -> Option<&Interval> {
        let up_to = (Bound::Unbounded, Bound::Included(at));
        let (_, interval) = self.intervals.range::<[u8], _>(up_to).next_back()?;
        let within = interval.end.as_deref().is_none_or(|end| at < end);
        within.then_some(interval)
    }

    fn place_of<'a>(&self, node: &'a Node) -> &'a [u8] {
        &node.path().as_bytes()[self.prefix.len()..]
    }

    /// How many of `nodes` stand before `at`.
    fn before(&self, nodes: &[Node], at: &[u8]) -> usize {
        nodes.partition_point(|node| self.place_of(node) < at)
    }

    fn node<'a>(&self, interval: &'a Interval, at: &[u8]) -> Option<&'a Node> {
        let found = interval.nodes.get(self.before(&interval.nodes, at))?;
        (self.place_of(found) == at).then_some(found)
    }

    /// When all of the directory was asked about, at the earliest; none if some of it was not.
    pub(super) fn whole(&self) -> Option<Instant> {
        let mut oldest: Option<Instant> = None;
        let mut reached: Option<&[u8]> = Some(b"");
        for (start, interval) in &self.intervals {
            if reached.is_none_or(|reached| **start > *reached) {
                return None;
            }
            let asked = interval.asked;
            oldest = Some(oldest.map_or(asked, |oldest| oldest.min(asked)));
            reached = interval.end.as_deref();
        }
        match reached {
            None => oldest,
            Some(_) => None,
        }
    }

    /// What is known of `name`, of what `believed` accepts.
    pub(super) fn place(&self, name: &str, believed: impl Fn(Instant) -> bool) -> Place {
        let known = |at: &[u8]| {
            let interval = self.interval(at).filter(|found| believed(found.asked))?;
            Some((self.node(interval, at).cloned(), interval.asked))
        };
        let mut at = name.as_bytes().to_vec();
        let file = known(&at);
        at.push(b'/');
        Place {
            file,
            directory: known(&at),
        }
    }

    /// What is known from the place `from` on, of what `believed` accepts: up to the end of the
    /// directory, or at least `enough` names.
    pub(super) fn run(
        &self,
        from: &[u8],
        enough: usize,
        believed: impl Fn(Instant) -> bool,
    ) -> Option<Run> {
        let mut run: Option<Run> = None;
        let mut at: Box<[u8]> = from.into();
        loop {
            let interval = self.interval(&at).filter(|found| believed(found.asked))?;
            let run = run.get_or_insert_with(|| Run {
                nodes: Vec::new(),
                end: None,
                asked: interval.asked,
                revision: self.revision,
            });
            run.asked = run.asked.min(interval.asked);
            let behind = &interval.nodes[self.before(&interval.nodes, &at)..];
            run.nodes.extend_from_slice(behind);
            run.end.clone_from(&interval.end);
            match &interval.end {
                Some(end) if run.nodes.len() < enough => at = end.clone(),
                _ => break,
            }
        }
        run
    }

    /// The version `meta` of `key`, with the number that it already has, if it has one.
    pub(super) fn version(&self, inodes: &Inodes, key: &str, meta: ObjectMeta) -> Node {
        let at = &key.as_bytes()[self.prefix.len()..];
        let known = self.interval(at).and_then(|found| self.node(found, at));
        match known {
            Some(Node::File(known)) if known.meta == meta => Node::File(Arc::clone(known)),
            _ => Node::File(inodes.version(key, meta)),
        }
    }

    /// The directory `prefix`, with the number that it already has, if it has one.
    pub(super) fn directory(&self, inodes: &Inodes, prefix: &str) -> Node {
        let at = &prefix.as_bytes()[self.prefix.len()..];
        let known = self.interval(at).and_then(|found| self.node(found, at));
        match known {
            Some(Node::Directory(known)) => Node::Directory(Arc::clone(known)),
            _ => Node::Directory(inodes.directory(prefix)),
        }
    }

    /// Notes that S3, asked at `asked`, has `nodes` in `span`, in this order, and nothing else. What was asked
    /// later stays as it is known. Returns whether nothing was.
    pub(super) fn learn(&mut self, span: Span, asked: Instant, mut nodes: Vec<Node>) -> bool {
        if self.forgotten.is_some_and(|forgotten| asked <= forgotten) {
            return false;
        }
        let newer = self.newer(&span, asked);
        let is_newest = newer.is_empty();
        let Span { start, mut end } = span;
        for (newer_start, newer_end) in newer {
            if let Some(newer_end) = newer_end {
                let behind = nodes.split_off(self.before(&nodes, &newer_end));
                let start = newer_end.into();
                self.replace(Span { start, end }, asked, behind);
            }
            nodes.truncate(self.before(&nodes, &newer_start));
            end = Some(newer_start.into());
        }
        self.replace(Span { start, end }, asked, nodes);
        is_newest
    }

    /// Bounds of the intervals in `span` that were asked after `asked`, from the last to the first.
    fn newer(&self, span: &Span, asked: Instant) -> Vec<(Box<[u8]>, End)> {
        let within = self.within(span).filter(|(_, found)| found.asked > asked);
        let bounds = within.map(|(start, found)| (start.clone(), found.end.clone()));
        bounds.collect()
    }

    /// Puts an interval in the place of whatever is known in `span`.
    fn replace(&mut self, span: Span, asked: Instant, nodes: Vec<Node>) {
        // As of a page that brings nothing new: no interval is empty.
        if span.end.as_ref().is_some_and(|end| *end <= span.start) {
            return;
        }
        self.cut(&span);
        let interval = Interval {
            end: span.end.map(Vec::into_boxed_slice),
            asked,
            nodes,
        };
        self.put(span.start.into(), interval);
    }

    /// Forgets whatever is known of `name`.
    pub(super) fn forget(&mut self, name: &str) {
        self.cut(&Span::point(name));
    }

    /// How many files and how many directories are known.
    pub(super) fn count(&self) -> (usize, usize) {
        let nodes = self.intervals.values().flat_map(|found| &found.nodes);
        let (mut files, mut all) = (0, 0);
        for node in nodes {
            files += usize::from(matches!(node, Node::File(_)));
            all += 1;
        }
        (files, all - files)
    }

    /// The first known directory behind the place `at` this way, and those that follow it.
    pub(super) fn directories_from(&self, at: &[u8], way: Way) -> impl Iterator<Item = &Arc<Dir>> {
        self.nodes_from(at, way).filter_map(|node| match node {
            Node::Directory(dir) => Some(dir),
            Node::File(_) => None,
        })
    }

    /// The same of files.
    pub(super) fn files_from(
        &self,
        at: &[u8],
        way: Way,
    ) -> impl Iterator<Item = &Arc<ObjectVersion>> {
        self.nodes_from(at, way).filter_map(|node| match node {
            Node::File(version) => Some(version),
            Node::Directory(_) => None,
        })
    }

    fn nodes_from(&self, at: &[u8], way: Way) -> Box<dyn Iterator<Item = &Node> + '_> {
        match way {
            Way::Forward => Box::new(self.behind(at)),
            Way::Back => Box::new(self.back_from(at)),
        }
    }

    /// What stands before the place `at`, as far as it is known, from there on.
    fn back_from(&self, at: &[u8]) -> impl Iterator<Item = &Node> + use<'_> {
        let at = at.to_vec();
        let up_to = (Bound::Unbounded, Bound::Included(at.as_slice()));
        let intervals = self.intervals.range::<[u8], _>(up_to).rev();
        intervals.flat_map(move |(_, interval)| {
            let before = self.before(&interval.nodes, &at);
            interval.nodes[..before].iter().rev()
        })
    }

    /// What stands behind the place `at`, as far as it is known.
    fn behind(&self, at: &[u8]) -> impl Iterator<Item = &Node> + use<'_> {
        let within = self.interval(at).map_or(&[][..], |interval| {
            &interval.nodes[self.before(&interval.nodes, at)..]
        });
        let later = (Bound::Excluded(at), Bound::Unbounded);
        let later = self.intervals.range::<[u8], _>(later);
        let later = later.flat_map(|(_, interval)| &interval.nodes);
        let at = at.to_vec();
        let nodes = within.iter().chain(later);
        nodes.filter(move |node| self.place_of(node) > at.as_slice())
    }

    fn cost(start: &[u8], interval: &Interval) -> u64 {
        let one = |node: &Node| match node {
            Node::File(version) => FILE_BYTES + version.key.len() as u64,
            Node::Directory(dir) => DIRECTORY_BYTES + dir.prefix.len() as u64,
        };
        let bounds = start.len() + interval.end.as_ref().map_or(0, |end| end.len());
        INTERVAL_BYTES + bounds as u64 + interval.nodes.iter().map(one).sum::<u64>()
    }

    fn put(&mut self, start: Box<[u8]>, interval: Interval) {
        self.bytes += Self::cost(&start, &interval);
        self.intervals.insert(start, interval);
    }

    /// The intervals that have a part in `span`, from the last to the first.
    fn within(&self, span: &Span) -> impl Iterator<Item = (&Box<[u8]>, &Interval)> {
        let before_end = match &span.end {
            Some(end) => Bound::Excluded(end.as_slice()),
            None => Bound::Unbounded,
        };
        let before_end = (Bound::Unbounded, before_end);
        let intervals = self.intervals.range::<[u8], _>(before_end).rev();
        let start = span.start.as_slice();
        intervals.take_while(move |(_, found)| found.end.as_deref().is_none_or(|end| end > start))
    }

    /// Takes `span` out of the intervals.
    fn cut(&mut self, span: &Span) {
        self.revision = Revision::next();
        let touched: Vec<Box<[u8]>> = self.within(span).map(|(start, _)| start.clone()).collect();
        for start in touched {
            let Some(mut interval) = self.intervals.remove(&start) else {
                continue;
            };
            self.bytes -= Self::cost(&start, &interval);
            if let Some(span_end) = &span.end
                && interval
                    .end
                    .as_deref()
                    .is_none_or(|end| end > span_end.as_slice())
            {
                let behind = self.before(&interval.nodes, span_end);
                let behind = Interval {
                    end: interval.end.take(),
                    asked: interval.asked,
                    nodes: interval.nodes.split_off(behind),
                };
                self.put(span_end.clone().into(), behind);
            }
            if *start < *span.start {
                let left = self.before(&interval.nodes, &span.start);
                interval.nodes.truncate(left);
                interval.end = Some(span.start.clone().into());
                self.put(start, interval);
            }
        }
    }
}

#[cfg(any(test, fuzzing))]
impl Directory {
    /// Fails unless all that the rest relies on holds.
    pub(super) fn check_sound(&self) {
        let mut reached: End = Some(Box::default());
        for (start, interval) in &self.intervals {
            let before = reached
                .as_ref()
                .expect("nothing lies behind an interval without end");
            assert!(before <= start, "intervals that overlap");
            let end = interval.end.as_deref();
            assert!(
                end.is_none_or(|end| **start < *end),
                "an interval that holds nothing"
            );
            let places = || interval.nodes.iter().map(|node| self.place_of(node));
            assert!(places().is_sorted_by(|a, b| a < b), "names out of order");
            assert!(places().all(|at| *at >= **start && end.is_none_or(|end| at < end)));
            reached.clone_from(&interval.end);
        }
        let nodes = self.intervals.values().flat_map(|interval| &interval.nodes);
        for node in nodes {
            let (prefix, name) = super::split(node.path());
            assert_eq!(*prefix, *self.prefix, "{node:?}");
            let is_directory = matches!(node, Node::Directory(_));
            assert_eq!(node.path().ends_with('/'), is_directory, "{node:?}");
            assert!(
                super::names::is_sayable(name.trim_end_matches('/')),
                "{node:?}"
            );
        }
        let intervals = self.intervals.iter();
        let intervals = intervals.map(|(start, found)| Self::cost(start, found));
        let bytes = EMPTY_BYTES + self.prefix.len() as u64 + intervals.sum::<u64>();
        assert_eq!(bytes, self.bytes);
    }
}

#[cfg(test)]
#[path = "known_tests.rs"]
mod tests;
