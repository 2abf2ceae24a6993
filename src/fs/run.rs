//! One run of files that are read in the order of a listing, or somewhat like it ([`super::siblings`] says what runs are).

use tokio::time::Instant;

use super::kinds::{Kinds, granule};
use super::siblings::{Ahead, Room};
use crate::namespace::Way;
use crate::s3::ObjectVersion;
use crate::sync::Arc;

/// A file this far after the last one read of a run, or before its first, is none of it ...
const NEAR: usize = 32;
/// ... and one this far before the last is read anew, by somebody who reads the directory once more.
const BEHIND: usize = 128;
/// So many files in order are a run.
pub(super) const EVIDENCE: usize = 3;
/// A run that went on in another directory so often does so again.
const CROSSED: usize = 2;
/// With as many as were read before it, or so many, before the first file of a run, it goes the other way.
const TURNED: usize = 8;
/// Files fetched ahead: a quarter of what was read, within these bounds. 25 ms x 1,000 files a second
/// are 25.
const LEAST_AHEAD: usize = 4;
pub(super) const MOST_AHEAD: usize = 48;
/// Of some kinds, they are looked for among no more than so many.
const MOST_SEARCHED: usize = 512;
/// Files read to their end before others are fetched whole.
const WHOLE_EVIDENCE: usize = 2;
/// So many files, and twice as many, are what is remembered of how the latest were read.
pub(super) const LATELY: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Run {
    way: Way,
    /// The first and the last file of those read, in the order of this way.
    pub(super) first: Arc<str>,
    pub(super) last: Arc<str>,
    /// How often in turn a file before the first one was read, and how far before.
    turned: usize,
    steps_back: Steps,
    /// Files from `first` to `last`, and how many of them were read.
    span: usize,
    pub(super) read: usize,
    steps: Steps,
    kinds: Kinds,
    /// How many granules followed the first, and how many were left out, lately.
    granules: (usize, usize),
    /// What was read just now, if it is the first of its granule and was not fetched ahead.
    unforeseen: Option<Arc<str>>,
    /// The rest of that one was fetched ahead.
    has_rest: bool,
    /// How often it went on in another directory.
    crossed: usize,
    /// What was read last.
    latest: Arc<str>,
    /// Up to where files were fetched ahead.
    pub(super) planned: Arc<str>,
    /// Up to where they were fetched whole.
    whole: Arc<str>,
    /// Files that were read to their end, and their bytes.
    pub(super) through: usize,
    pub(super) bytes: u64,
    /// How many were read lately, and how many of them to their end.
    pub(super) lately: (usize, usize),
    pub(super) used: Instant,
    /// Another that is like it has begun since.
    pub(super) is_left: bool,
}

/// Which files of its stretch a run reads.
#[derive(Clone, Copy, Debug)]
enum Reads {
    /// Most, or all but those of some kinds.
    All,
    /// Each n-th.
    Each(usize),
    /// Those of some kinds.
    Kinds,
}

/// How many files further each one read is.
#[derive(Debug, Default)]
struct Steps {
    /// The last time, and how often in turn it was as many.
    len: usize,
    same: usize,
}

impl Steps {
    fn note(&mut self, len: usize) {
        self.same = if len == self.len { self.same + 1 } else { 1 };
        self.len = len;
    }
}

impl Run {
    /// One that begins, of whose reader is known what is known of the one before.
    pub(super) fn new(key: &Arc<str>, before: Option<&mut Self>, now: Instant) -> Self {
        let mut run = Self {
            way: Way::Forward,
            first: Arc::clone(key),
            last: Arc::clone(key),
            turned: 0,
            steps_back: Steps::default(),
            span: 1,
            read: 1,
            steps: Steps::default(),
            kinds: Kinds::default(),
            granules: (0, 0),
            unforeseen: Some(Arc::clone(key)),
            has_rest: false,
            crossed: 0,
            latest: Arc::clone(key),
            planned: Arc::clone(key),
            whole: Arc::clone(key),
            through: 0,
            bytes: 0,
            lately: (1, 0),
            used: now,
            is_left: false,
        };
        if let Some(before) = before {
            before.is_left = true;
            run.kinds = before.kinds.clone();
            (run.through, run.bytes, run.lately) = (before.through, before.bytes, before.lately);
        }
        run.kinds.read(key, false);
        run
    }

