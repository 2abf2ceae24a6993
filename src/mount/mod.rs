//! A mount from begin to end: check the mountpoint, get credentials, ask the bucket, build the stack
//! bottom-up, run the FUSE session, and unmount on a signal.
//!
//! Everything that can be wrong is found out before the mount appears: a program must never see an
//! empty directory where data was due.

mod give_back;
mod mountpoint;
#[cfg(any(test, fuzzing))]
pub(crate) mod parsers;
mod probe;
mod session;
mod source;
mod table;
mod target;
mod trial;

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use fuser::{INodeNo, Notifier};
use sd_notify::NotifyState;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

pub use crate::namespace::KeyList;
pub use mountpoint::MountpointError;
pub use source::Source;
pub use target::{Target, hint};
pub use trial::try_mount;

use mountpoint::Mountpoint;

use crate::credentials::{self, Credentials, FIRST_CREDENTIALS, Manager};
use crate::earthdata;
use crate::fs::{Change, Fs, Ownership};
use crate::namespace::Namespace;
use crate::network::Network;
use crate::process::Signals;
use crate::reader::Reader;
use crate::s3::{self, S3};
use crate::sync::Arc;

/// How long files that are still open keep a process that was told to end.
const OPEN_FILES_KEEP: Duration = Duration::from_secs(5);
/// How long those who still wait may take to be answered when the process ends.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Metadata's share of the memory limit is one in this many; blocks have the rest.
const METADATA_SHARE: u64 = 4;

/// What a mount runs on.
#[derive(Clone, Debug)]
pub struct Config {
    /// What to mount.
    pub source: Source,
    /// Where to.
    pub mountpoint: PathBuf,
    /// Where credentials come from; `None` to send requests unsigned, to public buckets.
    pub credentials: Option<credentials::Settings>,
    /// Where the bucket is.
    pub s3: s3::Settings,
    /// Certificates and the like, for both HTTP stacks.
    pub network: Network,
    /// Let programs in the bucket be run.
    pub exec: bool,
    /// Let other users in.
    pub allow_other: bool,
    /// Owner of all files.
    pub uid: u32,
    /// Group of all files.
    pub gid: u32,
    /// Permission bits of files.
    pub file_mode: u16,
    /// Permission bits of directories.
    pub dir_mode: u16,
    /// Bytes for data and names.
    pub memory_limit: u64,
    /// Names where listing is denied.
    pub keys: KeyList,
    /// How long names are believed.
    pub metadata_ttl: Duration,
    /// How long one file operation may take.
    pub operation_timeout: Duration,
}

/// Who waits for the mount, and is told how it goes.
pub trait Launcher {
    /// Tells of a delay.
    fn notice(&self, text: &str);
    /// Whether somebody still waits.
    fn waits(&self) -> bool {
        true
    }
    /// Tells that the mount can be used.
    ///
    /// # Errors
    /// When nobody waits for it any more: it is unmounted then.
    fn ready(&self, greeting: &str) -> io::Result<()>;
}

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mountpoint cannot be used.
    #[error(transparent)]
    Mountpoint(#[from] MountpointError),
    /// The endpoint or the login host cannot be used.
    #[error(transparent)]
    Endpoint(#[from] earthdata::Error),
    /// No credentials.
    #[error("no credentials for {bucket}: {}", .error.cause)]
    Credentials {
        /// What was to be mounted.
        bucket: String,
        /// What the endpoint or the login host said.
        error: Box<credentials::Error>,
    },
    /// The bucket cannot be read.
    #[error("{location} cannot be listed: {error}{hint}")]
    Bucket {
        /// Bucket, server and region.
        location: String,
        /// What S3 said.
        error: Box<s3::Error>,
        /// What to do about it.
        hint: String,
    },
    /// Of the bucket's part that was named there is nothing.
    #[error("{location} has no object{hint}")]
    Nothing {
        /// Bucket, prefix, server and region.
        location: String,
        /// What to do about it.
        hint: String,
    },
    /// The bucket may not be read from where this machine is.
    #[error("{location} cannot be read from this machine: {error}; {reasons}")]
    Denied {
        /// Bucket, server and region.
        location: String,
        /// What S3 said.
        error: Box<s3::Error>,
        /// What that means.
        reasons: String,
    },
    /// mount(2) or fusermount3 failed.
    #[error("{0}")]
    Fuse(String),
    /// It was mounted, and still is, though it was to end.
    #[error("cannot unmount {mountpoint}: {error}")]
    StillMounted {
        /// Where it is.
        mountpoint: String,
        /// What the kernel or fusermount3 said.
        error: io::Error,
    },
    /// The process could not be set up.
    #[error("cannot start: {0}")]
    Start(io::Error),
}

/// Mounts, and returns when the mount is gone. `log` says where the log is, for the greeting.
///
/// # Errors
/// Why it could not be mounted.
pub fn run(config: &Config, log: &str, launcher: &dyn Launcher) -> Result<(), Error> {
    if let Ok(Some(source)) = Mountpoint::clear(&config.mountpoint) {
        let path = config.mountpoint.display();
        let text = format!(
            "a dead mount of {source} was left on {path} by a process that is gone: removed"
        );
        warn(launcher, &text);
    }
    let mountpoint = Mountpoint::check(&config.mountpoint)?;
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 8))
        .thread_name("s3credmount-io")
        .enable_all()
        .build()
        .map_err(Error::Start)?;
    let result = mount(config, log, launcher, &mountpoint, &runtime);
    // Whoever still waits is answered by that, before the process ends: a thread that waits in the kernel for a
    // directory's lock would otherwise keep the process, and with it the lookup that has the lock, for ever. A
    // file of a login that cannot be read must not hold up the end for long.
    runtime.shutdown_timeout(LAST_ANSWERS);
    result
}

