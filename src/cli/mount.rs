//! What the user typed to mount a bucket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::access::{BucketArgs, absolute};
use super::places::state_directory;
use super::tools::ToolArgs;
use super::{Run, values};
use crate::earthdata::Table;
use crate::log;
use crate::memory;
use crate::mount::{Config, KeyList, Source};
use crate::network::Network;

/// Mounts a NASA Earthdata S3 bucket read-only, with temporary credentials that stay fresh.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
#[command(
    after_help = "Login: set EARTHDATA_TOKEN, or EARTHDATA_USERNAME and EARTHDATA_PASSWORD, \
or put `machine urs.earthdata.nasa.gov login NAME password PASSWORD` into ~/.netrc (mode 0600).\n\n\
Example: s3credmount podaac-ops-cumulus-protected /mnt/data"
)]
pub(super) struct MountArgs {
    /// What to mount: BUCKET, BUCKET/PREFIX or s3://BUCKET/PREFIX
    source: String,

    /// Where to: an existing, empty directory
    mountpoint: PathBuf,

    #[command(flatten)]
    bucket: BucketArgs,

    /// Stay in the foreground
    #[arg(short, long, env = "S3CREDMOUNT_FOREGROUND", help_heading = "Mount")]
    #[arg(action = ArgAction::SetTrue, value_parser = values::switch)]
    foreground: bool,

    /// Let other users of this machine read the mount, as far as the modes allow
    #[arg(long, env = "S3CREDMOUNT_ALLOW_OTHER", help_heading = "Mount")]
    #[arg(action = ArgAction::SetTrue, value_parser = values::switch)]
    allow_other: bool,

    /// Owner of all files [default: the mounting user]
    #[arg(
        long,
        value_name = "UID",
        env = "S3CREDMOUNT_UID",
        help_heading = "Mount"
    )]
    #[arg(value_parser = values::user)]
    uid: Option<u32>,

    /// Group of all files [default: the mounting user's]
    #[arg(
        long,
        value_name = "GID",
        env = "S3CREDMOUNT_GID",
        help_heading = "Mount"
    )]
    #[arg(value_parser = values::group)]
    gid: Option<u32>,

    /// Permission bits of files, octal
    #[arg(
        long,
        value_name = "MODE",
        env = "S3CREDMOUNT_FILE_MODE",
        help_heading = "Mount"
    )]
    #[arg(default_value = "0444", value_parser = values::mode)]
    file_mode: u16,

    /// Permission bits of directories, octal
    #[arg(
        long,
        value_name = "MODE",
        env = "S3CREDMOUNT_DIR_MODE",
        help_heading = "Mount"
    )]
    #[arg(default_value = "0555", value_parser = values::mode)]
    dir_mode: u16,

    /// Let programs in the bucket be run
    #[arg(long, env = "S3CREDMOUNT_EXEC", help_heading = "Mount")]
    #[arg(action = ArgAction::SetTrue, value_parser = values::switch)]
    exec: bool,

    /// Memory for data and names, for instance 2GiB [default: 512MiB or an eighth of the memory
    /// there is, whichever is smaller]
    #[arg(
        long,
        value_name = "SIZE",
        env = "S3CREDMOUNT_MEMORY_LIMIT",
        help_heading = "Caching"
    )]
    #[arg(value_parser = values::memory_limit)]
    memory_limit: Option<u64>,

    /// How long names, sizes and absences are believed: 60s, 2h, 0 (ask each time), inf (for ever)
    #[arg(long, value_name = "DURATION", env = "S3CREDMOUNT_METADATA_TTL")]
    #[arg(default_value = "60s", value_parser = values::duration, help_heading = "Caching")]
    metadata_ttl: Duration,

    /// How long one file operation may take, whatever the network does, in seconds
    #[arg(long, value_name = "SECONDS", env = "S3CREDMOUNT_OPERATION_TIMEOUT")]
    #[arg(default_value = "90", value_parser = values::operation_timeout, help_heading = "Caching")]
    operation_timeout: Duration,

    /// A file of keys or s3:// URLs, one a line: the names to show where the bucket may not be listed
    #[arg(
        long,
        value_name = "FILE",
        env = "S3CREDMOUNT_KEYS",
        help_heading = "Mount"
    )]
    keys: Option<PathBuf>,

    #[command(flatten)]
    log: LogArgs,
}

