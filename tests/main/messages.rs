//! What is said when a login does not lead to credentials, or S3 does not take them.

use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use mock_earthdata::{
    Access, Answer, DEFAULT_PASSWORD, DEFAULT_TOKEN, DEFAULT_USER, Fault, FaultRule, Host,
    ListAccess, Op, World,
};

use crate::failing::{mountpoint, refusal, says, small_world, with_password, with_token};
use crate::scripted::{Scripted, header, read_head, reply};
use crate::support::{BUCKET, Mount, fails, program, program_at, world_with};

#[test]
fn a_user_agreement_that_is_found_missing_behind_the_redirects() {
    let world = world_with([("file", "content")], |settings| {
        settings.bearer = false;
        settings.users[0].eula_accepted = false;
    });
    for endpoint in [world.tea_endpoint(), world.cumulus_endpoint()] {
        let message = refusal(with_password(
            program_at(&world, &endpoint),
            DEFAULT_PASSWORD,
        ));
        let page = format!("http://{}/approve_app?client_id=", world.earthdata_host());
        says(&message, &["EULA", "browser", &page]);
    }
}

#[test]
fn a_source_below_which_nothing_lies() {
    let world = world_with([("dir/file.nc", "content"), ("top.nc", "content")], |_| {});
    for (part, words) in [
        ("nosuch", ["test-bucket alone", "how the prefix is written"]),
        ("dir/file.nc", ["it is a file", "lies in: test-bucket/dir"]),
        ("top.nc", ["it is a file", "lies in: test-bucket"]),
    ] {
        let directory = mountpoint();
        let source = format!("{BUCKET}/{part}");
        let (status, message) = fails(program(&world), &source, directory.path());
        assert_eq!(status, Some(1), "{message}");
        says(&message, &words);
        says(&message, &[part, &world.s3_url(), "region"]);
    }
    // All of a bucket may be empty.
    let empty = world_with::<&str, &str>([], |_| {});
    let mount = Mount::new(&empty);
    assert!(mount.names("").is_empty());
    mount.log_with("is empty");
}

/// Wrong passwords lock an account. When the right one comes, it is refused, too: once.
#[test]
fn an_account_that_is_locked() {
    let world = small_world();
    for _ in 0..5 {
        refusal(with_password(
            program_at(&world, &world.tea_endpoint()),
            "wrong",
        ));
    }
    for endpoint in [world.tea_endpoint(), world.cumulus_endpoint()] {
        let sent = world.counters().wrong_passwords;
        let command = with_password(program_at(&world, &endpoint), DEFAULT_PASSWORD);
        let message = refusal(command);
        says(
            &message,
            &[DEFAULT_USER, "EARTHDATA_PASSWORD", "are locked"],
        );
        says(&message, &[&world.earthdata_host(), "for 15 minutes"]);
        assert_eq!(world.counters().wrong_passwords, sent + 1);
    }
}

#[test]
fn an_account_that_is_locked_where_there_are_no_tokens() {
    let world = world_with([("file", "content")], |settings| settings.token_api = false);
    let command = || program_at(&world, &world.cumulus_endpoint());
    for sent in 1..=6 {
        let message = refusal(with_password(command(), "wrong"));
        let expected = match sent {
            ..=5 => "refuses the password",
            _ => "are locked after failed logins",
        };
        says(&message, &[expected]);
        assert_eq!(world.counters().wrong_passwords, sent);
    }
}

#[test]
fn a_login_host_that_is_down() {
    let world = small_world();
    world.refuse_connections_of(Host::Login, true);
    let command = with_password(program_at(&world, &world.tea_endpoint()), DEFAULT_PASSWORD);
    let message = refusal(command);
    says(&message, &["cannot reach", &world.earthdata_host()]);
    says(&message, &["onnection refused", "curl"]);
}

