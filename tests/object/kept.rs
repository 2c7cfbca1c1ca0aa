//! What is kept with objects beside their content, from one kind of place to another: times, metadata, tags, storage
//! classes. rclone is asked for its opinion.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ferry::stores::bucket::{Condition, Properties};
use serde_json::{Value, json};

use crate::parts::scene::{Scene, azure_store, directory, s3_store};
use crate::parts::{self, GARAGE_OLD, OLD};

/// Names, and times in nanoseconds: long ago, with and without a fraction, before 1970.
const TIMES: &[(&str, i128)] = &[
    ("a.txt", 1_354_040_105_123_456_789),
    ("b/whole", 1_000_000_000_000_000_000),
    ("b/tenth", 1_500_000_000_100_000_000),
    ("before", -86_400_000_000_000 * 365 + 250_000_000),
];

fn time(nanos: i128) -> SystemTime {
    let by = Duration::from_nanos(u64::try_from(nanos.unsigned_abs()).expect("it fits"));
    if nanos < 0 { SystemTime::UNIX_EPOCH - by } else { SystemTime::UNIX_EPOCH + by }
}

fn files(folder: &Path) {
    for (name, nanos) in TIMES {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        std::fs::write(&path, name).expect("written");
        std::fs::File::options().write(true).open(&path).expect("opened").set_modified(time(*nanos)).expect("set");
    }
}

fn have_times(folder: &Path) {
    for (name, nanos) in TIMES {
        let there = std::fs::metadata(folder.join(name)).expect("there").modified().expect("a time");
        assert_eq!(there, time(*nanos), "{name}");
    }
}

/// What rclone takes for the times of the objects.
fn rclone_agrees(remote: &str) {
    let Some(said) = parts::ask_rclone(&["lsjson", "-R", "--files-only", "--no-mimetype", remote]) else { return };
    let said: Vec<Value> = serde_json::from_str(&said).expect("a list");
    assert_eq!(said.len(), TIMES.len());
    for (name, nanos) in TIMES {
        let at = said.iter().find(|one| one["Path"] == *name).and_then(|one| one["ModTime"].as_str()).expect("named");
        let at: jiff::Timestamp = at.parse().expect("a time");
        assert_eq!(at.as_nanosecond(), *nanos, "{name} in {remote}");
    }
}

async fn copies_once(scene: &Scene, from: &str, to: &str) {
    let with = json!({"from": from, "to": to});
    let output = scene.run("object.sync", with.clone()).await.expect("copied");
    assert_eq!(output["copied"], TIMES.len(), "{from} {to}");
    for compare in ["auto", "mtime"] {
        let with = json!({"from": from, "to": to, "compare": compare});
        let again = scene.run("object.sync", with).await.expect("nothing to do");
        assert_eq!(again["skipped"], TIMES.len(), "{from} {to} {compare}");
    }
}

