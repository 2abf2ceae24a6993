//! Attributes of files, directories and the mount.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::support::{BUCKET, Mount, world};

#[test]
fn attributes_of_files_and_directories() {
    promised("Files have mode 0444 and directories 0555");
    promised("Everything belongs to the user and group that mounted");
    promised(
        "The size of a file is the exact size of the object, and `st_blocks` is that size in units \
         of 512 bytes, rounded up.",
    );
    promised(
        "The times of a file are LastModified of the object, in whole seconds; access time, change \
         time and modification time are the same.",
    );
    promised("The times of all directories are the time of mounting, and their size is 0.");
    promised("The link count of a file is 1, and that of a directory is 2 whatever it holds.");
    let before = now();
    let world = world([("d/e/x", vec![b'x'; 1025]), ("d/empty", Vec::new())]);
    let after = now();
    let mount = Mount::new(&world);
    let mounted = now();
    // SAFETY: these calls have no preconditions and cannot fail.
    let us = unsafe { (libc::getuid(), libc::getgid()) };
    for listed in [false, true] {
        let mount = if listed { &Mount::new(&world) } else { &mount };
        if listed {
            mount.names("d");
            mount.names("d/e");
        }
        let file = fs::metadata(mount.path("d/e/x")).expect("stat");
        assert_eq!(file.mode(), libc::S_IFREG | 0o444);
        assert_eq!((file.size(), file.blocks(), file.nlink()), (1025, 3, 1));
        assert_eq!((file.uid(), file.gid()), us);
        assert!((before..=after).contains(&file.mtime()), "{}", file.mtime());
        assert_eq!(file.mtime_nsec(), 0);
        assert_eq!(file.atime(), file.mtime());
        assert_eq!(file.ctime(), file.mtime());
        let empty = fs::metadata(mount.path("d/empty")).expect("stat");
        assert_eq!((empty.size(), empty.blocks()), (0, 0));
        for directory in ["", "d", "d/e"] {
            let directory = fs::metadata(mount.path(directory)).expect("stat");
            assert_eq!(directory.mode(), libc::S_IFDIR | 0o555);
            assert_eq!((directory.size(), directory.nlink()), (0, 2));
            assert_eq!((directory.uid(), directory.gid()), us);
            if !listed {
                assert!((after..=mounted).contains(&directory.mtime()));
            }
        }
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_secs()).expect("small")
}

#[test]
fn attributes_as_the_options_say() {
    promised("unless `--file-mode` and `--dir-mode` say otherwise.");
    promised("unless `--uid` and `--gid` say otherwise.");
    promised("Nothing on the mount can be executed");
    let world = world([("d/script", "#!/bin/sh\nexit 0\n")]);
    let options = "--file-mode 0555 --dir-mode 0511 --uid 1234 --gid 567";
    let options: Vec<_> = options.split(' ').collect();
    let mount = Mount::with_args(&world, &options);
    let file = fs::metadata(mount.path("d/script")).expect("stat");
    let directory = fs::metadata(mount.path("d")).expect("stat");
    assert_eq!(file.mode(), libc::S_IFREG | 0o555);
    assert_eq!(directory.mode(), libc::S_IFDIR | 0o511);
    for stat in [file, directory, fs::metadata(mount.root()).expect("stat")] {
        assert_eq!((stat.uid(), stat.gid()), (1234, 567));
    }
    let run = Command::new(mount.path("d/script")).status();
    assert_eq!(errno(run), Some(libc::EACCES));
}

/// The value of an extended attribute, or errno.
fn attribute(mount: &Mount, name: &str, attribute: &CStr) -> Result<String, i32> {
    let path = CString::new(mount.path(name).as_os_str().as_bytes()).expect("no NUL");
    let mut value = vec![0_u8; 1024];
    // SAFETY: both strings are valid, and the value has the room that is said.
    let len = unsafe {
        let value = value.as_mut_ptr().cast();
        libc::getxattr(path.as_ptr(), attribute.as_ptr(), value, 1024)
    };
    let Ok(len) = usize::try_from(len) else {
        return Err(io::Error::last_os_error().raw_os_error().expect("errno"));
    };
    value.truncate(len);
    Ok(String::from_utf8(value).expect("UTF-8"))
}

