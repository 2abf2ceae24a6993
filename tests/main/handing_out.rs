//! Credentials for other programs: `s3credmount credentials` and `serve-credentials`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use mock_earthdata::{Answer, Content, DEFAULT_PASSWORD, DEFAULT_TOKEN, DEFAULT_USER, World};
use serde_json::Value;

use crate::support::{BUCKET, bare_program, wait, world, world_with};

/// The program, for one of its tools, with a login by token.
pub(crate) fn tool(world: &World, name: &str) -> Command {
    let mut command = bare_program();
    command
        .args([name, BUCKET])
        .args(["--credentials-endpoint", &world.tea_endpoint()])
        .args(["--earthdata-host", &world.earthdata_host()])
        .env("EARTHDATA_TOKEN", DEFAULT_TOKEN);
    command
}

fn one_file() -> World {
    world([("file", Content::from("content"))])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn printed(world: &World, format: &str) -> String {
    let output = tool(world, "credentials")
        .args(["--format", format])
        .output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "", "nothing but the credentials");
    text(&output.stdout)
}

/// Seconds from now until a time as AWS writes it.
fn seconds_until(time: &str) -> f64 {
    let time = time.parse::<jiff::Timestamp>().expect("RFC 3339");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    time.as_second() as f64 - now.expect("after 1970").as_secs_f64()
}

fn is_an_hour_away(time: &str) -> bool {
    (3500.0..3605.0).contains(&seconds_until(time))
}

#[test]
fn credential_process_gets_version_1_and_rfc_3339() {
    let world = one_file();
    let json: Value = serde_json::from_str(&printed(&world, "process")).expect("JSON");
    let field = |name: &str| json[name].as_str().expect(name).to_owned();
    assert_eq!(json["Version"], 1);
    assert_eq!(json.as_object().expect("an object").len(), 5);
    assert!(field("AccessKeyId").starts_with("ASIA"));
    assert!(field("Expiration").contains('T') && field("Expiration").ends_with('Z'));
    assert!(
        is_an_hour_away(&field("Expiration")),
        "{}",
        field("Expiration")
    );
    let issued = world.issued_secrets();
    assert!(issued.contains(&field("SecretAccessKey")));
    assert!(issued.contains(&field("SessionToken")));
    assert_eq!(world.counters().credentials_issued, 1);
}

#[test]
fn the_default_format_is_that_of_credential_process() {
    let world = one_file();
    let output = tool(&world, "credentials").output().expect("it runs");
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["Version"], 1);
}

#[test]
fn json_is_what_the_endpoint_says() {
    let world = one_file();
    let json: Value = serde_json::from_str(&printed(&world, "json")).expect("JSON");
    let mut names: Vec<_> = json.as_object().expect("an object").keys().collect();
    names.sort();
    assert_eq!(
        names,
        [
            "accessKeyId",
            "expiration",
            "secretAccessKey",
            "sessionToken"
        ]
    );
    let expiration = json["expiration"].as_str().expect("text");
    assert_eq!(&expiration[10..11], " ");
    assert!(expiration.ends_with("+00:00"), "{expiration}");
    assert!(is_an_hour_away(expiration), "{expiration}");
}

#[test]
fn a_shell_takes_env_lines() {
    let world = one_file();
    let lines = printed(&world, "env");
    let script = format!(
        "{lines}printf '%s|' \"$AWS_ACCESS_KEY_ID\" \"$AWS_SESSION_TOKEN\" \
                          \"$AWS_SECRET_ACCESS_KEY\" \"$AWS_CREDENTIAL_EXPIRATION\""
    );
    let output = Command::new("sh").arg("-c").arg(script).output();
    let output = text(&output.expect("a shell").stdout);
    let [key, token, secret, ends, ""] = output.split('|').collect::<Vec<_>>()[..] else {
        panic!("not four variables");
    };
    assert!(key.starts_with("ASIA"));
    let issued = world.issued_secrets();
    assert!(issued.iter().any(|one| one == token));
    assert!(issued.iter().any(|one| one == secret));
    assert!(is_an_hour_away(ends), "{ends}");
}

/// Runs it; it must fail with a message, print nothing to stdout, and tell no secret.
fn refused(mut command: Command, world: &World) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("it runs");
    assert_eq!(status.code(), Some(1));
    assert_eq!(text(&stdout), "");
    let said = text(&stderr);
    let mut secrets = world.issued_secrets();
    secrets.extend([DEFAULT_TOKEN, DEFAULT_PASSWORD, "hunter2"].map(str::to_owned));
    for secret in secrets {
        assert!(!said.contains(&secret), "{said}");
    }
    said
}

