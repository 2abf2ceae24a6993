//! The inodes that the kernel remembers, and the numbers of all.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU64;

use hashbrown::HashTable;

use super::{Dir, Node, split};
use crate::s3::{ObjectMeta, ObjectVersion};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};

/// FUSE's number of the root.
const ROOT: NonZeroU64 = NonZeroU64::MIN;

/// What an inode takes beside its key: its two entries, version and ETag. Measured with a million of them.
const INODE_BYTES: u64 = 180;

fn cost(node: &Node) -> u64 {
    INODE_BYTES + node.path().len() as u64
}

/// What the kernel remembers, each with the number of lookups that it will give back by `forget`.
#[derive(Debug)]
pub struct Inodes {
    next: AtomicU64,
    root: Arc<Dir>,
    table: Mutex<Table>,
}

/// Two tables of the same inodes. There may be millions, and this is what they take beside the versions
/// themselves.
#[derive(Debug, Default)]
struct Table {
    by_number: Rows,
    /// By key, or by prefix with its final `/`: the version that was looked up last.
    by_path: HashTable<Named>,
    hasher: RandomState,
    len: usize,
    /// What they take, about.
    bytes: u64,
    /// The greatest `bytes` since the tables were shrunk.
    most: u64,
}

/// Inodes by their numbers, which are given in turn: rows of [`ROW`], without those in which nothing is
/// remembered.
#[derive(Debug, Default)]
struct Rows(HashMap<u64, Box<Row>>);

const ROW: u64 = 64;

/// Inodes, each with how often the kernel has looked it up.
type Row = [Option<(Node, u64)>; ROW as usize];

impl Rows {
    fn get(&self, number: NonZeroU64) -> Option<&Node> {
        let (row, at) = place(number);
        let inode = self.0.get(&row)?[at].as_ref();
        inode.map(|(node, _)| node)
    }
}

fn place(number: NonZeroU64) -> (u64, usize) {
    (number.get() / ROW, (number.get() % ROW) as usize)
}

/// A number with the hash of its path, so that the table grows without a look at all paths; in 12 bytes.
#[derive(Clone, Copy, Debug)]
struct Named {
    hash: u32,
    number: [u32; 2],
}

impl Named {
    fn new(hash: u32, number: NonZeroU64) -> Self {
        let number = number.get();
        Self {
            hash,
            number: [(number >> 32) as u32, number as u32],
        }
    }

    fn number(&self) -> Option<NonZeroU64> {
        let [high, low] = self.number.map(u64::from);
        NonZeroU64::new(high << 32 | low)
    }

    fn is(&self, hash: u32, path: &str, inodes: &Rows) -> bool {
        let node = || inodes.get(self.number()?);
        self.hash == hash && node().is_some_and(|node| **node.path() == *path)
    }
}

/// The table wants all 64 bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Table {
    fn hash(&self, path: &str) -> u32 {
        self.hasher.hash_one(path) as u32
    }

    fn find(&self, path: &str) -> Option<&Node> {
        let hash = self.hash(path);
        let is_it = |named: &Named| named.is(hash, path, &self.by_number);
        let named = self.by_path.find(spread(hash), is_it)?;
        self.by_number.get(named.number()?)
    }

    fn remember(&mut self, node: &Node) {
        let number = node.number();
        let (row, at) = place(number);
        let row = self.by_number.0.entry(row);
        let row = row.or_insert_with(|| Box::new([const { None }; ROW as usize]));
        match &mut row[at] {
            Some((_, lookups)) => *lookups += 1,
            none => {
                *none = Some((node.clone(), 1));
                self.len += 1;
                self.bytes += cost(node);
                self.most = self.most.max(self.bytes);
            }
        }
        let named = Named::new(self.hash(node.path()), number);
        let entry = self.by_path.entry(
            spread(named.hash),
            |known| known.is(named.hash, node.path(), &self.by_number),
            |known| spread(known.hash),
        );
        *entry.or_insert(named).get_mut() = named;
    }

    fn forget(&mut self, number: NonZeroU64, lookups: u64) {
        let (row_number, at) = place(number);
        let Some(row) = self.by_number.0.get_mut(&row_number) else {
            return;
        };
        let Some((_, left)) = &mut row[at] else {
            return;
        };
        *left = left.saturating_sub(lookups);
        if *left > 0 {
            return;
        }
        let Some((node, _)) = row[at].take() else {
            return;
        };
        self.len -= 1;
        self.bytes -= cost(&node);
        if row.iter().all(Option::is_none) {
            self.by_number.0.remove(&row_number);
        }
        // Of its path another version may have been looked up since.
        let is_it = |named: &Named| named.number() == Some(number);
        let hash = spread(self.hash(node.path()));
        if let Ok(named) = self.by_path.find_entry(hash, is_it) {
            named.remove();
        }
    }

    fn shrink(&mut self) {
        self.by_number.0.shrink_to_fit();
        self.by_path.shrink_to_fit(|named| spread(named.hash));
        self.most = self.bytes;
    }
}

