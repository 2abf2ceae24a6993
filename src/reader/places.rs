//! Places: where files of like names are read.
//!
//! The files of a collection are written by one program, and a job reads each of them alike: the same box
//! of each day, the attributes of each granule. What two of them were read at is fetched of the next one
//! along with its first bytes, in one round trip instead of one for each place; [`Reader::fetch_start`] does
//! so before it is opened. Files of like names are those whose keys differ in digits only, also where each day
//! has a directory of its own. Near the end of a file, where Parquet and zip have their table of contents, places
//! count from there. In files whose parts are compressed, the metadata mostly stays where it is, and the data
//! does not: places where only one file was read are forgotten again. Collections whose files come whole all the
//! same, as readers of each wait too often elsewhere, are given up.
//!
//! [`Reader::fetch_start`]: super::Reader::fetch_start

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::{NonZeroU64, NonZeroUsize};

use lru::LruCache;

use super::credit::Credit;
use super::cursors::HEADER;
use crate::s3::{ByteRange, ObjectVersion};
use crate::sync::{Arc, Mutex, lock};

/// A place is so many bytes. With 25 ms to the first of them, the others cost nothing.
const PLACE: u64 = 16 << 10;
/// So much at the end of a file, and no more than this part of it, is known by its distance from there.
const TAIL: u64 = 256 << 10;
const TAIL_PART: u64 = 2;
/// Places with no more than this between them come with one request.
const GAP: u64 = 64 << 10;
/// Who reads more of a file than so many bytes, or than this part of it, reads on, or reads all of it.
const MOST: u64 = 16 << 20;
const MOST_PART: u64 = 2;
/// Nor may places of one file take more than this part of the memory.
const MOST_OF_MEMORY: u64 = 32;
/// Places that lie in more ranges than so many come sooner with the whole file.
const MOST_RANGES: usize = 128;
/// Collections that are remembered, those used last.
const COLLECTIONS: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");
/// Places of one that are remembered.
const REMEMBERED: usize = 4096;
/// What a place has is one for each file that was read there, up to a most, and each file that was not leaves
/// so much of it.
const MOST_HAD: f32 = 2.5;
const LEFT: f32 = 0.6;
/// With so much it is fetched: two files in a row were read there, or half of the latest.
const ENOUGH: f32 = 1.58;
/// With less it is forgotten.
const LEAST_HAD: f32 = 0.2;
/// Programs open a file more than once, to see what it is, and to read it: so many files that were closed
/// are still the same when they are opened again.
const CLOSED: usize = 16;
/// So many files closed are something to learn from.
const EVIDENCE: usize = 2;
/// A file that comes whole in spite of its places counts so much, one that does not one less ...
const IN_VAIN: u32 = 2;
/// ... with so much a collection is given up.
const GIVEN_UP: u32 = 4;

/// The collections that a mount knows, by their keys without digits.
#[derive(Debug)]
pub(super) struct Places {
    collections: Mutex<LruCache<Box<str>, Arc<Mutex<Collection>>>>,
    /// Bytes that places of one file may have.
    most: u64,
}

#[derive(Debug, Default)]
struct Collection {
    /// What each place has.
    places: BTreeMap<Place, f32>,
    /// Files that were closed last, by the number of the version, and what was foreseen of each.
    closed: VecDeque<(NonZeroU64, Vec<ByteRange>)>,
    in_vain: u32,
    /// Whether files that were begun to be fetched whole were still read then.
    wholes: Credit,
    /// Who reads so many places of a file is one of those for whom it came whole.
    much: usize,
}

/// The n-th from the start of a file, or from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    FromStart(u64),
    FromEnd(u64),
}

impl Place {
    /// Those that a read of a file of `size` bytes touches. The header has none, except where it is the end.
    fn all(read: ByteRange, size: u64) -> impl Iterator<Item = Self> {
        let tail = size - TAIL.min(size / TAIL_PART);
        let first = (read.start() / PLACE).max(HEADER / PLACE);
        let from_start = first..read.end().min(tail).div_ceil(PLACE);
        let last = size.saturating_sub(read.end()) / PLACE;
        let from_end = last..(size - read.start().max(tail)).div_ceil(PLACE);
        let from_end = from_end.filter(move |_| read.end() > tail);
        from_start
            .map(Self::FromStart)
            .chain(from_end.map(Self::FromEnd))
    }

    /// Of a file of `size` bytes, if that is long enough.
    fn range(self, size: u64) -> Option<ByteRange> {
        let (start, end) = match self {
            Self::FromStart(nth) => (nth * PLACE, (nth + 1) * PLACE),
            Self::FromEnd(nth) => (
                size.saturating_sub((nth + 1) * PLACE),
                size.saturating_sub(nth * PLACE),
            ),
        };
        ByteRange::new(start, end.min(size))
    }
}

/// One file, from its first read on.
#[derive(Debug)]
pub(super) struct Visit {
    collection: Arc<Mutex<Collection>>,
    number: NonZeroU64,
    /// Bytes.
    size: u64,
    /// Places that were read behind the header, and how many may be.
    read: BTreeSet<Place>,
    most: usize,
    /// What was foreseen, in order; whether there were others to learn from.
    expected: Vec<ByteRange>,
    is_informed: bool,
    /// So much of it was read by now that it comes whole.
    is_just_much: bool,
}

impl Places {
    /// None so far; blocks may take `memory_limit` bytes.
    pub(super) fn new(memory_limit: u64) -> Self {
        Self {
            collections: Mutex::new(LruCache::new(COLLECTIONS)),
            most: MOST.min(memory_limit / MOST_OF_MEMORY),
        }
    }

