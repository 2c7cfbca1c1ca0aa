//! `follow`: pass after pass, until its duty is done or the target has caught up.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ferry::error::StepError;
use ferry::steps::StepContext;
use serde_json::{Value, json};

use crate::parts::fault::{Proxy, Weather};
use crate::parts::scene::{Scene, directory, s3_store};
use crate::parts::{self, NEW, OLD};

/// What the manifest says, by name.
fn manifest(output: &Value) -> BTreeMap<String, Value> {
    let file = std::fs::File::open(output["manifest"].as_str().expect("a path")).expect("there");
    let text = String::from_utf8(zstd::decode_all(file).expect("whole frames")).expect("text");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let all: Vec<(String, Value)> = lines.map(|line| (line["key"].as_str().expect("a name").to_owned(), line)).collect();
    assert!(all.is_sorted_by(|a, b| a.0 < b.0), "in order, each name once: {text}");
    all.into_iter().collect()
}

fn start(scene: &Scene, with: &Value) -> (StepContext, tokio::task::JoinHandle<Result<Value, StepError>>) {
    let (step, ctx) = (Scene::step("object.sync", with), scene.context());
    let running = ctx.clone();
    let task = tokio::spawn(async move {
        let before = step.inspect(&running).await?;
        step.run(&running, &before).await
    });
    (ctx, task)
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..1500 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 15 seconds");
}

fn write(folder: &Path, name: &str, content: &str) {
    std::fs::write(folder.join(name), content).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_after_the_first_pass_arrives_and_the_manifest_knows_it() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let source = old.data.path().join("box");
    let scene = Scene::new([("old", s3_store(old.port, OLD)), ("new", s3_store(new.port, NEW))]);
    scene.put("new:", "there", "there").await;
    for name in ["changes", "goes", "stays", "there"] {
        write(&source, name, name);
    }
    let with = json!({"from": "old:", "to": "new:", "mode": "mirror", "follow": { "every": "200ms" }});
    let (ctx, task) = start(&scene, &with);
    let heard = scene.heard.clone();
    until("ready", async || heard.readies.load(Ordering::SeqCst) == 1).await;
    assert_eq!(scene.names("new:").await, ["changes", "goes", "stays", "there"], "all of the first pass is there by then");
    scene.put("old:", "changes", "changed!").await;
    scene.put("old:", "new", "new").await;
    scene.place("old:").remove("goes").await.expect("removed");
    until("the change arrives", async || scene.get("new:", "changes").await.as_deref() == Some(b"changed!")).await;
    until("the deletion arrives", async || scene.names("new:").await == ["changes", "new", "stays", "there"]).await;
    let passes = || heard.checkpoints.lock().expect("not poisoned").last().and_then(|token| token["passes"].as_u64());
    let by_now = passes().expect("a checkpoint");
    until("a pass without work", async || passes() >= Some(by_now + 2)).await;
    ctx.over.cancel();
    let output = task.await.expect("no panic").expect("it ends well");
    assert_eq!((&output["objects"], &output["copied"], &output["deleted"]), (&json!(4), &json!(5), &json!(1)), "{output}");
    assert_eq!(output["overwritten"], 0, "only what the step had made itself: {output}");
    assert!(output["passes"].as_u64() >= Some(3) && output["equal_at"].is_string() && output["lag"].is_string(), "{output}");
    let manifest = manifest(&output);
    assert_eq!(manifest.keys().collect::<Vec<_>>(), ["changes", "new", "stays", "there"]);
    for (name, content, copied) in [("changes", "changed!", true), ("stays", "stays", true), ("there", "there", false)] {
        assert_eq!(manifest[name]["copied"], copied, "{name}");
        let hash = blake3::hash(content.as_bytes()).to_hex().to_string();
        assert_eq!(manifest[name]["blake3"].as_str(), copied.then_some(hash.as_str()), "{name}");
    }
    assert!(!scene.scratch().join("manifest-next.jsonl.zst").exists());
    assert_eq!(heard.readies.load(Ordering::SeqCst), 1);
    scene.undo(with).await.expect("undone");
    assert_eq!(scene.names("new:").await, ["there"]);
}

