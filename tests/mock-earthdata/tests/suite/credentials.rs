//! How S3 judges credentials.

use std::time::{Duration, SystemTime};

use mock_earthdata::{DEFAULT_TOKEN, Settings};
use reqwest::Method;

use crate::support::{BUCKET, S3, elements, error_code, http, settings, world_of};

#[tokio::test]
async fn expired_on_get_list_and_head() {
    let world = world_of(&["a"]);
    let s3 = S3::new(&world).await;
    assert_eq!(s3.get("/a", &[]).await.status(), 200);
    world.expire_all();
    assert_eq!(
        error_code(s3.get("/a", &[]).await, 400).await,
        "ExpiredToken"
    );
    assert_eq!(
        error_code(s3.list_response(&[]).await, 400).await,
        "ExpiredToken"
    );
    let head = s3.head("/a", &[]).await;
    assert_eq!(head.status(), 400);
    assert!(head.headers().get("content-type").is_none());
    assert_eq!(head.bytes().await.expect("no body").len(), 0);
    assert_eq!(world.counters().expired_refused, 3);
    assert_eq!(world.counters().errors[&400], 3);
    // New ones are good.
    assert_eq!(S3::new(&world).await.head("/a", &[]).await.status(), 200);
}

#[tokio::test]
async fn credentials_end_by_themselves() {
    let world = mock_earthdata::World::start(Settings {
        lifetime: Duration::from_secs(1),
        ..settings([])
    })
    .expect("loopback has free ports");
    let s3 = S3::new(&world).await;
    assert_eq!(s3.list_response(&[]).await.status(), 200);
    tokio::time::sleep(Duration::from_millis(1050)).await;
    assert_eq!(s3.list_response(&[]).await.status(), 400);
}

#[tokio::test]
async fn signed_before_the_end_or_after_it() {
    let world = world_of(&["a"]);
    let s3 = S3::new(&world).await;
    world.expire_all();
    let url = format!("{}/{BUCKET}/a", world.s3_url());
    let now = SystemTime::now();
    for (signed, late) in [
        (now - Duration::from_secs(2), 0),
        (now + Duration::from_secs(2), 1),
    ] {
        let refused = s3.try_send(Method::GET, &url, &[], signed).await;
        assert_eq!(
            error_code(refused.expect("an answer"), 400).await,
            "ExpiredToken"
        );
        assert_eq!(world.counters().expired_signed, late);
    }
    assert_eq!(world.counters().expired_refused, 2);
}

#[tokio::test]
async fn what_is_refused_and_how() {
    let world = world_of(&["a"]);
    let good = S3::new(&world).await;
    let other = S3::new(&world).await;
    assert_ne!(good.access_key, other.access_key);

    let unsigned = http()
        .get(format!("{}/{BUCKET}/a", world.s3_url()))
        .send()
        .await
        .expect("an answer");
    assert_eq!(error_code(unsigned, 403).await, "AccessDenied");

    let unknown = S3 {
        access_key: "ASIANOBODY0000000000".to_owned(),
        ..S3::new(&world).await
    };
    assert_eq!(
        error_code(unknown.get("/a", &[]).await, 403).await,
        "InvalidAccessKeyId"
    );

    let foreign = S3 {
        token: other.token.clone(),
        ..S3::new(&world).await
    };
    assert_eq!(
        error_code(foreign.get("/a", &[]).await, 400).await,
        "InvalidToken"
    );

    let without = S3 {
        token: None,
        ..S3::new(&world).await
    };
    assert_eq!(
        error_code(without.get("/a", &[]).await, 403).await,
        "InvalidAccessKeyId"
    );

    let wrong = S3 {
        secret_key: other.secret_key.clone(),
        ..S3::new(&world).await
    };
    assert_eq!(
        error_code(wrong.get("/a", &[]).await, 403).await,
        "SignatureDoesNotMatch"
    );
    let head = wrong.head("/a", &[]).await;
    assert_eq!(head.status(), 403);
    assert_eq!(head.bytes().await.expect("no body").len(), 0);

    assert_eq!(good.get("/a", &[]).await.status(), 200);
    assert_eq!(world.counters().errors[&403], 5);
}

#[tokio::test]
async fn keys_forgotten_and_tokens_garbled() {
    let world = world_of(&["a"]);
    let s3 = S3::new(&world).await;
    world.garble_tokens();
    assert_eq!(
        error_code(s3.get("/a", &[]).await, 400).await,
        "InvalidToken"
    );
    world.forget_all();
    assert_eq!(
        error_code(s3.get("/a", &[]).await, 403).await,
        "InvalidAccessKeyId"
    );
    assert_eq!(S3::new(&world).await.get("/a", &[]).await.status(), 200);
}

#[tokio::test]
async fn an_earthdata_token_at_s3_is_noticed() {
    let world = world_of(&["a"]);
    let url = format!("{}/{BUCKET}/a", world.s3_url());
    let response = http()
        .get(url)
        .bearer_auth(DEFAULT_TOKEN)
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 403);
    assert_eq!(world.counters().stray_authorizations, 1);
}

#[tokio::test]
async fn other_operations_are_forbidden_and_counted() {
    let world = world_of(&["a"]);
    let s3 = S3::new(&world).await;
    for (method, path) in [
        (Method::PUT, "/a"),
        (Method::DELETE, "/a"),
        (Method::HEAD, ""),
        (Method::GET, "?location="),
        (Method::GET, "?prefix=a"),
        (Method::GET, "/a?acl="),
        (Method::GET, "/a?versionId=1"),
        (Method::POST, "?delete="),
    ] {
        let response = s3.send(method.clone(), path, &[]).await;
        assert_eq!(response.status(), 403, "{method} {path}");
    }
    assert_eq!(world.counters().forbidden_operations, 8);
    // The SDK names the operation in the query; that is no subresource.
    assert_eq!(s3.get("/a?x-id=GetObject", &[]).await.status(), 200);
    assert_eq!(world.counters().forbidden_operations, 8);
}

#[tokio::test]
async fn a_bucket_that_is_not_there() {
    let world = world_of(&[]);
    let s3 = S3::new(&world).await;
    let url = format!("{}/no-such-bucket", world.s3_url());
    let list = s3
        .send_to(Method::GET, &format!("{url}?list-type=2"), &[])
        .await;
    assert_eq!(list.status(), 404);
    let xml = list.text().await.expect("a body");
    assert_eq!(elements(&xml, "Code"), ["NoSuchBucket"]);
    let get = s3.send_to(Method::GET, &format!("{url}/a"), &[]).await;
    assert_eq!(error_code(get, 404).await, "NoSuchBucket");
}
