//! Undo: deletes what the step created, and nothing else.

use ferry::error::ErrorClass;
use serde_json::json;

use crate::parts::scene::{Scene, directory, options, s3_store};
use crate::parts::{self, NEW, OLD};

async fn scene() -> Option<(Scene, parts::Server, parts::Server)> {
    let (old, new) = (parts::s3(OLD)?, parts::s3(NEW)?);
    let scene = Scene::new([("old", s3_store(old.port, OLD)), ("new", s3_store(new.port, NEW))]);
    for name in ["a", "b/c", "d", "shared"] {
        scene.put("old:", name, format!("new {name}")).await;
    }
    scene.put("new:", "mine", "was here").await;
    Some((scene, old, new))
}

#[tokio::test]
async fn undo_deletes_what_was_created_and_nothing_else() {
    let Some((scene, _old, _new)) = scene().await else { return };
    let with = json!({"from": "old:", "to": "new:"});
    scene.run("object.sync", with.clone()).await.expect("copied");
    assert_eq!(scene.names("new:").await, ["a", "b/c", "d", "mine", "shared"]);
    // Someone else has taken one over since.
    scene.put("new:", "d", "somebody else's").await;
    let error = scene.undo(with.clone()).await.expect_err("one is left");
    assert_eq!(error.class, ErrorClass::NeedsPerson);
    assert!(error.message.contains("1 object changed by someone else since: `d`"), "{error}");
    assert_eq!(scene.names("new:").await, ["d", "mine"]);
    assert!(scene.warnings().iter().any(|text| text.contains("`d`") && text.contains("someone else")), "{:?}", scene.warnings());
    // What was put back is not this step's any more, whoever makes it again.
    scene.put("new:", "a", "new a").await;
    let again = scene.undo(with.clone()).await.expect_err("it is still left");
    assert_eq!(again.message, error.message);
    assert_eq!(scene.names("new:").await, ["a", "d", "mine"], "twice does no harm");
    // Once nothing is left it is undone.
    scene.place("new:").remove("d").await.expect("removed");
    scene.undo(with.clone()).await.expect("undone");
    scene.undo(with).await.expect("and that stays");
}

#[tokio::test]
async fn what_was_overwritten_is_named() {
    let Some((scene, _old, _new)) = scene().await else { return };
    scene.put("new:", "shared", "the target's own").await;
    let with = json!({"from": "old:", "to": "new:"});
    assert_eq!(scene.run("object.sync", with.clone()).await.expect("copied")["overwritten"], 1);
    let error = scene.undo(with).await.expect_err("the target's own is lost");
    assert_eq!(error.class, ErrorClass::NeedsPerson);
    assert!(error.message.contains("1 object overwritten or deleted") && error.message.contains("`shared`"), "{error}");
    assert_eq!(scene.names("new:").await, ["mine", "shared"]);
    assert!(
        scene.warnings().iter().any(|text| text.contains("`shared`") && text.contains("no version")),
        "{:?}",
        scene.warnings()
    );
}

#[tokio::test]
async fn an_undo_before_any_attempt_does_nothing() {
    let Some((scene, _old, _new)) = scene().await else { return };
    scene.undo(json!({"from": "old:", "to": "new:"})).await.expect("nothing to do");
    assert_eq!(scene.names("new:").await, ["mine"]);
}

#[tokio::test]
async fn a_lost_ledger_is_told() {
    let Some((scene, _old, _new)) = scene().await else { return };
    let with = json!({"from": "old:", "to": "new:"});
    scene.run("object.sync", with.clone()).await.expect("copied");
    let ledger = scene.scratch().join("ledger.jsonl");
    let whole = std::fs::read(&ledger).expect("there");
    let half = whole.len() / 2;
    let noise: Vec<u8> = (0..=255).cycle().take(whole.len() * 2).collect();
    let garbled = [&whole[..half], b"\xff\x00", &whole[half + 2..]].concat();
    for (spoiled, says) in [
        (Some(&whole[..half]), "was cut"),
        (Some(b"".as_slice()), "was cut"),
        (Some(noise.as_slice()), "was changed"),
        (Some(garbled.as_slice()), "was changed"),
        (None, "is gone"),
    ] {
        match spoiled {
            Some(bytes) => std::fs::write(&ledger, bytes).expect("written"),
            None => std::fs::remove_dir_all(scene.scratch()).expect("removed"),
        }
        for attempt in [scene.undo(with.clone()).await, scene.again("object.sync", with.clone()).await.map(drop)] {
            let error = attempt.expect_err("nobody knows what was created");
            assert_eq!(error.class, ErrorClass::NeedsPerson, "{error:?}");
            assert!(error.message.contains(says), "{error}");
            assert!(!error.help.expect("it helps").contains("room"));
        }
    }
    assert_eq!(scene.names("new:").await, ["a", "b/c", "d", "mine", "shared"]);
    std::fs::create_dir_all(scene.scratch()).expect("made");
    std::fs::write(&ledger, whole).expect("written");
    scene.undo(with).await.expect("undone");
    assert_eq!(scene.names("new:").await, ["mine"]);
}

#[tokio::test]
async fn a_ledger_is_vouched_for_before_the_first_object_is_written() {
    let Some((scene, _old, new)) = scene().await else { return };
    let with = json!({"from": "old:", "to": "new:", "bandwidth": "1B/s"});
    let arrived = || std::fs::read_dir(new.data.path().join("box")).expect("there").count();
    // As a death is to the step: at the first checkpoint nothing is done any more.
    let heard = scene.heard.clone();
    let death = async {
        while heard.checkpoints.lock().expect("not poisoned").is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(arrived(), 1, "only what was there");
    };
    tokio::select! {
        outcome = scene.run("object.sync", with.clone()) => { outcome.expect("it was faster"); }
        () = death => {}
    }
    std::fs::remove_dir_all(scene.scratch()).expect("removed");
    let error = scene.undo(with).await.expect_err("nobody knows what was created");
    assert!(error.message.contains("is gone"), "{error}");
}