impl Inodes {
    pub(super) fn new(root_prefix: Arc<str>) -> Self {
        Self {
            next: AtomicU64::new(ROOT.get() + 1),
            root: Arc::new(Dir {
                number: ROOT,
                prefix: root_prefix,
            }),
            table: Mutex::new(Table::default()),
        }
    }

    /// The directory that is mounted.
    pub fn root(&self) -> Arc<Dir> {
        Arc::clone(&self.root)
    }

    pub(super) fn root_prefix(&self) -> &str {
        &self.root.prefix
    }

    /// The inode with this number, if the kernel remembers it.
    pub fn get(&self, number: u64) -> Option<Node> {
        let number = NonZeroU64::new(number)?;
        if number == ROOT {
            return Some(Node::Directory(self.root()));
        }
        lock(&self.table).by_number.get(number).cloned()
    }

    /// The number of a key or prefix that the kernel remembers.
    pub(super) fn number_of(&self, path: &str) -> Option<NonZeroU64> {
        if *path == *self.root.prefix {
            return Some(ROOT);
        }
        lock(&self.table).find(path).map(Node::number)
    }

    /// All files that the kernel remembers, by the number of the directory and the name in it. A
    /// directory that it is told to forget loses its path for the programs that work in it.
    pub(super) fn names(&self) -> Vec<(NonZeroU64, String)> {
        let table = lock(&self.table);
        let parent = |prefix: &str| match *prefix == *self.root.prefix {
            true => Some(ROOT),
            false => table.find(prefix).map(Node::number),
        };
        let numbers = table.by_path.iter().filter_map(Named::number);
        let nodes = numbers.filter_map(|number| table.by_number.get(number));
        let files = nodes.filter(|node| matches!(node, Node::File(_)));
        let paths = files.map(|node| split(node.path()));
        let names = paths.map(|(prefix, name)| Some((parent(prefix)?, name.to_owned())));
        names.flatten().collect()
    }

    /// Notes that the kernel looked `node` up once more.
    pub fn remember(&self, node: &Node) {
        if node.number() != ROOT {
            lock(&self.table).remember(node);
        }
    }

    /// Gives back `lookups` of the inode `number`.
    pub fn forget(&self, number: u64, lookups: u64) {
        if let Some(number) = NonZeroU64::new(number) {
            lock(&self.table).forget(number, lookups);
        }
    }

    /// Gives back the room of inodes that are forgotten.
    pub(super) fn shrink(&self) {
        lock(&self.table).shrink();
    }

    /// Bytes that the inodes take which the kernel remembers, about: now, and at most since the last
    /// [`Inodes::shrink`].
    pub(super) fn bytes(&self) -> (u64, u64) {
        let table = lock(&self.table);
        (table.bytes, table.most)
    }

    /// How many inodes the kernel remembers, the root not counted.
    pub fn remembered(&self) -> usize {
        lock(&self.table).len
    }

    /// The version of `key` with `meta`: the remembered one, or one with a new number.
    pub(super) fn version(&self, key: &str, meta: ObjectMeta) -> Arc<ObjectVersion> {
        if let Some(Node::File(version)) = self.by_path(key)
            && version.meta == meta
        {
            return version;
        }
        Arc::new(ObjectVersion {
            number: self.number(),
            key: Arc::from(key),
            meta,
        })
    }

    /// The directory with `prefix`: the remembered one, or one with a new number.
    pub(super) fn directory(&self, prefix: &str) -> Arc<Dir> {
        if let Some(Node::Directory(dir)) = self.by_path(prefix) {
            return dir;
        }
        Arc::new(Dir {
            number: self.number(),
            prefix: Arc::from(prefix),
        })
    }

    /// Makes `node` the one that the kernel remembers, if it remembers the same with another number: what was known
    /// when `node` got its own may have been forgotten, and learned anew, since.
    pub fn prefer_remembered(&self, node: &mut Node) {
        let Some(remembered) = self.by_path(node.path()) else {
            return;
        };
        let is_same = match (&remembered, &*node) {
            (Node::File(one), Node::File(other)) => one.meta == other.meta,
            (one, other) => one.path() == other.path(),
        };
        if is_same {
            *node = remembered;
        }
    }

