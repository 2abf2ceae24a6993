//! The program as a shell starts it: into the background, with one line when the mount is ready or a
//! message when it is not; by mount(8); and under systemd.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use mock_earthdata::{Answer, DEFAULT_PASSWORD, DEFAULT_USER, World};
use tempfile::TempDir;

use crate::ordinary::is_root;
use crate::support::{self, BUCKET, PATIENCE, bare_program, eventually, program, world};

/// A mount in the background; unmounted when this is dropped.
struct Background {
    directory: TempDir,
}

impl Background {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(directory.path().join("mnt")).expect("a mountpoint");
        Self { directory }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    /// Starts the program as a shell does, with its state below this directory.
    fn start(&self, mut program: Command) -> Output {
        program
            .arg(BUCKET)
            .arg(self.root())
            .env("XDG_STATE_HOME", self.directory.path())
            .stdin(Stdio::null());
        program.output().expect("it starts")
    }

    /// The process that serves the mount, or is about to.
    fn pid(&self) -> Option<u32> {
        self.pids().first().copied()
    }

    /// The processes that have the mountpoint among their arguments.
    fn pids(&self) -> Vec<u32> {
        let processes = std::fs::read_dir("/proc").expect("procfs");
        let pids = processes.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
        let root = self.root();
        let root = root.to_str().expect("UTF-8");
        let ours = pids.filter(|pid: &u32| {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut arguments = arguments.split(|b| *b == 0);
            let is_ours = arguments
                .next()
                .is_some_and(|a| a.ends_with(b"s3credmount"));
            is_ours && arguments.any(|a| a == root.as_bytes())
        });
        ours.collect()
    }

    fn unmount(&self) {
        let unmounted = Command::new("umount").arg(self.root()).status();
        assert!(unmounted.expect("umount").success());
        eventually("it ends", || self.pid().is_none());
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if support::is_mount_point(&self.root()) {
            let _ = Command::new("umount").arg("-l").arg(self.root()).status();
        }
    }
}

fn small_world() -> World {
    world([("file", "content")])
}

/// Field `index` of /proc/PID/stat, counted behind the name.
fn stat_field(pid: u32, index: usize) -> i64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("procfs");
    let behind = stat.rsplit_once(')').expect("a name").1;
    let field = behind.split_whitespace().nth(index).expect("a field");
    field.parse().expect("a number")
}

#[test]
fn the_shell_gets_one_line_when_the_mount_is_ready() {
    let world = small_world();
    let mount = Background::new();
    let output = mount.start(program(&world));
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success());
    assert_eq!(
        (said.lines().count(), output.stderr.len()),
        (1, 0),
        "{said}"
    );
    for part in [
        &format!("s3://{BUCKET}"),
        mount.root().to_str().expect("UTF-8"),
        &world.tea_endpoint(),
        "valid until 20",
        "log: ",
    ] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
    // Ready means ready: no wait in between.
    let read = std::fs::read(mount.root().join("file")).expect("a file");
    assert_eq!(read, b"content");
    mount.unmount();
}

#[test]
fn it_lets_go_of_terminal_streams_and_working_directory() {
    let world = small_world();
    let mount = Background::new();
    assert!(mount.start(program(&world)).status.success());
    let pid = mount.pid().expect("a process");
    let (parent, session, terminal) = (stat_field(pid, 1), stat_field(pid, 3), stat_field(pid, 4));
    assert_ne!(parent, i64::from(std::process::id()));
    assert_ne!(
        session,
        i64::from(pid),
        "a session leader can get a terminal"
    );
    // SAFETY: takes no pointers.
    assert_ne!(session, i64::from(unsafe { libc::getsid(0) }));
    assert_eq!(terminal, 0);
    let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).expect("a link");
    assert_eq!(link("cwd"), Path::new("/"));
    for stream in 0..3 {
        assert_eq!(link(&format!("fd/{stream}")), Path::new("/dev/null"));
    }
    mount.unmount();
}