#[test]
fn a_token_file_that_cannot_be_used() {
    let world = small_world();
    let directory = mountpoint();
    let file = directory.path().join("token");
    let name = file.to_str().expect("UTF-8");
    let run = || {
        let mut command = program_at(&world, &world.tea_endpoint());
        command.args(["--token-file", name]);
        refusal(command)
    };
    says(&run(), &[name, "No such file"]);
    for text in ["", "\n", "machine a login hunter2 password hunter3"] {
        std::fs::write(&file, text).expect("a file");
        let message = run();
        says(
            &message,
            &[name, "one token of Earthdata Login and nothing else"],
        );
        assert!(!message.contains("hunter"), "{message}");
    }
    assert_eq!(world.counters().credentials_requests, 0);
    std::fs::write(&file, "garbage").expect("a file");
    says(&run(), &["does not accept the token", name]);
}

#[test]
fn a_token_that_no_header_can_hold() {
    let world = small_world();
    for token in ["two tokens", "\u{201c}quoted\u{201d}", "a\nb"] {
        let message = refusal(with_token(program_at(&world, &world.tea_endpoint()), token));
        says(
            &message,
            &["EARTHDATA_TOKEN", "one token of Earthdata Login"],
        );
        assert!(!message.contains(token), "{message}");
    }
    assert_eq!(world.counters().credentials_requests, 0);
}

/// A file server that does not answer, or a pipe that nobody writes to.
#[test]
fn a_token_file_that_cannot_be_read_to_its_end() {
    let world = small_world();
    let directory = mountpoint();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
    let mut command = program_at(&world, &world.tea_endpoint());
    command.arg("--token-file").arg(&pipe);
    let message = refusal(command);
    says(
        &message,
        &[pipe.to_str().expect("UTF-8"), "does not answer"],
    );
}

/// What an option names is the only place that is looked at.
#[test]
fn a_netrc_that_lacks_the_login_host() {
    let world = small_world();
    let directory = mountpoint();
    let netrc = directory.path().join("netrc");
    std::fs::write(&netrc, "machine example.org login a password b").expect("a file");
    let name = netrc.to_str().expect("UTF-8");
    let mut command = with_token(program_at(&world, &world.tea_endpoint()), DEFAULT_TOKEN);
    command.args(["--netrc", name]);
    let message = refusal(command);
    says(&message, &[&format!("none was found (looked at: {name})")]);
    says(
        &message,
        &[&format!("into {name}"), &world.earthdata_host()],
    );
    assert!(!message.contains("EARTHDATA_TOKEN"), "{message}");
}

#[test]
fn a_netrc_without_the_password() {
    let world = small_world();
    let directory = mountpoint();
    let netrc = directory.path().join("netrc");
    let host = world.earthdata_host();
    let host = host.split(':').next().expect("a host");
    std::fs::write(&netrc, format!("machine {host} login scientist\n")).expect("a file");
    let mut command = program_at(&world, &world.tea_endpoint());
    command.arg("--netrc").arg(&netrc);
    let lacks = format!("its entry for {host} has no password");
    says(&refusal(command), &[netrc.to_str().expect("UTF-8"), &lacks]);
}

#[test]
fn a_user_name_without_a_password() {
    let world = small_world();
    let mut command = program_at(&world, &world.tea_endpoint());
    command.env("EARTHDATA_USERNAME", "scientist");
    let message = refusal(command);
    says(
        &message,
        &["EARTHDATA_PASSWORD is not set", "none was found"],
    );
}

#[test]
fn proxies_that_are_none() {
    let world = small_world();
    let mut command = program(&world);
    command.env("HTTPS_PROXY", "http://me:hunter2@proxy:port");
    let message = refusal(command);
    says(
        &message,
        &["HTTPS_PROXY is ...@proxy:port", "http://HOST:PORT"],
    );
    assert!(!message.contains("hunter2"), "{message}");
}

