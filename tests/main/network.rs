//! Network settings that the login and S3 share: certificates, proxies, names.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use mock_earthdata::{DEFAULT_PASSWORD, DEFAULT_TOKEN, DEFAULT_USER, World};
use tempfile::TempDir;

use crate::scripted::{Scripted, header, read_head, reply};
use crate::support::{BUCKET, Mount, bare_program, fails, program, world, world_with};

fn https_world() -> World {
    world_with([("file", "content")], |settings| settings.tls = true)
}

/// The file of the world's certificate authority.
fn authority(world: &World) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, world.ca_pem()).expect("a file");
    (directory, file)
}

#[test]
fn a_private_authority_is_trusted_by_login_and_s3_when_either_variable_names_it() {
    let world = https_world();
    let (_directory, file) = authority(&world);
    for (variable, other) in [
        ("AWS_CA_BUNDLE", "SSL_CERT_FILE"),
        ("SSL_CERT_FILE", "AWS_CA_BUNDLE"),
    ] {
        let mut program = program(&world);
        program.env(variable, &file).env_remove(other);
        let mount = Mount::with(program, BUCKET);
        assert_eq!(mount.read("file"), b"content");
    }
}

/// What it says, where it cannot have credentials.
fn says_no(program: Command) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (status, said) = fails(program, BUCKET, directory.path());
    assert_eq!(status, Some(1));
    said
}

#[test]
fn an_authority_that_is_not_trusted_is_said_to_be_so() {
    let world = https_world();
    let mut program = program(&world);
    program
        .env_remove("AWS_CA_BUNDLE")
        .env_remove("SSL_CERT_FILE");
    let said = says_no(program);
    assert!(said.contains("certificate"), "{said}");
    assert!(said.contains("AWS_CA_BUNDLE"), "{said}");
    // S3's neither, where no login comes first.
    let mut program = bare_program();
    program
        .args(["--no-sign-request", "--endpoint-url", &world.s3_url()])
        .env_remove("AWS_CA_BUNDLE")
        .env_remove("SSL_CERT_FILE");
    let said = says_no(program);
    assert!(said.contains("certificate"), "{said}");
    assert!(said.contains("AWS_CA_BUNDLE"), "{said}");
}

#[test]
fn a_proxy_that_cannot_be_reached_is_said_to_be_in_the_way() {
    let world = https_world();
    let mut program = program(&world);
    program
        .env("HTTPS_PROXY", "http://user:hunter2@127.0.0.1:9")
        .env_remove("NO_PROXY");
    let said = says_no(program);
    assert!(said.contains("HTTPS_PROXY"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_bundle_that_cannot_be_used_is_named_with_its_variable() {
    let world = https_world();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").expect("a file");
    let mountpoint = directory.path().join("mnt");
    std::fs::create_dir(&mountpoint).expect("a mountpoint");
    let damaged = directory.path().join("damaged.pem");
    let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let one_of_two = format!("{}\n{certificate}", world.ca_pem());
    std::fs::write(&damaged, one_of_two).expect("a file");
    let mut unsigned = bare_program();
    unsigned.args(["--no-sign-request", "--endpoint-url", &world.s3_url()]);
    for (mut program, file, why) in [
        (program(&world), Path::new("/no/such/file"), "No such file"),
        (program(&world), &empty, "no PEM certificate"),
        (program(&world), &damaged, "certificate 2 in it is damaged"),
        (unsigned, &damaged, "certificate 2 in it is damaged"),
    ] {
        program.env("AWS_CA_BUNDLE", file);
        let (status, said) = fails(program, BUCKET, &mountpoint);
        assert_eq!(status, Some(1));
        for part in ["AWS_CA_BUNDLE", file.to_str().expect("UTF-8"), why] {
            assert!(said.contains(part), "no {part} in {said}");
        }
    }
}

/// A proxy that knows CONNECT, and notes where to and what it is given to pass on.
struct Proxy {
    url: String,
    connected: Arc<Mutex<Vec<String>>>,
    passed: Arc<Mutex<Vec<u8>>>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let connected = Arc::new(Mutex::new(Vec::new()));
        let passed = Arc::new(Mutex::new(Vec::new()));
        let noted = (Arc::clone(&connected), Arc::clone(&passed));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (connected, passed) = noted.clone();
                std::thread::spawn(move || tunnel(stream, &connected, passed));
            }
        });
        Self {
            url,
            connected,
            passed,
        }
    }

    fn connected(&self) -> Vec<String> {
        self.connected.lock().expect("no panic").clone()
    }
}

fn tunnel(
    client: TcpStream,
    noted: &Mutex<Vec<String>>,
    passed: Arc<Mutex<Vec<u8>>>,
) -> Option<()> {
    let head = read_head(&client)?;
    let target = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    let server = TcpStream::connect(&target).ok()?;
    noted.lock().expect("no panic").push(target);
    (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        let mut piece = [0; 16 << 10];
        while let Ok(length @ 1..) = from_client.read(&mut piece) {
            passed.lock().expect("no panic").extend(&piece[..length]);
            if to_server.write_all(&piece[..length]).is_err() {
                break;
            }
        }
    });
    std::io::copy(&mut &server, &mut &client).ok()?;
    Some(())
}

