//! Faults below http, each through hyper and through the lean loop.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use mock_earthdata::{Content, Fault, FaultRule, Op, Settings, World, fill};
use reqwest::Response;

use crate::support::{Raw, S3, head_field, settings};

/// Larger than what all buffers on the way hold.
const SIZE: u64 = 50_000_000;

/// A world with the object `big`, as hyper serves it and as the lean loop does.
fn worlds() -> [World; 2] {
    [false, true].map(|lean| {
        let big = ("big".to_owned(), Content::Synthetic { size: SIZE });
        let settings = Settings {
            lean,
            ..settings([big])
        };
        World::start(settings).expect("loopback has free ports")
    })
}

fn big() -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    fill("big", 0, &mut bytes);
    bytes
}

/// What came of a body, and how it ended.
async fn body(mut response: Response) -> (Vec<u8>, Result<(), reqwest::Error>) {
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return (bytes, Ok(())),
            Err(error) => return (bytes, Err(error)),
        }
    }
}

/// Was it an RST?
fn is_reset(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::ConnectionReset
        {
            return true;
        }
        cause = error.source();
    }
    false
}

fn once(fault: Fault) -> FaultRule {
    FaultRule::on(Op::Get).key("b*g").times(1).fault(fault)
}

#[tokio::test]
async fn reset_before_the_answer() {
    for world in worlds() {
        let s3 = S3::new(&world).await;
        world.script(FaultRule::on_any().times(2).fault(Fault::ResetBefore));
        for _ in 0..2 {
            let error = s3.try_get("/big").await.expect_err("no answer");
            assert!(is_reset(&error), "{error:?}");
        }
        assert_eq!(world.fired(), [2]);
        assert_eq!(s3.head("/big", &[]).await.status(), 200);
    }
}

#[tokio::test]
async fn reset_in_the_body() {
    for world in worlds() {
        let s3 = S3::new(&world).await;
        world.script(once(Fault::ResetAfter(100_000)));
        let (bytes, end) = body(s3.get("/big", &[]).await).await;
        assert!(bytes == big()[..100_000], "{} bytes", bytes.len());
        assert!(is_reset(&end.expect_err("not all of it")));
        assert_eq!(world.fired(), [1]);
        let (bytes, end) = body(s3.get("/big", &[]).await).await;
        end.expect("all of it");
        assert!(bytes == big());
    }
}

#[tokio::test]
async fn body_cut_short() {
    for world in worlds() {
        let s3 = S3::new(&world).await;
        world.script(once(Fault::CutAfter(3_000_000)));
        let (bytes, end) = body(s3.get("/big", &[]).await).await;
        assert!(bytes == big()[..3_000_000], "{} bytes", bytes.len());
        assert!(!is_reset(&end.expect_err("not all of it")));
        assert_eq!(world.fired(), [1]);
    }
}

#[tokio::test]
async fn what_does_not_reach_its_place_has_not_fired() {
    for world in worlds() {
        let s3 = S3::new(&world).await;
        world.script(once(Fault::ResetAfter(100)));
        let part = s3.get("/big", &[("range", "bytes=0-99")]).await;
        assert_eq!(part.bytes().await.expect("all of it").len(), 100);
        assert_eq!(world.fired(), [0]);
        assert_eq!(world.rule_counts()[0].matched, 1);
        let (bytes, end) = body(s3.get("/big", &[]).await).await;
        end.expect("the rule is used up");
        assert_eq!(bytes.len() as u64, SIZE);
    }
}

#[test]
fn body_too_long() {
    let [_, world] = worlds();
    world.script(once(Fault::ExtraBytes(5000)));
    let mut raw = Raw::new(&world);
    raw.ask("GET", "/big", "Range: bytes=5-14\r\n");
    let (head, bytes) = raw.answer();
    assert_eq!(head_field(&head, "content-length"), "10");
    assert_eq!(bytes, big()[5..15]);
    assert_eq!(raw.bytes(5000), [b'x'; 5000]);
    assert_eq!(world.fired(), [1]);
    raw.ask("GET", "/big", "Range: bytes=5-14\r\n");
    assert_eq!(raw.answer().1, big()[5..15]);
}

