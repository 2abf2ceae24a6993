//! The mount as a file system: how it ends, what it refuses, and what it says of itself.

use std::ffi::CString;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use mock_earthdata::{Content, World};
use tempfile::TempDir;

use crate::ordinary::{as_ordinary_user, can_mount, is_root, ordinary_uid};
use crate::support::{
    BUCKET, Mount, computed, is_mount_point, mount_table_line, program, wait, world,
};

const SIZE: u64 = 20 << 20;

fn small_world() -> World {
    world([
        ("file", Content::Bytes("content".into())),
        ("dir/inner", Content::Bytes("inner".into())),
        ("large", Content::Synthetic { size: SIZE }),
    ])
}

fn ended_well(mut mount: Mount) {
    let status = mount.wait();
    assert_eq!(status.code(), Some(0), "{status}\n{}", mount.log());
    assert!(!mount.is_mounted(), "{}", mount.log());
    let left = std::fs::read_dir(mount.root()).expect("the directory");
    assert_eq!(left.count(), 0, "something is left on the mountpoint");
}

#[test]
fn signals_unmount_and_end_the_program_with_success() {
    let world = small_world();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGXCPU] {
        let mount = Mount::new(&world);
        assert!(mount.is_mounted());
        assert_eq!(mount.read("file"), b"content");
        mount.signal(signal);
        ended_well(mount);
    }
}

/// As batch systems send them to all processes of a job.
#[test]
fn signals_that_announce_an_end_do_not_end_the_program() {
    let world = small_world();
    let mount = Mount::new(&world);
    for signal in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGALRM] {
        mount.signal(signal);
        assert_eq!(mount.read("file"), b"content");
    }
    mount.signal(libc::SIGTERM);
    ended_well(mount);
}

/// Its files are open, so that it lives on where another one is mounted now.
#[test]
fn a_program_that_was_unmounted_leaves_the_next_mount_alone() {
    let world = small_world();
    let mut mount = Mount::new(&world);
    let file = File::open(mount.path("file")).expect("open");
    run(Command::new("umount").arg("-l").arg(mount.root()));
    let mut before = mount.mount_again(program(&world));
    let pid = i32::try_from(before.id()).expect("a pid");
    // SAFETY: `kill` takes no pointers, and the child has not been waited for.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    mount.log_with("SIGTERM: unmounting");
    drop(file);
    let status = wait(&mut before).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", mount.log());
    assert!(mount.is_mounted(), "{}", mount.log());
    assert_eq!(mount.read("dir/inner"), b"inner");
    mount.signal(libc::SIGTERM);
    ended_well(mount);
}

