//! Each way to log in, at both families of endpoints, and at one that wants no login.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use mock_earthdata::{
    Answer, Content, DEFAULT_PASSWORD, DEFAULT_TOKEN, DEFAULT_USER, REVOKED_TOKEN, User, World,
};

use crate::support::{
    BUCKET, Mount, PATIENCE, bare_program, eventually, program_at, world, world_with,
};

/// A login to try.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Token,
    TokenFile,
    Variables,
    NetrcOption,
    NetrcVariable,
    NetrcAtHome,
    None,
}

fn mounts(world: &World, endpoint: &str, way: Way) {
    mounts_with(world, endpoint, way, Means::Everything);
}

fn mounts_with(world: &World, endpoint: &str, way: Way, means: Means) {
    world.reset_counters();
    let home = tempfile::tempdir().expect("a temporary directory");
    let netrc = home.path().join(".netrc");
    let quoted = DEFAULT_PASSWORD.replace('\\', "\\\\").replace('"', "\\\"");
    let host = world.earthdata_host();
    let text = format!(
        "# of a test\nmachine other.example.org login else password wrong\n\
         machine {host}\n  login {DEFAULT_USER}\n  password \"{quoted}\"\n"
    );
    let mut command = bare_program();
    command
        .args(["--credentials-endpoint", endpoint])
        .args(["--earthdata-host", &host])
        .args(["--endpoint-url", &world.s3_url()]);
    match way {
        Way::Token => {
            command.env("EARTHDATA_TOKEN", DEFAULT_TOKEN);
            // The token comes first: these would not do.
            command.env("EARTHDATA_USERNAME", DEFAULT_USER);
            command.env("EARTHDATA_PASSWORD", "wrong");
        }
        Way::TokenFile => {
            let file = home.path().join("token");
            std::fs::write(&file, format!("{DEFAULT_TOKEN}\n")).expect("a token file");
            command.arg("--token-file").arg(&file);
            // What an option names comes first.
            command.env("EARTHDATA_TOKEN", REVOKED_TOKEN);
        }
        Way::Variables => {
            command.env("EARTHDATA_USERNAME", DEFAULT_USER);
            command.env("EARTHDATA_PASSWORD", DEFAULT_PASSWORD);
        }
        Way::NetrcOption => {
            std::fs::write(&netrc, text).expect("a netrc");
            command.arg("--netrc").arg(&netrc);
            command.env("EARTHDATA_TOKEN", REVOKED_TOKEN);
        }
        Way::NetrcVariable => {
            std::fs::write(&netrc, text).expect("a netrc");
            command.env("NETRC", &netrc);
        }
        Way::NetrcAtHome => {
            std::fs::write(&netrc, text).expect("a netrc");
            command.env("HOME", home.path());
        }
        Way::None => {}
    }
    let mount = Mount::with(command, BUCKET);
    assert_eq!(mount.read("file"), b"content", "{way:?} at {endpoint}");
    assert!(mount.greeting.contains(endpoint), "{}", mount.greeting);
    drop(mount);
    let counters = world.counters();
    let with_password = !matches!(way, Way::Token | Way::TokenFile | Way::None);
    // A password is exchanged for a token where that is of use, and goes through the login's pages
    // elsewhere.
    let (tokens, logins, requests) = match (with_password, means) {
        (false, _) => (0, 0, 1),
        (true, Means::Everything) => (1, 0, 1),
        (true, Means::NoBearer) => (1, 1, 3),
        (true, Means::NoTokens) => (0, 1, 2),
    };
    let what = format!("{way:?} at {endpoint} with {means:?}");
    assert_eq!(counters.token_requests, tokens, "{what}");
    assert_eq!(counters.logins, logins, "{what}");
    assert_eq!(counters.credentials_requests, requests, "{what}");
    assert_eq!(counters.credentials_issued, 1, "{what}");
    assert_eq!(counters.unnamed_programs, 0, "{what}");
    assert_eq!(counters.wrong_passwords, 0);
    assert_eq!(counters.stray_authorizations, 0);
    assert_eq!(counters.forbidden_operations, 0);
}

