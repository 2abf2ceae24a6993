//! The login dances and bearer tokens of both families, and what they answer when it goes wrong.

use mock_earthdata::{
    Answer, DEFAULT_PASSWORD, DEFAULT_TOKEN, DEFAULT_USER, Host, REVOKED_TOKEN, Settings, User,
    World,
};
use reqwest::Response;
use serde_json::Value;

use crate::support::{header, http};

fn world() -> World {
    World::start(Settings::default()).expect("loopback has free ports")
}

async fn get(url: &str) -> Response {
    http().get(url).send().await.expect("an answer")
}

async fn log_in(url: &str, password: &str) -> Response {
    let request = http().get(url).basic_auth(DEFAULT_USER, Some(password));
    request.send().await.expect("an answer")
}

async fn bearer(url: &str, token: &str) -> Response {
    let request = http()
        .get(url)
        .header("authorization", format!("Bearer {token}"));
    request.send().await.expect("an answer")
}

async fn json(response: Response) -> Value {
    serde_json::from_str(&response.text().await.expect("a body")).expect("JSON")
}

fn location(response: &Response) -> String {
    header(response, "location").to_owned()
}

fn assert_credentials(body: &Value) {
    let fields = [
        "accessKeyId",
        "secretAccessKey",
        "sessionToken",
        "expiration",
    ];
    let object = body.as_object().expect("an object");
    assert_eq!(object.len(), fields.len());
    for field in fields {
        assert!(object[field].is_string(), "{field} in {body}");
    }
    let expiration = object["expiration"].as_str().expect("a string");
    assert_eq!(expiration.len(), "2021-01-27 00:50:09+00:00".len());
    assert!(expiration.ends_with("+00:00"), "{expiration}");
}

#[tokio::test]
async fn tea_dance() {
    let world = world();
    let first = get(&world.tea_endpoint()).await;
    assert_eq!(first.status(), 302);
    let authorize = location(&first);
    let prefix = format!(
        "http://{}/oauth/authorize?client_id=",
        world.earthdata_host()
    );
    assert!(authorize.starts_with(&prefix), "{authorize}");
    assert!(authorize.contains("&state=%2Fs3credentials"), "{authorize}");
    assert!(authorize.ends_with("&app_type=401"), "{authorize}");
    assert_eq!(get(&authorize).await.status(), 401);

    let back = log_in(&authorize, DEFAULT_PASSWORD).await;
    assert_eq!(back.status(), 302);
    let callback = get(&location(&back)).await;
    assert_eq!(callback.status(), 301);
    assert_eq!(location(&callback), world.tea_endpoint());
    let cookie = header(&callback, "set-cookie").to_owned();
    assert!(cookie.starts_with("asf-urs="), "{cookie}");
    let pair = cookie.split(';').next().expect("a pair");
    let last = http()
        .get(world.tea_endpoint())
        .header("cookie", pair)
        .send()
        .await
        .expect("an answer");
    assert_eq!(last.status(), 200);
    assert_eq!(header(&last, "content-type"), "application/json");
    assert!(last.headers().contains_key("date"));
    assert_credentials(&json(last).await);

    // A code is good once, a cookie at its own host only.
    assert_eq!(get(&location(&back)).await.status(), 400);
    let renamed = pair.replace("asf-urs", "accessToken");
    let elsewhere = http()
        .get(world.cumulus_endpoint())
        .header("cookie", renamed)
        .send()
        .await
        .expect("an answer");
    assert_eq!(elsewhere.status(), 307);

    let counters = world.counters();
    assert_eq!(counters.logins, 1);
    assert_eq!(counters.credentials_requests, 3);
    assert_eq!(counters.credentials_issued, 1);
    let secrets = world.issued_secrets();
    let value = pair.split('=').nth(1).expect("a value");
    assert!(secrets.iter().any(|secret| secret == value));
    assert_eq!(
        secrets.len(),
        4,
        "a code, a cookie, a secret key and a session token"
    );
}

