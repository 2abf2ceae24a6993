//! Which reads are one stream, and which are streams of their own.

use std::time::Duration;

use super::tests::total;
use super::*;
use crate::s3::pretended::range;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[test]
fn interleaved_and_out_of_order_streams_are_followed() {
    let mut cursors = Cursors::default();
    let mut ahead = [0; 4];
    for step in 0..64_u64 {
        for stream in 0..4_u64 {
            let swapped = step ^ 1; // 1, 0, 3, 2 ...
            let start = stream * GIB + swapped * 128 * KIB;
            let read = range(start, 128 * KIB);
            let plan = cursors.access(read, 4 * GIB, 64 * MIB, Instant::now());
            ahead[usize::try_from(stream).expect("small")] += total(&plan.ahead);
        }
    }
    assert!(ahead.iter().all(|len| *len >= 7 * MIB), "{ahead:?}");
}

/// The page cache is one for all who read a file: its requests come on the handle of whoever is first.
#[test]
fn readers_of_one_object_at_one_place_are_one_stream() {
    let mut cursors = Cursors::default();
    for step in 0..256_u64 {
        cursors.access(range(step * MIB, MIB), GIB, 64 * MIB, Instant::now());
    }
    assert_eq!(cursors.streams(Instant::now()), 1);
}

/// Another reader's blocks are not those that a stream has left behind.
#[test]
fn a_read_ahead_of_a_stream_leaves_its_blocks_alone() {
    let (mut cursors, now) = (Cursors::default(), Instant::now());
    for nth in 0..64 {
        cursors.access(range(GIB + nth * MIB, MIB), 4 * GIB, 64 * MIB, now);
    }
    let plan = cursors.access(range(GIB + 70 * MIB, MIB), 4 * GIB, 64 * MIB, now);
    let unread = GIB + 64 * MIB;
    assert!(
        plan.spent.is_none_or(|spent| spent.end() <= unread),
        "{plan:?}"
    );
    let lookup = range(GIB + 75 * MIB, 4 * KIB);
    assert!(cursors.access(lookup, 4 * GIB, 64 * MIB, now).random);
}

/// All streams share the memory, and those that have ended need none.
#[test]
fn streams_that_have_ended_do_not_count() {
    let (mut cursors, mut now) = (Cursors::default(), Instant::now());
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..100 {
        let at = random.u64(1..GIB) * KIB;
        for piece in 0..16 {
            now += Duration::from_millis(5);
            cursors.access(range(at + piece * MIB, MIB), GIB << 10, 64 * MIB, now);
        }
    }
    assert_eq!(cursors.streams(now), 1, "the last one");
    for (piece, nth) in (0..4).flat_map(|piece| (0..16).map(move |nth| (piece, nth))) {
        let read = range((2000 + nth * nth) * GIB + piece * MIB, MIB);
        cursors.access(read, GIB << 20, 64 * MIB, now);
    }
    assert_eq!(cursors.streams(now), 16, "in turn");
    // Each looks something up, here and there, before it reads on.
    for (piece, nth) in (4..8).flat_map(|piece| (0..16).map(move |nth| (piece, nth))) {
        for read in [
            range((2000 + nth * nth) * GIB + piece * MIB, MIB),
            range(random.u64(1..GIB) * KIB, 4 * KIB),
        ] {
            cursors.access(read, GIB << 20, 64 * MIB, now);
        }
    }
    assert!(cursors.streams(now) >= 16, "{}", cursors.streams(now));
    assert_eq!(cursors.streams(now + PAUSE), 0);
}

/// The kernel has the pages of what was read before, so the stream leaves that out.
#[test]
fn a_stream_through_what_was_read_before_is_one() {
    for seed in 1..=7 {
        for pieces in [1, 4] {
            stream_through(seed, pieces);
        }
    }
}

fn stream_through(seed: u64, pieces: usize) {
    let (mut cursors, mut now) = (Cursors::default(), Instant::now());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut known = vec![false; 1024];
    for _ in 0..60 {
        let at = random.usize(1..1020);
        for piece in (at..at + pieces).filter(|piece| !std::mem::replace(&mut known[*piece], true))
        {
            cursors.access(range(piece as u64 * MIB, MIB), GIB, 128 * MIB, now);
        }
    }
    let (mut planned, mut furthest, mut random) = (0, 0, 0);
    for (start, _) in (0..)
        .step_by(1 << 20)
        .zip(known)
        .filter(|(_, known)| !known)
    {
        let read = range(start, MIB);
        let plan = cursors.access(read, GIB, 128 * MIB, now);
        random += u32::from(plan.random);
        let ends = plan.ahead.iter().map(|ahead| ahead.end());
        planned = ends.chain([plan.fetch.end(), planned]).max().unwrap_or(0);
        furthest = furthest.max(planned - start);
        cursors.starved(read);
        // Ten windows a second.
        now += Duration::from_micros(MIB * 100_000 / (planned - start));
    }
    assert!(random <= 2, "{random} of {seed}, {pieces}");
    assert!(furthest > 100 * MIB, "{furthest} of {seed}, {pieces}");
}

/// As with O_DIRECT, where the page cache answers nobody.
#[test]
fn a_second_reader_of_what_was_read_keeps_a_stream_of_its_own() {
    for (begin, turns) in [(0, 1), (0, 10), (100, 3), (100, 10)] {
        let (mut cursors, now) = (Cursors::default(), Instant::now());
        let mut read = |at| cursors.access(range(at * MIB, MIB), 4 * GIB, 64 * MIB, now);
        (0..500).for_each(|at| drop(read(at)));
        let mut at = begin;
        let mut random = 0;
        for first in 500..540 {
            random += u32::from(read(first).random);
            for _ in 0..turns {
                random += u32::from(read(at).random);
                at += 1;
            }
        }
        assert!(random <= 1, "{random} of {begin}, {turns}");
    }
}

/// Where as many sequences as are followed have ended, others begin side by side.
#[test]
fn new_readers_do_not_drive_one_another_out() {
    let (mut cursors, now) = (Cursors::default(), Instant::now());
    let mut read = |at, len| cursors.access(range(at, len), GIB << 10, 64 * MIB, now);
    let mut random = fastrand::Rng::with_seed(12);
    for _ in 0..MAX_CURSORS {
        let at = random.u64(1..GIB) * KIB;
        (0..16).for_each(|piece| drop(read(at + piece * MIB, MIB)));
    }
    let rounds = (0..4).flat_map(|round| (0..64).map(move |nth| (round, nth)));
    let starts = rounds.map(|(round, nth)| (600 + nth) * GIB + nth * nth * 7 * MIB + round * MIB);
    let plans: Vec<_> = starts.map(|at| read(at, MIB)).collect();
    assert!(plans[3 * 64..].iter().all(|plan| !plan.random));
}
