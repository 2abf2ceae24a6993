//! The session with the kernel: its options, and its end.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use fuser::{MountOption, Session, SessionACL};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::mountpoint::Mountpoint;
use super::{Config, Error};
use crate::fs::Fs;
use crate::fuse::Adapter;
use crate::sync::Arc;

/// Mounts, with the options of `config`.
pub(super) fn start(
    config: &Config,
    mountpoint: &Mountpoint,
    fs: &Arc<Fs>,
    runtime: &Runtime,
) -> Result<Session<Adapter>, Error> {
    let timeout = config.operation_timeout;
    let adapter = Adapter::new(Arc::clone(fs), runtime.handle().clone(), timeout);
    let mut options = fuser::Config::default();
    options.mount_options = vec![
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
        MountOption::DefaultPermissions,
        MountOption::FSName(config.source.to_string()),
        // `Subtype` is ignored where root mounts without fusermount.
        MountOption::CUSTOM("subtype=s3credmount".to_owned()),
    ];
    if !config.exec {
        options.mount_options.push(MountOption::NoExec);
    }
    if config.allow_other {
        options.acl = SessionACL::All;
    }
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    options.n_threads = Some(cores.clamp(2, 4));
    options.clone_fd = true;
    Session::new(adapter, mountpoint.path(), &options)
        .map_err(|error| Error::Fuse(mountpoint.explain(&error)))
}

/// Runs `session`; how it ends.
pub(super) fn run(session: Session<Adapter>) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    type Threads = JoinHandle<io::Result<()>>;
    let mut session = session.spawn()?;
    let (give, take) = mpsc::channel::<Threads>();
    let (sender, gone) = oneshot::channel();
    let waits = std::thread::Builder::new().name("s3credmount-fuse".to_owned());
    let waits = waits.spawn(move || {
        let ended = take.recv().map(JoinHandle::join);
        let panicked = |_| Err(io::Error::other("a panic"));
        if let Ok(ended) = ended {
            // The receiver is gone only when the process is about to end.
            let _ = sender.send(ended.unwrap_or_else(panicked));
        }
        Ok(())
    })?;
    let threads = std::mem::replace(&mut session.guard, waits);
    // When it is dropped, fuser unmounts the path, whatever is mounted there by then.
    std::mem::forget(session);
    let _ = give.send(threads);
    Ok(gone)
}
