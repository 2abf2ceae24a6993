//! What is believed, for how long, and how a change is seen.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Command, Stdio};

use mock_earthdata::Content;

use super::directories::Directory;
use super::*;
use crate::support::{BUCKET, Mount, eventually, world};

#[test]
fn a_new_version_has_a_new_inode_and_a_directory_keeps_its_own() {
    promised("A new version gets a new inode number.");
    promised("The inode number of a version stays the same while the kernel remembers it");
    promised(
        "A directory keeps its inode number while the kernel remembers it, whatever happens in it.",
    );
    let world = keys(&["d/file", "d/other"]);
    let mount = Mount::with_args(&world, &EACH_TIME);
    let inode = |name: &str| fs::metadata(mount.path(name)).expect("stat").ino();
    let (directory, file, other) = (inode("d"), inode("d/file"), inode("d/other"));
    mount.names("d");
    assert_eq!(
        (inode("d"), inode("d/file"), inode("d/other")),
        (directory, file, other)
    );
    world.put(BUCKET, "d/file", "replaced");
    world.put(BUCKET, "d/new", "new");
    assert_ne!(inode("d/file"), file);
    mount.names("d");
    assert_eq!((inode("d"), inode("d/other")), (directory, other));
}

#[test]
fn a_ttl_of_zero_sees_every_change_at_once() {
    promised(
        "With `--metadata-ttl 0`, S3 is asked about every name at every use: a new, a removed and \
         a replaced object are seen at once.",
    );
    let world = keys(&["d/replaced", "d/removed"]);
    let mount = Mount::with_args(&world, &EACH_TIME);
    let check = |present: &[(&str, &str)], absent: &[&str], list_first: bool| {
        let names: Vec<_> = present.iter().map(|(name, _)| *name).collect();
        if list_first {
            assert_eq!(mount.names("d"), names);
        }
        for (name, content) in present {
            let name = format!("d/{name}");
            let size = fs::metadata(mount.path(&name)).expect("stat").len();
            assert_eq!(size, content.len() as u64, "{name}");
            assert_eq!(mount.read(&name), content.as_bytes(), "{name}");
        }
        for name in absent {
            let name = format!("d/{name}");
            assert_eq!(stat_errno(&mount, &name), Some(libc::ENOENT), "{name}");
        }
        if !list_first {
            assert_eq!(mount.names("d"), names);
        }
    };
    for list_first in [true, false] {
        world.put(BUCKET, "d/replaced", "d/replaced");
        world.put(BUCKET, "d/removed", "d/removed");
        world.remove(BUCKET, "d/new");
        let old = [("removed", "d/removed"), ("replaced", "d/replaced")];
        check(&old, &["new"], list_first);
        world.put(BUCKET, "d/new", "new");
        world.put(BUCKET, "d/replaced", "another");
        world.remove(BUCKET, "d/removed");
        check(
            &[("new", "new"), ("replaced", "another")],
            &["removed"],
            list_first,
        );
        // Of the same size: only the version tells.
        world.put(BUCKET, "d/replaced", "ANOTHER");
        check(
            &[("new", "new"), ("replaced", "ANOTHER")],
            &["removed"],
            list_first,
        );
    }
}

#[test]
fn a_name_becomes_a_directory_and_a_file_again() {
    promised("a new, a removed and a replaced object are seen at once.");
    let world = keys(&["name", "other"]);
    let mount = Mount::with_args(&world, &EACH_TIME);
    assert!(mount.path("name").is_file());
    world.put(BUCKET, "name/below", "below");
    assert!(mount.path("name").is_dir());
    assert_eq!(mount.read("name/below"), b"below");
    world.remove(BUCKET, "name/below");
    assert!(mount.path("name").is_file());
    assert_eq!(mount.read("name"), b"name");
}

#[test]
fn what_was_listed_is_known_present_and_absent() {
    promised("A name that was listed is not asked for again within the TTL.");
    promised(
        "A directory that was listed whole is known whole: within the TTL, names that are not in it \
         are absent without a request.",
    );
    promised("Opening a file sends no request.");
    let world = keys(&["d/a", "d/b/c", "d/e"]);
    let mount = Mount::with_args(&world, &FOR_EVER);
    assert_eq!(mount.names("d"), ["a", "b", "e"]);
    world.reset_counters();
    for name in ["a", "b", "e"] {
        fs::metadata(mount.path("d").join(name)).expect("stat");
    }
    File::open(mount.path("d/a")).expect("open");
    for absent in ["0", "aa", "b-", "zzz", "a.aux.xml"] {
        let absent = format!("d/{absent}");
        assert_eq!(stat_errno(&mount, absent), Some(libc::ENOENT));
    }
    assert_eq!(mount.names("d"), ["a", "b", "e"]);
    let counters = world.counters();
    assert_eq!((counters.list, counters.head, counters.get), (0, 0, 0));
}

