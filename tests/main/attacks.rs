//! Servers that try to get a login out of the program.

use std::process::Command;

use mock_earthdata::{Answer, DEFAULT_PASSWORD, DEFAULT_TOKEN, World};

use crate::failing::{refusal, says, small_world, with_password, with_token};
use crate::scripted::{Scripted, header, reply};
use crate::support::{self, program_at, world_with};

/// A server that is told nothing.
fn trap(ip: &str) -> Scripted {
    Scripted::start(ip, |_| {
        reply("401 Unauthorized", "WWW-Authenticate: Basic\r\n", "")
    })
}

/// Both kinds of login at both families of endpoints.
fn logins(world: &World) -> [Command; 4] {
    let (tea, cumulus) = (world.tea_endpoint(), world.cumulus_endpoint());
    [
        with_password(program_at(world, &tea), DEFAULT_PASSWORD),
        with_password(program_at(world, &cumulus), DEFAULT_PASSWORD),
        with_token(program_at(world, &tea), DEFAULT_TOKEN),
        with_token(program_at(world, &cumulus), DEFAULT_TOKEN),
    ]
}

/// What is no answer to a login, at an endpoint that answers so.
fn no_login(world: &World, answer: &Answer) -> Vec<String> {
    world.set_answer(answer.clone());
    let messages = logins(world).into_iter().map(refusal).collect();
    assert_eq!(world.counters().stray_authorizations, 0, "{answer:?}");
    messages
}

#[test]
fn a_redirect_to_another_host_is_not_followed() {
    let world = small_world();
    let trap = trap("127.0.0.9");
    for status in [301, 302, 303, 307, 308] {
        let target = format!("{}/oauth/authorize?client_id=x", trap.url());
        for message in no_login(&world, &Answer::Redirect(status, target)) {
            // A redirect in answer to a token means that it is not accepted, wherever it leads.
            let told = message.contains(&format!("redirected the login to {}", trap.url()))
                || message.contains("does not accept the token");
            assert!(told && !message.contains("client_id"), "{message}");
        }
    }
    assert_eq!(trap.heads(), [""; 0]);
}

#[test]
fn a_redirect_to_a_host_that_looks_like_the_login_host_is_not_followed() {
    let world = small_world();
    let trap = trap("127.0.0.9");
    let (login, evil) = (world.earthdata_host(), trap.url().replace("http://", ""));
    let port = login.split(':').next_back().expect("a port");
    for target in [
        format!("http://{login}@{evil}/oauth/authorize"),
        format!("http://{login}%2f@{evil}/oauth/authorize"),
        format!("//{evil}/oauth/authorize?{login}"),
        format!("http:\\\\{evil}\\{login}"),
        format!("http://127.0.0.9:{port}/oauth/authorize"),
        format!("http://localhost:{port}/oauth/authorize"),
        format!("http://[::1]:{port}/oauth/authorize"),
        format!("http://{login}.example.org/oauth/authorize"),
        format!("https://{login}.example.org/oauth/authorize"),
        "https://urs.earthdata.nasa.gov.example.org/oauth/authorize".to_owned(),
    ] {
        for message in no_login(&world, &Answer::Redirect(302, target.clone())) {
            let told = message.contains("which is not followed")
                || message.contains("does not accept the token");
            assert!(told, "{target}: {message}");
        }
    }
    assert_eq!(trap.heads(), [""; 0]);
    assert_eq!(world.counters().logins, 0);
}

/// The same host over plain http, and any other.
#[test]
fn a_redirect_from_https_to_http_is_not_followed() {
    let world = world_with([("file", "content")], |settings| settings.tls = true);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let authority = directory.path().join("ca.pem");
    std::fs::write(&authority, world.ca_pem()).expect("a file");
    let trap = trap("127.0.0.9");
    let endpoint = world.tea_endpoint().replace("https://", "http://");
    for target in [
        format!("http://{}/oauth/authorize", world.earthdata_host()),
        format!("{}/oauth/authorize", trap.url()),
        "http://urs.earthdata.nasa.gov/oauth/authorize".to_owned(),
        endpoint,
    ] {
        world.set_answer(Answer::Redirect(302, target.clone()));
        let command = program_at(&world, &world.tea_endpoint());
        let mut command = with_password(command, DEFAULT_PASSWORD);
        command.env("AWS_CA_BUNDLE", &authority);
        let message = refusal(command);
        says(&message, &["which is not followed", "it is not https"]);
    }
    assert_eq!(trap.heads(), [""; 0]);
}

