//! Faults of S3's answers, and the rules that say when they happen.

use std::time::{Duration, SystemTime};

use mock_earthdata::{Content, Fault, FaultRule, Op, Settings, World};
use reqwest::Method;

use crate::support::{
    BUCKET, S3, credentials, elements, error_code, header, http, settings, world_of,
};

/// A world with a few keys, checked and lean.
fn worlds(keys: &[&str]) -> [World; 2] {
    [false, true].map(|lean| {
        let objects = keys
            .iter()
            .map(|key| ((*key).to_owned(), Content::from(key.as_bytes().to_vec())));
        let settings = Settings {
            lean,
            ..settings(objects)
        };
        World::start(settings).expect("loopback has free ports")
    })
}

#[tokio::test]
async fn errors() {
    for world in worlds(&["k"]) {
        let s3 = S3::new(&world).await;
        for (fault, status, code) in [
            (Fault::SlowDown, 503, "SlowDown"),
            (Fault::InternalError, 500, "InternalError"),
            (Fault::AccessDenied, 403, "AccessDenied"),
            (Fault::ExplicitDeny, 403, "AccessDenied"),
            (Fault::Expired, 400, "ExpiredToken"),
            (Fault::InvalidRequest, 400, "InvalidRequest"),
            (Fault::TimeTooSkewed, 403, "RequestTimeTooSkewed"),
            (
                Fault::OtherRegion("eu-north-1".to_owned()),
                301,
                "PermanentRedirect",
            ),
        ] {
            world.clear_faults();
            world.script(FaultRule::on_any().times(3).fault(fault.clone()));
            assert_eq!(error_code(s3.get("/k", &[]).await, status).await, code);
            assert_eq!(error_code(s3.list_response(&[]).await, status).await, code);
            let head = s3.head("/k", &[]).await;
            assert_eq!(head.status(), status);
            let region = head.headers().get("x-amz-bucket-region");
            assert_eq!(region.is_some(), matches!(fault, Fault::OtherRegion(_)));
            assert!(!head.headers().contains_key("location"));
            assert!(head.bytes().await.expect("no body").is_empty());
            assert_eq!(world.fired(), [3]);
            assert_eq!(s3.get("/k", &[]).await.status(), 200);
        }
        assert_eq!(world.counters().expired_refused, 3);
    }
}

#[tokio::test]
async fn archived_for_a_get() {
    for world in worlds(&["k"]) {
        let s3 = S3::new(&world).await;
        world.script(FaultRule::on_any().fault(Fault::Archived));
        assert_eq!(s3.head("/k", &[]).await.status(), 200);
        let refused = s3.get("/k", &[]).await;
        assert_eq!(error_code(refused, 403).await, "InvalidObjectState");
        assert_eq!(world.fired(), [1]);
    }
}

#[tokio::test]
async fn etags_changed_and_missing() {
    for world in worlds(&["k"]) {
        let s3 = S3::new(&world).await;
        let get = s3.get("/k", &[]).await;
        let true_etag = header(&get, "etag").to_owned();
        world.script(FaultRule::on_any().fault(Fault::ChangedEtag));
        let head = s3.head("/k", &[]).await;
        let other = header(&head, "etag").to_owned();
        assert_ne!(other, true_etag);
        let get = s3.get("/k", &[]).await;
        assert_eq!(header(&get, "etag"), other);
        assert!(s3.list(&[]).await.contains(other.trim_matches('"')));
        let stale = s3.get("/k", &[("if-match", &true_etag)]).await;
        assert_eq!(error_code(stale, 412).await, "PreconditionFailed");
        assert_eq!(s3.get("/k", &[("if-match", &other)]).await.status(), 200);
        assert_eq!(world.fired(), [5]);

        world.clear_faults();
        world.script(FaultRule::on_any().fault(Fault::MissingEtag));
        assert!(!s3.head("/k", &[]).await.headers().contains_key("etag"));
        assert!(!s3.get("/k", &[]).await.headers().contains_key("etag"));
        assert!(elements(&s3.list(&[]).await, "ETag").is_empty());
        let matching = s3.get("/k", &[("if-match", &true_etag)]).await;
        assert_eq!(matching.status(), 200);
        assert_eq!(world.fired(), [4]);
    }
}

