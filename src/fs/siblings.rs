//! Runs of files read in listing order (`cat *`, `tar`, `cdo mergetime *.nc`): the files that come
//! next are fetched ahead, which is the one way past a round trip per file.
//!
//! A run is a stretch of a directory's files of which most are read, or each n-th: one band of each scene, one
//! hour of each day. Several runs to a directory may
//! be under way, and several processes may share one and take its files out of order. How many files
//! are fetched ahead grows with what the run has read, so that little is wasted when it ends; no file
//! is fetched ahead twice by one run. Of the next files it is the first bytes that are fetched; where those
//! before were read to their end, whole files.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::s3::ObjectVersion;
use crate::sync::{Arc, Mutex, lock};

/// Runs that are followed, the one used last at the end.
const MAX_RUNS: usize = 64;
/// A file this far after the last one read of a run, or before its first, is none of it ...
const NEAR: usize = 32;
/// ... and one this far before the last is read anew, by somebody who reads the directory once more.
const BEHIND: usize = 128;
/// So many files in order are a run.
const EVIDENCE: usize = 3;
/// Files fetched ahead: a quarter of what was read, within these bounds. 25 ms x 1,000 files a second
/// are 25.
const AHEAD: (usize, usize) = (4, 48);
/// Files read to their end before others are fetched whole.
const WHOLE_EVIDENCE: usize = 2;
/// So many files, and twice as many, are what is remembered of how the latest were read.
const LATELY: usize = 16;
/// A run that went on so long ago shares the memory for whole files with nobody.
const ACTIVE: Duration = Duration::from_secs(5);

/// The runs of one mount.
#[derive(Debug, Default)]
pub(super) struct Siblings {
    runs: Mutex<VecDeque<Run>>,
}

#[derive(Debug)]
struct Run {
    /// The first and the last file in order of those read.
    first: Arc<str>,
    last: Arc<str>,
    /// Files from `first` to `last`, and how many of them were read.
    span: usize,
    read: usize,
    /// How many files further the last one read was, and how often in turn it was as many.
    step: usize,
    same_steps: usize,
    /// Up to where files were fetched ahead.
    planned: Arc<str>,
    /// Up to where they were fetched whole.
    whole: Arc<str>,
    /// Files that were read to their end, and their bytes.
    through: usize,
    bytes: u64,
    /// How many were read lately, and how many of them to their end.
    lately: (usize, usize),
    used: Instant,
}

/// What may be fetched ahead at most: first bytes of so many files, and so many bytes of whole ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) starts: usize,
    pub(super) whole: u64,
}

/// Files to fetch ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// First bytes of these.
    pub(super) first: Vec<Arc<ObjectVersion>>,
    /// All of these, of which the first bytes may be on their way.
    pub(super) whole: Vec<Arc<ObjectVersion>>,
}

impl Siblings {
    /// Notes that the file `key` is read from its start, and says what to fetch ahead within `room`.
    /// `after` gives the next files of the directory, as far as they are known, in order.
    pub(super) fn read(
        &self,
        key: &Arc<str>,
        mut room: Room,
        now: Instant,
        after: impl Fn(&str, usize) -> Vec<Arc<ObjectVersion>>,
    ) -> Ahead {
        let mut runs = lock(&self.runs);
        let latest_first = (0..runs.len()).rev();
        let goes_on = |run: &mut Run| run.goes_on_with(key, &after);
        let found = latest_first.clone().find(|i| goes_on(&mut runs[*i]));
        let found = found.or_else(|| {
            latest_first
                .clone()
                .find(|i| runs[*i].begins_with(key, &after))
        });
        let Some(mut run) = found.and_then(|i| runs.remove(i)) else {
            if runs.len() == MAX_RUNS {
                runs.pop_front();
            }
            for old in runs.iter_mut().filter(|run| run.covers(key)) {
                old.first = Arc::clone(&old.last);
            }
            runs.push_back(Run::new(key, now));
            return Ahead::default();
        };
        run.used = now;
        let shares = |other: &&Run| other.through > 0 && now < other.used + ACTIVE;
        let share = 1 + runs.iter().filter(shares).count() as u64;
        room.whole /= share;
        let mut ahead = run.ahead(room, &after);
        // What another run is at, it fetches itself.
        for files in [&mut ahead.first, &mut ahead.whole] {
            files.retain(|file| !runs.iter().any(|other| other.covers(&file.key)));
        }
        runs.push_back(run);
        ahead
    }

