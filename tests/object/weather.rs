//! Bad weather: refused keys, overload, silence, cut connections, objects that change. Between ferry and a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ferry::error::ErrorClass;
use serde_json::json;

use crate::parts::fault::{Proxy, Weather};
use crate::parts::scene::{Scene, directory, s3_store};
use crate::parts::{self, Keys, NEW, OLD};

#[tokio::test]
async fn a_refused_key_is_permanent_and_says_what_to_do() {
    let Some(server) = parts::s3(OLD) else { return };
    let wrong = Keys { id: OLD.id, secret: "not-the-secret" };
    let scene = Scene::new([("old", s3_store(server.port, wrong)), ("new", s3_store(server.port, NEW))]);
    for place in ["old:", "new:"] {
        let error = scene.run("object.list", json!({"from": place})).await.expect_err("refused");
        assert_eq!(error.class, ErrorClass::Permanent, "{error:?}");
        assert!(error.message.contains("refuses"), "{error}");
        assert!(error.help.clone().expect("it helps").contains("key"));
        assert!(!format!("{error:?}").contains(wrong.secret));
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_permanent() {
    let Some(server) = parts::s3(OLD) else { return };
    let mut options = s3_store(server.port, OLD);
    options.insert("bucket".to_owned(), ferry::secret::Text::new("nowhere"));
    let scene = Scene::new([("old", options)]);
    let error = scene.run("object.list", json!({"from": "old:"})).await.expect_err("no such bucket");
    assert_eq!(error.class, ErrorClass::Permanent);
    assert!(error.message.contains("does not exist"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_down_is_transient() {
    let scene = Scene::new([("old", s3_store(parts::free_port(), OLD))]);
    let error = scene.run("object.list", json!({"from": "old:"})).await.expect_err("nobody there");
    assert_eq!(error.class, ErrorClass::Transient, "{error:?}");
}

#[tokio::test]
async fn overload_is_transient_and_retry_after_is_told() {
    let Some(server) = parts::s3(OLD) else { return };
    let slow_down =
        "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    let proxy = Proxy::start(server.port, move |_, _, _| Weather::Answer(503, &[("retry-after", "7")], slow_down)).await;
    let scene = Scene::new([("old", s3_store(proxy.port, OLD))]);
    let error = scene.run("object.list", json!({"from": "old:"})).await.expect_err("overloaded");
    assert_eq!(error.class, ErrorClass::Transient, "{error:?}");
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    assert!((2..=4).contains(&proxy.count("GET", "")), "a request is repeated a little, not for ever");
}

#[tokio::test]
async fn a_short_overload_is_not_even_noticed() {
    let Some(server) = parts::s3(OLD) else { return };
    let proxy = Proxy::start(server.port, |_, _, number| match number % 5 {
        0 => Weather::Answer(503, &[], ""),
        3 => Weather::Answer(500, &[], ""),
        _ => Weather::Fair,
    })
    .await;
    let folder = tempfile::tempdir().expect("a directory");
    for number in 0..20 {
        std::fs::write(folder.path().join(number.to_string()), "content").expect("written");
    }
    let patience = ferry::stores::Patience { repeats: 6, wait: Duration::from_millis(5), ..ferry::stores::Patience::default() };
    let stores = [("here", directory(folder.path())), ("old", s3_store(proxy.port, OLD))];
    let scene = Scene::with_patience(stores, patience);
    let output = scene.run("object.sync", json!({"from": "here:", "to": "old:"})).await.expect("copied");
    assert_eq!(output["copied"], 20);
    scene.run("object.compare", json!({"from": "here:", "to": "old:"})).await.expect("the same");
}

#[tokio::test]
async fn silence_is_transient_and_ends() {
    let Some(server) = parts::s3(OLD) else { return };
    let proxy = Proxy::start(server.port, |_, _, _| Weather::Hang).await;
    let patience = ferry::stores::Patience {
        request: Duration::from_millis(200),
        transfer: Duration::from_millis(200),
        repeats: 1,
        wait: Duration::from_millis(5),
        at_once: 8,
    };
    let scene = Scene::with_patience([("old", s3_store(proxy.port, OLD))], patience);
    let start = Instant::now();
    let error = scene.run("object.list", json!({"from": "old:"})).await.expect_err("silent");
    assert_eq!(error.class, ErrorClass::Transient, "{error:?}");
    assert!(error.message.contains("in time"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_connection_cut_in_mid_body_costs_nothing() {
    let Some(server) = parts::s3(OLD) else { return };
    let cut = Arc::new(AtomicUsize::new(0));
    let seen = cut.clone();
    let proxy = Proxy::start(server.port, move |method, path, _| {
        // The first three readings of the object end early.
        if method == "GET" && path.contains("/box/large") && seen.fetch_add(1, Ordering::Relaxed) < 3 {
            Weather::CutAfter(700_000)
        } else {
            Weather::Fair
        }
    })
    .await;
    let folder = tempfile::tempdir().expect("a directory");
    let scene = Scene::new([("old", s3_store(proxy.port, OLD)), ("here", directory(folder.path()))]);
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    scene.put("old:", "large", content.clone()).await;
    // What a request's own repeats do not mend, the engine's next attempt does.
    let mut outcome = scene.run("object.sync", json!({"from": "old:", "to": "here:"})).await;
    for _ in 0..3 {
        if let Err(error) = &outcome {
            assert_eq!(error.class, ErrorClass::Transient, "{error:?}");
            assert!(!folder.path().join("large").exists(), "a half object is never seen");
            outcome = scene.again("object.sync", json!({"from": "old:", "to": "here:"})).await;
        }
    }
    outcome.expect("copied");
    assert!(cut.load(Ordering::Relaxed) >= 3);
    assert_eq!(std::fs::read(folder.path().join("large")).expect("there"), content);
}

/// Returns when the step is about to write an object: it has looked at the source and begins to read.
async fn begins(scene: &Scene, key: &str) {
    let ledger = scene.scratch().join("ledger.jsonl");
    while !std::fs::read_to_string(&ledger).is_ok_and(|text| text.contains(&format!("\"{key}\""))) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn an_object_that_changes_once_is_copied_once_more() {
    let Some(server) = parts::s3(OLD) else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("live");
    std::fs::write(&path, vec![1; 400_000]).expect("written");
    let scene = Scene::new([("here", directory(folder.path())), ("old", s3_store(server.port, OLD))]);
    let change = async {
        begins(&scene, "live").await;
        std::fs::write(&path, vec![2; 400_000]).expect("written");
    };
    let with = json!({"from": "here:", "to": "old:", "bandwidth": "500KB/s"});
    let (output, ()) = tokio::join!(scene.run("object.sync", with), change);
    assert_eq!(output.expect("copied")["copied"], 1);
    assert_eq!(scene.get("old:", "live").await.expect("there"), vec![2; 400_000], "not a mix of both");
}

#[tokio::test]
async fn an_object_that_keeps_changing_is_a_failure_by_name() {
    let Some(server) = parts::s3(OLD) else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("restless");
    std::fs::write(&path, vec![0; 300_000]).expect("written");
    std::fs::write(folder.path().join("calm"), "x").expect("written");
    let scene = Scene::new([("here", directory(folder.path())), ("old", s3_store(server.port, OLD))]);
    let with = json!({"from": "here:", "to": "old:", "bandwidth": "500KB/s"});
    let run = scene.run("object.sync", with);
    let change = async {
        begins(&scene, "restless").await;
        for number in (0_u8..=255).cycle() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            std::fs::write(&path, vec![number; 300_000]).expect("written");
        }
    };
    let error = tokio::select! {
        outcome = run => outcome.expect_err("it never holds still"),
        () = change => unreachable!("it writes for ever"),
    };
    assert!(error.message.contains("`restless`") && error.message.contains("changed"), "{error}");
    assert_eq!(scene.names("old:").await, ["calm"], "what can be copied is; a mix is never seen");
}

#[tokio::test]
async fn an_object_replaced_in_a_bucket_is_not_mixed() {
    let Some(server) = parts::s3(OLD) else { return };
    let reads = Arc::new(AtomicUsize::new(0));
    let data = server.data.path().join("box/live");
    std::fs::write(&data, vec![1; 2_000_000]).expect("written");
    let (seen, file) = (reads.clone(), data.clone());
    let proxy = Proxy::start(server.port, move |method, path, _| {
        // Between the look at the object and the first reading of it, another takes its place.
        if method == "GET" && path.contains("/box/live") && seen.fetch_add(1, Ordering::Relaxed) == 0 {
            std::fs::write(&file, vec![2; 2_000_001]).expect("written");
        }
        Weather::Fair
    })
    .await;
    let folder = tempfile::tempdir().expect("a directory");
    let scene = Scene::new([("old", s3_store(proxy.port, OLD)), ("here", directory(folder.path()))]);
    let outcome = scene.run("object.sync", json!({"from": "old:", "to": "here:"})).await;
    assert_eq!(outcome.expect("copied")["copied"], 1);
    assert!(std::fs::read(folder.path().join("live")).expect("there") == vec![2; 2_000_001], "it is whole, and the new one");
    assert!(reads.load(Ordering::Relaxed) >= 2);
}

#[tokio::test]
async fn an_object_that_disappears_is_told_and_no_failure() {
    let Some(server) = parts::s3(OLD) else { return };
    for name in ["stays", "vanishes"] {
        std::fs::write(server.data.path().join("box").join(name), "x").expect("written");
    }
    let proxy = Proxy::start(server.port, move |method, path, _| {
        if method == "GET" && path.contains("/box/vanishes") { Weather::Answer(404, &[], "") } else { Weather::Fair }
    })
    .await;
    let folder = tempfile::tempdir().expect("a directory");
    let scene = Scene::new([("old", s3_store(proxy.port, OLD)), ("here", directory(folder.path()))]);
    let output = scene.run("object.sync", json!({"from": "old:", "to": "here:"})).await.expect("copied");
    assert_eq!((output["copied"].as_u64(), output["gone"].as_u64()), (Some(1), Some(1)), "{output}");
    assert!(scene.warnings().iter().any(|text| text.contains("`vanishes`")));
}
