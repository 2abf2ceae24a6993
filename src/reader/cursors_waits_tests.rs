//! Which reads wait for S3, and how much is fetched, over whole sequences of reads.

use std::time::Duration;

use super::*;
use crate::reader::strides::PAGE;
use crate::s3::pretended::range;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

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

/// Some variables of each record of a netCDF-3 file; u and v of the wind, step by step, each from its own array.
#[test]
fn sequences_of_equal_steps_go_on_in_turn() {
    let records = [(0, 26 * MIB), (15 * MIB + 5000, 26 * MIB)];
    let winds = [(0, 3 * MIB), (GIB, 5 * MIB)];
    let variables = [1, 2, 3, 4, 5].map(|nth| (nth * 400 * MIB, 700_001));
    for arrays in [&records[..], &winds, &variables] {
        let step = |nth: u64| {
            let of = move |(begin, step): &(u64, u64)| {
                range((begin + nth * step) / 4096 * 4096, 100 * KIB)
            };
            arrays.iter().map(of)
        };
        let waits = waits((1..100).flat_map(step));
        let later = 85 * arrays.len();
        assert!(waits.last(later) <= 2, "{arrays:?}: {waits:?}");
        assert!(waits.fetched <= 2 * waits.read, "{arrays:?}: {waits:?}");
    }
}

/// A part of an array of three dimensions.
#[test]
fn the_rows_of_each_plane_cost_two_waits_at_most() {
    let rows = |plane: u64| (0..20).map(move |row| range(plane * 64 * MIB + row * MIB, 128 * KIB));
    let far = waits((0..20).flat_map(rows));
    assert!(far.last(18 * 20) <= 18 * 2, "{far:?}");
    assert!(far.fetched <= far.read / 2 * 3, "{far:?}");
    // Planes that lie anywhere.
    let mut random = fastrand::Rng::with_seed(9);
    let planes: Vec<_> = (0..20).map(|_| random.u64(..60)).collect();
    let anywhere = waits(planes.into_iter().flat_map(rows));
    assert!(anywhere.last(18 * 20) <= 18 * 2, "{anywhere:?}");
}

/// Rows of most arrays are no multiple of a page long, and the kernel rounds what is read of them: what one step
/// tells of the next two hundred is off by two hundred pages, and what those of the plane before tell is not.
#[test]
fn nor_do_those_that_are_no_whole_pages_long() {
    const ROWS: usize = 200;
    const PLANES: usize = 8;
    for (len, step) in [
        (8_000, 144_000),
        (40_000, 400_000),
        (3_000, 14_400),
        (8_000, 28_800),
    ] {
        let row = |nth: usize| {
            let (plane, nth) = ((nth / ROWS) as u64, (nth % ROWS) as u64);
            let start = (720 * plane + nth) * step + 41 * MIB + 77;
            let pages = start / PAGE * PAGE..(start + len).next_multiple_of(PAGE);
            range(pages.start, pages.end - pages.start)
        };
        let waits = waits((0..ROWS * PLANES).map(row));
        let planes = waits.last((PLANES - 2) * ROWS);
        assert!(
            planes <= 4 * (PLANES - 2),
            "{planes} waits at steps of {step}"
        );
    }
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
fn two_who_leave_out_what_they_like_are_told_apart() {
    let mut random = fastrand::Rng::with_seed(10);
    let mut at = [GIB, 3 * GIB];
    let reads = (0..300).map(|nth| {
        let at = &mut at[nth % 2];
        *at += random.u64(MIB..4 * MIB);
        range(*at, 16 * KIB)
    });
    let waits = waits(reads.collect::<Vec<_>>());
    assert!(waits.last(280) <= 2, "{waits:?}");
}
