//! The manager as a library, without a mount: the credentials provider of an AWS SDK client.

use std::time::{Duration, Instant};

use aws_sdk_s3::config::{BehaviorVersion, IdentityCache, Region};
use aws_sdk_s3::error::ProvideErrorMetadata;
use mock_earthdata::{Content, DEFAULT_TOKEN};
use s3credmount::credentials::{Manager, Policy, Settings, Sharing};
use s3credmount::earthdata::{self, LoginSettings};
use s3credmount::network::Network;

use crate::support::{BUCKET, PATIENCE, world_with};

/// As the documentation of `s3credmount::credentials` has it, but on plain http and loopback.
#[tokio::test]
async fn a_client_of_the_sdk_goes_on_when_its_credentials_have_expired() {
    let world = world_with([("file", Content::from("content"))], |settings| {
        settings.lifetime = Duration::from_secs(6);
    });
    let settings = Settings {
        endpoint: earthdata::Settings {
            endpoint: world.tea_endpoint(),
            login_host: world.earthdata_host(),
            login: LoginSettings {
                token: Some(DEFAULT_TOKEN.to_owned().into()),
                ..LoginSettings::default()
            },
        },
        sharing: Sharing::default(),
        policy: Policy::default(),
    };
    let manager = Manager::open(&settings, &Network::default()).expect("a good endpoint");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(world.s3_url())
        .force_path_style(true)
        .region(Region::new("us-west-2"))
        .credentials_provider(manager.clone())
        .identity_cache(IdentityCache::no_cache())
        .build();
    let client = aws_sdk_s3::Client::from_conf(config);
    let begin = Instant::now();
    let mut reads = 0;
    // Two lives of credentials, without an error.
    while world.counters().credentials_issued < 3 {
        assert!(begin.elapsed() < PATIENCE, "never renewed");
        let object = client.get_object().bucket(BUCKET).key("file").send();
        let object = object.await.unwrap_or_else(|error| {
            panic!("{:?} after {reads} reads", error.code());
        });
        let bytes = object.body.collect().await.expect("a body").into_bytes();
        assert_eq!(&bytes[..], b"content");
        reads += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(reads > 2);
    let held = manager.current().await.expect("valid");
    let page = client.list_objects_v2().bucket(BUCKET).send().await;
    assert_eq!(page.expect("a page").contents().len(), 1);
    assert!(held.access_key_id.starts_with("ASIA"));
}