fn attribute_names(mount: &Mount, name: &str) -> Vec<String> {
    let path = CString::new(mount.path(name).as_os_str().as_bytes()).expect("no NUL");
    let mut names = vec![0_u8; 1024];
    // SAFETY: the path is valid, and the list has the room that is said.
    let len = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), 1024) };
    names.truncate(usize::try_from(len).expect("listed"));
    let names = String::from_utf8(names).expect("UTF-8");
    names.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn extended_attributes_tell_of_the_object() {
    promised(
        "Files have the extended attributes `user.s3.bucket`, `user.s3.etag`, `user.s3.key`, \
         `user.s3.last-modified` and `user.s3.storage-class` (`getfattr -d` shows them); directories \
         have none. Reading an attribute outside of `user.s3.` fails with EOPNOTSUPP.",
    );
    let world = keys(&["d/file é"]);
    let etag = world.put(BUCKET, "d/file é", "new");
    let mount = Mount::new(&world);
    let name = "d/file é";
    let names = ["bucket", "etag", "key", "last-modified", "storage-class"];
    assert_eq!(
        attribute_names(&mount, name),
        names.map(|name| format!("user.s3.{name}"))
    );
    assert!(attribute_names(&mount, "d").is_empty());
    let value = |attribute_name| attribute(&mount, name, attribute_name);
    assert_eq!(value(c"user.s3.bucket"), Ok(BUCKET.to_owned()));
    assert_eq!(value(c"user.s3.etag"), Ok(etag));
    assert_eq!(value(c"user.s3.key"), Ok(name.to_owned()));
    assert_eq!(value(c"user.s3.storage-class"), Ok("STANDARD".to_owned()));
    let modified = value(c"user.s3.last-modified").expect("a time");
    let (date, time) = modified.split_once('T').expect("RFC 3339");
    assert!(
        date.len() == 10 && time.len() == 9 && time.ends_with('Z'),
        "{modified}"
    );
    assert_eq!(value(c"user.s3.other"), Err(libc::ENODATA));
    assert_eq!(attribute(&mount, "d", c"user.s3.key"), Err(libc::ENODATA));
    for foreign in [
        c"security.capability",
        c"user.other",
        c"system.posix_acl_access",
    ] {
        assert_eq!(value(foreign), Err(libc::EOPNOTSUPP), "{foreign:?}");
    }
}

#[test]
fn df_shows_a_pebibyte_of_free_space() {
    promised("`df` shows a pebibyte, all of it free: S3 has no size to show.");
    let world = keys(&["file"]);
    let mount = Mount::new(&world);
    let path = CString::new(mount.root().as_os_str().as_bytes()).expect("no NUL");
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path is valid, and the answer has room for what is written.
    let failed = unsafe { libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) };
    assert_eq!(failed, 0, "{}", io::Error::last_os_error());
    // SAFETY: statvfs has succeeded, and so filled it in.
    let answer = unsafe { answer.assume_init() };
    assert_eq!(answer.f_blocks * answer.f_frsize, 1 << 50);
    assert_eq!(answer.f_bfree, answer.f_blocks);
    assert_eq!(answer.f_bavail, answer.f_blocks);
    assert_eq!(answer.f_namemax, 255);
}

#[test]
fn archived_objects_cannot_be_opened() {
    promised(
        "Archived objects (GLACIER, DEEP_ARCHIVE and not restored) have mode 0000, and opening one \
         fails with EACCES.",
    );
    let world = keys(&["cold", "warm"]);
    assert!(world.archive(BUCKET, "cold"));
    let mount = Mount::new(&world);
    assert_eq!(mount.names(""), ["cold", "warm"]);
    let stat = fs::metadata(mount.path("cold")).expect("stat");
    assert_eq!((stat.mode() & 0o777, stat.size()), (0, 4));
    assert_eq!(errno(File::open(mount.path("cold"))), Some(libc::EACCES));
    assert_eq!(
        attribute(&mount, "cold", c"user.s3.storage-class"),
        Ok("GLACIER".to_owned())
    );
    let stat = fs::metadata(mount.path("warm")).expect("stat");
    assert_eq!(stat.mode() & 0o777, 0o444);
    assert_eq!(mount.read("warm"), b"warm");
    mount.log_with("archived");
}
