//! What is foreseen of files of like names.

use super::*;
use crate::s3::pretended::{meta, range};

const SIZE: u64 = 64 << 20;

/// The file of this key, whose number is in it.
fn file(key: &str, size: u64) -> ObjectVersion {
    let number: String = key.chars().filter(char::is_ascii_digit).collect();
    ObjectVersion {
        number: number.parse().expect("digits"),
        key: key.into(),
        meta: meta(size, "e"),
    }
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
