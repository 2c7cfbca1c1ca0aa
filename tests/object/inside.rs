//! Between two buckets of one service the service copies: nothing is sent, and nothing is lost by that.

use bytes::Bytes;
use ferry::stores::StoreOptions;
use ferry::stores::bucket::{Condition, Properties};
use serde_json::json;

use crate::parts::fault::{Proxy, Weather};
use crate::parts::scene::{Scene, azure_container, other_bucket, s3_store};
use crate::parts::{self, GARAGE_OLD, NEW, OLD};

/// Keys that are legal in a bucket and that few programs leave alone.
const NASTY: &[&str] =
    &["a//b", "/lead", "a/../b", "./x", "dir/", "a", "a/b", "sp ace +%2F&?#", "n\u{ef}ve \u{2713}", "tab\there", "=\"<>\\|"];

fn kept() -> Properties {
    Properties {
        content_type: Some("image/x-test".to_owned()),
        cache_control: Some("no-store".to_owned()),
        content_language: Some("de".to_owned()),
        user: [("colour".to_owned(), "gr\u{fc}n".to_owned())].into(),
        ..Properties::default()
    }
}

fn large() -> Bytes {
    (0..20_u32 << 20).map(|number| (number / 4096 + number).to_le_bytes()[0]).collect::<Vec<u8>>().into()
}

async fn put(scene: &Scene, place: &str, key: &str, body: impl Into<Bytes>) {
    let store = scene.place(place);
    let bucket = store.bucket().expect("a bucket");
    bucket.put(&store.whole_key(key), &kept(), body.into(), &Condition::None).await.expect("written");
}

async fn head(scene: &Scene, place: &str, key: &str) -> Properties {
    let store = scene.place(place);
    store.bucket().expect("a bucket").head(&store.whole_key(key)).await.expect("there").properties
}

/// Bodies that were read from the bucket `box`: the listing is no body.
fn bodies(proxy: &Proxy) -> usize {
    proxy.requests().iter().filter(|line| line.starts_with("GET /box/") && !line.starts_with("GET /box/?")).count()
}

#[tokio::test]
async fn garage_copies_between_its_buckets_whatever_the_keys() {
    let Some(garage) = parts::garage(GARAGE_OLD) else { return };
    parts::garage_bucket(&garage, GARAGE_OLD, "other");
    let proxy = Proxy::start(garage.port, |_, _, _| Weather::Fair).await;
    let (old, new) = (s3_store(proxy.port, GARAGE_OLD), other_bucket(s3_store(proxy.port, GARAGE_OLD), "other"));
    let scene = Scene::new([("old", old), ("new", new)]);
    for key in NASTY {
        put(&scene, "old:up/", key, format!("content of {key}")).await;
    }
    put(&scene, "old:up/", "large", large()).await;
    let with = json!({"from": "old:up/", "to": "new:in/"});
    let plan = scene.plan("object.sync", with.clone()).await.expect("planned");
    assert!(plan.does.contains("copied inside the service"), "{}", plan.does);
    let count = NASTY.len() + 1;
    let output = scene.run("object.sync", with.clone()).await.expect("copied");
    assert_eq!((&output["copied"], &output["copied_inside"]), (&json!(count), &json!(count)));
    assert_eq!(output["bytes_inside"], output["bytes"]);
    assert_eq!((bodies(&proxy), output["warnings"].as_u64()), (0, Some(0)), "{:?}", scene.warnings());
    for key in NASTY.iter().chain(&["large"]) {
        assert_eq!(head(&scene, "new:in/", key).await, head(&scene, "old:up/", key).await, "{key}");
    }
    let same = json!({"from": "old:up/", "to": "new:in/", "by": "checksum"});
    let proof = scene.run("object.compare", same.clone()).await;
    // OpenDAL does not read names of this kind: what is left is read by the step's own means.
    assert!(proof.is_ok() || proof.is_err_and(|error| error.message.contains("cannot be used")));
    let again = scene.run("object.sync", with.clone()).await.expect("nothing to do");
    assert_eq!(again["skipped"], count);
    // A verification reads both sides.
    let fresh = json!({"from": "old:up/", "to": "new:again/", "verify": "full"});
    let output = scene.run("object.sync", fresh.clone()).await.expect("copied");
    assert_eq!(output["copied_inside"], count);
    assert!(bodies(&proxy) > count);
    scene.undo(fresh).await.expect("undone");
    assert!(scene.names("new:again/").await.is_empty());
    // Told not to, it sends.
    let never = json!({"from": "old:up/", "to": "new:sent/", "server_side": "never"});
    let plan = scene.plan("object.sync", never.clone()).await.expect("planned");
    assert!(plan.does.contains("sent through this machine: `server_side: never`"), "{}", plan.does);
    let output = scene.run("object.sync", never).await.expect("copied");
    assert_eq!((&output["copied"], &output["copied_inside"]), (&json!(count), &json!(0)));
    for key in NASTY.iter().chain(&["large"]) {
        assert_eq!(head(&scene, "new:sent/", key).await, head(&scene, "old:up/", key).await, "{key}");
    }
}