/// The files are still open when the program ends: it does not wait for them without end.
#[test]
fn signals_end_the_program_with_files_open() {
    let world = small_world();
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mount = Mount::new(&world);
        let mut file = File::open(mount.path("large")).expect("open");
        let directory = File::open(mount.path("dir")).expect("open");
        let mut start = [0; 1000];
        file.read_exact(&mut start).expect("a read");
        assert!(start[..] == computed("large", 0, 1000));
        mount.signal(signal);
        ended_well(mount);
        // Whose file system is gone gets an error, and not other bytes or a hang.
        let mut rest = Vec::new();
        let error = file
            .read_to_end(&mut rest)
            .expect_err("the program is gone");
        let errno = error.raw_os_error();
        assert!(
            matches!(errno, Some(libc::ENOTCONN | libc::ECONNABORTED)),
            "{error}"
        );
        drop(directory);
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// What is left is dead for whoever comes there.
#[test]
fn a_mount_whose_connection_is_cut_is_taken_off_and_the_log_says_so() {
    if !is_root() {
        return;
    }
    let world = small_world();
    let mount = Mount::new(&world);
    let file = File::open(mount.path("file")).expect("open");
    let mut force = Command::new("umount");
    let forced = force.arg("-f").arg(mount.root()).output();
    let forced = forced.expect("umount starts");
    assert!(!forced.status.success(), "its files are open: {forced:?}");
    let log = mount.log_with("unmounted");
    let told = format!("connection to the mount on {}", mount.root().display());
    assert!(log.contains(&told), "{log}");
    drop(file);
    ended_well(mount);
}

#[test]
fn a_mount_that_was_moved_or_bound_elsewhere_is_taken_off_there() {
    if !is_root() {
        return;
    }
    let world = small_world();
    let mut mount = Mount::new(&world);
    let (before, elsewhere) = (mount.root(), tempfile::tempdir());
    let elsewhere = elsewhere.expect("a temporary directory");
    let (parent, moved) = (before.parent(), elsewhere.path().join("moved"));
    let parent = parent.expect("a directory");
    std::fs::rename(parent, &moved).expect("what is above a mount can be moved");
    mount.signal(libc::SIGTERM);
    assert!(mount.wait().success());
    assert!(!is_mount_point(&moved.join("mnt")));
    std::fs::rename(&moved, parent).expect("moved back");
    ended_well(mount);

    let mount = Mount::new(&world);
    let bound = elsewhere.path();
    run(Command::new("mount")
        .arg("--bind")
        .args([mount.root().as_path(), bound]));
    run(Command::new("umount").arg(mount.root()));
    assert_eq!(
        std::fs::read(bound.join("file")).expect("a read"),
        b"content"
    );
    mount.signal(libc::SIGTERM);
    ended_well(mount);
    assert!(!is_mount_point(bound));
}

#[test]
fn umount_and_fusermount_end_the_program_with_success() {
    let world = small_world();
    for unmount in [&["umount"][..], &["fusermount3", "-u"]] {
        let mount = Mount::new(&world);
        assert_eq!(mount.read("dir/inner"), b"inner");
        run(Command::new(unmount[0])
            .args(&unmount[1..])
            .arg(mount.root()));
        ended_well(mount);
    }
}

#[test]
fn an_ordinary_user_mounts_reads_and_unmounts() {
    if !can_mount() {
        return;
    }
    let world = small_world();
    for by_signal in [true, false] {
        let mount = Mount::of_ordinary_user(program(&world), BUCKET);
        let line = mount_table_line(&mount.root()).expect("a mount");
        assert!(
            line.contains(&format!("user_id={}", ordinary_uid())),
            "{line}"
        );
        let mut cat = Command::new("cat");
        let output = as_ordinary_user(cat.arg(mount.path("large"))).output();
        let output = output.expect("cat starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{}", mount.log());
        let len = usize::try_from(SIZE).expect("small");
        assert!(output.stdout == computed("large", 0, len), "{said}");
        let mut stat = Command::new("stat");
        stat.args(["-c", "%u %a %s"]).arg(mount.path("large"));
        let output = as_ordinary_user(&mut stat).output().expect("stat starts");
        let expected = format!("{} 444 {SIZE}\n", ordinary_uid());
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        if by_signal {
            mount.signal(libc::SIGTERM);
        } else {
            let mut unmount = Command::new("fusermount3");
            run(as_ordinary_user(unmount.arg("-u").arg(mount.root())));
        }
        ended_well(mount);
    }
}

/// A directory with a program of this name.
fn helper(name: &str, script: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let program = directory.path().join(name);
    std::fs::write(&program, script).expect("a script");
    for path in [directory.path(), &program] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("chmod");
    }
    directory
}

/// fuse 2 has the helper by another name, which fuser finds when it mounts.
#[test]
fn an_ordinary_user_unmounts_by_whatever_helper_there_is() {
    if !can_mount() {
        return;
    }
    let world = small_world();
    let path = std::env::var("PATH").expect("PATH");
    let script = format!("#!/bin/sh\nPATH={path} exec fusermount3 \"$@\"\n");
    let helper = helper("fusermount", &script);
    let mut program = program(&world);
    program.env("PATH", helper.path());
    let mount = Mount::of_ordinary_user(program, BUCKET);
    assert!(mount.is_mounted());
    mount.signal(libc::SIGTERM);
    ended_well(mount);
}

#[test]
fn a_mount_that_cannot_be_taken_off_is_told_and_is_no_success() {
    if !can_mount() {
        return;
    }
    let world = small_world();
    let script =
        "#!/bin/sh\ncase $1 in -u) echo not today >&2; exit 1; esac\nexec fusermount3 \"$@\"\n";
    let helper = helper("only-mounts", script);
    let mut program = program(&world);
    program.env("FUSERMOUNT_PATH", helper.path().join("only-mounts"));
    let mut mount = Mount::of_ordinary_user(program, BUCKET);
    mount.signal(libc::SIGTERM);
    let status = mount.wait();
    let log = mount.log();
    assert_eq!(status.code(), Some(1), "{status}\n{log}");
    assert!(log.contains("cannot unmount"), "{log}");
    assert!(log.contains("not today"), "{log}");
    assert!(!log.contains("unmounted /"), "{log}");
    assert!(mount.is_mounted(), "{log}");
}