#[test]
fn failures_go_to_stderr_and_tell_no_secret() {
    let world = one_file();
    let mut wrong_password = tool(&world, "credentials");
    wrong_password
        .env_remove("EARTHDATA_TOKEN")
        .env("EARTHDATA_USERNAME", DEFAULT_USER)
        .env("EARTHDATA_PASSWORD", "hunter2")
        .arg("-vv");
    let said = refused(wrong_password, &world);
    assert!(said.contains("refuses the password"), "{said}");
    let mut nobody = tool(&world, "credentials");
    nobody.env_remove("EARTHDATA_TOKEN");
    assert!(refused(nobody, &world).contains("EARTHDATA_TOKEN"));
    world.set_answer(Answer::BadJson);
    let said = refused(tool(&world, "credentials"), &world);
    assert!(said.contains("JSON"), "{said}");
    world.set_answer(Answer::Status(503, String::new()));
    let mut impatient = tool(&world, "credentials");
    impatient.args(["--credential-wait", "0"]);
    let said = refused(impatient, &world);
    assert!(said.contains("waiting for credentials from"), "{said}");
    assert!(said.contains("503") && said.contains(BUCKET), "{said}");
    let mut unknown = bare_program();
    unknown.args(["credentials", "no-such-bucket-of-nasa"]);
    assert!(refused(unknown, &world).contains("s3credmount buckets"));
}

/// `serve-credentials`, ended when this is dropped.
struct Server {
    child: Child,
    url: String,
    token_file: PathBuf,
}

impl Server {
    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        // Ends because the program closes its standard output when it has said everything.
        let lines: Vec<_> = stdout.lines().map(|line| line.expect("UTF-8")).collect();
        let value = |name: &str| {
            let line = lines
                .iter()
                .find_map(|l| l.strip_prefix(&format!("export {name}=")));
            let line = line.unwrap_or_else(|| panic!("no {name} in {lines:?}"));
            line.trim_matches('\'').to_owned()
        };
        Self {
            url: value("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
            token_file: value("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").into(),
            child,
        }
    }

    fn token(&self) -> String {
        std::fs::read_to_string(&self.token_file).expect("a token file")
    }

    fn authority(&self) -> &str {
        self.url.trim_start_matches("http://").trim_end_matches('/')
    }

    /// The status and the body.
    fn get(&self, host: &str, authorization: &str) -> (u16, Value) {
        self.ask("GET /", host, authorization)
    }

    fn ask(&self, what: &str, host: &str, authorization: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.authority()).expect("it listens");
        write!(
            stream,
            "{what} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n\
             Connection: close\r\n\r\n"
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.to_lowercase().contains("cache-control: no-store"),
            "{head}"
        );
        let status = head.split(' ').nth(1).expect("a status");
        let status = status.parse().expect("a number");
        (status, serde_json::from_str(body).expect("JSON"))
    }

    /// Sends a signal, and waits for the end.
    fn end(&mut self, signal: i32) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        // SAFETY: `kill` takes no pointers, and the child has not been waited for.
        unsafe { libc::kill(pid, signal) };
        wait(&mut self.child).expect("it ends").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.token_file);
    }
}

#[test]
fn served_credentials_have_the_container_format_and_need_the_token() {
    let world = one_file();
    let server = Server::start(tool(&world, "serve-credentials"));
    let mode = std::fs::metadata(&server.token_file).expect("a file");
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let token = server.token();
    assert!(
        token.len() >= 32 && !token.contains('\n'),
        "{}",
        token.len()
    );
    let arguments = std::fs::read(format!("/proc/{}/cmdline", server.child.id()));
    assert!(!text(&arguments.expect("procfs")).contains(&token));

    let host = server.authority().to_owned();
    let (status, body) = server.get(&host, &token);
    assert_eq!(status, 200);
    let mut names: Vec<_> = body.as_object().expect("an object").keys().collect();
    names.sort();
    assert_eq!(
        names,
        ["AccessKeyId", "Expiration", "SecretAccessKey", "Token"]
    );
    let field = |name: &str| body[name].as_str().expect(name).to_owned();
    assert!(is_an_hour_away(&field("Expiration")));
    assert!(world.issued_secrets().contains(&field("Token")));

    for wrong in [
        "",
        "x",
        &token[1..],
        &format!("{token}x"),
        &format!("Bearer {token}"),
    ] {
        let (status, body) = server.get(&host, wrong);
        assert_eq!((status, &body["code"]), (401, &"NotAuthorized".into()));
        assert!(body.get("SecretAccessKey").is_none());
    }
    // A page in a browser that was led here by its own host name, even if it knew the token.
    for wrong in [
        "evil.example.org",
        "127.0.0.1.example.org",
        "evil.example.org@127.0.0.1",
        "127.0.0.1/evil.example.org",
        "169.254.169.254",
    ] {
        let (status, body) = server.get(wrong, &token);
        assert_eq!((status, &body["code"]), (403, &"WrongHost".into()));
    }
    assert_eq!(server.get("localhost:1", &token).0, 200);
    assert_eq!(server.ask("POST /", &host, &token).0, 404);
    assert_eq!(server.ask("GET /other", &host, &token).0, 404);
    assert_eq!(
        world.counters().credentials_issued,
        1,
        "all from one manager"
    );
}