/// A login host that passes a login on: by GET after the password, and by POST with it.
#[test]
fn what_the_login_host_is_sent_goes_nowhere_else() {
    let world = small_world();
    for status in [
        "301 Moved",
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let trap = trap("127.0.0.9");
        for target in [trap.url(), world.tea_endpoint()] {
            let location = format!("Location: {target}\r\n");
            let login = Scripted::start("127.0.0.1", move |_| reply(status, &location, ""));
            let authorize = format!("{}/oauth/authorize", login.url());
            world.set_answer(Answer::Redirect(302, authorize));
            let command = program_at(&world, &world.tea_endpoint());
            refusal(at_login_host(
                with_password(command, DEFAULT_PASSWORD),
                &login,
            ));
            // The password was there to be had: by the login host alone.
            let heads = login.heads();
            let posted = heads.iter().filter(|head| head.starts_with("POST "));
            assert_eq!(posted.count(), 1);
            assert!(
                heads
                    .iter()
                    .all(|head| header(head, "authorization").is_some())
            );
        }
        assert_eq!(trap.heads(), [""; 0]);
    }
    assert_eq!(world.counters().stray_authorizations, 0);
}

/// `command` with another Earthdata Login host than the one of its world.
fn at_login_host(command: Command, login: &Scripted) -> Command {
    let mut copy = Command::new(command.get_program());
    let mut arguments = command.get_args();
    while let Some(argument) = arguments.next() {
        copy.arg(argument);
        if argument == "--earthdata-host" {
            copy.arg(login.url().replace("http://", ""));
            arguments.next();
        }
    }
    support::take_environment(&mut copy, &command);
    copy
}

#[test]
fn cookies_of_the_endpoint_stay_there() {
    let world = small_world();
    let login = trap("127.0.0.1");
    let target = login.url();
    let endpoint = Scripted::start("127.0.0.2", move |_| {
        let headers = format!(
            "Location: {target}/oauth/authorize\r\nSet-Cookie: a=of-the-endpoint; Path=/\r\n\
             Set-Cookie: b=of-the-endpoint; Domain=127.0.0.1; Path=/\r\n"
        );
        reply("302 Found", &headers, "")
    });
    let command = program_at(&world, &format!("{}/s3credentials", endpoint.url()));
    let message = refusal(at_login_host(with_password(command, "x"), &login));
    says(&message, &["refuses the password"]);
    for head in login.heads() {
        assert_eq!(header(&head, "cookie"), None);
    }
    for head in endpoint.heads() {
        assert_eq!(header(&head, "authorization"), None);
    }
}

#[test]
fn a_circle_of_redirects_is_left_after_ten() {
    let world = small_world();
    let circle = Scripted::start("127.0.0.2", |_| {
        reply("302 Found", "Location: /s3credentials\r\n", "")
    });
    let endpoint = format!("{}/s3credentials", circle.url());
    let message = refusal(with_password(
        program_at(&world, &endpoint),
        DEFAULT_PASSWORD,
    ));
    says(&message, &["redirect in a circle", &circle.url()]);
    // The token that the password was exchanged for goes to the endpoint, and is not repeated.
    let heads = circle.heads();
    let sent: Vec<_> = heads
        .iter()
        .map(|head| header(head, "authorization"))
        .collect();
    assert_eq!(sent[0], Some(format!("Bearer {DEFAULT_TOKEN}").as_str()));
    assert_eq!(sent[1..], [None; 11]);
}

/// Neither the memory nor the patience of the program is at the mercy of a server.
#[test]
fn an_answer_larger_than_64_kib_is_refused() {
    let world = small_world();
    let padding = "x".repeat(65 << 10);
    let body = format!(
        r#"{{"accessKeyId":"A","secretAccessKey":"b","sessionToken":"{padding}","expiration":"2999-01-01"}}"#
    );
    for message in no_login(&world, &Answer::Status(200, body)) {
        says(&message, &["more than 64 KiB"]);
        assert!(!message.contains("xxxx"), "{message}");
    }
}

/// What a server says gets into messages as plain text: nothing that a terminal obeys.
#[test]
fn a_server_does_not_write_to_the_terminal() {
    let world = small_world();
    let escape = r#""\u001b]0;owned\u0007""#;
    for body in [
        format!(r#"{{"error_description":{escape}}}"#),
        r#"{"resolution_url":"https://x.org/\u001b]0;owned\u0007"}"#.to_owned(),
        r#"{"resolution_url":"javascript:owned"}"#.to_owned(),
        "\u{1b}]0;owned\u{7}".to_owned(),
    ] {
        for message in no_login(&world, &Answer::Status(403, body)) {
            assert!(
                message.contains("HTTP 403") || message.contains("EULA"),
                "{message}"
            );
            let is_plain = |c: char| c == '\n' || !c.is_control();
            assert!(message.chars().all(is_plain), "{message:?}");
        }
    }
}