    /// Where `object` will be read behind its header, in order.
    pub(super) fn of(&self, object: &ObjectVersion) -> Vec<ByteRange> {
        let collection = self.collection(&object.key);
        lock(&collection).expected(object.meta.size, self.most)
    }

    /// Notes that `object` is read from now on.
    pub(super) fn visit(&self, object: &ObjectVersion) -> Visit {
        let shared = self.collection(&object.key);
        let size = object.meta.size;
        let collection = lock(&shared);
        let mut closed = collection.closed.iter();
        let again = closed.find(|(number, _)| *number == object.number);
        let expected = again.map_or_else(
            || collection.expected(size, self.most),
            |(_, same)| same.clone(),
        );
        let is_informed = collection.closed.len() >= EVIDENCE;
        drop(collection);
        let most = usize::try_from(MOST.min(size / MOST_PART) / PLACE).unwrap_or(usize::MAX);
        Visit {
            collection: shared,
            number: object.number,
            size,
            read: BTreeSet::new(),
            most,
            expected,
            is_informed,
            is_just_much: false,
        }
    }

    fn collection(&self, key: &str) -> Arc<Mutex<Collection>> {
        let name: String = key.chars().filter(|c| !c.is_ascii_digit()).collect();
        let mut collections = lock(&self.collections);
        Arc::clone(collections.get_or_insert(name.into(), Arc::default))
    }
}

impl Collection {
    fn is_given_up(&self) -> bool {
        self.in_vain >= GIVEN_UP
    }

    /// What the next file of `size` bytes will be read at: nothing, if that is more than `most` bytes.
    fn expected(&self, size: u64, most: u64) -> Vec<ByteRange> {
        // What comes whole is compared with S3's checksum; a part of it would not be.
        if self.is_given_up() || size <= HEADER {
            return Vec::new();
        }
        let read = self.places.iter().filter(|(_, has)| **has >= ENOUGH);
        let mut ranges: Vec<_> = read.filter_map(|(place, _)| place.range(size)).collect();
        ranges.sort_unstable_by_key(|range| range.start());
        ranges.dedup_by(|next, range| {
            let end = range.end().max(next.end());
            let is_near = next.start() <= range.end() + GAP;
            if let Some(both) = ByteRange::new(range.start(), end).filter(|_| is_near) {
                *range = both;
            }
            is_near
        });
        let bytes: u64 = ranges.iter().copied().map(ByteRange::len).sum();
        if ranges.len() > MOST_RANGES || bytes > most {
            ranges.clear();
        }
        ranges
    }

    fn read(&mut self, place: Place) {
        if self.places.len() < REMEMBERED || self.places.contains_key(&place) {
            *self.places.entry(place).or_default() += 1.0;
        }
    }

    /// Notes that a file was read at these places only.
    fn keep(&mut self, read: &BTreeSet<Place>) {
        self.places.retain(|place, has| {
            *has = match read.contains(place) {
                true => has.min(MOST_HAD),
                false => *has * LEFT,
            };
            *has >= LEAST_HAD
        });
    }

    /// The file is none that is read in places.
    fn take_back(&mut self, read: &BTreeSet<Place>) {
        for place in read {
            if let Some(has) = self.places.get_mut(place) {
                *has -= 1.0;
            }
        }
    }
}

impl Visit {
    /// Where the file will be read behind its header, in order.
    pub(super) fn expected(&self) -> &[ByteRange] {
        &self.expected
    }

    /// Notes a read. Whether it was foreseen.
    pub(super) fn read(&mut self, range: ByteRange) -> bool {
        if self.read.len() > self.most {
            return false;
        }
        for place in Place::all(range, self.size) {
            if !self.read.insert(place) {
                continue;
            }
            let mut collection = lock(&self.collection);
            collection.read(place);
            if self.read.len() > self.most {
                collection.take_back(&self.read);
                self.expected.clear();
                return false;
            }
            self.is_just_much |= collection.is_given_up() && self.read.len() == collection.much;
        }
        let at = self.expected.partition_point(|it| it.end() < range.end());
        let place = self.expected.get(at);
        place.is_some_and(|place| place.start() <= range.start())
    }

    /// Whether by now so much of the file was read that it comes whole, as others of the collection did:
    /// says so once.
    pub(super) fn is_just_much(&mut self) -> bool {
        std::mem::take(&mut self.is_just_much)
    }

    /// Whether it is worth a guess to fetch all of the file for those who read here and there.
    pub(super) fn may_come_whole(&self) -> bool {
        lock(&self.collection).wholes.spend()
    }

    /// Nobody has the file open any more, nearly all of which was fetched meanwhile if it `came_whole`. Whether that
    /// `pays`, or would have.
    pub(super) fn end(self, came_whole: bool, pays: bool) {
        let mut collection = lock(&self.collection);
        if pays {
            collection.wholes.earn();
        }
        let is_same = |(number, _): &(NonZeroU64, _)| *number == self.number;
        if !collection.closed.iter().any(is_same) {
            if collection.closed.len() == CLOSED {
                collection.closed.pop_front();
            }
            collection.closed.push_back((self.number, self.expected));
            if self.read.len() <= self.most {
                collection.keep(&self.read);
            }
        }
        // A small one comes with its header and its end.
        if came_whole && self.is_informed && self.size > HEADER + TAIL {
            collection.in_vain = (collection.in_vain + IN_VAIN).min(2 * GIVEN_UP);
            collection.much = self.read.len().div_ceil(2);
        } else if !self.read.is_empty() && self.read.len() < collection.much {
            collection.in_vain = collection.in_vain.saturating_sub(1);
        }
    }
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
