//! Stores that go bad while they are used, or are odd from the start: read-only, full, without `ETag` or conditions,
//! with an order of their own, with pages that repeat, skip or go round, and two syncs at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ferry::error::ErrorClass;
use serde_json::json;

use crate::parts::fault::{Proxy, Weather};
use crate::parts::scene::{Scene, azure_store, directory, s3_store, sftp_store};
use crate::parts::{self, GARAGE_NEW, NEW, OLD};

fn folder_with(count: usize, size: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    for number in 0..count {
        std::fs::write(folder.path().join(format!("{number:04}")), vec![7; size]).expect("written");
    }
    folder
}

#[tokio::test]
async fn a_target_that_turns_read_only_is_told_and_what_had_arrived_counts_later() {
    let Some(server) = parts::s3(NEW) else { return };
    let (is_closed, arrived) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (closed, seen) = (is_closed.clone(), arrived.clone());
    let proxy = Proxy::start(server.port, move |method, _, _| {
        if method == "PUT" && closed.load(Ordering::Relaxed) && seen.fetch_add(1, Ordering::Relaxed) >= 50 {
            Weather::Answer(403, &[], "<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>")
        } else {
            Weather::Fair
        }
    })
    .await;
    let folder = folder_with(400, 100);
    let scene = Scene::new([("here", directory(folder.path())), ("new", s3_store(proxy.port, NEW))]);
    let with = json!({"from": "here:", "to": "new:", "concurrency": 8});
    let error = scene.run("object.sync", with.clone()).await.expect_err("it may not write");
    assert_eq!(error.class, ErrorClass::Permanent);
    assert!(error.message.contains("the store refuses access") && error.help.is_some(), "{error}");
    assert!(proxy.count("PUT", "") < 50 + 100 + 20, "it does not try all the rest");
    is_closed.store(false, Ordering::Relaxed);
    let before = proxy.count("PUT", "");
    let output = scene.again("object.sync", with).await.expect("copied");
    assert_eq!((&output["copied"], &output["skipped"]), (&json!(400), &json!(0)));
    assert_eq!(proxy.count("PUT", "") - before, 350, "what had arrived is not sent again");
}

#[tokio::test]
async fn an_sftp_server_without_room_is_a_failure_by_name_and_the_rest_arrives() {
    let Some(server) = parts::sftp_with_room_for(256 << 10) else { return };
    let folder = folder_with(20, 1000);
    std::fs::write(folder.path().join("0010-large"), vec![7; 700 << 10]).expect("written");
    let scene = Scene::new([("here", directory(folder.path())), ("far", sftp_store(&server))]);
    let error = scene.run("object.sync", json!({"from": "here:", "to": "far:in/"})).await.expect_err("no room");
    assert!(error.message.contains("`0010-large`") && error.message.starts_with("1 object"), "{error}");
    assert!(error.help.clone().expect("it helps").contains("room"), "{error:?}");
    assert_eq!(scene.names("far:in/").await.iter().filter(|name| name.len() == 4).count(), 20);
    let output = scene.run("object.sync", json!({"from": "here:", "to": "far:in/", "exclude": ["*-large"]})).await;
    assert_eq!(output.expect("the rest is there")["skipped"], 20);
}

