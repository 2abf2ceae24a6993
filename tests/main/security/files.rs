//! What is written to the disk: two directories, for this user's eyes, and nothing by way of a link that
//! somebody has planted.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use mock_earthdata::World;
use tempfile::TempDir;

use crate::failing::{mountpoint, says, small_world};
use crate::ordinary::{is_root, private_mounts};
use crate::support::{self, BUCKET, Mount, PATIENCE, is_mount_point, program};

/// Everything of a user in one directory: home, runtime and temporary files.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(mountpoint());
        for (name, mode) in [("tmp", 0o1777), ("run", 0o700), ("mnt", 0o755)] {
            let path = home.path(name);
            std::fs::create_dir(&path).expect("a directory");
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program as it runs by default.
    fn program(&self, world: &World, has_runtime_directory: bool) -> Command {
        self.program_with_umask(world, has_runtime_directory, "0")
    }

    fn program_with_umask(
        &self,
        world: &World,
        has_runtime_directory: bool,
        umask: &str,
    ) -> Command {
        let given = program(world);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]);
        let mut command = support::started_by(shell, &given);
        command
            .env("HOME", self.0.path())
            .env("TMPDIR", self.path("tmp"))
            .env_remove("S3CREDMOUNT_CREDENTIALS_CACHE")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_RUNTIME_DIR");
        if has_runtime_directory {
            command.env("XDG_RUNTIME_DIR", self.path("run"));
        }
        command
    }

    /// What is there, by path, with its mode; links as such.
    fn tree(&self) -> BTreeMap<String, u32> {
        let mut tree = BTreeMap::new();
        let mut to_look_at = vec![self.0.path().to_owned()];
        while let Some(directory) = to_look_at.pop() {
            for entry in std::fs::read_dir(&directory).expect("a directory") {
                let path = entry.expect("an entry").path();
                let found = path.symlink_metadata().expect("it is there");
                let name = path.strip_prefix(self.0.path()).expect("below it");
                tree.insert(name.to_str().expect("UTF-8").to_owned(), found.mode());
                if found.is_dir() {
                    to_look_at.push(path);
                }
            }
        }
        tree
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let root = self.path("mnt");
        if is_mount_point(&root) {
            let _ = Command::new("umount").arg("-l").arg(root).status();
        }
    }
}

