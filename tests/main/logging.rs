//! The log: where it goes, what is in it, and that its troubles are its own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use mock_earthdata::{Content, World};

use crate::support::{BUCKET, Mount, bare_program, eventually, program, started_by, world};

fn small_world() -> World {
    world([("file", "content"), ("other", "o")])
}

/// A mount that logs to a file, with more arguments.
fn logging_to(world: &World, file: &Path, arguments: &[&str]) -> Mount {
    let mut program = program(world);
    program.arg("--log-file").arg(file).args(arguments);
    Mount::with(program, BUCKET)
}

/// The lines of the log once the program has ended.
fn lines_after_end(mut mount: Mount, file: &Path) -> Vec<String> {
    mount.signal(libc::SIGTERM);
    assert!(mount.wait().success());
    let log = std::fs::read_to_string(file).expect("a log");
    log.lines().map(str::to_owned).collect()
}

fn count(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

#[test]
fn a_file_of_mode_0600_holds_a_line_for_each_thing_that_happens() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("log");
    let world = small_world();
    let mount = logging_to(&world, &file, &[]);
    assert_eq!(mount.read("file"), b"content");
    world.expire_all();
    assert_eq!(mount.read("other"), b"o");
    let mode = |path: &Path| std::fs::metadata(path).expect("stat").permissions().mode();
    assert_eq!(mode(&file) & 0o777, 0o600);
    let lines = lines_after_end(mount, &file);
    for (text, times) in [
        ("credentials obtained", 1),
        ("is mounted on", 1),
        ("S3 does not accept the credentials any more", 1),
        ("credentials renewed", 1),
        ("SIGTERM: unmounting", 1),
        ("unmounted", 1),
    ] {
        assert_eq!(count(&lines, text), times, "{text} in {lines:#?}");
    }
    assert_eq!(count(&lines, "seconds_left="), 1);
}

#[test]
fn json_lines_are_json() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("log");
    let world = small_world();
    let mount = logging_to(&world, &file, &["--log-format", "json", "-vv"]);
    assert_eq!(mount.read("file"), b"content");
    let lines = lines_after_end(mount, &file);
    assert!(lines.len() > 5);
    for line in &lines {
        let json: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(json["timestamp"].is_string() && json["level"].is_string());
    }
}

#[test]
fn a_read_is_traceable_down_to_its_request() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("log");
    let world = small_world();
    let mount = logging_to(&world, &file, &["-vv"]);
    assert_eq!(mount.read("file"), b"content");
    let lines = lines_after_end(mount, &file);
    let traced = lines.iter().filter(|line| {
        line.contains("read{handle=") && line.contains("GET") && line.contains("key=\"file\"")
    });
    assert_eq!(traced.count(), 1, "{lines:#?}");
    assert!(
        lines
            .iter()
            .any(|line| line.contains("lookup{") && line.contains("LIST"))
    );
}

#[test]
fn one_cause_is_logged_once_however_many_reads_it_fails() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("log");
    let names: Vec<String> = (0..50).map(|i| format!("f{i:02}.nc")).collect();
    let world = world(names.iter().map(|name| (name.clone(), "x")));
    let mount = logging_to(&world, &file, &[]);
    assert_eq!(mount.names("").len(), 50);
    let access = mock_earthdata::Access {
        get: false,
        ..Default::default()
    };
    world.set_bucket_access(BUCKET, access);
    for name in &names {
        let error = std::fs::read(mount.path(name)).expect_err("denied");
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    }
    let lines = lines_after_end(mount, &file);
    assert_eq!(count(&lines, "access denied by S3"), 1, "{lines:#?}");
}

#[test]
fn a_full_disk_costs_lines_of_the_log_and_nothing_else() {
    let world = world([("file", Content::Synthetic { size: 20 << 20 })]);
    let mount = logging_to(&world, Path::new("/dev/full"), &["-vv"]);
    assert_eq!(mount.read("file").len(), 20 << 20);
    assert_eq!(mount.names(""), ["file"]);
    let mut mount = mount;
    mount.signal(libc::SIGTERM);
    assert!(mount.wait().success());
}