fn mount(
    config: &Config,
    log: &str,
    launcher: &dyn Launcher,
    mountpoint: &Mountpoint,
    runtime: &Runtime,
) -> Result<(), Error> {
    let Stack {
        fs,
        s3,
        credentials,
    } = runtime.block_on(build(config, launcher))?;
    // Before there is a mount: a signal from here on must not leave a dead one behind.
    let signals = runtime.block_on(async { Signals::listen() });
    let signals = signals.map_err(Error::Start)?;
    if !launcher.waits() {
        tracing::warn!("nobody waits for this mount any more: nothing is mounted");
        return Ok(());
    }
    // Another start at the same place may have been as fast.
    let lock = mountpoint.lock();
    Mountpoint::check(mountpoint.path())?;
    let session = session::start(config, mountpoint, &fs, runtime)?;
    mountpoint.note_mounted();
    drop(lock);
    tell_of_changes(&fs, session.notifier()).map_err(Error::Start)?;
    let gone = session::run(session).map_err(Error::Start)?;
    mountpoint.raise_read_ahead();
    let greeting = format!(
        "{} is mounted on {}, {credentials}; log: {log}",
        config.source,
        mountpoint.path().display()
    );
    tracing::info!("{greeting}");
    if let Err(error) = launcher.ready(&greeting) {
        tracing::warn!("nobody waits for this mount any more ({error}): unmounting");
        return unmount(mountpoint);
    }
    // Fails where there is no systemd, which is fine.
    let pid = std::process::id();
    let _ = sd_notify::notify(&[NotifyState::MainPid(pid), NotifyState::Ready]);
    runtime.spawn(give_back::memory_of_names(Arc::downgrade(&fs)));
    let served = runtime.block_on(serve(mountpoint, &fs, signals, gone));
    fs.changes().close();
    let (right, wrong) = s3.compared().counts();
    tracing::info!(right, wrong, "objects compared with their checksums");
    served?;
    tracing::info!("unmounted {}", mountpoint.path().display());
    Ok(())
}

/// What a mount runs on, and what to say of its credentials.
struct Stack {
    fs: Arc<Fs>,
    s3: Arc<S3>,
    credentials: String,
}

/// The stack, bottom-up, with credentials at hand and the bucket known to answer.
async fn build(config: &Config, launcher: &dyn Launcher) -> Result<Stack, Error> {
    let (manager, credentials) = match &config.credentials {
        None => (None, "without credentials".to_owned()),
        Some(settings) => {
            let (source, network) = (&config.source, &config.network);
            let (manager, first) = first_credentials(source, settings, network, launcher).await?;
            let until = valid_until(manager.end(&first), &settings.endpoint.endpoint);
            (Some(manager), until)
        }
    };
    let s3 = Arc::new(S3::new(config.s3.clone(), manager, &config.network));
    let may_be_listed = probe::probe(config, &s3, launcher).await?;
    match config.keys.left_out() {
        0 => {}
        count => warn(
            launcher,
            &format!(
                "{count} line{} of the list of keys (--keys) are not used: of another bucket, outside of \
                 {}, or keys that no path can name",
                if count == 1 { "" } else { "s" },
                config.source
            ),
        ),
    }
    let metadata = config.memory_limit / METADATA_SHARE;
    let namespace = Namespace::new(
        Arc::clone(&s3),
        config.source.prefix(),
        config.keys.clone(),
        config.metadata_ttl,
        metadata,
    );
    match may_be_listed {
        true => namespace.note_listed(config.source.prefix()),
        false => namespace.note_denied(config.source.prefix()),
    }
    let memory = config.memory_limit - metadata;
    let reader = Reader::new(Arc::clone(&s3), memory, config.operation_timeout);
    let ownership = Ownership {
        uid: config.uid,
        gid: config.gid,
        file_mode: config.file_mode,
        dir_mode: config.dir_mode,
        mounted: SystemTime::now(),
    };
    let fs = Arc::new(Fs::new(namespace, reader, ownership));
    Ok(Stack {
        fs,
        s3,
        credentials,
    })
}