/// Makes all but `directories` read-only for this thread and the programs that it starts.
fn only_writable(directories: &[&Path]) -> std::io::Result<()> {
    private_mounts()?;
    let none = std::ptr::null();
    let mount = |target: &std::ffi::CStr, flags| {
        let source = target.as_ptr();
        // SAFETY: valid C strings, and nothing else.
        match unsafe { libc::mount(source, target.as_ptr(), none, flags, none.cast()) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    for directory in directories {
        let directory = CString::new(directory.as_os_str().as_bytes())?;
        mount(&directory, libc::MS_BIND)?;
    }
    let read_only = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
    mount(c"/", read_only)?;
    for other in [c"/tmp", c"/var/tmp", c"/dev/shm", c"/run", c"/home"] {
        // An error says that it lies on the root.
        let _ = mount(other, read_only);
    }
    Ok(())
}

/// The name of the log in the background, where there is no syslog.
fn default_log(home: &Home) -> String {
    format!("test-bucket{}.log", home.path("mnt").display()).replace('/', "-")
}

/// Mounts in the background, reads, and unmounts.
fn mount_and_read(home: &Home, mut program: Command) -> Output {
    let root = home.path("mnt");
    let output = program.arg(BUCKET).arg(&root).output().expect("it starts");
    if output.status.success() {
        let read = std::fs::read(root.join("file")).expect("a file");
        assert_eq!(read, b"content");
        let unmounted = Command::new("umount").arg(&root).status();
        assert!(unmounted.expect("umount").success());
    }
    output
}

#[test]
fn credentials_and_the_log_are_all_that_is_written_and_for_this_user_alone() {
    let world = small_world();
    let homes = [(true, "0"), (false, "0"), (false, "0177")];
    let homes =
        homes.map(|(has_runtime_directory, umask)| (Home::new(), has_runtime_directory, umask));
    if is_root() {
        only_writable(&homes.each_ref().map(|(home, ..)| home.0.path())).expect("root can");
        let elsewhere = std::fs::write("/s3credmount-test", "");
        let elsewhere = elsewhere.expect_err("read-only");
        assert_eq!(elsewhere.raw_os_error(), Some(libc::EROFS));
    }
    for (home, has_runtime_directory, umask) in &homes {
        let before = home.tree();
        let program = home.program_with_umask(&world, *has_runtime_directory, umask);
        let output = mount_and_read(home, program);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let mut written = home.tree();
        written.retain(|path, _| !before.contains_key(path));
        let cache = match has_runtime_directory {
            true => "run/s3credmount".to_owned(),
            false => {
                let user = std::fs::metadata(home.0.path()).expect("it is there").uid();
                format!("tmp/s3credmount-{user}")
            }
        };
        let cached = written.keys().filter(|path| path.starts_with(&cache));
        assert_eq!(
            cached.count(),
            4,
            "directory, key, record, lock: {written:?}"
        );
        let state = ".local/state/s3credmount";
        for (path, mode) in &written {
            let expected = match mode & libc::S_IFMT {
                libc::S_IFDIR => 0o700,
                libc::S_IFREG => 0o600,
                other => panic!("{path} is {other:o}"),
            };
            assert_eq!(mode & 0o7777, expected, "{path}: {mode:o}");
            let is_expected = path.starts_with(&cache) || state.starts_with(path.as_str());
            let is_log = *path == format!("{state}/{}", default_log(home));
            assert!(is_expected || is_log, "{path}");
        }
        let log = home.path(state).join(default_log(home));
        if !Path::new("/dev/log").exists() {
            // What is read-only was missed by nobody.
            let log = log_with(&log, "unmounted");
            for word in ["WARN", "ERROR"] {
                assert!(!log.contains(word), "{log}");
            }
        }
    }
}

/// The log of a program that ends on its own.
fn log_with(log: &Path, part: &str) -> String {
    let begin = Instant::now();
    loop {
        let text = std::fs::read_to_string(log).expect("a log");
        if text.contains(part) {
            return text;
        }
        assert!(begin.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// In the temporary directory anybody can plant a link to what belongs to this user.
#[test]
fn a_link_in_the_place_of_the_shared_directory_is_not_followed() {
    let world = small_world();
    let home = Home::new();
    let user = std::fs::metadata(home.0.path()).expect("it is there").uid();
    let victim = home.path("victim");
    std::fs::create_dir(&victim).expect("a directory");
    std::fs::set_permissions(&victim, Permissions::from_mode(0o700)).expect("chmod");
    symlink(
        &victim,
        home.path("tmp").join(format!("s3credmount-{user}")),
    )
    .expect("a link");
    let mount = Mount::with(home.program(&world, false), BUCKET);
    assert_eq!(mount.read("file"), b"content");
    says(&mount.log_with("not shared"), &["is not a directory"]);
    let inside = std::fs::read_dir(&victim).expect("a directory").count();
    assert_eq!(inside, 0);
}

/// As if the directory had been open once. The record itself: see `sharing`.
#[test]
fn links_in_the_place_of_shared_files_are_not_followed() {
    let world = small_world();
    let home = Home::new();
    let cache = home.path("run/s3credmount");
    drop(Mount::with(home.program(&world, true), BUCKET));
    let victim = home.path("victim");
    let files = || std::fs::read_dir(&cache).expect("a directory");
    let paths: Vec<_> = files().map(|file| file.expect("a file").path()).collect();
    assert_eq!(paths.len(), 3, "{paths:?}");
    for path in paths {
        let aside = home.path("aside");
        std::fs::rename(&path, &aside).expect("renamed");
        for content in ["precious", ""] {
            std::fs::write(&victim, content).expect("a file");
            std::fs::set_permissions(&victim, Permissions::from_mode(0o600)).expect("chmod");
            let _ = std::fs::remove_file(&path);
            symlink(&victim, &path).expect("a link");
            let mount = Mount::with(home.program(&world, true), BUCKET);
            assert_eq!(mount.read("file"), b"content", "{}", path.display());
            drop(mount);
            let now = std::fs::read_to_string(&victim).expect("it is there");
            assert_eq!(now, content, "{}", path.display());
        }
        std::fs::rename(&aside, &path).expect("renamed back");
    }
}

#[test]
fn a_link_in_the_place_of_the_default_log_is_not_followed() {
    if Path::new("/dev/log").exists() {
        eprintln!("SKIPPED: the log goes to syslog here");
        return;
    }
    let world = small_world();
    let home = Home::new();
    let victim = home.path("victim");
    std::fs::write(&victim, "precious").expect("a file");
    let logs = home.path(".local/state/s3credmount");
    std::fs::create_dir_all(&logs).expect("a directory");
    let name = default_log(&home);
    symlink(&victim, logs.join(&name)).expect("a link");
    let output = mount_and_read(&home, home.program(&world, true));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    says(&said, &["cannot log to", &name, "--log-file"]);
    let now = std::fs::read_to_string(&victim).expect("it is there");
    assert_eq!(now, "precious");
}

/// Whoever names a file may name a link: `/dev/stderr` is one.
#[test]
fn a_log_file_that_is_named_may_be_a_link() {
    let world = small_world();
    let home = Home::new();
    let (target, link) = (home.path("target"), home.path("link"));
    std::fs::write(&target, "").expect("a file");
    symlink(&target, &link).expect("a link");
    let mut command = home.program(&world, true);
    command.arg("--log-file").arg(&link);
    drop(Mount::with(command, BUCKET));
    let log = std::fs::read_to_string(&target).expect("a log");
    says(&log, &["is mounted on"]);
}