#[tokio::test]
async fn it_ends_by_itself_once_it_has_caught_up() {
    let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let scene = Scene::new([("from", directory(from.path())), ("to", directory(to.path()))]);
    write(from.path(), "a", "a");
    let with = json!({"from": "from:", "to": "to:", "follow": { "until_lag": "1h" }});
    let plan = scene.plan("object.sync", with.clone()).await.expect("planned");
    assert!(plan.does.contains("then follows, with a pass every 10s, until it is no more than 1h behind"), "{plan:?}");
    let output = scene.run("object.sync", with.clone()).await.expect("caught up");
    assert_eq!((&output["copied"], &output["passes"], &output["equal_at"]), (&json!(1), &json!(1), &Value::Null));
    let output = scene.run("object.sync", json!({"from": "from:", "to": "to:"})).await.expect("the last short pass");
    assert!(output["copied"] == 0 && output["equal_at"].is_string(), "nothing was to do: equal then: {output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_is_interrupted_goes_on_and_counts_nothing_twice() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let source = old.data.path().join("box");
    let proxy = Proxy::start(new.port, |_, _, _| Weather::Slow(Duration::from_millis(3))).await;
    let scene = Scene::new([("old", s3_store(old.port, OLD)), ("new", s3_store(proxy.port, NEW))]);
    let names: Vec<String> = (0..80).map(|number| format!("{number:02}")).collect();
    for name in &names {
        write(&source, name, name);
    }
    let with = |follow: Value| json!({"from": "old:", "to": "new:", "concurrency": 2, "follow": follow});
    // Long enough for all to be written before the second pass looks.
    let (_, task) = start(&scene, &with(json!({ "every": "1s" })));
    let heard = scene.heard.clone();
    until("the first pass", async || heard.readies.load(Ordering::SeqCst) == 1).await;
    for name in &names {
        write(&source, name, &format!("{name} anew"));
    }
    let (proxy, cancel) = (Arc::new(proxy), scene.cancel.clone());
    until("half of the second", async || proxy.count("PUT", "/box/") >= 80 + 30).await;
    cancel.cancel();
    task.await.expect("no panic").expect_err("stopped on request");
    let scene = scene.restarted();
    let output = scene.again("object.sync", with(json!("1h"))).await.expect("caught up");
    assert_eq!((&output["objects"], &output["copied"], &output["overwritten"]), (&json!(80), &json!(160), &json!(0)), "{output}");
    let manifest = manifest(&output);
    assert_eq!(manifest.len(), 80);
    for name in &names {
        let hash = blake3::hash(format!("{name} anew").as_bytes()).to_hex().to_string();
        assert_eq!(manifest[name]["blake3"].as_str(), Some(hash.as_str()), "{name}");
    }
    scene.undo(with(json!(true))).await.expect("undone");
    assert!(scene.names("new:").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_is_cut_leaves_a_manifest_that_is_right_and_no_upload() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let source = old.data.path().join("box");
    let proxy = Proxy::start(
        new.port,
        |method, _, _| {
            if method == "PUT" { Weather::Slow(Duration::from_millis(40)) } else { Weather::Fair }
        },
    )
    .await;
    let scene = Scene::new([("old", s3_store(old.port, OLD)), ("new", s3_store(proxy.port, NEW))]);
    let names: Vec<String> = (0..40).map(|number| format!("{number:02}")).collect();
    for name in &names {
        write(&source, name, name);
    }
    let (ctx, task) = start(&scene, &json!({"from": "old:", "to": "new:", "concurrency": 2, "follow": { "every": "100ms" }}));
    let heard = scene.heard.clone();
    until("the first pass", async || heard.readies.load(Ordering::SeqCst) == 1).await;
    for name in &names {
        write(&source, name, &format!("{name} anew"));
    }
    until("some of the second", async || proxy.count("PUT", "/box/") >= 40 + 5).await;
    ctx.over.cancel();
    let output = task.await.expect("no panic").expect("it ends well");
    let manifest = manifest(&output);
    assert_eq!(manifest.len(), 40);
    let mut new_ones = 0;
    for name in &names {
        let there = scene.get("new:", name).await.expect("there");
        new_ones += u32::from(there.ends_with(b"anew"));
        assert_eq!(manifest[name]["blake3"].as_str(), Some(blake3::hash(&there).to_hex().as_str()), "{name}");
    }
    assert!((5..40).contains(&new_ones), "{new_ones}");
    assert_eq!(output["copied"].as_u64(), Some(40 + u64::from(new_ones)));
}
