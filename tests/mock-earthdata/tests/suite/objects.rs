//! HeadObject and GetObject.

use std::io::Write;

use mock_earthdata::{Checksums, Content, Settings, World, fill, from_directory};

use crate::support::{BUCKET, S3, error_code, header, settings, world_of};

#[tokio::test]
async fn whole_objects() {
    let world = world_of(&["dir/name"]);
    let s3 = S3::new(&world).await;
    let get = s3.get("/dir/name", &[]).await;
    assert_eq!(get.status(), 200);
    assert_eq!(header(&get, "accept-ranges"), "bytes");
    assert_eq!(header(&get, "content-length"), "8");
    assert!(header(&get, "last-modified").ends_with(" GMT"));
    let etag = header(&get, "etag").to_owned();
    assert!(etag.starts_with('"') && etag.len() == 34, "{etag}");
    assert_eq!(get.text().await.expect("a body"), "dir/name");
    let head = s3.head("/dir/name", &[]).await;
    assert_eq!(head.status(), 200);
    assert_eq!(header(&head, "content-length"), "8");
    assert_eq!(header(&head, "etag"), etag);

    assert_eq!(
        error_code(s3.get("/missing", &[]).await, 404).await,
        "NoSuchKey"
    );
    let head = s3.head("/missing", &[]).await;
    assert_eq!(head.status(), 404);
    assert_eq!(head.bytes().await.expect("no body").len(), 0);
}

#[tokio::test]
async fn ranges() {
    let world = world_of(&["0123456789"]);
    let s3 = S3::new(&world).await;
    for (range, content_range, text) in [
        ("bytes=0-3", "bytes 0-3/10", "0123"),
        ("bytes=4-", "bytes 4-9/10", "456789"),
        ("bytes=8-100", "bytes 8-9/10", "89"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=-100", "bytes 0-9/10", "0123456789"),
    ] {
        let response = s3.get("/0123456789", &[("range", range)]).await;
        assert_eq!(response.status(), 206, "{range}");
        assert_eq!(header(&response, "content-range"), content_range);
        assert_eq!(header(&response, "content-length"), text.len().to_string());
        assert_eq!(response.text().await.expect("a body"), text);
    }
    for range in ["bytes=10-", "bytes=10-11", "bytes=-0"] {
        let response = s3.get("/0123456789", &[("range", range)]).await;
        assert_eq!(error_code(response, 416).await, "InvalidRange", "{range}");
    }
    let head = s3.head("/0123456789", &[("range", "bytes=0-3")]).await;
    assert_eq!(head.status(), 206);
    assert_eq!(header(&head, "content-length"), "4");
}

#[tokio::test]
async fn checksums_of_whole_objects_for_those_who_ask() {
    const NAME: &str = "123456789";
    for lean in [false, true] {
        for (offered, algorithm, kind, value, of_range) in [
            (
                Checksums::FullObject,
                "crc64nvme",
                "FULL_OBJECT",
                "rosUhgp5mIg=",
                "rosUhgp5mIg=",
            ),
            // CRC-32 of CB F4 39 26, the CRC-32 of the one part.
            (
                Checksums::Composite,
                "crc32",
                "COMPOSITE",
                "7kxlUA==-1",
                "7kxlUA==",
            ),
        ] {
            let world = World::start(Settings {
                lean,
                checksums: offered,
                ..settings([(NAME.to_owned(), Content::from(NAME))])
            })
            .expect("loopback has free ports");
            let s3 = S3::new(&world).await;
            let ask = ("x-amz-checksum-mode", "ENABLED");
            let name = format!("x-amz-checksum-{algorithm}");
            let path = format!("/{NAME}");
            for (headers, expected) in [
                (&[ask][..], Some(value)),
                (&[ask, ("range", "bytes=0-8")], Some(of_range)),
                (&[ask, ("range", "bytes=0-100")], Some(of_range)),
                (&[ask, ("range", "bytes=0-7")], None),
                (&[], None),
            ] {
                let got = s3.get(&path, headers).await;
                let said = |name: &str| {
                    let value = got.headers().get(name)?;
                    value.to_str().ok()
                };
                assert_eq!(said(&name), expected, "{headers:?}");
                let kind = expected.map(|_| kind);
                assert_eq!(said("x-amz-checksum-type"), kind, "{headers:?}");
            }
            let head = s3.head(&path, &[ask]).await;
            assert_eq!(header(&head, &name), value);
            assert!(world.requests().iter().filter(|r| r.checksum_mode).count() >= 4);
        }
    }
}

#[tokio::test]
async fn an_empty_object_has_no_ranges() {
    let world = world_of(&[]);
    world.put(BUCKET, "empty", "");
    let s3 = S3::new(&world).await;
    let whole = s3.get("/empty", &[]).await;
    assert_eq!(whole.status(), 200);
    assert_eq!(header(&whole, "content-length"), "0");
    for range in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
        let response = s3.get("/empty", &[("range", range)]).await;
        assert_eq!(error_code(response, 416).await, "InvalidRange", "{range}");
    }
}

