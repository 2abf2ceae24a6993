//! What is fetched for many readers at once, and within how much memory.

use std::fs::File;

use crate::fetching::{far_away, objects, one, read};
use crate::support::{Mount, computed};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[test]
fn sixteen_processes_share_the_run_through_a_directory() {
    const FILES: u64 = 480;
    let key = |i: u64| format!("run/{i:04}.nc");
    let world = objects((0..FILES).map(|i| (key(i), 50 * KIB)));
    let mount = Mount::new(&world);
    mount.names("run");
    far_away(&world);
    world.reset_counters();
    std::thread::scope(|scope| {
        for reader in 0..16 {
            let mount = &mount;
            scope.spawn(move || {
                for i in (reader..FILES).step_by(16) {
                    assert!(mount.read(&key(i)) == computed(&key(i), 0, 51_200), "{i}");
                }
            });
        }
    });
    let fetched = world.counters().body_bytes;
    // Where the machine stalls, a read or two may be hedged.
    let expected = FILES * 50 * KIB..=(FILES + 3) * 50 * KIB;
    assert!(expected.contains(&fetched), "each once: {fetched}");
}

#[test]
fn a_thousand_open_files_are_read_at_once_within_the_limit() {
    let key = |i: u64| format!("{:02}/{i:04}", i % 50);
    let world = objects((0..1000).map(|i| (key(i), MIB)));
    let mount = Mount::with_args(&world, &["--memory-limit", "64MiB"]);
    let open = |i| File::open(mount.path(key(i))).expect("open");
    let files: Vec<_> = (0..1000).map(open).collect();
    std::thread::scope(|scope| {
        for (files, first) in files.chunks(10).zip((0..).step_by(10)) {
            scope.spawn(move || {
                for (file, i) in files.iter().zip(first..) {
                    read(file, &key(i), 0, MIB);
                }
            });
        }
    });
    let peak = mount.peak_rss();
    assert!(peak <= (64 + 100) * MIB, "{} MiB", peak / MIB);
}

#[test]
fn sixty_four_readers_of_their_own_part_of_one_object_fetch_it_about_once() {
    let part = 4 * MIB;
    let (world, mount, file) = one(64 * part);
    drop(file);
    std::thread::scope(|scope| {
        for reader in 0..64 {
            let file = File::open(mount.path("one")).expect("open");
            scope.spawn(move || {
                for step in 0..4 {
                    read(&file, "one", reader * part + step * MIB, MIB);
                }
            });
        }
    });
    // Some read ahead into parts whose readers are far from their start already.
    let fetched = world.counters().body_bytes;
    assert!(fetched <= 64 * part * 120 / 100, "{fetched}");
}

#[test]
fn readers_over_block_borders_come_through_with_the_least_memory() {
    let world = objects([("one".to_owned(), GIB)]);
    let mount = Mount::with_args(&world, &["--memory-limit", "16MiB"]);
    std::thread::scope(|scope| {
        for reader in 0..100 {
            let file = File::open(mount.path("one")).expect("open");
            scope.spawn(move || {
                for step in 0..5 {
                    let block = 1 + (reader * 613 + step * 7919) % 1000;
                    read(&file, "one", block * MIB - 100_000, 300_000);
                }
            });
        }
    });
    let peak = mount.peak_rss();
    assert!(peak <= (16 + 100) * MIB, "{} MiB", peak / MIB);
}