    /// Notes that the file `key` of `size` bytes was read to its end.
    pub(super) fn read_through(&self, key: &str, size: u64) {
        let mut runs = lock(&self.runs);
        if let Some(run) = runs.iter_mut().rfind(|run| run.covers(key)) {
            run.through += 1;
            run.bytes += size;
            run.lately.1 += 1;
        }
    }
}

impl Run {
    fn new(key: &Arc<str>, now: Instant) -> Self {
        Self {
            first: Arc::clone(key),
            last: Arc::clone(key),
            span: 1,
            read: 1,
            step: 1,
            same_steps: 0,
            planned: Arc::clone(key),
            whole: Arc::clone(key),
            through: 0,
            bytes: 0,
            lately: (1, 0),
            used: now,
        }
    }

    /// Whether `key` is within this run or goes on with it, which has grown by it then.
    fn goes_on_with(
        &mut self,
        key: &Arc<str>,
        after: impl Fn(&str, usize) -> Vec<Arc<ObjectVersion>>,
    ) -> bool {
        if **key < *self.first || directory(key) != directory(&self.last) {
            return false;
        }
        if **key > *self.last {
            let Some(steps) = steps(&self.last, key, NEAR, after) else {
                return false;
            };
            self.span += steps;
            self.same_steps = if steps == self.step {
                self.same_steps + 1
            } else {
                1
            };
            self.step = steps;
            self.last = Arc::clone(key);
        } else if **key < *self.last && steps(key, &self.last, BEHIND, after).is_none() {
            return false;
        }
        self.read += 1;
        self.lately.0 += 1;
        if self.lately.0 > 2 * LATELY {
            self.lately = (self.lately.0 / 2, self.lately.1 / 2);
        }
        true
    }

    /// Whether `key` comes right before this run, which has grown by it then. It says nothing of what
    /// comes next: a directory may be read backwards.
    fn begins_with(
        &mut self,
        key: &Arc<str>,
        after: impl Fn(&str, usize) -> Vec<Arc<ObjectVersion>>,
    ) -> bool {
        if **key >= *self.first || directory(key) != directory(&self.first) {
            return false;
        }
        let Some(steps) = steps(key, &self.first, NEAR, after) else {
            return false;
        };
        self.span += steps;
        self.first = Arc::clone(key);
        true
    }

    fn covers(&self, key: &str) -> bool {
        let is_within = *self.first <= *key && (*key <= *self.last || *key <= *self.planned);
        is_within && directory(key) == directory(&self.first)
    }

    /// Each how many files are read, if they are a run.
    fn each(&self) -> Option<usize> {
        match self.read {
            ..EVIDENCE => None,
            // By several processes, as it may be.
            read if 3 * read > 2 * self.span => Some(1),
            _ if self.step > 1 && self.same_steps >= EVIDENCE - 1 => Some(self.step),
            read => (read >= self.span / 2).then_some(1),
        }
    }

    fn ahead(
        &mut self,
        room: Room,
        after: impl Fn(&str, usize) -> Vec<Arc<ObjectVersion>>,
    ) -> Ahead {
        let Some(step) = self.each() else {
            return Ahead::default();
        };
        let count = (self.read / 4).clamp(AHEAD.0, AHEAD.1).min(room.starts);
        let files = after(&self.last, step * count);
        let files: Vec<_> = files.into_iter().skip(step - 1).step_by(step).collect();
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
        Ahead {
            whole: behind(&mut self.whole, whole),
            first: behind(&mut self.planned, files),
        }
    }
}

/// The files behind `planned`, which they move.
fn behind(planned: &mut Arc<str>, mut files: Vec<Arc<ObjectVersion>>) -> Vec<Arc<ObjectVersion>> {
    files.retain(|file| file.key > *planned);
    if let Some(last) = files.last() {
        *planned = Arc::clone(&last.key);
    }
    files
}

/// How many files it is from one to another, if that is no more than `most`.
fn steps(
    from: &str,
    to: &str,
    most: usize,
    after: impl Fn(&str, usize) -> Vec<Arc<ObjectVersion>>,
) -> Option<usize> {
    let files = after(from, most);
    let at = files.iter().position(|file| *file.key == *to)?;
    Some(at + 1)
}

