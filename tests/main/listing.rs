//! Directories: their size, their nesting, and how many requests they cost.

use mock_earthdata::{Content, Fault, FaultRule, Op, World};

use crate::support::{BUCKET, Mount, world};

fn flat(count: usize) -> impl Iterator<Item = (String, &'static str)> {
    (0..count).map(|i| (format!("flat/{i:06}.nc"), "x"))
}

fn lists(world: &World) -> u64 {
    world.counters().list
}

#[test]
fn directories_of_0_1_1000_1001_and_25000_entries() {
    for count in [0, 1, 1000, 1001, 25_000] {
        let world = world(flat(count).chain([("flat/".to_owned(), "")]));
        let mount = Mount::new(&world);
        let names = mount.names("flat");
        let expected: Vec<_> = (0..count).map(|i| format!("{i:06}.nc")).collect();
        assert_eq!(names.len(), count);
        assert!(names == expected, "{count} entries differ");
        let pages = u64::try_from(count / 1000).expect("small") + 1;
        let other = 1 + 2; // the probe at mount, and the lookup of `flat`
        // From the third page on, the listing asks where to split what is left.
        let splits = if pages > 2 { 3 * pages } else { 0 };
        let most = pages + other + splits;
        assert!(lists(&world) <= most, "{count}: {} LISTs", lists(&world));
    }
}

/// Pages ahead are given up sooner than those that a reader waits for: that is not for the reader to see.
#[test]
fn a_page_ahead_that_fails_is_asked_for_again() {
    let world = world(flat(50_000));
    let mount = Mount::with_args(&world, &["--operation-timeout", "60"]);
    assert_eq!(mount.names(""), ["flat"]);
    for skip in 0..3 {
        let rule = FaultRule::on(Op::List).skip(skip).every(4);
        world.script(rule.fault(Fault::InternalError));
    }
    let entries = std::fs::read_dir(mount.path("flat")).expect("a directory");
    let names: Result<Vec<_>, _> = entries.collect();
    assert_eq!(names.expect("no error").len(), 50_000, "{}", mount.log());
    // Nearly three for each page, of which some may have come before.
    let fired: u64 = world.fired().iter().sum();
    assert!(fired > 60, "{:?}", world.rule_counts());
}

/// S3 may answer so where very many objects were deleted from a bucket that keeps old versions.
#[test]
fn pages_without_entries_hide_no_name() {
    let world = world(flat(2500).chain([("deep/a/b.nc".to_owned(), "b")]));
    let mount = Mount::new(&world);
    world.script(FaultRule::on(Op::List).every(3).fault(Fault::EmptyPage));
    world.script(FaultRule::on(Op::List).times(50).fault(Fault::EmptyPage));
    assert_eq!(mount.read("deep/a/b.nc"), b"b");
    assert_eq!(mount.read("flat/002499.nc"), b"x");
    let absent = std::fs::metadata(mount.path("flat/2")).expect_err("absent");
    assert_eq!(absent.kind(), std::io::ErrorKind::NotFound);
    let expected: Vec<_> = (0..2500).map(|i| format!("{i:06}.nc")).collect();
    assert!(mount.names("flat") == expected);
    assert_eq!(mount.names(""), ["deep", "flat"]);
    assert!(world.fired()[0] > 20, "{:?}", world.rule_counts());
    assert_eq!(world.fired()[1], 50, "{:?}", world.rule_counts());
}

/// A server that has nothing but more pages is not asked for ever.
#[test]
fn pages_without_entries_come_to_an_end() {
    let world = world(flat(3));
    let mount = Mount::new(&world);
    world.script(FaultRule::on(Op::List).key("flat/").fault(Fault::EmptyPage));
    let listed = std::fs::read_dir(mount.path("flat")).and_then(|mut all| all.next().transpose());
    let error = listed.expect_err("no names");
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{}", mount.log());
    mount.log_with("pages without entries");
    world.clear_faults();
    assert_eq!(mount.names("flat").len(), 3);
}

