//! Directories that are open: what they show while they change.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStringExt;

use super::*;
use crate::support::{BUCKET, Mount, eventually};

/// libc's own calls, as programs use them.
pub(super) struct Directory(*mut libc::DIR);

impl Directory {
    pub(super) fn open(mount: &Mount, name: &str) -> Self {
        let path = mount.path(name).into_os_string().into_vec();
        let path = CString::new(path).expect("no NUL");
        // SAFETY: the path is valid.
        let directory = unsafe { libc::opendir(path.as_ptr()) };
        assert!(!directory.is_null());
        Self(directory)
    }

    pub(super) fn next(&mut self) -> Option<String> {
        // SAFETY: the directory is open, and the name is a C string until the next call.
        unsafe {
            let entry = libc::readdir(self.0);
            let name = (!entry.is_null()).then(|| CStr::from_ptr((*entry).d_name.as_ptr()));
            name.map(|name| name.to_str().expect("UTF-8").to_owned())
        }
    }

    fn tell(&mut self) -> libc::c_long {
        // SAFETY: the directory is open.
        unsafe { libc::telldir(self.0) }
    }

    fn seek(&mut self, position: libc::c_long) {
        // SAFETY: the directory is open.
        unsafe { libc::seekdir(self.0, position) };
    }

    fn rewind(&mut self) {
        // SAFETY: the directory is open.
        unsafe { libc::rewinddir(self.0) };
    }

    /// All names but the dots, from its beginning on.
    fn names(&mut self) -> Vec<String> {
        self.rewind();
        let all = std::iter::from_fn(|| self.next());
        all.filter(|name| !name.starts_with('.')).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // SAFETY: the directory is open, and is not used any more.
        unsafe { libc::closedir(self.0) };
    }
}

/// The kernel fills the pages that it keeps of a directory from whoever reads it, and these may have
/// listed it at different times.
#[test]
fn what_the_kernel_keeps_of_a_listing_is_of_one_listing() {
    promised("A change in the bucket is seen when the TTL is over, at the latest.");
    let name = |i: usize| format!("{i:06}");
    let present = |from: usize| (from..3000).map(name).collect::<Vec<_>>();
    let world = keys(&[]);
    for i in 0..3000 {
        world.put(BUCKET, &format!("d/{}", name(i)), "x");
    }
    let mount = Mount::with_args(&world, &["--metadata-ttl", "1"]);
    // Who came first reads to the end last, and the other way round.
    for (round, first_ends_last) in [true, false].into_iter().enumerate() {
        let mut first = Directory::open(&mount, "d");
        let mut second = Directory::open(&mount, "d");
        for _ in 0..3 {
            first.next().expect("an entry");
        }
        let gone = 10 * (round + 1);
        for i in gone - 10..gone {
            assert!(world.remove(BUCKET, &format!("d/{}", name(i))));
        }
        eventually("the TTL is over", || {
            stat_errno(&mount, format!("d/{}", name(gone - 1))) == Some(libc::ENOENT)
        });
        let mut ends = [&mut second, &mut first];
        if !first_ends_last {
            ends.swap(0, 1);
        }
        for directory in ends {
            while directory.next().is_some() {}
        }
        assert!(mount.names("d") == present(gone), "both open");
        drop(first);
        assert!(mount.names("d") == present(gone), "one open");
        drop(second);
        for _ in 0..3 {
            assert!(mount.names("d") == present(gone));
        }
    }
}

#[test]
fn a_directory_that_stays_open_shows_a_change_when_the_ttl_is_over() {
    promised("A change in the bucket is seen when the TTL is over, at the latest.");
    promised("and `rewinddir` lists anew.");
    let world = keys(&["d/a", "empty/"]);
    let mount = Mount::with_args(&world, &["--metadata-ttl", "1"]);
    // The second one reads what the kernel has kept of the first one's listing.
    let mut first = Directory::open(&mount, "d");
    assert_eq!(first.names(), ["a"]);
    let mut second = Directory::open(&mount, "d");
    assert_eq!(second.names(), ["a"]);
    for new in ["b", "c"] {
        world.put(BUCKET, &format!("d/{new}"), "new");
        for directory in [&mut first, &mut second] {
            eventually(new, || directory.names().contains(&new.to_owned()));
        }
    }
    drop(first);
    world.remove(BUCKET, "d/a");
    eventually("one is gone", || second.names() == ["b", "c"]);
    let mut empty = Directory::open(&mount, "empty");
    assert!(empty.names().is_empty());
    world.put(BUCKET, "empty/a", "new");
    eventually("the first one", || empty.names() == ["a"]);
}

