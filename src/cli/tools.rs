//! What the user typed to run one of the tools beside the mount.

use std::net::SocketAddr;

use clap::{ArgAction, Args, Subcommand, ValueEnum};

use super::access::{BucketArgs, CredentialArgs};
use super::{Command, places, values};
use crate::earthdata::{self, Table};
use crate::log;
use crate::memory;
use crate::mount::Source;
use crate::network::{self, Network};
use crate::tools::{Tool, buckets, check, credentials, serve};

#[derive(Debug, Subcommand)]
pub(super) enum ToolArgs {
    /// Print credentials for other programs, as AWS's credential_process expects them
    #[command(override_usage = "s3credmount credentials [OPTIONS] <BUCKET>")]
    Credentials(CredentialsArgs),
    /// Serve credentials to other programs on this machine, for as long as it runs
    #[command(override_usage = "s3credmount serve-credentials [OPTIONS] <BUCKET>")]
    ServeCredentials(ServeArgs),
    /// List the buckets that are known, with their archives, regions and endpoints
    Buckets(BucketsArgs),
    /// Check step by step whether a bucket can be mounted and read, and say what to do if not
    #[command(override_usage = "s3credmount check [OPTIONS] <SOURCE>")]
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub(super) struct CredentialsArgs {
    /// For which bucket
    bucket: String,

    /// How to print them: process (AWS's credential_process), env (for a shell's eval) or json (the
    /// fields of /s3credentials)
    #[arg(long, value_name = "FORMAT", default_value = "process")]
    #[arg(hide_possible_values = true)]
    format: Format,

    #[command(flatten)]
    credentials: CredentialArgs,

    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// For which bucket
    bucket: String,

    /// Where to: an address of this machine only (127.0.0.1 or ::1); port 0 takes a free one
    #[arg(long, value_name = "127.0.0.1:PORT", default_value = "127.0.0.1:0")]
    #[arg(value_parser = loopback)]
    listen: SocketAddr,

    #[command(flatten)]
    credentials: CredentialArgs,

    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
pub(super) struct BucketsArgs {
    /// A part of the bucket's, archive's or endpoint's name; * stands for anything
    #[arg(default_value = "")]
    pattern: String,

    /// Ask NASA's Common Metadata Repository (CMR) first, and keep what it says for later
    #[arg(long)]
    refresh: bool,

    /// Another CMR
    #[arg(long, value_name = "URL", default_value = earthdata::CMR, requires = "refresh")]
    cmr_url: String,

    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// What to check: BUCKET, BUCKET/PREFIX or s3://BUCKET/PREFIX
    source: String,

    #[command(flatten)]
    bucket: BucketArgs,

    /// Check also whether other users can be let in
    #[arg(long, env = "S3CREDMOUNT_ALLOW_OTHER", help_heading = "Mount")]
    #[arg(action = ArgAction::SetTrue, value_parser = values::switch)]
    allow_other: bool,

    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
struct LogArgs {
    /// Log more, to stderr; twice: what happens inside
    #[arg(short, long, action = ArgAction::Count, help_heading = "Log")]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Process,
    Env,
    Json,
}

impl ToolArgs {
    pub(super) fn into_command(self, table: &Table) -> Result<Command, String> {
        let (tool, verbose) = match self {
            Self::Credentials(args) => args.into_tool(table)?,
            Self::ServeCredentials(args) => args.into_tool(table)?,
            Self::Buckets(args) => args.into_tool(table)?,
            Self::Check(args) => args.into_tool(table)?,
        };
        // What is served for weeks is of interest to an administrator.
        let quiet = !matches!(tool, Tool::Serve(_));
        let log = log::Settings {
            destination: log::Destination::Stderr,
            format: log::Format::Text,
            level: match verbose {
                0 if quiet => log::Level::Warn,
                0 => log::Level::Info,
                1 if quiet => log::Level::Info,
                1 | 2 => log::Level::Debug,
                _ => log::Level::Trace,
            },
        };
        let tool = Box::new(tool);
        Ok(Command::Tool { tool, log })
    }
}

impl CredentialsArgs {
    fn into_tool(self, table: &Table) -> Result<(Tool, u8), String> {
        let source: Source = self.bucket.parse()?;
        let tool = Tool::Credentials(credentials::Config {
            bucket: source.bucket().to_owned(),
            credentials: self.credentials.settings(source.bucket(), table)?,
            network: Network::from_environment()?,
            format: match self.format {
                Format::Process => credentials::Format::Process,
                Format::Env => credentials::Format::Env,
                Format::Json => credentials::Format::Json,
            },
        });
        Ok((tool, self.log.verbose))
    }
}

impl ServeArgs {
    fn into_tool(self, table: &Table) -> Result<(Tool, u8), String> {
        let source: Source = self.bucket.parse()?;
        let tool = Tool::Serve(serve::Config {
            bucket: source.bucket().to_owned(),
            credentials: self.credentials.settings(source.bucket(), table)?,
            network: Network::from_environment()?,
            listen: self.listen,
        });
        Ok((tool, self.log.verbose))
    }
}

impl BucketsArgs {
    fn into_tool(self, table: &Table) -> Result<(Tool, u8), String> {
        let refresh = match self.refresh {
            false => None,
            true => Some(buckets::Refresh {
                cmr: network::check_url(&self.cmr_url).map_err(|bad| bad.to_string())?,
                network: Network::from_environment()?,
                file: places::table_of_buckets()
                    .ok_or("HOME is not set: there is no place to keep the table in")?,
            }),
        };
        let tool = Tool::Buckets(buckets::Config {
            pattern: self.pattern,
            table: table.clone(),
            refresh,
        });
        Ok((tool, self.log.verbose))
    }
}

impl CheckArgs {
    fn into_tool(self, table: &Table) -> Result<(Tool, u8), String> {
        let source: Source = self.source.parse()?;
        let (mut credentials, s3) = self.bucket.settings(source.bucket(), table)?;
        // What another process has got says nothing of the login as it is now.
        if let Some(settings) = &mut credentials {
            settings.sharing.always_fetch = true;
        }
        let tool = Tool::Check(Box::new(check::Config {
            credentials,
            s3,
            network: Network::from_environment()?,
            allow_other: self.allow_other,
            memory: memory::limit(None),
            log: log_in_background(&format!("{}/MOUNTPOINT", source.bucket())),
            source,
        }));
        Ok((tool, self.log.verbose))
    }
}

/// Where a mount in the background logs to if the user says nothing.
fn log_in_background(mount: &str) -> Result<String, String> {
    let destination = log::Destination::in_background(places::state_directory, mount)?;
    match destination.obstacle() {
        None => Ok(destination.to_string()),
        Some(why) => Err(format!("{why}: say where to log to with --log-file")),
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        _ => Err("an address of this machine alone is needed: 127.0.0.1:PORT or [::1]:PORT".into()),
    }
}
