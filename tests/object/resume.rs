//! Cancel, death and resume: what is done is not done again, and undo knows all of it.

use std::time::Duration;

use serde_json::json;

use crate::parts::fault::{Proxy, Weather};
use crate::parts::scene::{Scene, s3_store};
use crate::parts::{self, NEW, OLD};

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
