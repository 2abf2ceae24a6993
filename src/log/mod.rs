//! The log: one line for each thing that an administrator wants to see, to stderr, a file or syslog.
//!
//! Lines go through a bounded queue to a thread that writes them, so a slow disk delays no read, and
//! a full or broken one loses lines and nothing else. Warnings and errors with one cause are folded
//! ([`fold`]). Only this program's own events are logged: those of the HTTP crates may hold headers
//! with secrets.

mod fold;
#[cfg(any(test, fuzzing))]
pub(crate) mod parsers;
mod syslog;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::unistd::{AccessFlags, access};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use syslog::Syslog;

/// Lines that may wait for the disk; more are dropped.
const QUEUE: usize = 10_000;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What goes wrong.
    Warn,
    /// What an administrator wants to see.
    Info,
    /// What happens inside.
    Debug,
    /// Each request.
    Trace,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard error.
    Stderr,
    /// A file, which is appended to, and made with mode 0600.
    File(PathBuf),
    /// The same at a place that the user has not named. No link is followed there: whoever could plant
    /// one would have the log appended to any file of the user's.
    OwnFile(PathBuf),
    /// The syslog socket, which the journal listens on as well.
    Syslog,
}

/// What to log, how and where to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to.
    pub destination: Destination,
    /// How.
    pub format: Format,
    /// How much.
    pub level: Level,
}

/// File names may have 255 bytes.
const MAX_NAME: usize = 240;

impl Destination {
    /// Where lines go in the background if the user says nothing: to syslog where one answers (a socket may be left of
    /// one that is gone), else to a file in `state`, the user's state directory, named after `mount`, its source and place.
    ///
    /// # Errors
    /// Those of `state`.
    pub fn in_background(
        state: impl FnOnce() -> Result<PathBuf, String>,
        mount: &str,
    ) -> Result<Self, String> {
        if Syslog::connect().is_ok() {
            return Ok(Self::Syslog);
        }
        Ok(Self::own_file(&state()?, mount))
    }

    /// The file in `state` of `mount`.
    fn own_file(state: &Path, mount: &str) -> Self {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        // The end of it says more.
        let name = &mount[mount.floor_char_boundary(mount.len().saturating_sub(MAX_NAME))..];
        let name: String = name
            .chars()
            .map(|c| if allowed(c) { c } else { '-' })
            .collect();
        let directory = state.join("s3credmount");
        Self::OwnFile(directory.join(format!("{name}.log")))
    }
}

impl Destination {
    /// Why a file of its own cannot be made, as far as that shows without making it.
    pub fn obstacle(&self) -> Option<String> {
        let Self::OwnFile(path) = self else {
            return None;
        };
        let above = path.ancestors().find(|path| path.exists())?;
        let errno = access(above, AccessFlags::W_OK).err()?;
        Some(format!(
            "{} cannot be written to ({})",
            above.display(),
            errno.desc()
        ))
    }
}

/// As a greeting tells it.
impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stderr => f.write_str("standard error"),
            Self::File(path) | Self::OwnFile(path) => path.display().fmt(f),
            Self::Syslog => f.write_str("syslog (journalctl -t s3credmount)"),
        }
    }
}

/// Keeps the log going; when dropped, what waits is written.
#[must_use]
pub struct Guard {
    _writer: WorkerGuard,
}

/// Starts logging, and threads for it.
///
/// # Errors
/// When the destination cannot be opened, or logging was started before.
pub fn start(settings: &Settings) -> Result<Guard, String> {
    let unusable = |error: io::Error| format!("cannot log to {}: {error}", settings.destination);
    let mut ansi = false;
    let mut timed = true;
    let sink: Box<dyn Write + Send> = match &settings.destination {
        Destination::Stderr => {
            ansi = io::stderr().is_terminal();
            Box::new(io::stderr())
        }
        Destination::File(path) => Box::new(open(path, 0).map_err(unusable)?),
        Destination::OwnFile(path) => {
            let file = make_directory(path).and_then(|()| open(path, libc::O_NOFOLLOW));
            let file = file.map_err(|error| match path.is_symlink() {
                true => "it is a link, and none is followed there".to_owned(),
                false => error.to_string(),
            });
            let elsewhere = |why| format!("{why}; name another file with --log-file");
            Box::new(file.map_err(|why| unusable(io::Error::other(elsewhere(why))))?)
        }
        Destination::Syslog => {
            timed = false;
            Box::new(Syslog::connect().map_err(unusable)?)
        }
    };
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE)
        .lossy(true)
        .thread_name("s3credmount-log")
        .finish(sink);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(ansi)
        .with_target(false)
        .log_internal_errors(false);
    let lines = match (settings.format, timed) {
        (Format::Json, _) => lines.json().boxed(),
        (Format::Text, true) => lines.boxed(),
        (Format::Text, false) => lines.without_time().boxed(),
    };
    let level = match settings.level {
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    tracing_subscriber::registry()
        .with(EnvFilter::new(format!("off,s3credmount={level}")))
        .with(lines.with_filter(fold::Fold::start()))
        .try_init()
        .map_err(|error| format!("cannot start the log: {error}"))?;
    log_panics();
    Ok(Guard { _writer: guard })
}

/// Makes the directory of `path` for its owner's eyes only.
fn make_directory(path: &Path) -> io::Result<()> {
    let mut directory = std::fs::DirBuilder::new();
    directory.recursive(true).mode(0o700);
    path.parent().map_or(Ok(()), |path| directory.create(path))
}

/// Appends to `path`; makes it for its owner's eyes only. `flags` are open(2)'s.
fn open(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
}

/// A panic is a bug that one operation pays for; its place must be found afterwards.
fn log_panics() {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::force_capture();
        let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::error!(count, "a bug in s3credmount: {panic}\n{backtrace}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_log_files_are_plain() {
        let of = |mount: &str| Destination::own_file(Path::new("/state"), mount).to_string();
        assert_eq!(of("bucket/x y"), "/state/s3credmount/bucket-x-y.log");
        // As long as names may be, which is counted in bytes.
        let long = of(&format!("{}/the/end", "\u{e9}".repeat(200)));
        let name = long.strip_prefix("/state/s3credmount/").expect("there");
        assert!(
            name.len() <= 255 && name.ends_with("-the-end.log"),
            "{name}"
        );
    }
}
