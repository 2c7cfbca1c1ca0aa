//! From any kind of store to any other, with real servers at both ends.

use serde_json::json;

use crate::parts::scene::{Scene, azure_store, directory, options, s3_store, sftp_store, webdav_store};
use crate::parts::{self, NEW, OLD};

/// Objects of all the sizes that are treated apart: none, some, one piece, several pieces.
async fn fill(scene: &Scene, place: &str) -> u64 {
    let large: Vec<u8> = (0..20_u32 << 20).map(|number| (number / 4096 + number).to_le_bytes()[0]).collect();
    for (key, content) in [
        ("a.txt", b"some text".to_vec()),
        ("a/b/c.bin", large[..1 << 20].to_vec()),
        ("a/large", large),
        ("empty", Vec::new()),
        ("naïve file ✓.txt", b"spaces and unicode".to_vec()),
        ("per%cent+plus&and?what#hash", b"signs".to_vec()),
    ] {
        scene.put(place, key, content).await;
    }
    6
}

async fn arrives(scene: &Scene, from: &str, to: &str, count: u64) {
    let plan = scene.plan("object.sync", json!({"from": from, "to": to})).await.expect("planned");
    assert_eq!(plan.objects, Some(count));
    let output = scene.run("object.sync", json!({"from": from, "to": to, "verify": true})).await.expect("copied");
    assert_eq!(output["copied"], count);
    assert_eq!(plan.bytes, output["bytes"].as_u64());
    let proof = scene.run("object.compare", json!({"from": from, "to": to, "by": "checksum"})).await.expect("the same");
    assert_eq!(proof["objects"], count);
    let again = scene.run("object.sync", json!({"from": from, "to": to})).await.expect("nothing to copy");
    assert_eq!((again["copied"].as_u64(), again["skipped"].as_u64()), (Some(0), Some(count)), "{again}");
}

#[tokio::test]
async fn s3_to_s3() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let scene = Scene::new([("old", s3_store(old.port, OLD)), ("new", s3_store(new.port, NEW))]);
    let count = fill(&scene, "old:up/").await;
    arrives(&scene, "old:up/", "new:", count).await;
}

#[tokio::test]
async fn s3_to_azure_to_a_directory() {
    let (Some(old), Some(azure)) = (parts::s3(OLD), parts::azure()) else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let scene =
        Scene::new([("old", s3_store(old.port, OLD)), ("blob", azure_store(&azure).await), ("here", directory(folder.path()))]);
    let count = fill(&scene, "old:").await;
    arrives(&scene, "old:", "blob:in/", count).await;
    arrives(&scene, "blob:in/", "here:", count).await;
}

#[tokio::test]
async fn s3_to_sftp_and_back() {
    let (Some(old), Some(ssh)) = (parts::s3(OLD), parts::sftp()) else { return };
    let scene = Scene::new([("old", s3_store(old.port, OLD)), ("far", sftp_store(&ssh))]);
    let count = fill(&scene, "old:").await;
    arrives(&scene, "old:", "far:in/", count).await;
    arrives(&scene, "far:in/", "old:back/", count).await;
}

#[tokio::test]
async fn webdav_to_s3_and_back() {
    let (Some(dav), Some(new)) = (parts::webdav(), parts::s3(NEW)) else { return };
    let scene = Scene::new([("dav", webdav_store(&dav)), ("new", s3_store(new.port, NEW))]);
    let count = fill(&scene, "dav:files/").await;
    arrives(&scene, "dav:files/", "new:", count).await;
    arrives(&scene, "new:", "dav:back/", count).await;
}

#[tokio::test]
async fn a_url_is_a_place_too() {
    let Some(new) = parts::s3(NEW) else { return };
    let folder = tempfile::tempdir().expect("a directory");
    std::fs::write(folder.path().join("a"), "x").expect("written");
    let scene = Scene::new([]);
    let to =
        format!("s3://box/in/?endpoint=http://127.0.0.1:{}&access_key_id={}&secret_access_key={}", new.port, NEW.id, NEW.secret);
    let output = scene.run("object.sync", json!({"from": folder.path(), "to": to})).await.expect("copied");
    assert_eq!(output["copied"], 1);
}

#[tokio::test]
async fn content_type_and_user_metadata_are_kept() {
    let (Some(old), Some(azure)) = (parts::s3(OLD), parts::azure()) else { return };
    let scene = Scene::new([("old", s3_store(old.port, OLD)), ("blob", azure_store(&azure).await)]);
    let own = [("colour".to_owned(), "green".to_owned())];
    scene
        .place("old:")
        .operator()
        .write_with("picture", "x")
        .content_type("image/x-test")
        .user_metadata(own.clone())
        .await
        .expect("written");
    scene.run("object.sync", json!({"from": "old:", "to": "blob:"})).await.expect("copied");
    let there = scene.place("blob:").operator().stat("picture").await.expect("there");
    // rclone guesses the type from the name; what matters is that both sides say the same.
    let here = scene.place("old:").operator().stat("picture").await.expect("there");
    assert_eq!(there.content_type(), here.content_type());
    assert_eq!(there.user_metadata().and_then(|own| own.get("colour")), Some("green"));
}

#[tokio::test]
async fn within_a_bucket_the_service_copies() {
    let Some(server) = parts::s3(OLD) else { return };
    let proxy = parts::fault::Proxy::start(server.port, |_, _, _| parts::fault::Weather::Fair).await;
    let scene = Scene::new([("old", s3_store(proxy.port, OLD))]);
    scene.put("old:a/", "x", "content").await;
    let puts = proxy.count("PUT", "/box/");
    let output = scene.run("object.sync", json!({"from": "old:a/", "to": "old:b/"})).await.expect("copied");
    assert_eq!(output["copied"], 1);
    assert_eq!(scene.get("old:b/", "x").await.as_deref(), Some(&b"content"[..]));
    assert_eq!(proxy.count("PUT", "/box/"), puts + 1);
    // The only reading of a body is the test's own.
    assert_eq!(proxy.count("GET", "/box/a/x"), 0);
    let within = scene.run("object.sync", json!({"from": "old:a/", "to": "old:a/b/"})).await.expect_err("within itself");
    assert!(within.message.contains("within one another"), "{within}");
}

#[tokio::test]
async fn an_option_that_is_none_is_refused() {
    let scene = Scene::new([("old", options(&[("scheme", "s3"), ("buket", "x")]))]);
    let error = scene.run("object.list", json!({"from": "old:"})).await.expect_err("no such option");
    assert_eq!(error.help.as_deref(), Some("did you mean `bucket`?"));
    let error = scene.run("object.list", json!({"from": "odl:"})).await.expect_err("no such store");
    assert_eq!(error.help.as_deref(), Some("did you mean `old`?"));
}
