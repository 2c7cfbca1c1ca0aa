//! What is copied, deleted, counted and refused.

use ferry::error::ErrorClass;
use serde_json::json;

use crate::parts::scene::{Scene, directory, options, s3_store};
use crate::parts::{self, NEW, OLD};

fn two() -> (Scene, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a directory");
    let scene = Scene::new([
        ("mem", options(&[("scheme", "memory")])),
        ("here", directory(&folder.path().join("in"))),
        ("there", directory(&folder.path().join("out"))),
    ]);
    (scene, folder)
}

#[tokio::test]
async fn a_source_without_objects_is_a_failure_unless_expected() {
    let (scene, folder) = two();
    std::fs::create_dir(folder.path().join("in")).expect("made");
    let error = scene.run("object.sync", json!({"from": "here:", "to": "there:"})).await.expect_err("nothing there");
    assert!(error.message.contains("no object to copy"), "{error}");
    let output = scene.run("object.sync", json!({"from": "here:", "to": "there:", "allow_empty": true})).await.expect("fine");
    assert_eq!(output["copied"], 0);
    scene.put("mem:", "a.txt", "x").await;
    let with = json!({"from": "mem:", "to": "there:", "include": ["*.jpg"]});
    assert!(scene.run("object.sync", with).await.is_err());
}

#[tokio::test]
async fn only_what_differs_is_copied() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let scene = Scene::new([("old", s3_store(old.port, OLD)), ("new", s3_store(new.port, NEW))]);
    for name in ["a", "b", "c"] {
        scene.put("old:", name, name).await;
    }
    let with = json!({"from": "old:", "to": "new:"});
    scene.run("object.sync", with.clone()).await.expect("copied");
    // The same size and a newer time, another content: MD5 sees it.
    scene.put("new:", "b", "X").await;
    scene.put("old:", "d", "new").await;
    let plan = scene.plan("object.sync", with.clone()).await.expect("planned");
    assert_eq!((plan.objects, plan.bytes), (Some(2), Some(4)));
    assert!(plan.warnings.iter().any(|text| text.contains("overwrites 1 object") && text.contains("`b`")), "{plan:?}");
    let output = scene.run("object.sync", with).await.expect("copied");
    assert_eq!(
        (output["copied"].as_u64(), output["overwritten"].as_u64(), output["skipped"].as_u64()),
        (Some(2), Some(1), Some(2))
    );
    assert_eq!(scene.get("new:", "b").await.as_deref(), Some(&b"b"[..]));
}

#[tokio::test]
async fn nothing_is_deleted_unless_asked_and_never_too_much() {
    let (scene, _folder) = two();
    for name in ["a", "keep.tmp"] {
        scene.put("mem:", name, "x").await;
    }
    for name in ["a", "x", "y/z", "own.tmp"] {
        scene.put("there:", name, "old").await;
    }
    scene.run("object.sync", json!({"from": "mem:", "to": "there:"})).await.expect("copied");
    assert_eq!(scene.names("there:").await, ["a", "keep.tmp", "own.tmp", "x", "y/z"]);
    let with = json!({"from": "mem:", "to": "there:", "mode": "mirror", "max_delete": 1, "exclude": ["*.tmp"]});
    let error = scene.run("object.sync", with).await.expect_err("too much");
    assert!(error.message.contains("would delete 2 objects"), "{error}");
    assert_eq!(scene.names("there:").await.len(), 5);
    let with = json!({"from": "mem:", "to": "there:", "mode": "mirror", "exclude": ["*.tmp"]});
    let plan = scene.plan("object.sync", with).await.expect("planned");
    assert!(plan.does.contains("deletes 2 objects only at the target"), "{plan:?}");
    assert!(plan.warnings.iter().any(|text| text == "deletes 2 objects that are only at `there:`: `x`, `y/z`"), "{plan:?}");
    let with = json!({"from": "mem:", "to": "there:", "mode": "mirror", "max_delete": 2, "exclude": ["*.tmp"]});
    assert_eq!(scene.run("object.sync", with).await.expect("deleted")["deleted"], 2);
    assert_eq!(scene.names("there:").await, ["a", "keep.tmp", "own.tmp"]);
}

