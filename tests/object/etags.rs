//! `ETag`s of objects that were sent in parts: other parts are no other content, and one side is read and not two.

use bytes::Bytes;
use ferry::stores::bucket::{Condition, Properties};
use serde_json::json;

use crate::parts::fault::{Proxy, Weather};
use crate::parts::scene::{Scene, directory, s3_store};
use crate::parts::{self, GARAGE_NEW, GARAGE_OLD};

const MIB: usize = 1 << 20;

fn content(last: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..=250_u8).cycle().take(18 * MIB + 77).collect();
    bytes.push(last);
    bytes
}

/// Sends an object in parts of this size.
async fn send(scene: &Scene, place: &str, key: &str, content: &[u8], part: usize) {
    let store = scene.place(place);
    let bucket = store.bucket().expect("a bucket");
    let id = bucket.begin(key, &Properties::default()).await.expect("begun");
    let mut sent = Vec::new();
    for (piece, number) in content.chunks(part).zip(1..) {
        sent.push(bucket.put_part(key, &id, number, Bytes::copy_from_slice(piece)).await.expect("sent"));
    }
    bucket.complete(key, &id, &Properties::default(), &sent, &Condition::None).await.expect("completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_parts_are_no_other_content_and_only_one_side_is_read() {
    let (Some(old), Some(new)) = (parts::garage(GARAGE_OLD), parts::garage(GARAGE_NEW)) else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let (from, to) =
        (Proxy::start(old.port, |_, _, _| Weather::Fair).await, Proxy::start(new.port, |_, _, _| Weather::Fair).await);
    let scene = Scene::new([
        ("old", s3_store(from.port, GARAGE_OLD)),
        ("new", s3_store(to.port, GARAGE_NEW)),
        ("here", directory(folder.path())),
    ]);
    send(&scene, "new:", "big", &content(1), 8 * MIB).await;
    // Later than the target: by its time it would be another.
    send(&scene, "old:", "big", &content(1), 5 * MIB).await;
    let reads = || (from.count("GET", "/box/big"), to.count("GET", "/box/big"));
    let output = scene.run("object.sync", json!({"from": "old:", "to": "new:", "compare": "etag"})).await.expect("the same");
    assert_eq!((&output["copied"], &output["skipped"]), (&json!(0), &json!(1)), "{output}");
    let (one, other) = reads();
    assert!(one > 0 && other == 0, "one side is read: {one} {other}");
    let output = scene.run("object.compare", json!({"from": "old:", "to": "new:"})).await.expect("the same");
    assert_eq!((&output["identical"], &output["read"]), (&json!(true), &json!(1)));
    assert_eq!(reads().1, 0);
    // A directory has no MD5 at all: the bucket's side is not read.
    std::fs::write(folder.path().join("big"), content(1)).expect("written");
    scene.run("object.compare", json!({"from": "new:", "to": "here:"})).await.expect("the same");
    assert_eq!(reads().1, 0);
    // What was asked for is done: both are read.
    scene.run("object.compare", json!({"from": "old:", "to": "new:", "by": "checksum"})).await.expect("the same");
    assert!(reads().1 > 0);
    // Another content in the same parts.
    std::fs::write(folder.path().join("big"), content(2)).expect("written");
    let with = json!({"from": "new:", "to": "here:"});
    let error = scene.run("object.compare", with.clone()).await.expect_err("another content");
    assert!(error.message.contains("1 object (0 missing, 0 extra, 1 different): `big` has another content"), "{error}");
    let with = json!({"from": "new:", "to": "here:", "fail": false});
    let output = scene.run("object.compare", with).await.expect("told and no failure");
    assert_eq!(
        output["differences"],
        json!([{ "key": "big", "what": "content", "why": "both sides were read" }]),
        "a proof of a difference takes both"
    );
}
