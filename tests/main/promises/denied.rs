//! What is refused: writes, and listings.

use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;

use mock_earthdata::{Access, Fault, FaultRule, ListAccess, Op};

use super::*;
use crate::support::{Mount, world_with};

#[test]
fn nothing_can_be_written() {
    promised(
        "Everything that would write fails with EROFS: open for writing, create, remove, rename, \
         link, change of mode, owner or times, truncate, mkdir, setting extended attributes.",
    );
    let world = keys(&["d/file"]);
    let mount = Mount::new(&world);
    let (file, new) = (mount.path("d/file"), mount.path("d/new"));
    let refused = |what: &str, result: io::Result<()>| {
        assert_eq!(errno(result), Some(libc::EROFS), "{what}");
    };
    refused(
        "write",
        OpenOptions::new().write(true).open(&file).map(drop),
    );
    refused(
        "append",
        OpenOptions::new().append(true).open(&file).map(drop),
    );
    refused("create", File::create(&new).map(drop));
    refused("remove", fs::remove_file(&file));
    refused("rmdir", fs::remove_dir(mount.path("d")));
    refused("rename", fs::rename(&file, &new));
    refused("link", fs::hard_link(&file, &new));
    refused("symlink", std::os::unix::fs::symlink("file", &new));
    refused("mkdir", fs::create_dir(&new));
    let mode = fs::metadata(&file).expect("stat").permissions();
    refused("chmod", fs::set_permissions(&file, mode));
    refused("chown", std::os::unix::fs::chown(&file, Some(0), Some(0)));
    let path = CString::new(file.as_os_str().as_bytes()).expect("no NUL");
    let result = |failed: i32| match failed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the path is valid.
    refused(
        "truncate",
        result(unsafe { libc::truncate(path.as_ptr(), 0) }),
    );
    // SAFETY: the path is valid, and no times mean now.
    refused(
        "utimes",
        result(unsafe { libc::utimes(path.as_ptr(), std::ptr::null()) }),
    );
    let (name, value) = (c"user.x", [0_u8; 1]);
    // SAFETY: path and name are valid, and the value is as long as said.
    let set = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), 1, 0) };
    refused("setxattr", result(set));
    assert_eq!(mount.read("d/file"), b"d/file");
    assert_eq!(world.counters().forbidden_operations, 0);
}

#[test]
fn a_bucket_that_cannot_be_listed_works_by_name() {
    promised("A bucket that may not be listed is mounted all the same, with a warning.");
    promised("Where listing is denied, reading a directory fails with EACCES");
    promised("Where listing is denied, a name whose HEAD succeeds is a file.");
    promised(
        "Where listing is denied, a name whose HEAD is denied is a directory, unless it ends in a \
         dot and a suffix of letters and digits that begins with a letter (`.h5`, `.nc4`, \
         `.aux.xml`): then it does not exist.",
    );
    promised(
        "Until one request with these credentials has succeeded in the bucket, a name with such a \
         suffix whose HEAD is denied fails with EACCES, because that may be about the credentials \
         and not about the name.",
    );
    let objects = ["first.h5", "ATL03/2018.10.14/granule.h5"];
    let world = world_with(
        objects.map(|key| (key, key.as_bytes().to_vec())),
        |settings| {
            settings.buckets[0].access = Access {
                list: ListAccess::Nowhere,
                get: true,
            };
        },
    );
    let mount = Mount::new(&world);
    mount.log_with("may not be listed");
    assert_eq!(stat_errno(&mount, "second.h5"), Some(libc::EACCES));
    assert_eq!(
        errno(fs::read_dir(mount.root()).and_then(|mut all| all.next().transpose())),
        Some(libc::EACCES)
    );
    let nested = "ATL03/2018.10.14/granule.h5";
    assert_eq!(mount.read(nested), nested.as_bytes());
    assert_eq!(mount.read("first.h5"), b"first.h5");
    for absent in ["second.h5", "ATL03/x.nc4", "first.h5.aux.xml"] {
        assert_eq!(stat_errno(&mount, absent), Some(libc::ENOENT), "{absent}");
    }
}

/// A bucket in which LIST is denied but below `listed/`.
fn unlisted(objects: &[&str], list: ListAccess) -> mock_earthdata::World {
    let objects = objects.iter().map(|key| (*key, key.as_bytes().to_vec()));
    world_with(objects, |settings| {
        settings.buckets[0].access = Access { list, get: true };
        settings.shape.first_byte = std::time::Duration::from_millis(50);
    })
}

/// A mount with a list of keys.
fn with_keys(world: &mock_earthdata::World, list: &str) -> (Mount, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("keys");
    fs::write(&file, list).expect("a list");
    let file = file.to_str().expect("UTF-8");
    let mount = Mount::with_args(world, &["--keys", file, "--operation-timeout", "5"]);
    (mount, directory)
}

