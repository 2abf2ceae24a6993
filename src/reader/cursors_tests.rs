//! What cursors plan, with time handed in.

use std::time::Duration;

use super::*;
use crate::reader::PART;
use crate::s3::pretended::range;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

pub(super) fn total(ranges: &[ByteRange]) -> u64 {
    ranges.iter().map(|range| range.len()).sum()
}

/// Reads a gibibyte at a rate that depends on the window; the largest distance fetched ahead.
fn stream(waits: bool, rate: impl Fn(u64) -> u64) -> u64 {
    let mut cursors = Cursors::default();
    let mut now = Instant::now();
    let (mut planned, mut pieces, mut furthest) = (0, 0, 0);
    for start in (0..GIB).step_by(128 << 10) {
        let read = range(start, 128 * KIB);
        let plan = cursors.access(read, GIB, 128 * MIB, now);
        if start == 0 {
            planned = plan.fetch.end();
        }
        assert!(plan.fetch.end() <= planned, "fetched twice");
        for ahead in plan.ahead {
            assert_eq!(ahead.start(), planned, "each byte once");
            planned = ahead.end();
            pieces += 1;
        }
        furthest = furthest.max(planned - start);
        if waits {
            cursors.starved(read);
        }
        let rate = rate(planned - start);
        now += Duration::from_micros(read.len() * 1_000_000 / rate);
    }
    assert_eq!(planned, GIB);
    assert!(pieces < 320, "{pieces} pieces");
    furthest
}

#[test]
fn the_window_stays_where_the_reader_never_waits() {
    let furthest = stream(false, |_| 500 * MIB);
    assert!(furthest <= RAMP + PART, "{furthest}");
}

#[test]
fn the_window_grows_while_that_makes_the_reader_faster() {
    // Ten windows a second: latency decides.
    let far = stream(true, |window| 10 * window);
    assert!(far > 100 * MIB, "{far}");
    // At 300 MB/s the network is full.
    let full = stream(true, |window| (10 * window).min(300 * MIB));
    assert!(full > 30 * MIB && full <= 64 * MIB + PART, "{full}");
    let no_latency = stream(true, |_| 500 * MIB);
    assert!(no_latency <= 2 * RAMP + PART, "{no_latency}");
}

/// As that of the last of many readers, whose windows shared the memory.
#[test]
fn the_window_grows_when_there_is_memory_again() {
    let (mut cursors, mut now) = (Cursors::default(), Instant::now());
    let (mut planned, mut furthest) = (0, 0);
    for start in (0..2 * GIB).step_by(1 << 20) {
        let most = if start < GIB { 16 * MIB } else { 128 * MIB };
        let read = range(start, MIB);
        let plan = cursors.access(read, 2 * GIB, most, now);
        let ends = plan.ahead.iter().map(|ahead| ahead.end());
        planned = ends.chain([plan.fetch.end(), planned]).max().unwrap_or(0);
        furthest = furthest.max(planned - start);
        assert!(start >= GIB || furthest <= 16 * MIB + PART, "{furthest}");
        cursors.starved(read);
        // Ten windows a second.
        now += Duration::from_micros(MIB * 100_000 / (planned - start));
    }
    assert!(furthest > 100 * MIB, "{furthest}");
}

/// What is on its way is not fetched with anything, so nothing may be planned with it.
#[test]
fn reads_that_lie_anyhow_leave_no_holes() {
    for (first, len) in [(16 * KIB, MIB), (MIB, 300 * KIB), (100 * KIB, 4 * KIB)] {
        let (mut cursors, now) = (Cursors::default(), Instant::now());
        let plan = cursors.access(range(0, first), GIB, 64 * MIB, now);
        let mut planned = plan.ahead.last().unwrap_or(&plan.fetch).end();
        for nth in 0..200 {
            let read = range(first + nth * len, len);
            let plan = cursors.access(read, GIB, 64 * MIB, now);
            if read.end() > planned {
                planned = plan.fetch.end();
            }
            for ahead in plan.ahead {
                assert_eq!(ahead.start(), planned, "read {nth} of {len} behind {first}");
                planned = ahead.end();
            }
        }
    }
}

/// S3 may refuse what is fetched ahead for long; then its readers fetch it themselves.
#[test]
fn what_was_planned_and_never_came_takes_no_request_per_read() {
    let (mut cursors, now) = (Cursors::default(), Instant::now());
    let (mut present, mut gets) = (0, 0);
    for start in (0..64 * MIB).step_by(128 << 10) {
        let read = range(start, 128 * KIB);
        let plan = cursors.access(read, GIB, 64 * MIB, now);
        if read.end() > present {
            gets += 1;
            present = plan.fetch.end();
        }
    }
    assert!(gets < 100, "{gets}");
}