/// Of the login as of S3. Through a proxy goes TLS alone.
#[test]
fn proxies_of_another_kind() {
    let world = small_world();
    let mut of_login = program_at(&world, "https://192.0.2.1/s3credentials");
    of_login.env("EARTHDATA_TOKEN", DEFAULT_TOKEN);
    let mut of_s3 = crate::support::bare_program();
    of_s3.args(["--no-sign-request", "--endpoint-url", "https://192.0.2.1"]);
    for mut command in [of_login, of_s3] {
        command.env("ALL_PROXY", "socks5://127.0.0.1:9");
        let message = refusal(command);
        says(&message, &["socks5", "SOCKS proxies are not spoken here"]);
        says(&message, &["HTTPS_PROXY", "NO_PROXY"]);
        assert!(!message.contains("Check the network"), "{message}");
    }
}

#[test]
fn a_login_that_others_can_read_is_used_and_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = small_world();
    let directory = mountpoint();
    let token = directory.path().join("token");
    std::fs::write(&token, DEFAULT_TOKEN).expect("a file");
    for (mode, is_told) in [(0o644, true), (0o600, false)] {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&token, mode).expect("its owner is this one");
        let mut command = program_at(&world, &world.tea_endpoint());
        command.arg("--token-file").arg(&token);
        let mount = crate::support::Mount::with(command, crate::support::BUCKET);
        let log = mount.log_with("is mounted on");
        assert_eq!(log.contains("chmod 600"), is_told, "{log}");
    }
}

/// `--netrc /dev/null`, to use none: that everybody can read it is as it should be.
#[test]
fn a_login_that_is_no_file_is_not_to_be_protected() {
    let world = small_world();
    let mut command = program_at(&world, &world.open_endpoint());
    command.args(["--netrc", "/dev/null"]);
    let log = Mount::with(command, BUCKET).log_with("is mounted on");
    assert!(!log.contains("chmod"), "{log}");
}

#[test]
fn an_expiration_in_an_unknown_format() {
    let world = small_world();
    let body =
        r#"{"accessKeyId":"A","secretAccessKey":"hunter2","sessionToken":"c","expiration":"soon"}"#;
    world.set_answer(Answer::Status(200, body.to_owned()));
    let message = refusal(program(&world));
    says(
        &message,
        &[&world.tea_endpoint(), "an expiration in an unknown format"],
    );
    assert!(!message.contains("hunter"), "{message}");
}

#[test]
fn credentials_that_are_expired_on_arrival() {
    let world = small_world();
    let body = r#"{"accessKeyId":"A","secretAccessKey":"b","sessionToken":"c","expiration":"2021-01-27 00:50:09+00:00"}"#;
    world.set_answer(Answer::Status(200, body.to_owned()));
    let message = refusal(program(&world));
    says(
        &message,
        &[&world.tea_endpoint(), "already expired", "clock"],
    );
    says(&message, &["2021-01-27 00:50:09+00:00"]);
}

/// The network is not the reason, and what S3 says is told as it is.
#[test]
fn an_s3_that_says_why_it_fails() {
    let world = small_world();
    world.script(FaultRule::on_any().fault(Fault::SlowDown));
    let message = refusal(program(&world));
    let told =
        "SlowDown: Please reduce your request rate. This is the server's trouble: try again later";
    says(&message, &[told]);
    assert!(!message.contains("network"), "{message}");
    for (status, body, told) in [
        (
            "404 Not Found",
            "<html>",
            "Is this an S3 server? Check --endpoint-url",
        ),
        (
            "400 Bad Request",
            "<Error><Code>AuthorizationHeaderMalformed</Code><Message>Odd.</Message></Error>",
            "S3 refuses: AuthorizationHeaderMalformed: Odd\n",
        ),
    ] {
        let server = Scripted::start("127.0.0.1", move |_| reply(status, "", body));
        let mut command = crate::support::bare_program();
        command.args(["--no-sign-request", "--endpoint-url", &server.url()]);
        says(&refusal(command), &[told]);
    }
}

