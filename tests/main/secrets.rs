//! No secret is in a log, in an error message, on stdout or in the arguments of the process, nor can
//! other processes of the user read its memory.

use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mock_earthdata::{
    Answer, Content, DEFAULT_PASSWORD, DEFAULT_TOKEN, DEFAULT_USER, REVOKED_TOKEN, World,
};

use crate::ordinary::{as_ordinary_user, can_mount, ordinary_uid};
use crate::support::{
    BUCKET, Mount, PATIENCE, bare_program, computed, eventually, fails, program, world, world_with,
};

/// A password that is wrong is a secret, too: it may be right elsewhere.
const WRONG_PASSWORD: &str = "Hunter2 \"of another site\"";

/// `printf %s user:password | base64`, as an `Authorization` header has it.
fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut coded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, i| {
            bits << 8 | u32::from(chunk.get(i).copied().unwrap_or(0))
        });
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
            coded.push(if i <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    coded
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let code = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(code).collect()
}

/// Every secret of `world` and of its users, in each spelling that could get out.
fn secrets(world: &World) -> Vec<String> {
    let mut secrets = world.issued_secrets();
    secrets.extend([DEFAULT_TOKEN, REVOKED_TOKEN].map(str::to_owned));
    for password in [DEFAULT_PASSWORD, WRONG_PASSWORD] {
        secrets.push(password.to_owned());
        secrets.push(password.escape_debug().to_string());
        secrets.push(base64(&format!("{DEFAULT_USER}:{password}")));
    }
    // The words of a password that a parser took apart.
    secrets.extend(["staple", "Hunter2", "another site"].map(str::to_owned));
    let encoded: Vec<_> = secrets
        .iter()
        .map(|secret| percent_encoded(secret))
        .collect();
    secrets.extend(encoded);
    secrets
}

/// The secrets that `text` holds, or the beginning or end of one.
fn found<'a>(text: &str, secrets: &'a [String]) -> Vec<&'a str> {
    const PART: usize = 24;
    let is_in = |secret: &&str| {
        let long = secret.is_ascii() && secret.len() > 2 * PART;
        // All session tokens and JWTs begin alike: that is not secret, so what comes after it.
        let parts = long.then(|| {
            [
                &secret[40..40 + PART.min(secret.len() - 40)],
                &secret[secret.len() - PART..],
            ]
        });
        text.contains(secret)
            || parts.is_some_and(|parts| parts.iter().any(|p| p.len() >= 8 && text.contains(p)))
    };
    secrets.iter().map(String::as_str).filter(is_in).collect()
}

#[track_caller]
fn holds_none(what: &str, text: &str, secrets: &[String]) {
    let found = found(text, secrets);
    assert!(found.is_empty(), "{what} holds {found:?}:\n{text}");
}

#[test]
fn the_search_for_secrets_finds_them() {
    assert_eq!(base64("user:pass"), "dXNlcjpwYXNz");
    assert_eq!(base64("user:passw"), "dXNlcjpwYXNzdw==");
    let world = world([("file", "content")]);
    assert_eq!(Mount::with_args(&world, &["-vv"]).read("file"), b"content");
    let secrets = secrets(&world);
    // At least a cookie, a secret key and a session token were handed out.
    assert!(world.issued_secrets().len() >= 3);
    for secret in &secrets {
        let text = format!("TRACE sent \"{secret}\" to S3");
        assert!(
            found(&text, &secrets).contains(&secret.as_str()),
            "{secret}"
        );
    }
    let token = world.issued_secrets().into_iter().max_by_key(String::len);
    let token = token.expect("one");
    let cut = format!("IQoJb...{}", &token[token.len() - 30..]);
    assert!(!found(&cut, &secrets).is_empty(), "{cut}");
    assert!(found("INFO an honest line IQoJb3JpZ2luX2Vj", &secrets).is_empty());
}

/// By a token that Earthdata Login makes for the password, and by the redirects and cookies of the
/// login; with credentials that are shared, and rejected by S3.
#[test]
fn no_secret_is_in_the_log_on_stdout_or_in_the_arguments() {
    for bearer in [true, false] {
        let objects = [
            ("large", Content::Synthetic { size: 40 << 20 }),
            ("dir/file", Content::Bytes("content".into())),
        ];
        let world = world_with(objects, |settings| {
            settings.bearer = bearer;
            settings.users[0].tokens.clear();
        });
        no_secret_gets_out_of(&world);
        let counters = world.counters();
        assert_eq!(
            (counters.token_requests, counters.logins),
            (1, u64::from(!bearer))
        );
    }
}

