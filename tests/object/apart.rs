//! One place with two names: what lies within another is refused, however it is spelled, before anything is deleted.

use ferry::error::ErrorClass;
use serde_json::json;

use crate::parts::fault::{Proxy, Weather};
use crate::parts::scene::{Scene, s3_store};
use crate::parts::{self, OLD};

#[tokio::test]
async fn a_folder_within_another_is_seen_through_links() {
    let folder = tempfile::tempdir().expect("a directory");
    let root = folder.path();
    std::fs::create_dir_all(root.join("a/sub")).expect("made");
    std::fs::write(root.join("a/sub/x"), "precious").expect("written");
    std::fs::write(root.join("a/y"), "other").expect("written");
    std::os::unix::fs::symlink("a", root.join("l")).expect("linked");
    let at = |path: &str| format!("{}/{path}", root.display());
    let scene = Scene::new([]);
    for (from, to) in [
        (at("a/sub"), at("l")),
        (at("l/sub"), at("a")),
        (at("l"), at("a/new/place")),
        (at("a"), at("l/sub")),
        (at("a/sub"), format!("/proc/self/root{}", at("a"))),
    ] {
        let with = json!({"from": from, "to": to, "mode": "mirror"});
        let error = scene.run("object.sync", with).await.expect_err("one lies within the other");
        assert!(error.message.contains("within one another"), "{from} {to}: {error}");
    }
    assert_eq!(std::fs::read_to_string(root.join("a/sub/x")).expect("there"), "precious");
    let error = scene.run("object.compare", json!({"from": at("a"), "to": at("l")})).await.expect_err("proves nothing");
    assert!(error.message.contains("one place"), "{error}");
    // Beside one another is apart, by way of a link too.
    let output = scene.run("object.sync", json!({"from": at("a/sub"), "to": at("l/copy")})).await.expect("copied");
    assert_eq!(output["copied"], 1);
}

#[tokio::test]
async fn a_bucket_is_known_by_all_spellings_of_its_endpoint() {
    let Some(server) = parts::s3(OLD) else { return };
    let spelled = |endpoint: String| {
        let mut options = s3_store(server.port, OLD);
        options.insert("endpoint".to_owned(), ferry::secret::Text::new(endpoint));
        options
    };
    let scene = Scene::new([
        ("plain", s3_store(server.port, OLD)),
        ("slash", spelled(format!("http://127.0.0.1:{}/", server.port))),
        ("name", spelled(format!("http://localhost:{}", server.port))),
        ("short", spelled(format!("http://127.1:{}", server.port))),
    ]);
    scene.put("plain:", "a/sub/x", "precious").await;
    scene.put("plain:", "a/y", "other").await;
    for other in ["slash", "name", "short"] {
        let with = json!({"from": "plain:a/sub/", "to": format!("{other}:a/"), "mode": "mirror"});
        let error = scene.run("object.sync", with).await.expect_err("one lies within the other");
        assert!(error.message.contains("within one another"), "{other}: {error}");
    }
    assert_eq!(scene.names("plain:").await, ["a/sub/x", "a/y"]);
}

#[tokio::test]
async fn what_the_source_itself_sees_is_not_deleted() {
    let Some(server) = parts::s3(OLD) else { return };
    // Nothing about this address tells that it is the same server.
    let proxy = Proxy::start(server.port, |_, _, _| Weather::Fair).await;
    let scene = Scene::new([("old", s3_store(server.port, OLD)), ("alias", s3_store(proxy.port, OLD))]);
    scene.put("old:", "a/sub/x", "precious").await;
    scene.put("old:", "a/y", "other").await;
    for (from, to) in [("old:a/sub/", "alias:a/"), ("alias:a/sub/", "old:a/"), ("alias:a/sub/", "old:")] {
        let error = scene.run("object.sync", json!({"from": from, "to": to, "mode": "mirror"})).await.expect_err("one store");
        assert_eq!(error.class, ErrorClass::NeedsPerson, "{error:?}");
        assert!(error.message.contains("one store"), "{error}");
        assert_eq!(scene.get("old:", "a/sub/x").await.expect("there"), b"precious");
        assert_eq!(scene.get("old:", "a/y").await.expect("there"), b"other");
    }
    // Apart in one bucket is apart.
    scene.run("object.sync", json!({"from": "old:a/sub/", "to": "alias:b/", "mode": "mirror"})).await.expect("copied");
}
