//! Bad weather in front of real servers: cuts, floods, hanging, bytes that change on the way.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ferry::secret::Text;
use ferry::stores::Patience;
use ferry::stores::bucket::{BucketError, Condition, PageQuery, Properties};

use super::parts::fault::{Proxy, Weather};
use super::parts::scene::{azure_store, s3_store};
use super::parts::{self, AZURE_ACCOUNT, NEW};
use super::{PATIENCE, open, open_with};

#[tokio::test]
async fn a_body_that_is_cut_is_read_again() {
    let Some(server) = parts::s3(NEW) else { return };
    let body = Bytes::from(vec![7; 3 << 20]);
    open(s3_store(server.port, NEW)).put("a", &Properties::default(), body.clone(), &Condition::None).await.expect("written");
    let proxy = Proxy::start(server.port, |method, _, number| match (method, number) {
        ("GET", 0) => Weather::CutAfter(1 << 20),
        ("GET", 1) => Weather::CutAfter(0),
        _ => Weather::Fair,
    })
    .await;
    let got = open(s3_store(proxy.port, NEW)).get("a", None, None).await.expect("the third time");
    assert!(got.body == body);
    assert_eq!(proxy.count("GET", "/box/a"), 3);
}

#[tokio::test]
async fn a_part_that_is_cut_off_is_sent_again() {
    let Some(server) = parts::s3(NEW) else { return };
    let proxy = Proxy::start(server.port, |method, path, number| {
        if method == "PUT" && path.contains("partNumber") && number < 2 { Weather::CutAfter(0) } else { Weather::Fair }
    })
    .await;
    let bucket = open(s3_store(proxy.port, NEW));
    let upload = bucket.begin("a", &Properties::default()).await.expect("begun");
    let part = bucket.put_part("a", &upload, 1, Bytes::from_static(b"content")).await.expect("sent again");
    let facts = bucket.complete("a", &upload, &Properties::default(), &[part], &Condition::None).await.expect("completed");
    assert_eq!((facts.size, proxy.count("PUT", "partNumber")), (7, 2));
}

#[tokio::test]
async fn a_flooded_service_is_given_the_time_it_asks_for() {
    let Some(server) = parts::s3(NEW) else { return };
    let busy = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    let proxy = Proxy::start(server.port, move |_, _, number| match number {
        0 => Weather::Answer(503, &[("retry-after", "1")], busy),
        1 => Weather::Answer(429, &[], ""),
        _ => Weather::Fair,
    })
    .await;
    let bucket = open(s3_store(proxy.port, NEW));
    let start = Instant::now();
    bucket.put("a", &Properties::default(), Bytes::from_static(b"content"), &Condition::None).await.expect("written");
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(bucket.throttled(), 2);

    // More than a step waits for is left to the engine, which is told.
    let proxy = Proxy::start(server.port, move |_, _, _| Weather::Answer(503, &[("retry-after", "3600")], "")).await;
    let error = open(s3_store(proxy.port, NEW)).get("a", None, None).await.expect_err("too long");
    let BucketError::Failed(error) = error else { panic!("{error:?}") };
    assert_eq!(error.retry_after, Some(Duration::from_hours(1)));
    assert_eq!(proxy.requests().len(), 1);
}

#[tokio::test]
async fn a_request_that_hangs_is_given_up_and_made_again() {
    let Some(server) = parts::s3(NEW) else { return };
    let proxy = Proxy::start(server.port, |_, _, number| if number == 0 { Weather::Hang } else { Weather::Fair }).await;
    let short = Duration::from_millis(300);
    let bucket = open_with(s3_store(proxy.port, NEW), Patience { request: short, transfer: short, ..PATIENCE });
    assert!(bucket.list(PageQuery::default()).await.expect("the second time").entries.is_empty());
    let proxy = Proxy::start(server.port, |_, _, _| Weather::Hang).await;
    let bucket = open_with(s3_store(proxy.port, NEW), Patience { request: short, transfer: short, repeats: 1, ..PATIENCE });
    let BucketError::Failed(error) = bucket.head("a").await.expect_err("never") else { panic!("it failed otherwise") };
    assert!(error.message.contains("did not answer in time"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_down_is_a_failure_that_may_pass() {
    let port = parts::free_port();
    let bucket = open(s3_store(port, NEW));
    let BucketError::Failed(error) = bucket.head("a").await.expect_err("nobody there") else { panic!("it failed otherwise") };
    assert_eq!(error.class, ferry::error::ErrorClass::Transient);
    assert!(error.message.contains("the connection failed"), "{error}");
}

/// What changes on the way is refused by the server and sent again.
async fn spoiled(port: u16, store: impl Fn(u16) -> ferry::stores::StoreOptions) {
    let proxy = Proxy::start(port, |method, path, number| {
        let is_first = method == "PUT" && (path.ends_with("/a") || path.contains("blockid") || path.contains("partNumber"));
        if is_first && number.is_multiple_of(2) { Weather::Spoil(3) } else { Weather::Fair }
    })
    .await;
    let bucket = open(store(proxy.port));
    // What the service understands is known after this.
    bucket.put("first", &Properties::default(), Bytes::new(), &Condition::None).await.expect("written");
    if !proxy.requests().len().is_multiple_of(2) {
        bucket.head("first").await.expect("there");
    }
    let body = Bytes::from_static(b"content");
    bucket.put("a", &Properties::default(), body.clone(), &Condition::None).await.expect("sent again");
    assert_eq!(proxy.count("PUT", "/a"), 2);
    assert_eq!(bucket.get("a", None, None).await.expect("there").body, body);
}

#[tokio::test]
async fn bytes_that_change_on_the_way_are_sent_again() {
    let Some(server) = parts::s3(NEW) else { return };
    // This server checks MD5 only.
    spoiled(server.port, |port| {
        let mut options = s3_store(port, NEW);
        options.insert("checksum_algorithm".to_owned(), Text::new("md5"));
        options
    })
    .await;
    let Some(server) = parts::azure() else { return };
    let options = azure_store(&server).await;
    spoiled(server.port, |port| {
        let mut options = options.clone();
        options.insert("endpoint".to_owned(), Text::new(format!("http://127.0.0.1:{port}/{AZURE_ACCOUNT}")));
        options
    })
    .await;
}
