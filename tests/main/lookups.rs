//! How many requests names cost, and how many of them wait for one another.

use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mock_earthdata::{Content, Counters, Fault, FaultRule, Op, World};

use crate::support::{BUCKET, Mount, PATIENCE, computed, eventually, world_with};

/// `count` synthetic objects, slow enough that requests which do not wait for one another overlap.
fn slow_world(keys: impl Iterator<Item = String>, size: u64) -> World {
    let objects = keys.map(|key| (key, Content::Synthetic { size }));
    world_with(objects, |settings| {
        settings.lean = true;
        settings.shape.first_byte = Duration::from_millis(100);
    })
}

fn numbered(directory: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |i| format!("{directory}/{i:08}.bin"))
}

/// What `work` costs.
fn costs(world: &World, work: impl FnOnce()) -> Counters {
    world.reset_counters();
    work();
    world.counters()
}

fn stat(mount: &Mount, name: &str) -> bool {
    std::fs::symlink_metadata(mount.path(name)).is_ok()
}

fn open_and_read(mount: &Mount, key: &str) {
    let mut read = [0; 4096];
    let file = std::fs::File::open(mount.path(key)).expect("open");
    file.read_exact_at(&mut read, 0).expect("read");
    assert!(read[..] == computed(key, 0, 4096), "{key}");
}