#[tokio::test]
async fn a_comparison_names_each_kind_of_difference_and_fails() {
    let (scene, _folder) = two();
    for (name, content) in [("same", "x"), ("size", "x"), ("content", "x"), ("missing", "x")] {
        scene.put("mem:", name, content).await;
    }
    for (name, content) in [("same", "x"), ("size", "xy"), ("content", "y"), ("extra", "x")] {
        scene.put("there:", name, content).await;
    }
    let error = scene.run("object.compare", json!({"from": "mem:", "to": "there:"})).await.expect_err("they differ");
    for what in ["`content` has another content", "`extra` is only there", "`missing` is missing", "`size` has another size"] {
        assert!(error.message.contains(what), "{error}");
    }
    let list = std::fs::read_to_string(scene.scratch().join("differences.jsonl")).expect("the whole list");
    assert_eq!(list.lines().count(), 4);
    let empty = scene.run("object.compare", json!({"from": "mem:none/", "to": "there:none/"})).await;
    assert!(empty.is_err(), "two empty places prove nothing");
}

#[tokio::test]
async fn a_delete_without_a_prefix_is_refused() {
    let Some(server) = parts::s3(OLD) else { return };
    let scene = Scene::new([("old", s3_store(server.port, OLD))]);
    for name in ["tmp/a", "tmp/b", "keep"] {
        scene.put("old:", name, "x").await;
    }
    let error = scene.run("object.delete", json!({"from": "old:"})).await.expect_err("everything");
    assert!(error.help.expect("it helps").contains("everything: true"));
    let plan = scene.plan("object.delete", json!({"from": "old:tmp/"})).await.expect("planned");
    assert!(plan.does.contains("deletes 2 objects") && plan.objects.is_none(), "nothing moves: {plan:?}");
    assert_eq!(scene.names("old:").await.len(), 3, "a plan changes nothing");
    let with = json!({"from": "old:tmp/"});
    assert_eq!(scene.run("object.delete", with).await.expect("deleted")["deleted"], 2);
    assert_eq!(scene.names("old:").await, ["keep"]);
    let with = json!({"from": "old:", "everything": true});
    assert_eq!(scene.run("object.delete", with).await.expect("deleted")["deleted"], 1);
}

#[tokio::test]
async fn a_plan_changes_nothing() {
    let (scene, folder) = two();
    scene.put("mem:", "a", "x").await;
    for uses in ["object.sync", "object.compare"] {
        let _ = scene.plan(uses, json!({"from": "mem:", "to": "there:"})).await.expect("planned");
    }
    let _ = scene.plan("object.delete", json!({"from": "there:x/"})).await.expect("planned");
    let _ = scene.plan("object.list", json!({"from": "there:x/"})).await.expect_err("there is no such folder");
    assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 0);
    assert_eq!(scene.names("mem:").await, ["a"]);
}

