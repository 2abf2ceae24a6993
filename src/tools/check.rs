//! `s3credmount check`: goes through all that a mount needs, step by step, before a long job does.
//!
//! Each step is a line on stdout, with its time: `ok`, `note` for what may be trouble and need not be,
//! or `FAILED`, after which nothing more is tried.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::credentials::{self, Cause, FIRST_CREDENTIALS, Manager};
use crate::earthdata::{self, Endpoint};
use crate::instance;
use crate::mount::{self, Source, Target};
use crate::network::Network;
use crate::request::Request;
use crate::s3::{self, ByteRange, ETag, Page, S3};

/// With the time that the client takes to try again.
const ANSWER: Duration = Duration::from_secs(15);
/// Credentials with less left are renewed at once, and then again.
const SHORT_LIFE: Duration = Duration::from_secs(5 * 60);
/// Keys to list, among which there should be objects with content.
const KEYS: u16 = 100;
/// Of these, so many are tried: the first ones may be archived.
const CANDIDATES: usize = 5;

/// What to check.
#[derive(Debug)]
pub struct Config {
    /// What would be mounted.
    pub source: Source,
    /// Where credentials come from; `None` for unsigned requests.
    pub credentials: Option<credentials::Settings>,
    /// Where the bucket is.
    pub s3: s3::Settings,
    /// Certificates and the like.
    pub network: Network,
    /// Whether other users are to be let in.
    pub allow_other: bool,
    /// How many bytes a mount has for data and names, or why there is none.
    pub memory: Result<u64, String>,
    /// Where a mount in the background logs to, or why it cannot.
    pub log: Result<String, String>,
}

/// Checks, and prints how it goes.
///
/// # Errors
/// The step that failed, and what to do.
pub async fn run(config: &Config) -> Result<(), String> {
    let manager = match &config.credentials {
        None => {
            Step::begin("login").note("none, since requests are not signed");
            None
        }
        Some(settings) => Some(credentials_of(settings, &config.network).await?),
    };
    let machine = region_of_this_machine(&config.s3.region).await;
    let s3 = S3::new(config.s3.clone(), manager, &config.network);
    let bucket = Bucket {
        target: Target {
            source: &config.source,
            s3: &config.s3,
            credentials: config.credentials.as_ref(),
        },
        s3: std::sync::Arc::new(s3),
        machine,
    };
    bucket.check().await?;
    let step = Step::begin("memory");
    match &config.memory {
        Ok(bytes) => step.ok(format!("{} MiB for data and names", bytes >> 20)),
        Err(why) => return Err(step.failed(why)),
    }
    let step = Step::begin("log");
    match &config.log {
        Ok(place) => step.ok(format!("{place} in the background")),
        Err(why) => step.note(format!("no mount in the background: {why}")),
    }
    check_mounting(config.allow_other)
}

fn check_mounting(allow_other: bool) -> Result<(), String> {
    let step = Step::begin("FUSE");
    let directory = tempfile::Builder::new()
        .prefix("s3credmount-check-")
        .tempdir();
    let directory = match directory {
        Ok(directory) => directory,
        Err(error) => {
            step.note(format!(
                "no temporary directory to try it on ({error}): set TMPDIR"
            ));
            return Ok(());
        }
    };
    let tried = mount::try_mount(directory.path(), allow_other);
    // This takes no descriptor, of which there may be none left.
    let _ = std::fs::remove_dir(directory.path());
    match tried {
        Ok(()) if allow_other => step.ok("mounts, also for other users"),
        Ok(()) => step.ok("mounts"),
        Err(error) => return Err(step.failed(error)),
    }
    Ok(())
}

/// Login, `/s3credentials`, and what they grant.
async fn credentials_of(
    settings: &credentials::Settings,
    network: &Network,
) -> Result<Manager, String> {
    let unusable = |error| Step::begin("/s3credentials").failed(error);
    let endpoint = Endpoint::new(settings.endpoint.clone(), network).map_err(unusable)?;
    let step = Step::begin("login found");
    match endpoint.find_login().await {
        Ok(Some(login)) => step.ok(login),
        Ok(None) => step.note("none: the endpoint must do without"),
        Err(error) => return Err(step.failed(error)),
    }

    let step = Step::begin("login and /s3credentials");
    let manager = Manager::open(settings, network).map_err(unusable)?;
    let granted = match manager.first(FIRST_CREDENTIALS).await {
        Ok(granted) => granted,
        Err(error) => {
            let step = match &error.cause {
                Cause::Failed(cause) if is_about_login(cause) => step.named("login"),
                _ => step.named("/s3credentials"),
            };
            return Err(step.failed(error.cause));
        }
    };
    let (key, endpoint) = (&granted.access_key_id, &settings.endpoint.endpoint);
    step.ok(format!("{endpoint} granted {key}"));

    let step = Step::begin("time left");
    let left = manager.remaining(&granted);
    let text = format!("{} s, then renewed", left.as_secs());
    match left < SHORT_LIFE {
        true => step.note(format!("{text}: the endpoint grants little time")),
        false => step.ok(text),
    }

    let step = Step::begin("clock");
    match granted.clock_warning() {
        Some(warning) => step.note(warning),
        None => step.ok("within a minute of the endpoint's"),
    }
    Ok(manager)
}

/// Whether the login is wrong, or missing, and not the endpoint.
fn is_about_login(error: &earthdata::Error) -> bool {
    use earthdata::Error as E;
    matches!(
        error,
        E::NoLogin { .. }
            | E::LoginUnreadable { .. }
            | E::LoginFile { .. }
            | E::WrongPassword { .. }
            | E::Locked { .. }
            | E::TokenRefused { .. }
    )
}

