//! The world as a program, for the demo and for benchmarks: prints where it is as shell assignments, and runs until told
//! to stop.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mock_earthdata::{
    Bucket, Content, DEFAULT_PASSWORD, DEFAULT_TOKEN, DEFAULT_USER, FaultRule, Settings, Shape,
    Synthetic, User, World, from_directory,
};
use tokio::signal::unix::{SignalKind, signal};

/// Earthdata Login, /s3credentials and S3 on loopback.
///
/// When ready, it prints one line of shell assignments: S3_URL, TEA_ENDPOINT, CUMULUS_ENDPOINT, OPEN_ENDPOINT,
/// EARTHDATA_HOST and BUCKET, and with --ca-file CA_FILE. It ends on SIGTERM and SIGINT.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Name of the bucket
    #[arg(long, value_name = "NAME", default_value = "demo-bucket")]
    bucket: String,
    /// Put all files below this directory into the bucket (repeatable)
    #[arg(long, value_name = "PATH")]
    dir: Vec<PathBuf>,
    /// Put computed objects into the bucket: prefix:count:size[:per-directory] (repeatable)
    #[arg(long, value_name = "SPEC")]
    synthetic: Vec<Synthetic>,
    /// How long credentials live
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = seconds)]
    lifetime: Duration,
    /// Answer every n-th request for credentials with 500
    #[arg(long, value_name = "N")]
    fail_every: Option<NonZeroU32>,
    /// Delay of every S3 answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    first_byte: u64,
    /// Bandwidth of each S3 connection, in bytes a second
    #[arg(long, value_name = "BYTES_PER_S")]
    bandwidth: Option<u64>,
    /// Bandwidth of all S3 connections together, in bytes a second
    #[arg(long, value_name = "BYTES_PER_S")]
    link: Option<u64>,
    /// What each listed key adds to the delay of a listing, in microseconds
    #[arg(long, value_name = "US", default_value_t = 0)]
    per_key: u64,
    /// The name of the one user
    #[arg(long, value_name = "NAME", env = "MOCK_USER", default_value = DEFAULT_USER)]
    user: String,
    /// Speak https on all listeners, with a CA made at the start
    #[arg(long)]
    tls: bool,
    /// Write the CA's certificate to this file, for clients to trust
    #[arg(long, value_name = "PATH", requires = "tls")]
    ca_file: Option<PathBuf>,
    /// S3 for benchmarks: no signatures, no tokens, as little work as can be; what --dir puts into the bucket is mapped
    /// into memory, and must not change meanwhile
    #[arg(long)]
    lean: bool,
    /// Let things go wrong: OPS:KEY:WHEN:FAULT, as get:big*:3:reset-after=100000 (repeatable)
    #[arg(long, value_name = "RULE")]
    fault: Vec<FaultRule>,
    /// End when standard input ends, too: with the script that holds its other side
    #[arg(long)]
    until_stdin_closes: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mock-earthdata: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<()> {
    let bucket = arguments.bucket.clone();
    let until_stdin_closes = arguments.until_stdin_closes;
    let ca_file = arguments.ca_file.clone();
    let world = World::start(settings(arguments)?)?;
    if let Some(path) = &ca_file {
        write_for_all(path, world.ca_pem()).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
    }
    let mut out = io::stdout().lock();
    write!(
        out,
        "S3_URL={} TEA_ENDPOINT={} CUMULUS_ENDPOINT={} OPEN_ENDPOINT={} EARTHDATA_HOST={} BUCKET={bucket}",
        world.s3_url(),
        world.tea_endpoint(),
        world.cumulus_endpoint(),
        world.open_endpoint(),
        world.earthdata_host(),
    )?;
    match &ca_file {
        Some(path) => writeln!(out, " CA_FILE={}", path.display())?,
        None => writeln!(out)?,
    }
    out.flush()?;
    wait(until_stdin_closes)
}

/// Writes a file that everyone may read, whatever the umask says.
fn write_for_all(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, Permissions::from_mode(0o644))
}

fn settings(arguments: Arguments) -> io::Result<Settings> {
    let mut objects = Vec::new();
    for dir in &arguments.dir {
        let files = from_directory(dir)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", dir.display())))?;
        objects.extend(files.into_iter().map(|(key, content)| match content {
            Content::File(path) if arguments.lean => (key, Content::Mapped(path)),
            content => (key, content),
        }));
    }
    for synthetic in &arguments.synthetic {
        objects.extend(synthetic.objects());
    }
    let variable = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    Ok(Settings {
        users: vec![User {
            name: arguments.user,
            // Not flags: what is in argv, everyone on the host can read.
            password: variable("MOCK_PASSWORD", DEFAULT_PASSWORD),
            tokens: vec![variable("MOCK_TOKEN", DEFAULT_TOKEN)],
            eula_accepted: true,
        }],
        buckets: vec![Bucket {
            name: arguments.bucket,
            objects,
            ..Bucket::default()
        }],
        lifetime: arguments.lifetime,
        fail_every: arguments.fail_every.map(NonZeroU32::get),
        shape: Shape {
            first_byte: Duration::from_millis(arguments.first_byte),
            bytes_per_second: arguments.bandwidth,
            link_bytes_per_second: arguments.link,
            per_listed_key: Duration::from_micros(arguments.per_key),
        },
        tls: arguments.tls,
        lean: arguments.lean,
        faults: arguments.fault,
        ..Settings::default()
    })
}

/// Seconds, with a fraction if need be.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Returns when a signal to end has come, or standard input has ended, if that counts.
fn wait(until_stdin_closes: bool) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (closed, stdin_closed) = tokio::sync::oneshot::channel::<()>();
        // Dropped when standard input ends, or kept until the end of this block.
        let mut closed = Some(closed);
        if until_stdin_closes {
            let closed = closed.take();
            // A thread that nobody joins: a read of standard input cannot be cancelled.
            std::thread::spawn(move || {
                let mut ignored = [0; 4096];
                while matches!(io::stdin().read(&mut ignored), Ok(1..)) {}
                drop(closed);
            });
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = stdin_closed => {}
        }
        Ok(())
    })
}
