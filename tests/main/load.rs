//! Much at once, and with little to do it with: memory, descriptors, processor. All is bounded and comes to
//! an end; how long that takes is for `scripts/bench`.
//!
//! `fetching_many` has more of it: a thousand open files within 64 MiB, and a hundred readers over block borders
//! with the least memory there may be.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use mock_earthdata::{Content, World};

use crate::ordinary::is_root;
use crate::support::{BUCKET, Mount, PATIENCE, computed, fails, program, started_by, world_with};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// What the program may take beyond its limit, see docs/performance.md.
const BESIDE: u64 = 100 * MIB;

/// A world that costs as little as it can: so many objects of one size, with names of eight digits.
fn lean(count: u64, size: u64) -> World {
    let objects = (0..count).map(|i| (key(i), Content::Synthetic { size }));
    world_with(objects, |settings| settings.lean = true)
}

fn key(i: u64) -> String {
    format!("run/{i:08}.nc")
}

/// Reads, and compares what was read.
fn read(file: &File, key: &str, offset: u64, len: u64) -> io::Result<()> {
    let mut bytes = vec![0; usize::try_from(len).expect("small")];
    file.read_exact_at(&mut bytes, offset)?;
    assert!(
        bytes == computed(key, offset, bytes.len()),
        "{key} at {offset}"
    );
    Ok(())
}

/// Readers of their own part of one object, all at once: each reads `reads` times `len` bytes, one after
/// the other. What failed.
fn readers(mount: &Mount, count: u64, reads: u64, len: u64) -> Vec<io::Error> {
    let part = GIB / 1024 * 1000 / count;
    std::thread::scope(|scope| {
        let reader = |reader| {
            let read_all = move || {
                let file = File::open(mount.path(key(0)))?;
                (0..reads).try_for_each(|i| read(&file, &key(0), reader * part + i * len, len))
            };
            scope.spawn(read_all)
        };
        let all: Vec<_> = (0..count).map(reader).collect();
        let ended = all
            .into_iter()
            .map(|one| one.join().expect("right bytes").err());
        ended.flatten().collect()
    })
}

fn assert_bounded(mount: &Mount, limit: u64) {
    let peak = mount.peak_rss();
    assert!(peak <= limit + BESIDE, "{} MiB", peak / MIB);
}

/// The descriptors that the program has open.
fn descriptors(mount: &Mount) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", mount.pid()));
    open.expect("procfs").count()
}

fn set_descriptor_limit(soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `limit` is a valid structure that outlives the call.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The program with no more than so many descriptors.
fn with_descriptors(world: &World, most: u64, args: &[&str]) -> Mount {
    let mut command = program(world);
    command.args(args);
    // SAFETY: setrlimit may be called between fork and exec.
    unsafe { command.pre_exec(move || set_descriptor_limit(most, most)) };
    Mount::with(command, BUCKET)
}

#[test]
fn a_thousand_readers_at_once() {
    let world = lean(1, GIB);
    let mount = Mount::with_args(&world, &["--memory-limit", "64MiB"]);
    let failed = readers(&mount, 1000, 3, 64 * KIB);
    assert!(failed.is_empty(), "{failed:?}\n{}", mount.log());
    assert_bounded(&mount, 64 * MIB);
}

/// A batch system's limit of addresses (`ulimit -v`, h_vmem): data takes less, or there is no mount.
#[test]
fn few_addresses_are_enough_or_the_mount_says_so() {
    let with = |world: &World, limit: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit {limit}; exec \"$@\""), "sh"]);
        started_by(shell, &program(world))
    };
    let world = lean(4, GIB);
    for limit in ["-v 1400000", "-d 1400000"] {
        let mount = Mount::with(with(&world, limit), BUCKET);
        let failed = readers(&mount, 200, 40, 256 * KIB);
        assert!(failed.is_empty(), "{limit}: {failed:?}\n{}", mount.log());
        // Of which little is read have addresses for all of it: 1,000 blocks are more than there are.
        let file = File::open(mount.path(key(0))).expect("open");
        let mut blocks: Vec<u64> = (0..1000).collect();
        fastrand::Rng::with_seed(1).shuffle(&mut blocks);
        for block in blocks {
            // Also over the border to the next one.
            let place = block * MIB + [300 * KIB, MIB - 4096][usize::from(block % 2 == 0)];
            let read = read(&file, &key(0), place, 8192);
            read.unwrap_or_else(|e| panic!("{limit}, {block}: {e}"));
        }
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (status, said) = fails(with(&world, "-v 800000"), BUCKET, directory.path());
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("ulimit -v") && said.contains("781 MiB"),
        "{said}"
    );
}

#[test]
fn ten_thousand_open_files_cost_the_mount_no_descriptors() {
    const FILES: u64 = 10_000;
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid structure that outlives the call.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if limit.rlim_max < FILES + 1000 || !is_root() {
        eprintln!("SKIPPED: needs root and a hard limit of more descriptors (ulimit -Hn)");
        return;
    }
    set_descriptor_limit(limit.rlim_max, limit.rlim_max).expect("up to the hard limit");
    let world = lean(FILES, 10_000);
    let mount = Mount::with_args(&world, &["--memory-limit", "64MiB"]);
    let open = |i| {
        let file = File::open(mount.path(key(i))).expect("open");
        read(&file, &key(i), i % 9000, 1000).expect("a read");
        file
    };
    let files: Vec<File> = (0..FILES).map(open).collect();
    let while_open = descriptors(&mount);
    assert!(while_open < 200, "{while_open} descriptors");
    for (i, file) in (0..).zip(&files) {
        read(file, &key(i), 5000, 100).expect("they stay open");
    }
    assert_bounded(&mount, 64 * MIB);
}

