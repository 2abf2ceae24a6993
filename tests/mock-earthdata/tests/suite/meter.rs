//! Counters, records, depth, and the delays that they are measured with.

use std::time::{Duration, Instant};

use mock_earthdata::{Content, Op, Ports, Settings, Shape, World};

use crate::support::{BUCKET, S3, http, settings, strict, world_of};

#[tokio::test]
async fn requests_are_counted_and_recorded() {
    let world = world_of(&["dir/a b"]);
    let s3 = S3::new(&world).await;
    s3.list(&[("prefix", "dir/"), ("max-keys", "1")]).await;
    s3.head("/dir/a%20b", &[]).await;
    let get = s3.get("/dir/a%20b", &[("range", "bytes=0-3")]).await;
    assert_eq!(get.bytes().await.expect("a body").len(), 4);
    assert_eq!(s3.get("/missing", &[]).await.status(), 404);
    let counters = world.counters();
    assert_eq!((counters.list, counters.head, counters.get), (1, 1, 2));
    assert_eq!(counters.body_bytes, 4, "errors do not count");
    assert_eq!(counters.errors.into_iter().collect::<Vec<_>>(), [(404, 1)]);
    assert_eq!(counters.in_flight, 0);
    assert_eq!(counters.max_in_flight, 1);
    let requests = world.requests();
    let seen: Vec<_> = requests
        .iter()
        .map(|one| {
            (
                one.op,
                one.key.as_str(),
                one.range.as_deref(),
                one.status,
                one.depth,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (Op::List, "dir/", None, 200, 1),
            (Op::Head, "dir/a b", None, 200, 2),
            (Op::Get, "dir/a b", Some("bytes=0-3"), 206, 3),
            (Op::Get, "missing", None, 404, 4),
        ]
    );
    assert!(
        requests[0]
            .query
            .contains(&format!("prefix={}", strict("dir/")))
    );
    assert!(requests.iter().all(|one| one.bucket == BUCKET));

    world.reset_counters();
    assert!(world.requests().is_empty());
    assert_eq!(world.counters(), Default::default());
}

#[tokio::test]
async fn depth_counts_chains_not_crowds() {
    let world = world_of(&["a"]);
    let s3 = S3::new(&world).await;
    world.set_shape(Shape {
        first_byte: Duration::from_millis(300),
        ..Shape::default()
    });
    let crowd = || async {
        tokio::join!(
            s3.head("/a", &[]),
            s3.head("/a", &[]),
            s3.head("/a", &[]),
            s3.head("/a", &[])
        );
    };
    crowd().await;
    assert_eq!(world.counters().depth, 1);
    assert_eq!(world.counters().max_in_flight, 4);
    crowd().await;
    crowd().await;
    assert_eq!(world.counters().depth, 3);
    world.reset_counters();
    crowd().await;
    assert_eq!(world.counters().depth, 1);
}

#[tokio::test]
async fn a_request_given_up_holds_nobody_up() {
    let world = world_of(&["a"]);
    let s3 = S3::new(&world).await;
    world.set_shape(Shape {
        first_byte: Duration::from_secs(3600),
        ..Shape::default()
    });
    let given_up = tokio::time::timeout(Duration::from_millis(50), s3.head("/a", &[])).await;
    assert!(given_up.is_err());
    while world.counters().in_flight > 0 {
        tokio::task::yield_now().await;
    }
    world.set_shape(Shape::default());
    s3.head("/a", &[]).await;
    assert_eq!(world.counters().depth, 1);
}

#[tokio::test]
async fn delays_and_bandwidth() {
    let world = world_of(&["a", "b", "c"]);
    let s3 = S3::new(&world).await;
    world.put(BUCKET, "body", Content::Synthetic { size: 100_000 });
    world.set_shape(Shape {
        first_byte: Duration::from_millis(30),
        bytes_per_second: Some(1_000_000),
        per_listed_key: Duration::from_millis(20),
        ..Shape::default()
    });
    let start = Instant::now();
    s3.head("/a", &[]).await;
    assert!(start.elapsed() >= Duration::from_millis(30));
    let start = Instant::now();
    s3.list(&[]).await;
    assert!(start.elapsed() >= Duration::from_millis(110));
    let start = Instant::now();
    let body = s3.get("/body", &[]).await.bytes().await.expect("a body");
    assert!(
        start.elapsed() >= Duration::from_millis(120),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(body.len(), 100_000);
    assert_eq!(world.counters().body_bytes, 100_000);
}

#[tokio::test]
async fn counters_over_http() {
    let world = world_of(&["a"]);
    let s3 = S3::new(&world).await;
    s3.head("/a", &[]).await;
    let url = format!("http://{}/_mock/", world.earthdata_host());
    let read = async || {
        let response = http()
            .get(format!("{url}counters"))
            .send()
            .await
            .expect("an answer");
        serde_json::from_str::<serde_json::Value>(&response.text().await.expect("a body"))
            .expect("JSON")
    };
    let counters = read().await;
    assert_eq!(counters["head"], 1);
    assert_eq!(counters["credentials_issued"], 1);
    let reset = http()
        .post(format!("{url}reset"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(reset.status(), 200);
    assert_eq!(read().await["head"], 0);
}

/// A blocking test, and a world that comes back at the same places.
#[test]
fn dropping_a_world_frees_its_ports() {
    let world = World::start(Settings::default()).expect("loopback has free ports");
    let port = |url: String| -> u16 {
        let digits: String = url
            .split(':')
            .nth(2)
            .expect("a port")
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().expect("a port")
    };
    let ports = Ports {
        login: port(format!("http://{}", world.earthdata_host())),
        tea: port(world.tea_endpoint()),
        cumulus: port(world.cumulus_endpoint()),
        s3: port(world.s3_url()),
    };
    let endpoint = world.s3_url();
    assert!(
        World::start(Settings {
            ports,
            ..settings([])
        })
        .is_err(),
        "taken"
    );
    let open =
        std::net::TcpStream::connect(endpoint.trim_start_matches("http://")).expect("it listens");
    drop(world);
    assert!(std::net::TcpStream::connect(endpoint.trim_start_matches("http://")).is_err());
    drop(open);
    let again = World::start(Settings {
        ports,
        ..settings([])
    })
    .expect("free again");
    assert_eq!(again.s3_url(), endpoint);
}