fn directory(key: &str) -> &str {
    key.rfind('/').map_or("", |slash| &key[..slash])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroU64;
    use std::time::SystemTime;

    use super::*;
    use crate::s3::{ETag, ObjectMeta};

    /// Of each file.
    const SIZE: u64 = 20 << 20;

    /// For the start of any number of files.
    fn room(whole: u64) -> Room {
        Room {
            starts: usize::MAX,
            whole,
        }
    }

    struct Directory(Vec<Arc<ObjectVersion>>);

    impl Directory {
        fn new(count: u64) -> Self {
            Self::in_it("d", count)
        }

        fn in_it(name: &str, count: u64) -> Self {
            let version = |i: u64| ObjectVersion {
                number: NonZeroU64::MIN.saturating_add(i),
                key: format!("{name}/{i:06}").into(),
                meta: ObjectMeta {
                    size: SIZE,
                    etag: ETag::from("e"),
                    last_modified: SystemTime::UNIX_EPOCH,
                    storage: crate::s3::Storage::default(),
                },
            };
            Self((0..count).map(|i| Arc::new(version(i))).collect())
        }

        fn after(&self, key: &str, most: usize) -> Vec<Arc<ObjectVersion>> {
            let from = self.0.partition_point(|file| *file.key <= *key);
            self.0[from..].iter().take(most).cloned().collect()
        }

        /// Reads files in this order; how often each was fetched ahead, and how many before they
        /// were read.
        fn read(&self, order: impl IntoIterator<Item = usize>) -> (BTreeMap<usize, usize>, usize) {
            self.read_after(&Siblings::default(), order)
        }

        /// The same after what was read before.
        fn read_after(
            &self,
            siblings: &Siblings,
            order: impl IntoIterator<Item = usize>,
        ) -> (BTreeMap<usize, usize>, usize) {
            let (mut fetched, mut in_time) = (BTreeMap::new(), 0);
            for i in order {
                in_time += usize::from(fetched.contains_key(&i));
                let after = |key: &str, most| self.after(key, most);
                let ahead = siblings.read(&self.0[i].key, room(0), Instant::now(), after);
                for file in ahead.first {
                    let at = usize::try_from(file.number.get() - 1).expect("small");
                    *fetched.entry(at).or_default() += 1;
                }
            }
            assert!(fetched.values().all(|times| *times == 1), "each once");
            (fetched, in_time)
        }
    }

    #[test]
    fn a_run_is_ahead_of_its_reader_and_little_is_wasted() {
        let directory = Directory::new(1000);
        let (fetched, in_time) = directory.read(100..300);
        assert!(in_time >= 200 - EVIDENCE, "{in_time}");
        assert!(fetched.len() - in_time <= 50, "{}", fetched.len());
        let (fetched, _) = directory.read(10..15);
        assert!(fetched.len() <= 6, "{}", fetched.len());
    }

    #[test]
    fn each_nth_file_is_a_run_of_its_own() {
        let directory = Directory::new(2000);
        for step in [2, 3, 4, 12, 30] {
            let (fetched, in_time) = directory.read((5..1500).step_by(step).take(50));
            assert!(in_time >= 50 - EVIDENCE, "{step}: {in_time}");
            let none_between = fetched.keys().all(|at| at % step == 5 % step);
            assert!(none_between, "{step}: {fetched:?}");
            assert!(fetched.len() - in_time <= 12, "{step}: {}", fetched.len());
        }
        // The bands of a scene, and those of the next.
        let bands = (0..100).flat_map(|scene| [1, 2, 3].map(|band| scene * 12 + band));
        let (fetched, in_time) = directory.read(bands);
        assert!(
            fetched.len() <= 2 * in_time + 50,
            "{in_time} of {}",
            fetched.len()
        );
    }

    /// Reads so many files in order, `through` of each four to their end: those that were fetched whole.
    fn fetched_whole(count: usize, through: impl Fn(usize) -> usize, most: u64) -> Vec<u64> {
        let directory = Directory::new(1000);
        let siblings = Siblings::default();
        let mut fetched = Vec::new();
        for (i, file) in directory.0.iter().enumerate().take(count) {
            let after = |key: &str, most| directory.after(key, most);
            let ahead = siblings.read(&file.key, room(most), Instant::now(), after);
            fetched.extend(ahead.whole.iter().map(|file| file.number.get() - 1));
            if i % 4 < through(i) {
                siblings.read_through(&file.key, file.meta.size);
            }
        }
        fetched
    }

    #[test]
    fn who_reads_files_to_their_end_finds_the_next_ones_whole() {
        let fetched = fetched_whole(100, |_| 4, 10 * SIZE);
        assert!(fetched.is_sorted() && fetched[0] <= 4, "{fetched:?}");
        let last = fetched.last().expect("some");
        assert_eq!(*last, 99 + 10, "as many ahead as there is room for");
        assert_eq!(
            u64::try_from(fetched.len()),
            Ok(last - fetched[0] + 1),
            "each once"
        );
        let few = fetched_whole(6, |_| 4, 10 * SIZE);
        assert!(few.iter().filter(|nth| **nth >= 6).count() <= 2, "{few:?}");
        assert!(fetched_whole(100, |_| 1, 10 * SIZE).is_empty(), "headers");
        assert!(fetched_whole(100, |_| 4, SIZE - 1).is_empty(), "no room");
        let headers_later = |nth| if nth < 200 { 4 } else { 0 };
        let fetched = fetched_whole(400, headers_later, 2 * SIZE);
        let last = fetched.last().expect("some");
        assert!(
            *last < 200 + 4 * LATELY as u64,
            "{last}: until that is known"
        );
    }

    #[test]
    fn runs_under_way_share_the_memory_for_whole_files() {
        let directories = [Directory::new(100), Directory::in_it("e", 100)];
        let siblings = Siblings::default();
        let mut most = [0; 2];
        for nth in 0..50 {
            for (directory, most) in directories.iter().zip(&mut most) {
                let file = &directory.0[nth];
                let after = |key: &str, most| directory.after(key, most);
                let ahead = siblings.read(&file.key, room(8 * SIZE), Instant::now(), after);
                let furthest = ahead.whole.last().map_or(0, |file| file.number.get() - 1);
                *most = furthest.saturating_sub(nth as u64).max(*most);
                siblings.read_through(&file.key, SIZE);
            }
        }
        assert!(most.iter().all(|most| (3..=4).contains(most)), "{most:?}");
    }

    #[test]
    fn sixteen_processes_share_a_run_or_have_one_each() {
        let directory = Directory::new(1600);
        // By turns, out of order within a turn.
        let by_turns = (0..1600).map(|i| i / 16 * 16 + i % 16 * 7 % 16);
        let (fetched, in_time) = directory.read(by_turns);
        // Until as many are ahead as there are processes, some come too late.
        assert!(in_time > 1400 && fetched.len() <= 1600, "{in_time}");
        let parts = (0..1600).map(|i| i % 16 * 100 + i / 16);
        let (_, in_time) = directory.read(parts);
        assert!(in_time > 1500, "{in_time}");
    }

    #[test]
    fn a_directory_that_is_read_once_more_is_fetched_ahead_once_more() {
        let directory = Directory::new(1000);
        let siblings = Siblings::default();
        for pass in 0..3 {
            let (_, in_time) = directory.read_after(&siblings, 0..1000);
            assert!(in_time >= 990, "{in_time} in pass {pass}");
        }
    }

    #[test]
    fn a_run_in_a_directory_says_nothing_of_those_below() {
        let mut run = Run::new(&"d/a".into(), Instant::now());
        run.planned = "d/c".into();
        assert!(run.covers("d/b") && !run.covers("d/b/1"));
    }

    #[test]
    fn files_here_and_there_are_no_run() {
        let directory = Directory::new(1000);
        let mut order: Vec<_> = (0..1000).collect();
        fastrand::Rng::with_seed(1).shuffle(&mut order);
        let (fetched, _) = directory.read(order.into_iter().take(100));
        assert!(fetched.len() <= 4, "{fetched:?}");
        let (backwards, _) = directory.read((0..100).rev());
        assert!(backwards.is_empty(), "{backwards:?}");
        let few = Directory::new(64);
        let mut order: Vec<_> = (0..64).collect();
        fastrand::Rng::with_seed(2).shuffle(&mut order);
        let (fetched, _) = few.read(order.into_iter().take(24));
        assert!(fetched.len() <= 8, "{fetched:?}");
    }
}
