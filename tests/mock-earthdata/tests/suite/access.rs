//! What credentials allow in a bucket.

use mock_earthdata::{Access, ListAccess};

use crate::support::{BUCKET, S3, elements, error_code, world_of};

#[tokio::test]
async fn a_bucket_that_cannot_be_listed() {
    let world = world_of(&["a"]);
    let s3 = S3::new(&world).await;
    world.set_bucket_access(
        BUCKET,
        Access {
            list: ListAccess::Nowhere,
            get: true,
        },
    );
    assert_eq!(
        error_code(s3.list_response(&[]).await, 403).await,
        "AccessDenied"
    );
    assert_eq!(s3.get("/a", &[]).await.status(), 200);
    assert_eq!(s3.head("/a", &[]).await.status(), 200);
    // Who may not list may not learn that a key is missing.
    assert_eq!(
        error_code(s3.get("/b", &[]).await, 403).await,
        "AccessDenied"
    );
    assert_eq!(s3.head("/b", &[]).await.status(), 403);
}

#[tokio::test]
async fn a_bucket_that_can_be_listed_below_a_prefix() {
    let world = world_of(&["open/a", "shut/b"]);
    let s3 = S3::new(&world).await;
    let below = ListAccess::Below(vec!["open/".to_owned()]);
    world.set_bucket_access(
        BUCKET,
        Access {
            list: below,
            get: true,
        },
    );
    for prefix in ["", "open", "shut/"] {
        let response = s3.list_response(&[("prefix", prefix)]).await;
        assert_eq!(response.status(), 403, "{prefix:?}");
    }
    assert_eq!(
        elements(&s3.list(&[("prefix", "open/")]).await, "Key"),
        ["open/a"]
    );
    assert_eq!(
        s3.head("/open/missing", &[]).await.status(),
        403,
        "the condition knows no prefix here"
    );
}

#[tokio::test]
async fn a_bucket_that_can_only_be_listed() {
    let world = world_of(&["a"]);
    let s3 = S3::new(&world).await;
    world.set_bucket_access(
        BUCKET,
        Access {
            get: false,
            ..Access::default()
        },
    );
    assert_eq!(s3.list_response(&[]).await.status(), 200);
    assert_eq!(
        error_code(s3.get("/a", &[]).await, 403).await,
        "AccessDenied"
    );
    assert_eq!(s3.head("/a", &[]).await.status(), 403);
    assert_eq!(s3.head("/missing", &[]).await.status(), 403);
}