async fn first_credentials(
    source: &Source,
    settings: &credentials::Settings,
    network: &Network,
    launcher: &dyn Launcher,
) -> Result<(Manager, Arc<Credentials>), Error> {
    let manager = Manager::open(settings, network)?;
    let say = |text: &str| warn(launcher, text);
    let first = credentials::first_or_say(&manager, FIRST_CREDENTIALS, say).await;
    let first = first.map_err(|error| Error::Credentials {
        bucket: source.to_string(),
        error: Box::new(error),
    })?;
    if let Some(warning) = first.clock_warning() {
        // The manager has logged it.
        launcher.notice(&warning);
    }
    Ok((manager, first))
}

fn valid_until(end: SystemTime, endpoint: &str) -> String {
    format!(
        "with credentials from {endpoint} that are valid until {} and then renewed",
        humantime::format_rfc3339_seconds(end)
    )
}

/// Warns in the log and where the mount was started.
fn warn(launcher: &dyn Launcher, text: &str) {
    tracing::warn!("{text}");
    launcher.notice(text);
}

/// Tells the kernel what it is to forget. Its lock on the directory of a name may be held by a lookup
/// that has just begun, so this has a thread of its own.
fn tell_of_changes(fs: &Fs, notifier: Notifier) -> io::Result<()> {
    let changes = fs.changes();
    let tell = move || {
        loop {
            match changes.next() {
                Change::Name(parent, name) => {
                    let told = notifier.inval_entry(INodeNo(parent.get()), OsStr::new(&name));
                    tracing::debug!(name, ?told, "the kernel forgets a name");
                }
                Change::Pages(inode) => {
                    let told = notifier.inval_inode(INodeNo(inode), 0, 0);
                    tracing::debug!(inode, ?told, "the kernel forgets the pages of a directory");
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("s3credmount-inval".to_owned());
    thread.spawn(tell).map(drop)
}

/// Forgets all names, so that whatever is used next is asked for.
fn forget_names(fs: &Fs) {
    let known_to_the_kernel = fs.forget_names();
    tracing::info!(known_to_the_kernel, "SIGHUP: names are forgotten");
}

fn unmount(mountpoint: &Mountpoint) -> Result<(), Error> {
    let Err(error) = mountpoint.detach() else {
        return Ok(());
    };
    let left = mountpoint.places();
    let left: Vec<_> = left.iter().map(|path| path.to_string_lossy()).collect();
    match left.is_empty() {
        true => Ok(()),
        false => Err(Error::StillMounted {
            mountpoint: left.join(" and "),
            error,
        }),
    }
}

/// Waits until the mount is gone, or a signal asks for its end; a second one ends the wait for files
/// that are still open.
async fn serve(
    mountpoint: &Mountpoint,
    fs: &Fs,
    mut signals: Signals,
    mut gone: oneshot::Receiver<io::Result<()>>,
) -> Result<(), Error> {
    let name = loop {
        tokio::select! {
            ended = &mut gone => {
                if let Ok(Err(error)) = ended {
                    tracing::error!("the FUSE session ended: {error}");
                } else if mountpoint.is_cut_off() {
                    tracing::warn!(
                        "the kernel's connection to the mount on {} was cut (umount -f, or an abort in \
                         /sys/fs/fuse/connections): it is taken off, and programs with files open there get \
                         errors. Mount it again, and start them anew",
                        mountpoint.path().display()
                    );
                } else {
                    return Ok(());
                }
                return unmount(mountpoint);
            }
            name = signals.any() => match name {
                "SIGHUP" => forget_names(fs),
                name => break name,
            },
        }
    };
    tracing::info!(open = fs.open_handles(), "{name}: unmounting");
    unmount(mountpoint)?;
    let closed = tokio::select! {
        closed = tokio::time::timeout(OPEN_FILES_KEEP, gone) => closed.is_ok(),
        _ = signals.any() => false,
    };
    let open = fs.open_handles();
    if !closed && open > 0 {
        tracing::warn!(open, "files are still open: their readers get errors now");
    }
    Ok(())
}
