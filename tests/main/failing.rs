//! Each way that a mount can fail: its message, its exit status, and nothing left mounted.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use mock_earthdata::{
    Access, Answer, DEFAULT_PASSWORD, DEFAULT_TOKEN, DEFAULT_USER, ListAccess, REVOKED_TOKEN, World,
};
use tempfile::TempDir;

use crate::ordinary::{NOBODY, can_mount, is_root, ordinary_user};
use crate::support::{
    BUCKET, Mount, bare_program, fails, is_mount_point, program, program_at, started_by, world,
    world_with,
};

pub(crate) fn small_world() -> World {
    world([("file", "content")])
}

pub(crate) fn with_token(mut command: Command, token: &str) -> Command {
    command.env("EARTHDATA_TOKEN", token);
    command
}

pub(crate) fn with_password(mut command: Command, password: &str) -> Command {
    command
        .env("EARTHDATA_USERNAME", DEFAULT_USER)
        .env("EARTHDATA_PASSWORD", password);
    command
}

pub(crate) fn mountpoint() -> TempDir {
    tempfile::Builder::new()
        .prefix("s3credmount-test-")
        .tempdir()
        .expect("a temporary directory")
}

/// What the program says when it does not mount `source`, with exit status 1.
fn refusal_of(program: Command, source: &str) -> String {
    let mountpoint = mountpoint();
    let (status, said) = fails(program, source, mountpoint.path());
    assert_eq!(status, Some(1), "{said}");
    assert!(!is_mount_point(mountpoint.path()), "{said}");
    let message = said.split("\ns3credmount: ").last().unwrap_or_default();
    let message = message.strip_prefix("s3credmount: ").unwrap_or(message);
    assert!(said.contains("s3credmount: "), "{said}");
    // Words of programmers, from a `Debug` that got out.
    for noise in ["Error {", "Some(", "Error(", "panicked", "kind:"] {
        assert!(!message.contains(noise), "{noise} in: {message}");
    }
    message.to_owned()
}

pub(crate) fn refusal(program: Command) -> String {
    refusal_of(program, BUCKET)
}

#[track_caller]
pub(crate) fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

/// Which lets nobody in, not even root.
#[test]
fn a_mountpoint_on_which_another_user_has_mounted() {
    if !is_root() || !can_mount() {
        return;
    }
    let world = small_world();
    let mount = Mount::of_ordinary_user(program(&world), BUCKET);
    let (status, said) = fails(program(&world), BUCKET, &mount.root());
    assert_eq!(status, Some(1), "{said}");
    let root = mount.root();
    let root = root.display();
    says(
        &said,
        &[
            &format!("uid {NOBODY} is on {root}"),
            &format!("umount {root}"),
        ],
    );
}

/// As in a container that has the device and not the right.
#[test]
fn a_process_that_may_not_mount() {
    if !is_root() {
        return;
    }
    let world = small_world();
    let mut contained = Command::new("setpriv");
    contained.arg("--bounding-set=-sys_admin");
    let message = refusal(started_by(contained, &program(&world)));
    says(
        &message,
        &[
            "Operation not permitted. In a container",
            "--cap-add SYS_ADMIN",
        ],
    );
}

/// An address on which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.9:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

#[test]
fn a_bucket_that_does_not_exist() {
    let world = small_world();
    for bucket in ["no-such-bucket", "No_Bucket_Can_Be_Called_So"] {
        let message = refusal_of(program(&world), bucket);
        let place = format!("s3://{bucket}");
        says(&message, &[&place, "no such bucket", "Check its name"]);
        says(&message, &[&world.s3_url(), "us-west-2", "--region"]);
    }
}

