//! The lean mode, over a bare socket, and against the checked mode.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mock_earthdata::{Access, Content, Op, Settings, Shape, Synthetic, World, fill};

use crate::support::{BUCKET, Raw, S3, elements, head_field, settings};

fn world(objects: impl IntoIterator<Item = (String, Content)>) -> World {
    World::start(Settings {
        lean: true,
        ..settings(objects)
    })
    .expect("loopback has free ports")
}

fn big(size: u64) -> World {
    world([("big".to_owned(), Content::Synthetic { size })])
}

#[test]
fn unsigned_reads_of_one_connection() {
    let world = big(50_000_000);
    let mut raw = Raw::new(&world);
    for (offset, len) in [(0, 1), (999_982, 3), (1 << 20, 1 << 20), (49_999_990, 10)] {
        let range = format!("Range: bytes={offset}-{}\r\n", offset + len - 1);
        raw.ask("GET", "/big", &range);
        let (head, bytes) = raw.answer();
        assert!(
            head.starts_with("HTTP/1.1 206 Partial Content\r\n"),
            "{head}"
        );
        let said = format!("bytes {offset}-{}/50000000", offset + len - 1);
        assert_eq!(head_field(&head, "content-range"), said);
        let mut expected = vec![0; len];
        fill("big", offset as u64, &mut expected);
        assert!(bytes == expected, "at {offset}");
    }
    raw.ask("GET", "/big", "");
    let (head, bytes) = raw.answer();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let mut expected = vec![0; 50_000_000];
    fill("big", 0, &mut expected);
    assert!(bytes == expected);
    assert_eq!(world.counters().get, 5);
    assert_eq!(world.counters().body_bytes, 50_000_000 + 14 + (1 << 20));
    assert_eq!(world.counters().in_flight, 0);
    assert_eq!(world.counters().depth, 5);
}

/// A directory of our own with a file of these bytes.
fn directory(name: &str, file: &str, bytes: &[u8]) -> PathBuf {
    let dir = format!("mock-earthdata-{name}-{}", std::process::id());
    let dir = std::env::temp_dir().join(dir);
    std::fs::create_dir_all(&dir).expect("a directory");
    std::fs::write(dir.join(file), bytes).expect("a file");
    dir
}

#[test]
fn files_from_memory() {
    let mut content = vec![0; 3_000_001];
    fill("any", 0, &mut content);
    let dir = directory("mapped", "granule.h5", &content);
    std::fs::write(dir.join("empty"), "").expect("a file");
    let path = dir.join("granule.h5");
    let world = world([
        ("d/granule.h5".to_owned(), Content::Mapped(path.clone())),
        ("empty".to_owned(), Content::Mapped(dir.join("empty"))),
        ("streamed".to_owned(), Content::File(path)),
    ]);
    // What is mapped needs its name no more, what is streamed does.
    std::fs::remove_dir_all(&dir).expect("it is ours");
    let mut raw = Raw::new(&world);
    raw.ask("GET", "/d/granule.h5", "Range: bytes=262143-2999999\r\n");
    let (head, body) = raw.answer();
    assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
    assert!(body == content[262_143..3_000_000]);
    let etag = head_field(&head, "etag");
    assert!(etag.ends_with("-1\""), "not the MD5 of the bytes: {etag}");
    raw.ask("GET", "/d/granule.h5", &format!("If-Match: {etag}\r\n"));
    let (head, body) = raw.answer();
    assert!(head.starts_with("HTTP/1.1 200 ") && body == content);
    raw.ask("GET", "/empty", "");
    let (head, body) = raw.answer();
    assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty());
    raw.ask("GET", "/streamed", "");
    assert!(raw.answer().0.starts_with("HTTP/1.1 500 "));
    assert_eq!(world.counters().body_bytes, 2_737_857 + 3_000_001);
}

