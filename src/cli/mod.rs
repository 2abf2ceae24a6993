//! What the user typed, made into what the program runs on. No clap type is seen below this module.

mod access;
mod dash_o;
mod mount;
#[cfg(any(test, fuzzing))]
pub(crate) mod parsers;
mod places;
mod tools;
mod values;

use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Subcommand};

use crate::earthdata::Table;
use crate::log;
use crate::mount::Config;
use crate::process::{self, FILE_PATIENCE};
use crate::tools::Tool;
use mount::MountArgs;
use tools::ToolArgs;

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Mount a bucket.
    Mount(Box<Run>),
    /// Run a tool, in the foreground.
    Tool {
        /// Which one.
        tool: Box<Tool>,
        /// Its log.
        log: log::Settings,
    },
}

/// What to mount, and how.
#[derive(Debug)]
pub struct Run {
    /// The mount.
    pub mount: Config,
    /// The log.
    pub log: log::Settings,
    /// Not in the background.
    pub foreground: bool,
}

/// Reads the command line, the environment and the user's table of buckets. Ends the process on
/// `--help`, `--version` and mistakes, as clap does.
///
/// # Errors
/// A message for the user.
pub fn read() -> Result<Command, String> {
    let known = known_buckets();
    let table = known.clone().unwrap_or_else(|_| Table::built_in());
    let command = parse(std::env::args_os(), &table).unwrap_or_else(|error| error.exit());
    known.and(command)
}

/// The user's own table where there is one, and the built-in one; a message where that cannot be told.
fn known_buckets() -> Result<Table, String> {
    let built_in = Table::built_in();
    let Some(path) = places::table_of_buckets() else {
        return Ok(built_in);
    };
    let own = path.clone();
    let read = process::within(FILE_PATIENCE, move || Table::read(&own));
    let path = path.display();
    match read {
        Some(Ok(Some(own))) => Ok(own.or(built_in)),
        Some(Ok(None)) => Ok(built_in),
        Some(Err(error)) => {
            eprintln!("s3credmount: the table of buckets in {path} is not used: {error}");
            Ok(built_in)
        }
        // The thread that waits for it forbids to go to the background.
        None => Err(format!(
            "cannot look for a table of buckets in {path}: the file system does not answer. Name a directory on \
             another one by XDG_CACHE_HOME, also without such a table"
        )),
    }
}

fn parse(
    args: impl IntoIterator<Item = OsString>,
    table: &Table,
) -> Result<Result<Command, String>, clap::Error> {
    let command = command();
    let args = dash_o::expand(args, |name| takes_value(&command, name))
        .map_err(|message| command.clone().error(ErrorKind::InvalidValue, message))?;
    let matches = command
        .clone()
        .try_get_matches_from(&args)
        .map_err(|error| word_too_many(&error, command).unwrap_or(error))
        .map_err(|error| naming_variable(error, &args))?;
    if matches.subcommand_name().is_some() {
        return Ok(ToolArgs::from_arg_matches(&matches)?.into_command(table));
    }
    let run = MountArgs::from_arg_matches(&matches)?.into_run(table);
    Ok(run.map(|run| Command::Mount(Box::new(run))))
}

fn command() -> clap::Command {
    ToolArgs::augment_subcommands(MountArgs::command())
        // So that the subcommands need no SOURCE.
        .args_conflicts_with_subcommands(true)
        // mount(8) appends its own options to those of fstab: the last one wins.
        .args_override_self(true)
        // clap's own has as required whatever a variable has set.
        .override_usage("s3credmount [OPTIONS] <SOURCE> <MOUNTPOINT>\n       s3credmount <COMMAND>")
        .disable_help_subcommand(true)
        .mut_args(unset_if_empty)
        .mut_subcommands(|tool| tool.mut_args(unset_if_empty))
}

/// A variable that is empty is none.
fn unset_if_empty(arg: clap::Arg) -> clap::Arg {
    let value = arg.get_env().and_then(std::env::var_os);
    match value {
        Some(value) if value.is_empty() => arg.env(Resettable::Reset),
        _ => arg,
    }
}

/// Names the variable that an invalid value is from, where the option itself was not typed.
fn naming_variable(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    if let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg)
        && let Some(name) = option.strip_prefix("--")
        && let Some(name) = name.split([' ', '.']).next()
    {
        let long = format!("--{name}");
        let is_typed = |arg: &OsString| arg.to_string_lossy().split('=').next() == Some(&long);
        let variable = format!("S3CREDMOUNT_{}", name.to_uppercase().replace('-', "_"));
        if !args.iter().any(is_typed) && std::env::var_os(&variable).is_some() {
            error.insert(ContextKind::InvalidArg, ContextValue::String(variable));
        }
    }
    error
}

/// What clap takes for a subcommand, since there are some.
fn word_too_many(error: &clap::Error, mut command: clap::Command) -> Option<clap::Error> {
    let ContextValue::String(word) = error.get(ContextKind::InvalidSubcommand)? else {
        return None;
    };
    let message = format!(
        "unexpected argument '{word}': SOURCE and MOUNTPOINT are given already (a part of a bucket is \
         BUCKET/PREFIX)"
    );
    Some(command.error(ErrorKind::UnknownArgument, message))
}