async fn region_of_this_machine(bucket: &str) -> Option<String> {
    let step = Step::begin("region");
    let machine = instance::region().await;
    match machine.as_deref() {
        Some(machine) if machine == bucket => step.ok(format!("{machine}, as the bucket's")),
        Some(machine) => step.note(format!(
            "this machine is in {machine}, the bucket in {bucket}: NASA lets its buckets be read \
             from within their region only"
        )),
        None => step.note(format!(
            "EC2's instance metadata do not answer: this machine may not be in {bucket}, from within \
             which alone NASA lets the bucket be read; reading will show"
        )),
    }
    machine
}

/// The bucket, and how to get at it.
struct Bucket<'a> {
    target: Target<'a>,
    s3: std::sync::Arc<S3>,
    machine: Option<String>,
}

impl Bucket<'_> {
    /// Lists, and reads a byte.
    async fn check(&self) -> Result<(), String> {
        let step = Step::begin("list");
        let request = Request::demand(ANSWER);
        let page = self.target.first_keys(&self.s3, KEYS, &request).await;
        let page = match page {
            Ok(page) if page.objects.is_empty() => {
                let is_file = self.target.is_file(&self.s3, &request).await;
                if let Some(hint) = self.target.misnamed(is_file)
                    && !is_file
                {
                    let location = self.target.location();
                    return Err(step.failed(format!("{location} has no object{hint}")));
                }
                step.note(format!("nothing lies below {}", self.target.source));
                page
            }
            Ok(page) => {
                step.ok(format!(
                    "{} begins with {}",
                    self.target.source, page.objects[0].key
                ));
                page
            }
            Err(s3::Error::AccessDenied(_)) if self.target.key().is_some() => {
                step.note("denied: files can be read by name only");
                Page::default()
            }
            Err(error) => return Err(step.failed(self.explained(&error, Asked::List))),
        };
        // What a directory of this name holds was found.
        let is_key = page.objects.is_empty();
        let candidates = page
            .objects
            .into_iter()
            .filter(|object| object.meta.size > 0);
        let candidates: Vec<_> = candidates
            .map(|object| (object.key, object.meta.etag))
            .take(CANDIDATES)
            .collect();
        self.check_reading(candidates, is_key).await
    }

    /// Reads a byte of one of `candidates`; without any, of what was named, which there must be if it `is_key`.
    async fn check_reading(
        &self,
        mut candidates: Vec<(String, ETag)>,
        is_key: bool,
    ) -> Result<(), String> {
        let step = Step::begin("first byte");
        if candidates.is_empty()
            && let Some(key) = self.target.key()
        {
            match self.s3.head(key, &Request::demand(ANSWER)).await {
                Ok(meta) if meta.size > 0 => candidates.push((key.to_owned(), meta.etag)),
                Err(s3::Error::NotFound) if is_key => {
                    let location = self.target.location();
                    return Err(step.failed(format!(
                        "there is no {location}. Check how the key is written, also upper and lower case"
                    )));
                }
                Ok(_) | Err(s3::Error::NotFound) => {}
                Err(error) => return Err(step.failed(self.explained(&error, Asked::Head))),
            }
        }
        let mut archived = 0;
        for (key, etag) in candidates {
            let byte = ByteRange::new(0, 1).expect("a byte");
            let request = Request::demand(ANSWER);
            let mut body = self
                .s3
                .get_range(&key.as_str().into(), &etag, byte, request);
            match body.next().await {
                Ok(_) => {
                    step.ok(format!("of {key}"));
                    return Ok(());
                }
                // Listings say nothing of it.
                Err(s3::Error::Archived) => archived += 1,
                Err(error) => {
                    let why = self.explained(&error, Asked::Get);
                    return Err(step.failed(format!("{key}: {why}")));
                }
            }
        }
        let why = match archived {
            0 => "there is no object with content",
            _ => "the first objects are all archived",
        };
        step.note(format!("{why}: check BUCKET/KEY to read one that you know"));
        Ok(())
    }

    fn explained(&self, error: &s3::Error, asked: Asked) -> String {
        let location = self.target.location();
        let machine = self.machine.as_deref();
        match error {
            s3::Error::AccessDenied(_) => {
                let (reasons, more) = match asked {
                    Asked::List => (
                        self.target.reasons_of_listing(machine),
                        "; a bucket that may not be listed can be checked by the name of a file \
                         (BUCKET/KEY)",
                    ),
                    Asked::Head => (
                        self.target.reasons(machine),
                        "; or there is no such key: where listing is denied, S3 says so of both",
                    ),
                    Asked::Get => (self.target.reasons(machine), ""),
                };
                format!("{location}: {error}: {reasons}{more}")
            }
            error => format!("{location}: {error}{}", mount::hint(error)),
        }
    }
}

/// What S3 was asked for.
enum Asked {
    List,
    Head,
    Get,
}

/// A step that is under way.
struct Step {
    name: &'static str,
    begin: Instant,
}

impl Step {
    fn begin(name: &'static str) -> Self {
        let begin = Instant::now();
        Self { name, begin }
    }

    fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    fn ok(self, text: impl Display) {
        self.line("ok", text);
    }

    fn note(self, text: impl Display) {
        self.line("note", text);
    }

    /// The message for the user.
    fn failed(self, text: impl Display) -> String {
        self.line("FAILED", "see below");
        format!("the check failed at {}: {text}", self.name)
    }

    fn line(&self, status: &str, text: impl Display) {
        let (seconds, name) = (self.begin.elapsed().as_secs_f64(), self.name);
        // Whoever reads has gone: the exit status still tells how it went.
        let _ = writeln!(io::stdout(), "{status:6} {seconds:6.2} s  {name}: {text}");
    }
}