#[tokio::test]
async fn bandwidth_is_kept_to() {
    let (scene, _folder) = two();
    for number in 0..8 {
        scene.put("mem:", &number.to_string(), vec![0; 100_000]).await;
    }
    let start = std::time::Instant::now();
    scene.run("object.sync", json!({"from": "mem:", "to": "there:", "bandwidth": "1MB/s"})).await.expect("copied");
    assert!(start.elapsed().as_millis() >= 790, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_place_that_is_missing_or_a_file_is_a_permanent_failure_that_says_so() {
    let (scene, folder) = two();
    std::fs::create_dir(folder.path().join("out")).expect("made");
    std::fs::write(folder.path().join("in"), "a file").expect("written");
    scene.put("mem:", "a", "x").await;
    let all = [
        ("object.list", json!({"from": "here:"})),
        ("object.delete", json!({"from": "here:", "everything": true})),
        ("object.sync", json!({"from": "here:", "to": "there:", "allow_empty": true})),
        ("object.sync", json!({"from": "mem:", "to": "here:"})),
        ("object.sync", json!({"from": "here:below/", "to": "there:"})),
        ("object.compare", json!({"from": "here:", "to": "there:", "allow_empty": true})),
        ("object.compare", json!({"from": "there:", "to": "here:", "allow_empty": true})),
    ];
    for (uses, with) in all {
        let error = scene.plan(uses, with.clone()).await.expect_err("a file");
        assert!(error.message.contains("is a file") && error.class == ErrorClass::Permanent, "{uses} {with}: {error}");
    }
    for (uses, with) in [
        ("object.list", json!({"from": "there:nope/"})),
        ("object.sync", json!({"from": "there:nope/", "to": "mem:", "allow_empty": true})),
        ("object.compare", json!({"from": "there:nope", "to": "mem:", "allow_empty": true})),
    ] {
        let error = scene.plan(uses, with.clone()).await.expect_err("missing");
        assert_eq!(error.message, "there is no folder `there:nope/`", "{uses} {with}");
        assert!(error.class == ErrorClass::Permanent && error.help.is_some(), "{error}");
    }
    scene.plan("object.sync", json!({"from": "mem:", "to": "there:new/"})).await.expect("a target may be missing");
    let list = scene.run("object.list", json!({"from": "mem:nothing/"})).await.expect("a prefix is no folder");
    assert_eq!(list["objects"], 0);
}

#[tokio::test]
async fn a_source_that_is_gone_at_run_time_deletes_nothing() {
    let (scene, folder) = two();
    scene.put("here:", "a", "x").await;
    scene.put("there:", "old", "x").await;
    let with = json!({"from": "here:", "to": "there:", "mode": "mirror", "allow_empty": true});
    let step = Scene::step("object.sync", &with);
    let ctx = scene.context();
    let before = step.inspect(&ctx).await.expect("there");
    std::fs::remove_dir_all(folder.path().join("in")).expect("removed");
    let error = step.run(&ctx, &before).await.expect_err("gone");
    assert!(error.message.contains("no folder"), "{error}");
    assert_eq!(scene.names("there:").await, ["old"]);
}

#[tokio::test]
async fn a_file_with_an_old_time_of_its_own_is_copied_when_it_is_new() {
    let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let scene = Scene::new([("from", directory(from.path())), ("to", directory(to.path()))]);
    for compare in ["auto", "mtime"] {
        let with = json!({"from": "from:", "to": "to:", "compare": compare});
        std::fs::write(from.path().join("f"), "v1-bad").expect("written");
        std::fs::write(from.path().join("g"), "stays").expect("written");
        scene.run("object.sync", with.clone()).await.expect("copied");
        // As `cp -p` and `tar x` leave it.
        std::fs::write(from.path().join("f"), "v2-ok.").expect("written");
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        let file = std::fs::File::options().append(true).open(from.path().join("f")).expect("there");
        file.set_modified(old).expect("set");
        let output = scene.run("object.sync", with.clone()).await.expect("copied");
        assert_eq!((&output["copied"], &output["skipped"]), (&json!(1), &json!(1)), "{compare}");
        assert_eq!(std::fs::read_to_string(to.path().join("f")).expect("there"), "v2-ok.");
        assert_eq!(scene.run("object.sync", with).await.expect("nothing to do")["copied"], 0);
    }
}

#[tokio::test]
async fn what_a_service_copies_within_itself_is_verified_too() {
    let Some(server) = parts::s3(OLD) else { return };
    let scene = Scene::new([("old", s3_store(server.port, OLD))]);
    for name in ["a/one", "a/two"] {
        scene.put("old:", name, name).await;
    }
    // One place: the verification must not wait for the one that the copy itself holds.
    let with = json!({"from": "old:a/", "to": "old:b/", "verify": "full", "concurrency": 1});
    let output = scene.run("object.sync", with).await.expect("copied");
    assert_eq!(output["copied"], 2);
    assert_eq!(scene.get("old:", "b/one").await.as_deref(), Some(b"a/one".as_slice()));
}