fn authority_of(url: &str) -> String {
    url.split('/').nth(2).expect("a host").to_owned()
}

#[test]
fn login_and_s3_go_through_the_proxy_and_past_it_where_no_proxy_says_so() {
    let world = https_world();
    let (_directory, file) = authority(&world);
    let proxy = Proxy::start();
    let s3 = authority_of(&world.s3_url());
    let login = authority_of(&world.tea_endpoint());
    let through = |no_proxy: &str| {
        let mut program = program(&world);
        program
            .env("AWS_CA_BUNDLE", &file)
            .env("HTTPS_PROXY", &proxy.url)
            .env("NO_PROXY", no_proxy);
        let before = proxy.connected().len();
        let mount = Mount::with(program, BUCKET);
        assert_eq!(mount.read("file"), b"content");
        proxy.connected().split_off(before)
    };
    let all = through("");
    assert!(all.contains(&s3) && all.contains(&login), "{all:?}");
    let without_s3 = through("127.0.0.4");
    assert!(
        !without_s3.contains(&s3) && without_s3.contains(&login),
        "{without_s3:?}"
    );
    assert_eq!(through("127.0.0.0/8"), [""; 0]);
}

/// What a proxy passes on is TLS from the first byte: it learns the hosts, and nothing else.
#[test]
fn a_proxy_sees_no_secret() {
    let world = https_world();
    let (_directory, file) = authority(&world);
    let proxy = Proxy::start();
    for login in ["EARTHDATA_TOKEN", "EARTHDATA_PASSWORD"] {
        let mut program = program(&world);
        program
            .env("EARTHDATA_USERNAME", DEFAULT_USER)
            .env("EARTHDATA_PASSWORD", DEFAULT_PASSWORD)
            .env("AWS_CA_BUNDLE", &file);
        if login == "EARTHDATA_PASSWORD" {
            program.env_remove("EARTHDATA_TOKEN");
        }
        for variable in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"] {
            program.env(variable, &proxy.url);
        }
        let mount = Mount::with(program, BUCKET);
        assert_eq!(mount.read("file"), b"content");
    }
    assert!(proxy.connected().contains(&world.earthdata_host()));
    let passed = proxy.passed.lock().expect("no panic");
    // A handshake of TLS 1.
    assert_eq!(passed[..2], [22, 3]);
    let has = |word: &[u8]| passed.windows(word.len()).any(|window| window == word);
    assert!(!has(b"HTTP/1.1"));
    assert!(!has(b"Bearer") && !has(b"Basic") && !has(DEFAULT_TOKEN.as_bytes()));
}

#[test]
fn plain_http_on_loopback_never_goes_through_a_proxy() {
    let world = world([("file", "content")]);
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", proxy.local_addr().expect("bound"));
    proxy.set_nonblocking(true).expect("a socket");
    let mut program = program(&world);
    for variable in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        program.env(variable, &url);
    }
    let mount = Mount::with(program, BUCKET);
    assert_eq!(mount.read("file"), b"content");
    let came = proxy.accept().map(|_| ());
    let error = came.expect_err("a secret in clear text");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

/// Answers every request with `body`.
fn answering(body: &'static str) -> Scripted {
    Scripted::start("127.0.0.1", move |_| reply("200 OK", "", body))
}

#[test]
fn both_say_who_asks_and_never_mozilla() {
    let credentials = r#"{"accessKeyId":"A","secretAccessKey":"b","sessionToken":"c","expiration":"2999-01-01 00:00:00+00:00"}"#;
    let endpoint = answering(credentials);
    let s3 = answering(
        "<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>",
    );
    let mut program = crate::support::bare_program();
    program.args([
        "--credentials-endpoint",
        &format!("{}/s3credentials", endpoint.url()),
    ]);
    program.args(["--endpoint-url", &s3.url()]);
    let mount = Mount::with(program, BUCKET);
    assert!(mount.names("").is_empty());
    let expected = format!("s3credmount/{}", env!("CARGO_PKG_VERSION"));
    for heads in [endpoint.heads(), s3.heads()] {
        assert!(!heads.is_empty());
        for head in heads.iter() {
            assert_eq!(header(head, "user-agent"), Some(expected.as_str()));
        }
    }
    // For TEA's log of AWS sessions; S3 has no use for it.
    let named = |server: &Scripted| {
        server
            .heads()
            .iter()
            .all(|h| header(h, "app-name").is_some())
    };
    assert!(named(&endpoint) && !named(&s3));
}

#[test]
fn a_public_bucket_needs_no_login_and_gets_no_signature() {
    let s3 = answering(
        "<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>",
    );
    let mut program = crate::support::bare_program();
    program.args(["--no-sign-request", "--endpoint-url", &s3.url()]);
    let mount = Mount::with(program, "some-public-bucket");
    assert!(mount.names("").is_empty());
    assert!(
        mount.greeting.contains("without credentials"),
        "{}",
        mount.greeting
    );
    let heads = s3.heads();
    assert!(!heads.is_empty());
    for head in heads.iter() {
        let head = head.to_ascii_lowercase();
        assert!(!head.contains("authorization") && !head.contains("x-amz-security-token"));
    }
}