/// `ulimit -f`, as batch systems have it: the signal that comes with it ends programs.
#[test]
fn a_log_as_large_as_files_may_be_loses_lines_and_nothing_else() {
    let world = world([("file", Content::Synthetic { size: 20 << 20 })]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("log");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 8; exec \"$@\"", "sh"]);
    let mut limited = started_by(shell, &program(&world));
    limited.args(["-vv", "--log-file"]).arg(&file);
    let mut mount = Mount::with(limited, BUCKET);
    for _ in 0..50 {
        assert_eq!(mount.names(""), ["file"]);
        mount.signal(libc::SIGHUP);
        assert_eq!(mount.read("file").len(), 20 << 20);
        if std::fs::metadata(&file).expect("a log").len() >= 8 * 512 {
            break;
        }
    }
    assert_eq!(std::fs::metadata(&file).expect("a log").len(), 8 * 512);
    assert_eq!(mount.read("file").len(), 20 << 20);
    mount.signal(libc::SIGTERM);
    assert!(mount.wait().success());
}

/// What it is full of may be from another day.
#[test]
fn a_log_that_is_full_before_the_mount_prevents_nothing() {
    let world = small_world();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("log");
    std::fs::write(&file, [b'x'; 8 * 512]).expect("a log");
    let limited = |program: &Command| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -f 1; exec \"$@\"", "sh"]);
        started_by(shell, program)
    };
    let mut mount = limited(&program(&world));
    mount.arg("--log-file").arg(&file);
    let mut mount = Mount::with(mount, BUCKET);
    assert_eq!(mount.read("file"), b"content");
    mount.signal(libc::SIGTERM);
    assert!(mount.wait().success());
    assert_eq!(std::fs::metadata(&file).expect("a log").len(), 8 * 512);
    // What a tool prints is lost as well.
    let mut listed = bare_program();
    listed.arg("buckets");
    let full = std::fs::File::options().append(true).open(&file);
    let listed = limited(&listed).stdout(full.expect("a file")).output();
    let listed = listed.expect("it runs");
    assert_eq!(listed.status.code(), Some(1), "{listed:?}");
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(said.contains("cannot write to standard output"), "{said}");
}

#[test]
fn a_log_that_nobody_reads_any_more_does_not_end_the_mount() {
    let world = small_world();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().join("mnt");
    std::fs::create_dir(&root).expect("a mountpoint");
    let mut program = program(&world);
    program.args(["--foreground", "-vv", BUCKET]).arg(&root);
    program.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().expect("it starts");
    eventually("it is mounted", || crate::support::is_mount_point(&root));
    drop((child.stdout.take(), child.stderr.take()));
    for _ in 0..20 {
        assert_eq!(
            std::fs::read(root.join("file")).expect("a read"),
            b"content"
        );
        let _ = std::fs::metadata(root.join("nothing"));
    }
    let unmounted = Command::new("umount").arg(&root).status();
    assert!(unmounted.expect("umount").success());
    assert!(crate::support::wait(&mut child).expect("it ends").success());
}

#[test]
fn a_log_file_that_cannot_be_opened_is_told_before_the_mount() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().join("mnt");
    std::fs::create_dir(&root).expect("a mountpoint");
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&root, &link).expect("a link");
    for (file, why) in [
        (
            "/proc/no/such/log".into(),
            "cannot log to /proc/no/such/log",
        ),
        (
            directory.path().join("no/such/log"),
            "No such file or directory",
        ),
        (
            link.join("log"),
            "would lie in the mount: name a file outside of",
        ),
    ] {
        let mut program = bare_program();
        program.arg("--no-sign-request").arg("--log-file").arg(file);
        let (status, said) = crate::support::fails(program, BUCKET, &root);
        assert_eq!(status, Some(1));
        assert!(said.contains(why), "{said}");
    }
    // Nothing was made on the way there.
    assert!(!directory.path().join("no").exists());
    assert_eq!(std::fs::read_dir(&root).expect("a directory").count(), 0);
}

#[test]
fn why_there_is_no_mount_is_in_its_log() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = directory.path().join("log");
    let mut program = bare_program();
    program.args(["--no-sign-request", "--endpoint-url", "http://127.0.0.1:9"]);
    program.arg("--log-file").arg(&log);
    let (status, said) = crate::support::fails(program, BUCKET, &directory.path().join("none"));
    assert_eq!(status, Some(1));
    let log = std::fs::read_to_string(&log).expect("a log");
    let why = said.trim().trim_start_matches("s3credmount: ");
    assert!(log.contains("not mounted: ") && log.contains(why), "{log}");
}