#[tokio::test]
async fn conditions() {
    let world = world_of(&[]);
    let s3 = S3::new(&world).await;
    let old = world.put(BUCKET, "k", "old");
    assert_eq!(s3.get("/k", &[("if-match", &old)]).await.status(), 200);
    assert_eq!(
        s3.get("/k", &[("if-match", old.trim_matches('"'))])
            .await
            .status(),
        200
    );
    assert_eq!(s3.get("/k", &[("if-none-match", &old)]).await.status(), 304);
    assert_eq!(
        s3.head("/k", &[("if-none-match", &old)]).await.status(),
        304
    );

    let new = world.put(BUCKET, "k", "new");
    assert_ne!(old, new);
    let stale = s3
        .get("/k", &[("if-match", &old), ("range", "bytes=0-0")])
        .await;
    assert_eq!(error_code(stale, 412).await, "PreconditionFailed");
    assert_eq!(s3.head("/k", &[("if-match", &old)]).await.status(), 412);
    let fresh = s3.get("/k", &[("if-none-match", &old)]).await;
    assert_eq!(fresh.text().await.expect("a body"), "new");

    assert!(world.remove(BUCKET, "k"));
    assert!(!world.remove(BUCKET, "k"));
    assert_eq!(s3.get("/k", &[("if-match", &new)]).await.status(), 404);

    let one = world.put(BUCKET, "s", Content::Synthetic { size: 1 });
    let two = world.put(BUCKET, "s", Content::Synthetic { size: 1 });
    assert_ne!(one, two, "a synthetic object put again is a new version");
}

/// Clients that check the MD5 of what they read (rclone) do so where the ETag looks like one.
fn assert_not_an_md5(etag: &str) {
    assert!(etag.ends_with("-1\"") && etag.len() == 36, "{etag}");
}

#[tokio::test]
async fn a_hundred_gigabytes() {
    const SIZE: u64 = 100 << 30;
    let object = ("huge".to_owned(), Content::Synthetic { size: SIZE });
    let world = World::start(settings([object])).expect("loopback has free ports");
    let s3 = S3::new(&world).await;
    let head = s3.head("/huge", &[]).await;
    assert_eq!(header(&head, "content-length"), SIZE.to_string());
    assert_not_an_md5(header(&head, "etag"));
    for offset in [0, 5 << 30, (5 << 30) + 3, SIZE - 300_001] {
        let range = format!("bytes={offset}-{}", offset + 300_000);
        let response = s3.get("/huge", &[("range", &range)]).await;
        assert_eq!(response.status(), 206);
        let mut expected = vec![0; 300_001];
        fill("huge", offset, &mut expected);
        assert!(
            response.bytes().await.expect("a body") == expected,
            "at {offset}"
        );
    }
}

#[tokio::test]
async fn files_of_a_directory() {
    let dir = std::env::temp_dir().join(format!("mock-earthdata-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("sub")).expect("a directory");
    let mut bytes = vec![0; 400_000];
    fill("any", 0, &mut bytes);
    std::fs::write(dir.join("sub/large"), &bytes).expect("a file");
    std::fs::write(dir.join("small"), "s").expect("a file");
    std::os::unix::fs::symlink("nowhere", dir.join("dangling")).expect("a link");
    std::os::unix::fs::symlink("..", dir.join("sub/circle")).expect("a link");
    let objects = from_directory(&dir).expect("files");
    let keys: Vec<_> = objects.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["small", "sub/large"]);
    let world = World::start(settings(objects)).expect("loopback has free ports");
    let s3 = S3::new(&world).await;
    let whole = s3.get("/sub/large", &[]).await;
    let etag = header(&whole, "etag").to_owned();
    assert_not_an_md5(&etag);
    assert!(whole.bytes().await.expect("a body") == bytes);
    let part = s3
        .get("/sub/large", &[("range", "bytes=1001-300000")])
        .await;
    assert!(part.bytes().await.expect("a body") == bytes[1001..=300_000]);

    let mut file = std::fs::File::options()
        .append(true)
        .open(dir.join("sub/large"))
        .expect("the file");
    file.write_all(b"more").expect("room");
    drop(file);
    let new = world.put(BUCKET, "sub/large", Content::File(dir.join("sub/large")));
    assert_ne!(new, etag);
    std::fs::remove_dir_all(&dir).expect("it is ours");
}

#[tokio::test]
async fn archived_objects() {
    let world = world_of(&["cold"]);
    assert!(world.archive(BUCKET, "cold"));
    let s3 = S3::new(&world).await;
    assert!(
        s3.list(&[])
            .await
            .contains("<StorageClass>GLACIER</StorageClass>")
    );
    let head = s3.head("/cold", &[]).await;
    assert_eq!(header(&head, "x-amz-storage-class"), "GLACIER");
    assert_eq!(
        error_code(s3.get("/cold", &[]).await, 403).await,
        "InvalidObjectState"
    );
}
