//! `s3credmount check`: each step that passes, and each that fails, with what to do.

use std::path::Path;
use std::process::{Command, Output};

use mock_earthdata::{
    Access, Answer, Bucket, DEFAULT_TOKEN, ListAccess, REVOKED_TOKEN, Settings, World,
};
use std::time::Duration;

use crate::messages::metadata;
use crate::ordinary::{as_ordinary_user, can_mount, device_of_mode};
use crate::scripted::{Scripted, reply};
use crate::support::{self, BUCKET, bare_program, program, world, world_with};

fn small_world() -> World {
    world([
        ("granules/a.nc", "content of a"),
        ("granules/b.nc", "content of b"),
    ])
}

fn check(world: &World, source: &str) -> Command {
    let mut command = program(world);
    command.args(["check", source]);
    command.env("XDG_STATE_HOME", std::env::temp_dir());
    reordered(&command)
}

/// The subcommand and its operand go first: options before them would be those of a mount.
fn reordered(command: &Command) -> Command {
    let mut sorted = bare_program();
    let args: Vec<_> = command.get_args().collect();
    let at = args.iter().position(|arg| *arg == "check").expect("check");
    sorted.args(&args[at..]).args(&args[..at]);
    support::take_environment(&mut sorted, command);
    sorted
}

struct Checked {
    status: Option<i32>,
    lines: Vec<String>,
    message: String,
}

impl Checked {
    fn of(command: &mut Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().expect("it runs");
        let stdout = String::from_utf8(stdout).expect("UTF-8");
        let message = String::from_utf8(stderr).expect("UTF-8");
        assert!(!stdout.contains(DEFAULT_TOKEN) && !message.contains(DEFAULT_TOKEN));
        Self {
            status: status.code(),
            lines: stdout.lines().map(str::to_owned).collect(),
            message,
        }
    }

    /// `ok`, `note` or `FAILED` of each step, in order.
    fn steps(&self) -> Vec<(&str, &str)> {
        let step = |line: &'_ String| -> (usize, usize, usize) {
            let status = line.find(' ').expect("a status");
            let name = line.find(" s  ").expect("a time") + 4;
            (status, name, name + line[name..].find(':').expect("a name"))
        };
        let lines = self.lines.iter();
        lines
            .map(|line| {
                let (status, begin, end) = step(line);
                (&line[..status], &line[begin..end])
            })
            .collect()
    }

    fn line(&self, name: &str) -> &str {
        let line = self
            .lines
            .iter()
            .find(|line| line.contains(&format!(" s  {name}:")));
        line.unwrap_or_else(|| panic!("no {name} in {:?}", self.lines))
    }

    /// Asserts that it failed at this step, and at no other, and says `parts`.
    #[track_caller]
    fn failed_at(&self, name: &str, parts: &[&str]) {
        assert_eq!(self.status, Some(1), "{:?} {}", self.lines, self.message);
        assert_eq!(
            self.steps().last(),
            Some(&("FAILED", name)),
            "{:?}",
            self.lines
        );
        let earlier = &self.steps()[..self.lines.len() - 1];
        assert!(earlier.iter().all(|(status, _)| *status != "FAILED"));
        let begin = format!("s3credmount: the check failed at {name}: ");
        assert!(self.message.starts_with(&begin), "{}", self.message);
        for part in parts {
            assert!(
                self.message.contains(part),
                "no {part:?} in {}",
                self.message
            );
        }
    }
}

#[test]
fn a_bucket_that_can_be_mounted_passes_step_by_step() {
    let world = small_world();
    let here = metadata("us-west-2");
    let mut command = check(&world, BUCKET);
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", here.url());
    let checked = Checked::of(&mut command);
    let steps = [
        "login found",
        "login and /s3credentials",
        "time left",
        "clock",
        "region",
        "list",
        "first byte",
        "memory",
        "log",
        "FUSE",
    ];
    assert_eq!(
        checked.steps(),
        steps.map(|name| ("ok", name)),
        "{:?}",
        checked.message
    );
    assert_eq!((checked.status, checked.message.as_str()), (Some(0), ""));
    assert!(
        checked
            .line("login found")
            .contains("a token from EARTHDATA_TOKEN")
    );
    assert!(
        checked
            .line("login and /s3credentials")
            .contains(&world.tea_endpoint())
    );
    assert!(checked.line("list").contains("granules/a.nc"));
    assert!(checked.line("first byte").contains("granules/a.nc"));
    let counters = world.counters();
    assert_eq!(counters.credentials_issued, 1);
    assert_eq!(counters.forbidden_operations, 0);
    assert_eq!(counters.body_bytes, 1, "one byte is read");
}

