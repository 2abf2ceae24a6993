//! Bytes that are changed on the way: which of them are found out, and which cannot be.

use std::fs::File;
use std::os::unix::fs::FileExt;

use mock_earthdata::{Checksums, Content, Fault, FaultRule, Op};

use crate::support::{BUCKET, Mount, computed, eventually, world_with};

const MIB: u64 = 1 << 20;

/// Unmounts, and reads in the log how many objects were compared and found right, and wrong.
fn compared(mount: &mut Mount) -> (u64, u64) {
    mount.signal(libc::SIGTERM);
    mount.wait();
    let log = mount.log();
    let line = log.lines().find(|line| line.contains("objects compared"));
    let line = line.unwrap_or_else(|| panic!("no count in the log:\n{log}"));
    let count = |name: &str| {
        let mut words = line.split(' ');
        let word = words.find_map(|word| word.strip_prefix(name));
        word.expect(name).parse().expect("a number")
    };
    (count("right="), count("wrong="))
}

/// Objects that come whole are compared with S3's checksum before a byte of them is read: half of these are opened
/// by name, which brings up to 64 KiB along, the others after a listing. Every flip is in a body that was
/// found wrong, but for those in bodies that nobody took: of answers that were asked for twice.
#[test]
fn flipped_in_ten_thousand_small_files_are_all_found_out() {
    const FILES: u64 = 10_000;
    const READERS: u64 = 8;
    let key = |i: u64| format!("{:02}/{i:05}.nc", i / 500);
    let size = |i: u64| match (i % 100, i < FILES / 2) {
        (0, true) => 64 << 10,
        (0, false) => 256 << 10,
        _ => 1 + i * 7919 % 20_000,
    };
    let objects = (0..FILES).map(|i| (key(i), Content::Synthetic { size: size(i) }));
    let world = world_with(objects.collect::<Vec<_>>(), |settings| settings.lean = true);
    world.script(FaultRule::on(Op::Get).every(7).fault(Fault::FlipByte(None)));
    let mut mount = Mount::with_args(&world, &["--memory-limit", "512MiB"]);
    std::thread::scope(|scope| {
        let listed = |directory: u64| mount.names(&format!("{directory:02}")).len();
        assert!((10..20).all(|directory| listed(directory) == 500));
        for reader in 0..READERS {
            let mount = &mount;
            scope.spawn(move || {
                for i in (reader..FILES).step_by(READERS as usize) {
                    let (key, size) = (key(i), size(i) as usize);
                    assert!(mount.read(&key) == computed(&key, 0, size), "{key}");
                }
            });
        }
    });
    let (right, wrong) = compared(&mut mount);
    let (gets, flipped) = (world.counters().get, world.fired()[0]);
    let asked = world.requests();
    let gets_of_objects = asked.iter().filter(|asked| asked.op == Op::Get);
    assert!(gets_of_objects.clone().all(|asked| asked.checksum_mode));
    println!("{gets} GETs, {flipped} flipped, {right} right, {wrong} wrong");
    assert!(right >= FILES && wrong >= gets / 8, "{right} and {wrong}");
    let given_up = gets - right - wrong;
    assert!(given_up <= gets / 16, "{given_up} of {gets}");
    assert!(wrong <= flipped, "{wrong} of {flipped}");
    assert!(
        flipped - wrong <= given_up,
        "{wrong} of {flipped}, {given_up} given up"
    );
}

/// S3 has no checksum of a part of an object: over plain http such a byte is read as it comes.
#[test]
fn flipped_in_a_part_of_an_object_cannot_be_found_out() {
    let size = 64 * MIB;
    let world = world_with([("one", Content::Synthetic { size })], |_| {});
    let mut mount = Mount::new(&world);
    let file = File::open(mount.path("one")).expect("open");
    world.script(
        FaultRule::on(Op::Get)
            .times(1)
            .fault(Fault::FlipByte(Some(5))),
    );
    let mut bytes = [0; 4096];
    file.read_exact_at(&mut bytes, 32 * MIB).expect("read");
    let expected = computed("one", 32 * MIB, bytes.len());
    let places = (0..bytes.len()).filter(|i| bytes[*i] != expected[*i]);
    assert_eq!(places.collect::<Vec<_>>(), [5]);
    assert_eq!(world.fired(), [1]);
    assert!(world.requests().iter().all(|asked| !asked.checksum_mode));
    drop(file);
    assert_eq!(compared(&mut mount), (0, 0));
}

/// What is wrong each time is an error, and its reason is in the log; others are read, and it heals.
#[test]
fn flipped_each_time_are_an_error_that_says_where_and_what_to_do() {
    let objects = ["d/good", "d/spoilt"];
    let world = world_with(objects.map(|key| (key, key.as_bytes().to_vec())), |_| {});
    let mut mount = Mount::new(&world);
    mount.names("d");
    world.script(
        FaultRule::on(Op::Get)
            .key("d/spoilt")
            .fault(Fault::FlipByte(None)),
    );
    let error = std::fs::read(mount.path("d/spoilt")).expect_err("wrong bytes");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert_eq!(mount.read("d/good"), b"d/good");
    let log = mount.log_with("--no-checksums");
    let place = format!(
        "{}/{}/d/spoilt came with wrong bytes",
        world.s3_url(),
        BUCKET
    );
    for part in [
        &*place,
        "6 times in a row",
        "CRC-64/NVME",
        "an object came with wrong bytes",
    ] {
        assert!(log.contains(part), "{part:?}:\n{log}");
    }
    world.clear_faults();
    // The failure answers for two seconds.
    eventually("it heals", || {
        std::fs::read(mount.path("d/spoilt")).ok().as_deref() == Some(b"d/spoilt")
    });
    let (right, wrong) = compared(&mut mount);
    assert!(right >= 2 && wrong >= 6, "{right} and {wrong}");
}

/// Objects without a checksum, with one that says nothing of the whole, and a mount that does not ask.
#[test]
fn without_a_checksum_that_can_be_compared_are_read_as_they_come() {
    for (offered, args) in [
        (Checksums::None, &[][..]),
        (Checksums::Composite, &[]),
        (Checksums::FullObject, &["--no-checksums"]),
        (Checksums::Unasked, &["--no-checksums"]),
    ] {
        for lean in [false, true] {
            // Names whose first bytes come along with the lookup.
            let key = |i: u64| format!("{i}.bin");
            let objects = (0..20).map(|i| (key(i), Content::Synthetic { size: i * 1000 + 1 }));
            let world = world_with(objects.collect::<Vec<_>>(), |settings| {
                settings.checksums = offered;
                settings.lean = lean;
            });
            let mut mount = Mount::with_args(&world, args);
            for i in 0..20 {
                let len = usize::try_from(i * 1000 + 1).expect("small");
                assert!(mount.read(&key(i)) == computed(&key(i), 0, len));
            }
            assert_eq!(compared(&mut mount), (0, 0), "{offered:?}");
            let asks = world.requests().iter().any(|asked| asked.checksum_mode);
            assert_eq!(asks, args.is_empty());
        }
    }
}