#[test]
fn a_pipe_from_the_shell_closes_when_the_mount_is_ready() {
    let world = small_world();
    let mount = Background::new();
    let mut program = program(&world);
    program
        .arg(BUCKET)
        .arg(mount.root())
        .env("XDG_STATE_HOME", mount.directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = program.spawn().expect("it starts");
    // Both come to an end although the mount goes on: `$(s3credmount ...)` does not hang.
    let mut said = String::new();
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_to_string(&mut said).expect("UTF-8");
    let mut stderr = child.stderr.take().expect("piped");
    stderr.read_to_string(&mut said).expect("UTF-8");
    assert!(support::wait(&mut child).expect("ends").success());
    assert!(mount.pid().is_some());
    mount.unmount();
}

/// `flock job.lock s3credmount ...`: the lock is the job's, and not the mount's.
#[test]
fn what_else_the_shell_has_open_is_closed_when_the_mount_is_ready() {
    let world = small_world();
    let mount = Background::new();
    let lock = mount.directory.path().join("lock");
    let script =
        "exec 9>\"$LOCK\" 8</dev/zero; flock -n 9; \"$@\"; exec 9>&-; flock -n \"$LOCK\" true";
    let mut shell = Command::new("sh");
    shell.args(["-ec", script, "sh"]).env("LOCK", &lock);
    let output = mount.start(support::started_by(shell, &program(&world)));
    assert!(output.status.success(), "{output:?}");
    let pid = mount.pid().expect("a process");
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    for descriptor in open {
        let path = descriptor.expect("a descriptor").path();
        let target = std::fs::read_link(path).expect("a link");
        assert_ne!(target, Path::new("/dev/zero"));
    }
    mount.unmount();
}

#[test]
fn a_failure_is_told_to_the_shell_and_leaves_nothing() {
    let world = small_world();
    world.set_answer(Answer::EulaRefused);
    let mount = Background::new();
    let output = mount.start(program(&world));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.starts_with("s3credmount: ") && said.contains("EULA"),
        "{said}"
    );
    assert!(output.stdout.is_empty());
    assert_eq!(mount.pid(), None);
    assert!(!support::is_mount_point(&mount.root()));
}

#[test]
fn a_slow_endpoint_is_told_of_and_waited_for() {
    let world = small_world();
    world.set_answer(Answer::Slow(Duration::from_millis(3500)));
    let mount = Background::new();
    let output = mount.start(program(&world));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{said}");
    assert!(said.contains("waiting for credentials from"), "{said}");
    mount.unmount();
}

#[test]
fn a_warning_at_the_mount_reaches_the_shell_and_the_log() {
    let world = small_world();
    let access = mock_earthdata::Access {
        list: mock_earthdata::ListAccess::Nowhere,
        get: true,
    };
    world.set_bucket_access(BUCKET, access);
    let mount = Background::new();
    let output = mount.start(program(&world));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        output.status.success() && said.contains("may not be listed"),
        "{said}"
    );
    mount.unmount();
}

#[test]
fn relative_paths_mean_the_directory_it_was_started_in() {
    let world = small_world();
    let mount = Background::new();
    let directory = mount.directory.path();
    let host = world.earthdata_host();
    let host = host.split(':').next().expect("a host");
    let password = DEFAULT_PASSWORD.replace('"', "\\\"");
    let netrc = format!("machine {host} login {DEFAULT_USER} password \"{password}\"\n");
    std::fs::write(directory.join("netrc"), netrc).expect("a file");
    let mut program = program(&world);
    program
        .env_remove("EARTHDATA_TOKEN")
        .current_dir(directory)
        .args(["--netrc", "netrc", "--log-file", "log", BUCKET, "mnt"]);
    assert!(program.output().expect("it starts").status.success());
    let read = std::fs::read(mount.root().join("file")).expect("a file");
    assert_eq!(read, b"content");
    // The netrc file is read again at each refresh, in a process whose directory is another.
    world.expire_all();
    world.put(BUCKET, "new", "n");
    let read = std::fs::read(mount.root().join("new")).expect("a file");
    assert_eq!(
        (read.as_slice(), world.counters().credentials_issued),
        (&b"n"[..], 2)
    );
    assert!(directory.join("log").exists());
    let unmounted = Command::new("umount").arg(mount.root()).status();
    assert!(unmounted.expect("umount").success());
}

#[test]
fn mount_8_mounts_it_as_fstab_would() {
    let world = small_world();
    let mount = Background::new();
    let binaries = mount.directory.path();
    let program = env!("CARGO_BIN_EXE_s3credmount");
    std::os::unix::fs::symlink(program, binaries.join("s3credmount")).expect("a link");
    // mount(8) looks for the program where programs are installed.
    crate::ordinary::private_mounts().expect("root can");
    let installed = Command::new("mount")
        .arg("--bind")
        .args([binaries, Path::new("/usr/local/sbin")])
        .status();
    assert!(installed.expect("mount(8)").success());
    let options = format!(
        "ro,_netdev,nofail,x-systemd.automount,allow_other,allow_exec,uid=6,uid=7,credentials_endpoint={},\
         earthdata_host={},endpoint_url={},log_file={}/log",
        world.open_endpoint(),
        world.earthdata_host(),
        world.s3_url(),
        binaries.display(),
    );
    let output = Command::new("mount")
        .args(["-t", "fuse.s3credmount", BUCKET])
        .arg(mount.root())
        .args(["-o", &options])
        .output()
        .expect("mount(8)");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let read = std::fs::read(mount.root().join("file")).expect("a file");
    assert_eq!(read, b"content");
    let metadata = std::fs::metadata(mount.root().join("file")).expect("stat");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), 7);
    let table = support::mount_table_line(&mount.root()).expect("a mount");
    assert!(table.contains("allow_other"), "{table}");
    assert!(!table.contains("noexec"), "{table}");
    mount.unmount();
}