#[test]
fn what_may_be_trouble_and_need_not_be_is_a_note() {
    let world = world_with([("a.nc", "content")], |settings| {
        settings.lifetime = Duration::from_secs(60);
    });
    world.set_clock_offset(3600);
    let elsewhere = metadata("eu-central-1");
    let mut command = check(&world, BUCKET);
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", elsewhere.url());
    let checked = Checked::of(&mut command);
    assert_eq!(
        checked.status,
        Some(0),
        "{} {:?}",
        checked.message,
        checked.lines
    );
    let notes = checked
        .steps()
        .into_iter()
        .filter(|(status, _)| *status == "note");
    let names: Vec<_> = notes.map(|(_, name)| name).collect();
    assert_eq!(names, ["time left", "clock", "region"]);
    assert!(checked.line("clock").contains("timedatectl"));
    assert!(checked.line("region").contains("eu-central-1"));
    // Outside of AWS nobody answers.
    let checked = Checked::of(&mut check(&world, BUCKET));
    assert!(checked.line("region").starts_with("note"));
}

#[test]
fn no_login_and_logins_that_cannot_be_read() {
    let world = small_world();
    let mut missing = check(&world, BUCKET);
    missing.args(["--token-file", "/nonexistent/token"]);
    Checked::of(&mut missing).failed_at("login found", &["/nonexistent/token"]);
    let mut nobody = check(&world, BUCKET);
    nobody.env_remove("EARTHDATA_TOKEN");
    let checked = Checked::of(&mut nobody);
    assert_eq!(checked.steps()[0], ("note", "login found"));
    checked.failed_at("login", &["EARTHDATA_TOKEN", "netrc"]);
}

#[test]
fn logins_that_are_refused() {
    let world = small_world();
    let mut revoked = check(&world, BUCKET);
    revoked.env("EARTHDATA_TOKEN", REVOKED_TOKEN);
    Checked::of(&mut revoked).failed_at("login", &["does not accept the token"]);
    let mut wrong = check(&world, BUCKET);
    wrong
        .env_remove("EARTHDATA_TOKEN")
        .env("EARTHDATA_USERNAME", mock_earthdata::DEFAULT_USER)
        .env("EARTHDATA_PASSWORD", "hunter2");
    let checked = Checked::of(&mut wrong);
    checked.failed_at("login", &["refuses the password"]);
    assert!(!checked.message.contains("hunter2"));
}

#[test]
fn endpoints_that_grant_nothing() {
    let world = small_world();
    for (answer, said) in [
        (Answer::EulaRefused, "EULA"),
        (Answer::Html, "an HTML page"),
        (Answer::NoDataAccess, "403"),
        (Answer::Status(503, "disabled".to_owned()), "503"),
    ] {
        world.set_answer(answer);
        Checked::of(&mut check(&world, BUCKET)).failed_at("/s3credentials", &[said]);
    }
}

#[test]
fn buckets_that_cannot_be_listed() {
    let world = small_world();
    let checked = Checked::of(&mut check(&world, "no-such-bucket"));
    checked.failed_at("list", &["no such bucket", "--region"]);
    world.set_bucket_access(
        BUCKET,
        Access {
            list: ListAccess::Nowhere,
            get: true,
        },
    );
    let checked = Checked::of(&mut check(&world, BUCKET));
    checked.failed_at(
        "list",
        &["us-west-2", "EULA", "--credentials-endpoint", "BUCKET/KEY"],
    );
    // By the name of a file it can be read.
    let checked = Checked::of(&mut check(&world, &format!("{BUCKET}/granules/b.nc")));
    assert_eq!(checked.status, Some(0), "{}", checked.message);
    assert!(checked.line("list").starts_with("note"));
    assert!(checked.line("first byte").contains("granules/b.nc"));
}

