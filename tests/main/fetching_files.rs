//! What is fetched of files that are read in turn, ahead of who opens them: counts, not times.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mock_earthdata::{Fault, FaultRule, Op};

use crate::fetching::{far_away, objects, read, until_idle};
use crate::support::{Mount, computed, eventually};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

#[test]
fn a_look_at_the_header_does_not_fetch_the_file() {
    let count = 20;
    // Of some kinds more is fetched, until it turns out to be in vain.
    for (kind, tries) in [("h5", 0), ("nc", 2)] {
        let key = |i: u64| format!("{i:03}/granule.{kind}");
        let world = objects((0..count).map(|i| (key(i), 6 * MIB)));
        let mount = Mount::new(&world);
        for i in 0..count {
            let file = File::open(mount.path(key(i))).expect("open");
            read(&file, &key(i), 0, 512);
        }
        let fetched = world.counters().body_bytes;
        assert!(
            fetched <= count * 256 * KIB + tries * 4 * MIB,
            "{kind}: {fetched}"
        );
    }
}

/// As `grep -m 1` and `head -c` do.
#[test]
fn who_looks_at_the_beginning_of_one_small_file_after_the_other_does_not_fetch_them_all() {
    const FILES: u64 = 30;
    let key = |nth: u64| format!("{nth}/one");
    let world = objects((0..=FILES).map(|nth| (key(nth), 5 * MIB)));
    let mount = Mount::new(&world);
    let look = |nth: u64| {
        let file = File::open(mount.path(key(nth))).expect("open");
        read(&file, &key(nth), 0, 128 * KIB);
        until_idle(&world);
        file
    };
    (0..FILES / 2).for_each(|nth| drop(look(nth)));
    world.reset_counters();
    let files: Vec<_> = (FILES / 2..FILES).map(look).collect();
    let fetched = world.counters().body_bytes;
    assert!(fetched < FILES * MIB, "{fetched}");
    // Until they are read on.
    for (nth, file) in (FILES / 2..).zip(&files) {
        read(file, &key(nth), 2 * MIB, 4 * KIB);
    }
    world.reset_counters();
    drop(look(FILES));
    assert!(world.counters().body_bytes > 4 * MIB);
}

/// A sample of each granule, none of which is worth all of it.
#[test]
fn files_of_which_little_is_read_here_and_there_do_not_come_whole_one_after_the_other() {
    let key = |nth: u64| format!("run/{nth}.h5");
    let world = objects((0..10).map(|nth| (key(nth), 100 * MIB)));
    far_away(&world);
    let mount = Mount::new(&world);
    let sample = |nth: u64| {
        let file = File::open(mount.path(key(nth))).expect("open");
        for place in [50, 3, 81, 27, 64, 12] {
            read(&file, &key(nth), (place + nth) * MIB, 4 * KIB);
        }
    };
    (0..5).for_each(sample);
    until_idle(&world);
    world.reset_counters();
    (5..10).for_each(sample);
    until_idle(&world);
    let fetched = world.counters().body_bytes;
    assert!(fetched < 30 * MIB, "{fetched}");
}

#[test]
fn files_in_listing_order_are_fetched_before_they_are_opened_and_once() {
    read_in_order(0..200);
}

/// The latest day first.
#[test]
fn files_from_the_last_one_back_are_fetched_before_they_are_opened_and_once() {
    read_in_order((300..500).rev());
}

/// Reads 200 of 1,000 files.
fn read_in_order(order: impl Iterator<Item = u64>) {
    const FILES: u64 = 200;
    let key = |i: u64| format!("run/{i:04}.nc");
    let world = objects((0..1000).map(|i| (key(i), 100 * KIB)));
    let mount = Mount::new(&world);
    assert_eq!(mount.names("run").len(), 1000);
    far_away(&world);
    world.reset_counters();
    for i in order {
        assert!(mount.read(&key(i)) == computed(&key(i), 0, 102_400), "{i}");
    }
    let counters = world.counters();
    let mut fetched = world.requests();
    fetched.retain(|request| request.op == Op::Get);
    let ahead = fetched.len() as u64 - FILES;
    assert!(ahead <= 48, "{ahead} files fetched that nobody read");
    assert!(counters.depth <= 60, "{} waited in turn", counters.depth);
    fetched.sort_by(|a, b| a.key.cmp(&b.key));
    let twice = fetched.windows(2).find(|two| two[0].key == two[1].key);
    assert!(twice.is_none(), "{twice:?}");
}

