//! Names -> object versions: key rules, listings, what is known and for how long, inode numbers.
//!
//! What is known of a bucket is kept by directory as intervals of key space, each with the time at
//! which S3 was asked ([`known`]). A LIST page, a lookup and a negative answer are all such intervals;
//! a name whose key falls into a fresh one is answered from memory, present or absent.
//!
//! A cold lookup asks two things side by side, in one round trip: the first key with the name as its
//! prefix (the file itself, if it exists) and the first key below `name/` (is it a directory). Where
//! listing is denied, HEAD and the user's own list of keys tell what they can ([`denied`]).

mod denied;
mod files;
mod guess;
mod inodes;
mod key_space;
mod keys;
mod known;
mod listing;
mod lookup;
mod names;
#[cfg(any(test, fuzzing))]
pub(crate) mod parsers;
mod ranges;
mod rarely;
mod shape;
mod single;
mod trail;
mod under_way;
mod walk;

use std::num::NonZeroU64;
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

pub use inodes::Inodes;
pub use key_space::Way;
pub use keys::KeyList;
pub use known::Revision;
pub use listing::{Entry, Listing, Mark};
pub use names::looks_like_a_file;

use known::{Directory, Place, Run};
use single::Questions;
use trail::Trails;
use walk::Walks;

use crate::request::Request;
use crate::s3::{Error, ObjectVersion, S3};
use crate::sync::{Arc, Mutex, lock};

/// What S3 answers a LIST with, at most.
const PAGE: usize = 1000;

/// A directory: a prefix that ends in `/`, or the empty one.
#[derive(Debug, PartialEq, Eq)]
pub struct Dir {
    /// Unique for the life of the process; also the inode number.
    pub number: NonZeroU64,
    /// The keys in it begin with this.
    pub prefix: Arc<str>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// One version of an object.
    File(Arc<ObjectVersion>),
    /// A prefix.
    Directory(Arc<Dir>),
}

impl Node {
    /// The inode number.
    pub fn number(&self) -> NonZeroU64 {
        match self {
            Self::File(version) => version.number,
            Self::Directory(dir) => dir.number,
        }
    }

    /// The key, or the prefix with its final `/`.
    pub fn path(&self) -> &Arc<str> {
        match self {
            Self::File(version) => &version.key,
            Self::Directory(dir) => &dir.prefix,
        }
    }
}

/// The prefix of the directory that holds `path`, and the name there.
fn split(path: &str) -> (&str, &str) {
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split_at(path.rfind('/').map_or(0, |slash| slash + 1))
}

/// What is known of a name.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it stands for; `None` if it does not exist.
    pub node: Option<Node>,
    /// For how long that may be believed.
    pub fresh_for: Duration,
}

/// The names of one bucket, below a prefix.
#[derive(Debug)]
pub struct Namespace {
    s3: Arc<S3>,
    /// How long an answer of S3 is believed; [`Duration::MAX`] for ever.
    ttl: Duration,
    /// What the knowledge may take, in bytes.
    memory: u64,
    /// What the user says that there is, for where listing is denied.
    keys: KeyList,
    inodes: Inodes,
    directories: Mutex<Directories>,
    /// What was asked up to then is not believed any more.
    forgotten: Mutex<Option<Instant>>,
    /// Lookups under way, by key.
    asking: Questions<Result<Place, Error>>,
    walks: Mutex<Walks>,
    trails: Mutex<Trails>,
}

#[derive(Debug)]
struct Directories {
    /// By prefix.
    known: LruCache<Arc<str>, Directory>,
    /// Bytes of them all, about.
    bytes: u64,
    /// Prefixes that S3 has listed, but for those below another one.
    listed: LruCache<Arc<str>, ()>,
}

impl Namespace {
    /// The names below `root`, which is empty or ends in `/`.
    pub fn new(s3: Arc<S3>, root: &str, keys: KeyList, ttl: Duration, memory: u64) -> Self {
        Self {
            s3,
            ttl,
            memory,
            keys,
            inodes: Inodes::new(Arc::from(root)),
            directories: Mutex::new(Directories {
                known: LruCache::unbounded(),
                bytes: 0,
                listed: denied::no_prefixes(),
            }),
            forgotten: Mutex::default(),
            asking: Questions::default(),
            walks: Mutex::default(),
            trails: Mutex::default(),
        }
    }

    /// The name of the bucket.
    pub fn bucket(&self) -> &str {
        self.s3.bucket()
    }