    /// Whether `key` is within this run or goes on with it, which has grown by it then.
    pub(super) fn goes_on_with(&mut self, key: &Arc<str>, around: &mut Around<'_>) -> bool {
        if self.way.is_behind(&self.first, key) || !are_near(key, &self.last) {
            return false;
        }
        if self.way.is_behind(key, &self.last) {
            let Some(passed) = around.up_to(&self.last, self.way.turned(), NEAR) else {
                return false;
            };
            let is_planned = !self.way.is_behind(key, &self.planned);
            let last = std::mem::replace(&mut self.last, Arc::clone(key));
            let further = self.grow(&last, passed, key, is_planned);
            self.steps.note(further);
            self.turned = 0;
        } else if **key != *self.last {
            if around.up_to(&self.last, self.way, BEHIND).is_none() {
                return false;
            }
            self.kinds.read(key, true);
            let is_same = |other: &str| granule(other) == granule(key);
            if !is_same(&self.last) && !is_same(&self.latest) {
                self.granules.1 = self.granules.1.saturating_sub(1);
                self.enter(key, false);
            }
        }
        self.latest = Arc::clone(key);
        self.read += 1;
        self.lately.0 += 1;
        if self.lately.0 > 2 * LATELY {
            self.lately = (self.lately.0 / 2, self.lately.1 / 2);
        }
        true
    }

    /// Whether `key` comes right before this run, which has grown by it then. Where that is so again and again, the
    /// run goes the other way.
    pub(super) fn begins_with(&mut self, key: &Arc<str>, around: &mut Around<'_>) -> bool {
        if !self.way.is_behind(&self.first, key) || !are_near(key, &self.first) {
            return false;
        }
        let Some(passed) = around.up_to(&self.first, self.way, NEAR) else {
            return false;
        };
        let first = std::mem::replace(&mut self.first, Arc::clone(key));
        let further = self.grow(&first, passed, key, false);
        self.steps_back.note(further);
        self.latest = Arc::clone(key);
        self.turned += 1;
        if self.turned >= self.read.clamp(EVIDENCE - 1, TURNED) {
            self.turn();
        }
        true
    }

    /// Notes that it grows from one of its ends, past these files, to `key`, which was fetched ahead if it
    /// `is_planned`: how many files further that is.
    fn grow(
        &mut self,
        end: &str,
        passed: &[Arc<ObjectVersion>],
        key: &Arc<str>,
        is_planned: bool,
    ) -> usize {
        let (left, entered) = (granule(end), granule(key));
        let mut skipped = "";
        for file in passed {
            match granule(&file.key) {
                it if it == left || it == entered => self.kinds.pass(&file.key),
                it if it == skipped => {}
                it => {
                    self.granules.1 += 1;
                    skipped = it;
                }
            }
        }
        self.kinds.read(key, false);
        self.crossed += usize::from(directory(key) != directory(end));
        if left != entered {
            self.enter(key, is_planned);
        }
        let further = passed.len() + 1;
        self.span += further;
        further
    }

    /// Notes that `key` is the first that is read of its granule.
    fn enter(&mut self, key: &Arc<str>, is_planned: bool) {
        let (read, skipped) = &mut self.granules;
        *read += 1;
        if *read + *skipped > LATELY {
            (*read, *skipped) = ((*read / 2).max(1), *skipped / 2);
        }
        self.unforeseen = (!is_planned).then(|| Arc::clone(key));
    }

    fn turn(&mut self) {
        self.way = self.way.turned();
        std::mem::swap(&mut self.first, &mut self.last);
        self.planned = Arc::clone(&self.last);
        self.whole = Arc::clone(&self.last);
        self.read += std::mem::take(&mut self.turned);
        self.steps = std::mem::take(&mut self.steps_back);
    }

    pub(super) fn covers(&self, key: &str) -> bool {
        let is_behind_all =
            self.way.is_behind(key, &self.last) && self.way.is_behind(key, &self.planned);
        let is_within = !self.way.is_behind(&self.first, key) && !is_behind_all;
        is_within && (self.crossed > 0 || directory(key) == directory(&self.first))
    }

    /// Which of the files that follow are read, if these are a run.
    fn reads(&self) -> Option<Reads> {
        let is_of_kinds = self.is_of_kind(&self.last);
        match self.read {
            ..EVIDENCE => None,
            // Whether there is another granule is not known.
            _ if is_of_kinds && self.has_rest && self.granules.0 == 0 => None,
            // By several processes, as it may be.
            read if 3 * read > 2 * self.span => Some(Reads::All),
            _ if is_of_kinds && self.granules.0 >= 2 * self.granules.1 => Some(Reads::Kinds),
            _ if self.steps.len > 1 && self.steps.same >= EVIDENCE - 1 => {
                Some(Reads::Each(self.steps.len))
            }
            read => (read >= self.span / 2).then_some(Reads::All),
        }
    }

    /// Whether `key` is of one of the kinds that are read, if those are known.
    fn is_of_kind(&self, key: &str) -> bool {
        self.kinds.are_known() && self.kinds.want(key)
    }

