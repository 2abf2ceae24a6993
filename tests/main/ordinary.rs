//! The program as an ordinary user runs it, in tests that root runs.
//!
//! Containers often have a `/dev/fuse` for root alone, where udev gives it to everybody. The test's
//! thread then moves into a mount namespace of its own, with a device as udev makes it; the programs
//! that it starts are in there with it, and nobody else is.

use std::ffi::CString;
use std::fs::Permissions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// `nobody`, which every Linux has.
pub(crate) const NOBODY: u32 = 65_534;

pub(crate) fn is_root() -> bool {
    // SAFETY: has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The uid that [`ordinary_user`] runs programs as.
pub(crate) fn ordinary_uid() -> u32 {
    // SAFETY: has no preconditions and cannot fail.
    let uid = unsafe { libc::geteuid() };
    if uid == 0 { NOBODY } else { uid }
}

/// `command` as an ordinary user, who owns `mountpoint` and can reach it.
pub(crate) fn ordinary_user(mut command: Command, mountpoint: &Path) -> Command {
    if is_root() {
        std::os::unix::fs::chown(mountpoint, Some(NOBODY), Some(NOBODY)).expect("chown");
        let parent = mountpoint.parent().expect("not the root");
        if parent != std::env::temp_dir() {
            std::fs::set_permissions(parent, Permissions::from_mode(0o755)).expect("chmod");
        }
        as_ordinary_user(&mut command);
    }
    command
}

/// Another program as that user.
pub(crate) fn as_ordinary_user(command: &mut Command) -> &mut Command {
    if is_root() {
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
    }
    command
}

/// Whether an ordinary user can mount here, in this thread; says so if not.
pub(crate) fn can_mount() -> bool {
    let open_to_all = || {
        let device = std::fs::metadata("/dev/fuse");
        device.is_ok_and(|device| device.mode() & 0o006 == 0o006)
    };
    if !open_to_all()
        && is_root()
        && let Err(error) = device_of_mode(0o666)
    {
        eprintln!("no /dev/fuse for ordinary users: {error}");
    }
    let helper = Command::new("fusermount3").arg("--version").output();
    let can = open_to_all() && helper.is_ok();
    if !can {
        eprintln!("SKIPPED: no mounts by ordinary users without fusermount3 and /dev/fuse");
    }
    can
}

/// Gives this thread, and its children, a mount table of their own: what they mount is theirs alone.
pub(crate) fn private_mounts() -> io::Result<()> {
    // SAFETY: valid C strings; nothing but this thread changes its namespace.
    unsafe {
        ok(libc::unshare(libc::CLONE_NEWNS))?;
        let none = std::ptr::null();
        let private = libc::MS_REC | libc::MS_PRIVATE;
        ok(libc::mount(none, c"/".as_ptr(), none, private, none.cast()))
    }
}

fn ok(result: i32) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// For this thread and its children, which have a mount table of their own, `file` stands at `place`.
pub(crate) fn bind(file: &Path, place: &Path) -> io::Result<()> {
    let [file, place] = [file, place].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (file, place) = (file?, place?);
    let none = std::ptr::null();
    // SAFETY: valid C strings.
    ok(unsafe {
        libc::mount(
            file.as_ptr(),
            place.as_ptr(),
            none,
            libc::MS_BIND,
            none.cast(),
        )
    })
}

/// A `/dev/fuse` of this mode for this thread and its children.
pub(crate) fn device_of_mode(mode: u32) -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let node = directory.path().join("fuse");
    let node_name = CString::new(node.as_os_str().as_bytes())?;
    let number = std::fs::metadata("/dev/fuse")?.rdev();
    // SAFETY: a valid C string.
    ok(unsafe { libc::mknod(node_name.as_ptr(), libc::S_IFCHR | 0o600, number) })?;
    private_mounts()?;
    bind(&node, Path::new("/dev/fuse"))?;
    std::fs::set_permissions("/dev/fuse", Permissions::from_mode(mode))
}