#[tokio::test]
async fn body_too_long_from_hyper() {
    let [world, _] = worlds();
    let s3 = S3::new(&world).await;
    world.script(once(Fault::ExtraBytes(5000)));
    let part = s3.get("/big", &[("range", "bytes=5-14")]).await;
    assert_eq!(part.bytes().await.expect("all of it"), big()[5..15]);
    while world.fired() != [1] {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn stall_before_the_first_byte() {
    for world in worlds() {
        let s3 = S3::new(&world).await;
        let while_long = Fault::StallBefore(Some(Duration::from_millis(150)));
        world.script(once(while_long));
        world.script(once(Fault::StallBefore(None)));
        let start = Instant::now();
        let part = s3.get("/big", &[("range", "bytes=0-9")]).await;
        assert!(start.elapsed() >= Duration::from_millis(150));
        assert_eq!(part.bytes().await.expect("all of it"), big()[..10]);
        let stalled = tokio::time::timeout(Duration::from_millis(200), s3.try_get("/big")).await;
        assert!(stalled.is_err(), "an answer");
        assert_eq!(world.fired(), [1, 1]);
        // The client has hung up, which ends the stall.
        while world.counters().in_flight > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn stall_in_the_body() {
    for world in worlds() {
        let s3 = S3::new(&world).await;
        let for_ever = Fault::StallAfter(1_000_000, None);
        world.script(once(Fault::StallAfter(
            1_000_000,
            Some(Duration::from_millis(150)),
        )));
        world.script(once(for_ever));
        let start = Instant::now();
        let (bytes, end) = body(s3.get("/big", &[]).await).await;
        end.expect("all of it");
        assert!(start.elapsed() >= Duration::from_millis(150));
        assert!(bytes == big());

        let mut response = s3.get("/big", &[]).await;
        let mut bytes = 0;
        while bytes < 1_000_000 {
            bytes += response
                .chunk()
                .await
                .expect("a part")
                .map_or(0, |c| c.len());
        }
        assert_eq!(bytes, 1_000_000);
        let stalled = tokio::time::timeout(Duration::from_millis(200), response.chunk()).await;
        assert!(stalled.is_err(), "more");
        assert_eq!(world.fired(), [1, 1]);
        drop(response);
        while world.counters().in_flight > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn trickle() {
    for world in worlds() {
        let s3 = S3::new(&world).await;
        world.script(once(Fault::Trickle(10_000)));
        let start = Instant::now();
        let part = s3.get("/big", &[("range", "bytes=0-2999")]).await;
        assert_eq!(part.bytes().await.expect("all of it"), big()[..3000]);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(300), "{took:?}");
        assert_eq!(world.fired(), [1]);
    }
}

#[tokio::test]
async fn a_byte_flipped() {
    for world in worlds() {
        let s3 = S3::new(&world).await;
        world.script(once(Fault::FlipByte(Some(1_234_567))));
        world.script(once(Fault::FlipByte(None)));
        let right = big();
        for expected in [Some(1_234_567), None] {
            let wrong = s3.get("/big", &[]).await.bytes().await.expect("all of it");
            let places: Vec<_> = (0..right.len())
                .filter(|i| right[*i] != wrong[*i])
                .collect();
            assert_eq!(places.len(), 1);
            assert!(expected.is_none_or(|place| places == [place]));
        }
        assert_eq!(world.fired(), [1, 1]);
        let again = s3.get("/big", &[]).await.bytes().await.expect("all of it");
        assert!(again == right);
    }
}

#[tokio::test]
async fn connections_refused_for_a_while() {
    for world in worlds() {
        let s3 = S3::new(&world).await;
        let (before, after) = (S3::new(&world).await, S3::new(&world).await);
        assert_eq!(before.head("/big", &[]).await.status(), 200);
        world.refuse_connections(true);
        world.refuse_connections(true);
        let error = s3.try_get("/big").await.expect_err("no connection");
        assert!(error.is_connect(), "{error:?}");
        let open = before.head("/big", &[]).await;
        assert_eq!(open.status(), 200, "open connections go on");
        world.refuse_connections(false);
        world.refuse_connections(false);
        assert_eq!(after.head("/big", &[]).await.status(), 200);
    }
}

#[tokio::test]
async fn all_connections_dead() {
    for world in worlds() {
        let s3 = S3::new(&world).await;
        let mut waiting = s3.get("/big", &[]).await;
        assert!(waiting.chunk().await.expect("a part").is_some());
        let idle = Raw::new(&world);
        let idle_heard = S3::new(&world).await;
        assert_eq!(idle_heard.head("/big", &[]).await.status(), 200);
        // Those connections were made in this order, and so accepted.
        assert_eq!(world.kill_connections(), 3);
        let (_, end) = body(waiting).await;
        assert!(is_reset(&end.expect_err("dead")));
        let error = idle.0.peek(&mut [0]).expect_err("dead");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(world.kill_connections(), 0);
        assert_eq!(s3.head("/big", &[]).await.status(), 200);
        assert_eq!(world.counters().in_flight, 0);
    }
}

#[tokio::test]
async fn all_connections_silent() {
    for world in worlds() {
        let (before, after) = (S3::new(&world).await, S3::new(&world).await);
        // A body on its way, longer than all buffers: an idle connection may or may not be used again.
        let mut waiting = before.get("/big", &[]).await;
        assert!(waiting.chunk().await.expect("a part").is_some());
        world.mute_connections();
        let silence = tokio::time::timeout(Duration::from_millis(300), body(waiting)).await;
        assert!(silence.is_err(), "{silence:?}");
        assert_eq!(after.head("/big", &[]).await.status(), 200);
    }
}
