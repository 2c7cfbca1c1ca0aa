//! Connections that are cut at every quarter of a body, both ways, of whole objects and of parts, S3 and Azure. Between
//! ferry and real servers, which keep to conditions.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use ferry::secret::Text;
use ferry::stores::{Patience, StoreOptions};
use serde_json::json;

use crate::parts::fault::{Asked, Proxy, Weather};
use crate::parts::scene::{Scene, azure_store, directory, s3_store};
use crate::parts::{self, AZURE_ACCOUNT, GARAGE_OLD};

/// One request, and three parts.
const SIZES: [usize; 2] = [300_001, (17 << 20) + 3];

const PATIENCE: Patience = Patience {
    request: Duration::from_secs(20),
    transfer: Duration::from_secs(20),
    repeats: 12,
    wait: Duration::from_millis(40),
    at_once: 64,
};

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 1000 + at).to_le_bytes()[0]).collect()
}

/// Each request is cut after no quarter, one, two, three, and all of them when `cut` counts so far; then it passes.
fn at_every_quarter(is_meant: fn(&Asked) -> bool, most: u8, cut: fn(u8) -> Weather) -> impl Fn(&Asked) -> Weather + Send + Sync {
    let tries: Mutex<HashMap<String, u8>> = Mutex::default();
    move |asked| {
        if !is_meant(asked) {
            return Weather::Fair;
        }
        let range = asked.head.lines().find(|line| line.to_ascii_lowercase().starts_with("range:")).unwrap_or_default();
        let mut tries = tries.lock().expect("not poisoned");
        let number = tries.entry(format!("{} {} {range}", asked.method, asked.path)).or_default();
        *number += 1;
        if *number > most { Weather::Fair } else { cut(*number - 1) }
    }
}

fn reads_a_body(asked: &Asked) -> bool {
    asked.method == "GET" && asked.path.contains("/box/object")
}

fn writes_a_body(asked: &Asked) -> bool {
    let has_body = asked.head.lines().any(|line| {
        let line = line.to_ascii_lowercase();
        line.strip_prefix("content-length:").is_some_and(|length| length.trim() != "0")
    });
    matches!(asked.method, "PUT" | "POST") && asked.path.contains("/box/object") && has_body
}

/// From the store behind a proxy into a directory.
async fn down(port: u16, store: impl Fn(u16) -> StoreOptions) {
    let proxy = Proxy::seeing(port, at_every_quarter(reads_a_body, 4, Weather::CutDown)).await;
    let folder = tempfile::tempdir().expect("a directory");
    let stores = [("direct", store(port)), ("cut", store(proxy.port)), ("here", directory(folder.path()))];
    let scene = Scene::with_patience(stores, PATIENCE);
    for size in SIZES {
        scene.put("direct:", &format!("object-{size}"), content(size)).await;
    }
    let output = scene.run("object.sync", json!({"from": "cut:", "to": "here:"})).await.expect("copied");
    assert_eq!(output["copied"], SIZES.len());
    for size in SIZES {
        let there = std::fs::read(folder.path().join(format!("object-{size}"))).expect("there");
        assert!(there == content(size), "{size} bytes are not what they were");
    }
    // One for the small object; three pieces of the large one.
    assert_eq!(proxy.count("GET", "/box/object"), (1 + 3) * 5);
}

/// From a directory into the store behind a proxy; the fifth time everything arrives and the answer is lost.
async fn up(port: u16, store: impl Fn(u16) -> StoreOptions) {
    let proxy = Proxy::seeing(port, at_every_quarter(writes_a_body, 5, Weather::CutUp)).await;
    let folder = tempfile::tempdir().expect("a directory");
    for size in SIZES {
        std::fs::write(folder.path().join(format!("object-{size}")), content(size)).expect("written");
    }
    let stores = [("direct", store(port)), ("cut", store(proxy.port)), ("here", directory(folder.path()))];
    let scene = Scene::with_patience(stores, PATIENCE);
    let output = scene.run("object.sync", json!({"from": "here:", "to": "cut:"})).await;
    let output = output.unwrap_or_else(|error| panic!("{error:?} {:#?}", proxy.requests()));
    assert_eq!((&output["copied"], &output["overwritten"]), (&json!(SIZES.len()), &json!(0)));
    for size in SIZES {
        let there = scene.get("direct:", &format!("object-{size}")).await.expect("there");
        assert!(there == content(size), "{size} bytes are not what they were");
    }
    let uploads = scene.place("direct:").bucket().expect("a bucket").uploads("").await.expect("listed");
    assert!(uploads.is_empty(), "{uploads:?}");
    let again = scene.run("object.sync", json!({"from": "here:", "to": "direct:"})).await.expect("nothing to do");
    assert_eq!(again["copied"], 0);
}

#[tokio::test]
async fn a_body_that_is_cut_at_any_quarter_arrives_whole_from_s3() {
    let Some(server) = parts::garage(GARAGE_OLD) else { return };
    down(server.port, |port| s3_store(port, GARAGE_OLD)).await;
}

#[tokio::test]
async fn a_body_that_is_cut_at_any_quarter_arrives_whole_in_s3() {
    let Some(server) = parts::garage(GARAGE_OLD) else { return };
    up(server.port, |port| s3_store(port, GARAGE_OLD)).await;
}

async fn azure(server: &parts::Server) -> impl Fn(u16) -> StoreOptions + use<> {
    let options = azure_store(server).await;
    move |port| {
        let mut options = options.clone();
        options.insert("endpoint".to_owned(), Text::new(format!("http://127.0.0.1:{port}/{AZURE_ACCOUNT}")));
        options
    }
}

#[tokio::test]
async fn a_body_that_is_cut_at_any_quarter_arrives_whole_from_azure() {
    let Some(server) = parts::azure() else { return };
    down(server.port, azure(&server).await).await;
}

#[tokio::test]
async fn a_body_that_is_cut_at_any_quarter_arrives_whole_in_azure() {
    let Some(server) = parts::azure() else { return };
    up(server.port, azure(&server).await).await;
}
