//! What is fetched of a file, when, and in how many requests: counts, not times. `fetching_files` has files that are
//! read in turn, `fetching_many` many readers.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use mock_earthdata::{Content, Counters, Fault, FaultRule, Op, Shape, World};

use crate::support::{Mount, PATIENCE, computed, world};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

pub(crate) fn objects(keys: impl IntoIterator<Item = (String, u64)>) -> World {
    world(
        keys.into_iter()
            .map(|(key, size)| (key, Content::Synthetic { size })),
    )
}

pub(crate) fn one(size: u64) -> (World, Mount, File) {
    let world = objects([("one".to_owned(), size)]);
    let mount = Mount::new(&world);
    let file = File::open(mount.path("one")).expect("open");
    world.reset_counters();
    (world, mount, file)
}

/// Reads and compares.
pub(crate) fn read(file: &File, key: &str, offset: u64, len: u64) {
    let mut bytes = vec![0; usize::try_from(len).expect("small")];
    file.read_exact_at(&mut bytes, offset).expect("a read");
    assert!(
        bytes == computed(key, offset, bytes.len()),
        "{key} {offset}"
    );
}

/// Answers as far away as S3's, so that what is asked for side by side is seen to be so.
pub(crate) fn far_away(world: &World) {
    world.set_shape(Shape {
        first_byte: Duration::from_millis(40),
        ..Shape::default()
    });
}

/// Until nothing is under way, nor about to be.
pub(crate) fn until_idle(world: &World) {
    let begin = Instant::now();
    let mut idle = 0;
    while idle < 3 {
        assert!(begin.elapsed() < PATIENCE, "still fetching");
        std::thread::sleep(Duration::from_millis(10));
        let is_idle = world.counters().in_flight == 0;
        idle = if is_idle { idle + 1 } else { 0 };
    }
}