/// What the servers can do.
#[derive(Clone, Copy, Debug)]
enum Means {
    Everything,
    /// The endpoint redirects whoever sends a token.
    NoBearer,
    /// Earthdata Login makes no tokens.
    NoTokens,
}

fn one_file_with(means: Means) -> World {
    world_with(
        [("file", Content::from("content"))],
        |settings| match means {
            Means::Everything => {}
            Means::NoBearer => settings.bearer = false,
            Means::NoTokens => settings.token_api = false,
        },
    )
}

fn one_file() -> World {
    world([("file", Content::from("content"))])
}

#[test]
fn a_token_is_enough_and_comes_first() {
    let world = one_file();
    mounts(&world, &world.tea_endpoint(), Way::Token);
    mounts(&world, &world.cumulus_endpoint(), Way::Token);
}

#[test]
fn a_token_file_comes_before_all_else() {
    let world = one_file();
    mounts(&world, &world.tea_endpoint(), Way::TokenFile);
    mounts(&world, &world.cumulus_endpoint(), Way::TokenFile);
}

#[test]
fn a_password_goes_through_the_pages_of_the_login_where_tokens_are_of_no_use() {
    for means in [Means::NoBearer, Means::NoTokens] {
        let world = one_file_with(means);
        mounts_with(&world, &world.tea_endpoint(), Way::Variables, means);
        mounts_with(&world, &world.cumulus_endpoint(), Way::Variables, means);
    }
}

#[test]
fn name_and_password_come_from_the_environment() {
    let world = one_file();
    mounts(&world, &world.tea_endpoint(), Way::Variables);
    mounts(&world, &world.cumulus_endpoint(), Way::Variables);
}

/// The password has blanks, quotes and a hash.
#[test]
fn name_and_password_come_from_a_netrc() {
    let world = one_file();
    mounts(&world, &world.tea_endpoint(), Way::NetrcOption);
    mounts(&world, &world.cumulus_endpoint(), Way::NetrcOption);
    mounts(&world, &world.tea_endpoint(), Way::NetrcVariable);
    mounts(&world, &world.cumulus_endpoint(), Way::NetrcAtHome);
}

#[test]
fn an_endpoint_without_authentication_needs_no_login() {
    let world = one_file();
    mounts(&world, &world.open_endpoint(), Way::None);
}

fn short_lives(means: Means) -> World {
    let world = one_file_with(means);
    world.set_lifetime(Duration::from_secs(3));
    world
}

