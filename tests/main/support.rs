//! Mounts through the real program, and cleans up after it whatever happens.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use mock_earthdata::{Bucket, Content, DEFAULT_TOKEN, Settings, World};
use tempfile::TempDir;

/// The bucket of [`world`].
pub(crate) const BUCKET: &str = "test-bucket";

/// No step of a test takes longer, however busy the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A world with one bucket that holds `objects`.
pub(crate) fn world<K: Into<String>, C: Into<Content>>(
    objects: impl IntoIterator<Item = (K, C)>,
) -> World {
    world_with(objects, |_| {})
}

/// The same, with settings changed.
pub(crate) fn world_with<K: Into<String>, C: Into<Content>>(
    objects: impl IntoIterator<Item = (K, C)>,
    change: impl FnOnce(&mut Settings),
) -> World {
    let objects = objects.into_iter();
    let mut settings = Settings {
        buckets: vec![Bucket {
            name: BUCKET.to_owned(),
            objects: objects.map(|(k, c)| (k.into(), c.into())).collect(),
            ..Bucket::default()
        }],
        ..Settings::default()
    };
    change(&mut settings);
    World::start(settings).expect("the mock starts")
}

/// What the mock computes for a synthetic object.
pub(crate) fn computed(key: &str, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    mock_earthdata::fill(key, offset, &mut bytes);
    bytes
}

/// The program with the arguments that bring it to `world`, a login by token, and nothing of this
/// user's own environment that could change what it does.
pub(crate) fn program(world: &World) -> Command {
    let mut command = program_at(world, &world.tea_endpoint());
    command.env("EARTHDATA_TOKEN", DEFAULT_TOKEN);
    command
}

/// The program with the arguments that bring it to `world` by an endpoint, and no login yet.
pub(crate) fn program_at(world: &World, endpoint: &str) -> Command {
    let mut command = bare_program();
    command
        .args(["--credentials-endpoint", endpoint])
        .args(["--earthdata-host", &world.earthdata_host()])
        .args(["--endpoint-url", &world.s3_url()]);
    command
}

/// The program without arguments, in a clean environment.
pub(crate) fn bare_program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_s3credmount"));
    let ours = |name: &str| {
        name.starts_with("EARTHDATA_")
            || name.starts_with("S3CREDMOUNT_")
            || name == "NETRC"
            || name == "XDG_CACHE_HOME"
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(ours) {
            command.env_remove(name);
        }
    }
    command.env("HOME", "/nonexistent");
    // Worlds come and go at the same ports: what one of them granted is of no use in the next.
    command.env("S3CREDMOUNT_CREDENTIALS_CACHE", "none");
    // No test asks the machine that it runs on where it is.
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.9:9");
    command
}

/// A mount by the real program, gone when this is dropped.
pub(crate) struct Mount {
    child: Child,
    directory: TempDir,
    log: PathBuf,
    stdout: Arc<Mutex<Vec<u8>>>,
    /// The line that tells of the mount.
    pub(crate) greeting: String,
}

impl Mount {
    /// Mounts the bucket of `world`.
    pub(crate) fn new(world: &World) -> Self {
        Self::with(program(world), BUCKET)
    }

    /// The same with more arguments.
    pub(crate) fn with_args(world: &World, args: &[&str]) -> Self {
        let mut program = program(world);
        program.args(args);
        Self::with(program, BUCKET)
    }

    /// Runs `program` to mount `source`.
    ///
    /// # Panics
    /// With the program's log, if it does not mount in time.
    pub(crate) fn with(program: Command, source: &str) -> Self {
        Self::start(program, source, false)
    }

    /// Runs `program` as an ordinary user, see [`crate::ordinary`].
    pub(crate) fn of_ordinary_user(program: Command, source: &str) -> Self {
        Self::start(program, source, true)
    }