#[tokio::test]
async fn times_of_files_survive_buckets_and_rclone_agrees() {
    let (Some(garage), Some(azure), Some(ssh)) = (parts::garage(GARAGE_OLD), parts::azure(), parts::sftp()) else { return };
    let folders: Vec<_> = (0..4).map(|_| tempfile::tempdir().expect("a directory")).collect();
    let at = |number: usize| directory(folders[number].path());
    let scene = Scene::new([
        ("here", at(0)),
        ("s3", s3_store(garage.port, GARAGE_OLD)),
        ("blob", azure_store(&azure).await),
        ("there", at(1)),
        ("third", at(2)),
        ("fourth", at(3)),
        ("far", parts::scene::sftp_store(&ssh)),
    ]);
    files(folders[0].path());
    copies_once(&scene, "here:", "s3:").await;
    rclone_agrees(&parts::rclone_s3(garage.port, GARAGE_OLD));
    copies_once(&scene, "s3:", "blob:").await;
    rclone_agrees(&parts::rclone_azure(&azure));
    copies_once(&scene, "blob:", "there:").await;
    have_times(folders[1].path());
    copies_once(&scene, "s3:", "third:").await;
    have_times(folders[2].path());
    copies_once(&scene, "here:", "fourth:").await;
    have_times(folders[3].path());
    // What was changed since is seen, with an old time too.
    std::fs::write(folders[0].path().join("a.txt"), "A.TXT").expect("written");
    let old = std::fs::File::options().write(true).open(folders[0].path().join("a.txt")).expect("opened");
    old.set_modified(time(TIMES[0].1)).expect("set");
    let output = scene.run("object.sync", json!({"from": "here:", "to": "fourth:"})).await.expect("copied");
    assert_eq!(output["copied"], 1);
    scene.put("s3:", "b/whole", "B/WHOLE").await;
    let output = scene.run("object.sync", json!({"from": "s3:", "to": "third:"})).await.expect("copied");
    assert_eq!(output["copied"], 1);
    // Undo knows a file by the time that it was given.
    let empty = tempfile::tempdir().expect("a directory");
    let with = json!({"from": "blob:", "to": empty.path()});
    scene.run("object.sync", with.clone()).await.expect("copied");
    scene.undo(with).await.expect("undone");
    assert_eq!(std::fs::read_dir(empty.path()).expect("there").count(), 0, "{:?}", scene.warnings());
    // By SFTP times come in seconds.
    let out = ssh.data.path().join("files/out");
    std::fs::create_dir(&out).expect("made");
    std::fs::write(out.join("one"), "x").expect("written");
    let one = std::fs::File::options().write(true).open(out.join("one")).expect("opened");
    one.set_modified(time(1_354_040_105_500_000_000)).expect("set");
    let fifth = tempfile::tempdir().expect("a directory");
    let back = fifth.path().display().to_string();
    for (from, to) in [("far:out/", "s3:far/"), ("s3:far/", back.as_str())] {
        for (what, count) in [("copied", 1), ("skipped", 1)] {
            let output = scene.run("object.sync", json!({"from": from, "to": to})).await.expect("copied");
            assert_eq!(output[what], count, "{from} {to}");
        }
    }
    let there = std::fs::metadata(fifth.path().join("one")).expect("there").modified().expect("a time");
    assert_eq!(there, time(1_354_040_105_000_000_000));
    // And none are taken: the plan says so.
    let to_far = json!({"from": "blob:", "to": "far:in/"});
    let plan = scene.plan("object.sync", to_far).await.expect("planned");
    assert!(plan.warnings.iter().any(|text| text.contains("does not keep") && text.contains("user metadata")), "{plan:?}");
}

#[tokio::test]
async fn what_rclone_and_s3cmd_have_kept_is_the_time_of_the_file() {
    let Some(garage) = parts::garage(GARAGE_OLD) else { return };
    let folders = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
    let scene = Scene::new([("s3", s3_store(garage.port, GARAGE_OLD)), ("back", directory(folders[1].path()))]);
    files(folders[0].path());
    let remote = parts::rclone_s3(garage.port, GARAGE_OLD);
    let from = folders[0].path().display().to_string();
    if parts::ask_rclone(&["copy", "--s3-no-check-bucket", &from, &remote]).is_none() {
        return;
    }
    let user = [("s3cmd-attrs".to_owned(), "atime:9/ctime:8/gid:0/mode:33188/mtime:1354040105/uid:0".to_owned())].into();
    let bucket = scene.place("s3:").bucket().expect("a bucket");
    let by_s3cmd = Properties { user, ..Properties::default() };
    bucket.put("by-s3cmd", &by_s3cmd, Bytes::from_static(b"x"), &Condition::None).await.expect("written");
    scene.run("object.sync", json!({"from": "s3:", "to": "back:"})).await.expect("copied");
    have_times(folders[1].path());
    let there = std::fs::metadata(folders[1].path().join("by-s3cmd")).expect("there").modified().expect("a time");
    assert_eq!(there, time(1_354_040_105_000_000_000));
    let again = scene.run("object.sync", json!({"from": "s3:", "to": "back:"})).await.expect("nothing to do");
    assert_eq!(again["skipped"], TIMES.len() + 1);
}

