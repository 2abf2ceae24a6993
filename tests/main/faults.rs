//! Faults of S3 and of the wire: each ends in right bytes, or in the errno of `docs/semantics.md` within
//! the time for one operation.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mock_earthdata::{Access, Content, Fault, FaultRule, ListAccess, Op, World};

use crate::scripted::{Scripted, reply};
use crate::support::{
    BUCKET, Mount, PATIENCE, bare_program, computed, eventually, wait, world_with,
};

const MIB: u64 = 1 << 20;

/// What passes: S3 is asked again, and nobody notices.
fn passing() -> Vec<(&'static str, Fault)> {
    vec![
        ("slow-down", Fault::SlowDown),
        ("internal-error", Fault::InternalError),
        ("expired", Fault::Expired),
        ("time-too-skewed", Fault::TimeTooSkewed),
        ("missing-etag", Fault::MissingEtag),
        ("reset-before", Fault::ResetBefore),
        ("reset-after", Fault::ResetAfter(100)),
        ("cut-after", Fault::CutAfter(100)),
        ("extra-bytes", Fault::ExtraBytes(9)),
        ("stall-before", Fault::StallBefore(None)),
        ("stall-after", Fault::StallAfter(100, None)),
        ("trickle", Fault::Trickle(1000)),
    ]
}