#[test]
fn a_listing_that_fails_says_of_which_directory() {
    let world = world(flat(100));
    let mount = Mount::new(&world);
    assert!(mount.path("flat").is_dir());
    world.script(FaultRule::on(Op::List).key("flat/").fault(Fault::EmptyPage));
    let listed = std::fs::read_dir(mount.path("flat")).and_then(|mut all| all.next().transpose());
    assert!(listed.is_err());
    let log = mount.log_with("readdir: ");
    assert!(log.contains("name=\"flat/\""), "{log}");
}

#[test]
fn nested_prefixes_are_directories() {
    let keys = ["a/b/c/d.txt", "a/b/e.txt", "a/f.txt", "g.txt"];
    let world = world(keys.map(|key| (key, key)));
    let mount = Mount::new(&world);
    assert_eq!(mount.names(""), ["a", "g.txt"]);
    assert_eq!(mount.names("a"), ["b", "f.txt"]);
    assert_eq!(mount.names("a/b"), ["c", "e.txt"]);
    assert_eq!(mount.names("a/b/c"), ["d.txt"]);
    for key in keys {
        assert_eq!(mount.read(key), key.as_bytes());
    }
}

#[test]
fn a_prefix_of_a_bucket_can_be_mounted() {
    let world = world([("data/2018/a.nc", "a"), ("data/2019/b.nc", "b"), ("x", "x")]);
    let source = format!("s3://{BUCKET}/data/2018/");
    let mount = Mount::with(crate::support::program(&world), &source);
    assert_eq!(mount.names(""), ["a.nc"]);
    assert_eq!(mount.read("a.nc"), b"a");
    let expected = format!("s3://{BUCKET}/data/2018");
    assert!(mount.greeting.starts_with(&expected), "{}", mount.greeting);
}

