//! What cursors plan, with time handed in.

use std::time::Duration;

use super::*;
use crate::reader::PART;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn range(start: u64, len: u64) -> ByteRange {
    ByteRange::new(start, start + len).expect("not empty")
}

fn total(ranges: &[ByteRange]) -> u64 {
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
    assert_eq!((parts[0], parts.last()), (MIB, Some(&PART)));
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

#[test]
fn backward_reads_find_what_lies_before() {
    for len in [4 * KIB, 64 * KIB, MIB] {
        let waits = waits((1..=256).map(|step| range(GIB - step * len, len)));
        assert!(waits.last(250) <= 1, "{len}: {waits:?}");
        let most = (3 * waits.read).min(waits.read + (32 << 20) + RAMP);
        assert!(waits.fetched <= most, "{len}: {}", waits.fetched);
    }
}

/// What memory did not allow to be fetched ahead is fetched when it is read, and not read by read.
#[test]
fn a_backward_reader_without_room_ahead_takes_what_lies_before() {
    let reads = (1..=256).map(|step| range(GIB - step * 64 * KIB, 64 * KIB));
    let waits = waits_in(false, reads);
    assert!(waits.last(250) <= 40, "{waits:?}");
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

/// The page cache is one for all who read a file: its requests come on the handle of whoever is first.
#[test]
fn readers_of_one_object_at_one_place_are_one_stream() {
    let mut cursors = Cursors::default();
    for step in 0..256_u64 {
        cursors.access(range(step * MIB, MIB), GIB, 64 * MIB, Instant::now());
    }
    assert_eq!(cursors.streams(), 1);
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

/// Reads all of these in turn.
fn waits(reads: impl IntoIterator<Item = ByteRange>) -> Waits {
    waits_in(true, reads)
}

/// The same; without room nothing is fetched ahead.
fn waits_in(has_room: bool, reads: impl IntoIterator<Item = ByteRange>) -> Waits {
    let (mut cursors, mut now) = (Cursors::default(), Instant::now());
    let mut waits = Waits::default();
    let mut fetched: Vec<ByteRange> = Vec::new();
    for read in reads {
        now += Duration::from_millis(1);
        let plan = cursors.access(read, 4 * GIB, 64 * MIB, now);
        let there = |at: u64| fetched.iter().find(|it| it.start() <= at && at < it.end());
        let mut at = read.start();
        while let Some(it) = there(at)
            && at < read.end()
        {
            at = it.end();
        }
        waits.absent.push(at < read.end());
        if at < read.end() {
            fetched.push(plan.fetch);
            now += Duration::from_millis(30);
        }
        match has_room {
            true => fetched.extend(plan.ahead),
            false => {
                for ahead in plan.ahead {
                    cursors.not_fetched(ahead);
                }
            }
        }
        waits.read += read.len();
    }
    fetched.sort_by_key(|it| it.start());
    let mut end = 0;
    for it in fetched {
        waits.fetched += it.end().saturating_sub(end.max(it.start()));
        end = end.max(it.end());
    }
    waits
}

#[derive(Debug, Default)]
struct Waits {
    /// Which reads were not fetched ahead of.
    absent: Vec<bool>,
    fetched: u64,
    read: u64,
}

impl Waits {
    fn last(&self, reads: usize) -> usize {
        let last = &self.absent[self.absent.len() - reads..];
        last.iter().filter(|absent| **absent).count()
    }
}

/// Rows of the tiles of an image: those of one row lie next to one another, the rows far apart.
#[test]
fn a_row_of_tiles_costs_one_wait_at_most() {
    let tile = |row: u64, nth: u64| range(row * MIB + nth * 200 * KIB, 190 * KIB);
    let rows = |rows: Vec<u64>| {
        let tiles = rows
            .into_iter()
            .flat_map(|row| (0..4).map(move |nth| tile(row, nth)));
        waits(tiles)
    };
    let mut random = fastrand::Rng::with_seed(3);
    let anywhere = rows((0..20).map(|_| random.u64(..800) * 5).collect());
    assert!(anywhere.last(40) <= 10, "{anywhere:?}");
    assert!(anywhere.fetched <= 2 * anywhere.read, "{anywhere:?}");
    let equal_steps = rows((0..20).map(|row| 50 + row * 60).collect());
    assert!(equal_steps.last(40) <= 1, "{equal_steps:?}");
}

/// The members of a zip file: a small header, and what follows it.
#[test]
fn what_follows_small_headers_comes_along_once_that_is_known() {
    let mut random = fastrand::Rng::with_seed(1);
    let starts: Vec<_> = (0..40).map(|_| random.u64(1..800) * 5 * MIB).collect();
    let pieces = [(0, 4), (4, 64), (68, 128), (196, 128)];
    let member =
        |at: u64| pieces.map(|(start, len): (u64, u64)| range(at + start * KIB, len * KIB));
    let waits = waits(starts.into_iter().flat_map(member));
    assert!(waits.last(80) <= 20, "{waits:?}");
    assert!(waits.fetched <= 2 * waits.read, "{waits:?}");
}

/// The column chunks of a Parquet file, of several lengths.
#[test]
fn runs_of_several_lengths_and_gaps_cost_about_one_wait_each() {
    let columns: [(u64, u64); 4] = [(3, 4), (7, 4), (20, 4), (40, 4)];
    let reads = (0..16).flat_map(|group| {
        let column =
            move |(at, len)| (at..at + len).map(move |mib| range((group * 64 + mib) * MIB, MIB));
        columns.into_iter().flat_map(column)
    });
    let waits = waits(reads);
    assert!(waits.last(8 * 16) <= 8 * 3 + 4, "{waits:?}");
    assert!(waits.fetched <= 3 * waits.read, "{waits:?}");
}

#[test]
fn a_reader_that_skips_what_is_on_its_way_is_still_the_same() {
    let mut random = fastrand::Rng::with_seed(2);
    let mut at = 10 * MIB;
    let reads = (0..400).map(|_| {
        let read = range(at, random.u64(50..900) * KIB);
        at = read.end();
        if random.u64(..10) == 0 {
            at += random.u64(..6 * MIB);
        }
        read
    });
    let waits = waits(reads.collect::<Vec<_>>());
    assert!(waits.last(300) <= 8, "{waits:?}");
}

/// Records of any length, which the kernel's pages do not fit.
#[test]
fn records_in_equal_steps_are_fetched_ahead_wherever_they_lie() {
    for step in [MIB, 1_234_568, 17 * MIB + 5000] {
        let pages = |nth: u64| {
            let start = (nth * step + 40_000) / 4096 * 4096;
            range(start, 24 * KIB)
        };
        let waits = waits((0..200).map(pages));
        assert!(waits.last(190) <= 1, "{step}: {waits:?}");
        assert!(waits.fetched <= 3 * waits.read, "{step}: {waits:?}");
    }
}

/// Whatever begins in equal steps may go on as a stream, each for itself.
#[test]
fn readers_of_equal_parts_are_streams() {
    for readers in [2, 3, 5, 16, 64] {
        let part = 16 * MIB;
        let in_turn = (0..16).flat_map(|nth| (0..readers).map(move |reader| (reader, nth)));
        let waits = waits(in_turn.map(|(reader, nth)| range(reader * part + nth * MIB, MIB)));
        let last = waits.last(usize::try_from(8 * readers).expect("few"));
        // Some begin together once more.
        let most = usize::try_from(readers).expect("few");
        assert!(
            last <= most,
            "{last} of the last reads of {readers} readers"
        );
        assert!(
            waits.fetched <= 2 * waits.read,
            "{readers}: {}",
            waits.fetched
        );
    }
}

#[test]
fn a_stream_goes_on_over_what_was_read_in_steps() {
    let steps = (1..=10).map(|nth| range(nth * 100 * MIB, MIB));
    let stream = (0..2 * GIB / MIB).map(|nth| range(nth * MIB, MIB));
    let after = waits(steps.clone().chain(stream));
    assert!(after.last(2000) <= 12, "{}", after.last(2000));
    let from_there = (1..500).map(|nth| range(GIB + nth * MIB, MIB));
    let from_there = waits(steps.chain(from_there));
    assert!(from_there.last(490) <= 2, "{}", from_there.last(490));
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

#[test]
fn streams_out_of_order_stay_streams() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut order: Vec<_> = (512..1536).collect();
    for nth in 1..order.len() {
        if random.u64(..10) == 0 {
            order.swap(nth - 1, nth);
        }
    }
    let waits = waits(order.into_iter().map(|nth| range(nth * MIB, MIB)));
    assert!(waits.last(1000) <= 10, "{}", waits.last(1000));
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

/// The headers of a tar file's members, and messages of a GRIB file that are wanted.
#[test]
fn what_is_left_out_between_small_steps_is_fetched_as_well() {
    let mut random = fastrand::Rng::with_seed(6);
    for (len, most) in [(12 * KIB, MIB), (12 * KIB, 7 * MIB), (700 * KIB, 7 * MIB)] {
        let mut at = 100 * MIB;
        let reads = (0..200).map(|_| {
            let read = range(at, len);
            at = read.end() + random.u64(most / 8..most);
            read
        });
        let waits = waits(reads.collect::<Vec<_>>());
        assert!(waits.last(190) <= 2, "{len}, {most}: {waits:?}");
        assert!(waits.fetched <= at - 99 * MIB + 64 * MIB, "{waits:?}");
    }
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

/// Reads that go back and forth within some MiB look like scans now and then.
#[test]
fn reads_back_and_forth_are_taken_for_a_scan_but_twice() {
    let mut random = fastrand::Rng::with_seed(8);
    for span in [20, 200] {
        let at = |random: &mut fastrand::Rng| GIB + random.u64(..span * MIB / 4096) * 4096;
        let waits = waits((0..500).map(|_| range(at(&mut random), 4 * KIB)));
        assert!(waits.fetched <= (span + 50) * MIB, "{}", waits.fetched);
    }
}