    /// The other files that are read of the granule whose first has come unforeseen. Of many files, none is a granule.
    fn rest_of_granule(
        &mut self,
        most: usize,
        from: impl Fn(&str, Way, usize) -> Vec<Arc<ObjectVersion>>,
    ) -> Vec<Arc<ObjectVersion>> {
        let unforeseen = self.unforeseen.take();
        let Some(key) = &unforeseen.filter(|key| self.is_of_kind(key)) else {
            return Vec::new();
        };
        let ways = [Way::Forward, Way::Back];
        let around = ways.into_iter().flat_map(|way| from(key, way, NEAR));
        let is_rest = |file: &Arc<ObjectVersion>| {
            granule(&file.key) == granule(key) && self.kinds.want(&file.key)
        };
        let mut rest: Vec<_> = around.filter(is_rest).collect();
        rest.truncate(if rest.len() < NEAR { most } else { 0 });
        self.has_rest = !rest.is_empty();
        rest
    }

    /// The next `count` of these.
    fn next(
        &self,
        reads: Reads,
        count: usize,
        from: impl Fn(&str, Way, usize) -> Vec<Arc<ObjectVersion>>,
    ) -> Vec<Arc<ObjectVersion>> {
        let most = match reads {
            Reads::Each(nth) => nth * count,
            Reads::All | Reads::Kinds => (count * self.span.div_ceil(self.read)).min(MOST_SEARCHED),
        };
        let mut files = from(&self.last, self.way, most);
        if self.crossed < CROSSED {
            files.retain(|file| directory(&file.key) == directory(&self.last));
        }
        let mut nth = 0;
        files.retain(|file| {
            nth += 1;
            match reads {
                Reads::All => !self.kinds.shun(&file.key),
                Reads::Each(each) => nth % each == 0,
                Reads::Kinds => self.kinds.want(&file.key),
            }
        });
        files.truncate(count);
        files
    }

    pub(super) fn ahead(
        &mut self,
        room: Room,
        from: impl Fn(&str, Way, usize) -> Vec<Arc<ObjectVersion>>,
    ) -> Ahead {
        let rest = self.rest_of_granule(room.starts, &from);
        let is_rest = !rest.is_empty();
        let files = match self.reads() {
            _ if is_rest => rest,
            Some(reads) => {
                let count = (self.read / 4).clamp(LEAST_AHEAD, MOST_AHEAD);
                self.next(reads, count.min(room.starts), &from)
            }
            None => return Ahead::default(),
        };
        // Several processes have as many files open that they have not read to their end yet.
        let (read, through) = self.lately;
        let is_whole = self.through >= WHOLE_EVIDENCE && through >= read / 2;
        let mut bytes = if is_whole {
            room.whole.min(self.bytes / 2)
        } else {
            0
        };
        let fits = |file: &&Arc<ObjectVersion>| {
            let rest = bytes.checked_sub(file.meta.size);
            bytes = rest.unwrap_or(bytes);
            rest.is_some()
        };
        let whole = files.iter().take_while(fits).cloned().collect();
        let plan = |planned: &mut Arc<str>, mut files: Vec<Arc<ObjectVersion>>| {
            let is_behind = |file: &Arc<ObjectVersion>| self.way.is_behind(&file.key, planned);
            files.retain(|file| is_rest || is_behind(file));
            if let Some(last) = files.iter().rfind(|file| is_behind(file)) {
                *planned = Arc::clone(&last.key);
            }
            files
        };
        Ahead {
            whole: plan(&mut self.whole, whole),
            first: plan(&mut self.planned, files),
        }
    }
}

/// The files around one, as far as runs are looked for among them.
pub(super) struct Around<'a> {
    key: &'a str,
    from: &'a FilesFrom<'a>,
    /// How many were asked for each way, and which there are.
    ahead: (usize, Vec<Arc<ObjectVersion>>),
    back: (usize, Vec<Arc<ObjectVersion>>),
}

/// The files behind a key this way, at most so many.
pub(super) type FilesFrom<'a> = dyn Fn(&str, Way, usize) -> Vec<Arc<ObjectVersion>> + 'a;

impl<'a> Around<'a> {
    pub(super) fn new(key: &'a str, from: &'a FilesFrom<'a>) -> Self {
        Self {
            key,
            from,
            ahead: (0, Vec::new()),
            back: (0, Vec::new()),
        }
    }

    /// The files between this one and `other`, if that is one of the next `most` this way.
    fn up_to(&mut self, other: &str, way: Way, most: usize) -> Option<&[Arc<ObjectVersion>]> {
        let (asked, files) = match way {
            Way::Forward => &mut self.ahead,
            Way::Back => &mut self.back,
        };
        if *asked < most {
            (*asked, *files) = (most, (self.from)(self.key, way, most));
        }
        let next = &files[..most.min(files.len())];
        let at = next.iter().position(|file| *file.key == *other)?;
        Some(&next[..at])
    }
}

pub(super) fn directory(key: &str) -> &str {
    key.rfind('/').map_or("", |slash| &key[..slash])
}

/// Whether the directories of two files are one, or have the one above, or the one above that, in common.
pub(super) fn are_near(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (directory(a), directory(b));
    for _ in 0..2 {
        if a == b {
            return true;
        }
        (a, b) = (directory(a), directory(b));
    }
    a == b
}
