//! `mode: move`: the source goes once its copy is proven, what somebody else writes stays, and undo brings all back.

use std::sync::Arc;
use std::time::Duration;

use ferry::error::ErrorClass;
use serde_json::{Value, json};

use crate::parts::fault::{Proxy, Weather};
use crate::parts::scene::{Scene, directory, s3_store};
use crate::parts::{self, NEW, OLD};

const NAMES: [&str; 5] = ["a", "b/c", "b/d e ü", "large", "z"];

async fn fill(scene: &Scene, place: &str) {
    for name in NAMES {
        scene.put(place, name, content(name)).await;
    }
}

fn content(name: &str) -> Vec<u8> {
    if name == "large" { (0..=250_u8).cycle().take(17 << 20).collect() } else { name.repeat(100).into_bytes() }
}

async fn all_are_at(scene: &Scene, place: &str) {
    for name in NAMES {
        assert!(scene.get(place, name).await.as_deref() == Some(&content(name)[..]), "{name} at {place}");
    }
}

fn moving(from: &str, to: &str) -> Value {
    json!({"from": from, "to": to, "mode": "move"})
}

#[tokio::test]
async fn a_move_takes_all_away_and_its_undo_brings_all_back() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let scene =
        Scene::new([("old", s3_store(old.port, OLD)), ("new", s3_store(new.port, NEW)), ("here", directory(folder.path()))]);
    fill(&scene, "old:up/").await;
    // It was there before: the move does not send it, and its undo does not delete it.
    scene.put("new:in/", "a", content("a")).await;
    for (from, to, copied) in [("old:up/", "new:in/", 4), ("new:in/", "here:x/", 5), ("here:x/", "old:up/", 5)] {
        let plan = scene.plan("object.sync", moving(from, to)).await.expect("planned");
        assert!(plan.does.contains(&format!("then deletes 5 objects at `{from}`")) && !plan.already_done, "{plan:?}");
        let there_before = scene.names(to).await;
        let output = scene.run("object.sync", moving(from, to)).await.expect("moved");
        assert_eq!((&output["copied"], &output["deleted"], &output["kept"]), (&json!(copied), &json!(5), &json!(0)), "{from}");
        assert!(scene.names(from).await.is_empty(), "{from}");
        all_are_at(&scene, to).await;
        scene.undo(moving(from, to)).await.expect("undone");
        all_are_at(&scene, from).await;
        assert_eq!(scene.names(to).await, there_before, "{to}");
        scene.undo(moving(from, to)).await.expect("twice does no harm");
        all_are_at(&scene, from).await;
        // For good, and on to the next.
        scene.run("object.sync", moving(from, to)).await.expect("moved");
    }
    all_are_at(&scene, "old:up/").await;
    assert!(scene.names("new:in/").await.is_empty());
    scene.run("object.sync", moving("new:in/", "here:x/")).await.expect_err("there is nothing to move");
}

#[tokio::test]
async fn what_is_written_to_the_source_meanwhile_stays_there() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let folder = old.data.path().join("box");
    let writer = folder.clone();
    // Between the listing and the last look: at that look it is another object.
    let proxy = Proxy::start(old.port, move |method, path, _| {
        if method == "HEAD" && path.ends_with("/b") {
            std::fs::write(writer.join("b"), "somebody else's").expect("written");
        }
        Weather::Fair
    })
    .await;
    let scene = Scene::new([("old", s3_store(proxy.port, OLD)), ("new", s3_store(new.port, NEW))]);
    for name in ["a", "b", "c"] {
        scene.put("new:", "mine", "was here").await;
        std::fs::write(folder.join(name), name).expect("written");
    }
    let output = scene.run("object.sync", moving("old:", "new:")).await.expect("moved");
    assert_eq!((&output["copied"], &output["deleted"], &output["kept"]), (&json!(3), &json!(2), &json!(1)));
    assert_eq!(scene.names("old:").await, ["b"]);
    assert_eq!(scene.get("old:", "b").await.as_deref(), Some(&b"somebody else's"[..]));
    assert!(scene.warnings().iter().any(|text| text.contains("left alone") && text.contains("`b`")), "{:?}", scene.warnings());
    // Back: the others return, and the copy of `b` stays, for it is the only one.
    let error = scene.undo(moving("old:", "new:")).await.expect_err("one has two owners");
    assert_eq!(error.class, ErrorClass::NeedsPerson);
    assert!(error.message.contains("stay there, because the source has another by that name: `b`"), "{error}");
    assert_eq!(scene.names("old:").await, ["a", "b", "c"]);
    assert_eq!(scene.names("new:").await, ["b", "mine"]);
    let again = scene.undo(moving("old:", "new:")).await.expect_err("still");
    assert_eq!(again.message, error.message);
    assert_eq!(scene.get("new:", "b").await.as_deref(), Some(&b"b"[..]));
}