#[test]
fn gets_are_short_while_the_window_grows_and_long_later() {
    let (mut cursors, mut now) = (Cursors::default(), Instant::now());
    let mut parts = Vec::new();
    for start in (0..GIB).step_by(1 << 20) {
        let read = range(start, MIB);
        let plan = cursors.access(read, GIB, 128 * MIB, now);
        cursors.starved(read);
        // Up to 64 MiB ahead make the reader faster.
        let ahead = (start / 4).clamp(MIB, 64 * MIB);
        now += Duration::from_micros(MIB * 1_000_000 / (10 * ahead));
        parts.extend((!plan.ahead.is_empty()).then_some(plan.part));
    }
    assert!(parts.is_sorted(), "{parts:?}");
    assert_eq!((parts[0], parts[1]), (SHORT, MIB));
    assert_eq!(parts.last(), Some(&PART));
}

#[test]
fn a_read_as_long_as_the_kernel_asks_for_is_the_start_of_more_if_it_begins_within_a_block() {
    let ahead = |start| {
        let plan = Cursors::default().access(range(start, MIB), GIB, 64 * MIB, Instant::now());
        total(&plan.ahead)
    };
    assert_eq!(ahead(70 * MIB + 4 * KIB), RAMP / 2);
    assert_eq!(ahead(70 * MIB), START);
}

#[test]
fn random_reads_fetch_nothing_ahead() {
    let mut cursors = Cursors::default();
    let now = Instant::now();
    for i in 1..1000 {
        let start = i * i * 7919 * 4096 % (100 * GIB) + MIB;
        let read = range(start, 4096);
        let plan = cursors.access(read, 100 * GIB, 64 * MIB, now);
        assert!(
            plan.random && plan.ahead.is_empty() && plan.fetch == read,
            "{i}"
        );
    }
}

#[test]
fn what_follows_chunks_comes_along_once_that_is_known() {
    let mut cursors = Cursors::default();
    let now = Instant::now();
    let mut first_reads = Vec::new();
    for chunk in [700, 30, 410, 90, 560, 220].map(|at| at * MIB) {
        let plan = cursors.access(range(chunk, 100 * KIB), GIB, 64 * MIB, now);
        first_reads.push(total(&plan.ahead));
        cursors.access(range(chunk + 100 * KIB, 256 * KIB), GIB, 64 * MIB, now);
    }
    assert_eq!(first_reads[0], 0);
    // As long as runs are.
    assert_eq!(first_reads[3..], [256 * KIB; 3]);
}

#[test]
fn equal_strides_are_fetched_ahead_once_each_and_nothing_between() {
    let mut cursors = Cursors::default();
    let mut ahead = Vec::new();
    for step in 1..40_u64 {
        let read = range(step * 17 * MIB, MIB);
        let plan = cursors.access(read, 2 * GIB, 64 * MIB, Instant::now());
        assert_eq!(plan.fetch, read);
        ahead.extend(plan.ahead);
        if step >= 4 {
            assert!(ahead.contains(&read), "{step}");
        }
    }
    let starts: std::collections::BTreeSet<_> = ahead.iter().map(|r| r.start()).collect();
    assert_eq!(starts.len(), ahead.len(), "each once");
    // The first one might have been the start of a stream.
    let between = ahead.iter().filter(|r| r.start() % (17 * MIB) != 0);
    assert_eq!(between.map(|r| r.len()).sum::<u64>(), MIB);
    assert!(ahead.iter().all(|r| r.len() == MIB));
}

/// Chunks of arrays that are larger than what the kernel asks for at a time: what follows the first piece
/// comes with it, and nothing that lies behind the chunk once it is known how long chunks are.
#[test]
fn chunks_of_more_than_one_read_are_fetched_whole_and_no_further() {
    let mut cursors = Cursors::default();
    let (chunk, now) = (2300 * KIB, Instant::now());
    let mut extra = Vec::new();
    for at in [700, 30, 410, 90, 560, 220].map(|at| at * MIB) {
        let mut planned = 0;
        for (start, len) in [(0, MIB), (MIB, MIB), (2 * MIB, chunk - 2 * MIB)] {
            let plan = cursors.access(range(at + start, len), GIB, 64 * MIB, now);
            if planned < at + start + len {
                planned = plan.fetch.end();
            }
            let ends = plan.ahead.iter().map(|range| range.end());
            planned = ends.chain([planned]).max().expect("some");
            if start == 0 {
                assert!(total(&plan.ahead) >= MIB, "what follows comes along");
            }
        }
        extra.push(planned - (at + chunk));
    }
    assert!(
        extra[3..].iter().all(|bytes| *bytes <= 256 * KIB),
        "{extra:?}"
    );
}