/// Where listing is denied, S3 has the same answer for a key that is not there, unless it says 404 all the same.
#[test]
fn keys_that_do_not_exist_where_listing_is_denied() {
    let world = small_world();
    let nowhere = format!("{BUCKET}/granules/none.nc");
    let access = Access {
        list: ListAccess::Nowhere,
        get: true,
    };
    world.set_bucket_access(BUCKET, access);
    let checked = Checked::of(&mut check(&world, &nowhere));
    checked.failed_at("first byte", &["none.nc", "or there is no such key"]);
    assert!(
        !checked.message.contains("the listing"),
        "{}",
        checked.message
    );
    let answers = Scripted::start("127.0.0.1", |head| match head.starts_with("HEAD ") {
        true => reply("404 Not Found", "", ""),
        false => reply(
            "403 Forbidden",
            "",
            "<Error><Code>AccessDenied</Code></Error>",
        ),
    });
    let mut command = bare_program();
    command
        .args(["check", &nowhere, "--no-sign-request"])
        .args(["--endpoint-url", &answers.url()]);
    let checked = Checked::of(&mut command);
    checked.failed_at(
        "first byte",
        &["there is no s3://test-bucket/granules/none.nc"],
    );
}

#[test]
fn objects_that_cannot_be_read() {
    let world = small_world();
    world.set_bucket_access(
        BUCKET,
        Access {
            list: ListAccess::Everywhere,
            get: false,
        },
    );
    let elsewhere = metadata("eu-central-1");
    let mut command = check(&world, BUCKET);
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", elsewhere.url());
    let checked = Checked::of(&mut command);
    checked.failed_at(
        "first byte",
        &["granules/a.nc", "eu-central-1", "run this there"],
    );
}

#[test]
fn archived_and_empty_buckets_are_told() {
    let world = small_world();
    world.archive(BUCKET, "granules/a.nc");
    let checked = Checked::of(&mut check(&world, BUCKET));
    assert!(
        checked.line("first byte").contains("granules/b.nc"),
        "the next one"
    );
    world.archive(BUCKET, "granules/b.nc");
    let checked = Checked::of(&mut check(&world, BUCKET));
    assert_eq!(checked.status, Some(0));
    assert!(checked.line("first byte").contains("archived"));
    let empty = crate::support::world::<&str, &str>([]);
    let checked = Checked::of(&mut check(&empty, BUCKET));
    assert_eq!(checked.status, Some(0), "{}", checked.message);
    assert!(checked.line("list").starts_with("note"));
    assert!(checked.line("first byte").starts_with("note"));
}

#[test]
fn a_part_of_a_bucket_that_does_not_exist() {
    let world = small_world();
    let checked = Checked::of(&mut check(&world, &format!("{BUCKET}/nothing/here")));
    checked.failed_at(
        "list",
        &["nothing/here", &world.s3_url(), "how the prefix is written"],
    );
    let checked = Checked::of(&mut check(&world, &format!("{BUCKET}/granules/b.nc")));
    assert_eq!(checked.status, Some(0), "{}", checked.message);
    assert!(checked.line("first byte").contains("granules/b.nc"));
}

#[test]
fn a_public_bucket_needs_no_login() {
    let bucket = Bucket {
        name: BUCKET.to_owned(),
        objects: vec![("a".to_owned(), "content".into())],
        ..Bucket::default()
    };
    let world = World::start(Settings {
        buckets: vec![bucket],
        lean: true,
        ..Settings::default()
    });
    let world = world.expect("the mock starts");
    let mut command = bare_program();
    command
        .args(["check", BUCKET, "--no-sign-request"])
        .args(["--endpoint-url", &world.s3_url()]);
    let checked = Checked::of(&mut command);
    assert_eq!(checked.status, Some(0), "{}", checked.message);
    assert_eq!(checked.steps()[0], ("note", "login"));
    assert_eq!(world.counters().credentials_requests, 0);
}