#[test]
fn a_directory_that_stays_open_is_listed_anew_after_sighup() {
    promised("SIGHUP forgets all that is known of names, in the program and in the kernel");
    let world = keys(&["d/a"]);
    let mount = Mount::with_args(&world, &FOR_EVER);
    let mut directory = Directory::open(&mount, "d");
    assert_eq!(directory.names(), ["a"]);
    world.put(BUCKET, "d/b", "new");
    mount.signal(libc::SIGHUP);
    eventually("the new one", || directory.names() == ["a", "b"]);
}

/// Who reads the kernel's pages has no listing of his own yet when these are dropped.
#[test]
fn who_reads_what_the_kernel_keeps_when_the_ttl_is_over_gets_the_rest_of_it() {
    promised("shows each name at most once, and each name that was there all the time.");
    let names: Vec<_> = (0..3000).map(|i| format!("d/{i:06}")).collect();
    let world = keys(&names.iter().map(|name| &**name).collect::<Vec<_>>());
    let mount = Mount::with_args(&world, &["--metadata-ttl", "2", "-vv"]);
    assert_eq!(mount.names("d").len(), 3000);
    let mut directory = Directory::open(&mount, "d");
    let mut seen = vec![directory.next().expect("an entry")];
    for name in &names[..10] {
        world.remove(BUCKET, name);
    }
    mount.log_with("the kernel forgets the pages of a directory");
    seen.extend(std::iter::from_fn(|| directory.next()));
    seen.retain(|name| !name.starts_with('.'));
    let expected = names.iter().map(|name| &name[2..]);
    assert!(seen.iter().eq(expected), "{} names", seen.len());
    assert!(
        directory
            .names()
            .iter()
            .eq(names[10..].iter().map(|name| &name[2..]))
    );
}

#[test]
fn seekdir_goes_back_far_and_rewinddir_lists_anew() {
    promised(
        "A position of `telldir` stands for the number of entries before it: `seekdir` goes on there \
         as long as the directory is open, and `rewinddir` lists anew.",
    );
    let names: Vec<_> = (0..40_000).map(|i| format!("d/{i:06}")).collect();
    let world = keys(&names.iter().map(|name| &**name).collect::<Vec<_>>());
    for ttl in [EACH_TIME, FOR_EVER] {
        let mount = Mount::with_args(&world, &ttl);
        let mut directory = Directory::open(&mount, "d");
        let mut positions = Vec::new();
        let mut seen = Vec::new();
        loop {
            positions.push(directory.tell());
            match directory.next() {
                Some(name) => seen.push(name),
                None => break,
            }
        }
        assert_eq!(seen.len(), 40_002);
        for at in [39_999, 5, 20_000, 3, 40_001, 1_002] {
            directory.seek(positions[at]);
            assert_eq!(directory.next().as_ref(), Some(&seen[at]), "{at}");
            assert_eq!(directory.next().as_ref(), seen.get(at + 1), "{at}");
        }
        if ttl == EACH_TIME {
            world.put(BUCKET, "d/000000-new", "new");
            // Behind the dots is not at the beginning.
            directory.seek(positions[2]);
            assert_eq!(directory.next().as_ref(), Some(&seen[2]));
            directory.seek(positions[3]);
            assert_eq!(directory.next().as_ref(), Some(&seen[3]));
            directory.rewind();
            let again: Vec<_> = std::iter::from_fn(|| directory.next()).collect();
            assert_eq!(again.len(), 40_003);
            assert_eq!(again[3], "000000-new");
            world.remove(BUCKET, "d/000000-new");
        }
    }
}

#[test]
fn a_directory_that_changes_while_it_is_read_shows_the_rest_once() {
    promised(
        "A directory that changes while it is read shows each name at most once, and each name that \
         was there all the time.",
    );
    let names: Vec<_> = (0..12_000).map(|i| format!("d/{i:06}")).collect();
    let world = keys(&names.iter().map(|name| &**name).collect::<Vec<_>>());
    let mount = Mount::with_args(&world, &EACH_TIME);
    let mut directory = Directory::open(&mount, "d");
    let mut seen = Vec::new();
    for step in 0.. {
        match directory.next() {
            Some(name) => seen.push(name),
            None => break,
        }
        if step % 100 == 0 {
            // Before, around and behind the reader.
            for at in [step / 2, step + 50, 11_900 - step / 2] {
                world.put(BUCKET, &format!("d/{at:06}-new"), "new");
                world.remove(BUCKET, &format!("d/{:06}", at / 100 * 100 + 1));
            }
        }
    }
    let once: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(once.len(), seen.len(), "a name twice");
    for at in (0..12_000).filter(|at| at % 100 != 1) {
        assert!(once.contains(&format!("{at:06}")), "{at} is missing");
    }
}