#[tokio::test]
async fn a_server_that_takes_no_notice_of_conditions_gives_no_mix() {
    // rclone's server is one.
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let large = 17 << 20;
    let at = old.data.path().join("box");
    for (key, size) in [("small", 1000), ("large", large)] {
        std::fs::write(at.join(key), vec![1; size]).expect("written");
    }
    // The small one is replaced between the listing and the reading, the large one between its pieces.
    let (pieces, files) = (AtomicUsize::new(0), at.clone());
    let proxy = Proxy::seeing(old.port, move |asked| {
        let is_of = |key: &str| asked.method == "GET" && asked.path.starts_with(&format!("/box/{key}"));
        let number = pieces.fetch_add(usize::from(is_of("small") || is_of("large")), Ordering::Relaxed);
        if is_of("small") && !files.join("seen-small").exists() {
            std::fs::write(files.join("small"), vec![2; 1000]).expect("written");
            std::fs::write(files.join("seen-small"), "").expect("written");
        }
        if is_of("large") && number >= 2 && !files.join("seen-large").exists() {
            std::fs::write(files.join("seen-large"), "").expect("written");
            std::fs::write(files.join("large"), vec![2; large]).expect("written");
        }
        Weather::Fair
    })
    .await;
    let scene = Scene::new([("from", s3_store(proxy.port, OLD)), ("to", s3_store(new.port, NEW))]);
    let with = json!({"from": "from:", "to": "to:", "exclude": ["seen-*"], "concurrency": 1});
    let mut ended = scene.run("object.sync", with.clone()).await;
    if ended.as_ref().is_err_and(|error| error.message.contains("changed while it was copied")) {
        ended = scene.again("object.sync", with).await;
    }
    assert_eq!(ended.expect("copied")["copied"], 2);
    for (key, size) in [("small", 1000), ("large", large)] {
        assert!(scene.get("to:", key).await.expect("there") == vec![2; size], "{key} is whole, and the new one");
    }
}

#[tokio::test]
async fn a_server_that_sends_no_etag_is_copied_from_and_to() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let bare = |_: &str, _: &str, _: usize| Weather::NoEtag;
    let (from, to) = (Proxy::start(old.port, bare).await, Proxy::start(new.port, bare).await);
    let scene = Scene::new([
        ("old", s3_store(old.port, OLD)),
        ("from", s3_store(from.port, OLD)),
        ("to", s3_store(to.port, NEW)),
        ("new", s3_store(new.port, NEW)),
    ]);
    for number in 0..30 {
        scene.put("old:", &format!("{number:02}"), vec![number; 1000]).await;
    }
    scene.put("old:", "empty", "").await;
    let with = json!({"from": "from:", "to": "to:", "verify": "full"});
    assert_eq!(scene.run("object.sync", with.clone()).await.expect("copied")["copied"], 31);
    scene.run("object.compare", json!({"from": "old:", "to": "new:"})).await.expect("the same");
    let again = scene.run("object.sync", with.clone()).await.expect("nothing to do");
    assert_eq!((&again["copied"], &again["skipped"]), (&json!(0), &json!(31)), "times tell");
    // Parts cannot be put together without: that is said, and of which object.
    scene.put("old:", "large", vec![3; 17 << 20]).await;
    let error = scene.run("object.sync", with).await.expect_err("no upload in parts");
    assert!(error.message.contains("`large`"), "{error}");
}

#[tokio::test]
async fn two_syncs_to_one_target_leave_each_object_whole() {
    let (Some(garage), Some(azure)) = (parts::garage(GARAGE_NEW), parts::azure()) else { return };
    let azure = azure_store(&azure).await;
    for target in [s3_store(garage.port, GARAGE_NEW), azure] {
        let (one, two) = (folder_with(60, 3000), folder_with(60, 3000));
        for folder in [&one, &two] {
            std::fs::write(folder.path().join("large"), vec![9; 17 << 20]).expect("written");
        }
        // The same objects from two runs: both arrive at one end.
        let scenes = [&one, &two].map(|folder| Scene::new([("here", directory(folder.path())), ("to", target.clone())]));
        let with = json!({"from": "here:", "to": "to:same/"});
        let (a, b) = tokio::join!(scenes[0].run("object.sync", with.clone()), scenes[1].run("object.sync", with.clone()));
        for ended in [a, b] {
            // Who comes second either finds its own content, or is told by name.
            if let Err(error) = ended {
                assert!(error.message.contains("somebody else has written it"), "{error}");
            }
        }
        let proof = json!({"from": "here:", "to": "to:same/", "by": "checksum"});
        scenes[0].run("object.compare", proof).await.expect("all is there");
        // Different objects by the same names: each is one or the other, and nobody has overwritten without a word.
        for number in 0..60 {
            std::fs::write(two.path().join(format!("{number:04}")), vec![8; 3000]).expect("written");
        }
        let with = json!({"from": "here:", "to": "to:other/", "exclude": ["large"]});
        let (a, b) = tokio::join!(scenes[0].run("object.sync", with.clone()), scenes[1].run("object.sync", with));
        let copied =
            [a, b].iter().map(|ended| ended.as_ref().map_or(0, |output| output["copied"].as_u64().unwrap_or(0))).sum::<u64>();
        // Garage has no conditions; there nobody can tell.
        assert!(copied <= 60 || target["scheme"].marked() == "s3", "{copied} copied by those that say that all went well");
        for number in 0..60 {
            let there = scenes[0].get("to:other/", &format!("{number:04}")).await.expect("there");
            assert!(there == vec![7; 3000] || there == vec![8; 3000], "{number}");
        }
    }
}

