//! Runs of files read in listing order (`cat *`, `tar`, `cdo mergetime *.nc`): the files that come
//! next are fetched ahead, which is the one way past a round trip per file.
//!
//! A run is a stretch of a directory's files, and of those of its neighbours, of which most are read, or each
//! n-th, or some [kinds](super::kinds): one hour of each day, some bands of each granule. It goes the way of the listing,
//! or back, the latest day first. Several runs to a directory may be under way, and several processes may share one
//! and take its files out of order. How many files are fetched ahead grows with what the run has read, so that
//! little is wasted when it ends; no file is fetched ahead twice by a run that keeps its way. Of the next files it
//! is the first bytes that are fetched; where those before were read to their end, whole files.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::run::{Around, EVIDENCE, Run, are_near, directory};
use crate::namespace::Way;
use crate::s3::ObjectVersion;
use crate::sync::{Arc, Mutex, lock};

/// Runs that are followed, the one used last at the end.
const MAX_RUNS: usize = 64;
/// A run that went on so long ago shares the memory for whole files with nobody.
const ACTIVE: Duration = Duration::from_secs(5);

/// The runs of one mount.
#[derive(Debug, Default)]
pub(super) struct Siblings {
    runs: Mutex<VecDeque<Run>>,
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
    /// Notes that the file `key` is read from its start, or from its end, and says what to fetch ahead within `room`.
    /// `from` gives the next files of the directory either way, as far as they are known, in order.
    pub(super) fn read(
        &self,
        key: &Arc<str>,
        mut room: Room,
        now: Instant,
        from: impl Fn(&str, Way, usize) -> Vec<Arc<ObjectVersion>>,
    ) -> Ahead {
        let mut runs = lock(&self.runs);
        let is_there = |run: &Run| directory(&run.last) == directory(key);
        let latest_first = (0..runs.len()).rev();
        let (there, elsewhere): (Vec<_>, Vec<_>) =
            latest_first.partition(|index| is_there(&runs[*index]));
        let mut around = Around::new(key, &from);
        let mut found = None;
        for indices in [there, elsewhere] {
            let mut find = |grows: &mut dyn FnMut(&mut Run) -> bool| {
                let mut indices = indices.iter().copied();
                indices.find(|index| grows(&mut runs[*index]))
            };
            found = found
                .or_else(|| find(&mut |run| run.goes_on_with(key, &mut around)))
                .or_else(|| find(&mut |run| run.begins_with(key, &mut around)));
        }
        let mut run = found
            .and_then(|i| runs.remove(i))
            .unwrap_or_else(|| begin(&mut runs, key, now));
        (run.used, run.is_left) = (now, false);
        let is_active = |other: &&Run| !other.is_left && now < other.used + ACTIVE;
        let active = || runs.iter().filter(is_active);
        let fetch_ahead = active().filter(|other| other.read >= EVIDENCE).count();
        room.starts = (room.starts / (1 + fetch_ahead)).max(1);
        room.whole /= 1 + active().filter(|other| other.through > 0).count() as u64;
        let mut ahead = run.ahead(room, &from);
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

/// A new run, which is one like the latest near it.
fn begin(runs: &mut VecDeque<Run>, key: &Arc<str>, now: Instant) -> Run {
    for old in runs.iter_mut().filter(|run| run.covers(key)) {
        old.first = Arc::clone(&old.last);
    }
    let mut latest_first = runs.iter_mut().rev();
    let like = latest_first.find(|run| are_near(&run.last, key));
    let run = Run::new(key, like, now);
    if runs.len() == MAX_RUNS {
        runs.pop_front();
    }
    run
}

#[cfg(test)]
#[path = "siblings_tests.rs"]
mod tests;