/// One object in a directory for each fault.
fn world_of(faults: &[(&'static str, Fault)], size: u64, list: ListAccess) -> World {
    let key = |name: &str| format!("{name}/file.bin");
    let objects = faults
        .iter()
        .map(|(name, _)| (key(name), Content::Synthetic { size }));
    world_with(objects.collect::<Vec<_>>(), |settings| {
        settings.buckets[0].access = Access { list, get: true };
    })
}

/// Each fault hits requests of this kind in its own directory, so many times.
fn script(world: &World, op: Op, faults: &[(&'static str, Fault)], times: Option<u64>) {
    for (name, fault) in faults {
        let rule = FaultRule::on(op).key(&format!("{name}/*"));
        let rule = match times {
            Some(times) => rule.times(times),
            None => rule,
        };
        world.script(rule.fault(fault.clone()));
    }
}

/// All of the directory's file by reads of 1 MiB.
fn read_all(mount: &Mount, name: &str, size: u64) -> io::Result<()> {
    let key = format!("{name}/file.bin");
    let file = File::open(mount.path(&key))?;
    let mut bytes = vec![0; usize::try_from(MIB).expect("small")];
    for offset in (0..size).step_by(bytes.len()) {
        let len = bytes
            .len()
            .min(usize::try_from(size - offset).expect("small"));
        file.read_exact_at(&mut bytes[..len], offset)?;
        assert!(
            bytes[..len] == computed(&key, offset, len),
            "{key} at {offset}"
        );
    }
    Ok(())
}

/// Runs `work` for each fault at once; its results, in order.
fn at_once<T: Send>(
    faults: &[(&'static str, Fault)],
    work: impl Fn(&'static str) -> T + Sync,
) -> Vec<(&'static str, T)> {
    std::thread::scope(|scope| {
        let work = &work;
        let all: Vec<_> = faults
            .iter()
            .map(|(name, _)| (*name, scope.spawn(move || work(name))))
            .collect();
        let ended = all.into_iter().map(|(name, thread)| (name, thread.join()));
        ended
            .map(|(name, result)| (name, result.expect(name)))
            .collect()
    })
}

/// Whatever S3 does to a GET twice in a row, the bytes are right, and no read takes the time of an
/// operation.
#[test]
fn of_gets_that_pass_are_not_noticed() {
    let mut faults = passing();
    faults.push(("wrong-content-range", Fault::WrongContentRange));
    faults.push(("ignore-range", Fault::IgnoreRange));
    let size = 3 * MIB + 17;
    let world = world_of(&faults, size, ListAccess::Everywhere);
    script(&world, Op::Get, &faults, Some(2));
    let mount = Mount::with_args(&world, &["--operation-timeout", "40"]);
    for (name, read) in at_once(&faults, |name| read_all(&mount, name, size)) {
        assert!(read.is_ok(), "{name}: {read:?}\n{}", mount.log());
    }
    for count in world.rule_counts() {
        assert!(count.fired > 0, "{count:?}");
    }
}

/// Those that come along with the lookup of a name, before anything is known of it.
#[test]
fn of_first_bytes_that_pass_are_not_noticed() {
    for (name, fault) in [
        ("wrong-content-range", Fault::WrongContentRange),
        ("ignore-range", Fault::IgnoreRange),
        ("cut-after", Fault::CutAfter(100)),
    ] {
        let key = format!("{name}.bin");
        let world = world_with([(key.clone(), Content::Synthetic { size: MIB })], |_| {});
        world.script(FaultRule::on(Op::Get).times(1).fault(fault));
        let mount = Mount::new(&world);
        let mut bytes = [0; 4096];
        let file = File::open(mount.path(&key)).expect("open");
        file.read_exact_at(&mut bytes, 0).expect(name);
        assert!(bytes[..] == computed(&key, 0, bytes.len()), "{name}");
        assert!(world.rule_counts().iter().all(|rule| rule.fired == 1));
        assert!(world.counters().get > 1, "{name} is believed");
    }
}

#[test]
fn of_listings_that_pass_are_not_noticed() {
    let mut faults = passing();
    faults.retain(|(name, _)| *name != "missing-etag");
    faults.push(("not-xml", Fault::NotXml));
    faults.push(("cut-xml", Fault::CutXml));
    faults.push(("empty-page", Fault::EmptyPage));
    let world = world_of(&faults, 1, ListAccess::Everywhere);
    // Nothing is believed that came with the listing of another directory, ahead.
    let args = ["--operation-timeout", "40", "--metadata-ttl", "0"];
    let mount = Mount::with_args(&world, &args);
    assert_eq!(mount.names("").len(), faults.len());
    script(&world, Op::List, &faults, Some(2));
    for (name, names) in at_once(&faults, |name| mount.names(name)) {
        assert_eq!(names, ["file.bin"], "{name}\n{}", mount.log());
    }
    for count in world.rule_counts() {
        assert!(count.fired > 0, "{count:?}");
    }
}

/// Where listing is denied, names are asked for by HEAD.
#[test]
fn of_heads_that_pass_are_not_noticed() {
    let faults = [
        ("slow-down", Fault::SlowDown),
        ("internal-error", Fault::InternalError),
        ("expired", Fault::Expired),
        ("missing-etag", Fault::MissingEtag),
        ("reset-before", Fault::ResetBefore),
        ("stall-before", Fault::StallBefore(None)),
    ];
    let world = world_of(&faults, MIB, ListAccess::Nowhere);
    script(&world, Op::Head, &faults, Some(2));
    let mount = Mount::with_args(&world, &["--operation-timeout", "40"]);
    for (name, read) in at_once(&faults, |name| read_all(&mount, name, MIB)) {
        assert!(read.is_ok(), "{name}: {read:?}\n{}", mount.log());
    }
    for count in world.rule_counts() {
        assert!(count.fired > 0, "{count:?}");
    }
}

/// S3 says nothing with the 403 of a HEAD, but what time it is.
#[test]
fn of_the_clock_are_not_noticed_even_where_there_is_only_head() {
    let faults = [("d", Fault::SlowDown)];
    let world = world_of(&faults, MIB, ListAccess::Nowhere);
    let mount = Mount::with_args(&world, &["--metadata-ttl", "0"]);
    for offset in [7200, -7200] {
        world.set_clock_offset(offset);
        read_all(&mount, "d", MIB).expect("right");
        let absent = std::fs::metadata(mount.path("d/none.bin")).expect_err("absent");
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }
}

/// What does not pass is an error within the time for one operation, though the kernel repeats a read
/// that failed: `read(2)` never pays twice.
#[test]
fn of_gets_that_last_end_in_time() {
    let faults = [
        ("slow-down", Fault::SlowDown),
        ("internal-error", Fault::InternalError),
        ("reset-before", Fault::ResetBefore),
        ("cut-after", Fault::CutAfter(0)),
        ("stall-before", Fault::StallBefore(None)),
        ("stall-after", Fault::StallAfter(0, None)),
        ("wrong-content-range", Fault::WrongContentRange),
        ("ignore-range", Fault::IgnoreRange),
        ("changed-etag", Fault::ChangedEtag),
        ("archived", Fault::Archived),
        ("access-denied", Fault::AccessDenied),
        ("other-region", Fault::OtherRegion("eu-north-1".to_owned())),
    ];
    let world = world_of(&faults, MIB, ListAccess::Everywhere);
    script(&world, Op::Get, &faults, None);
    let timeout = Duration::from_secs(12);
    let mount = Mount::with_args(&world, &["--operation-timeout", "12"]);
    for (name, (errno, took)) in at_once(&faults, |name| {
        let file = File::open(mount.path(format!("{name}/file.bin"))).expect("open");
        let begin = Instant::now();
        let error = file.read_exact_at(&mut [0; 4096], 0).expect_err(name);
        (error.raw_os_error().expect("an errno"), begin.elapsed())
    }) {
        let expected: &[i32] = match name {
            "changed-etag" => &[libc::ESTALE],
            "archived" | "access-denied" => &[libc::EACCES],
            "other-region" => &[libc::EIO],
            // Which of them depends on where in its retries the deadline finds it.
            _ => &[libc::EIO, libc::ETIMEDOUT],
        };
        assert!(
            expected.contains(&errno),
            "{name}: {errno}\n{}",
            mount.log()
        );
        assert!(took < 2 * timeout, "{name} took {took:?}");
    }
    let log = mount.log_with("--region eu-north-1");
    assert!(log.contains("archived"), "{log}");
}

/// A list that makes no sense is an error, and not a directory that lacks names.
#[test]
fn of_listings_that_last_end_in_time() {
    let faults = [
        ("slow-down", Fault::SlowDown),
        ("not-xml", Fault::NotXml),
        ("cut-xml", Fault::CutXml),
        ("reset-after", Fault::ResetAfter(10)),
        ("stall-before", Fault::StallBefore(None)),
        ("empty-page", Fault::EmptyPage),
        ("repeat-token", Fault::RepeatToken),
        ("loop-token", Fault::LoopToken),
        ("unordered", Fault::Unordered),
        ("hostile-keys", Fault::HostileKeys),
        ("hostile-fields", Fault::HostileFields),
    ];
    let keys = faults
        .iter()
        .flat_map(|(name, _)| (0..2500).map(move |i| format!("{name}/{i:05}")));
    let objects = keys.map(|key| (key, Content::Synthetic { size: 1 }));
    let world = world_with(objects.collect::<Vec<_>>(), |_| {});
    let mount = Mount::with_args(&world, &["--operation-timeout", "8"]);
    assert_eq!(mount.names("").len(), faults.len());
    script(&world, Op::List, &faults, None);
    for (name, listed) in at_once(&faults, |name| {
        let entries = std::fs::read_dir(mount.path(name))?;
        entries
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<Vec<_>>>()
    }) {
        match listed {
            Ok(names) => assert_eq!(names.len(), 2500, "{name}"),
            Err(error) => {
                let errno = error.raw_os_error().expect("an errno");
                assert!(
                    [libc::EIO, libc::ETIMEDOUT].contains(&errno),
                    "{name}: {error}"
                );
            }
        }
    }
    world.clear_faults();
    mount.signal(libc::SIGHUP);
    mount.log_with("names are forgotten");
    for (name, _) in &faults {
        assert_eq!(mount.names(name).len(), 2500, "{name} heals");
    }
}

/// What was asked for ahead failed while nobody waited for it.
#[test]
fn in_an_outage_that_is_over_a_listing_goes_on() {
    let keys = (0..5000).map(|i| (format!("d/{i:05}"), Content::Synthetic { size: 1 }));
    let world = world_with(keys.collect::<Vec<_>>(), |settings| {
        settings.shape.first_byte = Duration::from_millis(200);
    });
    let mount = Mount::with_args(&world, &["--operation-timeout", "2", "-v"]);
    let mut entries = std::fs::read_dir(mount.path("d")).expect("a listing");
    let first: Vec<_> = entries.by_ref().take(50).collect();
    world.refuse_connections(true);
    world.kill_connections();
    // Longer than the operation for which they were asked for.
    std::thread::sleep(Duration::from_secs(3));
    world.refuse_connections(false);
    let rest = entries.collect::<io::Result<Vec<_>>>();
    assert_eq!(first.len() + rest.expect("it is over").len(), 5000);
}

/// What is fetched together takes longer than an operation may.
#[test]
fn over_a_slow_link_a_read_that_comes_on_is_waited_for() {
    let world = world_with(
        [("one", Content::Synthetic { size: 9 * MIB })],
        |settings| {
            settings.lean = true;
            settings.shape.bytes_per_second = Some(100_000);
        },
    );
    let mount = Mount::with_args(&world, &["--operation-timeout", "8"]);
    // What is listed has no bytes that come with its lookup.
    assert_eq!(mount.names(""), ["one"]);
    let file = File::open(mount.path("one")).expect("open");
    let piece = 128 << 10;
    for offset in (0..MIB).step_by(piece) {
        let mut bytes = vec![0; piece];
        let read = file.read_exact_at(&mut bytes, offset);
        assert!(read.is_ok(), "{offset}: {read:?}\n{}", mount.log());
        assert!(bytes == computed("one", offset, piece), "{offset}");
    }
}

/// Each answer begins, and none goes on.
#[test]
fn of_bodies_that_break_off_again_and_again_are_told() {
    let world = world_with([("one", Content::Synthetic { size: MIB })], |_| {});
    world.script(FaultRule::on(Op::Get).fault(Fault::CutAfter(0)));
    let mount = Mount::with_args(&world, &["--operation-timeout", "20"]);
    let file = File::open(mount.path("one")).expect("open");
    let error = file.read_exact_at(&mut [0; 4096], 0).expect_err("cut");
    let errno = error.raw_os_error().expect("an errno");
    assert!([libc::EIO, libc::ETIMEDOUT].contains(&errno), "{errno}");
    let told = mount.log_with("S3 fails, and is asked again");
    assert!(told.contains("broke off"), "{told}");
    assert!(told.contains("127.0.0."), "{told}");
}

/// mount-s3's slowest read took 33 s where one body in 97 stalled. Here a read that takes more than 5 s
/// fails.
#[test]
fn a_body_that_stalls_costs_its_reader_little() {
    let size = 64 << 30;
    let world = world_with([("one", Content::Synthetic { size })], |settings| {
        settings.lean = true
    });
    let mount = Mount::with_args(&world, &["--operation-timeout", "5"]);
    let file = File::open(mount.path("one")).expect("open");
    for (begin, fault) in [
        (1, Fault::StallAfter(1000, None)),
        (2, Fault::StallBefore(None)),
        (3, Fault::Trickle(1000)),
    ] {
        world.clear_faults();
        world.script(FaultRule::on(Op::Get).every(97).fault(fault));
        let mut random = fastrand::Rng::with_seed(begin);
        for _ in 0..400 {
            let offset = random.u64(1..size / MIB - 1) * MIB;
            let mut bytes = [0; 4096];
            file.read_exact_at(&mut bytes, offset).expect("in time");
            assert!(bytes[..] == computed("one", offset, 4096), "at {offset}");
        }
        assert!(world.fired()[0] >= 2);
    }
}

/// After a change of the network all connections are dead and none of them says so. Finding that out
/// takes the time of one answer, and not once for each connection.
#[test]
fn of_all_connections_at_once_are_survived() {
    let size = 64 << 30;
    let world = world_with([("one", Content::Synthetic { size })], |settings| {
        settings.lean = true;
        settings.shape.first_byte = Duration::from_millis(20);
    });
    let mount = Mount::with_args(&world, &["--operation-timeout", "20"]);
    let read_everywhere = |seed: u64| {
        std::thread::scope(|scope| {
            for reader in 0..48_u64 {
                let file = File::open(mount.path("one")).expect("open");
                scope.spawn(move || {
                    let offset =
                        fastrand::Rng::with_seed(seed + reader).u64(1..size / MIB - 1) * MIB;
                    let mut bytes = [0; 4096];
                    file.read_exact_at(&mut bytes, offset).expect("in time");
                    assert!(bytes[..] == computed("one", offset, 4096), "at {offset}");
                });
            }
        });
    };
    read_everywhere(1000);
    world.mute_connections();
    read_everywhere(2000);
    read_everywhere(3000);
}

/// While S3 is out of reach, what memory has is there, the rest fails in time, and all is well once S3
/// is back.
#[test]
fn in_an_outage_what_is_known_is_there_and_it_heals() {
    let objects = ["d/known", "d/other"];
    let world = world_with(objects.map(|key| (key, key.as_bytes().to_vec())), |_| {});
    let mount = Mount::with_args(&world, &["--operation-timeout", "5"]);
    assert_eq!(mount.names("d"), ["known", "other"]);
    assert_eq!(mount.read("d/known"), b"d/known");
    world.refuse_connections(true);
    world.kill_connections();
    let df = Command::new("df").arg(mount.root()).output().expect("df");
    assert!(df.status.success());
    assert_eq!(mount.names("d"), ["known", "other"]);
    assert_eq!(mount.read("d/known"), b"d/known");
    let errno = |result: io::Result<Vec<u8>>| result.expect_err("no S3").raw_os_error();
    let expected = [Some(libc::EIO), Some(libc::ETIMEDOUT)];
    assert!(expected.contains(&errno(std::fs::read(mount.path("d/other")))));
    assert!(expected.contains(&errno(std::fs::read(mount.path("new")))));
    world.refuse_connections(false);
    // What failed is believed to fail for 2 s.
    let begin = Instant::now();
    while std::fs::read(mount.path("d/other")).ok().as_deref() != Some(b"d/other") {
        assert!(begin.elapsed() < PATIENCE, "{}", mount.log());
    }
    while errno(std::fs::read(mount.path("new"))) != Some(libc::ENOENT) {
        assert!(begin.elapsed() < PATIENCE, "{}", mount.log());
    }
}

/// `umount` does not wait for S3, nor does a signal, whoever is reading.
#[test]
fn in_an_outage_umount_works() {
    let size = 1 << 30;
    let world = world_with([("one", Content::Synthetic { size })], |_| {});
    world.script(FaultRule::on(Op::Get).fault(Fault::StallBefore(None)));
    let mut mount = Mount::new(&world);
    let mut reader = Command::new("cat")
        .arg(mount.path("one"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("cat");
    eventually("somebody reads", || world.counters().get != 0);
    let umount = Command::new("umount").arg("-l").arg(mount.root()).status();
    assert!(umount.expect("umount").success());
    assert!(!mount.is_mounted());
    mount.signal(libc::SIGTERM);
    assert!(mount.wait().success());
    assert!(wait(&mut reader).is_some(), "the reader hangs");
}

/// A reader that is killed while it waits for S3 is gone at once: the time for an operation is longer
/// here than this test waits.
#[test]
fn a_reader_that_is_killed_is_gone() {
    let size = 1 << 30;
    let world = world_with([("one", Content::Synthetic { size })], |_| {});
    world.script(FaultRule::on(Op::Get).fault(Fault::StallBefore(None)));
    let mount = Mount::with_args(&world, &["--operation-timeout", "600"]);
    let mut reader = Command::new("cat")
        .arg(mount.path("one"))
        .stdout(Stdio::null())
        .spawn()
        .expect("cat");
    eventually("somebody reads", || world.counters().get != 0);
    reader.kill().expect("kill");
    let status = wait(&mut reader).expect("it is gone");
    assert_eq!(status.signal(), Some(libc::SIGKILL));
}

/// What a 403 is about stands in its body. Found by an hour of `scripts/soak`: one whose body did not come
/// in time was taken for a denial.
#[test]
fn of_a_denial_that_breaks_off_are_no_denial() {
    let gets = AtomicUsize::new(0);
    let server = Scripted::start("127.0.0.1", move |head| {
        let target = head.split(' ').nth(1).unwrap_or_default();
        if target.contains("list-type=2") {
            let file = match target.contains("prefix=file%2F") {
                true => "",
                false => "<Contents><Key>file</Key><Size>4</Size><ETag>\"e\"</ETag></Contents>",
            };
            let list = format!("<ListBucketResult>{file}</ListBucketResult>");
            return reply("200 OK", "", &list);
        }
        match gets.fetch_add(1, Ordering::Relaxed) {
            0 => "HTTP/1.1 403 Forbidden\r\nContent-Length: 300\r\n\r\n<?xml".to_owned(),
            _ => reply("200 OK", "ETag: \"e\"\r\n", "data"),
        }
    });
    let mut command = bare_program();
    command.args(["--no-sign-request", "--endpoint-url", &server.url()]);
    let mount = Mount::with(command, BUCKET);
    assert_eq!(mount.read("file"), b"data");
}