#[tokio::test]
async fn keys_in_another_order_than_that_of_bytes_are_all_copied_and_none_deleted() {
    let (Some(azure), Some(garage)) = (parts::azure(), parts::garage(GARAGE_NEW)) else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let scene = Scene::new([
        // It sorts as JavaScript does: by UTF-16.
        ("blob", azure_store(&azure).await),
        ("new", s3_store(garage.port, GARAGE_NEW)),
        ("here", directory(folder.path())),
    ]);
    // A folder sorts as its name with the slash; upper before lower case; what UTF-16 has in another order than UTF-8.
    let names =
        ["a-b", "a/b", "a.b", "a0", "aB", "ab", "A", "a/b-c", "a/b/c", "\u{ffee}x", "\u{1f980}x", "\u{e000}", "z\u{10000}/q"];
    for (at, name) in names.iter().filter(|name| **name != "a/b").enumerate() {
        scene.put("blob:", name, vec![7; at + 1]).await;
    }
    let count = names.len() - 1;
    for (from, to) in [("blob:", "new:"), ("new:", "here:in/"), ("here:in/", "blob:back/"), ("blob:back/", "here:again/")] {
        let mut with = json!({"from": from, "to": to, "mode": "mirror", "exclude": ["back/"]});
        let mut ended = scene.run("object.sync", with.clone()).await;
        // Where the order breaks in the middle of a listing the next attempt lists by folders.
        if ended.as_ref().is_err_and(|error| error.class == ErrorClass::Transient) {
            ended = scene.again("object.sync", with.clone()).await;
        }
        let output = ended.unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
        assert_eq!((&output["copied"], &output["deleted"]), (&json!(count), &json!(0)), "{from} to {to}");
        with["max_delete"] = json!(0);
        let again = scene.run("object.sync", with).await.expect("nothing to do");
        assert_eq!(
            (&again["copied"], &again["skipped"], &again["deleted"]),
            (&json!(0), &json!(count), &json!(0)),
            "{from} {to}"
        );
    }
}

fn listing(keys: &[&str], next: Option<&str>) -> &'static str {
    let contents: Vec<String> = keys
        .iter()
        .map(|key| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                 <ETag>\"9dd4e461268c8034f5c8564e155c67a6\"</ETag><Size>1</Size></Contents>"
            )
        })
        .collect();
    let contents = contents.concat();
    let next = next.map_or_else(
        || "<IsTruncated>false</IsTruncated>".to_owned(),
        |next| format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{next}</NextContinuationToken>"),
    );
    let text = format!("<?xml version=\"1.0\"?><ListBucketResult><Name>box</Name>{next}{contents}</ListBucketResult>");
    Box::leak(text.into_boxed_str())
}