#[test]
fn a_file_is_locked_by_one_at_a_time() {
    let world = small_world();
    let mount = Mount::new(&world);
    let lock = |file: &File| {
        // SAFETY: an open file descriptor.
        match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
            0 => None,
            _ => io::Error::last_os_error().raw_os_error(),
        }
    };
    let first = File::open(mount.path("file")).expect("open");
    let second = File::open(mount.path("file")).expect("open");
    assert_eq!(lock(&first), None);
    assert_eq!(lock(&second), Some(libc::EWOULDBLOCK));
    let by_another_process = || {
        let mut flock = Command::new("flock");
        flock.args(["-x", "-n", "-E", "75"]).arg(mount.path("file"));
        flock
            .arg("true")
            .status()
            .expect("flock of util-linux")
            .code()
    };
    assert_eq!(by_another_process(), Some(75));
    drop(first);
    assert_eq!(by_another_process(), Some(0));
    assert_eq!(lock(&second), None);
}

#[test]
fn df_shows_a_file_system_that_is_not_full() {
    let world = small_world();
    let mount = Mount::new(&world);
    let mut df = Command::new("df");
    df.args(["--output=source,pcent,avail", "-B1"])
        .arg(mount.root());
    let output = df.output().expect("df starts");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let columns: Vec<_> = text
        .lines()
        .last()
        .expect("a line")
        .split_whitespace()
        .collect();
    assert_eq!(columns[..2], [&format!("s3://{BUCKET}"), "0%"], "{text}");
    let available: u64 = columns[2].parse().expect("bytes");
    assert!(available >= 1 << 40, "{text}");
    assert_eq!(world.counters().get, 0);
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

/// What a system call that answers 0 or -1 came to.
fn answer(result: i32) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[test]
fn everything_that_would_write_is_refused_as_read_only() {
    let world = small_world();
    let mount = Mount::new(&world);
    let (file, dir, new) = (mount.path("file"), mount.path("dir"), mount.path("new"));
    let open = |options: &mut OpenOptions, path: &Path| options.open(path).map(drop);
    let options = OpenOptions::new;
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: libc::UTIME_NOW,
    };
    let times = [now, now];
    let (c_file, c_new) = (c(&file), c(&new));
    let (c_file, c_new) = (c_file.as_ptr(), c_new.as_ptr());
    let value = c"value".as_ptr().cast();
    let attribute = c"user.name".as_ptr();
    // SAFETY: valid C strings, and an array of two times, as the calls want them.
    let raw = unsafe {
        [
            ("truncate", answer(libc::truncate(c_file, 0))),
            (
                "utimensat",
                answer(libc::utimensat(libc::AT_FDCWD, c_file, times.as_ptr(), 0)),
            ),
            (
                "setxattr",
                answer(libc::setxattr(c_file, attribute, value, 5, 0)),
            ),
            ("removexattr", answer(libc::removexattr(c_file, attribute))),
            (
                "mknod",
                answer(libc::mknod(c_new, libc::S_IFREG | 0o600, 0)),
            ),
            ("mkfifo", answer(libc::mkfifo(c_new, 0o600))),
        ]
    };
    let safe = [
        ("open for writing", open(options().write(true), &file)),
        (
            "open for both",
            open(options().read(true).write(true), &file),
        ),
        ("append", open(options().append(true), &file)),
        ("O_TRUNC", open(options().write(true).truncate(true), &file)),
        ("O_CREAT", open(options().write(true).create(true), &new)),
        ("O_EXCL", open(options().write(true).create_new(true), &new)),
        ("mkdir", std::fs::create_dir(&new)),
        ("unlink", std::fs::remove_file(&file)),
        ("rmdir", std::fs::remove_dir(&dir)),
        ("rename", std::fs::rename(&file, &new)),
        ("rename of a directory", std::fs::rename(&dir, &new)),
        ("link", std::fs::hard_link(&file, &new)),
        ("symlink", std::os::unix::fs::symlink("file", &new)),
        (
            "chmod",
            std::fs::set_permissions(&file, Permissions::from_mode(0o777)),
        ),
        ("chown", std::os::unix::fs::chown(&file, Some(1), Some(1))),
    ];
    for (what, result) in raw.into_iter().chain(safe) {
        let errno = result.err().and_then(|error| error.raw_os_error());
        assert_eq!(errno, Some(libc::EROFS), "{what}");
    }
    assert_eq!(mount.names(""), ["dir", "file", "large"]);
    assert_eq!(world.counters().forbidden_operations, 0);
}