#[tokio::test]
async fn cumulus_dance() {
    let world = world();
    let first = get(&world.cumulus_endpoint()).await;
    assert_eq!(first.status(), 307);
    let authorize = location(&first);
    assert!(!authorize.contains("app_type"), "{authorize}");
    let form = get(&authorize).await;
    assert_eq!(form.status(), 200);
    assert!(header(&form, "content-type").starts_with("text/html"));

    let back = log_in(&authorize, DEFAULT_PASSWORD).await;
    let callback = get(&location(&back)).await;
    assert_eq!(callback.status(), 307);
    let cookie = header(&callback, "set-cookie").to_owned();
    assert!(
        cookie.starts_with("accessToken=") && cookie.ends_with("; HttpOnly; SameSite=Strict"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().expect("a pair");
    let last = http()
        .get(location(&callback))
        .header("cookie", pair)
        .send()
        .await
        .expect("an answer");
    assert_eq!(last.status(), 200);
    assert!(
        header(&last, "content-type").starts_with("text/html"),
        "as PO.DAAC labels it"
    );
    assert_credentials(&json(last).await);
}

#[tokio::test]
async fn the_login_form_works_too() {
    let world = world();
    let authorize = location(&get(&world.tea_endpoint()).await);
    let pair = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD
            .encode(format!("{DEFAULT_USER}:{DEFAULT_PASSWORD}"))
    };
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("credentials", &pair)
        .finish();
    let request = http()
        .post(&authorize)
        .header("origin", world.tea_endpoint())
        .body(form);
    let back = request.send().await.expect("an answer");
    assert_eq!(back.status(), 302);
    assert_eq!(get(&location(&back)).await.status(), 301);
}

#[tokio::test]
async fn only_registered_places_get_a_code() {
    let world = world();
    let authorize = location(&get(&world.tea_endpoint()).await);
    let tea = world
        .tea_endpoint()
        .replace("/s3credentials", "")
        .replace("http://", "");
    let elsewhere = authorize.replace(&tea.replace(':', "%3A"), "127.0.0.9%3A80");
    assert_ne!(authorize, elsewhere);
    assert_eq!(log_in(&elsewhere, DEFAULT_PASSWORD).await.status(), 400);
    assert_eq!(world.counters().logins, 0);
}

#[tokio::test]
async fn five_wrong_passwords_lock() {
    let world = world();
    let authorize = location(&get(&world.tea_endpoint()).await);
    for _ in 0..5 {
        assert_eq!(log_in(&authorize, "wrong").await.status(), 401);
    }
    assert_eq!(log_in(&authorize, "wrong").await.status(), 403);
    let locked = log_in(&authorize, DEFAULT_PASSWORD).await;
    assert_eq!(locked.status(), 403);
    assert!(locked.text().await.expect("a body").contains("locked"));
    assert_eq!(world.counters().wrong_passwords, 7);
    assert_eq!(world.counters().logins, 0);
}

#[tokio::test]
async fn bearer_tokens() {
    let world = world();
    for endpoint in [world.tea_endpoint(), world.cumulus_endpoint()] {
        let good = bearer(&endpoint, DEFAULT_TOKEN).await;
        assert_eq!(good.status(), 200);
        assert_eq!(
            good.headers().contains_key("set-cookie"),
            endpoint == world.tea_endpoint()
        );
        assert_credentials(&json(good).await);
    }
    let revoked = bearer(&world.tea_endpoint(), REVOKED_TOKEN).await;
    assert_eq!(revoked.status(), 401);
    assert_eq!(json(revoked).await["error"], "invalid_token");
    assert_eq!(bearer(&world.tea_endpoint(), "rubbish").await.status(), 302);
    assert_eq!(
        bearer(&world.tea_endpoint(), "two words").await.status(),
        400
    );
    for token in [REVOKED_TOKEN, "rubbish", "two words"] {
        assert_eq!(bearer(&world.cumulus_endpoint(), token).await.status(), 307);
    }
    assert_eq!(world.counters().stray_authorizations, 0);
}

#[tokio::test]
async fn endpoints_without_tokens_and_a_login_that_makes_none() {
    let world = World::start(Settings {
        bearer: false,
        token_api: false,
        ..Settings::default()
    })
    .expect("loopback has free ports");
    assert_eq!(
        bearer(&world.tea_endpoint(), DEFAULT_TOKEN).await.status(),
        302
    );
    assert_eq!(
        bearer(&world.cumulus_endpoint(), DEFAULT_TOKEN)
            .await
            .status(),
        307
    );
    let host = world.earthdata_host();
    let url = format!("http://{host}/api/users/find_or_create_token");
    let request = http()
        .post(url)
        .basic_auth(DEFAULT_USER, Some(DEFAULT_PASSWORD));
    assert_eq!(request.send().await.expect("an answer").status(), 404);
    assert_eq!(world.counters().credentials_issued, 0);
}

#[tokio::test]
async fn programs_say_which_they_are() {
    let world = world();
    let ask = || http().get(world.open_endpoint());
    ask()
        .header("app-name", "x")
        .send()
        .await
        .expect("an answer");
    assert_eq!(world.counters().unnamed_programs, 0);
    ask().send().await.expect("an answer");
    assert_eq!(world.counters().unnamed_programs, 1);
}

#[tokio::test]
async fn each_host_can_refuse_connections() {
    let world = world();
    let login = format!("http://{}/approve_app", world.earthdata_host());
    for (host, url) in [
        (Host::Login, login),
        (Host::Tea, world.tea_endpoint()),
        (Host::Cumulus, world.cumulus_endpoint()),
    ] {
        world.refuse_connections_of(host, true);
        assert!(http().get(&url).send().await.is_err(), "{host:?}");
        world.refuse_connections_of(host, false);
        assert!(http().get(&url).send().await.is_ok(), "{host:?}");
    }
}

#[tokio::test]
async fn a_password_at_a_distribution_host_is_ignored_and_noticed() {
    let world = world();
    assert_eq!(
        log_in(&world.tea_endpoint(), DEFAULT_PASSWORD)
            .await
            .status(),
        302
    );
    assert_eq!(
        log_in(&world.cumulus_endpoint(), DEFAULT_PASSWORD)
            .await
            .status(),
        307
    );
    assert_eq!(world.counters().stray_authorizations, 2);
}

#[tokio::test]
async fn find_or_create_token() {
    let world = World::start(Settings {
        users: vec![User {
            tokens: Vec::new(),
            ..User::default()
        }],
        ..Settings::default()
    })
    .expect("loopback has free ports");
    let url = format!(
        "http://{}/api/users/find_or_create_token",
        world.earthdata_host()
    );
    let ask = async |password: &str| {
        let request = http().post(&url).basic_auth(DEFAULT_USER, Some(password));
        request.send().await.expect("an answer")
    };
    let first = json(ask(DEFAULT_PASSWORD).await).await;
    let again = json(ask(DEFAULT_PASSWORD).await).await;
    assert_eq!(first["access_token"], again["access_token"]);
    assert_eq!(first["token_type"], "Bearer");
    let date: Vec<usize> = first["expiration_date"]
        .as_str()
        .expect("a date")
        .split('/')
        .map(str::len)
        .collect();
    assert_eq!(date, [2, 2, 4]);
    assert_eq!(ask("wrong").await.status(), 401);
    let token = first["access_token"].as_str().expect("a token");
    assert_eq!(bearer(&world.tea_endpoint(), token).await.status(), 200);
    assert_eq!(world.counters().token_requests, 3);
    assert_eq!(world.counters().wrong_passwords, 1);
}

#[tokio::test]
async fn an_endpoint_in_other_hands() {
    let world = world();
    world.set_answer(Answer::Redirect(307, "http://127.0.0.9:9/x".to_owned()));
    for endpoint in [world.tea_endpoint(), world.cumulus_endpoint()] {
        let response = bearer(&endpoint, DEFAULT_TOKEN).await;
        assert_eq!(response.status(), 307);
        assert_eq!(location(&response), "http://127.0.0.9:9/x");
    }
}

#[tokio::test]
async fn a_licence_not_accepted() {
    let world = World::start(Settings {
        users: vec![User {
            eula_accepted: false,
            ..User::default()
        }],
        ..Settings::default()
    })
    .expect("loopback has free ports");
    let tea = bearer(&world.tea_endpoint(), DEFAULT_TOKEN).await;
    assert_eq!(tea.status(), 403);
    let body = json(tea).await;
    assert_eq!(body["error_description"], "EULA Acceptance Failure");
    assert!(
        body["resolution_url"]
            .as_str()
            .is_some_and(|url| url.contains("/approve_app?client_id="))
    );
    let authorize = location(&get(&world.cumulus_endpoint()).await);
    let page = location(&log_in(&authorize, DEFAULT_PASSWORD).await);
    let page = get(&page).await;
    assert_eq!(page.status(), 200);
    assert!(header(&page, "content-type").starts_with("text/html"));
}

#[tokio::test]
async fn answers_on_demand() {
    let world = world();
    let endpoint = world.tea_endpoint();
    let ask = || bearer(&endpoint, DEFAULT_TOKEN);

    world.set_answer(Answer::Status(
        503,
        "S3 Credentials Endpoint has been disabled".to_owned(),
    ));
    assert_eq!(ask().await.status(), 503);
    world.set_answer(Answer::Html);
    let html = ask().await;
    assert_eq!(html.status(), 200);
    assert!(
        html.text()
            .await
            .expect("a body")
            .starts_with("<!DOCTYPE html>")
    );
    world.set_answer(Answer::BadJson);
    let bad = ask().await.text().await.expect("a body");
    assert!(serde_json::from_str::<Value>(&bad).is_err());
    world.set_answer(Answer::MissingField);
    assert!(json(ask().await).await.get("sessionToken").is_none());
    world.set_answer(Answer::EulaRefused);
    assert_eq!(ask().await.status(), 403);
    world.set_answer(Answer::NoDataAccess);
    assert_eq!(ask().await.status(), 403);
    assert_eq!(world.counters().credentials_issued, 0);
    world.set_answer(Answer::Hang);
    let asked = world.counters().credentials_requests;
    let hangs = async {
        let pause = std::time::Duration::from_millis(50);
        // Not before it has arrived: it would get the next answer.
        while world.counters().credentials_requests == asked {
            tokio::time::sleep(pause).await;
        }
        tokio::time::sleep(pause).await;
    };
    tokio::select! {
        answer = ask() => panic!("{}", answer.status()),
        () = hangs => {}
    }
    world.set_answer(Answer::Normal);
    assert_eq!(ask().await.status(), 200);
    assert_eq!(get(&world.open_endpoint()).await.status(), 200);
    assert_eq!(world.counters().credentials_issued, 2);
}

#[tokio::test]
async fn every_second_request_fails() {
    let world = world();
    world.set_fail_every(Some(2));
    let mut statuses = Vec::new();
    for _ in 0..6 {
        // The first half of a dance is no turn: or a client that dances would fail for ever.
        assert_eq!(get(&world.tea_endpoint()).await.status(), 302);
        statuses.push(
            bearer(&world.tea_endpoint(), DEFAULT_TOKEN)
                .await
                .status()
                .as_u16(),
        );
    }
    assert_eq!(statuses, [200, 500, 200, 500, 200, 500]);
}