#[tokio::test]
async fn a_listing_that_goes_round_in_a_circle_ends_with_a_failure() {
    let folder = tempfile::tempdir().expect("a directory");
    let xml = |text| Weather::Answer(200, &[("content-type", "application/xml")], text);
    // With names that come again, with no names at all, and with one token for ever.
    let circles: [(&[&str], &[&str]); 3] = [(&["a", "b"], &["c"]), (&[], &[]), (&["x"], &["x"])];
    for (one, two) in circles {
        let (first, second) = (listing(one, Some("T1")), listing(two, Some("T2")));
        let proxy =
            Proxy::start(1, move |_, path, _| xml(if path.contains("continuation-token=T1") { second } else { first })).await;
        let scene = Scene::new([("old", s3_store(proxy.port, OLD)), ("here", directory(folder.path()))]);
        let with = json!({"from": "old:", "to": "here:"});
        let ends = async {
            let mut ended = scene.run("object.list", json!({"from": "old:"})).await;
            for _ in 0..3 {
                if ended.as_ref().is_err_and(|error| error.class == ErrorClass::Transient) {
                    ended = scene.again("object.sync", with.clone()).await;
                }
            }
            ended
        };
        let ended = tokio::time::timeout(Duration::from_mins(1), ends).await.expect("it ends");
        let error = ended.expect_err("never whole");
        assert_eq!(error.class, ErrorClass::Permanent, "{error:?}");
        assert!(error.message.contains("not listed to its end"), "{error}");
    }
}

#[tokio::test]
async fn a_page_that_comes_twice_costs_nothing() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let names: BTreeSet<String> = (0..6).map(|number| format!("k{number}")).collect();
    for name in &names {
        std::fs::write(old.data.path().join("box").join(name), "x").expect("written");
    }
    let (first, again, last) =
        (listing(&["k0", "k1", "k2"], Some("T1")), listing(&["k0", "k1", "k2"], Some("T2")), listing(&["k3", "k4", "k5"], None));
    let proxy = Proxy::start(old.port, move |_, path, _| {
        let is_flat = path.contains("list-type=2") && !path.contains("delimiter");
        let xml = |text| Weather::Answer(200, &[("content-type", "application/xml")], text);
        match () {
            () if !is_flat => Weather::Fair,
            () if path.contains("=T1") => xml(again),
            () if path.contains("=T2") => xml(last),
            () => xml(first),
        }
    })
    .await;
    let scene = Scene::new([("old", s3_store(proxy.port, OLD)), ("new", s3_store(new.port, NEW))]);
    let with = json!({"from": "old:", "to": "new:"});
    let error = scene.run("object.sync", with.clone()).await.expect_err("noticed");
    assert_eq!(error.class, ErrorClass::Transient, "{error:?}");
    let output = scene.again("object.sync", with).await.expect("listed by folders");
    assert_eq!((&output["objects"], &output["copied"]), (&json!(6), &json!(6)));
    assert_eq!(scene.names("new:").await, Vec::from_iter(names));
}

#[tokio::test]
async fn a_page_that_skips_a_key_deletes_nothing() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    for (server, names, content) in [(&old, &["a", "b", "c"][..], "x"), (&new, &["a", "b", "c", "extra"][..], "old")] {
        for name in names {
            std::fs::write(server.data.path().join("box").join(name), content).expect("written");
        }
    }
    let skips = listing(&["a", "c"], None);
    let proxy = Proxy::start(old.port, move |_, path, _| {
        if path.contains("list-type=2") {
            Weather::Answer(200, &[("content-type", "application/xml")], skips)
        } else {
            Weather::Fair
        }
    })
    .await;
    let scene = Scene::new([("old", s3_store(proxy.port, OLD)), ("new", s3_store(new.port, NEW))]);
    let error = scene.run("object.sync", json!({"from": "old:", "to": "new:", "mode": "mirror"})).await.expect_err("noticed");
    assert!(error.message.contains("`b` is not deleted") && error.message.contains("left it out"), "{error}");
    assert_eq!(scene.names("new:").await, ["a", "b", "c"], "what the source does not have is deleted all the same");
}