/// Wherever a stream begins, and however its reads lie to the grain of fetches.
#[test]
fn a_stream_that_begins_anywhere_is_soon_far_ahead() {
    for begin in [7 * MIB, 7 * MIB + 112 * KIB, 7 * MIB + 900 * KIB] {
        let (mut cursors, now) = (Cursors::default(), Instant::now());
        cursors.access(range(begin, 456 * KIB), 64 * GIB, 64 * MIB, now);
        let mut at = begin + 456 * KIB;
        let mut planned = 0;
        for _ in 0..12 {
            let plan = cursors.access(range(at, MIB), 64 * GIB, 64 * MIB, now);
            at += MIB;
            let ends = plan.ahead.iter().map(|range| range.end());
            planned = ends.chain([planned]).max().expect("some");
        }
        assert!(
            planned >= at + RAMP - PART,
            "{begin}: {} ahead",
            planned - at
        );
    }
}

/// Data, and what looks up where the next of it lies.
#[test]
fn small_reads_beside_a_stream_fetch_nothing_of_its_length() {
    let (mut cursors, now) = (Cursors::default(), Instant::now());
    let mut random = fastrand::Rng::with_seed(4);
    let mut fetched = 0;
    for nth in 0..400 {
        let len = if nth == 0 { 4 * KIB } else { 128 * KIB };
        let at = if nth == 0 {
            GIB
        } else {
            GIB + 4 * KIB + (nth - 1) * 128 * KIB
        };
        cursors.access(range(at, len), 4 * GIB, 64 * MIB, now);
        let read = range(2 * GIB + random.u64(..400_000) * 4 * KIB, 4 * KIB);
        let plan = cursors.access(read, 4 * GIB, 64 * MIB, now);
        fetched += plan.fetch.len() + total(&plan.ahead);
    }
    assert!(fetched <= 40 * MIB, "{fetched}");
}

#[test]
fn steps_that_lie_close_together_are_fetched_at_once() {
    let (mut cursors, now) = (Cursors::default(), Instant::now());
    let mut ranges = 0;
    for nth in 10..1010 {
        let read = range(nth * 50_000 / 4096 * 4096, 8 * KIB);
        ranges += cursors.access(read, 4 * GIB, 64 * MIB, now).ahead.len();
    }
    assert!(ranges <= 100, "{ranges}");
}

/// As where many share a slow network.
#[test]
fn scans_end_where_they_make_nobody_faster() {
    let (mut cursors, mut now) = (Cursors::default(), Instant::now());
    let mut random = fastrand::Rng::with_seed(7);
    let (mut at, mut ahead) = (GIB, 0);
    for nth in 0..400 {
        let plan = cursors.access(range(at, 4 * KIB), 4 * GIB, 64 * MIB, now);
        at += random.u64(MIB..7 * MIB);
        ahead += total(&plan.ahead);
        now += Duration::from_millis(if ahead > 0 && nth < 300 { 200 } else { 30 });
    }
    assert!(ahead <= 600 * MIB, "{ahead}");
}

#[test]
fn what_is_gone_on_with_after_closing_is_planned_anew() {
    let ways: [fn(u64) -> ByteRange; 3] = [
        |nth| range(nth * MIB, MIB),
        |nth| range(GIB - (nth + 1) * MIB, MIB),
        |nth| range(nth * 5 * MIB, MIB),
    ];
    for (way, read) in ways.into_iter().enumerate() {
        let mut cursors = Cursors::default();
        let ahead_of = |cursors: &mut Cursors, nth| {
            total(
                &cursors
                    .access(read(nth), GIB, 128 * MIB, Instant::now())
                    .ahead,
            )
        };
        let most = (0..40).map(|nth| ahead_of(&mut cursors, nth)).max();
        assert!(most >= Some(4 * MIB), "{way}: {most:?}");
        assert!(!cursors.close());
        cursors.nothing_ahead();
        let again = ahead_of(&mut cursors, 40);
        assert!((MIB..=33 * MIB).contains(&again), "{way}: {again}");
    }
}