fn no_secret_gets_out_of(world: &World) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let netrc = directory.path().join("netrc");
    let quoted = DEFAULT_PASSWORD.replace('"', "\\\"");
    let host = world.earthdata_host();
    let text = format!("machine {host} login {DEFAULT_USER} password \"{quoted}\"\n");
    std::fs::write(&netrc, text).expect("a netrc");
    let mut command = program(world);
    command.env_remove("EARTHDATA_TOKEN");
    command.arg("-vv").arg("--netrc").arg(&netrc);
    command
        .arg("--credentials-cache")
        .arg(directory.path().join("cache"));
    let mut mount = Mount::with(command, BUCKET);
    assert_eq!(mount.names(""), ["dir", "large"]);
    assert_eq!(mount.read("dir/file"), b"content");
    // S3 refuses, its answer holds the session token, and the endpoint is out of order in all ways
    // before it is well again.
    world.set_answer(Answer::Status(503, "Service Unavailable".to_owned()));
    world.expire_all();
    std::thread::scope(|scope| {
        let read = scope.spawn(|| std::fs::read(mount.path("large")));
        let begin = Instant::now();
        let until = |seen: &dyn Fn() -> bool| {
            while !seen() {
                assert!(begin.elapsed() < PATIENCE, "{}", mount.log());
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        until(&|| mount.log().contains("503"));
        for (answer, told) in [
            (Answer::Html, "HTML"),
            (Answer::BadJson, "unreadable JSON"),
            (Answer::MissingField, "JSON that lacks"),
        ] {
            world.set_answer(answer);
            until(&|| mount.log().contains(told));
        }
        world.set_answer(Answer::Normal);
        let read = read.join().expect("no panic").expect("the mount heals");
        assert!(read == computed("large", 0, 40 << 20));
    });
    assert!(world.counters().expired_refused > 0, "nothing expired");
    let arguments = std::fs::read(format!("/proc/{}/cmdline", mount.pid())).expect("procfs");
    let arguments = String::from_utf8(arguments).expect("UTF-8");
    mount.signal(libc::SIGTERM);
    mount.wait();
    let (log, stdout, secrets) = (mount.log(), mount.stdout(), secrets(world));
    // The log is one of all that happened, so that there was something to find.
    for part in [
        "TRACE",
        "credentials obtained",
        "503",
        "HTML",
        "JSON",
        "does not accept",
    ] {
        assert!(log.contains(part), "no {part:?} in:\n{log}");
    }
    // What may be told is told: the id of the credentials.
    assert!(log.contains("ASIA"), "{log}");
    assert!(arguments.contains("--netrc") && stdout.contains(BUCKET));
    holds_none("the log", &log, &secrets);
    holds_none("stdout", &stdout, &secrets);
    holds_none("cmdline", &arguments, &secrets);
}

#[test]
fn no_secret_is_in_a_message_of_a_login_that_failed() {
    let world = world([("file", "content")]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mountpoint = directory.path().join("mnt");
    std::fs::create_dir(&mountpoint).expect("a directory");
    let netrc = directory.path().join("netrc");
    let messages = Mutex::new(Vec::new());
    let try_with = |endpoint: &str, login: &(dyn Fn(&mut Command) + Sync)| {
        let mut command = bare_program();
        command
            .arg("-vv")
            .args(["--credentials-endpoint", endpoint])
            .args(["--earthdata-host", &world.earthdata_host()])
            .args(["--endpoint-url", &world.s3_url()]);
        login(&mut command);
        let (status, said) = fails(command, BUCKET, &mountpoint);
        assert_eq!(status, Some(1), "{said}");
        messages.lock().expect("no panic").push(said);
    };
    let token = |token: &'static str| {
        move |c: &mut Command| {
            c.env("EARTHDATA_TOKEN", token);
        }
    };
    let password = |password: &'static str| {
        move |c: &mut Command| {
            c.env("EARTHDATA_USERNAME", DEFAULT_USER);
            c.env("EARTHDATA_PASSWORD", password);
        }
    };
    let from_netrc = |text: &str| {
        std::fs::write(&netrc, text).expect("a netrc");
        |c: &mut Command| {
            c.arg("--netrc").arg(&netrc);
        }
    };
    let endpoints = [world.tea_endpoint(), world.cumulus_endpoint()];
    for endpoint in &endpoints {
        try_with(endpoint, &token(REVOKED_TOKEN));
        try_with(endpoint, &password(WRONG_PASSWORD));
        // A token with the scheme before it, or a line end after it, as they get pasted.
        try_with(endpoint, &|c| {
            c.env("EARTHDATA_TOKEN", format!("Bearer  {REVOKED_TOKEN}"));
        });
        try_with(endpoint, &|c| {
            c.env("EARTHDATA_TOKEN", format!("{REVOKED_TOKEN}\n"));
        });
        // Unquoted, so that the parser falls over the second word; and a name without a host.
        try_with(
            endpoint,
            &from_netrc(&format!("machine a login b password {DEFAULT_PASSWORD}")),
        );
        try_with(endpoint, &from_netrc(&format!("password {DEFAULT_TOKEN}")));
        for answer in [
            Answer::Html,
            Answer::BadJson,
            Answer::MissingField,
            Answer::EulaRefused,
            Answer::NoDataAccess,
        ] {
            world.set_answer(answer);
            try_with(endpoint, &password(DEFAULT_PASSWORD));
            try_with(endpoint, &token(DEFAULT_TOKEN));
        }
        world.set_answer(Answer::Normal);
        let with_user = endpoint.replace("://", &format!("://{DEFAULT_USER}:{DEFAULT_TOKEN}@"));
        try_with(&with_user, &token(DEFAULT_TOKEN));
    }
    // These are waited for.
    for answer in [
        Answer::Status(500, "Something broke!".to_owned()),
        Answer::Hang,
    ] {
        world.set_answer(answer);
        std::thread::scope(|scope| {
            for endpoint in &endpoints {
                scope.spawn(|| try_with(endpoint, &password(DEFAULT_PASSWORD)));
                scope.spawn(|| try_with(endpoint, &token(DEFAULT_TOKEN)));
            }
        });
    }
    world.set_answer(Answer::Normal);
    let mut messages = messages.into_inner().expect("no panic");
    let mut s3_is_down = bare_program();
    s3_is_down
        .args(["-vv", "--credentials-endpoint", &world.tea_endpoint()])
        .args(["--endpoint-url", "http://127.0.0.9:9"])
        .env("EARTHDATA_TOKEN", DEFAULT_TOKEN);
    let (status, said) = fails(s3_is_down, BUCKET, &mountpoint);
    assert_eq!(status, Some(1), "{said}");
    messages.push(said);
    let secrets = secrets(&world);
    assert_eq!(messages.len(), 2 * (6 + 14 + 1) + 1);
    for message in &messages {
        assert!(message.contains("s3credmount: "), "{message}");
        holds_none("a message", message, &secrets);
    }
}

/// A child that is ended when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `/proc` says of a process belongs to root unless the process may be dumped: then its user may
/// read its memory and environment.
#[test]
fn other_processes_of_the_user_cannot_read_its_memory() {
    if !can_mount() {
        return;
    }
    let owner = |pid: u32| {
        std::fs::metadata(format!("/proc/{pid}/environ"))
            .expect("procfs")
            .uid()
    };
    // The opposite, so that this test can fail: a process like any other.
    let mut cat = Command::new("cat");
    let cat = as_ordinary_user(&mut cat).stdin(Stdio::piped()).spawn();
    let cat = Ended(cat.expect("cat starts"));
    eventually("this system tells the owner", || {
        owner(cat.0.id()) == ordinary_uid()
    });
    let world = world([("file", "content")]);
    let mount = Mount::of_ordinary_user(program(&world), BUCKET);
    assert_eq!(owner(mount.pid()), 0);
    let mut read = Command::new("cat");
    read.arg(format!("/proc/{}/environ", mount.pid()));
    let read = as_ordinary_user(&mut read).output().expect("cat starts");
    assert!(!read.status.success() && read.stdout.is_empty());
}
