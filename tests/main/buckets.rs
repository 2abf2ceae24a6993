//! `s3credmount buckets`: the table, and its renewal from a CMR full of dirt.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mock_earthdata::{Cmr, CmrTrouble, Content, DEFAULT_TOKEN, Fault, FaultRule, World};
use tempfile::TempDir;

use crate::support::{Mount, bare_program, eventually, wait, world};

fn empty() -> World {
    world([("file", Content::from("content"))])
}

/// The program with a cache directory of its own.
fn buckets(cache: &TempDir, args: &[&str]) -> Command {
    let mut command = bare_program();
    command.arg("buckets").args(args);
    command.env("XDG_CACHE_HOME", cache.path());
    // Must go nowhere.
    command.env("EARTHDATA_TOKEN", DEFAULT_TOKEN);
    command
}

fn refreshed(cache: &TempDir, world: &World) -> Output {
    let mut command = buckets(cache, &["--refresh", "--cmr-url", &world.cmr_url()]);
    command.output().expect("it runs")
}

fn home() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn file(cache: &TempDir) -> PathBuf {
    cache.path().join("s3credmount/buckets.tsv")
}

fn mode(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path).expect("there");
    metadata.permissions().mode() & 0o777
}

fn listed(output: &Output) -> Vec<Vec<String>> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8_lossy(&output.stdout);
    let columns = |line: &str| line.split('\t').map(str::to_owned).collect();
    text.lines().map(columns).collect()
}

fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// As the home of a user on a file server that is out of reach.
#[test]
fn a_home_that_does_not_answer_is_named_and_not_waited_for() {
    let silent = empty();
    let other = Mount::with_args(&silent, &["--operation-timeout", "600"]);
    silent.script(FaultRule::on_any().fault(Fault::StallBefore(None)));
    let log = tempfile::NamedTempFile::new().expect("a log");
    let mut command = bare_program();
    command.args(["prod-lads", "/no/such/place"]);
    command.env("XDG_CACHE_HOME", other.path("cache"));
    command.stderr(log.reopen().expect("a log"));
    let mut child = command.spawn().expect("it starts");
    let said = || std::fs::read_to_string(log.path()).expect("a log");
    eventually("it gives up", || said().contains("does not answer"));
    assert!(said().contains("XDG_CACHE_HOME"), "{}", said());
    // The kernel lets nobody go who waits for this one.
    silent.clear_faults();
    silent.kill_connections();
    assert_eq!(wait(&mut child).expect("it ends").code(), Some(1));
}

#[test]
fn the_built_in_table_is_listed_by_pattern() {
    let cache = home();
    let all = listed(&buckets(&cache, &[]).output().expect("it runs"));
    assert_eq!(all.len(), 36);
    let some = listed(
        &buckets(&cache, &["PODAAC*protected"])
            .output()
            .expect("it runs"),
    );
    let row = [
        "podaac-ops-cumulus-protected",
        "PO.DAAC",
        "us-west-2",
        "https://archive.podaac.earthdata.nasa.gov/s3credentials",
    ];
    assert!(some.iter().any(|found| found == &row), "{some:?}");
    assert!(some.len() < 6, "{some:?}");
    let nothing = buckets(&cache, &["no-such-thing"])
        .output()
        .expect("it runs");
    assert!(failed(&nothing).contains("--refresh"));
    assert!(!file(&cache).exists());
}

