//! A bucket, or a server in the place of S3, that is made to harm. Endpoints that try to get a login:
//! see `attacks`.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mock_earthdata::{Content, Fault, FaultRule, Op, World};

use crate::failing::{refusal, says};
use crate::scripted::{Scripted, read_head, reply};
use crate::support::{BUCKET, Mount, bare_program, computed, world};

/// A mount of a directory that is honest, beside what is not.
fn beside(name: &str, content: Content) -> World {
    world([
        ("honest/file".to_owned(), Content::Bytes("content".into())),
        (name.to_owned(), content),
    ])
}

/// The mount is well: nothing panicked, and the honest part is there.
fn is_well(mount: &Mount) {
    assert_eq!(mount.names("honest"), ["file"]);
    assert_eq!(mount.read("honest/file"), b"content");
    let log = mount.log();
    for word in ["a bug in s3credmount", "panicked"] {
        assert!(!log.contains(word), "{log}");
    }
    let is_plain = |c: char| matches!(c, '\n' | '\t') || !c.is_control();
    assert!(log.chars().all(is_plain), "{log:?}");
}

/// The largest size that S3's API can say: sums with it must not run over.
#[test]
fn an_object_of_two_to_the_63_bytes_is_read_at_both_ends() {
    const SIZE: u64 = i64::MAX as u64;
    let world = beside("huge", Content::Synthetic { size: SIZE });
    let mount = Mount::with_args(&world, &["-vv", "--memory-limit", "64MiB"]);
    let file = File::open(mount.path("huge")).expect("open");
    assert_eq!(file.metadata().expect("stat").size(), SIZE);
    for offset in [0, 1 << 62, SIZE - 4096, SIZE - 10, 7, SIZE / 3, SIZE - 1] {
        let len = (SIZE - offset).min(1000) as usize;
        let mut read = vec![0; len];
        let result = file.read_exact_at(&mut read, offset);
        result.unwrap_or_else(|error| panic!("{offset}: {error}\n{}", mount.log()));
        assert!(read == computed("huge", offset, len), "{offset}");
    }
    // Up to the end in order, and backwards from there, as streams that are fetched ahead.
    let mut piece = vec![0; 128 << 10];
    for step in (1..=40).rev().chain(1..=40) {
        let offset = SIZE - step * piece.len() as u64;
        file.read_exact_at(&mut piece, offset).expect("a read");
        assert!(piece == computed("huge", offset, piece.len()), "{offset}");
    }
    is_well(&mount);
}

/// Keys and fields that are none, in the answers to listings of one directory.
#[test]
fn listings_made_to_harm_are_refused_and_their_neighbours_are_not() {
    for fault in [
        Fault::HostileKeys,
        Fault::HostileFields,
        Fault::NotXml,
        Fault::CutXml,
        Fault::Unordered,
    ] {
        let world = beside("evil/one", Content::Bytes("x".into()));
        world.put(BUCKET, "evil/two", "x");
        let mount = Mount::with_args(&world, &["-vv", "--operation-timeout", "3"]);
        let rule = FaultRule::on(Op::List).key("evil*");
        world.script(rule.fault(fault.clone()));
        let listed = std::fs::read_dir(mount.path("evil"));
        let names: Result<Vec<_>, _> = listed.and_then(|entries| {
            let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
            names.collect()
        });
        // Whatever is shown of it is a name: nothing that leads elsewhere.
        for name in names.unwrap_or_default() {
            let name = name.to_str().expect("UTF-8").to_owned();
            assert!(!name.contains(['/', '\0']) && name.len() <= 255, "{name:?}");
            assert!(name != "." && name != "..", "{fault:?}");
        }
        assert!(world.fired().iter().all(|fired| *fired > 0), "{fault:?}");
        is_well(&mount);
    }
}

/// An S3 of this test's own.
fn at(url: &str) -> Command {
    let mut command = bare_program();
    command.args(["--no-sign-request", "--endpoint-url", url]);
    command
}

/// What S3 says gets to the terminal and into the log as plain text.
#[test]
fn s3_does_not_write_to_the_terminal() {
    for escape in [
        "\u{1b}]0;owned\u{7}",
        "&#27;]0;owned&#7;",
        "&#x9b;31m",
        "\u{9b}31m",
    ] {
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>Invalid{escape}</Code><Message>m {escape}</Message></Error>"
        );
        let s3 = Scripted::start("127.0.0.1", move |_| {
            reply(
                "400 Bad Request",
                "Content-Type: application/xml\r\n",
                &body,
            )
        });
        let said = refusal(at(&s3.url()));
        let is_plain = |c: char| c == '\n' || !c.is_control();
        assert!(said.chars().all(is_plain), "{said:?}");
        assert!(!s3.heads().is_empty());
    }
}

/// What a server says is quoted in part.
#[test]
fn s3_does_not_fill_the_log() {
    let s3 = Scripted::start("127.0.0.1", |head| {
        let target = head.split(' ').nth(1).unwrap_or_default();
        if target.contains("list-type=2") {
            let file = match target.contains("prefix=file%2F") {
                true => "",
                false => {
                    "<Contents><Key>file</Key><Size>9000000</Size><ETag>\"e\"</ETag></Contents>"
                }
            };
            let list = format!("<ListBucketResult>{file}</ListBucketResult>");
            return reply("200 OK", "", &list);
        }
        let range = "bytes ".repeat(3000);
        let headers = format!("ETag: \"e\"\r\nContent-Range: {range}\r\n");
        reply("206 Partial Content", &headers, "data")
    });
    let mut command = at(&s3.url());
    command.args(["--operation-timeout", "6"]);
    let mount = Mount::with(command, BUCKET);
    let file = File::open(mount.path("file")).expect("open");
    let error = file.read_exact_at(&mut [0; 9], 0).expect_err("no bytes");
    let errno = error.raw_os_error().expect("an errno");
    assert!([libc::EIO, libc::ETIMEDOUT].contains(&errno), "{error}");
    let log = mount.log_with("asked for bytes=");
    assert!(log.lines().all(|line| line.len() < 1000), "{log}");
}

/// An answer without an end takes neither the memory nor the patience of the program.
#[test]
fn a_listing_without_an_end_is_given_up() {
    /// A page of S3's is at most 8 MiB. A retry may cost as much again.
    const MOST: u64 = 256 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    std::thread::spawn(move || {
        let entry =
            "<Contents><Key>k</Key><Size>1</Size><ETag>\"e\"</ETag></Contents>".repeat(1000);
        let chunk = format!("{:x}\r\n{entry}\r\n", entry.len());
        for mut stream in listener.incoming().flatten() {
            if read_head(&stream).is_none() {
                continue;
            }
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n<ListBucketResult\r\n1\r\n>\r\n";
            let mut alive = stream.write_all(head.as_bytes()).is_ok();
            while alive && counter.load(Ordering::Relaxed) <= MOST {
                alive = stream.write_all(chunk.as_bytes()).is_ok();
                counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            let _ = stream.shutdown(std::net::Shutdown::Both);
            let _ = stream.read(&mut [0; 1]);
        }
    });
    let said = refusal(at(&url));
    says(&said, &[BUCKET, &url]);
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent > 0 && sent <= MOST, "{sent} bytes were taken: {said}");
}