#[test]
fn served_credentials_are_renewed() {
    let world = world_with([("file", Content::from("content"))], |settings| {
        settings.lifetime = Duration::from_secs(4);
    });
    let server = Server::start(tool(&world, "serve-credentials"));
    let (host, token) = (server.authority().to_owned(), server.token());
    let key = || {
        let (status, body) = server.get(&host, &token);
        assert_eq!(status, 200);
        assert!(seconds_until(body["Expiration"].as_str().expect("text")) > -1.0);
        body["AccessKeyId"].as_str().expect("text").to_owned()
    };
    let first = key();
    let begin = std::time::Instant::now();
    while key() == first {
        assert!(begin.elapsed() < crate::support::PATIENCE, "never renewed");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_endpoint_that_fails_is_told_to_who_asks() {
    let world = world_with([("file", Content::from("content"))], |settings| {
        settings.lifetime = Duration::from_secs(3);
    });
    let mut command = tool(&world, "serve-credentials");
    command.args(["--credential-wait", "5"]);
    let server = Server::start(command);
    let (host, token) = (server.authority().to_owned(), server.token());
    world.set_answer(Answer::Status(503, "maintenance".to_owned()));
    let begin = std::time::Instant::now();
    let (status, body) = loop {
        let answer = server.get(&host, &token);
        if answer.0 != 200 {
            break answer;
        }
        assert!(begin.elapsed() < crate::support::PATIENCE, "still served");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(
        (status, &body["code"]),
        (503, &"CredentialsUnavailable".into())
    );
    let message = body["message"].as_str().expect("text");
    assert!(message.contains("HTTP 503"), "{message}");
}

#[test]
fn a_shell_takes_what_the_server_prints_wherever_its_file_is() {
    let world = one_file();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let odd = directory.path().join("it's $HERE");
    std::fs::create_dir(&odd).expect("a directory");
    let script = "eval \"$(\"$@\" &)\"; wc -c <\"$AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE\"; \
                  kill \"$S3CREDMOUNT_SERVER_PID\"";
    let mut shell = Command::new("sh");
    shell.args(["-ec", script, "sh"]);
    let mut shell = crate::support::started_by(shell, &tool(&world, "serve-credentials"));
    // The server has it open for as long as it runs, which is long if the shell fails.
    shell.env("XDG_RUNTIME_DIR", &odd).stderr(Stdio::null());
    let output = shell.output().expect("a shell");
    assert_eq!(text(&output.stdout).trim(), "64");
}

/// As a runtime directory of another user.
#[test]
fn the_file_of_the_token_is_where_it_can_be_made() {
    let world = one_file();
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let command = |temporary: &Path| {
        let mut command = tool(&world, "serve-credentials");
        command.env("XDG_RUNTIME_DIR", "/proc");
        command.env("TMPDIR", temporary);
        command
    };
    let server = Server::start(command(temporary.path()));
    assert_eq!(server.token_file.parent(), Some(temporary.path()));
    let said = refused(command(Path::new("/sys")), &world);
    for part in ["/proc: ", "/sys: ", "TMPDIR"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn signals_end_the_server_cleanly() {
    let world = one_file();
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut server = Server::start(tool(&world, "serve-credentials"));
        let path = server.token_file.clone();
        assert!(path.exists());
        assert_eq!(server.end(signal), Some(0));
        assert!(!path.exists(), "the token's file is gone");
    }
}

#[test]
fn a_server_that_cannot_serve_says_so_and_ends() {
    let world = one_file();
    for address in ["0.0.0.0:0", "192.0.2.1:80", "[::]:0"] {
        let mut command = tool(&world, "serve-credentials");
        let output = command
            .args(["--listen", address])
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("this machine"), "{address}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut command = tool(&world, "serve-credentials");
    let address = taken.local_addr().expect("bound").to_string();
    command.args(["--listen", &address]);
    assert!(refused(command, &world).contains("--listen"));
    world.set_answer(Answer::EulaRefused);
    let said = refused(tool(&world, "serve-credentials"), &world);
    assert!(said.contains("EULA"), "{said}");
    assert_eq!(world.counters().credentials_issued, 0);
}