#[test]
fn absence_is_believed_as_presence_is() {
    promised("Absence is believed as long as presence is.");
    let world = keys(&["d/a", "d/z"]);
    let mount = Mount::with_args(&world, &FOR_EVER);
    let look = || {
        assert_eq!(stat_errno(&mount, "d/missing"), Some(libc::ENOENT));
        assert_eq!(stat_errno(&mount, "d/a"), None);
    };
    look();
    world.reset_counters();
    world.put(BUCKET, "d/missing", "not seen yet");
    world.remove(BUCKET, "d/a");
    look();
    assert_eq!(world.counters().list, 0);
}

#[test]
fn a_change_is_seen_when_the_ttl_is_over() {
    promised("A change in the bucket is seen when the TTL is over, at the latest.");
    let world = keys(&["d/replaced", "d/removed"]);
    let mount = Mount::with_args(&world, &["--metadata-ttl", "500ms"]);
    mount.names("d");
    assert_eq!(mount.read("d/replaced"), b"d/replaced");
    assert_eq!(stat_errno(&mount, "d/new"), Some(libc::ENOENT));
    world.put(BUCKET, "d/new", "new");
    world.put(BUCKET, "d/replaced", "another");
    world.remove(BUCKET, "d/removed");
    eventually("the new one", || stat_errno(&mount, "d/new").is_none());
    eventually("the removed one is gone", || {
        stat_errno(&mount, "d/removed") == Some(libc::ENOENT)
    });
    eventually("the replaced one", || {
        fs::read(mount.path("d/replaced")).is_ok_and(|read| read == b"another")
    });
    eventually("the listing", || mount.names("d") == ["new", "replaced"]);
}

#[test]
fn a_removed_object_opens_and_is_stale_and_then_gone() {
    promised(
        "Opening a file sends no request. A file that was replaced or removed within the TTL can \
         still be opened.",
    );
    promised(
        "When an object was replaced or removed, reads of its old version that memory cannot answer \
         fail with ESTALE.",
    );
    promised(
        "After an ESTALE the name is asked for again: soon after, an open sees the new version.",
    );
    promised("never a mixture of two versions.");
    let size = 20 << 20;
    let world = world([
        ("removed", Content::Synthetic { size }),
        ("replaced", Content::Synthetic { size }),
    ]);
    let mount = Mount::with_args(&world, &FOR_EVER);
    mount.names("");
    world.remove(BUCKET, "removed");
    world.put(BUCKET, "replaced", "short");
    for name in ["removed", "replaced"] {
        let file = File::open(mount.path(name)).expect("open");
        let read = file.read_at(&mut [0; 10], 0);
        assert_eq!(errno(read), Some(libc::ESTALE), "{name}");
    }
    eventually("the removed one is gone", || {
        stat_errno(&mount, "removed") == Some(libc::ENOENT)
    });
    eventually("the new version", || {
        fs::read(mount.path("replaced")).is_ok_and(|read| read == b"short")
    });
}

/// Its reader may go on for long, and others have seen the new version meanwhile.
#[test]
fn a_reader_of_an_old_version_makes_nobody_forget_the_new_one() {
    promised("A name that was listed is not asked for again within the TTL.");
    let world = world([("d/file", Content::Synthetic { size: 20 << 20 })]);
    let mount = Mount::with_args(&world, &FOR_EVER);
    let old = File::open(mount.path("d/file")).expect("open");
    world.put(BUCKET, "d/file", "short");
    let read_old = |mib: u64| errno(old.read_at(&mut [0; 10], mib << 20));
    assert_eq!(read_old(0), Some(libc::ESTALE));
    eventually("the new version", || {
        fs::read(mount.path("d/file")).is_ok_and(|read| read == b"short")
    });
    assert_eq!(mount.names("d"), ["file"]);
    world.reset_counters();
    for mib in [5, 10, 15] {
        assert_eq!(read_old(mib), Some(libc::ESTALE));
        assert_eq!(mount.names("d"), ["file"]);
        assert_eq!(mount.read("d/file"), b"short");
    }
    let counters = world.counters();
    assert_eq!((counters.list, counters.head), (0, 0));
}

