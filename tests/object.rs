//! Objects between real stores: what is copied, listed, compared, deleted, undone.

#[path = "object/any_to_any.rs"]
mod any_to_any;
#[path = "object/apart.rs"]
mod apart;
#[path = "object/cuts.rs"]
mod cuts;
#[path = "object/etags.rs"]
mod etags;
#[path = "object/follow.rs"]
mod follow;
#[path = "object/gales.rs"]
mod gales;
#[path = "object/inside.rs"]
mod inside;
#[path = "object/kept.rs"]
mod kept;
#[path = "parts/memory.rs"]
mod memory;
#[path = "object/modes.rs"]
mod modes;
#[path = "object/names.rs"]
mod names;
#[path = "object/new_keys.rs"]
mod new_keys;
#[path = "object/resume.rs"]
mod resume;
#[path = "object/rules.rs"]
mod rules;
#[path = "object/undo.rs"]
mod undo;
#[path = "object/weather.rs"]
mod weather;

mod parts;

use parts::scene::{Scene, directory, s3_store};
use parts::{NEW, OLD};
use serde_json::json;

#[tokio::test]
async fn a_directory_arrives_in_a_bucket_and_comes_back() {
    let Some(server) = parts::s3(NEW) else { return };
    let folder = tempfile::tempdir().expect("a directory");
    for (name, content) in [("a/b.txt", "one"), ("a-b", "two"), ("deep/er/x", ""), ("sp ace ü✓", "four")] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        std::fs::write(path, content).expect("written");
    }
    let back = tempfile::tempdir().expect("a directory");
    let scene =
        Scene::new([("here", directory(folder.path())), ("new", s3_store(server.port, NEW)), ("back", directory(back.path()))]);
    let output = scene.run("object.sync", json!({"from": "here:", "to": "new:in/"})).await.expect("copied");
    assert_eq!(output["copied"], 4);
    assert_eq!(output["bytes"], 10);
    assert_eq!(scene.names("new:in/").await, ["a-b", "a/b.txt", "deep/er/x", "sp ace ü✓"]);
    let output = scene.run("object.sync", json!({"from": "here:", "to": "new:in/"})).await.expect("copied");
    assert_eq!((&output["copied"], &output["skipped"]), (&json!(0), &json!(4)));
    scene.run("object.sync", json!({"from": "new:in/", "to": "back:x"})).await.expect("copied");
    assert_eq!(std::fs::read_to_string(back.path().join("x/sp ace ü✓")).expect("there"), "four");
    let same = scene.run("object.compare", json!({"from": "here:", "to": "back:x"})).await.expect("the same");
    assert_eq!(same["identical"], true);
    assert_eq!(std::fs::read_dir(back.path().join("x")).expect("there").count(), 4, "no unfinished files are left");
}

#[tokio::test]
async fn a_list_counts_all_and_names_the_first() {
    let Some(server) = parts::s3(OLD) else { return };
    let scene = Scene::new([("old", s3_store(server.port, OLD))]);
    for number in 0..20 {
        scene.put("old:", &format!("p/{number:02}.txt"), "xy").await;
    }
    let output = scene.run("object.list", json!({"from": "old:p/", "exclude": ["1*"], "limit": 3})).await.expect("listed");
    assert_eq!(output["objects"], 10);
    assert_eq!(output["bytes"], 20);
    assert_eq!(output["names"], json!(["00.txt", "01.txt", "02.txt"]));
    assert_eq!(output["is_complete"], false);
}