/// Where the log goes, and what it looks like.
#[derive(Debug, Args)]
struct LogArgs {
    /// Where to log to [default: stderr in the foreground; in the background syslog where there is
    /// one, else a file below ~/.local/state/s3credmount]
    #[arg(
        long,
        value_name = "FILE",
        env = "S3CREDMOUNT_LOG_FILE",
        help_heading = "Log"
    )]
    log_file: Option<PathBuf>,

    /// How a log line looks: text or json
    #[arg(
        long,
        value_name = "FORMAT",
        env = "S3CREDMOUNT_LOG_FORMAT",
        help_heading = "Log"
    )]
    #[arg(default_value = "text")]
    log_format: LogFormat,

    /// Log more; twice: each request
    #[arg(short, long, action = ArgAction::Count, env = "S3CREDMOUNT_VERBOSE", help_heading = "Log")]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl MountArgs {
    pub(super) fn into_run(self, table: &Table) -> Result<Run, String> {
        if ToolArgs::has_subcommand(&self.source) {
            let name = self.source;
            return Err(format!(
                "{name} is a command, and its options stand behind it: s3credmount {name} --help. A \
                 bucket of that name is mounted as s3://{name}"
            ));
        }
        let source: Source = self.source.parse()?;
        let (credentials, s3) = self.bucket.settings(source.bucket(), table)?;
        let log = self
            .log
            .settings(&source, &self.mountpoint, self.foreground)?;
        let keys = match &self.keys {
            Some(file) => read_keys(file, &source)?,
            None => KeyList::default(),
        };
        let mount = Config {
            mountpoint: absolute(self.mountpoint)?,
            credentials,
            s3,
            source,
            network: Network::from_environment()?,
            exec: self.exec,
            allow_other: self.allow_other,
            uid: self.uid.unwrap_or_else(|| nix::unistd::getuid().as_raw()),
            gid: self.gid.unwrap_or_else(|| nix::unistd::getgid().as_raw()),
            file_mode: self.file_mode,
            dir_mode: self.dir_mode,
            memory_limit: memory::limit(self.memory_limit)?,
            keys,
            metadata_ttl: self.metadata_ttl,
            operation_timeout: self.operation_timeout,
        };
        Ok(Run {
            mount,
            log,
            foreground: self.foreground,
        })
    }
}

impl LogArgs {
    /// Settings for the log of a mount of `source`.
    fn settings(
        self,
        source: &Source,
        mountpoint: &Path,
        foreground: bool,
    ) -> Result<log::Settings, String> {
        let destination = match self.log_file {
            Some(file) => log::Destination::File(beside(mountpoint, file)?),
            None if foreground => log::Destination::Stderr,
            None => {
                let at = absolute(mountpoint.to_owned())?;
                let name = format!("{}/{}{}", source.bucket(), source.prefix(), at.display());
                log::Destination::in_background(state_directory, &name.replace("//", "/"))?
            }
        };
        Ok(log::Settings {
            destination,
            format: match self.log_format {
                LogFormat::Text => log::Format::Text,
                LogFormat::Json => log::Format::Json,
            },
            level: match self.verbose {
                0 => log::Level::Info,
                1 => log::Level::Debug,
                _ => log::Level::Trace,
            },
        })
    }
}

/// A file for the log, which must not be one that the mount hides.
fn beside(mountpoint: &Path, file: PathBuf) -> Result<PathBuf, String> {
    let file = absolute(file)?;
    let directory = file.parent().and_then(|path| path.canonicalize().ok());
    if let (Some(directory), Ok(mountpoint)) = (directory, mountpoint.canonicalize())
        && directory.starts_with(&mountpoint)
    {
        return Err(format!(
            "the log {} would lie in the mount: name a file outside of {} with --log-file",
            file.display(),
            mountpoint.display()
        ));
    }
    Ok(file)
}

/// The keys of `file` that are below `source`.
fn read_keys(file: &Path, source: &Source) -> Result<KeyList, String> {
    let failed = |error: String| {
        format!(
            "the list of keys {} cannot be used: {error}",
            file.display()
        )
    };
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    KeyList::parse(&text, source.bucket(), source.prefix()).map_err(failed)
}