    /// Forgets all that S3 said. Returns the names of files that the kernel may still know, each with the
    /// inode number of its directory.
    pub fn forget_all(&self) -> Vec<(NonZeroU64, String)> {
        let mut directories = lock(&self.directories);
        *lock(&self.forgotten) = Some(Instant::now());
        directories.known.clear();
        directories.bytes = 0;
        drop(directories);
        *lock(&self.walks) = Walks::default();
        *lock(&self.trails) = Trails::default();
        self.inodes.names()
    }

    /// Bytes that the names take which the kernel remembers, about: now, and at most since the last
    /// [`Namespace::shrink`].
    pub fn bytes(&self) -> (u64, u64) {
        self.inodes.bytes()
    }

    /// Gives back the room of names that are forgotten.
    pub fn shrink(&self) {
        self.inodes.shrink();
    }

    /// The inodes that the kernel remembers.
    pub fn inodes(&self) -> &Inodes {
        &self.inodes
    }

    /// How long something that was true at `asked` may still be believed.
    fn fresh_for(&self, asked: Instant) -> Duration {
        match *lock(&self.forgotten) {
            Some(forgotten) if asked <= forgotten => Duration::ZERO,
            _ => self.ttl.saturating_sub(asked.elapsed()),
        }
    }

    /// Whether what S3 said at a moment is believed now.
    fn believed(&self) -> impl Fn(Instant) -> bool + use<> {
        let oldest = Instant::now().checked_sub(self.ttl);
        move |asked| oldest.is_none_or(|oldest| asked > oldest)
    }

    /// Lists `dir`; sends nothing yet.
    pub fn list(&self, dir: &Arc<Dir>) -> Listing {
        Listing::new(Arc::clone(dir))
    }

    /// Lists the rest of `dir` from `mark` on.
    pub fn list_from(&self, dir: &Arc<Dir>, mark: Mark) -> Listing {
        Listing::from_mark(Arc::clone(dir), mark)
    }

    /// Which state of `dir` is known, if all of it is believed now, and for how long yet.
    pub fn whole(&self, dir: &Dir) -> Option<(Revision, Duration)> {
        self.whole_by_prefix(&dir.prefix)
    }

    fn whole_by_prefix(&self, prefix: &str) -> Option<(Revision, Duration)> {
        let directories = lock(&self.directories);
        let known = directories.known.peek(prefix)?;
        let believed = self.believed();
        let asked = known.whole().filter(|asked| believed(*asked))?;
        Some((known.revision(), self.fresh_for(asked)))
    }

    /// Whether anything that S3 says is believed beyond the question that it answers.
    pub fn is_believed_for_a_while(&self) -> bool {
        !self.ttl.is_zero()
    }

    /// What is believed of `dir` from the place `from` on, or known, however old it `is_any`: all that is left, or as
    /// much as S3 would answer with.
    fn known_run(&self, dir: &Dir, from: &[u8], is_any: bool) -> Option<Run> {
        let mut directories = lock(&self.directories);
        let known = directories.known.get(&dir.prefix)?;
        let believed = self.believed();
        let run = known.run(from, PAGE, |asked| is_any || believed(asked))?;
        // What came with the lookup of a large directory spares no request.
        let is_worth_it =
            run.end.is_none() || run.nodes.len() > usize::from(lookup::FIRST_CHILDREN);
        is_worth_it.then_some(run)
    }

    /// What `name` in `dir` stands for, if that is believed.
    pub fn known(&self, dir: &Dir, name: &str) -> Option<Answer> {
        self.answer(&self.place(dir, name, self.believed()))
    }

    /// What `name` in `dir` stands for, from memory or from S3.
    ///
    /// # Errors
    /// As S3 says.
    pub async fn lookup(
        self: &Arc<Self>,
        dir: &Arc<Dir>,
        name: &str,
        request: &Request,
    ) -> Result<Answer, Error> {
        if let Some(answer) = self.known(dir, name) {
            return Ok(answer);
        }
        self.guessed(dir).await;
        self.trailed(dir, name).await;
        let place = self.place(dir, name, self.believed());
        if let Some(answer) = self.answer(&place) {
            return Ok(answer);
        }
        self.guess(dir, name, request);
        self.trail(dir, name, request);
        // However short the TTL, and whatever is forgotten for want of memory meanwhile: what was just
        // asked is an answer to this question.
        let place = match self.ttl.is_zero() {
            // Whoever asks later wants to see what is there later.
            true => self.ask(dir, name, place, request).await?,
            false => {
                let key = format!("{}{name}", dir.prefix);
                let ask = self.ask(dir, name, place, request);
                self.asking.ask(key, ask).await?
            }
        };
        self.answer(&place)
            .ok_or_else(|| Error::Protocol("a lookup that answers nothing".to_owned()))
    }