/// What is too much for one request is copied in parts; those that are there are not copied again by the next attempt.
#[tokio::test]
async fn a_copy_in_parts_goes_on_after_a_death() {
    let Some(garage) = parts::garage(GARAGE_OLD) else { return };
    parts::garage_bucket(&garage, GARAGE_OLD, "other");
    let is_dead = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = is_dead.clone();
    let proxy = Proxy::start(garage.port, move |method, path, _| match (method, path) {
        ("PUT", "/other/in/large") => {
            Weather::Answer(400, &[], "<Error><Code>EntityTooLarge</Code><Message>too large for one copy</Message></Error>")
        }
        ("PUT", path) if path.contains("partNumber=2") && !seen.load(std::sync::atomic::Ordering::SeqCst) => Weather::Hang,
        _ => Weather::Fair,
    })
    .await;
    let (old, new) = (s3_store(proxy.port, GARAGE_OLD), other_bucket(s3_store(proxy.port, GARAGE_OLD), "other"));
    let scene = Scene::new([("old", old), ("new", new)]);
    put(&scene, "old:", "large", large()).await;
    let with = json!({"from": "old:", "to": "new:in/"});
    let ledger = scene.scratch().join("ledger.jsonl");
    let parts_are_there = async {
        let told = || std::fs::read_to_string(&ledger).unwrap_or_default().matches("\"what\":\"part\"").count();
        while told() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        outcome = scene.run("object.sync", with.clone()) => panic!("one part hangs: {outcome:?}"),
        () = parts_are_there => {}
    }
    is_dead.store(true, std::sync::atomic::Ordering::SeqCst);
    let scene = scene.restarted();
    let output = scene.again("object.sync", with.clone()).await.expect("copied");
    assert_eq!((&output["copied"], &output["copied_inside"]), (&json!(1), &json!(1)));
    let asked = |number: u32| proxy.count("PUT", &format!("partNumber={number}"));
    // The first byte, in each attempt: with it comes the number of tags.
    assert_eq!((asked(1), asked(3), bodies(&proxy)), (1, 1, 2), "{:?}", proxy.requests());
    assert_eq!(scene.get("new:in/", "large").await.expect("there"), large());
    assert_eq!(head(&scene, "new:in/", "large").await, kept());
    scene.undo(with.clone()).await.expect("undone");
    assert!(scene.names("new:").await.is_empty());
    // An undo in the middle leaves no upload.
    is_dead.store(false, std::sync::atomic::Ordering::SeqCst);
    let begun = async {
        while scene.place("new:").bucket().expect("a bucket").uploads("in/").await.expect("listed").is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        while !std::fs::read_to_string(scene.scratch().join("ledger.jsonl")).unwrap_or_default().contains("\"part\"") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        outcome = scene.run("object.sync", with.clone()) => panic!("one part hangs: {outcome:?}"),
        () = begun => {}
    }
    scene.undo(with).await.expect("undone");
    assert!(scene.place("new:").bucket().expect("a bucket").uploads("in/").await.expect("listed").is_empty());
}