#[test]
fn names_that_are_not_there_or_cannot_be() {
    let world = small_world();
    let mount = Mount::new(&world);
    for (name, expected) in [
        ("missing".to_owned(), libc::ENOENT),
        ("dir/missing".to_owned(), libc::ENOENT),
        ("missing/missing".to_owned(), libc::ENOENT),
        ("n".repeat(255), libc::ENOENT),
        ("n".repeat(256), libc::ENAMETOOLONG),
        ("file/inner".to_owned(), libc::ENOTDIR),
        ("file/".to_owned(), libc::ENOTDIR),
    ] {
        // Twice: once asked, and once known.
        for _ in 0..2 {
            let error = std::fs::metadata(mount.path(&name)).expect_err(&name);
            assert_eq!(error.raw_os_error(), Some(expected), "{name}");
        }
    }
    let not_utf8 = std::ffi::OsStr::from_bytes(b"caf\xe9.nc");
    let error = File::open(mount.path(not_utf8)).expect_err("keys are UTF-8");
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    let error = std::fs::read(mount.path("dir")).expect_err("a directory");
    assert_eq!(error.raw_os_error(), Some(libc::EISDIR));
    let error = std::fs::read_dir(mount.path("file")).expect_err("a file");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
}

#[test]
fn foreign_extended_attributes_are_not_supported() {
    let world = small_world();
    let mount = Mount::new(&world);
    let file = c(&mount.path("file"));
    for name in [c"user.foreign", c"security.selinux"] {
        // SAFETY: valid C strings; no buffer of no length.
        let got = unsafe { libc::getxattr(file.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
        let errno = io::Error::last_os_error().raw_os_error();
        assert_eq!((got, errno), (-1, Some(libc::EOPNOTSUPP)), "{name:?}");
    }
}

#[test]
fn owner_and_modes_are_what_the_options_say() {
    let world = small_world();
    let default = Mount::new(&world);
    // SAFETY: these have no preconditions and cannot fail.
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    let options = [
        "--uid",
        "1234",
        "--gid",
        "4321",
        "--file-mode",
        "0640",
        "--dir-mode",
        "0750",
    ];
    let changed = Mount::with_args(&world, &options);
    for (mount, owner, file_mode, dir_mode) in [
        (&default, (uid, gid), 0o444, 0o555),
        (&changed, (1234, 4321), 0o640, 0o750),
    ] {
        for (name, mode) in [("file", file_mode), ("dir", dir_mode), ("", dir_mode)] {
            let stat = std::fs::metadata(mount.path(name)).expect("stat");
            assert_eq!((stat.uid(), stat.gid()), owner, "{name:?}");
            assert_eq!(stat.mode() & 0o7777, mode, "{name:?}");
        }
    }
    let large = std::fs::metadata(default.path("large")).expect("stat");
    assert_eq!((large.size(), large.blocks()), (SIZE, SIZE / 512));
}

#[test]
fn the_mount_table_tells_what_is_mounted_and_that_it_is_harmless() {
    let world = small_world();
    for (source, shown) in [
        (BUCKET, "s3://test-bucket"),
        ("s3://test-bucket/dir/", "s3://test-bucket/dir"),
    ] {
        let mount = Mount::with(program(&world), source);
        let line = mount_table_line(&mount.root()).expect("a mount");
        let fields: Vec<_> = line.split(' ').collect();
        assert_eq!(
            (fields[0], fields[2]),
            (shown, "fuse.s3credmount"),
            "{line}"
        );
        let options: Vec<_> = fields[3].split(',').collect();
        for option in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
            assert!(options.contains(&option), "{option}: {line}");
        }
        assert!(!options.contains(&"allow_other"), "{line}");
    }
    let mount = Mount::with_args(&world, &["--allow-other"]);
    let line = mount_table_line(&mount.root()).expect("a mount");
    assert!(line.contains("allow_other"), "{line}");
}
