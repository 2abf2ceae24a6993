//! The inodes that the kernel remembers, and the numbers of all.

use std::collections::HashMap;
use std::num::NonZeroU64;

use super::{Dir, Node, split};
use crate::s3::{ObjectMeta, ObjectVersion};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};

/// FUSE's number of the root.
const ROOT: NonZeroU64 = NonZeroU64::MIN;

/// What the kernel remembers, each with the number of lookups that it will give back by `forget`.
#[derive(Debug)]
pub struct Inodes {
    next: AtomicU64,
    root: Arc<Dir>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_number: HashMap<NonZeroU64, (Node, u64)>,
    /// By key, or by prefix with its final `/`: the version that was looked up last.
    by_path: HashMap<Arc<str>, NonZeroU64>,
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
        let table = lock(&self.table);
        table.by_number.get(&number).map(|(node, _)| node.clone())
    }

    /// The number of a key or prefix that the kernel remembers.
    pub(super) fn number_of(&self, path: &str) -> Option<NonZeroU64> {
        if *path == *self.root.prefix {
            return Some(ROOT);
        }
        lock(&self.table).by_path.get(path).copied()
    }

    /// All that the kernel remembers, by the number of the directory and the name in it.
    pub(super) fn names(&self) -> Vec<(NonZeroU64, String)> {
        let table = lock(&self.table);
        let parent = |prefix: &str| match *prefix == *self.root.prefix {
            true => Some(ROOT),
            false => table.by_path.get(prefix).copied(),
        };
        let paths = table.by_path.keys().map(|path| split(path));
        let names = paths.map(|(prefix, name)| Some((parent(prefix)?, name.to_owned())));
        names.flatten().collect()
    }

    /// Notes that the kernel looked `node` up once more.
    pub fn remember(&self, node: &Node) {
        let number = node.number();
        if number == ROOT {
            return;
        }
        let mut table = lock(&self.table);
        let new = || (node.clone(), 0);
        table.by_number.entry(number).or_insert_with(new).1 += 1;
        table.by_path.insert(Arc::clone(node.path()), number);
    }

    /// Gives back `lookups` of the inode `number`.
    pub fn forget(&self, number: u64, lookups: u64) {
        let Some(number) = NonZeroU64::new(number) else {
            return;
        };
        let mut table = lock(&self.table);
        let Some((node, left)) = table.by_number.get_mut(&number) else {
            return;
        };
        *left = left.saturating_sub(lookups);
        if *left > 0 {
            return;
        }
        let path = Arc::clone(node.path());
        table.by_number.remove(&number);
        if table.by_path.get(&path) == Some(&number) {
            table.by_path.remove(&path);
        }
    }

    /// Gives back the room of inodes that are forgotten.
    pub(super) fn shrink(&self) {
        let mut table = lock(&self.table);
        table.by_number.shrink_to_fit();
        table.by_path.shrink_to_fit();
    }

    /// How many inodes the kernel remembers, the root not counted.
    pub fn len(&self) -> usize {
        lock(&self.table).by_number.len()
    }

    /// Whether the kernel remembers none but the root.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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

    fn by_path(&self, path: &str) -> Option<Node> {
        let table = lock(&self.table);
        let number = table.by_path.get(path)?;
        table.by_number.get(number).map(|(node, _)| node.clone())
    }

    fn number(&self) -> NonZeroU64 {
        NonZeroU64::MIN.saturating_add(self.next.fetch_add(1, Ordering::Relaxed) - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::s3::ETag;

    fn meta(etag: &str) -> ObjectMeta {
        ObjectMeta {
            size: 1,
            etag: ETag::from(etag),
            last_modified: SystemTime::UNIX_EPOCH,
            storage: crate::s3::Storage::default(),
        }
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
        assert!(inodes.get(2).is_none() && inodes.is_empty());
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