fn names_below(mount: &Mount, directory: &str) -> Vec<String> {
    let found = Command::new("find")
        .args([directory, "-type", "f"])
        .current_dir(mount.root())
        .stderr(Stdio::inherit())
        .output()
        .expect("find runs");
    let text = String::from_utf8(found.stdout).expect("UTF-8");
    let mut names: Vec<_> = text.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn sixty_sidecar_probes_cost_five_requests() {
    let world = slow_world(numbered("d", 1000), 1);
    let mount = Mount::new(&world);
    assert!(stat(&mount, "d"));
    let counters = costs(&world, || {
        for nth in 0..20 {
            for suffix in ["aux.xml", "ovr", "msk"] {
                assert!(!stat(&mount, &format!("d/{:08}.tif.{suffix}", nth * 50)));
            }
        }
    });
    assert!(counters.list <= 5, "{} LISTs", counters.list);
    // Two first bytes on credit.
    assert!(counters.head + counters.get <= 2, "{counters:?}");
}

#[test]
fn files_looked_up_one_after_the_other_in_a_large_directory_are_known_ahead() {
    let world = slow_world(numbered("d", 110_000), 1);
    let mount = Mount::new(&world);
    assert!(stat(&mount, "d"));
    let counters = costs(&world, || {
        for i in 70_000..70_900 {
            assert!(stat(&mount, &format!("d/{i:08}.bin")));
        }
    });
    assert!(counters.list <= 20, "{} LISTs", counters.list);
}

#[test]
fn names_far_apart_cost_one_round_trip_each_and_few_guesses() {
    let world = slow_world(numbered("d", 110_000), 1);
    let mount = Mount::new(&world);
    assert!(stat(&mount, "d"));
    let names = 40;
    let counters = costs(&world, || {
        for i in 0..names {
            let far = (i * 7919 + 1234) * 13 % 110_000;
            assert!(stat(&mount, &format!("d/{far:08}.bin")));
        }
    });
    assert!(counters.list <= 2 * names + 12, "{} LISTs", counters.list);
    world.reset_counters();
    let counters = costs(&world, || {
        assert!(stat(&mount, "d/00100001.bin"));
    });
    assert!(counters.depth == 1 && counters.list <= 3, "{counters:?}");
}

#[test]
fn first_bytes_come_along_with_the_lookup_as_long_as_they_get_used() {
    let size = 64 << 20;
    let far = |i: usize| format!("d/{:08}.bin", (i * 7919 + 1234) * 13 % 110_000);
    let world = slow_world(numbered("d", 110_000), size);
    let mount = Mount::new(&world);
    assert!(stat(&mount, "d"));
    for i in 0..12 {
        open_and_read(&mount, &far(i));
    }
    for i in 12..15 {
        let counters = costs(&world, || open_and_read(&mount, &far(i)));
        assert!(counters.depth == 1 && counters.get == 1, "{counters:?}");
        assert!(counters.list <= 3, "{} LISTs", counters.list);
    }
    // Names that are only looked at end it.
    for i in 15..30 {
        assert!(stat(&mount, &far(i)));
    }
    let counters = costs(&world, || {
        assert!(stat(&mount, &far(31)));
    });
    assert_eq!(counters.get, 0);
}

#[test]
fn what_a_small_directory_holds_is_known_with_it() {
    let deep = "a/b/c/d/e";
    let world = slow_world(numbered(deep, 20), 1 << 20);
    let mount = Mount::new(&world);
    let counters = costs(&world, || {
        assert!(stat(&mount, &format!("{deep}/00000000.bin")));
    });
    assert_eq!((counters.list, counters.depth), (6, 3));
    let counters = costs(&world, || {
        assert!(stat(&mount, &format!("{deep}/00000012.bin")));
        assert!(!stat(&mount, &format!("{deep}/00000012.bin.aux.xml")));
        assert_eq!(mount.names(deep).len(), 20);
    });
    assert_eq!(counters.list + counters.head, 0);
}

#[test]
fn what_a_directory_holds_behind_its_first_names_is_asked_for() {
    let world = slow_world(numbered("d", 50), 1);
    let mount = Mount::new(&world);
    let counters = costs(&world, || {
        assert!(stat(&mount, "d/00000003.bin"));
    });
    assert_eq!((counters.list, counters.depth), (2, 1));
    let counters = costs(&world, || {
        assert!(stat(&mount, "d/00000040.bin"));
        assert!(!stat(&mount, "d/00000050.bin"));
    });
    assert!(counters.list > 0);
    assert_eq!(mount.names("d").len(), 50);
}

#[test]
fn ls_l_of_2000_files_costs_three_lists_and_an_open_after_it_one_get() {
    let world = slow_world(numbered("d", 2000), 1 << 20);
    let mount = Mount::new(&world);
    assert!(stat(&mount, "d"));
    let counters = costs(&world, || {
        let listed = Command::new("ls").arg("-l").arg(mount.path("d")).output();
        let listed = listed.expect("ls runs").stdout;
        assert_eq!(listed.split(|byte| *byte == b'\n').count(), 2002);
    });
    assert!(counters.list <= 3, "{} LISTs", counters.list);
    let counters = costs(&world, || open_and_read(&mount, "d/00001234.bin"));
    assert_eq!((counters.list, counters.head, counters.get), (0, 0, 1));
}

#[test]
fn find_over_1000_directories_lists_ahead() {
    let keys = (0..20_000).map(|i| format!("tree/{:06}/{:06}.bin", i / 20, i % 20));
    let mut expected: Vec<_> = keys.clone().collect();
    expected.sort();
    let world = slow_world(keys, 1);
    let mount = Mount::new(&world);
    let counters = costs(&world, || assert!(names_below(&mount, "tree") == expected));
    assert!(counters.list <= 40, "{} LISTs", counters.list);
    assert!(counters.depth <= 20, "{} LISTs in turn", counters.depth);
    let counters = costs(&world, || assert!(names_below(&mount, "tree") == expected));
    assert_eq!(counters.list, 0);
}

#[test]
fn find_over_large_and_over_nested_directories_lists_ahead() {
    let large = (0..18_000).map(|i| format!("large/{:02}/{:06}.bin", i / 900, i % 900));
    let nested = (0..12_000).map(|i| {
        let (year, month, day) = (i / 1200, i / 100 % 12, i / 5 % 20);
        format!("nested/{year}/{month:02}/{day:02}/{}", i % 5)
    });
    let all: Vec<_> = large.chain(nested).collect();
    let world = slow_world(all.iter().cloned(), 1);
    let mount = Mount::new(&world);
    for (directory, most, deepest) in [("large", 30, 14), ("nested", 120, 70)] {
        let mut expected: Vec<_> = all
            .iter()
            .filter(|key| key.starts_with(directory))
            .collect();
        expected.sort();
        let counters = costs(&world, || {
            let found = names_below(&mount, directory);
            assert!(found.iter().eq(expected), "{directory}: {}", found.len());
        });
        let (lists, depth) = (counters.list, counters.depth);
        assert!(lists <= most, "{directory}: {lists} LISTs");
        assert!(depth <= deepest, "{directory}: {depth} LISTs in turn");
    }
}

#[test]
fn a_walk_that_stops_early_has_listed_little_ahead() {
    let keys = (0..20_000).map(|i| format!("tree/{:06}/{:06}.bin", i / 20, i % 20));
    let world = slow_world(keys, 1);
    let mount = Mount::new(&world);
    assert_eq!(mount.names("tree").len(), 1000);
    let counters = costs(&world, || {
        for directory in ["tree/000000", "tree/000001"] {
            assert_eq!(mount.names(directory).len(), 20);
        }
    });
    assert!(counters.list <= 4, "{} LISTs", counters.list);
}

/// The chunks of a Zarr array, whose program knows their names and lists nothing.
#[test]
fn names_in_one_directory_after_the_other_are_known_and_fetched_ahead() {
    let chunks = || (0..160).map(|i| format!("z/c/{}/{}/{}", i / 4, i / 2 % 2, i % 2));
    let size = 50_000;
    let world = slow_world(chunks(), size);
    let mount = Mount::new(&world);
    let counters = costs(&world, || {
        chunks().for_each(|key| open_and_read(&mount, &key))
    });
    assert!(counters.list <= 32, "{} LISTs", counters.list);
    assert!(counters.get <= 170, "{} GETs", counters.get);
    assert!(counters.max_in_flight >= 8, "{}", counters.max_in_flight);
    let read = 160 * size;
    assert!(
        counters.body_bytes <= read / 10 * 11,
        "{}",
        counters.body_bytes
    );
    // The last first.
    let mount = Mount::new(&world);
    let counters = costs(&world, || {
        let back: Vec<_> = chunks().collect();
        back.iter().rev().for_each(|key| open_and_read(&mount, key));
    });
    assert!(counters.list <= 32, "{} LISTs", counters.list);
    assert!(counters.get <= 170, "{} GETs", counters.get);
    assert!(counters.max_in_flight >= 8, "{}", counters.max_in_flight);
    // Who asks here and there has little listed for him.
    let mount = Mount::new(&world);
    let mut random = fastrand::Rng::with_seed(5);
    let mut any: Vec<_> = chunks().step_by(4).collect();
    random.shuffle(&mut any);
    let counters = costs(&world, || {
        any.iter().for_each(|key| open_and_read(&mount, key))
    });
    assert!(counters.list <= 4 * 40, "{} LISTs", counters.list);
    assert!(counters.get <= 44, "{} GETs", counters.get);
}

/// As long as others keep the link busy, they get no connection either.
#[test]
fn listings_ahead_that_get_no_answer_hold_up_nobody() {
    let tree = (0..2000).map(|i| format!("tree/{:03}/{:03}.bin", i / 20, i % 20));
    let world = slow_world(numbered("d", 5000).chain(tree), 1);
    let mount = Mount::new(&world);
    assert!(stat(&mount, "d"));
    assert_eq!(mount.names("tree").len(), 100);
    // Listings ahead are of the whole directory, questions of names in it.
    for directory in ["d/", "tree/"] {
        let silent = FaultRule::on(Op::List).key(directory);
        world.script(silent.fault(Fault::StallBefore(None)));
    }
    let begin = Instant::now();
    for i in [4, 3003, 1001, 4004, 2002, 3] {
        assert!(stat(&mount, &format!("d/{i:08}.bin")));
    }
    for i in 0..6 {
        assert_eq!(mount.names(&format!("tree/{i:03}")).len(), 20);
    }
    let took = begin.elapsed();
    assert!(
        world.fired().iter().all(|fired| *fired > 0),
        "none was asked for"
    );
    assert!(took < Duration::from_secs(15), "{took:?}");
}

/// Where the kernel has to ask again for what it knew, and hears an error, it asks twice.
#[test]
fn what_gets_no_answer_is_asked_for_once_whether_it_was_known_or_not() {
    let world = slow_world(numbered("d", 40), 1);
    let args = ["--metadata-ttl", "0", "--operation-timeout", "1"];
    let mount = Mount::with_args(&world, &args);
    assert!(stat(&mount, "d/00000001.bin"));
    let silent = FaultRule::on(Op::List).key("d/*.bin*");
    world.script(silent.fault(Fault::StallBefore(None)));
    let asked = |name: &str| {
        let before = world.rule_counts()[0].matched;
        assert!(!stat(&mount, name));
        world.rule_counts()[0].matched - before
    };
    let not_known = asked("d/00000002.bin");
    assert!(not_known > 0);
    let known = asked("d/00000001.bin");
    // One may have been sent once more.
    assert!(known < 2 * not_known, "{known}, {not_known}");
}

/// The kernel forgets a name under its directory's lock, which a slow lookup holds.
#[test]
fn a_slow_lookup_holds_up_nobody_where_an_object_was_replaced() {
    let size = 20 << 20;
    let world = slow_world(numbered("d", 200), size);
    let args = ["--metadata-ttl", "inf", "--operation-timeout", "600"];
    let mount = Mount::with_args(&world, &args);
    let replaced = "d/00000005.bin";
    let old = std::fs::File::open(mount.path(replaced)).expect("open");
    world.put(BUCKET, replaced, "new");
    let silent = FaultRule::on(Op::List).key("d/slow*");
    world.script(silent.fault(Fault::StallBefore(None)));
    let mut slow = Command::new("stat")
        .arg(mount.path("d/slow.bin"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("stat runs");
    eventually("it waits", || world.rule_counts()[0].matched > 0);
    let stale = old.read_at(&mut [0; 10], 0).expect_err("replaced");
    assert_eq!(stale.raw_os_error(), Some(libc::ESTALE));
    for i in 100..150 {
        assert!(stat(&mount, &format!("d/{i:08}.bin")));
    }
    assert_eq!(mount.names("d").len(), 200);
    assert!(slow.try_wait().expect("a child").is_none(), "it was slow");
    world.clear_faults();
    slow.wait().expect("stat ends");
    eventually("the new version", || {
        std::fs::read(mount.path(replaced)).is_ok_and(|read| read == b"new")
    });
}

/// Whether the thread that tells the kernel what to forget is in a state: `R`unning, or `D`, where it waits for a
/// directory's lock and cannot be killed.
fn teller_is(mount: &Mount, state: char) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", mount.pid())).expect("procfs");
    let stats = threads.filter_map(|thread| std::fs::read(thread.ok()?.path().join("stat")).ok());
    let mut stats = stats.map(|stat| String::from_utf8_lossy(&stat).into_owned());
    stats.any(|stat| stat.contains(&format!("-inv) {state} ")))
}

/// A name is told in the moment in which a lookup that S3 does not answer has got its directory's lock.
#[test]
fn a_process_that_tells_of_names_in_vain_ends_when_it_is_told_to() {
    let world = slow_world(numbered("d", 20_000), 1);
    let args = ["--metadata-ttl", "inf", "--operation-timeout", "600"];
    let mut mount = Mount::with_args(&world, &args);
    let mut stats: Vec<Child> = Vec::new();
    let begin = Instant::now();
    while !teller_is(&mount, 'D') {
        assert!(begin.elapsed() < 3 * PATIENCE, "it never tells in vain");
        world.clear_faults();
        world.kill_connections();
        for mut stat in stats.drain(..) {
            stat.wait().expect("stat ends");
        }
        let known = Command::new("ls").arg("-l").arg(mount.path("d")).output();
        assert!(known.expect("ls runs").status.success());
        let silent = FaultRule::on(Op::List).key("d/slow*");
        world.script(silent.fault(Fault::StallBefore(None)));
        mount.signal(libc::SIGHUP);
        eventually("it tells", || teller_is(&mount, 'R'));
        for i in 0..4 {
            let mut stat = Command::new("stat");
            stat.arg(mount.path(format!("d/slow{i}")));
            stats.push(stat.stderr(Stdio::null()).spawn().expect("stat runs"));
        }
        eventually("they wait, or have what was known before", || {
            let mut ended = stats
                .iter_mut()
                .map(|stat| stat.try_wait().expect("a child"));
            world.rule_counts()[0].matched > 0 || ended.all(|ended| ended.is_some())
        });
    }
    mount.signal(libc::SIGTERM);
    mount.wait();
    for mut stat in stats {
        assert!(!stat.wait().expect("stat ends").success());
    }
}