#[test]
fn after_a_listing_stat_and_open_and_absent_names_send_nothing_but_gets() {
    let world = world(flat(2000));
    let mount = Mount::new(&world);
    assert_eq!(mount.names("flat").len(), 2000);
    world.reset_counters();
    for entry in std::fs::read_dir(mount.path("flat")).expect("a directory") {
        let metadata = entry.expect("an entry").metadata().expect("stat");
        assert_eq!(metadata.len(), 1);
    }
    assert_eq!(mount.read("flat/001999.nc"), b"x");
    for absent in ["flat/001999.nc.aux.xml", "flat/zzz", "flat/0"] {
        let error = std::fs::metadata(mount.path(absent)).expect_err("absent");
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
    let counters = world.counters();
    assert_eq!((counters.list, counters.head, counters.get), (0, 0, 1));
}

/// A thousand siblings `x-...` sort between the file `x` and the directory `x/`.
#[test]
fn a_cold_name_costs_two_requests_side_by_side_whatever_its_siblings() {
    let siblings = (0..3000).map(|i| (format!("dir/x-{i:04}"), "s"));
    // More than come along with the directory.
    let before = (0..50).map(|i| (format!("dir/a-{i:04}"), "s"));
    let siblings = before.chain(siblings);
    let objects = [("dir/x/inside", "i"), ("dir/file", "f")];
    let objects = objects.map(|(key, content)| (key.to_owned(), content));
    let world = crate::support::world_with(siblings.chain(objects), |settings| {
        // So that requests that do not wait for one another overlap for certain.
        settings.shape.first_byte = std::time::Duration::from_millis(100);
    });
    for (name, exists) in [("dir/x", true), ("dir/file", true), ("dir/nothing", false)] {
        let mount = Mount::new(&world);
        std::fs::metadata(mount.path("dir")).expect("a directory");
        world.reset_counters();
        let found = std::fs::metadata(mount.path(name));
        assert_eq!(found.is_ok(), exists, "{name}");
        let counters = world.counters();
        assert_eq!((counters.list, counters.depth), (2, 1), "{name}");
        assert_eq!(counters.head + counters.get, 0);
    }
}

#[test]
fn a_denied_listing_is_a_warning_and_files_can_be_read_by_name() {
    let world = world([("dir/file.h5", "content"), ("other", "o")]);
    let access = mock_earthdata::Access {
        list: mock_earthdata::ListAccess::Nowhere,
        get: true,
    };
    world.set_bucket_access(BUCKET, access);
    let mount = Mount::new(&world);
    mount.log_with("may not be listed");
    assert_eq!(mount.read("other"), b"o");
    assert_eq!(mount.read("dir/file.h5"), b"content");
    let error = std::fs::metadata(mount.path("dir/missing.h5")).expect_err("missing");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    let error = std::fs::read_dir(mount.root()).map(|mut entries| entries.next());
    let error = match error {
        Ok(Some(Err(error))) | Err(error) => error,
        other => panic!("listed: {other:?}"),
    };
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
}

#[test]
fn no_right_but_list_and_get_is_needed() {
    let world = world([("a/b", Content::Synthetic { size: 5 << 20 })]);
    let mount = Mount::new(&world);
    assert_eq!(mount.names("a"), ["b"]);
    assert_eq!(mount.read("a/b").len(), 5 << 20);
    let allowed = |op: &Op| matches!(op, Op::List | Op::Head | Op::Get);
    assert!(world.requests().iter().all(|request| allowed(&request.op)));
    let counters = world.counters();
    assert_eq!((counters.forbidden_operations, counters.head), (0, 0));
}

/// Keys of every shape, each directory of more than 100,000, listed whole, in order and side by side.
#[test]
fn big_directories_are_listed_in_parallel_whatever_their_keys_look_like() {
    let mixed = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    type Shape = Box<dyn Fn(u64) -> String>;
    let shapes: [(&str, Shape); 6] = [
        ("number", Box::new(|i| format!("{i:08}.bin"))),
        ("hex", Box::new(move |i| format!("{:016x}", mixed(i)))),
        (
            "date",
            Box::new(|i| {
                let (day, hour) = (i / 24, i % 24);
                let (year, month) = (1990 + day / 336, day / 28 % 12 + 1);
                let day = day % 28 + 1;
                format!("SPL3SMP_R19_{year}{month:02}{day:02}T{hour:02}0000_006_01.h5")
            }),
        ),
        ("plain", Box::new(|i| format!("{i}"))),
        (
            "unicode",
            Box::new(|i| {
                let c = |n: u64| char::from_u32(0x4E00 + (n % 60) as u32).expect("a letter");
                format!("{}é{}{}{}", c(i), c(i / 60), c(i / 3600), i / 216_000)
            }),
        ),
        ("directories", Box::new(|i| format!("d{}/x", i * 7))),
    ];
    let count = 101_000;
    let keys = shapes.iter().flat_map(|(name, shape)| {
        let one = Content::Synthetic { size: 1 };
        (0..count).map(move |i| (format!("{name}/{}", shape(i)), one.clone()))
    });
    let world = crate::support::world_with(keys, |settings| {
        settings.lean = true;
        // So that the depth counts requests and not the time that this program takes for them.
        settings.shape.first_byte = std::time::Duration::from_millis(200);
    });
    let mount = Mount::new(&world);
    for (name, shape) in &shapes {
        world.reset_counters();
        let keys: std::collections::BTreeSet<String> = (0..count)
            .map(|i| shape(i).trim_end_matches("/x").to_owned())
            .collect();
        let listed = mount.names(name);
        assert!(listed.iter().eq(&keys), "{name}: {} names", listed.len());
        let counters = world.counters();
        let (lists, side_by_side) = (counters.list, counters.max_in_flight);
        let page_after_page = 102;
        // Dates are the dearest: most digits of a month or a day do not exist, and each is asked for.
        assert!(lists <= 7 * page_after_page, "{name}: {lists} LISTs");
        assert!(
            counters.depth < page_after_page,
            "{name}: {}",
            counters.depth
        );
        assert!(side_by_side >= 12, "{name}: {side_by_side} side by side");
    }
}