#[test]
fn an_unknown_mount_option_is_named() {
    let mut program = bare_program();
    program.args(["bucket", "/", "-o", "ro,allow_everyone"]);
    let output = program.output().expect("it starts");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("allow_everyone"), "{said}");
}

#[test]
fn systemd_is_told_of_readiness_and_the_process() {
    let world = small_world();
    let mount = Background::new();
    let socket = mount.directory.path().join("notify");
    let listener = UnixDatagram::bind(&socket).expect("a socket");
    listener.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut program = program(&world);
    program.env("NOTIFY_SOCKET", &socket);
    assert!(mount.start(program).status.success());
    let mut datagram = [0; 1000];
    let length = listener.recv(&mut datagram).expect("a datagram");
    let told = std::str::from_utf8(&datagram[..length]).expect("UTF-8");
    let pid = mount.pid().expect("a process");
    assert!(told.lines().any(|line| line == "READY=1"), "{told}");
    assert!(
        told.lines().any(|line| line == format!("MAINPID={pid}")),
        "{told}"
    );
    mount.unmount();
}

#[test]
fn a_shell_that_is_interrupted_while_it_waits_gets_no_mount() {
    let world = small_world();
    world.set_answer(Answer::Slow(Duration::from_secs(2)));
    let mount = Background::new();
    let mut program = program(&world);
    program.arg(BUCKET).arg(mount.root());
    program.env("XDG_STATE_HOME", mount.directory.path());
    let mut child = program.spawn().expect("it starts");
    let begin = Instant::now();
    while !mount.pids().iter().any(|pid| *pid != child.id()) {
        assert!(begin.elapsed() < PATIENCE, "no process in the background");
    }
    child.kill().expect("killed");
    child.wait().expect("gone");
    eventually("it ends without its shell", || mount.pid().is_none());
    assert!(!support::is_mount_point(&mount.root()));
    // Not even for a moment.
    let logs = mount.directory.path().join("s3credmount");
    let logs = std::fs::read_dir(logs).expect("logs");
    let log = logs.map(|log| std::fs::read_to_string(log.expect("an entry").path()));
    let log: String = log.map(|log| log.expect("a log")).collect();
    assert!(log.contains("nothing is mounted"), "{log}");
}

/// As the tasks of one job on one node do; and as a second `mount` while S3 is out of reach.
#[test]
fn of_several_starts_at_one_place_one_mounts_and_the_others_say_so() {
    let world = small_world();
    let mount = Background::new();
    let outputs = std::thread::scope(|scope| {
        let start = || mount.start(program(&world));
        let starts: Vec<_> = (0..6).map(|_| scope.spawn(start)).collect();
        let outputs = starts.into_iter().map(|start| start.join());
        outputs.map(|o| o.expect("no panic")).collect::<Vec<_>>()
    });
    let (mounted, refused): (Vec<_>, Vec<_>) = outputs.iter().partition(|o| o.status.success());
    assert_eq!(mounted.len(), 1, "{outputs:?}");
    let already = format!("s3://{BUCKET} is mounted on {}", mount.root().display());
    support::eventually("the others end", || mount.pids().len() <= 1);
    for output in refused {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(&already), "{said}");
    }
    // Without a look into the mount, for which S3 would be waited for.
    let asked = || (world.counters().list, world.counters().credentials_requests);
    let before = asked();
    let output = mount.start(program(&world));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&already), "{said}");
    assert_eq!(asked(), before);
    mount.unmount();
    assert!(!support::is_mount_point(&mount.root()));
}

/// A `/dev` of the program's own, with what it needs and, if there is one, the socket of a syslog.
const OWN_DEV: &str = r#"
    dev=$1 socket=$2
    shift 2
    mount -t tmpfs none "$dev"
    for device in fuse null; do
        : >"$dev/$device"
        mount --bind "/dev/$device" "$dev/$device"
    done
    if [ -n "$socket" ]; then
        : >"$dev/log"
        mount --bind "$socket" "$dev/log"
    fi
    mount --rbind "$dev" /dev
    exec "$@""#;

