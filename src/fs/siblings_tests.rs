//! What is fetched ahead of whom, in directories that are only lists.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use super::super::run::{LATELY, MOST_AHEAD};
use super::*;
use crate::s3::pretended::meta;

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
        Self::of((0..count).map(|i| format!("{name}/{i:06}")))
    }

    fn of(keys: impl Iterator<Item = String>) -> Self {
        let version = |(i, key): (u64, String)| ObjectVersion {
            number: NonZeroU64::MIN.saturating_add(i),
            key: key.into(),
            meta: meta(SIZE, "e"),
        };
        Self((0..).zip(keys).map(version).map(Arc::new).collect())
    }

    fn from(&self, key: &str, way: Way, most: usize) -> Vec<Arc<ObjectVersion>> {
        match way {
            Way::Forward => {
                let behind = self.0.partition_point(|file| *file.key <= *key);
                self.0[behind..].iter().take(most).cloned().collect()
            }
            Way::Back => {
                let before = self.0.partition_point(|file| *file.key < *key);
                self.0[..before].iter().rev().take(most).cloned().collect()
            }
        }
    }

    /// Reads files in this order; how often each was fetched ahead, and how many before they
    /// were read.
    fn read(&self, order: impl IntoIterator<Item = usize>) -> (BTreeMap<usize, usize>, usize) {
        self.read_after(&Siblings::default(), order)
    }

    /// The same, where files may be fetched ahead more than once.
    fn reads(
        &self,
        siblings: &Siblings,
        order: impl IntoIterator<Item = usize>,
    ) -> (BTreeMap<usize, usize>, usize) {
        let (mut fetched, mut in_time) = (BTreeMap::new(), 0);
        for i in order {
            in_time += usize::from(fetched.contains_key(&i));
            let from = |key: &str, way, most| self.from(key, way, most);
            let ahead = siblings.read(&self.0[i].key, room(0), Instant::now(), from);
            for file in ahead.first {
                let at = usize::try_from(file.number.get() - 1).expect("small");
                *fetched.entry(at).or_default() += 1;
            }
        }
        (fetched, in_time)
    }

    /// The same after what was read before.
    fn read_after(
        &self,
        siblings: &Siblings,
        order: impl IntoIterator<Item = usize>,
    ) -> (BTreeMap<usize, usize>, usize) {
        let (fetched, in_time) = self.reads(siblings, order);
        let twice: Vec<_> = fetched.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
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

/// The latest day first.
#[test]
fn a_directory_is_read_backwards_as_well() {
    let directory = Directory::new(1000);
    let siblings = Siblings::default();
    let (fetched, in_time) = directory.read_after(&siblings, (100..300).rev());
    assert!(in_time >= 200 - EVIDENCE, "{in_time}");
    assert!(fetched.len() - in_time <= 50, "{}", fetched.len());
    let (_, in_time) = directory.read_after(&siblings, 400..500);
    assert!(in_time >= 90, "{in_time}, and forward again");
    let (fetched, in_time) = directory.read((0..900).step_by(3).rev());
    assert!(in_time >= 300 - EVIDENCE, "{in_time}");
    assert!(fetched.keys().all(|at| at % 3 == 0), "{fetched:?}");
    let (fetched, _) = directory.read((0..1000).rev());
    assert!(fetched.len() < 1000, "nothing before the first");
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

/// Some bands of each granule, in whatever order, all in one directory or each granule in its own.
#[test]
fn some_kinds_of_each_granule_are_a_run() {
    let band = |band| match band {
        14 => "Fmask".to_owned(),
        other => format!("B{other:02}"),
    };
    let all: Vec<_> = (0..15).collect();
    for form in ["c/S.G", "c/S.G/S.G"] {
        let keys = (0..200).flat_map(|granule| {
            let granule = form.replace('G', &format!("T55GEM.2021{granule:03}"));
            (0..15).map(move |nth| format!("{granule}.v2.0.{}.tif", band(nth)))
        });
        let directory = Directory::of(keys);
        for some in [
            &[3, 4, 14][..],
            &[1, 3, 5],
            &[14, 3, 4],
            &[4, 3],
            &[7],
            &[0, 2, 9, 11, 14],
            &all,
        ] {
            let order =
                (0..100).flat_map(|granule| some.iter().map(move |band| granule * 15 + band));
            let (fetched, in_time) = directory.read(order);
            let late = 100 * some.len() - in_time;
            assert!(late <= 10 * some.len(), "{some:?} of {form}: {late} late");
            let others = fetched.keys().filter(|at| !some.contains(&(*at % 15)));
            assert!(others.count() <= 8, "{some:?} of {form}: {fetched:?}");
            assert!(
                fetched.len() - in_time <= MOST_AHEAD + 8,
                "{some:?} of {form}"
            );
        }
    }
}

/// Some bands of each granule, but the granules in any order.
#[test]
fn what_is_read_of_each_granule_is_fetched_with_the_first_of_it() {
    let bands = ["B03", "B04", "B05", "Fmask", "SAA", "VZA"];
    for form in ["c/S.G", "c/S.G/S.G"] {
        let keys = (0..400).flat_map(|granule| {
            let granule = form.replace('G', &format!("T55GEM.2021{granule:03}"));
            bands.map(move |band| format!("{granule}.v2.0.{band}.tif"))
        });
        let directory = Directory::of(keys);
        for some in [&[1, 2, 3][..], &[3, 1, 2], &[4, 0]] {
            // No two of them are neighbours.
            let granules = (0..50).map(|nth| nth * 149 % 400);
            let order =
                granules.flat_map(|granule| some.iter().map(move |band| granule * 6 + band));
            let (fetched, in_time) = directory.read(order);
            let late = 50 * some.len() - in_time;
            assert!(
                late <= 50 + 3 * some.len(),
                "{some:?} of {form}: {late} late"
            );
            let in_vain = fetched.len() - in_time;
            assert!(in_vain <= 8, "{some:?} of {form}: {in_vain} in vain");
        }
    }
}

/// The chunks of a time, from the last one back; some times are left out.
#[test]
fn chunks_that_are_read_against_the_way_of_the_run_are_fetched_with_the_first_of_a_time() {
    let directory =
        Directory::of((0..360).map(|i| format!("v/{}.{}.{}", 10 + i / 9, i / 3 % 3, i % 3)));
    for left_out in [0, 2, 3] {
        let times = (0..40).filter(|time| left_out == 0 || time % left_out > 0);
        let order: Vec<_> = times
            .flat_map(|time| (0..9).rev().map(move |nth| time * 9 + nth))
            .collect();
        let siblings = Siblings::default();
        let (fetched, in_time) = directory.reads(&siblings, order.iter().copied());
        let late = order.len() - in_time;
        let times = order.len() / 9;
        assert!(late <= times + 20, "{left_out}: {late} of {}", order.len());
        let in_vain = fetched.len() + late - order.len();
        assert!(in_vain <= order.len() / 2, "{left_out}: {in_vain} in vain");
    }
}

/// Reads so many files in order, `through` of each four to their end: those that were fetched whole.
fn fetched_whole(count: usize, through: impl Fn(usize) -> usize, most: u64) -> Vec<u64> {
    let directory = Directory::new(1000);
    let siblings = Siblings::default();
    let mut fetched = Vec::new();
    for (i, file) in directory.0.iter().enumerate().take(count) {
        let from = |key: &str, way, most| directory.from(key, way, most);
        let ahead = siblings.read(&file.key, room(most), Instant::now(), from);
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
    let both = Directory(directories.iter().flat_map(|it| it.0.clone()).collect());
    let siblings = Siblings::default();
    let mut most = [0; 2];
    for nth in 0..50 {
        for (directory, most) in directories.iter().zip(&mut most) {
            let file = &directory.0[nth];
            let from = |key: &str, way, most| both.from(key, way, most);
            let ahead = siblings.read(&file.key, room(8 * SIZE), Instant::now(), from);
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
    // Numbers of three digits may be kinds.
    let days = Directory::of((0..365).map(|day| format!("2024/sst_{day:03}.nc")));
    for directory in [Directory::new(1000), days] {
        let siblings = Siblings::default();
        let count = directory.0.len();
        for pass in 0..4 {
            let (_, in_time) = directory.read_after(&siblings, 0..count);
            assert!(in_time >= count - 10, "{in_time} of {count} in pass {pass}");
        }
    }
}

#[test]
fn a_run_in_a_directory_says_nothing_of_those_below() {
    let mut run = Run::new(&"d/a".into(), None, Instant::now());
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
    let few = Directory::new(64);
    let mut order: Vec<_> = (0..64).collect();
    fastrand::Rng::with_seed(2).shuffle(&mut order);
    let (fetched, _) = few.read(order.into_iter().take(24));
    assert!(fetched.len() <= 8, "{fetched:?}");
}

/// Days of a month with a file each; granules with several, of which some are read.
#[test]
fn a_run_goes_on_in_the_directories_that_follow() {
    let days = |each: usize| {
        let of = |i: usize| format!("2024/{:03}/{:02}", i / each, i % each);
        Directory::of((0..300 * each).map(of))
    };
    for (each, read) in [(1, 1), (5, 5), (5, 3), (5, 1)] {
        let order = (0..5 * 300).filter(|i| i % 5 < read && i / 5 < 200);
        let order: Vec<_> = order.map(|i| i / 5 * each + i % 5).collect();
        let (_, in_time) = days(each).read(order.iter().copied());
        let late = order.len() - in_time;
        assert!(late <= 4 * read, "{read} of {each}: {late} late");
    }
    let (_, in_time) = days(1).read((0..200).rev());
    assert!(in_time >= 190, "{in_time}");
    // Who reads one directory reads that one.
    let (fetched, _) = days(100).read(0..100);
    assert_eq!(fetched.keys().max(), Some(&99));
}
