//! What is refused: writes, and listings.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;

use mock_earthdata::{Access, ListAccess};

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
    promised("Where listing is denied, reading a directory fails with EACCES.");
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
