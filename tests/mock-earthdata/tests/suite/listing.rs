//! ListObjectsV2.

use mock_earthdata::{Synthetic, World};

use crate::support::{BUCKET, S3, elements, error_code, settings, world_of};

/// What a listing holds, in the order of its parts.
fn keys(xml: &str) -> Vec<String> {
    elements(xml, "Key")
}

fn prefixes(xml: &str) -> Vec<String> {
    elements(xml, "CommonPrefixes")
        .iter()
        .flat_map(|common| elements(common, "Prefix"))
        .collect()
}

fn one(xml: &str, name: &str) -> String {
    let mut found = elements(xml, name);
    assert_eq!(found.len(), 1, "one {name} in {xml}");
    found.remove(0)
}

#[tokio::test]
async fn a_page_says_what_s3_says() {
    let world = world_of(&["dir/b", "a"]);
    let s3 = S3::new(&world).await;
    let etag = world.put(BUCKET, "c", "twelve bytes");
    let xml = s3.list(&[]).await;
    assert_eq!(keys(&xml), ["a", "c", "dir/b"]);
    assert_eq!(elements(&xml, "Size"), ["1", "12", "5"]);
    assert_eq!(elements(&xml, "ETag")[1].replace("&quot;", "\""), etag);
    assert!(
        elements(&xml, "LastModified")
            .iter()
            .all(|at| at.ends_with("Z"))
    );
    assert_eq!(elements(&xml, "StorageClass").len(), 3);
    assert_eq!(one(&xml, "KeyCount"), "3");
    assert_eq!(one(&xml, "MaxKeys"), "1000");
    assert_eq!(one(&xml, "IsTruncated"), "false");
    assert_eq!(one(&xml, "Name"), BUCKET);
    assert!(elements(&xml, "NextContinuationToken").is_empty());
}

#[tokio::test]
async fn a_delimiter_rolls_up() {
    let world = world_of(&[
        "d/", "d/e/1", "d/e/2", "d/f", "d-", "d.x", "d0", "d/e", "é/1",
    ]);
    let s3 = S3::new(&world).await;
    let xml = s3.list(&[("delimiter", "/")]).await;
    assert_eq!(keys(&xml), ["d-", "d.x", "d0"]);
    assert_eq!(prefixes(&xml), ["d/", "é/"]);
    assert_eq!(one(&xml, "KeyCount"), "5");
    let xml = s3.list(&[("delimiter", "/"), ("prefix", "d/")]).await;
    assert_eq!(keys(&xml), ["d/", "d/e", "d/f"]);
    assert_eq!(prefixes(&xml), ["d/e/"]);
    let xml = s3.list(&[("prefix", "d"), ("max-keys", "1")]).await;
    assert_eq!(
        keys(&xml),
        ["d-"],
        "the least key with the prefix, not the directory"
    );
}

