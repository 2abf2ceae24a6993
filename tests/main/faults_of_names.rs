//! S3's name does not resolve while the mount lives: the network is gone, or the site's name server.

use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Instant;

use mock_earthdata::{DEFAULT_TOKEN, S3_NAME, World};
use tempfile::TempDir;

use crate::ordinary::{bind, is_root, private_mounts};
use crate::support::{BUCKET, Mount, PATIENCE, bare_program, world_with};

/// Name servers are asked at port 53, as no other can be said: here is none,
const NO_NAME_SERVER: &str = "127.0.0.77";
/// and here is one.
const NAME_SERVER: &str = "127.0.0.78";

/// The names of this thread and of what it starts.
struct Names(TempDir);

impl Names {
    /// From files of its own: names of `/etc/hosts`, else of this name server.
    fn new(name_server: &str) -> io::Result<Self> {
        let names = Self(tempfile::tempdir()?);
        private_mounts()?;
        for (file, text) in [
            ("hosts", String::new()),
            ("resolv.conf", format!("nameserver {name_server}\n")),
            ("nsswitch.conf", "hosts: files dns\n".to_owned()),
        ] {
            let place = Path::new("/etc").join(file);
            let own = names.0.path().join(file);
            std::fs::write(&own, text)?;
            if place.exists() {
                bind(&own, &place)?;
            }
        }
        Ok(names)
    }

    /// Whether S3's name is known from now on.
    fn know_s3(&self, is_known: bool) {
        let mut hosts = "127.0.0.1 localhost\n".to_owned();
        if is_known {
            hosts += &format!("127.0.0.4 {S3_NAME}\n");
        }
        std::fs::write(self.0.path().join("hosts"), hosts).expect("a file");
    }
}

fn mount(world: &World, timeout: &str) -> Mount {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, world.ca_pem()).expect("a file");
    let mut command = bare_program();
    command
        .args(["--credentials-endpoint", &world.tea_endpoint()])
        .args(["--earthdata-host", &world.earthdata_host()])
        .args([
            "--endpoint-url",
            &world.s3_url().replace("127.0.0.4", S3_NAME),
        ])
        .args(["--force-path-style", "--operation-timeout", timeout])
        .env("AWS_CA_BUNDLE", &file)
        .env("NO_PROXY", "*")
        .env("EARTHDATA_TOKEN", DEFAULT_TOKEN);
    Mount::with(command, BUCKET)
}

/// What is known goes on, the rest fails in time and says which name it is, and all is well once it
/// resolves again.
fn is_survived(names: &Names, timeout: &str) {
    let objects = ["d/known", "d/other"].map(|key| (key, key.as_bytes().to_vec()));
    let world = world_with(objects, |settings| settings.tls = true);
    names.know_s3(true);
    let mount = mount(&world, timeout);
    assert_eq!(mount.names("d"), ["known", "other"]);
    assert_eq!(mount.read("d/known"), b"d/known");
    names.know_s3(false);
    world.kill_connections();
    assert_eq!(mount.names("d"), ["known", "other"]);
    assert_eq!(mount.read("d/known"), b"d/known");
    for name in ["d/other", "new"] {
        let error = std::fs::read(mount.path(name)).expect_err("no S3");
        let errno = error.raw_os_error().expect("an errno");
        assert!([libc::EIO, libc::ETIMEDOUT].contains(&errno), "{error}");
    }
    // A connection that could not be made, or no answer: who gives up first is a matter of chance.
    mount.log_with(S3_NAME);
    names.know_s3(true);
    // What failed is believed to fail for 2 s.
    let begin = Instant::now();
    while std::fs::read(mount.path("d/other")).ok().as_deref() != Some(b"d/other") {
        assert!(begin.elapsed() < PATIENCE, "{}", mount.log());
    }
    let error = || std::fs::metadata(mount.path("new")).expect_err("absent");
    while error().kind() != io::ErrorKind::NotFound {
        assert!(begin.elapsed() < PATIENCE, "{}", mount.log());
    }
}

fn names_from(name_server: &str) -> Option<Names> {
    if !is_root() {
        eprintln!("SKIPPED: names of a test's own need root");
        return None;
    }
    Some(Names::new(name_server).expect("names of its own"))
}

#[test]
fn that_nobody_resolves_are_survived() {
    let Some(names) = names_from(NO_NAME_SERVER) else {
        return;
    };
    is_survived(&names, "6");
}

/// The name server does not answer, and the resolver asks it for longer than a request may take.
#[test]
fn that_are_not_answered_are_survived() {
    let Some(names) = names_from(NAME_SERVER) else {
        return;
    };
    let _silent = UdpSocket::bind((NAME_SERVER, 53)).expect("no other name server there");
    is_survived(&names, "10");
}