/// Issue 7: what exceeds the memory for names streams. `scripts/bench` has the million.
#[test]
fn a_directory_larger_than_the_memory_for_names_is_listed_within_the_limit() {
    const NAMES: u64 = 120_000;
    let world = lean(NAMES, 1234);
    let mount = Mount::with_args(&world, &["--memory-limit", "64MiB"]);
    for _ in 0..2 {
        let entries = std::fs::read_dir(mount.path("run")).expect("a directory");
        let names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert!(names.is_sorted_by(|a, b| a < b), "each once, in order");
        assert_eq!(names.len() as u64, NAMES);
    }
    assert_bounded(&mount, 64 * MIB);
}

#[test]
fn what_the_kernel_forgets_is_given_back() {
    const NAMES: u64 = 30_000;
    let world = lean(NAMES, 1234);
    let mount = Mount::with_args(&world, &["-v"]);
    let look_at_all = || {
        let names = mount.names("run");
        let mut numbers = HashSet::new();
        for name in &names {
            let metadata = mount
                .path("run")
                .join(name)
                .metadata()
                .expect("it is there");
            assert_eq!(metadata.len(), 1234);
            numbers.insert(metadata.ino());
        }
        assert_eq!(numbers.len() as u64, NAMES);
    };
    let mut asked = 0;
    let mut known_to_the_kernel = || {
        asked += 1;
        mount.signal(libc::SIGHUP);
        let begin = Instant::now();
        loop {
            let log = mount.log();
            let said: Vec<_> = log.split("known_to_the_kernel=").skip(1).collect();
            if said.len() == asked {
                let count: String = said[asked - 1]
                    .chars()
                    .take_while(char::is_ascii_digit)
                    .collect();
                return count.parse::<u64>().expect("a number");
            }
            assert!(begin.elapsed() < PATIENCE, "{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    look_at_all();
    // Another program may have the kernel drop its caches meanwhile.
    let begin = Instant::now();
    while known_to_the_kernel() < NAMES / 2 {
        assert!(begin.elapsed() < PATIENCE, "{}", mount.log());
        look_at_all();
    }
    // That was SIGHUP: the kernel is told to forget them, name by name, and says so, in a storm.
    let begin = Instant::now();
    while known_to_the_kernel() > 10 {
        assert!(begin.elapsed() < PATIENCE, "{}", mount.log());
    }
    mount.log_with("gave the memory of forgotten names back");
    if !is_root() {
        eprintln!("SKIPPED: only root can have the kernel forget names by itself");
        return;
    }
    // The kernel by itself: a remount drops all names that nobody uses, of this mount only.
    look_at_all();
    let mut remount = Command::new("mount");
    remount.args(["-i", "-o", "remount,ro"]).arg(mount.root());
    assert!(remount.status().expect("mount").success());
    let begin = Instant::now();
    let first = known_to_the_kernel();
    let mut left = first;
    while left > 10 {
        assert!(begin.elapsed() < PATIENCE, "{left} of {first} left");
        left = known_to_the_kernel();
    }
    // Most were forgotten before the first SIGHUP, which has them forgotten, too.
    assert!(first < NAMES / 2, "{first}");
}

#[test]
fn a_limit_of_256_descriptors_is_enough() {
    let world = lean(1, GIB);
    let mount = with_descriptors(&world, 256, &["--max-connections", "64"]);
    let failed = readers(&mount, 64, 6, MIB);
    assert!(failed.is_empty(), "{failed:?}\n{}", mount.log());
    let log = mount.log();
    assert!(!log.contains("Too many open files"), "{log}");
}

/// Where connections cannot be opened, those there are do the work.
#[test]
fn fewer_descriptors_than_connections_make_it_slower_and_no_worse() {
    let world = lean(1, GIB);
    let args = ["--max-connections", "64", "--operation-timeout", "50", "-v"];
    let mount = with_descriptors(&world, 32, &args);
    let failed = readers(&mount, 64, 6, MIB);
    assert!(failed.is_empty(), "{failed:?}\n{}", mount.log());
    // That was so.
    mount.log_with("Too many open files");
}

#[test]
fn two_hundred_streams_share_64_mib() {
    let world = lean(1, GIB);
    let mount = Mount::with_args(&world, &["--memory-limit", "64MiB"]);
    let failed = readers(&mount, 200, 4, MIB);
    assert!(failed.is_empty(), "{failed:?}\n{}", mount.log());
    assert_bounded(&mount, 64 * MIB);
}

/// As a login node does: one core, and every other program before this one.
#[test]
fn little_processor_time_makes_it_slow_and_no_more() {
    let world = lean(1, GIB);
    let mut command = program(&world);
    command.args(["--operation-timeout", "60"]);
    let starve = || {
        // SAFETY: setpriority takes no pointers; the set of processors is a plain structure, all zero is
        // a valid one, and 0 stands for this process.
        unsafe {
            let mut first = std::mem::zeroed();
            libc::CPU_SET(0, &mut first);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const first);
            libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        }
        Ok(())
    };
    // SAFETY: these are system calls and nothing else.
    unsafe { command.pre_exec(starve) };
    let mount = Mount::with(command, BUCKET);
    let failed = readers(&mount, 16, 3, MIB);
    assert!(failed.is_empty(), "{failed:?}\n{}", mount.log());
}