/// Whether the long option `name` has a value; `None` if there is no such option.
fn takes_value(command: &clap::Command, name: &str) -> Option<bool> {
    let named = |arg: &&clap::Arg| arg.get_long() == Some(name);
    let arg = command.get_arguments().find(named)?;
    Some(arg.get_action().takes_values())
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        let all = ["s3credmount", "-o", "foreground"];
        let all = all.iter().chain(args).map(OsString::from);
        match parse(all, &Table::built_in()).map_err(|e| e.to_string())?? {
            Command::Mount(run) => Ok(run.mount),
            Command::Tool { .. } => Err("a tool".to_owned()),
        }
    }

    fn tool(args: &[&str]) -> Result<Tool, String> {
        let all = ["s3credmount"].iter().chain(args).map(OsString::from);
        match parse(all, &Table::built_in()).map_err(|e| e.to_string())?? {
            Command::Tool { tool, .. } => Ok(*tool),
            Command::Mount(_) => Err("a mount".to_owned()),
        }
    }

    #[test]
    fn a_known_bucket_needs_no_options() {
        let config = config(&["podaac-ops-cumulus-protected/MUR", "/mnt"]).expect("valid");
        let credentials = config.credentials.expect("signed");
        assert_eq!(
            credentials.endpoint.endpoint,
            "https://archive.podaac.earthdata.nasa.gov/s3credentials"
        );
        assert_eq!(credentials.endpoint.login_host, "urs.earthdata.nasa.gov");
        assert_eq!(config.s3.region, "us-west-2");
        assert_eq!(config.source.prefix(), "MUR/");
        assert_eq!((config.file_mode, config.dir_mode), (0o444, 0o555));
    }

    #[test]
    fn an_unknown_bucket_gets_a_hint() {
        let error = config(&["podaac-ops-cumulus-protectd", "/mnt"]).expect_err("unknown");
        assert!(error.contains("podaac-ops-cumulus-protected"), "{error}");
        assert!(error.contains("--credentials-endpoint"), "{error}");
        let args = [
            "my-bucket",
            "/mnt",
            "--credentials-endpoint",
            "https://x/s3credentials",
        ];
        assert!(config(&args).is_ok());
    }

    #[test]
    fn every_option_has_its_environment_variable() {
        let check = |command: clap::Command, others: &[&str]| {
            for arg in command.get_arguments() {
                let id = arg.get_id().as_str();
                if !others.contains(&id) {
                    let expected = format!("S3CREDMOUNT_{}", id.to_uppercase());
                    assert_eq!(arg.get_env().and_then(|e| e.to_str()), Some(&*expected));
                }
            }
        };
        let of_mount = ["help", "version", "source", "mountpoint"];
        check(MountArgs::command(), &of_mount);
        let of_check = tools::CheckArgs::augment_args(clap::Command::new("check"));
        check(of_check, &["source", "verbose"]);
    }

    #[test]
    fn of_an_option_that_is_repeated_the_last_one_wins() {
        let args = "-o metadata_ttl=6h,exec,uid=1 -o metadata_ttl=1h,exec --uid 2 --uid 3 -v -f";
        let mut all = vec!["prod-lads", "/mnt"];
        all.extend(args.split(' '));
        let config = config(&all).expect("valid");
        assert_eq!(config.metadata_ttl.as_secs(), 3600);
        assert_eq!((config.exec, config.uid), (true, 3));
        let args = "buckets --refresh --cmr-url https://a --cmr-url https://b --refresh x";
        let args: Vec<_> = args.split(' ').collect();
        assert!(tool(&args).is_ok());
        let level = |verbose: &[&str]| {
            let all = ["p", "-o", "foreground", "prod-lads", "/mnt"];
            let all = all.iter().chain(verbose).map(OsString::from);
            match parse(all, &Table::built_in()) {
                Ok(Ok(Command::Mount(run))) => run.log.level,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(level(&["-v"]), log::Level::Debug);
        assert_eq!(level(&["-vv"]), log::Level::Trace);
        assert_eq!(level(&["-v", "-v"]), log::Level::Trace);
    }

    #[test]
    fn a_bucket_that_has_the_name_of_a_tool_is_mounted_as_a_url() {
        let args = ["--credentials-endpoint", "https://x/s3credentials"];
        for name in ["credentials", "serve-credentials", "buckets", "check"] {
            let source = format!("s3://{name}");
            let mut all = vec![source.as_str(), "/mnt"];
            all.extend(args);
            let mount = config(&all).expect("a mount");
            assert_eq!(mount.source.bucket(), name);
            // With an option in front it is no command any more, and no bucket either.
            let error = config(&[name, "/mnt"]).expect_err(name);
            assert!(error.contains(&source), "{error}");
        }
        assert!(matches!(tool(&["buckets", "podaac"]), Ok(Tool::Buckets(_))));
        let tool = tool(&["credentials", "prod-lads"]).expect("a tool");
        let Tool::Credentials(credentials) = tool else {
            panic!("{tool:?}");
        };
        let endpoint = credentials.credentials.endpoint.endpoint;
        assert!(endpoint.contains("laads"), "{endpoint}");
    }

    #[test]
    fn credentials_are_served_on_this_machine_only() {
        for bad in [
            "0.0.0.0:80",
            "10.0.0.1:80",
            "[::]:80",
            "127.0.0.1",
            ":80",
            "host:80",
        ] {
            let error = tool(&["serve-credentials", "prod-lads", "--listen", bad]);
            let error = error.expect_err(bad);
            assert!(error.contains("127.0.0.1:PORT"), "{error}");
        }
        for good in ["127.0.0.1:0", "[::1]:8080"] {
            assert!(tool(&["serve-credentials", "prod-lads", "--listen", good]).is_ok());
        }
    }
}