    fn by_path(&self, path: &str) -> Option<Node> {
        lock(&self.table).find(path).cloned()
    }

    fn number(&self) -> NonZeroU64 {
        NonZeroU64::MIN.saturating_add(self.next.fetch_add(1, Ordering::Relaxed) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(etag: &str) -> ObjectMeta {
        crate::s3::pretended::meta(1, etag)
    }

    #[test]
    fn numbers_are_stable_while_remembered_and_new_for_new_versions() {
        let inodes = Inodes::new(Arc::from(""));
        let first = inodes.version("a/b", meta("1"));
        assert_eq!(first.number.get(), 2);
        inodes.remember(&Node::File(Arc::clone(&first)));
        assert_eq!(inodes.version("a/b", meta("1")).number, first.number);
        let second = inodes.version("a/b", meta("2"));
        assert_ne!(second.number, first.number);
        inodes.forget(2, 1);
        assert!(inodes.get(2).is_none() && inodes.remembered() == 0);
    }

    #[test]
    fn an_older_version_that_is_forgotten_leaves_the_newer_one() {
        let inodes = Inodes::new(Arc::from(""));
        let versions = ["1", "2"].map(|etag| {
            let version = inodes.version("a/b", meta(etag));
            inodes.remember(&Node::File(Arc::clone(&version)));
            version
        });
        let [first, second] = versions.map(|version| version.number.get());
        assert_eq!(inodes.remembered(), 2);
        inodes.forget(first, 1);
        assert_eq!(inodes.number_of("a/b"), NonZeroU64::new(second));
        inodes.forget(second, 1);
        assert_eq!(inodes.number_of("a/b"), None);
        assert_eq!(inodes.names(), []);
    }

    #[test]
    fn what_got_another_number_since_has_the_one_that_is_remembered() {
        let inodes = Inodes::new(Arc::from(""));
        let node = |etag| {
            [
                Node::File(inodes.version("a/b", meta(etag))),
                Node::Directory(inodes.directory("a/")),
            ]
        };
        let (mut older, remembered, mut other) = (node("1"), node("1"), node("2"));
        remembered.iter().for_each(|node| inodes.remember(node));
        assert_ne!(older, remembered);
        older
            .iter_mut()
            .for_each(|node| inodes.prefer_remembered(node));
        assert_eq!(older, remembered);
        other
            .iter_mut()
            .for_each(|node| inodes.prefer_remembered(node));
        assert_ne!(other[0], remembered[0]);
        assert_eq!(other[1], remembered[1]);
    }

    #[test]
    fn thousands_are_found_by_number_and_by_path_and_given_back() {
        let inodes = Inodes::new(Arc::from(""));
        let key = |i: u64| format!("dir/{i}");
        for i in 0..5000 {
            inodes.remember(&Node::File(inodes.version(&key(i), meta("e"))));
        }
        for i in (0..5000).filter(|i| i % 7 > 0) {
            inodes.forget(i + 2, 1);
        }
        let bytes = |numbers: &mut dyn Iterator<Item = u64>| -> u64 {
            let keys = numbers.map(|i| key(i).len() as u64);
            keys.map(|len| INODE_BYTES + len).sum()
        };
        let left = bytes(&mut (0..5000).step_by(7));
        assert_eq!(inodes.bytes(), (left, bytes(&mut (0..5000))));
        inodes.shrink();
        assert_eq!(inodes.bytes(), (left, left));
        for i in 0..5000 {
            let number = (i % 7 == 0).then(|| NonZeroU64::new(i + 2).expect("not 0"));
            assert_eq!(inodes.number_of(&key(i)), number);
            assert_eq!(inodes.get(i + 2).map(|node| node.number()), number);
        }
        assert_eq!(inodes.remembered(), 715);
    }

    #[test]
    fn forget_counts_and_the_root_stays() {
        let inodes = Inodes::new(Arc::from("p/"));
        let node = Node::Directory(inodes.directory("p/d/"));
        for _ in 0..3 {
            inodes.remember(&node);
        }
        let number = node.number().get();
        inodes.forget(number, 2);
        assert_eq!(inodes.get(number), Some(node));
        inodes.forget(number, 1);
        assert_eq!(inodes.get(number), None);
        inodes.forget(1, 99);
        assert_eq!(inodes.number_of("p/"), NonZeroU64::new(1));
    }
}