#[tokio::test]
async fn ranges_wrong_and_ignored() {
    for world in worlds(&["0123456789"]) {
        let s3 = S3::new(&world).await;
        world.script(
            FaultRule::on(Op::Get)
                .times(1)
                .fault(Fault::WrongContentRange),
        );
        world.script(FaultRule::on(Op::Get).times(1).fault(Fault::IgnoreRange));
        assert_eq!(s3.get("/0123456789", &[]).await.status(), 200);
        assert_eq!(world.fired(), [0, 0], "no range, nothing to be wrong");
        let range = [("range", "bytes=2-4")];
        let wrong = s3.get("/0123456789", &range).await;
        assert_eq!(wrong.status(), 206);
        assert_eq!(header(&wrong, "content-range"), "bytes 3-5/10");
        assert_eq!(wrong.text().await.expect("a body"), "234");
        let whole = s3.get("/0123456789", &range).await;
        assert_eq!(whole.status(), 200);
        assert!(!whole.headers().contains_key("content-range"));
        assert_eq!(whole.text().await.expect("a body"), "0123456789");
        assert_eq!(world.fired(), [1, 1]);
        assert_eq!(s3.get("/0123456789", &range).await.status(), 206);
    }
}

#[tokio::test]
async fn listings_that_are_none() {
    for world in worlds(&["a", "b", "c"]) {
        let s3 = S3::new(&world).await;
        world.script(FaultRule::on(Op::List).times(1).fault(Fault::NotXml));
        world.script(FaultRule::on(Op::List).times(1).fault(Fault::CutXml));
        assert!(s3.list(&[]).await.starts_with("<!DOCTYPE html>"));
        // Its Content-Length fits, or the client would complain.
        let cut = s3.list(&[]).await;
        assert!(cut.contains("<ListBucketResult"), "{cut}");
        assert!(!cut.contains("</ListBucketResult>"), "{cut}");
        assert_eq!(world.fired(), [1, 1]);
        assert_eq!(elements(&s3.list(&[]).await, "Key"), ["a", "b", "c"]);
    }
}

#[tokio::test]
async fn tokens_that_lead_nowhere() {
    for world in worlds(&["a", "b", "c"]) {
        let s3 = S3::new(&world).await;
        // Two keys a page; follows the token for so many pages.
        let walk = async |pages: usize| {
            let mut seen = Vec::new();
            let mut token: Option<String> = None;
            for _ in 0..pages {
                let mut parameters = vec![("max-keys", "2")];
                if let Some(token) = &token {
                    parameters.push(("continuation-token", token));
                }
                let xml = s3.list(&parameters).await;
                seen.push(elements(&xml, "Key").concat());
                token = elements(&xml, "NextContinuationToken").pop();
                assert_eq!(xml.contains("<IsTruncated>true<"), token.is_some());
            }
            seen
        };
        world.script(FaultRule::on(Op::List).fault(Fault::RepeatToken));
        assert_eq!(walk(3).await, ["ab", "ab", "ab"]);
        assert_eq!(world.fired(), [3]);
        world.clear_faults();
        world.script(FaultRule::on(Op::List).skip(1).fault(Fault::RepeatToken));
        assert_eq!(walk(4).await, ["ab", "c", "c", "c"]);
        world.clear_faults();
        world.script(FaultRule::on(Op::List).times(3).fault(Fault::EmptyPage));
        assert_eq!(walk(5).await, ["", "", "", "ab", "c"]);
        world.clear_faults();
        world.script(FaultRule::on(Op::List).every(2).fault(Fault::EmptyPage));
        assert_eq!(walk(3).await, ["ab", "", "c"]);
        world.clear_faults();
        world.script(FaultRule::on(Op::List).fault(Fault::LoopToken));
        assert_eq!(walk(4).await, ["ab", "c", "ab", "c"]);
        assert_eq!(world.fired(), [2]);
    }
}

#[tokio::test]
async fn keys_out_of_order_and_hostile() {
    for world in worlds(&["p/a", "p/b", "p/c"]) {
        let s3 = S3::new(&world).await;
        world.script(
            FaultRule::on(Op::List)
                .key("p/")
                .times(1)
                .fault(Fault::Unordered),
        );
        world.script(
            FaultRule::on(Op::List)
                .key("p/")
                .times(2)
                .fault(Fault::HostileKeys),
        );
        world.script(FaultRule::on(Op::List).fault(Fault::HostileFields));
        let prefix = [("prefix", "p/")];
        let keys = elements(&s3.list(&prefix).await, "Key");
        assert_eq!(keys, ["p/c", "p/b", "p/a"]);
        let url = [("prefix", "p/"), ("encoding-type", "url")];
        for parameters in [&prefix[..], &url[..]] {
            let xml = s3.list(parameters).await;
            let keys = elements(&xml, "Key");
            let entries = keys.len() + xml.matches("<CommonPrefixes>").count();
            assert_eq!(entries, 1000);
            for name in ["p/", "p/..", "p/../x", "p//etc/passwd", "elsewhere/x", ""] {
                assert!(keys.iter().any(|key| key == name), "{name:?}");
            }
        }
        let sizes = elements(&s3.list(&prefix).await, "Size");
        assert!(sizes.contains(&"-1".to_owned()));
        assert_eq!(world.fired(), [1, 2, 1]);
    }
}