#[test]
fn a_list_of_keys_supplies_names() {
    promised(
        "`--keys FILE` supplies names: keys of the bucket or `s3://` URLs, one a line; lines that begin with \
         `#` are comments. Where listing is denied, these names are shown, with the directories that they \
         make, and one that S3 does not have is left out.",
    );
    promised(
        "A key that is not in the list can be read by its name all the same, but a directory that is \
         not in the list does not exist where the list names others.",
    );
    promised("unless names in it are known from `--keys`");
    let objects = ["a/x.h5", "a/y.h5", "a/b/z", "a/other.h5", "top.nc"];
    let world = unlisted(&objects, ListAccess::Nowhere);
    let list = "a/b/z\ns3://test-bucket/a/x.h5\n\na/y.h5\na/gone.h5\ns3://another/a/q.h5\ntop.nc\n";
    let (mount, _directory) = with_keys(&world, list);
    mount.log_with("5 names are known from --keys");
    mount.log_with("1 line");
    assert_eq!(mount.names(""), ["a", "top.nc"]);
    world.reset_counters();
    assert_eq!(mount.names("a"), ["b", "x.h5", "y.h5"]);
    // Whether just this directory is listed, then HEADs side by side, and nothing more for sizes and opens.
    let counters = world.counters();
    assert_eq!((counters.head, counters.list, counters.depth), (3, 1, 2));
    for key in ["a/x.h5", "a/y.h5"] {
        let size = fs::metadata(mount.path(key)).expect("stat").len();
        assert_eq!(size, key.len() as u64);
    }
    assert_eq!(world.counters().head, 3);
    for key in ["a/x.h5", "a/b/z", "top.nc", "a/other.h5"] {
        assert_eq!(mount.read(key), key.as_bytes());
    }
    assert_eq!(mount.names("a/b"), ["z"]);
    for absent in ["a/none", "none", "a/b/none"] {
        assert_eq!(stat_errno(&mount, absent), Some(libc::ENOENT), "{absent}");
    }
}

#[test]
fn a_directory_that_may_be_listed_is_shown_whole_beside_a_list_of_keys() {
    promised("A directory below that may be listed is listed.");
    let objects = [
        "listed/a.h5",
        "listed/b.h5",
        "listed/c/d.h5",
        "hidden/e.h5",
        "hidden/f.h5",
    ];
    let world = unlisted(&objects, ListAccess::Below(vec!["listed/".to_owned()]));
    let (mount, _directory) = with_keys(&world, "listed/a.h5\nhidden/e.h5\n");
    assert_eq!(mount.names(""), ["hidden", "listed"]);
    assert_eq!(mount.names("listed"), ["a.h5", "b.h5", "c"]);
    assert_eq!(mount.names("listed/c"), ["d.h5"]);
    world.reset_counters();
    for _ in 0..3 {
        assert_eq!(mount.names("hidden"), ["e.h5"]);
    }
    // Once for the TTL.
    let counters = world.counters();
    assert_eq!((counters.head, counters.list), (1, 1));
}

#[test]
fn what_was_found_of_a_list_of_keys_stays_when_the_time_is_over() {
    let objects = ["d/a.h5", "d/b.h5", "d/c.h5"];
    let world = unlisted(&objects, ListAccess::Nowhere);
    let (mount, _directory) = with_keys(&world, &objects.join("\n"));
    mount.names("");
    let rule = FaultRule::on(Op::Head).key("d/a.h5");
    world.script(rule.fault(Fault::StallBefore(None)));
    let listed = fs::read_dir(mount.path("d")).and_then(|mut all| all.next().transpose());
    assert_eq!(errno(listed), Some(libc::ETIMEDOUT));
    world.clear_faults();
    world.reset_counters();
    assert_eq!(mount.names("d"), ["a.h5", "b.h5", "c.h5"]);
    assert_eq!(world.counters().head, 1);
}

#[test]
fn a_long_list_of_keys_is_shown_in_order_and_whole() {
    let keys: Vec<_> = (0..2500).map(|i| format!("d/{i:05}.h5")).collect();
    let objects: Vec<_> = keys.iter().map(String::as_str).collect();
    let world = unlisted(&objects, ListAccess::Nowhere);
    let (mount, _directory) = with_keys(&world, &keys.join("\n"));
    let names = fs::read_dir(mount.path("d")).expect("a directory");
    let names: Vec<_> = names
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    let expected: Vec<_> = keys.iter().map(|key| OsString::from(&key[2..])).collect();
    assert_eq!(names, expected);
    assert_eq!(world.counters().head, 2500);
}