#[tokio::test]
async fn what_was_done_at_one_place_is_not_undone_at_another() {
    let Some((scene, _old, _new)) = scene().await else { return };
    let with = |to: &str| json!({"from": "old:", "to": to});
    scene.run("object.sync", with("new:in/")).await.expect("copied");
    scene.put("new:", "out/a", "new a").await;
    for attempt in [scene.undo(with("new:out/")).await, scene.again("object.sync", with("new:out/")).await.map(drop)] {
        let error = attempt.expect_err("another place");
        assert_eq!(error.class, ErrorClass::NeedsPerson, "{error:?}");
        assert!(error.message.contains("box/in/") && error.message.contains("box/out/"), "{error}");
    }
    scene.undo(with("new:in/")).await.expect("undone");
    assert_eq!(scene.names("new:").await, ["mine", "out/a"]);
}

#[tokio::test]
async fn undo_removes_the_folders_that_the_step_made_when_they_are_empty() {
    let folder = tempfile::tempdir().expect("a directory");
    let root = folder.path().join("new/place");
    let scene = Scene::new([("mem", options(&[("scheme", "memory")])), ("there", directory(&root))]);
    for name in ["a", "b/c/d", "e/f", "old/g"] {
        scene.put("mem:", name, "x").await;
    }
    let with = json!({"from": "mem:", "to": "there:"});
    let step = Scene::step("object.sync", &with);
    let all = async |spoil: &dyn Fn()| {
        let _ = std::fs::remove_dir_all(scene.scratch());
        scene.heard.checkpoints.lock().expect("not poisoned").clear();
        let ctx = scene.context();
        let before = step.inspect(&ctx).await.expect("planned");
        step.run(&ctx, &before).await.expect("copied");
        spoil();
        step.undo(&scene.context(), &before).await.expect("undone");
        step.undo(&scene.context(), &before).await.expect("twice does no harm");
    };
    scene.plan("object.sync", with.clone()).await.expect("planned");
    assert!(!folder.path().join("new").exists(), "a plan makes nothing");
    all(&|| ()).await;
    assert!(!folder.path().join("new").exists() && folder.path().exists());
    // What was there before stays, and so does what somebody else has put something into.
    std::fs::create_dir_all(root.join("old")).expect("made");
    all(&|| std::fs::write(root.join("e/theirs"), "x").expect("written")).await;
    let mut left: Vec<_> = std::fs::read_dir(&root).expect("there").map(|entry| entry.expect("readable").file_name()).collect();
    left.sort();
    assert_eq!(left, ["e", "old"]);
    assert_eq!(scene.names("there:").await, ["e/theirs"]);
}

#[tokio::test]
async fn an_object_that_went_in_parts_is_undone_where_etags_change_or_are_empty() {
    let Some(server) = parts::s3(NEW) else { return };
    let folder = tempfile::tempdir().expect("a directory");
    std::fs::write(folder.path().join("large"), vec![7; 20_000_000]).expect("written");
    let scene = Scene::new([("here", directory(folder.path())), ("new", s3_store(server.port, NEW))]);
    let with = json!({"from": "here:", "to": "new:in/"});
    scene.run("object.sync", with.clone()).await.expect("copied");
    assert_eq!(scene.names("new:").await, ["in/large"]);
    let again = scene.run("object.sync", with.clone()).await.expect("nothing to do");
    assert_eq!(again["skipped"], 1);
    scene.undo(with.clone()).await.expect("this one has created nothing");
    assert_eq!(scene.names("new:").await, ["in/large"]);
    scene.run("object.delete", json!({"from": "new:", "everything": true})).await.expect("cleaned");
    scene.run("object.sync", with.clone()).await.expect("copied");
    scene.undo(with).await.expect("undone");
    assert!(scene.names("new:").await.is_empty(), "{:?}", scene.warnings());
}

#[tokio::test]
async fn what_was_only_going_to_be_overwritten_is_not_left_behind() {
    let folder = tempfile::tempdir().expect("a directory");
    let scene = Scene::new([("mem", options(&[("scheme", "memory")])), ("there", directory(folder.path()))]);
    for number in 0..200 {
        scene.put("mem:", &format!("{number:03}"), vec![1; 20_000]).await;
        std::fs::write(folder.path().join(format!("{number:03}")), vec![2; 10_000]).expect("written");
    }
    let with = json!({"from": "mem:", "to": "there:", "bandwidth": "200KB/s", "concurrency": 2});
    let (heard, cancel) = (scene.heard.clone(), scene.cancel.clone());
    let watch = async {
        while heard.progress.lock().expect("not poisoned").last().is_none_or(|progress| progress.objects < Some(5)) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(scene.run("object.sync", with.clone()), watch);
    outcome.expect_err("stopped on request");
    let new = |number: &u32| std::fs::metadata(folder.path().join(format!("{number:03}"))).expect("there").len() == 20_000;
    let overwritten = (0..200).filter(new).count();
    assert!((5..200).contains(&overwritten), "{overwritten}");
    let error = scene.restarted().undo(with).await.expect_err("those are lost");
    assert!(error.message.contains(&format!("{overwritten} objects overwritten")), "{overwritten}: {error}");
}