/// All pages of one listing, walked by tokens.
async fn walk(s3: &S3, parameters: &[(&str, &str)], max: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let mut asked = parameters.to_vec();
        asked.push(("max-keys", max));
        if let Some(token) = &token {
            asked.push(("continuation-token", token));
        }
        let xml = s3.list(&asked).await;
        let page: Vec<String> = keys(&xml).into_iter().chain(prefixes(&xml)).collect();
        assert!(page.len() <= max.parse().expect("a number"));
        assert_eq!(one(&xml, "KeyCount"), page.len().to_string());
        found.extend(page);
        token = elements(&xml, "NextContinuationToken").pop();
        assert_eq!(one(&xml, "IsTruncated"), token.is_some().to_string());
        if token.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn pages_of_one_hold_each_entry_once() {
    let world = world_of(&["a", "b/1", "b/2", "b/3", "b0", "c/1", "d"]);
    let s3 = S3::new(&world).await;
    for max in ["1", "2", "3", "1000"] {
        assert_eq!(
            walk(&s3, &[], max).await,
            ["a", "b/1", "b/2", "b/3", "b0", "c/1", "d"]
        );
        let mut rolled = walk(&s3, &[("delimiter", "/")], max).await;
        rolled.sort();
        assert_eq!(rolled, ["a", "b/", "b0", "c/", "d"]);
    }
    assert_eq!(
        walk(&s3, &[("prefix", "b/")], "2").await,
        ["b/1", "b/2", "b/3"]
    );
}

#[tokio::test]
async fn start_after() {
    let world = world_of(&["a", "b/1", "b/2", "c"]);
    let s3 = S3::new(&world).await;
    let after = async |key: &str| {
        let xml = s3.list(&[("delimiter", "/"), ("start-after", key)]).await;
        [keys(&xml), prefixes(&xml)].concat()
    };
    assert_eq!(after("a").await, ["c", "b/"]);
    assert_eq!(
        after("b/1").await,
        ["c", "b/"],
        "inside a common prefix: that prefix again"
    );
    assert_eq!(after("b/2").await, ["c"]);
    assert_eq!(after("aa").await, ["c", "b/"], "a key that is not there");
    assert_eq!(after("zzz").await, [""; 0]);
    let xml = s3.list(&[("prefix", "b/"), ("start-after", "a")]).await;
    assert_eq!(keys(&xml), ["b/1", "b/2"], "before the prefix");
    assert_eq!(one(&xml, "StartAfter"), "a");
}

#[tokio::test]
async fn max_keys() {
    let world = world_of(&["a", "b"]);
    let s3 = S3::new(&world).await;
    let none = s3.list(&[("max-keys", "0")]).await;
    assert_eq!(one(&none, "KeyCount"), "0");
    assert_eq!(one(&none, "IsTruncated"), "false");
    let many = s3.list(&[("max-keys", "5000")]).await;
    assert_eq!(one(&many, "MaxKeys"), "1000");
    let negative = s3.list_response(&[("max-keys", "-1")]).await;
    assert_eq!(error_code(negative, 400).await, "InvalidArgument");
    let token = s3.list_response(&[("continuation-token", "rubbish")]).await;
    assert_eq!(error_code(token, 400).await, "InvalidArgument");
    let full = s3.list(&[("max-keys", "2")]).await;
    assert_eq!(
        one(&full, "IsTruncated"),
        "false",
        "a page that is just full is the last"
    );
}

#[tokio::test]
async fn url_encoding() {
    let odd = [
        "a b+c",
        "new\nline",
        "per%cent",
        "é/ü",
        "tab\t&<>\"'",
        "~(x)*-_.",
        "\u{1}",
    ];
    let world = world_of(&odd);
    let s3 = S3::new(&world).await;
    let xml = s3.list(&[("encoding-type", "url")]).await;
    assert_eq!(one(&xml, "EncodingType"), "url");
    let mut decoded: Vec<String> = keys(&xml)
        .iter()
        .map(|key| {
            let pairs: Vec<_> = form_urlencoded::parse(format!("k={key}").as_bytes())
                .map(|(_, value)| value.into_owned())
                .collect();
            pairs.concat()
        })
        .collect();
    decoded.sort();
    let mut expected: Vec<String> = odd.iter().map(|key| (*key).to_owned()).collect();
    expected.sort();
    assert_eq!(decoded, expected);
    let keys = keys(&xml);
    for spelling in [
        "a+b%2Bc",
        "new%0Aline",
        "per%25cent",
        "%C3%A9/%C3%BC",
        "%7E%28x%29*-_.",
        "%01",
    ] {
        assert!(
            keys.iter().any(|key| key == spelling),
            "{spelling} in {keys:?}"
        );
    }
    let parameters = [
        ("encoding-type", "url"),
        ("delimiter", "/"),
        ("prefix", "é"),
        ("start-after", "a b"),
    ];
    let xml = s3.list(&parameters).await;
    assert_eq!(prefixes(&xml), ["%C3%A9/"]);
    assert_eq!(one(&xml, "StartAfter"), "a+b");
    assert_eq!(elements(&xml, "Prefix")[0], "%C3%A9");
    // And each can be read.
    for key in odd {
        let path = format!("/{}", crate::support::strict(key).replace("%2F", "/"));
        let response = s3.get(&path, &[]).await;
        assert_eq!(response.text().await.expect("a body"), key);
    }
}

#[tokio::test]
async fn a_hundred_thousand_keys() {
    let synthetic = Synthetic::parse("deep:100000:1G:100").expect("a description");
    let world = World::start(settings(synthetic.objects())).expect("loopback has free ports");
    let s3 = S3::new(&world).await;
    let directories = walk(&s3, &[("prefix", "deep/"), ("delimiter", "/")], "1000").await;
    assert_eq!(directories.len(), 1000);
    assert_eq!(directories[999], "deep/000999/");
    let names = walk(
        &s3,
        &[("prefix", "deep/000999/"), ("delimiter", "/")],
        "1000",
    )
    .await;
    assert_eq!(names.len(), 100);
    assert_eq!(names[99], "deep/000999/000099.bin");
}

#[tokio::test]
async fn a_bucket_may_answer_with_shorter_pages() {
    let synthetic = Synthetic::parse("few:10:1").expect("a description");
    let mut settings = settings(synthetic.objects());
    settings.buckets[0].page = Some(3);
    let world = World::start(settings).expect("loopback has free ports");
    let s3 = S3::new(&world).await;
    let xml = s3.list(&[("prefix", "few/"), ("max-keys", "1000")]).await;
    assert_eq!(keys(&xml).len(), 3);
    assert_eq!(one(&xml, "IsTruncated"), "true");
    assert_eq!(walk(&s3, &[("prefix", "few/")], "1000").await.len(), 10);
    let xml = s3.list(&[("prefix", "few/"), ("max-keys", "2")]).await;
    assert_eq!(keys(&xml).len(), 2);
}