/// The clock of this machine is wrong by hours: that is told, and reading goes on all the same.
#[test]
fn a_clock_that_is_off_by_more_than_a_minute() {
    for (offset, told) in [
        (7200, "7200 s behind"),
        (-7200, "7200 s ahead of"),
        (-30, ""),
    ] {
        let world = small_world();
        world.set_clock_offset(offset);
        let mount = Mount::new(&world);
        assert_eq!(mount.read("file"), b"content");
        let log = mount.log_with("is mounted on");
        let line = log
            .lines()
            .find(|line| line.contains("the clock of this machine"));
        let told_seconds = |line: &str| {
            // The request takes time, too.
            line.contains(told) || line.contains(&told.replace("7200", "7199"))
        };
        assert_eq!(line.is_some(), offset.abs() > 60, "{log}");
        assert!(line.is_none_or(told_seconds), "{line:?}");
    }
}

/// The instance metadata of a machine in `region`.
pub(crate) fn metadata(region: &'static str) -> Scripted {
    Scripted::start("127.0.0.1", move |head| {
        let asks_token = head.starts_with("PUT /latest/api/token ")
            && header(head, "x-aws-ec2-metadata-token-ttl-seconds").is_some();
        let has_token = header(head, "x-aws-ec2-metadata-token") == Some("of-a-test");
        if asks_token {
            reply("200 OK", "", "of-a-test")
        } else if has_token && head.starts_with("GET /latest/meta-data/placement/region ") {
            reply("200 OK", "", region)
        } else {
            reply("401 Unauthorized", "", "")
        }
    })
}

fn denying_world() -> World {
    let world = small_world();
    let list = ListAccess::Nowhere;
    world.set_bucket_access(BUCKET, Access { list, get: false });
    world
}

/// What is said at the mount of a bucket that S3 denies, when `metadata` is asked where this is.
fn denial(world: &World, metadata: &str) -> String {
    let mut command = program(world);
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata);
    let mount = Mount::with(command, BUCKET);
    let read = std::fs::read(mount.path("file.nc")).expect_err("denied");
    assert_eq!(read.raw_os_error(), Some(libc::EACCES));
    let log = mount.log_with("may not be listed");
    let line = log.lines().find(|line| line.contains("may not be listed"));
    line.unwrap_or_else(|| panic!("{log}")).to_owned()
}

#[test]
fn credentials_granted_and_s3_denies_the_bucket() {
    let world = denying_world();
    let everywhere = ["AccessDenied", "us-west-2", "EULA", "below a prefix only"];
    let far = metadata("eu-central-1");
    let message = denial(&world, &far.url());
    says(&message, &everywhere);
    says(
        &message,
        &["this machine is in eu-central-1", &world.tea_endpoint()],
    );
    says(
        &message,
        &["--credentials-endpoint", BUCKET, &world.s3_url()],
    );
    assert_eq!(far.heads().len(), 2);
    for head in far.heads() {
        let secret = header(&head, "authorization").or_else(|| header(&head, "cookie"));
        assert_eq!(secret, None, "nothing of Earthdata goes there");
    }
    let message = denial(&world, &metadata("us-west-2").url());
    says(&message, &everywhere);
    says(&message, &["the region is not the reason"]);
    // Something else answers there: it gets no say in the log.
    let portal = Scripted::start("127.0.0.1", |_| reply("200 OK", "", "<html>Welcome!"));
    let message = denial(&world, &portal.url());
    says(&message, &["cannot be learned"]);
    assert!(!message.contains("Welcome"), "{message}");
}

/// S3 answers, at once: the network is not to blame.
#[test]
fn credentials_that_s3_does_not_know() {
    let world = small_world();
    world.script(FaultRule::on(Op::List).fault(Fault::Expired));
    let mut command = program(&world);
    command.args(["--credential-wait", "1"]);
    let message = refusal(command);
    says(
        &message,
        &[BUCKET, "does not accept the credentials", "ExpiredToken"],
    );
    says(&message, &["Check --credentials-endpoint"]);
    assert!(!message.contains("network"), "{message}");
}

