//! Processes that are killed, stopped or starved, and what they leave behind.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::time::Duration;

use mock_earthdata::Content;

use crate::support::{BUCKET, Mount, PATIENCE, computed, fails, program, wait, world, world_with};

const MIB: u64 = 1 << 20;

/// `kill -9` leaves a mountpoint on which everything fails. The next mount there takes its place, and
/// says so.
#[test]
fn a_mount_that_was_killed_gives_way_to_the_next_one() {
    let world = world([("d/file", "content")]);
    let mut mount = Mount::new(&world);
    let file = File::open(mount.path("d/file")).expect("open");
    mount.kill();
    let error = std::fs::read_dir(mount.root()).expect_err("dead");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    assert!(file.read_exact_at(&mut [0; 1], 0).is_err());
    mount.restart(program(&world));
    let log = mount.log_with("is mounted on");
    assert!(log.contains("dead mount of s3://test-bucket"), "{log}");
    assert_eq!(mount.read("d/file"), b"content");
}

/// What is named can be unmounted.
#[test]
fn below_a_mount_that_was_killed_the_mount_is_named() {
    let world = world([("d/e/file", "content")]);
    let mut mount = Mount::new(&world);
    mount.kill();
    for below in ["d", "d/e"] {
        let (status, said) = fails(program(&world), BUCKET, &mount.path(below));
        assert_eq!(status, Some(1), "{said}");
        let command = format!("umount -l {}\n", mount.root().display());
        assert!(said.contains(&command), "{said}");
    }
}

/// The mount table has where the link leads to.
#[test]
fn a_mount_that_was_killed_behind_a_link_gives_way_too() {
    let world = world([("file", "content")]);
    let mut mount = Mount::new(&world);
    let link = tempfile::tempdir().expect("a temporary directory");
    let link = link.path().join("link");
    std::os::unix::fs::symlink(mount.root(), &link).expect("a link");
    mount.kill();
    let mut program = program(&world);
    program
        .arg("--foreground")
        .args([BUCKET.as_ref(), link.as_os_str()]);
    program.stdout(Stdio::null()).stderr(Stdio::null());
    let mut again = program.spawn().expect("the program starts");
    let begin = std::time::Instant::now();
    while std::fs::read(mount.path("file")).is_err() {
        assert!(begin.elapsed() < PATIENCE, "no mount");
        std::thread::sleep(Duration::from_millis(10));
    }
    let unmounted = std::process::Command::new("umount")
        .arg(mount.root())
        .status();
    assert!(unmounted.expect("umount").success());
    assert!(wait(&mut again).expect("it ends").success());
}

/// A process that does not run while its credentials run out has new ones before it reads on.
#[test]
fn a_process_that_was_stopped_for_longer_than_its_credentials_live_reads_on() {
    let lifetime = Duration::from_secs(4);
    let object = [("file", Content::Synthetic { size: 64 * MIB })];
    let world = world_with(object, |settings| settings.lifetime = lifetime);
    let mount = Mount::new(&world);
    let file = File::open(mount.path("file")).expect("open");
    let read = |offset| -> io::Result<()> {
        let mut bytes = [0; 4096];
        file.read_exact_at(&mut bytes, offset)?;
        assert!(bytes[..] == computed("file", offset, 4096));
        Ok(())
    };
    read(8 * MIB).expect("before");
    mount.signal(libc::SIGSTOP);
    // The credentials' life is the thing that is tested, and it goes by the clock of the world.
    std::thread::sleep(lifetime * 2);
    mount.signal(libc::SIGCONT);
    read(48 * MIB).expect("after");
    assert_eq!(world.counters().expired_signed, 0);
}