fn all() -> Properties {
    let user = [("my-key", "one"), ("empty", ""), ("colour", "gr\u{fc}n \u{2713}"), ("x.y", " edge "), ("1st", "a  b")];
    Properties {
        content_type: Some("image/x-test".to_owned()),
        content_encoding: Some("x-none".to_owned()),
        content_disposition: Some("attachment; filename=\"a b\"".to_owned()),
        cache_control: Some("no-store".to_owned()),
        content_language: Some("de, en".to_owned()),
        user: user.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Properties::default()
    }
}

async fn put(scene: &Scene, place: &str, key: &str, properties: &Properties, body: Bytes) {
    let store = scene.place(place);
    let bucket = store.bucket().expect("a bucket");
    bucket.put(&store.whole_key(key), properties, body, &Condition::None).await.expect("written");
}

async fn there(scene: &Scene, place: &str, key: &str) -> Properties {
    let store = scene.place(place);
    let bucket = store.bucket().expect("a bucket");
    let key = store.whole_key(key);
    let tags = bucket.tags(&key).await.unwrap_or_default();
    Properties { tags, ..bucket.head(&key).await.expect("there").properties }
}

#[tokio::test]
async fn metadata_survives_azure_whatever_its_names() {
    let (Some(garage), Some(azure)) = (parts::garage(GARAGE_OLD), parts::azure()) else { return };
    let scene = Scene::new([("s3", s3_store(garage.port, GARAGE_OLD)), ("blob", azure_store(&azure).await)]);
    let with_expires = Properties { expires: Some("Thu, 01 Dec 2033 16:00:00 GMT".to_owned()), ..all() };
    put(&scene, "s3:up/", "small", &with_expires, Bytes::from_static(b"content")).await;
    put(&scene, "s3:up/", "large", &all(), vec![7; 20 << 20].into()).await;
    let plan = scene.plan("object.sync", json!({"from": "s3:up/", "to": "blob:"})).await.expect("planned");
    assert_eq!(plan.warnings, ["`blob:` does not keep what objects at `s3:up/` may have: expires"]);
    scene.run("object.sync", json!({"from": "s3:up/", "to": "blob:"})).await.expect("copied");
    for key in ["small", "large"] {
        let kept = there(&scene, "blob:", key).await;
        assert_eq!(kept.user.keys().collect::<Vec<_>>(), ["_x0031_st", "colour", "empty", "my_x002d_key", "x_x002e_y"], "{key}");
        assert_eq!(Properties { user: all().user, ..kept }, all());
    }
    scene.run("object.sync", json!({"from": "blob:", "to": "s3:back/"})).await.expect("copied");
    for key in ["small", "large"] {
        assert_eq!(there(&scene, "s3:back/", key).await, all(), "{key}");
    }
}

#[tokio::test]
async fn a_plan_says_what_a_directory_does_not_keep() {
    let Some(old) = parts::s3(OLD) else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let scene = Scene::new([("old", s3_store(old.port, OLD)), ("here", directory(folder.path()))]);
    scene.put("old:", "a", "x").await;
    let plan = scene.plan("object.sync", json!({"from": "old:", "to": "here:"})).await.expect("planned");
    let told = plan.warnings.first().map(String::as_str).unwrap_or_default();
    for what in ["content type", "cache control", "expires", "tags"] {
        assert!(told.contains(what), "{plan:?}");
    }
    assert!(!told.contains("user metadata") && !told.contains("time"), "{told}");
    let plan = scene.plan("object.sync", json!({"from": "here:", "to": "old:"})).await.expect("planned");
    assert!(!plan.warnings.iter().any(|text| text.contains("does not keep")), "{plan:?}");
}