fn until_fetched(world: &World, bytes: u64) {
    let begin = Instant::now();
    while world.counters().body_bytes < bytes {
        assert!(begin.elapsed() < PATIENCE, "{:?}", world.counters());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_closed_file_stops_fetching() {
    let (world, _mount, file) = one(4 * GIB);
    world.set_shape(Shape {
        bytes_per_second: Some(20_000_000),
        ..Shape::default()
    });
    for offset in (0..6 * MIB).step_by(1 << 20) {
        read(&file, "one", offset, MIB);
    }
    drop(file);
    until_idle(&world);
    let fetched = world.counters().body_bytes;
    assert!(fetched <= 32 * MIB, "{fetched}");
}

/// As a loop in the shell does, which runs a program for each time step.
#[test]
fn who_opens_a_file_again_and_again_finds_there_what_comes_next() {
    let step = |nth: u64| (nth * 10 * MIB + 3 * MIB, 600 * KIB);
    let piece = |nth: u64| (nth * 4 * MIB + 4 * KIB, 4 * MIB);
    let ways: [&dyn Fn(u64) -> (u64, u64); 2] = [&step, &piece];
    for (way, place) in ways.into_iter().enumerate() {
        let world = objects([("one".to_owned(), GIB)]);
        let mount = Mount::with_args(&world, &["--operation-timeout", "5"]);
        far_away(&world);
        let visit = |nth| {
            let open = || File::open(mount.path("one")).expect("open");
            // To see what it is: the kernel has that.
            drop(open());
            let file = open();
            let (start, len) = place(nth);
            read(&file, "one", start, len);
            drop(file);
            until_idle(&world);
        };
        (0..12).for_each(visit);
        world.script(FaultRule::on(Op::Get).fault(Fault::InternalError));
        visit(12);
        world.clear_faults();
        (13..20).for_each(visit);
        let (_, len) = place(0);
        let fetched = world.counters().body_bytes;
        assert!(fetched <= 20 * len + 40 * MIB, "{way}: {fetched}");
    }
}

#[test]
fn equal_strides_are_fetched_and_not_what_lies_between() {
    let (world, _mount, file) = one(GIB);
    for step in 1..50 {
        read(&file, "one", step * 17 * MIB, MIB);
    }
    let counters = world.counters();
    // Of the strides ahead at the end, eleven are behind the last one read.
    assert!(counters.body_bytes <= 64 * MIB, "{}", counters.body_bytes);
    assert!(counters.get <= 70, "{} GETs", counters.get);
}

/// u and v of the wind, step by step, each from its own array.
#[test]
fn arrays_that_are_read_in_turn_do_not_wait_for_each_read() {
    let (world, _mount, file) = one(GIB);
    far_away(&world);
    world.reset_counters();
    for step in 1..100 {
        read(&file, "one", step * 3_000_001, 64 * KIB);
        read(&file, "one", GIB / 2 + step * 5_000_001, 96 * KIB);
    }
    let counters = world.counters();
    assert!(counters.depth <= 32, "{} waited in turn", counters.depth);
    assert!(counters.get <= 350, "{} GETs for 198 reads", counters.get);
    assert!(counters.body_bytes <= 32 * MIB, "{}", counters.body_bytes);
}

/// As `tar -t` reads the headers of members.
#[test]
fn a_reader_that_leaves_out_what_it_likes_does_not_wait_for_each_read() {
    let (world, _mount, file) = one(GIB);
    far_away(&world);
    world.reset_counters();
    let mut random = fastrand::Rng::with_seed(1);
    let mut at = 5 * MIB;
    for _ in 0..150 {
        read(&file, "one", at, 10 * KIB);
        at += random.u64(MIB..4 * MIB);
    }
    let counters = world.counters();
    assert!(counters.depth <= 32, "{} waited in turn", counters.depth);
    assert!(counters.get <= 300, "{} GETs for 150 reads", counters.get);
    let most = at + 160 * MIB;
    assert!(counters.body_bytes <= most, "{}", counters.body_bytes);
}

#[test]
fn a_backward_reader_does_not_wait_for_each_read() {
    let (world, _mount, file) = one(GIB);
    far_away(&world);
    world.reset_counters();
    for step in 1..=512 {
        read(&file, "one", GIB / 2 - step * 64 * KIB, 64 * KIB);
    }
    let counters = world.counters();
    assert!(counters.depth <= 24, "{} waited in turn", counters.depth);
    assert!(counters.get <= 70, "{} GETs for 512 reads", counters.get);
    assert!(counters.body_bytes <= 52 * MIB, "{}", counters.body_bytes);
}

#[test]
fn small_reads_in_one_region_of_a_large_object_need_few_requests() {
    let (world, _mount, file) = one(GIB);
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..1000 {
        read(
            &file,
            "one",
            600 * MIB + random.u64(0..1024) * 4 * KIB,
            4 * KIB,
        );
    }
    let counters = world.counters();
    assert!(counters.get <= 64, "{} GETs for 1,000 reads", counters.get);
    assert!(counters.body_bytes <= 16 * MIB, "{}", counters.body_bytes);
}

#[test]
fn random_reads_fetch_little_more_than_they_ask_for() {
    for (len, most) in [(64 * KIB, 130), (4 * KIB, 2000)] {
        let (world, _mount, file) = one(8 * GIB);
        let mut random = fastrand::Rng::with_seed(len);
        let reads = 200;
        for _ in 0..reads {
            read(&file, "one", MIB + random.u64(0..2_000_000) * 4 * KIB, len);
        }
        let fetched = world.counters().body_bytes;
        assert!(fetched * 100 <= reads * len * most, "{fetched} for {len}");
    }
}

#[test]
fn the_tail_of_a_file_comes_with_the_first_read_there() {
    let (world, _mount, file) = one(GIB);
    // As zip files are opened: the end of the central directory, then all of it.
    read(&file, "one", GIB - 22, 22);
    read(&file, "one", GIB - 200 * KIB, 200 * KIB);
    let counters = world.counters();
    assert_eq!(counters.get, 1);
    assert!(counters.body_bytes <= 256 * KIB, "{}", counters.body_bytes);
}

/// What it takes to read a file of 5 MiB in order, piece by piece.
fn file_of_5_mib(piece: u64) -> Counters {
    let world = objects([("one".to_owned(), 5 * MIB)]);
    let mount = Mount::new(&world);
    far_away(&world);
    let file = File::open(mount.path("one")).expect("open");
    world.reset_counters();
    for nth in 0..5 * MIB / piece {
        read(&file, "one", nth * piece, piece);
    }
    world.counters()
}

#[test]
fn a_file_of_5_mib_is_asked_for_at_once() {
    let counters = file_of_5_mib(MIB);
    // Over so many connections that it is here one and a quarter round trips later.
    assert_eq!((counters.get, counters.depth), (10, 1));
    assert_eq!(counters.body_bytes, 5 * MIB);
}

/// As `cat` reads, and as the kernel begins for it.
#[test]
fn a_file_of_5_mib_that_is_read_by_little_is_asked_for_at_once() {
    let counters = file_of_5_mib(128 * KIB);
    assert_eq!(counters.body_bytes, 5 * MIB);
    assert_eq!(counters.depth, 1, "{counters:?}");
}

/// A chunk of an array, say.
#[test]
fn long_reads_are_asked_for_by_halves_beside_few_others() {
    let (world, _mount, file) = one(GIB);
    far_away(&world);
    read(&file, "one", 700 * MIB, MIB);
    until_idle(&world);
    world.reset_counters();
    read(&file, "one", 500 * MIB, MIB);
    let counters = world.counters();
    assert_eq!((counters.get, counters.depth), (2, 1));
    assert_eq!(counters.body_bytes, MIB);
}

/// The first bytes come as the file is looked up, and the rest of the header not with them: who reads on finds it all
/// the same.
#[test]
fn who_reads_on_behind_first_bytes_that_were_there_does_not_wait_where_they_end() {
    let world = objects([("one.bin".to_owned(), 100 * MIB)]);
    let mount = Mount::new(&world);
    // By itself the kernel would read ahead of these.
    let mut direct = OpenOptions::new();
    direct.read(true).custom_flags(libc::O_DIRECT);
    let file = direct.open(mount.path("one.bin")).expect("open");
    read(&file, "one.bin", 0, 4096);
    until_idle(&world);
    assert_eq!(world.counters().get, 1, "with the name");
    read(&file, "one.bin", 4096, 4096);
    until_idle(&world);
    let known = world.requests().len();
    for offset in (8 * KIB..256 * KIB).step_by(4096) {
        read(&file, "one.bin", offset, 4096);
    }
    let later = world.requests().split_off(known);
    let start = |range: &str| range[6..].split('-').next()?.parse::<u64>().ok();
    let mut starts = later.iter().filter_map(|get| start(get.range.as_deref()?));
    assert!(starts.all(|start| start >= MIB), "{later:?}");
}

/// Also where the file is closed in between, as netCDF-C does.
#[test]
fn what_is_mostly_read_next_comes_with_the_header() {
    let keys = ["a.tif", "a.nc", "a.h5"];
    let world = objects(keys.map(|key| (key.to_owned(), 20 * MIB)));
    let mount = Mount::new(&world);
    far_away(&world);
    for key in keys {
        let open = || File::open(mount.path(key)).expect("open");
        let file = open();
        until_idle(&world);
        world.reset_counters();
        read(&file, key, 0, 4 * KIB);
        drop(file);
        if key == "a.h5" {
            read(&open(), key, 3 * MIB / 2, 4 * KIB);
            until_idle(&world);
            assert!(world.counters().body_bytes < MIB, "another kind of file");
            continue;
        }
        until_fetched(&world, 4 * MIB - 64 * KIB);
        assert_eq!(world.counters().depth, 1, "{key}");
        world.reset_counters();
        read(&open(), key, 3 * MIB / 2, 4 * KIB);
        assert_eq!(world.counters().get, 0, "{key}");
    }
}

#[test]
fn an_object_whose_readers_wait_again_and_again_comes_whole_and_once() {
    let size = 96 * MIB;
    let (world, _mount, file) = one(size);
    far_away(&world);
    let mut random = fastrand::Rng::with_seed(3);
    let mut places: Vec<_> = (1..90).collect();
    random.shuffle(&mut places);
    // Few are enough, unless the machine is so busy that the network seems slow.
    let mut waited = 0;
    for place in places {
        read(&file, "one", place * MIB, 4 * KIB);
        waited += u64::from(world.counters().body_bytes < size);
    }
    until_fetched(&world, size);
    let counters = world.counters();
    assert_eq!(counters.body_bytes, size);
    assert!(counters.get <= 98 + waited, "{} GETs", counters.get);
}

/// So that readers find connections, and never wait for many parts that nobody reads.
#[test]
fn an_object_comes_whole_later_where_the_network_is_slow() {
    let size = 96 * MIB;
    let (world, _mount, file) = one(size);
    world.set_shape(Shape {
        first_byte: Duration::from_millis(20),
        link_bytes_per_second: Some(40_000_000),
        ..Shape::default()
    });
    for place in [50, 3, 81, 27] {
        read(&file, "one", place * MIB, 4 * KIB);
    }
    until_fetched(&world, 30 * MIB);
    until_idle(&world);
    let fetched = world.counters().body_bytes;
    assert!(fetched <= 50 * MIB, "{fetched}");
    // Who reads all over it waits longer than for the rest.
    let mut places: Vec<_> = (0..96).collect();
    fastrand::Rng::with_seed(4).shuffle(&mut places);
    for place in places {
        read(&file, "one", place * MIB + 512 * KIB, 4 * KIB);
    }
    until_fetched(&world, size);
    // What is slower than nearly all before it is asked for twice.
    let fetched = world.counters().body_bytes;
    assert!(fetched <= size / 20 * 21, "{fetched}");
}

#[test]
fn objects_that_come_whole_do_not_push_one_another_out() {
    let size = 96 * MIB;
    let world = objects(["a", "b"].map(|key| (key.to_owned(), size)));
    let mount = Mount::with_args(&world, &["--memory-limit", "192MiB"]);
    far_away(&world);
    let file = |key: &str| File::open(mount.path(key)).expect("open");
    let a = file("a");
    let read_around = |file: &File, key| {
        for place in [50, 3, 81, 27, 64, 12, 90, 40, 70, 20] {
            read(file, key, place * MIB, 4 * KIB);
        }
    };
    read_around(&a, "a");
    until_fetched(&world, size);
    world.reset_counters();
    read_around(&file("b"), "b");
    until_idle(&world);
    assert!(world.counters().body_bytes < 10 * MIB, "no room for both");
    drop(a);
    world.reset_counters();
    let b = file("b");
    for place in 1..40 {
        read(&b, "b", place * 37 % 95 * MIB + 500 * KIB, 4 * KIB);
    }
    until_fetched(&world, size * 9 / 10);
}

#[test]
fn an_answer_that_is_slow_to_come_is_asked_for_once_more() {
    let world = objects([("one".to_owned(), 64 * GIB)]);
    // A read that waits for the slow answer fails.
    let mount = Mount::with_args(&world, &["--operation-timeout", "10"]);
    let file = File::open(mount.path("one")).expect("open");
    let mut random = fastrand::Rng::with_seed(1);
    let mut read_somewhere = || read(&file, "one", random.u64(1..65_000) * MIB, 4 * KIB);
    for _ in 0..100 {
        read_somewhere();
    }
    world.reset_counters();
    world.script(
        FaultRule::on(Op::Get)
            .times(1)
            .fault(Fault::StallBefore(None)),
    );
    read_somewhere();
    assert_eq!(world.counters().get, 2);
}