    fn start(mut program: Command, source: &str, ordinary: bool) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("s3credmount-test-")
            .tempdir()
            .expect("a temporary directory");
        let mountpoint = directory.path().join("mnt");
        std::fs::create_dir(&mountpoint).expect("a mountpoint");
        let log = directory.path().join("log");
        let log_file = File::create(&log).expect("a log file");
        if ordinary {
            program = crate::ordinary::ordinary_user(program, &mountpoint);
        }
        program
            .args(["--foreground", source])
            .arg(&mountpoint)
            .stdout(Stdio::piped())
            .stderr(log_file);
        let child = program.spawn().expect("the program starts");
        let mut mount = Self {
            child,
            directory,
            log,
            stdout: Arc::default(),
            greeting: String::new(),
        };
        mount.greeting = mount.first_line();
        mount
    }

    /// Ends the program with no chance to clean up.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("it is gone");
    }

    /// Runs `program`, after the first one has ended, to mount at the same place.
    pub(crate) fn restart(&mut self, program: Command) {
        let mut before = self.mount_again(program);
        before.wait().expect("it has ended");
    }

    /// Runs `program` to mount where the first one, which this returns, is mounted no more.
    pub(crate) fn mount_again(&mut self, mut program: Command) -> Child {
        let log = File::options().append(true).open(&self.log);
        program
            .args(["--foreground", BUCKET])
            .arg(self.root())
            .stdout(Stdio::piped())
            .stderr(log.expect("a log file"));
        let child = program.spawn().expect("the program starts");
        let before = std::mem::replace(&mut self.child, child);
        self.greeting = self.first_line();
        before
    }

    fn first_line(&mut self) -> String {
        let stdout = self.child.stdout.take().expect("piped");
        let (sender, receiver) = mpsc::channel();
        let rest = Arc::clone(&self.stdout);
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            let _ = sender.send(line);
            // Keeps the pipe open for as long as the program lives.
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut piece) {
                rest.lock().expect("no panic").extend(&piece[..n]);
            }
        });
        match receiver.recv_timeout(PATIENCE) {
            Ok(line) if !line.is_empty() => line.trim_end().to_owned(),
            _ => panic!("no mount; the program says:\n{}", self.log()),
        }
    }

    /// The root of the mount.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    /// A path in the mount.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    /// All of a file.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}\n{}", self.log()))
    }

    /// The names in a directory, sorted.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(directory)).expect("a directory");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("UTF-8")
        };
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    /// What the program wrote to stderr so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The log, once it has `part`: lines are written by a thread of their own, a moment later than
    /// what they tell of.
    pub(crate) fn log_with(&self, part: &str) -> String {
        let begin = Instant::now();
        loop {
            let log = self.log();
            if log.contains(part) {
                return log;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "{part:?} is not in the log:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the program wrote to stdout so far.
    pub(crate) fn stdout(&self) -> String {
        let rest = self.stdout.lock().expect("no panic");
        format!("{}\n{}", self.greeting, String::from_utf8_lossy(&rest))
    }

    /// The program's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that the program has held, in bytes.
    pub(crate) fn peak_rss(&self) -> u64 {
        let status = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(status).expect("procfs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.expect("VmHWM").trim().trim_end_matches(" kB");
        peak.parse::<u64>().expect("a number") * 1024
    }

    /// Sends a signal to the program.
    pub(crate) fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.pid()).expect("a pid");
        // SAFETY: `kill` takes no pointers, and the child has not been waited for.
        unsafe { libc::kill(pid, signal) };
    }

    /// Waits until the program has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child).unwrap_or_else(|| panic!("it does not end:\n{}", self.log()))
    }

    /// Whether something is mounted on the mountpoint.
    pub(crate) fn is_mounted(&self) -> bool {
        is_mount_point(&self.root())
    }
}

/// Whether something is mounted on `path`.
pub(crate) fn is_mount_point(path: &Path) -> bool {
    mount_table_line(path).is_some()
}

/// What the kernel tells of the mount on `path`: source, mountpoint, type, options. This thread's
/// mounts: see [`crate::ordinary`].
pub(crate) fn mount_table_line(path: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/thread-self/mounts").expect("procfs");
    let path = path.to_str().expect("UTF-8");
    let mut lines = mounts.lines();
    lines
        .find(|line| line.split(' ').nth(1) == Some(path))
        .map(str::to_owned)
}

impl Drop for Mount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the program ---\n{}", self.log());
        }
        // Once it was waited for, its pid may be another's.
        if let Ok(None) = self.child.try_wait() {
            self.signal(libc::SIGTERM);
        }
        if wait(&mut self.child).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if self.is_mounted() {
            let _ = Command::new("umount").arg("-l").arg(self.root()).status();
        }
    }
}

/// Polls until `seen`, for at most [`PATIENCE`].
pub(crate) fn eventually(what: &str, mut seen: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !seen() {
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for a child for at most [`PATIENCE`].
pub(crate) fn wait(child: &mut Child) -> Option<ExitStatus> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// The program, started by another one, whose last arguments it is.
pub(crate) fn started_by(mut other: Command, program: &Command) -> Command {
    other.arg(program.get_program()).args(program.get_args());
    take_environment(&mut other, program);
    other
}

/// Gives `command` what `of` has of variables of its own.
pub(crate) fn take_environment(command: &mut Command, of: &Command) {
    for (name, value) in of.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}

/// Runs a program that is expected to fail to mount; its exit status and stderr.
pub(crate) fn fails(
    mut program: Command,
    source: &str,
    mountpoint: &Path,
) -> (Option<i32>, String) {
    program.args(["--foreground", source]).arg(mountpoint);
    program.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = program.spawn().expect("the program starts");
    let Some(status) = wait(&mut child) else {
        let _ = child.kill();
        let _ = child.wait();
        let _ = Command::new("umount").arg("-l").arg(mountpoint).status();
        panic!("it mounted, or did not end");
    };
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("piped");
    stderr.read_to_string(&mut said).expect("UTF-8");
    (status.code(), said)
}