#[test]
fn sighup_forgets_all_names() {
    promised(
        "SIGHUP forgets all that is known of names, in the program and in the kernel; an absent name \
         that was asked for may stay absent for 10 s more, and a directory that was used may stay for \
         as long.",
    );
    let world = keys(&["d/replaced", "d/removed", "gone/file", "top"]);
    let mount = Mount::with_args(&world, &FOR_EVER);
    assert_eq!(mount.names("d"), ["removed", "replaced"]);
    assert_eq!(mount.names(""), ["d", "gone", "top"]);
    assert_eq!(stat_errno(&mount, "gone"), None);
    assert_eq!(stat_errno(&mount, "d/new"), Some(libc::ENOENT));
    assert_eq!(stat_errno(&mount, "new"), Some(libc::ENOENT));
    world.remove(BUCKET, "d/removed");
    world.remove(BUCKET, "gone/file");
    world.put(BUCKET, "d/replaced", "another");
    world.put(BUCKET, "d/new", "new");
    world.put(BUCKET, "new", "new");
    assert_eq!(stat_errno(&mount, "d/removed"), None);
    mount.signal(libc::SIGHUP);
    eventually("the listing", || mount.names("d") == ["new", "replaced"]);
    eventually("the removed one is gone", || {
        stat_errno(&mount, "d/removed") == Some(libc::ENOENT)
    });
    assert_eq!(mount.read("d/replaced"), b"another");
    assert_eq!(mount.read("d/new"), b"new");
    eventually("the new one at the top", || {
        stat_errno(&mount, "new").is_none()
    });
    assert_eq!(mount.names(""), ["d", "new", "top"]);
    eventually("the removed directory is gone", || {
        stat_errno(&mount, "gone") == Some(libc::ENOENT)
    });
    assert!(mount.is_mounted());
}

/// Pages that were fetched ahead of a reader are older than what he makes known by taking them.
#[test]
fn a_listing_that_pauses_brings_nothing_back_that_was_forgotten() {
    promised("SIGHUP forgets all that is known of names, in the program and in the kernel");
    let names: Vec<_> = (0..2500).map(|i| format!("d/{i:06}")).collect();
    let world = keys(&names.iter().map(|name| &**name).collect::<Vec<_>>());
    let mount = Mount::with_args(&world, &["--metadata-ttl", "inf", "-vv"]);
    let mut directory = Directory::open(&mount, "d");
    world.reset_counters();
    for _ in 0..3 {
        directory.next().expect("an entry");
    }
    eventually("the second page is there", || {
        let counters = world.counters();
        counters.list >= 2 && counters.in_flight == 0
    });
    for name in &names[1500..1510] {
        world.remove(BUCKET, name);
    }
    world.put(BUCKET, "d/001600", "replaced");
    mount.signal(libc::SIGHUP);
    mount.log_with("known_to_the_kernel=");
    while directory.next().is_some() {}
    for name in &names[1500..1510] {
        assert_eq!(stat_errno(&mount, name), Some(libc::ENOENT), "{name}");
    }
    assert_eq!(mount.read("d/001600"), b"replaced");
}

/// The kernel says `(deleted)` of a directory that it was made to forget.
#[test]
fn sighup_leaves_programs_in_their_directories() {
    promised("Programs go on in the directories that they are in, unless S3 cannot be asked");
    let world = keys(&["d/e/file"]);
    let mount = Mount::with_args(&world, &["--metadata-ttl", "inf", "-vv"]);
    assert_eq!(mount.read("d/e/file"), b"d/e/file");
    let mut program = Command::new("cat");
    program.current_dir(mount.path("d/e")).stdin(Stdio::piped());
    let mut program = program.spawn().expect("cat");
    mount.signal(libc::SIGHUP);
    let log = mount.log_with("known_to_the_kernel=");
    let (_, count) = log.split_once("known_to_the_kernel=").expect("a count");
    let count = count.split_whitespace().next().expect("a count");
    let count: usize = count.parse().expect("a count");
    eventually("the kernel is told of all", || {
        mount.log().matches("the kernel forgets a name").count() == count
    });
    let place = fs::read_link(format!("/proc/{}/cwd", program.id()));
    drop(program.stdin.take());
    program.wait().expect("cat");
    assert_eq!(place.expect("procfs"), mount.path("d/e"));
}
