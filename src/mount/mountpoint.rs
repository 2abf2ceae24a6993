//! The mountpoint: what it must be, how it is unmounted, and the kernel's read-ahead for it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};

use super::table::{self, Mounted};

/// Mounting takes some milliseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Why a directory cannot be mounted on.
#[derive(Debug, thiserror::Error)]
pub enum MountpointError {
    /// There is none.
    #[error("the mountpoint {0} does not exist: make it with mkdir -p {0}")]
    Missing(PathBuf),
    /// There is a link, and nothing behind it.
    #[error("the mountpoint {0} is a link to {1}, which does not exist")]
    Dangling(PathBuf, PathBuf),
    /// Something else has the name.
    #[error("the mountpoint {0} is not a directory")]
    NotADirectory(PathBuf),
    /// This program has mounted something there.
    #[error("{1} is mounted on {0} already: use that, or unmount it first (umount {0})")]
    Mounted(PathBuf, String),
    /// It holds something.
    #[error(
        "the mountpoint {0} is not empty: its content would be hidden. Choose an empty directory \
         (if something is mounted there already: umount {0})"
    )]
    NotEmpty(PathBuf),
    /// A FUSE process died there.
    #[error(
        "a dead mount hangs on {0} (its process is gone): remove it with fusermount3 -uz {0}, or as \
         root with umount -l {0}"
    )]
    Dead(PathBuf),
    /// Another user has mounted there, and lets nobody in.
    #[error(
        "a FUSE mount of the user with uid {1} is on {0} already: choose another directory, or \
         unmount it first, as that user (fusermount3 -u {0}) or as root (umount {0})"
    )]
    Others(PathBuf, u32),
    /// It cannot be looked at.
    #[error("the mountpoint {0} cannot be used: {1}")]
    Unusable(PathBuf, io::Error),
}

/// An existing, empty directory.
#[derive(Debug)]
pub(super) struct Mountpoint {
    path: PathBuf,
    /// The device of what this process mounted there, as mountinfo has it.
    device: OnceLock<String>,
}

impl Mountpoint {
    pub(super) fn check(path: &Path) -> Result<Self, MountpointError> {
        let given = || path.to_owned();
        let failed = |error: io::Error| match error.raw_os_error() {
            Some(libc::ENOENT) => match std::fs::read_link(path) {
                Ok(target) => MountpointError::Dangling(given(), target),
                Err(_) => MountpointError::Missing(given()),
            },
            Some(libc::ENOTDIR) => MountpointError::NotADirectory(given()),
            Some(libc::ENOTCONN | libc::ECONNABORTED) => {
                MountpointError::Dead(mount_above(path).unwrap_or_else(given))
            }
            Some(libc::EACCES) => {
                let mount = absolute(path).and_then(|path| table::on(&path));
                match mount.and_then(|mount| mount.fuse_user()) {
                    Some(user) => MountpointError::Others(given(), user),
                    None => MountpointError::Unusable(given(), error),
                }
            }
            _ => MountpointError::Unusable(given(), error),
        };
        // First: what is read of a mount waits for S3, and may be empty.
        let mounted = absolute(path).and_then(|absolute| mounted_by_us(&absolute));
        if let Some(source) = mounted.filter(|_| !is_dead(path)) {
            path.metadata().map_err(failed)?;
            return Err(MountpointError::Mounted(given(), source));
        }
        let mut entries = std::fs::read_dir(path).map_err(failed)?;
        if entries.next().is_some() {
            return Err(MountpointError::NotEmpty(given()));
        }
        let path = path.canonicalize().map_err(failed)?;
        Ok(Self::at(path))
    }

    fn at(path: PathBuf) -> Self {
        Self {
            path,
            device: OnceLock::new(),
        }
    }

    /// Takes mounts of this program off `path` whose process is gone, as after `kill -9`; what they
    /// were of, if there were any.
    pub(super) fn clear(path: &Path) -> io::Result<Option<String>> {
        let mut cleared = None;
        while is_dead(path)
            && let Some(absolute) = absolute(path)
            && let Some(source) = mounted_by_us(&absolute)
        {
            Self::at(absolute).detach()?;
            cleared = Some(source);
        }
        Ok(cleared)
    }

    /// Keeps other starts at the same place waiting while it is held. Where locks cannot be had, or somebody
    /// else holds this one, there is none.
    pub(super) fn lock(&self) -> Option<Flock<File>> {
        let begin = Instant::now();
        let mut directory = File::open(&self.path).ok()?;
        loop {
            match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Some(lock),
                Err((held, Errno::EWOULDBLOCK)) if begin.elapsed() < LOCK_PATIENCE => {
                    directory = held;
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(_) => return None,
            }
        }
    }

    /// Absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that what is mounted there now is this process's own.
    pub(super) fn note_mounted(&self) {
        if let Some(top) = table::on(&self.path) {
            let _ = self.device.set(top.device);
        }
    }

    /// Where the mount of this process is, as far as that is known: it moves with the directories above it, and can be
    /// bound to other places.
    pub(super) fn places(&self) -> Vec<PathBuf> {
        let (Some(ours), Ok(mounts)) = (self.device.get(), table::all()) else {
            return vec![self.path.clone()];
        };
        let mounts = mounts.into_iter();
        let of_ours = |mount: &Mounted| mount.device == *ours && mount.source_of_ours().is_some();
        mounts.filter(of_ours).map(|mount| mount.place).collect()
    }

