//! https, as curl sees it, with and without trust in the CA.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mock_earthdata::{
    Content, DEFAULT_PASSWORD, DEFAULT_USER, Fault, FaultRule, Op, Settings, World, fill,
};

use crate::support::{BUCKET, settings};

const SIZE: u64 = 3_000_000;

/// curl's exit status for a certificate that nobody vouches for.
const UNTRUSTED: i32 = 60;

/// curl's exit status for a body that is shorter than it should be.
const PARTIAL: i32 = 18;

/// curl's exit status for a connection that broke.
const BROKEN: i32 = 56;

/// A lean world that speaks TLS, and its CA in a file.
fn world(name: &str, lean: bool) -> (World, PathBuf) {
    let big = ("big".to_owned(), Content::Synthetic { size: SIZE });
    let world = World::start(Settings {
        tls: true,
        lean,
        ..settings([big])
    })
    .expect("loopback has free ports");
    let ca = temporary(name);
    fs::write(&ca, world.ca_pem()).expect("a file");
    (world, ca)
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("mock-earthdata-{}-{name}", std::process::id()))
}

fn curl(ca: &Path, arguments: &[&str]) -> Output {
    Command::new("curl")
        .args(["-q", "--silent", "--max-time", "30", "--noproxy", "*"])
        .arg("--cacert")
        .arg(ca)
        .args(arguments)
        .output()
        .expect("curl is installed")
}

#[test]
fn bodies_over_tls() {
    let (world, ca) = world("bodies.pem", true);
    let url = format!("{}/{BUCKET}/big", world.s3_url());
    assert!(url.starts_with("https://127.0.0.4:"));
    let mut expected = vec![0; SIZE as usize];
    fill("big", 0, &mut expected);
    let whole = curl(&ca, &[&url]);
    assert_eq!(whole.status.code(), Some(0));
    assert!(whole.stdout == expected);
    let part = curl(&ca, &["--range", "1000-1999", &url]);
    assert!(part.stdout == expected[1000..2000]);
    // Another CA, also one of ours, vouches for nothing here.
    let (other, other_ca) = self::world("other.pem", true);
    assert_eq!(curl(&other_ca, &[&url]).status.code(), Some(UNTRUSTED));
    drop(other);
    fs::remove_file(ca).expect("it is ours");
    fs::remove_file(other_ca).expect("it is ours");
}

#[test]
fn faults_of_the_wire_over_tls() {
    let (world, ca) = world("wire.pem", true);
    let url = format!("{}/{BUCKET}/big", world.s3_url());
    let mut expected = vec![0; SIZE as usize];
    fill("big", 0, &mut expected);
    let rule = |fault| world.script(FaultRule::on(Op::Get).times(1).fault(fault));
    rule(Fault::FlipByte(Some(5)));
    rule(Fault::CutAfter(1000));
    rule(Fault::ResetAfter(1000));
    rule(Fault::ResetBefore);
    let flipped = curl(&ca, &[&url]);
    assert_eq!(flipped.status.code(), Some(0), "TLS is whole");
    assert_eq!(flipped.stdout[5], expected[5] ^ 1);
    assert!(flipped.stdout[6..] == expected[6..]);
    let cut = curl(&ca, &[&url]);
    assert_eq!(cut.status.code(), Some(PARTIAL));
    assert!(cut.stdout == expected[..1000]);
    let reset = curl(&ca, &[&url]);
    assert_eq!(reset.status.code(), Some(BROKEN));
    assert!(reset.stdout == expected[..1000]);
    assert_eq!(curl(&ca, &[&url]).status.code(), Some(BROKEN));
    assert_eq!(world.fired(), [1, 1, 1, 1]);
    fs::remove_file(ca).expect("it is ours");
}

/// The login dance of a user with a password, through redirects of https only and with cookies that are `Secure`.
#[test]
fn logging_in_over_tls() {
    let (world, ca) = world("login.pem", false);
    let login = format!("{DEFAULT_USER}:{DEFAULT_PASSWORD}");
    let jar = temporary("jar");
    for endpoint in [world.tea_endpoint(), world.cumulus_endpoint()] {
        let arguments = [
            "--location-trusted",
            "--proto-redir",
            "=https",
            "--user",
            &login,
            "--cookie-jar",
            jar.to_str().expect("a plain name"),
            "--cookie",
            jar.to_str().expect("a plain name"),
            &endpoint,
        ];
        let answer = curl(&ca, &arguments);
        let text = String::from_utf8_lossy(&answer.stdout);
        assert!(text.contains("sessionToken"), "{text}");
    }
    fs::remove_file(jar).expect("it is ours");
    fs::remove_file(ca).expect("it is ours");
}

/// The program with everything that this is about on its command line.
#[test]
fn the_program_writes_its_ca() {
    let ca = temporary("program.pem");
    let mut program = Command::new(env!("CARGO_BIN_EXE_mock-earthdata"))
        .args([
            "--until-stdin-closes",
            "--tls",
            "--lean",
            "--bucket",
            BUCKET,
        ])
        .args(["--synthetic", "big:1:3000000"])
        .args(["--fault", "get:big:1:cut-after=10"])
        .arg("--ca-file")
        .arg(&ca)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    BufReader::new(program.stdout.take().expect("a pipe"))
        .read_line(&mut line)
        .expect("a line");
    let value = |name: &str| {
        let mut words = line.split_whitespace();
        let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value
            .unwrap_or_else(|| panic!("no {name} in {line}"))
            .to_owned()
    };
    assert_eq!(value("CA_FILE"), ca.to_str().expect("a plain name"));
    let mode = fs::metadata(&ca).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let url = format!("{}/{BUCKET}/big", value("S3_URL"));
    assert_eq!(curl(&ca, &[&url]).stdout.len(), 10);
    assert_eq!(curl(&ca, &[&url]).stdout.len(), 3_000_000);
    drop(program.stdin.take());
    assert!(program.wait().expect("it ends").success());
    fs::remove_file(ca).expect("it is ours");
}