#[test]
fn the_program_maps_directories() {
    let dir = directory("program", "granule.h5", b"content");
    let mut program = Command::new(env!("CARGO_BIN_EXE_mock-earthdata"))
        .args(["--until-stdin-closes", "--lean", "--bucket", BUCKET])
        .arg("--dir")
        .arg(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    BufReader::new(program.stdout.take().expect("a pipe"))
        .read_line(&mut line)
        .expect("a line");
    std::fs::remove_dir_all(&dir).expect("it is ours");
    let mut words = line.split_whitespace();
    let address = words.find_map(|word| word.strip_prefix("S3_URL=http://"));
    let mut raw = Raw(TcpStream::connect(address.expect("an address")).expect("it listens"));
    raw.ask("GET", "/granule.h5", "Range: bytes=3-\r\n");
    assert_eq!(raw.answer().1, b"tent");
    drop(program.stdin.take());
    assert!(program.wait().expect("it ends").success());
}

#[test]
fn requests_back_to_back_and_in_pieces() {
    let world = world([("k".to_owned(), "content".into())]);
    let mut raw = Raw::new(&world);
    raw.ask("GET", "/k", "");
    raw.ask("GET", "/k", "");
    assert_eq!(raw.answer().1, b"content");
    assert_eq!(raw.answer().1, b"content");
    let request = format!("GET /{BUCKET}/k HTTP/1.1\r\nConnection: close\r\n\r\n");
    for piece in request.as_bytes().chunks(7) {
        raw.0.write_all(piece).expect("it is open");
    }
    let (head, body) = raw.answer();
    assert_eq!(
        (head_field(&head, "connection"), &body[..]),
        ("close".to_owned(), &b"content"[..])
    );
    let end = std::io::Read::read(&mut raw.0, &mut [0]).expect("an end in good order");
    assert_eq!(end, 0);
}

#[test]
fn errors_and_conditions() {
    let world = world([("k".to_owned(), "content".into())]);
    let mut raw = Raw::new(&world);
    let mut ask = |method: &str, path: &str, headers: &str| {
        raw.ask(method, path, headers);
        let head = raw.head();
        let length = match (method, head.contains("Content-Length: ")) {
            ("HEAD", _) | (_, false) => 0,
            _ => head_field(&head, "content-length")
                .parse()
                .expect("a number"),
        };
        let body = String::from_utf8(raw.bytes(length)).expect("text");
        (head, body)
    };
    let (head, _) = ask("HEAD", "/k", "");
    assert_eq!(head_field(&head, "content-length"), "7");
    let etag = head_field(&head, "etag");
    let (head, body) = ask("GET", "/k", &format!("If-Match: {etag}\r\n"));
    assert!(head.starts_with("HTTP/1.1 200 ") && body == "content");
    let (head, body) = ask("GET", "/k", "If-Match: \"other\"\r\n");
    assert!(head.starts_with("HTTP/1.1 412 "), "{head}");
    assert_eq!(elements(&body, "Code"), ["PreconditionFailed"]);
    let (head, body) = ask("GET", "/missing", "");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    assert_eq!(elements(&body, "Code"), ["NoSuchKey"]);
    let (head, _) = ask("HEAD", "/missing", "");
    assert!(
        head.starts_with("HTTP/1.1 404 ") && !head.contains("Content-"),
        "{head}"
    );
    let (head, _) = ask("GET", "/k", "Range: bytes=7-\r\n");
    assert!(head.starts_with("HTTP/1.1 416 "), "{head}");
    let (head, _) = ask("DELETE", "/k", "");
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    world.set_bucket_access(
        BUCKET,
        Access {
            get: false,
            ..Access::default()
        },
    );
    let (head, _) = ask("GET", "/k", "");
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    world.set_bucket_access(BUCKET, Access::default());
    world.archive(BUCKET, "k");
    let (_, body) = ask("GET", "/k", "");
    assert_eq!(elements(&body, "Code"), ["InvalidObjectState"]);
    assert_eq!(world.counters().forbidden_operations, 1);
}

/// Page by page the same, but for the order of elements.
#[tokio::test]
async fn listings_are_those_of_the_checked_mode() {
    let objects = || {
        let many = Synthetic::parse("d:2500:7:50").expect("a description");
        let odd = ["a b+c&<d>", "é", "d/000001", "z/%41"];
        let odd = odd.map(|key| (key.to_owned(), Content::from(key.as_bytes().to_vec())));
        many.objects().chain(odd).collect::<Vec<_>>()
    };
    let checked = World::start(settings(objects())).expect("loopback has free ports");
    let lean = world(objects());
    let (checked, lean_s3) = (S3::new(&checked).await, S3::new(&lean).await);
    let text = |xml: &str| {
        let names = ["Key", "Size", "Prefix", "ETag", "KeyCount", "IsTruncated"];
        let more = [
            "NextContinuationToken",
            "EncodingType",
            "MaxKeys",
            "StorageClass",
        ];
        let mut all = names
            .into_iter()
            .chain(more)
            .map(|name| elements(xml, name))
            .collect::<Vec<_>>();
        // `s3s` writes the prefix of the request at another place.
        all.iter_mut().for_each(|texts| texts.sort());
        all.concat().join("|").replace('"', "&quot;")
    };
    for start in [
        vec![],
        vec![("prefix", "d/"), ("delimiter", "/")],
        vec![("delimiter", "/"), ("encoding-type", "url")],
        vec![
            ("prefix", "d/0000"),
            ("max-keys", "7"),
            ("start-after", "d/000001/000048.bin"),
        ],
    ] {
        let mut token: Option<String> = None;
        for _ in 0..3 {
            let mut parameters = start.clone();
            if let Some(token) = &token {
                parameters.push(("continuation-token", token));
            }
            let (ours, theirs) = (
                lean_s3.list(&parameters).await,
                checked.list(&parameters).await,
            );
            assert_eq!(text(&ours), text(&theirs), "{parameters:?}");
            token = elements(&ours, "NextContinuationToken").pop();
            if token.is_none() {
                break;
            }
        }
    }
    // A page that was kept is not the answer after a change.
    assert!(!lean_s3.list(&[]).await.contains("<Key>aa</Key>"));
    lean.put(BUCKET, "aa", "new");
    assert!(lean_s3.list(&[]).await.contains("<Key>aa</Key>"));
    lean.remove(BUCKET, "aa");
    assert!(!lean_s3.list(&[]).await.contains("<Key>aa</Key>"));
}

#[test]
fn delays_are_those_of_the_shape() {
    let world = world([
        ("a".to_owned(), "a".into()),
        ("b".to_owned(), "b".into()),
        ("big".to_owned(), Content::Synthetic { size: 18_000_000 }),
    ]);
    world.set_shape(Shape {
        first_byte: Duration::from_millis(30),
        bytes_per_second: Some(90_000_000),
        per_listed_key: Duration::from_millis(20),
        ..Shape::default()
    });
    let mut raw = Raw::new(&world);
    let mut timed = |path: &str| {
        let start = Instant::now();
        raw.ask("GET", path, "");
        raw.answer();
        start.elapsed()
    };
    assert!(timed("/a") >= Duration::from_millis(30));
    assert!(timed("/?list-type=2") >= Duration::from_millis(90));
    // 200 ms of body. The lower bound is exact, the upper one is for a busy machine.
    let took = timed("/big");
    assert!(took >= Duration::from_millis(230), "{took:?}");
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

/// Bodies one after the other, or at the same time, on whatever connections.
#[test]
fn all_bodies_share_a_link() {
    let world = big(5_000_000);
    world.set_shape(Shape {
        link_bytes_per_second: Some(20_000_000),
        ..Shape::default()
    });
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut raw = Raw::new(&world);
                raw.ask("GET", "/big", "");
                raw.answer();
            });
        }
    });
    let took = start.elapsed();
    // A burst may go at once. The upper bound is for a busy machine.
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_client_that_hangs_up_is_given_up() {
    let world = big(1 << 30);
    world.set_shape(Shape {
        first_byte: Duration::from_secs(3600),
        ..Shape::default()
    });
    let mut raw = Raw::new(&world);
    raw.ask("GET", "/big", "");
    while world.counters().in_flight == 0 {
        std::thread::yield_now();
    }
    drop(raw);
    while world.counters().in_flight > 0 {
        std::thread::yield_now();
    }
    let request = world.requests().pop().expect("one");
    assert_eq!((request.op, request.status), (Op::Get, 0));
}