/// As a mount would refuse it.
#[test]
fn a_process_with_few_addresses() {
    let world = small_world();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v 900000; exec \"$@\"", "sh"]);
    let mut command = support::started_by(shell, &check(&world, BUCKET));
    Checked::of(&mut command).failed_at("memory", &["MiB of addresses", "ulimit -v"]);
}

/// With `--log-file`, or in the foreground, it can be mounted all the same.
#[test]
fn a_user_without_a_place_for_the_log() {
    if Path::new("/dev/log").exists() {
        return;
    }
    let world = small_world();
    let mut homeless = check(&world, BUCKET);
    homeless.env_remove("XDG_STATE_HOME").env_remove("HOME");
    let checked = Checked::of(&mut homeless);
    assert_eq!(checked.status, Some(0), "{}", checked.message);
    let mut locked_out = check(&world, BUCKET);
    locked_out.env("XDG_STATE_HOME", "/nonexistent");
    let locked_out = Checked::of(as_ordinary_user(&mut locked_out));
    for (checked, why) in [
        (checked, "HOME is not set"),
        (locked_out, "/ cannot be written to"),
    ] {
        let line = checked.line("log");
        assert!(
            line.starts_with("note") && line.contains("--log-file"),
            "{line}"
        );
        assert!(line.contains(why), "{line}");
    }
}

/// What a mount does not need is a note.
#[test]
fn a_machine_without_a_temporary_directory() {
    let world = small_world();
    let mut command = check(&world, BUCKET);
    command.env("TMPDIR", "/nonexistent");
    let checked = Checked::of(&mut command);
    assert_eq!(checked.status, Some(0), "{}", checked.message);
    let fuse = checked.line("FUSE");
    assert!(
        fuse.starts_with("note") && fuse.contains("set TMPDIR"),
        "{fuse}"
    );
}

/// Wherever it ends for want of them.
#[test]
fn few_descriptors_leave_no_directory_behind() {
    let world = small_world();
    let directory = tempfile::tempdir().expect("a temporary directory");
    for descriptors in 8..24 {
        let mut shell = Command::new("sh");
        let limit = format!("ulimit -n {descriptors}; exec \"$@\"");
        shell.args(["-c", &limit, "sh"]);
        let mut command = support::started_by(shell, &check(&world, BUCKET));
        command.env("TMPDIR", directory.path());
        command.output().expect("it runs");
        let left = std::fs::read_dir(directory.path())
            .expect("a directory")
            .count();
        assert_eq!(left, 0, "with {descriptors} descriptors");
    }
}

#[test]
fn a_machine_without_fuse() {
    if let Err(error) = device_of_mode(0o600) {
        eprintln!("SKIPPED: /dev/fuse cannot be hidden: {error}");
        return;
    }
    let world = small_world();
    let mut command = check(&world, BUCKET);
    let checked = Checked::of(as_ordinary_user(&mut command));
    checked.failed_at("FUSE", &["/dev/fuse", "chmod"]);
}

#[test]
fn other_users_can_be_let_in_by_root_or_by_a_line_in_fuse_conf() {
    let world = small_world();
    let conf = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    let is_allowed = conf.lines().any(|line| line.trim() == "user_allow_other");
    if !can_mount() {
        return;
    }
    let mut command = check(&world, BUCKET);
    command.arg("--allow-other");
    let checked = Checked::of(as_ordinary_user(&mut command));
    if is_allowed {
        assert_eq!(checked.status, Some(0), "{}", checked.message);
    } else {
        checked.failed_at("FUSE", &["user_allow_other", "/etc/fuse.conf"]);
    }
    let mut command = check(&world, BUCKET);
    let checked = Checked::of(as_ordinary_user(&mut command));
    assert_eq!(checked.status, Some(0), "{}", checked.message);
    assert!(Path::new("/dev/fuse").exists());
}