#[test]
fn a_denied_listing_is_remembered_and_a_prefix_that_is_allowed_is_listed() {
    promised(
        "A denied listing is remembered for the TTL, for what lies below it, too: a name then costs \
         one HEAD. A directory below that may be listed is listed.",
    );
    let objects = ["hidden/deep/file.h5", "listed/a.h5", "listed/d.1/b.h5"];
    let world = unlisted(&objects, ListAccess::Below(vec!["listed/".to_owned()]));
    let mount = Mount::new(&world);
    world.reset_counters();
    assert_eq!(mount.read("hidden/deep/file.h5"), b"hidden/deep/file.h5");
    let counters = world.counters();
    assert_eq!((counters.head, counters.list, counters.get), (3, 0, 1));
    assert_eq!(mount.names("listed"), ["a.h5", "d.1"]);
    world.reset_counters();
    assert_eq!(mount.read("listed/d.1/b.h5"), b"listed/d.1/b.h5");
    assert_eq!(
        stat_errno(&mount, "listed/no-such-directory"),
        Some(libc::ENOENT)
    );
    let counters = world.counters();
    assert_eq!(counters.head, 0, "{counters:?}");
}

/// A bucket that may be listed, its mount that believes for ever, and names that there are.
fn listable() -> (mock_earthdata::World, [&'static str; 6]) {
    let world = keys(&["d/e/f.h5", "d/g", "h.zarr/0.0", "top.nc"]);
    let names = ["d", "d/e", "d/e/f.h5", "d/g", "h.zarr", "top.nc"];
    (world, names)
}

#[test]
fn one_denied_listing_hides_no_name_and_invents_none() {
    promised("a denial there is a failure.");
    promised("which it does to those who may list: they are asked for by listing.");
    let (world, names) = listable();
    for (asked, expected) in [
        ("nothing", Some(libc::ENOENT)),
        ("nothing.h5", Some(libc::ENOENT)),
        ("d", None),
        ("top.nc", None),
    ] {
        let mount = Mount::with_args(&world, &FOR_EVER);
        let of_it = FaultRule::on(Op::List).key(&format!("{asked}*")).times(1);
        world.script(of_it.fault(Fault::AccessDenied));
        assert_eq!(stat_errno(&mount, asked), expected, "{asked}");
        assert_eq!(world.fired(), [1]);
        for name in names {
            assert_eq!(stat_errno(&mount, name), None, "{name}");
        }
        assert_eq!(mount.names("d"), ["e", "g"]);
        world.clear_faults();
    }
}

#[test]
fn of_what_is_denied_for_a_while_nothing_is_kept() {
    promised(
        "A name then fails with EACCES, unless its HEAD succeeds, and nothing of the failure is kept.",
    );
    let (world, names) = listable();
    let absent = ["nothing", "nothing.h5"];
    for (rule, can_be_asked_for) in [
        (FaultRule::on(Op::List), ["top.nc"].as_slice()),
        (FaultRule::on_any(), &[]),
    ] {
        let mount = Mount::with_args(&world, &FOR_EVER);
        world.script(rule.fault(Fault::AccessDenied));
        for name in names.iter().chain(&absent) {
            let expected = (!can_be_asked_for.contains(name)).then_some(libc::EACCES);
            assert_eq!(stat_errno(&mount, name), expected, "{name}");
        }
        let listed = fs::read_dir(mount.root()).and_then(|mut all| all.next().transpose());
        assert_eq!(errno(listed), Some(libc::EACCES));
        world.clear_faults();
        for name in names {
            assert_eq!(stat_errno(&mount, name), None, "{name}");
        }
        for name in absent {
            assert_eq!(stat_errno(&mount, name), Some(libc::ENOENT), "{name}");
        }
        assert_eq!(mount.names(""), ["d", "h.zarr", "top.nc"]);
    }
}

#[test]
fn a_bucket_that_was_denied_while_it_was_mounted_is_listed_once_it_may_be() {
    promised("which it does to those who may list: they are asked for by listing.");
    let (world, names) = listable();
    world.script(FaultRule::on(Op::List).fault(Fault::AccessDenied));
    let mount = Mount::with_args(&world, &FOR_EVER);
    mount.log_with("may not be listed");
    assert_eq!(stat_errno(&mount, "d"), Some(libc::EACCES));
    world.clear_faults();
    for name in names {
        assert_eq!(stat_errno(&mount, name), None, "{name}");
    }
    assert_eq!(stat_errno(&mount, "nothing"), Some(libc::ENOENT));
}

#[test]
fn a_directory_that_is_listed_is_there_whatever_its_name_looks_like() {
    promised("A directory below that may be listed is listed.");
    let below = vec!["d.zarr/".to_owned()];
    let world = unlisted(&["d.zarr/a.h5"], ListAccess::Below(below));
    let mount = Mount::with_args(&world, &EACH_TIME);
    assert_eq!(mount.read("d.zarr/a.h5"), b"d.zarr/a.h5");
    assert_eq!(mount.names("d.zarr"), ["a.h5"]);
}
