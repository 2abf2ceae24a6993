//! The program: reads what to run, runs it here or in the background, and turns the result into an
//! exit status.

use std::io::{self, Write};
use std::process::ExitCode;

use s3credmount::cli::{self, Command, Run};
use s3credmount::mount::{self, Launcher};
use s3credmount::tools::{self, Tool};
use s3credmount::{background, log, process};

fn main() -> ExitCode {
    process::protect_secrets();
    process::tame_the_allocator();
    process::ignore_announcements();
    process::keep_files_private();
    let result = match cli::read() {
        Err(message) => Err(message),
        Ok(Command::Tool { tool, log }) => use_tool(&tool, &log),
        Ok(Command::Mount(run)) if run.foreground => work(&run, &Terminal::new(&run)),
        Ok(Command::Mount(run)) => {
            let (source, place) = (&run.mount.source, run.mount.mountpoint.display());
            let what = format!("mount of {source} on {place}");
            return background::run(&what, |shell| work(&run, shell));
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("s3credmount: {message}");
            ExitCode::FAILURE
        }
    }
}

/// On a large machine: 8 for the network, 5 for the kernel, those of the log, and some that read files.
const THREADS_OF_MOUNT: usize = 20;
/// Those of the log, and some that read files.
const THREADS_OF_TOOL: usize = 4;

fn work(run: &Run, launcher: &dyn Launcher) -> Result<(), String> {
    process::check_threads(THREADS_OF_MOUNT)?;
    let _log = log::start(&run.log)?;
    let destination = run.log.destination.to_string();
    mount::run(&run.mount, &destination, launcher).map_err(|error| {
        let message = error.to_string();
        if run.log.destination != log::Destination::Stderr {
            match error {
                mount::Error::StillMounted { .. } => tracing::error!("{message}"),
                _ => tracing::error!("not mounted: {message}"),
            }
        }
        message
    })
}

fn use_tool(tool: &Tool, log: &log::Settings) -> Result<(), String> {
    process::check_threads(THREADS_OF_TOOL)?;
    let _log = log::start(log)?;
    tools::run(tool)
}

/// The terminal, or whatever standard streams there are in the foreground. Whoever started this may
/// have gone, and taken them along: the mount goes on.
struct Terminal {
    /// What is to be noticed is in the log as well.
    shows_log: bool,
}

impl Terminal {
    fn new(run: &Run) -> Self {
        Self {
            shows_log: run.log.destination == log::Destination::Stderr,
        }
    }
}

impl Launcher for Terminal {
    fn notice(&self, text: &str) {
        if !self.shows_log {
            let _ = writeln!(io::stderr(), "s3credmount: {text}");
        }
    }

    fn ready(&self, greeting: &str) -> io::Result<()> {
        let _ = writeln!(io::stdout(), "{greeting}");
        Ok(())
    }
}