/// Waits until credentials have been handed out `more` times.
fn until_renewed(world: &World, more: u64, mount: &Mount) {
    let before = world.counters().credentials_issued;
    let begin = Instant::now();
    while world.counters().credentials_issued < before + more {
        assert!(begin.elapsed() < PATIENCE, "{}", mount.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn user(name: &str, password: &str, token: &str) -> User {
    User {
        name: name.to_owned(),
        password: password.to_owned(),
        tokens: vec![token.to_owned()],
        eula_accepted: true,
    }
}

/// One login is enough for weeks: what it led to is used at each refresh.
#[test]
fn refreshes_need_no_further_login() {
    for means in [Means::Everything, Means::NoBearer, Means::NoTokens] {
        let world = short_lives(means);
        for endpoint in [world.tea_endpoint(), world.cumulus_endpoint()] {
            world.reset_counters();
            let mut command = program_at(&world, &endpoint);
            command.env("EARTHDATA_USERNAME", DEFAULT_USER);
            command.env("EARTHDATA_PASSWORD", DEFAULT_PASSWORD);
            let mount = Mount::with(command, BUCKET);
            until_renewed(&world, 2, &mount);
            let counters = world.counters();
            let logins = (counters.token_requests, counters.logins);
            let expected = match means {
                Means::Everything => (1, 0),
                Means::NoBearer => (1, 1),
                Means::NoTokens => (0, 1),
            };
            assert_eq!(logins, expected, "{means:?} at {endpoint}");
        }
    }
}

/// Tokens live 60 days.
#[test]
fn a_token_that_runs_out_during_the_mount_is_replaced_by_password() {
    let world = short_lives(Means::Everything);
    for endpoint in [world.tea_endpoint(), world.cumulus_endpoint()] {
        world.set_users(vec![User::default()]);
        let mut command = program_at(&world, &endpoint);
        command.env("EARTHDATA_USERNAME", DEFAULT_USER);
        command.env("EARTHDATA_PASSWORD", DEFAULT_PASSWORD);
        let mount = Mount::with(command, BUCKET);
        let next = "eyJ0eXAiOiJKV1QifQ.eyJ1aWQiOiJzY2llbnRpc3QifQ.bmV4dA";
        world.set_users(vec![user(DEFAULT_USER, DEFAULT_PASSWORD, next)]);
        until_renewed(&world, 2, &mount);
        assert_eq!(mount.read("file"), b"content");
        assert_eq!(world.counters().logins, 0, "{}", mount.log());
    }
}

/// TEA passes on what Earthdata Login says of it, which may be a 403.
#[test]
fn a_token_that_is_refused_by_a_403_is_replaced_by_password() {
    let world = short_lives(Means::Everything);
    let mut command = program_at(&world, &world.tea_endpoint());
    command.env("EARTHDATA_USERNAME", DEFAULT_USER);
    command.env("EARTHDATA_PASSWORD", DEFAULT_PASSWORD);
    let mount = Mount::with(command, BUCKET);
    world.reset_counters();
    let body = r#"{"status_code": 403, "error": "invalid_token"}"#;
    world.set_answer(Answer::Status(403, body.to_owned()));
    eventually("another token", || world.counters().token_requests > 0);
    world.set_answer(Answer::Normal);
    until_renewed(&world, 1, &mount);
    assert_eq!(mount.read("file"), b"content");
}

/// At each endpoint, `change` the login to that of another user, whose credentials come then.
fn changes(write: impl Fn(&Path, &str, &World), option: &str, means: Means) {
    const OTHER: &str = "eyJ0eXAiOiJKV1QifQ.eyJ1aWQiOiJvdGhlciJ9.b3RoZXI";
    let world = short_lives(means);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("login");
    for endpoint in [world.tea_endpoint(), world.cumulus_endpoint()] {
        let first = user("first", "first", DEFAULT_TOKEN);
        let second = user("second", "second", OTHER);
        world.set_users(vec![first, second.clone()]);
        write(&file, "first", &world);
        let mut command = program_at(&world, &endpoint);
        command.arg(option).arg(&file);
        let mount = Mount::with(command, BUCKET);
        write(&file, "second", &world);
        until_renewed(&world, 1, &mount);
        // From here on the first login, its token and its cookies are good for nothing.
        world.set_users(vec![second]);
        until_renewed(&world, 1, &mount);
        assert!(!mount.log().contains("cannot renew"), "{}", mount.log());
        assert_eq!(mount.read("file"), b"content");
    }
}

/// `--earthdata-host` as people copy it from a browser; the netrc has the host alone.
#[test]
fn the_login_host_may_be_a_url() {
    let world = world([("file", "content")]);
    let host = world.earthdata_host();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let netrc = directory.path().join("netrc");
    let text = format!("machine {host} login {DEFAULT_USER} password {DEFAULT_PASSWORD:?}");
    std::fs::write(&netrc, text).expect("a netrc");
    for typed in [format!("https://{host}/"), format!("{host}/")] {
        let mut command = bare_program();
        command
            .args(["--credentials-endpoint", &world.tea_endpoint()])
            .args(["--earthdata-host", &typed])
            .args(["--endpoint-url", &world.s3_url()])
            .arg("--netrc")
            .arg(&netrc);
        let mount = Mount::with(command, BUCKET);
        assert_eq!(mount.read("file"), b"content");
    }
}

#[test]
fn a_netrc_that_changes_is_used_at_the_next_refresh() {
    let write = |file: &Path, name: &str, world: &World| {
        let host = world.earthdata_host();
        let text = format!("machine {host} login {name} password {name}");
        std::fs::write(file, text).expect("a netrc");
    };
    changes(write, "--netrc", Means::Everything);
    changes(write, "--netrc", Means::NoTokens);
}

#[test]
fn a_token_file_that_changes_is_used_at_the_next_refresh() {
    let write = |file: &Path, name: &str, _: &World| {
        let token = match name {
            "first" => DEFAULT_TOKEN,
            _ => "eyJ0eXAiOiJKV1QifQ.eyJ1aWQiOiJvdGhlciJ9.b3RoZXI",
        };
        // In one step, as who looks must not see a half.
        let next = file.with_extension("next");
        std::fs::write(&next, token).expect("a token file");
        std::fs::rename(&next, file).expect("replaced");
    };
    changes(write, "--token-file", Means::Everything);
}

/// As while a file server is out of reach.
#[test]
fn a_netrc_that_is_gone_during_the_mount_does_not_end_it() {
    let world = short_lives(Means::Everything);
    let home = tempfile::tempdir().expect("a temporary directory");
    let netrc = home.path().join(".netrc");
    let host = world.earthdata_host();
    let text = format!("machine {host} login {DEFAULT_USER} password {DEFAULT_PASSWORD:?}");
    std::fs::write(&netrc, text).expect("a netrc");
    let mut by_option = program_at(&world, &world.tea_endpoint());
    by_option.arg("--netrc").arg(&netrc);
    let mut at_home = program_at(&world, &world.tea_endpoint());
    at_home.env("HOME", home.path());
    let mounts = [by_option, at_home].map(|command| Mount::with(command, BUCKET));
    std::fs::remove_file(&netrc).expect("removed");
    for mount in mounts {
        mount.log_with("the login that was found there before is used");
        until_renewed(&world, 3, &mount);
        assert!(!mount.log().contains("cannot renew"), "{}", mount.log());
    }
}

/// `--token-file <(...)`: nothing comes out of it a second time.
#[test]
fn a_token_from_a_pipe_is_kept() {
    let world = short_lives(Means::Everything);
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(DEFAULT_TOKEN.as_bytes()).expect("room");
    drop(writer);
    let mut command = program_at(&world, &world.tea_endpoint());
    command.args(["--token-file", "/dev/stdin"]).stdin(reader);
    let mount = Mount::with(command, BUCKET);
    until_renewed(&world, 2, &mount);
    assert!(!mount.log().contains("cannot renew"), "{}", mount.log());
}

/// The password is changed at Earthdata Login: the old one is sent once, and the mount heals when the
/// netrc has the new one.
#[test]
fn a_password_refused_during_the_mount_is_not_sent_again_until_the_netrc_changes() {
    let world = short_lives(Means::Everything);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let netrc = directory.path().join("netrc");
    let write = |password: &str| {
        let host = world.earthdata_host();
        let text = format!("machine {host} login u password {password}");
        std::fs::write(&netrc, text).expect("a netrc");
    };
    world.set_users(vec![user("u", "old", DEFAULT_TOKEN)]);
    write("old");
    let mut command = program_at(&world, &world.tea_endpoint());
    command.arg("--netrc").arg(&netrc);
    command.args(["--credential-wait", "1", "--metadata-ttl", "0"]);
    let mount = Mount::with(command, BUCKET);
    let next = "eyJ0eXAiOiJKV1QifQ.eyJ1aWQiOiJ1In0.bmV4dA";
    world.set_users(vec![user("u", "new", next)]);
    let begin = Instant::now();
    let error = loop {
        if let Err(error) = std::fs::read_dir(mount.root()).and_then(|d| d.last().transpose()) {
            break error;
        }
        assert!(begin.elapsed() < PATIENCE, "{}", mount.log());
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(error.raw_os_error(), Some(libc::EKEYEXPIRED));
    mount.log_with("refuses the password of user u");
    // Readers keep asking, and the program keeps trying: not with this password.
    for _ in 0..3 {
        let _ = std::fs::read_dir(mount.root()).and_then(|d| d.last().transpose());
    }
    assert_eq!(world.counters().wrong_passwords, 1);
    write("new");
    until_renewed(&world, 1, &mount);
    assert_eq!(mount.names(""), ["file"]);
    assert_eq!(world.counters().wrong_passwords, 1);
}