    fn place(&self, dir: &Dir, name: &str, believed: impl Fn(Instant) -> bool) -> Place {
        let mut directories = lock(&self.directories);
        let Some(known) = directories.known.get_mut(&dir.prefix) else {
            return Place::default();
        };
        let place = known.place(name, believed);
        if let Some((_, asked)) = place.decided() {
            known.habit.listings.used(asked);
            lock(&self.trails).listings.used(asked);
        }
        place
    }

    fn answer(&self, place: &Place) -> Option<Answer> {
        let (mut node, asked) = place.decided()?;
        if let Some(node) = &mut node {
            self.inodes.prefer_remembered(node);
        }
        Some(Answer {
            node,
            fresh_for: self.fresh_for(asked),
        })
    }

    /// Changes what is known of the directory `prefix`, and keeps all knowledge within its memory. Numbers are given
    /// within the same change, or two who learn of one version at a time would give it two.
    fn learn<T>(&self, prefix: &Arc<str>, change: impl FnOnce(&mut Directory, &Inodes) -> T) -> T {
        let mut directories = lock(&self.directories);
        let directories = &mut *directories;
        let before = directories.known.peek(prefix).map_or(0, Directory::bytes);
        let make = || Directory::new(Arc::clone(prefix), *lock(&self.forgotten));
        let known = directories
            .known
            .get_or_insert_mut(Arc::clone(prefix), make);
        let result = change(known, &self.inodes);
        directories.bytes = directories.bytes + known.bytes() - before;
        // The directory just changed goes last, and alone it goes, too: what is too large streams.
        while directories.bytes > self.memory {
            let Some((_, gone)) = directories.known.pop_lru() else {
                break;
            };
            directories.bytes -= gone.bytes();
        }
        result
    }

    /// Changes something about `dir` that is not knowledge of its names.
    fn learn_quietly<T>(&self, dir: &Dir, change: impl FnOnce(&mut Directory) -> T) -> T {
        self.learn(&dir.prefix, |known, _| change(known))
    }

    /// The prefix that is mounted.
    fn root(&self) -> &str {
        self.inodes.root_prefix()
    }

    /// Up to `most` known directories in `prefix` behind the directory `last`.
    fn directories_behind(&self, prefix: &str, last: &str, most: usize) -> Vec<Arc<str>> {
        let directories = lock(&self.directories);
        let Some(known) = directories.known.peek(prefix) else {
            return Vec::new();
        };
        let behind = known.directories_from(&last.as_bytes()[prefix.len()..], Way::Forward);
        let behind = behind.map(|dir| Arc::clone(&dir.prefix));
        behind.take(most).collect()
    }

    /// How many entries the directory `prefix` has, and how many keys lie below it, as far as they are
    /// known, and no more than some pages.
    fn known_size(&self, prefix: &str) -> (usize, usize) {
        let directories = lock(&self.directories);
        let mut to_count = vec![prefix];
        let (mut entries, mut below) = (None, 0);
        while let Some(prefix) = to_count.pop() {
            let Some(known) = directories.known.peek(prefix) else {
                continue;
            };
            let (files, children) = known.count();
            entries.get_or_insert(files + children);
            below += files;
            if below < 4 * PAGE {
                let children = known.directories_from(b"", Way::Forward);
                to_count.extend(children.map(|dir| &*dir.prefix));
            }
        }
        (entries.unwrap_or(0), below)
    }

    /// Forgets that the key of `version` is this version, which S3 says is gone or replaced. Returns its
    /// directory's inode number and its name, if the kernel may believe it, too.
    pub fn forget_version(&self, version: &ObjectVersion) -> Option<(NonZeroU64, String)> {
        let (prefix, name) = split(&version.key);
        let mut guard = lock(&self.directories);
        let directories = &mut *guard;
        if let Some(known) = directories.known.peek_mut(prefix)
            && let Some((Some(Node::File(file)), _)) = known.place(name, |_| true).file
            && file.meta == version.meta
        {
            let before = known.bytes();
            known.forget(name);
            directories.bytes = directories.bytes + known.bytes() - before;
        }
        drop(guard);
        let kernel_has = self.inodes.number_of(&version.key);
        if kernel_has.is_some_and(|number| number != version.number) {
            return None;
        }
        Some((self.inodes.number_of(prefix)?, name.to_owned()))
    }
}