#[tokio::test]
async fn storage_classes_and_tags_go_to_another_kind_of_service_and_back() {
    let Some(azure) = parts::azure() else { return };
    let s3 = crate::memory::start(OLD);
    let scene = Scene::new([("s3", s3_store(s3, OLD)), ("blob", azure_store(&azure).await)]);
    let classes = [
        ("cool", "STANDARD_IA", Some("Cool")),
        ("cold", "GLACIER_IR", Some("Cold")),
        ("smart", "INTELLIGENT_TIERING", None),
        ("plain", "STANDARD", None),
    ];
    let tags: BTreeMap<String, String> = [("team".to_owned(), "blue one".to_owned())].into();
    for (key, class, _) in classes {
        let properties = Properties { storage_class: Some(class.to_owned()), tags: tags.clone(), ..Properties::default() };
        put(&scene, "s3:up/", key, &properties, Bytes::from_static(b"content")).await;
    }
    let large = Properties { storage_class: Some("STANDARD_IA".to_owned()), tags: tags.clone(), ..Properties::default() };
    put(&scene, "s3:up/", "large", &large, vec![7; 20 << 20].into()).await;
    let with = json!({"from": "s3:up/", "to": "blob:", "tags": true});
    let plan = scene.plan("object.sync", with.clone()).await.expect("planned");
    assert!(plan.does.contains("2 objects in the storage class `STANDARD_IA` to `Cool`"), "{}", plan.does);
    let lost = "no class at `blob:` is like `INTELLIGENT_TIERING`, in which there is 1 object: its default is taken";
    assert!(plan.warnings.iter().any(|text| text == lost), "{:?}", plan.warnings);
    scene.run("object.sync", with).await.expect("copied");
    for (key, _, tier) in classes.into_iter().chain([("large", "", Some("Cool"))]) {
        let kept = there(&scene, "blob:", key).await;
        assert_eq!((kept.storage_class.as_deref(), &kept.tags), (tier, &tags), "{key}");
    }
    // Where a service tells how many tags there are nobody has to say that they are wanted.
    scene.run("object.sync", json!({"from": "s3:up/", "to": "blob:auto/"})).await.expect("copied");
    assert_eq!(there(&scene, "blob:auto/", "large").await.tags, tags);
    assert_eq!(there(&scene, "blob:auto/", "cool").await.tags, tags);
    for key in ["cool", "cold", "smart", "plain", "large"] {
        scene.place("blob:auto/").remove(key).await.expect("removed");
    }
    scene.run("object.sync", json!({"from": "blob:", "to": "s3:back/"})).await.expect("copied");
    for (key, class, tier) in classes {
        let kept = there(&scene, "s3:back/", key).await;
        assert_eq!((kept.storage_class.as_deref(), &kept.tags), (tier.map(|_| class), &tags), "{key}");
    }
    // A person decides otherwise.
    let table = json!({"STANDARD_IA": "default", "otherwise": "Cool"});
    let with = json!({"from": "s3:up/", "to": "blob:in/", "storage_class": table, "tags": false});
    scene.run("object.sync", with).await.expect("copied");
    for (key, tier) in [("cool", None), ("large", None), ("cold", Some("Cool")), ("plain", Some("Cool"))] {
        let kept = there(&scene, "blob:in/", key).await;
        assert_eq!((kept.storage_class.as_deref(), kept.tags.len()), (tier, 0), "{key}");
    }
    // Inside one service too: nothing is sent, and the class is as it is said.
    let output = scene.run("object.sync", json!({"from": "s3:up/", "to": "s3:inside/"})).await.expect("copied");
    assert_eq!(output["copied_inside"], 5);
    assert_eq!(there(&scene, "s3:inside/", "cool").await.tags, tags);
}

#[tokio::test]
async fn what_lies_in_an_archive_is_named_by_the_plan_and_by_the_failure() {
    let (Some(azure), Some(garage)) = (parts::azure(), parts::garage(GARAGE_OLD)) else { return };
    let scene = Scene::new([("blob", azure_store(&azure).await), ("s3", s3_store(garage.port, GARAGE_OLD))]);
    let archived = Properties { storage_class: Some("Archive".to_owned()), ..Properties::default() };
    put(&scene, "blob:", "deep/one", &archived, Bytes::from_static(b"content")).await;
    put(&scene, "blob:", "open", &Properties::default(), Bytes::from_static(b"content")).await;
    let with = json!({"from": "blob:", "to": "s3:"});
    let plan = scene.plan("object.sync", with.clone()).await.expect("planned");
    assert!(plan.warnings.iter().any(|text| text.contains("in an archive") && text.contains("`deep/one`")), "{plan:?}");
    let error = scene.run("object.sync", with).await.expect_err("one cannot be read");
    assert!(error.message.contains("deep/one") && error.message.contains("archive"), "{error}");
    assert_eq!(scene.names("s3:").await, ["open"]);
}