#[tokio::test]
async fn azure_copies_between_its_containers() {
    let Some(azure) = parts::azure() else { return };
    let (old, new) = (azure_container(&azure, "box").await, azure_container(&azure, "other").await);
    let proxy = Proxy::start(azure.port, |_, _, _| Weather::Fair).await;
    let by_proxy = |mut store: StoreOptions| {
        let endpoint = store["endpoint"].to_string().replace(&azure.port.to_string(), &proxy.port.to_string());
        store.insert("endpoint".to_owned(), ferry::secret::Text::new(endpoint));
        store
    };
    let scene = Scene::new([("old", by_proxy(old)), ("new", by_proxy(new))]);
    // Azure takes these for parts of a path.
    let keys: Vec<&str> = NASTY.iter().copied().filter(|key| !key.contains('\t') && !key.contains('\\')).collect();
    let properties = Properties { tags: [("team".to_owned(), "blue one".to_owned())].into(), ..kept() };
    let store = scene.place("old:");
    for key in &keys {
        let bucket = store.bucket().expect("a bucket");
        bucket.put(key, &properties, Bytes::from(format!("content of {key}")), &Condition::None).await.expect("written");
    }
    let with = json!({"from": "old:", "to": "new:in/"});
    let output = scene.run("object.sync", with.clone()).await.expect("copied");
    let with_dots = keys.iter().filter(|key| key.starts_with('.') || key.contains("..")).count();
    assert_eq!((&output["copied"], &output["copied_inside"]), (&json!(keys.len()), &json!(keys.len() - with_dots)));
    assert_eq!(output["warnings"], 0, "{:?}", scene.warnings());
    let new = scene.place("new:in/");
    let bucket = new.bucket().expect("a bucket");
    for key in &keys {
        let got = bucket.get(&new.whole_key(key), None, None).await.expect("there");
        assert_eq!(got.body, format!("content of {key}"));
        assert_eq!(got.head.properties, kept(), "{key}");
        assert_eq!(bucket.tags(&new.whole_key(key)).await.expect("tags"), properties.tags, "{key}");
    }
    let again = scene.run("object.sync", with.clone()).await.expect("nothing to do");
    assert_eq!(again["skipped"], keys.len());
}

/// The service says no: everything is sent after all, which is said once.
#[tokio::test]
async fn a_service_that_refuses_to_copy_is_sent_to() {
    let Some(server) = parts::s3(OLD) else { return };
    std::fs::create_dir(server.data.path().join("other")).expect("a bucket");
    let refusals = std::sync::atomic::AtomicUsize::new(0);
    let proxy = Proxy::start(server.port, move |method, path, _| {
        let is_copy = method == "PUT" && path.starts_with("/other/");
        if is_copy && refusals.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            return Weather::Answer(403, &[], "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>");
        }
        Weather::Fair
    })
    .await;
    let (old, new) = (s3_store(proxy.port, OLD), other_bucket(s3_store(proxy.port, OLD), "other"));
    let scene = Scene::new([("old", old), ("new", new)]);
    for key in ["a", "b/c", "d"] {
        put(&scene, "old:", key, format!("content of {key}")).await;
    }
    let with = json!({"from": "old:", "to": "new:", "concurrency": 1});
    let output = scene.run("object.sync", with).await.expect("copied");
    assert_eq!((&output["copied"], &output["copied_inside"], &output["warnings"]), (&json!(3), &json!(0), &json!(1)));
    let warnings = scene.warnings();
    assert!(warnings[0].contains("sent from now on") && warnings[0].contains("AccessDenied"), "{warnings:?}");
    assert_eq!(scene.get("new:", "b/c").await.expect("there"), b"content of b/c");
    // Another time it does: rclone's server copies whole objects.
    let output = scene.run("object.sync", json!({"from": "old:", "to": "new:in/"})).await.expect("copied");
    assert_eq!((&output["copied_inside"], &output["bytes_inside"]), (&json!(3), &output["bytes"]));
    assert_eq!(scene.get("new:in/", "b/c").await.expect("there"), b"content of b/c");
}

#[tokio::test]
async fn between_two_services_it_is_sent_and_the_plan_says_why() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let scene = Scene::new([("old", s3_store(old.port, OLD)), ("new", s3_store(new.port, NEW))]);
    scene.put("old:", "a", "x").await;
    let plan = scene.plan("object.sync", json!({"from": "old:", "to": "new:"})).await.expect("planned");
    assert!(plan.does.contains("sent through this machine: these are two services"), "{}", plan.does);
}