/// The program in a mount namespace where syslog listens on `syslog`, or not at all.
fn with_syslog(program: &Command, directory: &Path, syslog: Option<&Path>) -> Command {
    let dev = directory.join("dev");
    std::fs::create_dir(&dev).expect("a directory");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec", OWN_DEV, "sh"])
        .arg(dev)
        .arg(syslog.unwrap_or(Path::new("")));
    support::started_by(command, program)
}

/// Ends what cannot be unmounted from here, as it is in a namespace of its own.
fn terminate(mount: &Background) {
    let pid = mount.pid().expect("a process");
    // SAFETY: takes no pointers.
    unsafe { libc::kill(i32::try_from(pid).expect("a pid"), libc::SIGTERM) };
    eventually("it ends", || mount.pid().is_none());
}

#[test]
fn the_log_goes_to_syslog_where_there_is_one() {
    if !is_root() {
        return;
    }
    let world = small_world();
    let mount = Background::new();
    let socket = mount.directory.path().join("syslog");
    let syslog = UnixDatagram::bind(&socket).expect("a socket");
    syslog.set_read_timeout(Some(PATIENCE)).expect("a socket");
    // As under systemd: no place for a file is needed.
    let mut homeless = Command::new("env");
    homeless.args(["-u", "HOME", "-u", "XDG_STATE_HOME"]);
    let program = support::started_by(homeless, &program(&world));
    let program = with_syslog(&program, mount.directory.path(), Some(&socket));
    let output = mount.start(program);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("log: syslog"), "{said}");
    let pid = mount.pid().expect("a process");
    terminate(&mount);
    let mut told = Vec::new();
    while !told.iter().any(|line: &String| line.contains("unmounted")) {
        let mut datagram = [0; 2000];
        let length = syslog.recv(&mut datagram).expect("a datagram");
        told.push(String::from_utf8_lossy(&datagram[..length]).into_owned());
    }
    // Facility daemon (3), severity informational (6).
    let tag = format!("<30>s3credmount[{pid}]: ");
    assert!(told.iter().all(|line| line.starts_with(&tag)), "{told:?}");
    assert!(told.iter().any(|line| line.contains("is mounted on")));
}

#[test]
fn the_log_goes_to_a_file_of_the_user_where_there_is_no_syslog() {
    if !is_root() {
        return;
    }
    let world = small_world();
    let mount = Background::new();
    let output = mount.start(with_syslog(&program(&world), mount.directory.path(), None));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let file = said.trim_end().rsplit_once("log: ").expect("the log").1;
    let state = mount.directory.path().join("s3credmount");
    assert!(Path::new(file).starts_with(&state), "{said}");
    terminate(&mount);
    assert_eq!(mode(Path::new(file)), 0o600);
    assert_eq!(mode(&state), 0o700);
    let log = std::fs::read_to_string(file).expect("a log");
    assert!(
        log.contains("is mounted on") && log.contains("unmounted"),
        "{log}"
    );
}

/// Left of a daemon that is gone, or of another kind.
#[test]
fn the_log_goes_to_a_file_where_the_socket_of_syslog_is_none_to_write_to() {
    if !is_root() {
        return;
    }
    let world = small_world();
    let stale = tempfile::tempdir().expect("a temporary directory");
    let (of_none, of_streams) = (stale.path().join("none"), stale.path().join("streams"));
    drop(UnixDatagram::bind(&of_none).expect("a socket"));
    let _listens = UnixListener::bind(&of_streams).expect("a socket");
    for socket in [&of_none, &of_streams] {
        let mount = Background::new();
        let directory = mount.directory.path();
        let output = mount.start(with_syslog(&program(&world), directory, Some(socket)));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        assert!(said.contains("s3credmount/test-bucket"), "{said}");
        terminate(&mount);
    }
}

#[test]
fn a_home_that_takes_no_log_is_told_with_the_way_out() {
    if !is_root() {
        return;
    }
    let world = small_world();
    let mount = Background::new();
    let in_the_way = mount.directory.path().join("s3credmount");
    std::fs::write(in_the_way, "a file").expect("written");
    let output = mount.start(with_syslog(&program(&world), mount.directory.path(), None));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["cannot log to", "File exists", "--log-file"] {
        assert!(said.contains(part), "{said}");
    }
}

fn mode(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path).expect("it is there");
    metadata.permissions().mode() & 0o777
}