#[tokio::test]
async fn a_move_believes_contents_and_not_sizes() {
    let folder = tempfile::tempdir().expect("a directory");
    let Some(new) = parts::s3(NEW) else { return };
    let scene = Scene::new([("here", directory(folder.path())), ("new", s3_store(new.port, NEW))]);
    scene.put("here:", "a", "mine").await;
    scene.put("new:", "a", "your").await;
    let with = json!({"from": "here:", "to": "new:", "mode": "move", "compare": "size"});
    let output = scene.run("object.sync", with).await.expect("moved");
    assert_eq!((&output["copied"], &output["deleted"]), (&json!(1), &json!(1)));
    assert_eq!(scene.get("new:", "a").await.as_deref(), Some(&b"mine"[..]), "the only one was not lost");
}

#[tokio::test]
async fn a_move_that_finds_its_copy_changed_deletes_nothing_of_it() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let box_of_new = new.data.path().join("box");
    let writer = box_of_new.clone();
    let lists = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let seen = lists.clone();
    // Before the second listing of the target, which is the one of the deletions.
    let proxy = Proxy::start(new.port, move |method, path, _| {
        if method == "GET" && path.contains("list-type=2") && seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 2 {
            std::fs::write(writer.join("b"), "spoiled").expect("written");
        }
        Weather::Fair
    })
    .await;
    let scene = Scene::new([("old", s3_store(old.port, OLD)), ("new", s3_store(proxy.port, NEW))]);
    for name in ["a", "b", "c"] {
        scene.put("old:", name, name).await;
    }
    let error = scene.run("object.sync", moving("old:", "new:")).await.expect_err("one copy is not whole");
    assert!(error.message.contains("`b` is not deleted at the source: its copy in `new:` was changed"), "{error} {lists:?}");
    assert_eq!(scene.names("old:").await, ["b"]);
}

/// Cancels once the proxy has seen so many of these requests.
async fn stop_at(scene: &Scene, proxy: &Proxy, method: &str, count: usize) {
    let from = proxy.count(method, "/box/");
    while proxy.count(method, "/box/") < from + count {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    scene.cancel.cancel();
}

#[tokio::test]
async fn a_move_that_is_interrupted_is_finished_and_one_that_is_undone_half_way_too() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let slow = |_: &str, _: &str, _: usize| Weather::Slow(Duration::from_millis(5));
    let proxy = Proxy::start(old.port, slow).await;
    let mut scene = Scene::new([("old", s3_store(proxy.port, OLD)), ("new", s3_store(new.port, NEW))]);
    let names: Vec<String> = (0..60).map(|number| format!("{number:02}")).collect();
    for name in &names {
        std::fs::write(old.data.path().join("box").join(name), name.repeat(50)).expect("written");
    }
    let with = json!({"from": "old:", "to": "new:", "mode": "move", "concurrency": 2});
    // Undone half-way, and the undo is stopped half-way as well, twice.
    let (outcome, ()) = tokio::join!(scene.run("object.sync", with.clone()), stop_at(&scene, &proxy, "DELETE", 20));
    outcome.expect_err("stopped on request");
    scene = scene.restarted();
    let left = scene.names("old:").await.len();
    assert!((1..=45).contains(&left), "{left}");
    for _ in 0..2 {
        let (outcome, ()) = tokio::join!(scene.undo(with.clone()), stop_at(&scene, &proxy, "PUT", 5));
        outcome.expect_err("stopped on request");
        assert_eq!(scene.names("new:").await.len(), 60, "no copy goes before all are back");
        scene = scene.restarted();
    }
    scene.undo(with.clone()).await.expect("undone");
    assert_eq!(scene.names("old:").await, names);
    assert!(scene.names("new:").await.is_empty());
    // And to the end: what was deleted before the stop counts too.
    let (outcome, ()) = tokio::join!(scene.run("object.sync", with.clone()), stop_at(&scene, &proxy, "DELETE", 20));
    outcome.expect_err("stopped on request");
    scene = scene.restarted();
    let output = scene.again("object.sync", with.clone()).await.expect("moved");
    assert_eq!((&output["copied"], &output["deleted"], &output["kept"]), (&json!(60), &json!(60), &json!(0)));
    assert!(scene.names("old:").await.is_empty());
    scene.undo(with).await.expect("undone");
    for name in &names {
        assert_eq!(scene.get("old:", name).await, Some(name.repeat(50).into_bytes()));
    }
}
