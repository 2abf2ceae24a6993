//! The tools beside the mount: the same login for other programs, the table of buckets, and a check
//! of all that a mount needs. They run in the foreground, print to stdout, and end.

pub mod buckets;
pub mod check;
pub mod credentials;
#[cfg(any(test, fuzzing))]
pub(crate) mod parsers;
pub mod serve;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;

use crate::credentials::{Credentials, FIRST_CREDENTIALS, Manager, first_or_say};

/// A tool, with what it runs on.
#[derive(Debug)]
pub enum Tool {
    /// `s3credmount credentials`.
    Credentials(credentials::Config),
    /// `s3credmount serve-credentials`.
    Serve(serve::Config),
    /// `s3credmount buckets`.
    Buckets(buckets::Config),
    /// `s3credmount check`.
    Check(Box<check::Config>),
}

/// Runs `tool` to its end.
///
/// # Errors
/// A message for the user.
pub fn run(tool: &Tool) -> Result<(), String> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let result = runtime.block_on(async {
        match tool {
            Tool::Credentials(config) => credentials::run(config).await,
            Tool::Serve(config) => serve::run(config).await,
            Tool::Buckets(config) => buckets::run(config).await,
            Tool::Check(config) => check::run(config).await,
        }
    });
    // What still waits for the network is nobody's any more.
    runtime.shutdown_background();
    result
}

/// Waits for the first credentials for `bucket`, for `patience` and not less long than a mount does, and says on stderr
/// what for if that takes long.
async fn first_credentials(
    manager: &Manager,
    bucket: &str,
    patience: Duration,
) -> Result<Arc<Credentials>, String> {
    let say = |text: &str| eprintln!("s3credmount: {text}");
    let first = first_or_say(manager, patience.max(FIRST_CREDENTIALS), say).await;
    first.map_err(|error| format!("no credentials for {bucket}: {}", error.cause))
}

/// A pipe that nobody reads, a disk that is full.
fn cannot_print(error: io::Error) -> String {
    format!("cannot write to standard output: {error}")
}