/// What is fetched ahead may have to wait for a connection until others have got what they wait for.
#[test]
fn files_fetched_ahead_beside_a_stream_over_a_slow_link_come_as_soon_as_somebody_waits() {
    const FILES: u64 = 12;
    let key = |i: u64| format!("run/{i:04}.nc");
    let big = ("big".to_owned(), 4 << 30);
    let world = objects((0..100).map(|i| (key(i), KIB)).chain([big]));
    let mount = Mount::with_args(&world, &["--max-connections", "16"]);
    assert_eq!(mount.names("run").len(), 100);
    let mut stream = Command::new("dd")
        .arg(format!("if={}", mount.path("big").display()))
        .args(["of=/dev/null", "bs=1M"])
        .stderr(Stdio::null())
        .spawn()
        .expect("dd runs");
    eventually("it streams", || world.counters().body_bytes > 64 * MIB);
    // Each of its GETs takes half a minute from now on.
    let slow = FaultRule::on(Op::Get).key("big");
    world.script(slow.fault(Fault::Trickle(40_000)));
    eventually("all that may be under way ahead is", || {
        world.rule_counts()[0].matched >= 12 && world.counters().in_flight >= 12
    });
    let begin = Instant::now();
    for i in 0..FILES {
        assert!(mount.read(&key(i)) == computed(&key(i), 0, 1024), "{i}");
    }
    let took = begin.elapsed();
    stream.kill().expect("kill");
    stream.wait().expect("it is gone");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let mut fetched = world.requests();
    fetched.retain(|request| request.op == Op::Get && request.key != "big");
    fetched.sort_by(|a, b| a.key.cmp(&b.key));
    let twice = fetched.windows(2).find(|two| two[0].key == two[1].key);
    assert!(twice.is_none(), "{twice:?}");
}

/// Three of the fifteen files of each granule.
#[test]
fn some_bands_of_each_granule_are_fetched_before_they_are_opened_and_no_others() {
    const GRANULES: u64 = 40;
    let granule = |nth: u64| format!("HLS.L30.T55GEM.2021{nth:03}.v2.0");
    let key = |nth: u64, band: &str| format!("{0}/{0}.{band}.tif", granule(nth));
    let bands: Vec<_> = (1..=14).map(|band| format!("B{band:02}")).collect();
    let files = (0..2 * GRANULES).flat_map(|nth| bands.iter().map(move |band| key(nth, band)));
    let masks = (0..2 * GRANULES).map(|nth| key(nth, "Fmask"));
    let world = objects(files.chain(masks).map(|key| (key, 100 * KIB)));
    let mount = Mount::new(&world);
    far_away(&world);
    for nth in 0..GRANULES {
        for band in ["B05", "B04", "Fmask"] {
            let key = key(nth, band);
            assert!(mount.read(&key) == computed(&key, 0, 102_400), "{key}");
        }
    }
    until_idle(&world);
    let fetched: Vec<_> = world.requests();
    let fetched: Vec<_> = fetched
        .iter()
        .filter(|request| request.op == Op::Get)
        .collect();
    let is_read = |key: &str| {
        ["B05", "B04", "Fmask"]
            .iter()
            .any(|band| key.contains(band))
    };
    let others = fetched
        .iter()
        .filter(|request| !is_read(&request.key))
        .count();
    assert!(others <= 8, "{others} files fetched that nobody asked for");
    let ahead = fetched.len() as u64 - 3 * GRANULES;
    assert!(ahead <= 40, "{ahead} files fetched that nobody read");
    let depth = world.counters().depth;
    assert!(depth <= 60, "{depth} waited in turn");
}

/// Reads the header of each of these files, of 20 MiB, and a row of each of six levels.
fn read_boxes(mount: &Mount, keys: &[String]) {
    for key in keys {
        let file = File::open(mount.path(key)).expect("open");
        read(&file, key, 0, 8 * KIB);
        for level in 0..6 {
            read(&file, key, 3 * MIB + level * 2_500_000, 40 * KIB);
        }
    }
}