    /// Whether it is still in the tree though the kernel has ended its session. What has come to the same number of a
    /// device since then answers.
    pub(super) fn is_cut_off(&self) -> bool {
        self.places().iter().any(|place| is_dead(place))
    }

    /// Takes the mount out of the tree at once, from wherever it is. Files that are open stay readable until they are
    /// closed, and only then does the session end. What others have mounted there stays.
    pub(super) fn detach(&self) -> io::Result<()> {
        let mut result = Ok(());
        for place in self.places().iter().rev() {
            let is_covered = match (self.device.get(), table::on(place)) {
                (Some(ours), Some(top)) => top.device != *ours,
                _ => false,
            };
            let taken_off = match is_covered {
                true => Err(io::Error::other("something else is mounted on top of it")),
                false => take_off(place),
            };
            result = result.and(taken_off);
        }
        result
    }

    /// Lets the kernel read 1 MiB ahead instead of 128 KiB, so that streams come in requests of 1 MiB.
    /// No further: a page fault in an mmap reads the whole window. Only root may, and `/sys` may be
    /// read-only: then streams cost some more CPU, no more.
    pub(super) fn raise_read_ahead(&self) {
        let raise = || {
            let device = self.device.get().ok_or(io::ErrorKind::NotFound)?;
            std::fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), "1024")
        };
        if let Err(error) = raise() {
            tracing::debug!("the kernel's read-ahead stays as it is: {error}");
        }
    }

    /// What an error of mounting means.
    pub(super) fn explain(&self, error: &io::Error) -> String {
        let path = self.path.display();
        let text = error.to_string();
        if !Path::new("/dev/fuse").exists() {
            "FUSE is not available: /dev/fuse does not exist. Load it with modprobe fuse; in a \
             container, give it the device (docker run --device /dev/fuse --cap-add SYS_ADMIN)"
                .to_owned()
        } else if !may_open_fuse() {
            "this user may not open /dev/fuse: root can allow it with chmod 666 /dev/fuse, as it is \
             where udev makes the device"
                .to_owned()
        } else if text.contains("user_allow_other") {
            "--allow-other needs the line user_allow_other in /etc/fuse.conf, which root can add; \
             or mount as root, or without --allow-other"
                .to_owned()
        } else if error.kind() == io::ErrorKind::NotFound {
            "cannot mount as an ordinary user without fusermount3: install the package fuse3, or \
             mount as root"
                .to_owned()
        } else {
            let hint = match is_forbidden(&text) {
                true => {
                    ". In a container, it needs --cap-add SYS_ADMIN, and perhaps --security-opt \
                     apparmor=unconfined"
                }
                false => "",
            };
            format!("cannot mount on {path}: {}{hint}", text.trim())
        }
    }
}

/// Takes the topmost mount off `place`.
fn take_off(place: &Path) -> io::Result<()> {
    match umount2(place, MntFlags::MNT_DETACH) {
        Ok(()) => return Ok(()),
        // Not root: the setuid helper may.
        Err(Errno::EPERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    let output = fusermount(place)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(said.trim().to_owned()))
}

/// Unmounts by the first helper that there is.
fn fusermount(place: &Path) -> io::Result<Output> {
    for helper in helpers() {
        let mut fusermount = Command::new(helper);
        fusermount.args(["-u", "-z", "--"]).arg(place);
        match fusermount.output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            output => return output,
        }
    }
    Err(io::Error::other("there is no fusermount3"))
}

/// Whether mount(2) itself was not allowed, as `text` of fuser or fusermount3 tells.
fn is_forbidden(text: &str) -> bool {
    let forbidden = [
        "Operation not permitted",
        "mount failed: Permission denied",
        "Permission denied (os error",
    ];
    forbidden.iter().any(|words| text.contains(words))
}

/// Whether a FUSE mount without a process hangs there.
fn is_dead(path: &Path) -> bool {
    // Unlike attributes of its root, which the kernel may know, and its content, for which S3 is asked.
    let answer = nix::sys::statfs::statfs(path);
    matches!(answer, Err(Errno::ENOTCONN | Errno::ECONNABORTED))
}

/// The absolute path without links of a directory that perhaps cannot be looked at itself.
fn absolute(path: &Path) -> Option<PathBuf> {
    if let Ok(path) = path.canonicalize() {
        return Some(path);
    }
    let path = std::path::absolute(path).ok()?;
    let parent = path.parent()?.canonicalize().ok()?;
    Some(parent.join(path.file_name()?))
}

/// The mount that `path` lies on. Programs that unmount follow no link.
fn mount_above(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let mut above = path.ancestors().filter_map(absolute);
    above.find(|path| table::on(path).is_some())
}

/// Where fuser looks for what mounts as an ordinary user, in the same order.
fn helpers() -> Vec<OsString> {
    const HELPERS: [&str; 6] = [
        "fusermount3",
        "fusermount",
        "/sbin/fusermount3",
        "/sbin/fusermount",
        "/bin/fusermount3",
        "/bin/fusermount",
    ];
    match std::env::var_os("FUSERMOUNT_PATH") {
        Some(path) => vec![path],
        None => HELPERS.map(OsString::from).to_vec(),
    }
}

/// What the mount on top of `path` is of, if it is of this program.
fn mounted_by_us(path: &Path) -> Option<String> {
    table::on(path)?.source_of_ours().map(str::to_owned)
}

fn may_open_fuse() -> bool {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    device.is_ok()
}
