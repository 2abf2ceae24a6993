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
/// A file that comes whole in spite of its places counts so much, one that does not one less; with so much
/// a collection is given up.
const IN_VAIN: (u32, u32) = (2, 4);

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
        self.in_vain >= IN_VAIN.1
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
            collection.in_vain = (collection.in_vain + IN_VAIN.0).min(2 * IN_VAIN.1);
            collection.much = self.read.len().div_ceil(2);
        } else if !self.read.is_empty() && self.read.len() < collection.much {
            collection.in_vain = collection.in_vain.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::s3::{ETag, ObjectMeta, Storage};

    const SIZE: u64 = 64 << 20;

    /// The file of this key, whose number is in it.
    fn file(key: &str, size: u64) -> ObjectVersion {
        let number: String = key.chars().filter(char::is_ascii_digit).collect();
        ObjectVersion {
            number: number.parse().expect("digits"),
            key: key.into(),
            meta: ObjectMeta {
                size,
                etag: ETag::from("e"),
                last_modified: SystemTime::UNIX_EPOCH,
                storage: Storage::default(),
            },
        }
    }

    fn range(start: u64, len: u64) -> ByteRange {
        ByteRange::new(start, start + len).expect("not empty")
    }

    /// Opens a file, reads 4 KiB at these MiB, and closes it: those that were foreseen.
    fn read(places: &Places, key: &str, at: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut visit = places.visit(&file(key, SIZE));
        let at = at.into_iter();
        let foreseen = at
            .filter(|mib| visit.read(range(mib << 20, 4096)))
            .collect();
        visit.end(false, true);
        foreseen
    }

    #[test]
    fn where_two_files_were_read_the_next_one_is() {
        let places = Places::new(512 << 20);
        assert!(read(&places, "2020/001/sst_1.nc", [1, 9]).is_empty());
        assert!(read(&places, "2020/002/sst_2.nc", [1, 9, 5]).is_empty());
        let third = file("2021/001/sst_3.nc", SIZE);
        let expected = [range(1 << 20, PLACE), range(9 << 20, PLACE)];
        assert_eq!(places.of(&third), expected);
        assert_eq!(places.visit(&third).expected(), expected);
        let shorter = file("2020/004/sst_4.nc", (9 << 20) + 100);
        assert_eq!(places.of(&shorter)[1], range(9 << 20, 100));
        assert!(places.of(&file("2020/005/wind_5.nc", SIZE)).is_empty());
        let little_memory = Places::new(MOST_OF_MEMORY * PLACE);
        for key in ["f1", "f2"] {
            read(&little_memory, key, [1, 9]);
        }
        assert!(little_memory.of(&file("f3", SIZE)).is_empty());
    }

    #[test]
    fn what_is_at_the_end_is_found_there() {
        let places = Places::new(512 << 20);
        let size = |nth: u64| 30_000_000 + nth * 77_777;
        for nth in 1..=5 {
            let file = file(&format!("part-{nth}.parquet"), size(nth));
            let mut visit = places.visit(&file);
            let tail = range(size(nth) - 70_000, 70_000);
            assert_eq!(visit.read(tail), nth > 2, "{nth}");
            visit.end(false, true);
        }
        let tail = 5 * PLACE;
        let next = file("part-6.parquet", size(6));
        assert_eq!(places.of(&next), [range(size(6) - tail, tail)]);
        let short = file("part-7.parquet", 1000);
        assert!(places.of(&short).is_empty(), "it comes whole");
    }

    #[test]
    fn small_files_among_others_that_are_read_whole_spoil_nothing() {
        let places = Places::new(512 << 20);
        for nth in 1..=20 {
            let is_small = nth % 3 == 0;
            let size = if is_small { 10_000 * nth } else { 30_000_000 };
            let mut visit = places.visit(&file(&format!("part-{nth}.parquet"), size));
            let tail = size.saturating_sub(60_000);
            let is_foreseen = visit.read(range(tail, size - tail));
            assert!(is_foreseen || nth <= 2 || is_small, "{nth}");
            if is_small {
                visit.read(range(0, size));
            }
            visit.end(is_small, true);
        }
    }

    #[test]
    fn each_place_is_known_by_one_number() {
        for size in [1, PLACE, HEADER + 1, HEADER + TAIL, 3 * TAIL + 5000, SIZE] {
            let all: Vec<_> = Place::all(range(0, size), size).collect();
            let mut each: Vec<_> = (0..size)
                .step_by(4096)
                .flat_map(|at| Place::all(range(at, 4096.min(size - at)), size))
                .collect();
            each.sort_unstable();
            each.dedup();
            assert_eq!(all, each, "{size}");
            for place in all {
                let range = place.range(size).expect("in the file");
                assert!(range.len() <= PLACE, "{size}");
                assert!(Place::all(range, size).any(|it| it == place), "{size}");
            }
        }
    }

    #[test]
    fn places_near_each_other_come_together() {
        let places = Places::new(512 << 20);
        for nth in 1..=2 {
            let mut visit = places.visit(&file(&format!("f{nth}"), SIZE));
            visit.read(range(1 << 20, 100_000));
            visit.read(range((1 << 20) + 100_000 + GAP, 10_000));
            visit.read(range(0, 4096));
            visit.end(false, true);
        }
        let expected = places.of(&file("f3", SIZE));
        assert_eq!(expected, [range(1 << 20, 11 * PLACE)]);
        let mut visit = places.visit(&file("f3", SIZE));
        assert!(visit.read(range((1 << 20) + 4096, 150_000)));
        assert!(!visit.read(range((1 << 20) + 4096, 200_000)), "beyond them");
    }

    #[test]
    fn a_file_that_is_opened_twice_is_one() {
        let places = Places::new(512 << 20);
        for nth in 1..20 {
            let key = format!("f{nth}");
            let foreseen = nth > 2;
            assert_eq!(read(&places, &key, [2, 4]).len(), 2 * usize::from(foreseen));
            assert_eq!(read(&places, &key, [7]).len(), usize::from(foreseen));
        }
        let places = Places::new(512 << 20);
        for nth in 1..20 {
            let key = format!("f{nth}");
            assert!(read(&places, &key, []).is_empty(), "its header");
            assert_eq!(read(&places, &key, [7]).len(), usize::from(nth > 2));
        }
    }

    #[test]
    fn places_that_are_not_read_any_more_are_forgotten() {
        let places = Places::new(512 << 20);
        let mut files = (1..).map(|nth| format!("f{nth}"));
        for key in files.by_ref().take(10) {
            read(&places, &key, [3, 6]);
        }
        let other = files.by_ref().take(10);
        let in_vain = other.filter(|key| {
            let expected = places.of(&file(key, SIZE));
            read(&places, key, [6]);
            expected.contains(&range(3 << 20, PLACE))
        });
        assert!(in_vain.count() <= 2);
        // Each third file is read here as well.
        for (nth, key) in files.take(30).enumerate() {
            let (more, least) = ([6, 8], [6]);
            let at = if nth % 3 == 0 { &more[..] } else { &least[..] };
            assert!(!read(&places, &key, at.iter().copied()).contains(&8));
        }
    }

    #[test]
    fn who_looks_at_headers_only_gets_nothing_else() {
        let places = Places::new(512 << 20);
        for nth in 1..10 {
            read(&places, &format!("f{nth}"), [3, 6]);
        }
        let in_vain = (10..20).filter(|nth| {
            let mut visit = places.visit(&file(&format!("f{nth}"), SIZE));
            visit.read(range(0, 4096));
            let is_expected = !visit.expected().is_empty();
            visit.end(false, true);
            is_expected
        });
        assert_eq!(in_vain.count(), 1);
    }

    #[test]
    fn who_reads_much_of_a_file_leaves_no_places() {
        let places = Places::new(512 << 20);
        for nth in 1..=3 {
            let mut visit = places.visit(&file(&format!("f{nth}"), SIZE));
            for mib in 0..SIZE >> 20 {
                assert!(!visit.read(range(mib << 20, 1 << 20)));
            }
            visit.end(true, true);
        }
        assert!(places.of(&file("f4", SIZE)).is_empty());
        let scattered = Places::new(512 << 20);
        for nth in 1..=3 {
            let mut visit = scattered.visit(&file(&format!("f{nth}"), 10 * SIZE));
            for nth in 0..=MOST_RANGES as u64 {
                visit.read(range((1 + nth) << 20, 4096));
            }
            visit.end(false, true);
        }
        assert!(scattered.of(&file("f4", 10 * SIZE)).is_empty());
    }

    #[test]
    fn a_collection_whose_files_come_whole_all_the_same_is_given_up() {
        let places = Places::new(512 << 20);
        let mut much = Vec::new();
        for nth in 1..=8 {
            let mut visit = places.visit(&file(&format!("f{nth}"), SIZE));
            visit.read(range(1 << 20, 4096));
            let mut is_much = visit.is_just_much();
            for mib in [3, 5, 7, 9, 11] {
                visit.read(range((mib + 20 * nth % 7) << 20, 4096));
                is_much |= visit.is_just_much();
                assert!(!visit.is_just_much(), "once");
            }
            much.push(is_much);
            // From the sixth on it is there before it is read.
            visit.end(nth < 6, true);
        }
        assert_eq!(much, [false, false, false, false, true, true, true, true]);
        assert!(places.of(&file("f9", SIZE)).is_empty());
        // Until they are read in places again.
        let mut little = 10..20;
        let found = little.find(|nth| !read(&places, &format!("f{nth}"), [1]).is_empty());
        assert!(found.is_some());
    }
}