/// The same box of each day, as a time series is made.
#[test]
fn files_of_a_collection_are_fetched_where_those_before_were_read() {
    const FILES: usize = 40;
    let key = |i: usize| format!("day/sst{i:04}.dat");
    let world = objects((0..100).map(|i| (key(i), 20 * MIB)));
    let mount = Mount::new(&world);
    assert_eq!(mount.names("day").len(), 100);
    far_away(&world);
    world.reset_counters();
    let keys: Vec<_> = (0..FILES).map(key).collect();
    read_boxes(&mount, &keys);
    let counters = world.counters();
    // Seven for each of two, and then one now and then.
    assert!(counters.depth <= 32, "{} waited in turn", counters.depth);
    until_idle(&world);
    // First bytes, and the rows with what surrounds them, of ten more at the end; two of the first came whole.
    let fetched = world.counters().body_bytes;
    assert!(fetched <= 90 * MIB, "{fetched}");
}

/// Tables of contents of Parquet or zip files, each as long as it happens to be.
#[test]
fn files_that_are_read_at_their_end_are_fetched_there() {
    const FILES: u64 = 40;
    let key = |i: u64| format!("part/{i:04}.parquet");
    let size = |i: u64| 20 * MIB + i * 12_345;
    let world = objects((0..100).map(|i| (key(i), size(i))));
    let mount = Mount::new(&world);
    assert_eq!(mount.names("part").len(), 100);
    far_away(&world);
    world.reset_counters();
    for i in 0..FILES {
        let file = File::open(mount.path(key(i))).expect("open");
        read(&file, &key(i), size(i) - 64 * KIB, 64 * KIB);
    }
    let counters = world.counters();
    // As many are ahead as a quarter of what was read, and at least four.
    assert!(counters.depth <= 13, "{} waited in turn", counters.depth);
    until_idle(&world);
    let counters = world.counters();
    // One each, also of ten more at the end, and two or three of the first ones.
    let (requests, fetched) = (counters.get, counters.body_bytes);
    assert!(requests <= 64, "{requests}");
    assert!(fetched <= 64 * 96 * KIB, "{fetched}");
}

#[test]
fn files_of_a_collection_in_any_order_and_place_take_one_round_trip_each() {
    const FILES: usize = 20;
    let key = |i: usize| format!("{}/{}/sst{i:04}.dat", 2000 + i / 5, i % 5);
    let world = objects((0..FILES).map(|i| (key(i), 20 * MIB)));
    let mount = Mount::new(&world);
    let mut keys: Vec<_> = (0..FILES).map(key).collect();
    fastrand::Rng::with_seed(3).shuffle(&mut keys);
    // As xarray's open_mfdataset holds them.
    let open = |key: &String| File::open(mount.path(key)).expect("open");
    let files: Vec<_> = keys.iter().map(open).collect();
    far_away(&world);
    world.reset_counters();
    read_boxes(&mount, &keys);
    let counters = world.counters();
    // Seven for each of two, and then one.
    let most = 2 * 7 + FILES as u64;
    assert!(counters.depth <= most, "{} waited in turn", counters.depth);
    drop(files);
}

#[test]
fn who_reads_files_to_their_end_finds_the_next_ones_there_whole() {
    const FILES: u64 = 30;
    let key = |i: u64| format!("run/{i:04}.nc");
    let world = objects((0..60).map(|i| (key(i), 6 * MIB)));
    let mount = Mount::new(&world);
    assert_eq!(mount.names("run").len(), 60);
    far_away(&world);
    world.reset_counters();
    for i in 0..FILES {
        assert!(mount.read(&key(i)) == computed(&key(i), 0, 6 << 20), "{i}");
    }
    let counters = world.counters();
    // Of the first ones each costs two or three.
    assert!(counters.depth <= 24, "{} waited in turn", counters.depth);
    until_idle(&world);
    let read = FILES * 6 * MIB;
    let fetched = world.counters().body_bytes;
    assert!(fetched >= read && fetched <= 2 * read, "{fetched}");
    for i in FILES..60 {
        assert!(mount.read(&key(i)) == computed(&key(i), 0, 6 << 20), "{i}");
    }
    assert_eq!(world.counters().body_bytes, 2 * read, "each byte once");
}