#[tokio::test]
async fn rules_take_turns() {
    let world = world_of(&["a", "b"]);
    let s3 = S3::new(&world).await;
    let statuses = async |path: &str, count: usize| {
        let mut seen = Vec::new();
        for _ in 0..count {
            seen.push(s3.get(path, &[]).await.status().as_u16());
        }
        seen
    };
    world.script(
        FaultRule::on(Op::Get)
            .key("a")
            .skip(1)
            .times(2)
            .every(2)
            .fault(Fault::SlowDown),
    );
    world.script(
        FaultRule::on([Op::Get, Op::Head])
            .times(2)
            .fault(Fault::InternalError),
    );
    assert_eq!(statuses("/a", 7).await, [500, 500, 503, 200, 503, 200, 200]);
    assert_eq!(statuses("/b", 1).await, [200]);
    assert_eq!(world.fired(), [2, 2]);
    assert_eq!(s3.list_response(&[]).await.status(), 200);
    world.clear_faults();
    assert!(world.fired().is_empty());
}

#[test]
fn rules_as_lines() {
    for line in [
        "get:big*:3:reset-after=100000",
        "any:*:*:slow-down",
        "list+head:a:b::c*:2+1/10:expired",
        "get:*:*/97:stall-after=5",
        "get:*:1:stall-after=5,1.5",
        "get::1:stall-before=0.25",
        "get:*:1:stall-before",
        "get:*:1:flip-byte",
        "get:*:1:flip-byte=7",
        "any:*:1:other-region=eu-north-1",
        "list:*:1:hostile-fields",
        "get:*:1:trickle=1000",
    ] {
        let rule: FaultRule = line.parse().expect(line);
        assert_eq!(rule.to_string(), line);
    }
    let rule = FaultRule::on(Op::Get)
        .key("big*")
        .times(3)
        .fault(Fault::ResetAfter(100_000));
    assert_eq!(rule.to_string(), "get:big*:3:reset-after=100000");
    for wrong in [
        "",
        "get:3:slow-down",
        "put:*:3:slow-down",
        "get:*:x:slow-down",
        "get:*:1/0:slow-down",
        "get:*:1:slow",
        "get:*:1:slow-down=1",
        "get:*:1:reset-after",
        "get:*:1:stall-before=-1",
    ] {
        assert!(wrong.parse::<FaultRule>().is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn patterns_of_keys() {
    for (pattern, fits, fits_not) in [
        ("*", vec!["", "a", "a/b"], vec![]),
        ("a", vec!["a"], vec!["", "ab", "ba"]),
        ("a*", vec!["a", "ab", "a/b"], vec!["ba"]),
        ("*b", vec!["b", "a/b", "bb"], vec!["ba"]),
        ("a*b", vec!["ab", "a/b/b"], vec!["a", "b", "aba"]),
        ("aa*aa", vec!["aaaa"], vec!["aaa"]),
        ("*x*y*", vec!["xy", "1x2y3"], vec!["yx"]),
    ] {
        let world = world_of(&[]);
        let s3 = S3::new(&world).await;
        world.script(FaultRule::on(Op::List).key(pattern).fault(Fault::SlowDown));
        for (keys, status) in [(fits, 503), (fits_not, 200)] {
            for key in keys {
                let answer = s3.list_response(&[("prefix", key)]).await;
                assert_eq!(answer.status(), status, "{pattern} {key}");
            }
        }
    }
}

#[tokio::test]
async fn rules_of_the_settings_and_over_http() {
    let rule = "head:k:1:internal-error".parse().expect("a rule");
    let world = World::start(Settings {
        faults: vec![rule],
        ..settings([("k".to_owned(), "k".into())])
    })
    .expect("loopback has free ports");
    let s3 = S3::new(&world).await;
    let url = format!("http://{}/_mock/", world.earthdata_host());
    let send = async |method: Method, path: &str, body: &'static str| {
        let request = http().request(method, format!("{url}{path}")).body(body);
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    let lines = "get:k:1:slow-down\n\n get:k:1:internal-error\n";
    assert_eq!(send(Method::POST, "faults", lines).await.0, 200);
    let (status, error) = send(Method::POST, "faults", "get:k:1:expired\nrubbish").await;
    assert!(status == 400 && error.contains("rubbish"), "{error}");
    assert_eq!(s3.head("/k", &[]).await.status(), 500);
    assert_eq!(s3.get("/k", &[]).await.status(), 503);
    let (_, counts) = send(Method::GET, "faults", "").await;
    let counts: serde_json::Value = serde_json::from_str(&counts).expect("JSON");
    assert_eq!(
        counts,
        serde_json::json!([
            { "rule": "head:k:1:internal-error", "matched": 1, "fired": 1 },
            { "rule": "get:k:1:slow-down", "matched": 1, "fired": 1 },
            { "rule": "get:k:1:internal-error", "matched": 0, "fired": 0 },
        ])
    );
    assert_eq!(send(Method::DELETE, "faults", "").await.0, 200);
    assert_eq!(s3.get("/k", &[]).await.status(), 200);

    assert_eq!(send(Method::POST, "connections", "refuse").await.0, 200);
    assert!(S3::new(&world).await.try_get("/k").await.is_err());
    assert_eq!(send(Method::POST, "connections", "accept").await.0, 200);
    assert_eq!(S3::new(&world).await.get("/k", &[]).await.status(), 200);
    assert_eq!(send(Method::POST, "connections", "kill").await.0, 200);
    assert_eq!(send(Method::POST, "connections", "x").await.0, 400);
    let endpoint = async || {
        http()
            .get(world.open_endpoint())
            .send()
            .await
            .expect("an answer")
    };
    assert_eq!(send(Method::POST, "answer", "503 disabled").await.0, 200);
    assert_eq!(endpoint().await.status(), 503);
    assert_eq!(send(Method::POST, "answer", "5o3").await.0, 400);
    assert_eq!(send(Method::POST, "answer", "normal").await.0, 200);
    assert_eq!(endpoint().await.status(), 200);
    assert_eq!(send(Method::POST, "clock", "-3600").await.0, 200);
    assert_eq!(s3.get("/k", &[]).await.status(), 403);
}

#[tokio::test]
async fn clocks_that_are_off() {
    let world = world_of(&["k"]);
    let s3 = S3::new(&world).await;
    let lifetime = 3600;
    for offset in [-7200i64, 7200] {
        world.set_clock_offset(offset);
        let there = match offset {
            ..0 => SystemTime::now() - Duration::from_secs(offset.unsigned_abs()),
            _ => SystemTime::now() + Duration::from_secs(offset.unsigned_abs()),
        };
        let near = |date: SystemTime, expected: SystemTime| {
            let off = date
                .duration_since(expected)
                .unwrap_or_else(|error| error.duration());
            assert!(off < Duration::from_secs(60), "{off:?}");
        };
        let answer = http()
            .get(world.open_endpoint())
            .send()
            .await
            .expect("an answer");
        let date = httpdate::parse_http_date(header(&answer, "date")).expect("a date");
        near(date, there);
        let issued = credentials(&world).await;
        let expiration = issued["expiration"].as_str().expect("text");
        // `2021-01-27 00:50:09+00:00`, read as the date of a header is.
        let at = there + Duration::from_secs(lifetime);
        let said = httpdate::fmt_http_date(at);
        assert!(said.contains(&expiration[11..13]), "{said} {expiration}");

        let refused = s3.get("/k", &[]).await;
        near(
            httpdate::parse_http_date(header(&refused, "date")).expect("a date"),
            there,
        );
        assert_eq!(error_code(refused, 403).await, "RequestTimeTooSkewed");
        assert_eq!(s3.head("/k", &[]).await.status(), 403);
        // A client that corrects its clock by that of the server is let in.
        let url = format!("{}/{BUCKET}/k", world.s3_url());
        let right = s3.try_send(Method::GET, &url, &[], there).await;
        assert_eq!(right.expect("an answer").status(), 200);
    }
    world.set_clock_offset(600);
    assert_eq!(s3.get("/k", &[]).await.status(), 200, "within 15 minutes");
}