/// The user is not to be sent to the region that is set already.
#[test]
fn a_redirect_to_where_the_bucket_is() {
    let world = small_world();
    let refused = |region: &str| {
        world.clear_faults();
        world.script(FaultRule::on(Op::List).fault(Fault::OtherRegion(region.to_owned())));
        refusal(program(&world))
    };
    says(&refused("eu-north-1"), &["--region eu-north-1"]);
    let message = refused("us-west-2");
    says(&message, &[BUCKET, "S3 refuses: PermanentRedirect"]);
    assert!(!message.contains("--region us-west-2"), "{message}");
}

/// Elsewhere than in the bucket's region an explicit deny is about the place, so nothing would ever be
/// read; anywhere else it may be about the listing alone.
#[test]
fn an_explicit_deny_from_another_region_ends_the_mount_before_it_is_one() {
    let world = small_world();
    world.script(FaultRule::on_any().fault(Fault::ExplicitDeny));
    let far = metadata("eu-central-1");
    let mountpoint = tempfile::tempdir().expect("a directory");
    let mut command = program(&world);
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", far.url());
    let (status, message) = fails(command, BUCKET, mountpoint.path());
    assert_eq!(status, Some(1), "{message}");
    says(
        &message,
        &["cannot be read from this machine", "explicit deny"],
    );
    says(
        &message,
        &["this machine is in eu-central-1", "us-west-2", BUCKET],
    );
    denial(&world, &metadata("us-west-2").url());
}

/// Whoever waits for instance metadata waits a second, not for ever.
#[test]
fn instance_metadata_that_do_not_answer() {
    let world = denying_world();
    let silent = Scripted::start("127.0.0.1", |_| {
        std::thread::sleep(Duration::from_secs(60));
        String::new()
    });
    let begin = Instant::now();
    let message = denial(&world, &silent.url());
    says(&message, &["cannot be learned", "us-west-2"]);
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_eq!(silent.heads().len(), 1);
}

/// What sends without end at the address of instance metadata fills no memory: it is let go after the first
/// piece, when no more is sent than sockets hold.
#[test]
fn instance_metadata_without_end() {
    let world = denying_world();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let sending = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let head = read_head(&stream).expect("a request");
        assert!(head.starts_with("PUT "), "{head}");
        let begun = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        begun.expect("it reads that much");
        let piece = [b'x'; 64 << 10];
        let mut sent = 0_u64;
        while let Ok(length @ 1..) = stream.write(&piece) {
            sent += length as u64;
        }
        sent
    });
    says(&denial(&world, &url), &["cannot be learned", "us-west-2"]);
    let sent = sending.join().expect("a count");
    assert!(sent < 32 << 20, "{sent} bytes were taken");
}

/// What is no token by its length is not believed, whatever comes next.
#[test]
fn instance_metadata_that_say_too_much() {
    let world = denying_world();
    let talkative = Scripted::start("127.0.0.1", |head| match head.starts_with("PUT ") {
        true => reply("200 OK", "", &"x".repeat(1025)),
        false => reply("200 OK", "", "eu-central-1"),
    });
    says(&denial(&world, &talkative.url()), &["cannot be learned"]);
    assert_eq!(talkative.heads().len(), 1);
}

#[test]
fn instance_metadata_that_may_not_be_asked() {
    let world = denying_world();
    let metadata = metadata("eu-central-1");
    let mut command = program(&world);
    command
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url())
        .env("AWS_EC2_METADATA_DISABLED", "true");
    let mount = Mount::with(command, BUCKET);
    mount.log_with("cannot be learned");
    assert_eq!(metadata.heads().len(), 0);
}