#[test]
fn a_sweep_finds_the_good_buckets_among_the_dirt_and_keeps_them() {
    let (world, cache) = (empty(), home());
    let output = refreshed(&cache, &world);
    let all = listed(&output);
    let endpoint = |bucket: &str| {
        let row = all.iter().find(|row| row[0] == bucket);
        row.map(|row| row[3].as_str())
    };
    assert_eq!(
        endpoint("podaac-new-bucket"),
        Some("https://archive.podaac.earthdata.nasa.gov/s3credentials")
    );
    assert_eq!(
        endpoint("asf-cumulus-prod-opera-products"),
        Some("https://cumulus.asf.earthdatacloud.nasa.gov/s3credentials"),
        "most collections say so"
    );
    assert!(endpoint("gesdisc-cumulus-prod-protected").is_some());
    for bad in [
        "evil-bucket",
        "plain-bucket",
        "lp-wrong-field",
        "TestBucket",
        "not-a-list",
    ] {
        assert_eq!(endpoint(bad), None, "{bad}");
    }
    assert_eq!(all.len(), 37, "the built-in ones and a new one");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("12 collections name 3 buckets"), "{said}");
    let counters = world.counters();
    assert_eq!(counters.cmr_requests, 4, "three pages, and an empty one");
    assert_eq!(counters.stray_authorizations, 0);
    assert_eq!(mode(&file(&cache)), 0o600);
    assert_eq!(mode(file(&cache).parent().expect("a directory")), 0o700);

    // Without asking again, and for everything that looks up a bucket.
    let later = listed(&buckets(&cache, &["podaac-new"]).output().expect("it runs"));
    assert_eq!(later.len(), 1);
    assert_eq!(world.counters().cmr_requests, 4);
    let mut lookup = bare_program();
    lookup.args(["credentials", "podaac-new-buckett"]);
    lookup.env("XDG_CACHE_HOME", cache.path());
    let said = failed(&lookup.output().expect("it runs"));
    assert!(said.contains("podaac-new-bucket,"), "{said}");
}

#[test]
fn the_users_own_table_wins_but_never_sends_a_login_elsewhere() {
    let cache = home();
    let path = file(&cache);
    std::fs::create_dir(path.parent().expect("a directory")).expect("made");
    std::fs::write(
        &path,
        "# swept 2026-11-24\n\
         prod-lads\thttps://new.earthdata.nasa.gov/s3credentials\tus-west-2\tLAADS\tLAADS\n\
         evil-bucket\thttps://evil.example.org/s3credentials\tus-west-2\tLAADS\tLAADS\n",
    )
    .expect("written");
    let row = |pattern: &str| buckets(&cache, &[pattern]).output().expect("it runs");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("chmod");
    assert_eq!(
        listed(&row("prod-lads"))[0][3],
        "https://new.earthdata.nasa.gov/s3credentials"
    );
    failed(&row("evil-bucket"));
    // Who else may write to it could send the user's login to another host of NASA's.
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).expect("chmod");
    let output = row("prod-lads");
    assert!(!listed(&output)[0][3].contains("new."));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("others may write to it"), "{said}");
}

#[test]
fn a_busy_cmr_is_asked_again() {
    let (world, cache) = (empty(), home());
    world.set_cmr(Cmr {
        trouble: vec![
            CmrTrouble::Status(429, Some(0)),
            CmrTrouble::TimeOut,
            CmrTrouble::Fine,
            CmrTrouble::Status(503, Some(0)),
        ],
        ..Cmr::default()
    });
    assert_eq!(listed(&refreshed(&cache, &world)).len(), 37);
    assert_eq!(
        world.counters().cmr_requests,
        7,
        "four pages, three more tries"
    );
}

#[test]
fn a_sweep_that_fails_leaves_the_table_as_it_was() {
    let (world, cache) = (empty(), home());
    let file = file(&cache);
    listed(&refreshed(&cache, &world));
    let before = std::fs::read(&file).expect("a table");
    let mut attempts = vec![
        (vec![CmrTrouble::LastTooEarly], "sent 4 of them"),
        (vec![CmrTrouble::Html], "--cmr-url"),
        (vec![CmrTrouble::Status(404, None)], "HTTP 404"),
        (vec![CmrTrouble::Status(429, Some(0)); 5], "HTTP 429"),
    ];
    for (trouble, expected) in attempts.drain(..) {
        world.set_cmr(Cmr {
            trouble,
            ..Cmr::default()
        });
        let said = failed(&refreshed(&cache, &world));
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("as it was"), "{said}");
    }
    world.set_cmr(Cmr {
        collections: vec![Cmr::collection("X", &["TestBucket"], "x")],
        ..Cmr::default()
    });
    assert!(failed(&refreshed(&cache, &world)).contains("no bucket that can be used"));
    assert_eq!(std::fs::read(&file).expect("a table"), before);
}

#[test]
fn cmr_is_asked_by_https_or_on_this_machine() {
    let cache = home();
    let mut command = buckets(
        &cache,
        &["--refresh", "--cmr-url", "http://cmr.example.org"],
    );
    let said = failed(&command.output().expect("it runs"));
    assert!(said.contains("https"), "{said}");
}
