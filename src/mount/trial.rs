//! A mount of nothing, to see whether this user can mount here.

use std::path::Path;

use fuser::{Filesystem, MountOption, Session, SessionACL};

use super::Error;
use super::mountpoint::Mountpoint;

struct Nothing;

impl Filesystem for Nothing {}

/// Mounts an empty file system on `directory`, as a mount with `allow_other` would be, and unmounts it again.
///
/// # Errors
/// What a mount would say.
pub fn try_mount(directory: &Path, allow_other: bool) -> Result<(), Error> {
    let mountpoint = Mountpoint::check(directory)?;
    let mut options = fuser::Config::default();
    options.mount_options = vec![
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoExec,
        MountOption::FSName("s3credmount-check".to_owned()),
    ];
    if allow_other {
        options.acl = SessionACL::All;
    }
    // Once there is a session, the kernel has answered its first message.
    let session = Session::new(Nothing, mountpoint.path(), &options)
        .map_err(|error| Error::Fuse(mountpoint.explain(&error)))?;
    mountpoint.detach().map_err(Error::Start)?;
    drop(session);
    Ok(())
}
