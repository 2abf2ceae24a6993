//! CMR: pages that lead to one another, and what goes wrong with them.

use mock_earthdata::{Cmr, CmrTrouble, World};
use reqwest::Response;
use serde_json::Value;

use crate::support::{header, http, world_of};

async fn search(world: &World, parameters: &str, after: Option<&str>) -> Response {
    let url = format!(
        "{}/search/collections.umm_json?{parameters}",
        world.cmr_url()
    );
    let mut request = http().get(url);
    if let Some(after) = after {
        request = request.header("CMR-Search-After", after);
    }
    request.send().await.expect("an answer")
}

async fn items(response: Response) -> usize {
    let text = response.text().await.expect("a body");
    let page: Value = serde_json::from_str(&text).expect("JSON");
    page["items"].as_array().expect("items").len()
}

const ALL: &str = "cloud_hosted=true&page_size=100";

#[tokio::test]
async fn pages_lead_to_one_another_and_the_last_is_empty() {
    let world = world_of(&[]);
    let mut after: Option<String> = None;
    let mut sizes = Vec::new();
    loop {
        let response = search(&world, ALL, after.as_deref()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "cmr-hits"), "12");
        let next = response.headers().get("cmr-search-after");
        after = next.map(|token| token.to_str().expect("ASCII").to_owned());
        sizes.push(items(response).await);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [4, 4, 4, 0]);
    assert_eq!(world.counters().cmr_requests, 4);
}

#[tokio::test]
async fn a_token_belongs_to_its_search() {
    let world = world_of(&[]);
    let first = search(&world, ALL, None).await;
    let token = header(&first, "cmr-search-after").to_owned();
    for (parameters, after) in [
        ("cloud_hosted=true&page_size=50", token.as_str()),
        ("cloud_hosted=true&page_size=100&page_num=2", &token),
        ("page_size=100", &token),
        ("cloud_hosted=true&page_size=2001", &token),
        (ALL, "rubbish"),
    ] {
        let response = search(&world, parameters, Some(after)).await;
        assert_eq!(response.status(), 400, "{parameters} {after}");
    }
}

#[tokio::test]
async fn trouble_comes_in_order_and_then_no_more() {
    let world = world_of(&[]);
    world.set_cmr(Cmr {
        trouble: vec![
            CmrTrouble::Status(429, Some(7)),
            CmrTrouble::TimeOut,
            CmrTrouble::Html,
            CmrTrouble::LastTooEarly,
        ],
        ..Cmr::default()
    });
    let busy = search(&world, ALL, None).await;
    assert_eq!(
        (busy.status().as_u16(), header(&busy, "retry-after")),
        (429, "7")
    );
    let partial = search(&world, ALL, None).await;
    assert_eq!(header(&partial, "cmr-time-out"), "true");
    assert_eq!(items(partial).await, 2);
    let page = search(&world, ALL, None).await.text().await;
    assert!(page.expect("a body").starts_with("<!DOCTYPE html>"));
    let last = search(&world, ALL, None).await;
    assert!(!last.headers().contains_key("cmr-search-after"));
    assert_eq!(items(last).await, 4);
    let fine = search(&world, ALL, None).await;
    assert!(fine.headers().contains_key("cmr-search-after"));
}

#[tokio::test]
async fn a_secret_at_cmr_is_counted() {
    let world = world_of(&[]);
    let url = format!("{}/search/collections.umm_json?{ALL}", world.cmr_url());
    let response = http().get(url).bearer_auth("x").send().await;
    assert_eq!(response.expect("an answer").status(), 200);
    assert_eq!(world.counters().stray_authorizations, 1);
}