#[test]
fn a_login_host_that_is_none() {
    let world = small_world();
    for host in [
        "https://urs.earthdata.nasa.gov/profile",
        "http://x.org",
        "u:hunter2@x.org",
    ] {
        let mut command = bare_program();
        command
            .args(["--credentials-endpoint", &world.tea_endpoint()])
            .env("S3CREDMOUNT_EARTHDATA_HOST", host);
        let message = refusal(command);
        says(
            &message,
            &["cannot be used", "--earthdata-host urs.earthdata.nasa.gov"],
        );
        says(&message, &[host.rsplit('@').next().expect("all of it")]);
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn a_wrong_password_is_sent_once() {
    let world = small_world();
    for endpoint in [world.tea_endpoint(), world.cumulus_endpoint()] {
        world.reset_counters();
        let command = with_password(program_at(&world, &endpoint), "wrong");
        let message = refusal(command);
        let host = world.earthdata_host();
        says(&message, &["refuses the password", DEFAULT_USER, &host]);
        says(&message, &["EARTHDATA_PASSWORD", "lock"]);
        let counters = world.counters();
        assert_eq!(counters.wrong_passwords, 1);
        assert_eq!(counters.stray_authorizations, 0);
        assert_eq!(counters.list + counters.get + counters.head, 0);
    }
}

#[test]
fn a_token_that_is_revoked_or_garbage() {
    let world = small_world();
    for endpoint in [world.tea_endpoint(), world.cumulus_endpoint()] {
        for token in [REVOKED_TOKEN, "garbage"] {
            let message = refusal(with_token(program_at(&world, &endpoint), token));
            says(&message, &[&endpoint, "does not accept the token"]);
            says(&message, &["EARTHDATA_TOKEN", "Generate Token"]);
            assert!(!message.contains(token), "{message}");
        }
    }
    // TEA passes on what Earthdata Login says, which may be a 403.
    for error in ["invalid_token", "token_expired"] {
        let body = format!(r#"{{"status_code": 403, "error": "{error}"}}"#);
        world.set_answer(Answer::Status(403, body));
        let message = refusal(with_token(program(&world), DEFAULT_TOKEN));
        says(&message, &["does not accept the token", "Generate Token"]);
    }
    assert_eq!(world.counters().stray_authorizations, 0);
    assert_eq!(world.counters().logins, 0);
}

#[test]
fn a_server_that_quotes_the_login_is_not_quoted() {
    let world = small_world();
    let body = format!("internal error while checking Bearer {DEFAULT_TOKEN}");
    world.set_answer(Answer::Status(500, body));
    let message = refusal(with_token(program(&world), DEFAULT_TOKEN));
    says(&message, &["HTTP 500"]);
    assert!(!message.contains(DEFAULT_TOKEN), "{message}");
    assert!(!message.contains("internal error"), "{message}");
}

/// A password that is good, at both families; and a token at the one that tells.
#[test]
fn a_user_agreement_that_is_not_accepted() {
    let world = world_with([("file", "content")], |settings| {
        settings.users[0].eula_accepted = false;
    });
    let page = format!("http://{}/approve_app", world.earthdata_host());
    let (tea, cumulus) = (world.tea_endpoint(), world.cumulus_endpoint());
    for (command, client) in [
        (program(&world), "mock-tea-client"),
        (
            with_password(program_at(&world, &tea), DEFAULT_PASSWORD),
            "mock-tea-client",
        ),
        (
            with_password(program_at(&world, &cumulus), DEFAULT_PASSWORD),
            "mock-cumulus-client",
        ),
        (
            with_token(program_at(&world, &cumulus), mock_earthdata::DEFAULT_TOKEN),
            "mock-cumulus-client",
        ),
    ] {
        let message = refusal(command);
        says(&message, &["EULA", "browser", &page]);
        // Without it the page does not know what is to be accepted.
        says(&message, &[&format!("?client_id={client}")]);
    }
}

#[test]
fn a_user_without_a_right_to_the_data() {
    let world = small_world();
    world.set_answer(Answer::NoDataAccess);
    let message = refusal(program(&world));
    says(&message, &[&world.tea_endpoint(), "HTTP 403", "no right"]);
}

#[test]
fn an_endpoint_that_is_down() {
    let world = small_world();
    let endpoint = format!("http://{}/s3credentials", nobody());
    let message = refusal(with_token(program_at(&world, &endpoint), "any"));
    says(&message, &["cannot reach", &endpoint, "onnection refused"]);
    says(&message, &["curl"]);
}

#[test]
fn an_endpoint_that_fails() {
    let fails_with = |status, body: &str| {
        let world = small_world();
        world.set_answer(Answer::Status(status, body.to_owned()));
        let message = refusal(program(&world));
        says(&message, &[&world.tea_endpoint(), body, "server's trouble"]);
        says(&message, &[&format!("HTTP {status}")]);
        // It may pass, so it is tried again while there is time.
        assert!(world.counters().credentials_requests > 1);
    };
    std::thread::scope(|scope| {
        for (status, body) in [
            (500, "Something broke!"),
            (503, "S3 Credentials Endpoint has been disabled"),
            (424, "Unable to retrieve credentials from Server"),
        ] {
            scope.spawn(move || fails_with(status, body));
        }
    });
}

#[test]
fn an_endpoint_that_never_answers() {
    let world = small_world();
    world.set_answer(Answer::Hang);
    let message = refusal(program(&world));
    says(&message, &[&world.tea_endpoint(), "not answered"]);
}

#[test]
fn an_endpoint_that_does_not_exist() {
    let world = small_world();
    let wrong = format!("{}x", world.tea_endpoint());
    let message = refusal(with_token(program_at(&world, &wrong), "any"));
    says(&message, &[&wrong, "HTTP 404", "--credentials-endpoint"]);
    assert_eq!(world.counters().credentials_requests, 0);
}

#[test]
fn answers_that_are_not_credentials() {
    let world = small_world();
    for (answer, what) in [
        (Answer::Html, "an HTML page"),
        (Answer::BadJson, "unreadable JSON"),
        (Answer::MissingField, "JSON that lacks"),
    ] {
        world.set_answer(answer);
        for endpoint in [world.tea_endpoint(), world.cumulus_endpoint()] {
            let command = with_password(program_at(&world, &endpoint), DEFAULT_PASSWORD);
            let message = refusal(command);
            says(&message, &[&endpoint, what, "/s3credentials endpoint?"]);
            for secret in world.issued_secrets() {
                assert!(!message.contains(&secret), "{message}");
            }
        }
    }
}

#[test]
fn a_bucket_whose_endpoint_is_not_known() {
    let mistyped = "podaac-ops-cumulus-protectd";
    let message = refusal_of(bare_program(), mistyped);
    says(&message, &[mistyped, "podaac-ops-cumulus-protected"]);
    says(&message, &["--credentials-endpoint https://"]);
}

#[test]
fn no_login_anywhere() {
    let world = small_world();
    let home = mountpoint();
    let netrc = home.path().join(".netrc");
    for endpoint in [world.tea_endpoint(), world.cumulus_endpoint()] {
        let mut command = program_at(&world, &endpoint);
        command.env("HOME", home.path());
        let message = refusal(command);
        says(&message, &[&endpoint, "none was found", "EARTHDATA_TOKEN"]);
        says(&message, &["EARTHDATA_USERNAME", "EARTHDATA_PASSWORD"]);
        says(&message, &[netrc.to_str().expect("UTF-8")]);
        says(
            &message,
            &[&format!("machine {}", world.earthdata_host()), "0600"],
        );
    }
    let mut command = program_at(&world, &world.tea_endpoint());
    command.env("HOME", home.path()).env("NETRC", "/no/netrc");
    says(&refusal(command), &["into /no/netrc (mode 0600)"]);
    assert_eq!(world.counters().wrong_passwords, 0);
}

/// Other programs that read the file may take it as it is.
#[test]
fn a_wrong_password_with_a_backslash_in_a_netrc() {
    let world = small_world();
    let directory = mountpoint();
    let netrc = directory.path().join("netrc");
    let host = world.earthdata_host();
    for (password, is_told) in [("a\\b", true), ("ab", false)] {
        let text = format!("machine {host} login {DEFAULT_USER} password {password}\n");
        std::fs::write(&netrc, text).expect("a file");
        let mut command = program_at(&world, &world.tea_endpoint());
        command.arg("--netrc").arg(&netrc);
        let message = refusal(command);
        says(&message, &["refuses the password"]);
        assert_eq!(message.contains("write two there"), is_told, "{message}");
    }
}

#[test]
fn a_netrc_that_cannot_be_used() {
    let world = small_world();
    let directory = mountpoint();
    let netrc = directory.path().join("netrc");
    let name = netrc.to_str().expect("UTF-8");
    let run = || {
        let mut command = program_at(&world, &world.tea_endpoint());
        command.args(["--netrc", name]);
        refusal(command)
    };
    says(&run(), &[name, "No such file"]);
    let host = world.earthdata_host();
    std::fs::write(
        &netrc,
        format!("machine {host} login a password hunter2 hunter3\n"),
    )
    .expect("a file");
    let message = run();
    says(&message, &[name, "line 1", "quotes"]);
    assert!(!message.contains("hunter"), "{message}");
    std::fs::write(&netrc, b"machine \xff\xfe login").expect("a file");
    says(&run(), &[name, "UTF-8"]);
    std::fs::remove_file(&netrc).expect("it is there");
    std::fs::create_dir(&netrc).expect("a directory");
    says(&run(), &[name, "directory"]);
    assert_eq!(world.counters().credentials_requests, 0);
}

#[test]
fn plain_http_that_is_not_loopback() {
    let world = small_world();
    let endpoint = "http://example.org/s3credentials";
    let message = refusal(with_token(program_at(&world, endpoint), "any"));
    says(&message, &[endpoint, "plain http", "use https"]);
}

#[test]
fn mountpoints_that_cannot_be_used() {
    let world = small_world();
    let directory = mountpoint();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("file"), "x").expect("a file");
    std::fs::create_dir(at("full")).expect("a directory");
    std::fs::write(at("full/file"), "x").expect("a file");
    std::os::unix::fs::symlink("nowhere", at("dangling")).expect("a link");
    for (mountpoint, what) in [
        (at("missing"), "does not exist: make it with mkdir"),
        (at("dangling"), "is a link to nowhere"),
        (at("file"), "is not a directory"),
        (at("full"), "is not empty"),
    ] {
        let (status, said) = fails(program(&world), BUCKET, &mountpoint);
        assert_eq!(status, Some(1), "{said}");
        says(&said, &[what, mountpoint.to_str().expect("UTF-8")]);
        assert!(!is_mount_point(&mountpoint));
    }
    // Found out before anything is asked of anybody.
    assert_eq!(world.counters().credentials_requests, 0);
}

/// As `ulimit -u` has it, which root does not feel.
#[test]
fn a_user_who_may_have_few_processes() {
    if !is_root() {
        return;
    }
    let world = small_world();
    // Nobody else's processes count.
    let limited = |most: u32, program: &Command| {
        let mut limit = Command::new("prlimit");
        limit.arg(format!("--nproc={most}"));
        limit.args(["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups"]);
        started_by(limit, program)
    };
    for most in [1, 3, 6, 12] {
        let message = refusal(limited(most, &program(&world)));
        says(&message, &["cannot start a thread", "ulimit -u"]);
    }
    let mut tool = bare_program();
    let output = limited(2, tool.arg("buckets")).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    says(&said, &["s3credmount: cannot start a thread"]);
}

#[test]
fn a_working_directory_that_is_gone() {
    let directory = mountpoint();
    let mut shell = Command::new("sh");
    shell.args(["-c", "cd \"$0\" && rmdir \"$0\" && exec \"$@\""]);
    shell.arg(directory.path());
    let mut program = bare_program();
    program.arg("--no-sign-request");
    let (status, said) = fails(started_by(shell, &program), BUCKET, Path::new("mnt"));
    assert_eq!(status, Some(1), "{said}");
    says(&said, &["mnt", "working directory, which cannot be found"]);
}

#[test]
fn sources_that_name_no_bucket() {
    let world = small_world();
    for (source, why) in [
        ("ab", "3 to 63 characters"),
        ("two words", "letters, digits, dots and hyphens only"),
        ("s3://", "missing"),
        ("a,allow_other", "letters, digits, dots and hyphens only"),
        ("bucket/../other", "no path can say"),
    ] {
        let message = refusal_of(program(&world), source);
        says(&message, &[why, &format!("{source:?}")]);
    }
    assert_eq!(world.counters().credentials_requests, 0);
}

#[test]
fn options_that_make_no_sense_are_usage_errors() {
    let world = small_world();
    for (option, value, hint) in [
        ("--credential-wait", "soon", "seconds"),
        ("--operation-timeout", "0", "at least 1 second"),
        ("--max-connections", "0", "1..=65535"),
        ("--memory-limit", "1MiB", "at least 16"),
        ("--memory-limit", "lots", "512MiB"),
        ("--metadata-ttl", "often", "60s"),
        ("--file-mode", "999", "octal"),
        ("--dir-mode", "u+rw", "octal"),
        ("--uid", "nobody", "--uid"),
        ("--no-such-option", "x", "--no-such-option"),
    ] {
        let mountpoint = mountpoint();
        let mut command = program(&world);
        command.args([option, value]);
        let (status, said) = fails(command, BUCKET, mountpoint.path());
        assert_eq!(status, Some(2), "{said}");
        says(&said, &[option, hint]);
        assert!(!is_mount_point(mountpoint.path()));
    }
    let mut command = program(&world);
    command.env("S3CREDMOUNT_ALLOW_OTHER", "maybe");
    let (status, said) = fails(command, BUCKET, mountpoint().path());
    assert_eq!(status, Some(2), "{said}");
    says(&said, &["maybe", "1 or 0"]);
    let mut command = bare_program();
    command.args(["--no-sign-request", "--endpoint-url", "s3"]);
    let (status, said) = fails(command, BUCKET, mountpoint().path());
    assert_eq!(status, Some(1), "{said}");
    says(&said, &["--endpoint-url", "not a URL"]);
    let mut command = bare_program();
    command.arg("bucket");
    let (status, said) = fails(command, "a/part", mountpoint().path());
    assert_eq!(status, Some(2), "{said}");
    says(&said, &["unexpected argument", "BUCKET/PREFIX", "Usage: "]);
    assert!(!said.contains("subcommand"), "{said}");
    let (status, said) = fails(bare_program(), BUCKET, Path::new(""));
    assert_eq!(status, Some(2), "{said}");
}

#[test]
fn variables_of_options_are_named_and_empty_ones_are_none() {
    let run = |variable: &str, value: &str, arguments: &[&str]| {
        let mut command = bare_program();
        command.args(["--no-sign-request", "--endpoint-url", "http://127.0.0.9:9"]);
        command.args(arguments).env(variable, value);
        fails(command, BUCKET, Path::new("/nonexistent"))
    };
    for (variable, value, option) in [
        ("S3CREDMOUNT_UID", "nobody", "--uid"),
        ("S3CREDMOUNT_EXEC", "maybe", "--exec"),
        ("S3CREDMOUNT_VERBOSE", "much", "--verbose"),
        ("S3CREDMOUNT_METADATA_TTL", "soon", "--metadata-ttl"),
        ("S3CREDMOUNT_LOG_FORMAT", "xml", "--log-format"),
    ] {
        let (status, said) = run(variable, value, &[]);
        assert_eq!(status, Some(2), "{said}");
        says(&said, &[&format!("'{value}' for '{variable}'")]);
        let (status, said) = run(variable, "", &[]);
        assert_eq!(status, Some(1), "{said}");
        says(&said, &["/nonexistent does not exist"]);
        if !["--exec", "--verbose"].contains(&option) {
            let (status, said) = run(variable, value, &[option, "odd"]);
            assert_eq!(status, Some(2), "{said}");
            says(&said, &[&format!("'odd' for '{option}")]);
        }
    }
    let mut check = bare_program();
    let check = check
        .args(["check", "bucket"])
        .env("S3CREDMOUNT_REGION", "US");
    let said = check.output().expect("it runs").stderr;
    let said = String::from_utf8(said).expect("UTF-8");
    says(&said, &["'US' for 'S3CREDMOUNT_REGION'"]);
}

/// What a variable has set is not required.
#[test]
fn usage_is_the_same_whatever_the_environment_says() {
    for (arguments, usage) in [
        (
            &["bucket"][..],
            "Usage: s3credmount [OPTIONS] <SOURCE> <MOUNTPOINT>\n",
        ),
        (&["check"], "Usage: s3credmount check [OPTIONS] <SOURCE>\n"),
        (
            &["credentials"],
            "Usage: s3credmount credentials [OPTIONS] <BUCKET>\n",
        ),
        (
            &["serve-credentials"],
            "Usage: s3credmount serve-credentials [OPTIONS] <BUCKET>\n",
        ),
    ] {
        let mut command = bare_program();
        let output = command
            .args(arguments)
            .env("S3CREDMOUNT_NETRC", "x")
            .output();
        let said = String::from_utf8(output.expect("it runs").stderr).expect("UTF-8");
        says(&said, &["were not provided", usage]);
    }
}

#[test]
fn an_s3_that_is_down() {
    let world = small_world();
    let s3 = format!("http://{}", nobody());
    let mut command = bare_program();
    command
        .args(["--credentials-endpoint", &world.open_endpoint()])
        .args(["--earthdata-host", &world.earthdata_host()])
        .args(["--endpoint-url", &s3]);
    let message = refusal(command);
    says(&message, &[&s3, BUCKET, "onnection refused"]);
    says(&message, &["Check the network", "--endpoint-url"]);
}

#[test]
fn allow_other_needs_a_line_in_fuse_conf() {
    let conf = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if conf.lines().any(|line| line.trim() == "user_allow_other") {
        eprintln!("SKIPPED: /etc/fuse.conf has user_allow_other");
        return;
    }
    if !can_mount() {
        return;
    }
    let world = small_world();
    let mut command = program(&world);
    command.arg("--allow-other");
    let mountpoint = mountpoint();
    let command = ordinary_user(command, mountpoint.path());
    let (status, said) = fails(command, BUCKET, mountpoint.path());
    assert_eq!(status, Some(1), "{said}");
    says(
        &said,
        &["--allow-other", "user_allow_other", "/etc/fuse.conf"],
    );
    assert!(!is_mount_point(mountpoint.path()));
}

fn unlistable_world() -> World {
    let world = world([("top.nc", "top"), ("dir/sub/file.nc", "content")]);
    let list = ListAccess::Nowhere;
    world.set_bucket_access(BUCKET, Access { list, get: true });
    world
}

/// Some buckets cannot be listed, and their files can be read all the same.
#[test]
fn a_denied_listing_is_a_warning_and_files_are_read_by_name() {
    let world = unlistable_world();
    let mount = Mount::new(&world);
    says(&mount.log_with("may not be listed"), &["WARN", "region"]);
    assert_eq!(mount.read("top.nc"), b"top");
    assert_eq!(mount.read("dir/sub/file.nc"), b"content");
    let missing = std::fs::read(mount.path("dir/none.nc")).expect_err("no such key");
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    let denied =
        std::fs::read_dir(mount.path("dir")).and_then(|mut names| names.next().transpose());
    assert_eq!(
        denied.expect_err("denied").raw_os_error(),
        Some(libc::EACCES)
    );
}

#[test]
fn unsigned_requests_to_a_bucket_that_is_not_public() {
    let world = small_world();
    let mut command = bare_program();
    command.args(["--no-sign-request", "--endpoint-url", &world.s3_url()]);
    let mount = Mount::with(command, BUCKET);
    let log = mount.log_with("may not be listed");
    says(
        &log,
        &[
            "requests are not signed (--no-sign-request)",
            "leave that option out",
        ],
    );
    assert!(
        !log.contains("EULA") && !log.contains("endpoint may"),
        "{log}"
    );
}

#[test]
fn a_list_of_one_key_is_counted_in_words() {
    let world = unlistable_world();
    let directory = mountpoint();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, "top.nc\n").expect("a file");
    let mount = Mount::with_args(&world, &["--keys", keys.to_str().expect("UTF-8")]);
    mount.log_with("one name is known from --keys");
}

/// NSIDC's buckets have no file at the top that could be read first.
#[test]
fn where_listing_is_denied_the_first_file_read_may_lie_in_a_directory() {
    let world = unlistable_world();
    let mount = Mount::new(&world);
    assert_eq!(mount.read("dir/sub/file.nc"), b"content");
}
