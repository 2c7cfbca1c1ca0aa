//! Cancel, death and resume: what is done is not done again, and undo knows all of it.

use std::time::Duration;

use ferry::stores::bucket::Upload;
use serde_json::json;

use crate::parts::fault::{Proxy, Weather};
use crate::parts::scene::{Scene, directory, s3_store};
use crate::parts::{self, GARAGE_NEW, NEW, OLD};

#[tokio::test]
async fn a_cancelled_sync_goes_on_where_it_was() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let proxy = Proxy::start(new.port, |_, _, _| Weather::Fair).await;
    let scene = Scene::new([("old", s3_store(old.port, OLD)), ("new", s3_store(proxy.port, NEW))]);
    for number in 0..60 {
        scene.put("old:", &format!("{number:03}"), vec![7; 20_000]).await;
    }
    let with = json!({"from": "old:", "to": "new:", "concurrency": 4, "bandwidth": "600KB/s"});
    let (heard, cancel) = (scene.heard.clone(), scene.cancel.clone());
    let watch = async {
        // Told when a good part has arrived.
        while heard.progress.lock().expect("not poisoned").last().is_none_or(|progress| progress.objects < Some(20)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(scene.run("object.sync", with.clone()), watch);
    outcome.expect_err("stopped on request");
    let arrived = scene.names("new:").await.len();
    assert!((20..60).contains(&arrived), "{arrived}");
    let put = proxy.count("PUT", "/box/");
    let scene = scene.restarted();
    let output = scene.again("object.sync", json!({"from": "old:", "to": "new:"})).await.expect("copied");
    assert_eq!((output["copied"].as_u64(), output["skipped"].as_u64()), (Some(60), Some(0)), "all are this step's own");
    assert_eq!(proxy.count("PUT", "/box/") - put, 60 - arrived, "what had arrived is not sent again");
    scene.undo(with).await.expect("undone");
    assert!(scene.names("new:").await.is_empty(), "undo knows what both attempts created");
}

#[tokio::test]
async fn after_a_sudden_death_undo_finds_everything() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let scene = Scene::new([("old", s3_store(old.port, OLD)), ("new", s3_store(new.port, NEW))]);
    for number in 0..200 {
        scene.put("old:", &format!("{number:03}"), vec![7; 5_000]).await;
    }
    let with = json!({"from": "old:", "to": "new:", "concurrency": 8});
    for stop_at in [1, 30, 120] {
        let heard = scene.heard.clone();
        heard.progress.lock().expect("not poisoned").clear();
        let death = async {
            while heard.progress.lock().expect("not poisoned").last().is_none_or(|progress| progress.objects < Some(stop_at)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        // Dropping the future is what a death is to the step: nothing is written any more, nothing cleaned up.
        tokio::select! {
            outcome = scene.run("object.sync", with.clone()) => { outcome.expect("it was faster"); }
            () = death => {}
        }
        assert!(!scene.names("new:").await.is_empty());
        scene.undo(with.clone()).await.expect("undone");
        // An upload that was under way may still end: then its answer was lost, and undo has seen nothing.
        let left = scene.names("new:").await;
        assert!(left.len() <= 8, "{left:?}");
        scene.run("object.delete", json!({"from": "new:", "everything": true})).await.expect("cleaned");
    }
}

/// A sync of one file that dies when so many of its parts have arrived; gives the upload that it leaves.
async fn cut(scene: &Scene, is_time: impl Fn(usize) -> bool) -> Upload {
    let ledger = scene.scratch().join("ledger.jsonl");
    let arrived = || std::fs::read_to_string(&ledger).unwrap_or_default().matches("\"what\":\"part\"").count();
    let death = async {
        while !is_time(arrived()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        outcome = scene.run("object.sync", json!({"from": "here:", "to": "new:", "concurrency": 2})) => panic!("{outcome:?}"),
        () = death => {}
    }
    let mut uploads = scene.place("new:").bucket().expect("a bucket").uploads("").await.expect("listed");
    assert_eq!(uploads.len(), 1);
    uploads.remove(0)
}

#[tokio::test]
async fn an_upload_that_the_service_has_thrown_away_is_begun_anew() {
    let Some(server) = parts::s3(NEW) else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let content: Vec<u8> = (0..40_u32 << 20).map(|at| (at / 1000 + at).to_le_bytes()[0]).collect();
    std::fs::write(folder.path().join("large"), &content).expect("written");
    // In the middle of its parts, and when all have arrived but the end has not been asked for.
    for parts in [2, 5] {
        let proxy = Proxy::start(server.port, move |method, path, _| {
            let is_end = method == "POST" && path.contains("uploadId=");
            if is_end && parts == 5 { Weather::Slow(Duration::from_secs(1)) } else { Weather::Fair }
        })
        .await;
        let scene = Scene::new([("here", directory(folder.path())), ("new", s3_store(proxy.port, NEW))]);
        let upload = cut(&scene, |arrived| arrived >= parts).await;
        scene.place("new:").bucket().expect("a bucket").abort(&upload.key, &upload.id).await.expect("thrown away");
        let scene = scene.restarted();
        scene.again("object.sync", json!({"from": "here:", "to": "new:"})).await.expect("copied in one attempt");
        assert!(scene.get("new:", "large").await.expect("there") == content, "{parts}: it differs");
        assert!(scene.warnings().iter().any(|warning| warning.contains("begun anew")), "{parts}: {:?}", scene.warnings());
        let left = scene.place("new:").bucket().expect("a bucket").uploads("").await.unwrap_or_default();
        assert!(left.is_empty(), "{parts}: {left:?}");
        scene.run("object.delete", json!({"from": "new:", "everything": true})).await.expect("cleaned");
    }
}

#[tokio::test]
async fn a_part_that_the_service_has_otherwise_is_the_only_one_sent_again() {
    let Some(server) = parts::garage(GARAGE_NEW) else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let content: Vec<u8> = (0..40_u32 << 20).map(|at| (at / 1000 + at).to_le_bytes()[0]).collect();
    std::fs::write(folder.path().join("large"), &content).expect("written");
    let proxy = Proxy::start(server.port, |_, _, _| Weather::Fair).await;
    let mut store = s3_store(proxy.port, GARAGE_NEW);
    store.insert("region".to_owned(), ferry::secret::Text::new("us-east-1"));
    let scene = Scene::new([("here", directory(folder.path())), ("new", store)]);
    let upload = cut(&scene, |arrived| arrived >= 3).await;
    let bucket = scene.place("new:").bucket().expect("a bucket");
    let told = std::fs::read_to_string(scene.scratch().join("ledger.jsonl")).expect("there");
    let number = (1..=5).find(|number| told.contains(&format!("\"number\":{number},"))).expect("one has arrived");
    bucket.put_part(&upload.key, &upload.id, number, vec![9; 8 << 20].into()).await.expect("sent");
    let sent = |number: u32| proxy.count("PUT", &format!("partNumber={number}&"));
    let before: Vec<usize> = (1..=5).map(sent).collect();
    let arrived = told.matches("\"what\":\"part\"").count();
    let scene = scene.restarted();
    scene.again("object.sync", json!({"from": "here:", "to": "new:"})).await.expect("copied in one attempt");
    assert!(scene.get("new:", "large").await.expect("there") == content, "it differs");
    let again: usize = (1..=5).map(sent).zip(before).map(|(now, before)| now - before).sum();
    assert_eq!(again, 5 - arrived + 1, "what is missing, and the one");
    assert_eq!(proxy.count("POST", "uploads"), 1, "one upload");
}
