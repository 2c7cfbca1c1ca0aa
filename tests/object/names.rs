//! Names of objects: each works or is refused by name; none is lost on the way.

use serde_json::json;

use crate::parts::scene::{Scene, directory, options, s3_store, webdav_store};
use crate::parts::{self, NEW, OLD};

fn memory() -> ferry::stores::StoreOptions {
    options(&[("scheme", "memory")])
}

#[tokio::test]
async fn spaces_unicode_and_long_names_arrive() {
    let (Some(old), Some(new)) = (parts::s3(OLD), parts::s3(NEW)) else { return };
    let scene = Scene::new([("old", s3_store(old.port, OLD)), ("new", s3_store(new.port, NEW))]);
    // 1,024 bytes are the most that S3 takes; a server on a file system takes 255 in a part.
    let long = format!("{}/{}", vec!["x".repeat(200); 5].join("/"), "y".repeat(19));
    assert_eq!(long.len(), 1024);
    let names =
        ["a b", "p/ in front", "..dots", "a..b/c", "new\u{a0}space", "ü/ñ/✓/漢字/🦀", "a%2Fb", "a+b=c&d", "(x)*!'\"", &long];
    for name in names {
        scene.put("old:", name, name).await;
    }
    let output = scene.run("object.sync", json!({"from": "old:", "to": "new:"})).await.expect("copied");
    assert_eq!(output["copied"], names.len());
    for name in names {
        assert_eq!(scene.get("new:", name).await.as_deref(), Some(name.as_bytes()), "{name}");
    }
}

#[tokio::test]
async fn a_name_with_dots_that_lead_elsewhere_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a directory");
    let scene = Scene::new([("mem", memory()), ("here", directory(folder.path()))]);
    let operator = scene.place("mem:").operator().clone();
    for name in ["good", "a/../../escape", "b/./c"] {
        operator.write(name, "x").await.expect("written");
    }
    let with = json!({"from": "mem:", "to": "here:"});
    let error = scene.run("object.sync", with).await.expect_err("refused");
    assert!(error.message.contains("`a/../../escape`") && error.message.contains("`b/./c`"), "{error}");
    assert!(error.help.expect("it helps").contains("exclude"));
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).expect("there").map(|entry| entry.expect("readable").file_name()).collect();
    assert_eq!(names, ["good"], "the others were copied");
    let error = scene.plan("object.sync", json!({"from": "mem:", "to": "here:"})).await.expect_err("a plan finds it first");
    assert!(error.message.contains("`a/../../escape`"), "{error}");
    let with = json!({"from": "mem:", "to": "here:", "exclude": ["a/", "b/"]});
    assert_eq!(scene.run("object.sync", with).await.expect("copied")["copied"], 1);
}

#[tokio::test]
async fn a_name_too_long_for_the_target_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a directory");
    let scene = Scene::new([("mem", memory()), ("here", directory(folder.path()))]);
    let long = "n".repeat(300);
    scene.put("mem:", &long, "x").await;
    let error = scene.run("object.sync", json!({"from": "mem:", "to": "here:"})).await.expect_err("refused");
    assert!(error.message.contains(&long) && error.message.contains("255"), "{error}");
}

#[tokio::test]
async fn a_file_and_a_folder_of_one_name_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a directory");
    let scene = Scene::new([("mem", memory()), ("here", directory(folder.path()))]);
    scene.put("mem:", "a", "file").await;
    scene.put("mem:", "a/b", "below").await;
    let error = scene.run("object.sync", json!({"from": "mem:", "to": "here:"})).await.expect_err("refused");
    assert!(error.message.contains("`a") && error.message.contains("same name"), "{error}");
}

#[tokio::test]
async fn a_link_is_left_out_with_a_warning_by_name() {
    let folder = tempfile::tempdir().expect("a directory");
    std::fs::write(folder.path().join("file"), "x").expect("written");
    std::os::unix::fs::symlink("file", folder.path().join("link")).expect("linked");
    let scene = Scene::new([("mem", memory()), ("here", directory(folder.path()))]);
    let output = scene.run("object.sync", json!({"from": "here:", "to": "mem:"})).await.expect("copied");
    assert_eq!(
        (output["copied"].as_u64(), output["left_out"].as_u64(), output["warnings"].as_u64()),
        (Some(1), Some(1), Some(1))
    );
    assert_eq!(scene.warnings(), ["`link` is a symbolic link and is left out"]);
    std::fs::remove_file(folder.path().join("file")).expect("removed");
    let plan = scene.plan("object.sync", json!({"from": "here:", "to": "mem:"})).await.expect("planned");
    assert!(plan.warnings.contains(&"leaves out a symbolic link: `link`".to_owned()), "{plan:?}");
}

#[tokio::test]
async fn names_that_are_not_utf8_are_all_refused_by_a_plan_wherever_they_lie() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().expect("a directory");
    let scene = Scene::new([("mem", memory()), ("here", directory(folder.path()))]);
    for name in [&b"b\xffd"[..], b"b\xfed", b"d\xff/deep/x.txt", b"fine/a.txt"] {
        let path = folder.path().join(std::ffi::OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        std::fs::write(path, "x").expect("written");
    }
    let with = json!({"from": "here:", "to": "mem:"});
    let error = scene.plan("object.sync", with.clone()).await.expect_err("refused");
    for word in ["3 objects", r"`b\xffd`", r"`b\xfed`", r"`d\xff/deep/x.txt`", "not UTF-8"] {
        assert!(error.message.contains(word), "{word}: {error}");
    }
    assert!(scene.run("object.compare", with).await.expect_err("refused").message.contains("not UTF-8"));
    let delete = json!({"from": "here:", "everything": true});
    assert!(scene.plan("object.delete", delete).await.expect_err("refused").message.contains("not UTF-8"));
    let with = json!({"from": "here:", "to": "mem:", "include": ["*.txt"]});
    let error = scene.plan("object.sync", with).await.expect_err("a filter by names sees below the folder too");
    assert!(error.message.contains("1 object cannot"), "{error}");
    let with = json!({"from": "here:", "to": "mem:", "exclude": ["b*", "d*/"]});
    assert_eq!(scene.run("object.sync", with).await.expect("copied")["copied"], 1);
    let with = json!({"from": "mem:", "to": "here:", "mode": "mirror"});
    scene.run("object.sync", with).await.expect("copied");
    assert_eq!(scene.names("here:").await.len(), 4, "nothing is deleted by a name that leads elsewhere");
}

/// A bucket as a server lists it that keeps names with slashes at their ends: no server at hand does.
fn listing(entries: &[(&str, u64, &str)]) -> &'static str {
    let contents: Vec<String> = entries
        .iter()
        .map(|(key, size, md5)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"{md5}\"</ETag><Size>{size}</Size></Contents>"
            )
        })
        .collect();
    let contents = contents.concat();
    let text = format!(
        "<?xml version=\"1.0\"?><ListBucketResult><Name>box</Name><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
    );
    Box::leak(text.into_boxed_str())
}

#[tokio::test]
async fn a_slash_at_the_end_is_a_folder_when_empty_and_refused_by_name_when_not() {
    use crate::parts::fault::{Proxy, Weather};
    let empty = "d41d8cd98f00b204e9800998ecf8427e";
    let good = listing(&[("folder/", 0, empty)]);
    let bad =
        listing(&[("double//slash", 1, "0cc175b9c0f1b6a831c399e269772661"), ("full/", 1, "0cc175b9c0f1b6a831c399e269772661")]);
    let both = [("good", good), ("bad", bad)];
    for (name, text) in both {
        let proxy = Proxy::start(1, move |_, _, _| Weather::Answer(200, &[("content-type", "application/xml")], text)).await;
        let scene = Scene::new([("old", s3_store(proxy.port, OLD)), ("mem", memory())]);
        let outcome = scene.run("object.sync", json!({"from": "old:", "to": "mem:"})).await;
        if name == "good" {
            assert_eq!(outcome.expect("copied")["copied"], 1);
            assert_eq!(scene.names("mem:").await, ["folder/"]);
        } else {
            let error = outcome.expect_err("refused");
            assert!(error.message.contains("`full/`") && error.message.contains("`double//slash`"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_server_that_lists_out_of_order_is_noticed_and_nothing_is_lost() {
    use crate::parts::fault::{Proxy, Weather};
    let Some(server) = parts::s3(OLD) else { return };
    let wrong = listing(&[("b", 1, "92eb5ffee6ae2fec3ad71c777531578f"), ("a", 1, "0cc175b9c0f1b6a831c399e269772661")]);
    // Recursive listings come in the wrong order; folders are the real server's.
    let proxy = Proxy::start(server.port, move |method, path, _| {
        let is_flat =
            method == "GET" && path.contains("list-type=2") && !path.contains("delimiter=%2F") && !path.contains("delimiter=/");
        if is_flat { Weather::Answer(200, &[("content-type", "application/xml")], wrong) } else { Weather::Fair }
    })
    .await;
    let folder = tempfile::tempdir().expect("a directory");
    let scene = Scene::new([("old", s3_store(proxy.port, OLD)), ("here", directory(folder.path()))]);
    for name in ["b", "a", "c/d"] {
        scene.put("old:", name, name).await;
    }
    let output = scene.run("object.sync", json!({"from": "old:", "to": "here:"})).await.expect("copied");
    assert_eq!(output["copied"], 3);
}

#[tokio::test]
async fn two_names_that_the_target_takes_for_one_are_a_failure_by_name() {
    let Some(server) = parts::webdav() else { return };
    let folder = tempfile::tempdir().expect("a directory");
    // One letter in two forms: rclone's servers take them for one.
    let names = ["caf\u{e9}", "cafe\u{301}"];
    for (name, content) in names.iter().zip(["first", "second"]) {
        std::fs::write(folder.path().join(name), content).expect("written");
    }
    std::fs::write(folder.path().join("plain"), "x").expect("written");
    let scene = Scene::new([("here", directory(folder.path())), ("dav", webdav_store(&server))]);
    scene.put("dav:", "in/mine", "was here").await;
    let with = json!({"from": "here:", "to": "dav:in/", "mode": "mirror"});
    let error = scene.run("object.sync", with.clone()).await.expect_err("one of them is lost");
    assert!(error.message.contains("of what was copied") && names.iter().any(|name| error.message.contains(name)), "{error}");
    assert!(!error.message.contains("`plain`"), "{error}");
    assert!(scene.names("dav:in/").await.contains(&"mine".to_owned()), "nothing was deleted");
    let exclude = json!({"from": "here:", "to": "dav:alone/", "exclude": [names[0]]});
    scene.run("object.sync", exclude).await.expect("a name alone arrives");
}

#[tokio::test]
async fn a_link_inside_the_target_is_not_written_through() {
    let (folder, outside) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let root = folder.path().join("target");
    std::fs::create_dir_all(root.join("real")).expect("made");
    std::os::unix::fs::symlink(outside.path(), root.join("real/away")).expect("linked");
    std::os::unix::fs::symlink(&root, folder.path().join("door")).expect("linked");
    let door = folder.path().join("door");
    let scene = Scene::new([("mem", options(&[("scheme", "memory")])), ("there", directory(&door))]);
    for name in ["a", "real/away/b", "real/away/deep/c", "real/d"] {
        scene.put("mem:", name, "x").await;
    }
    let with = json!({"from": "mem:", "to": "there:"});
    let error = scene.run("object.sync", with.clone()).await.expect_err("it leads elsewhere");
    assert!(error.message.contains("`real/away/b`") && error.message.contains("`real/away` there is a symbolic link"), "{error}");
    assert!(error.message.contains("`real/away/deep/c`"), "{error}");
    assert_eq!(std::fs::read_dir(outside.path()).expect("there").count(), 0, "nothing lands outside");
    assert_eq!(
        scene.get("there:", "real/d").await.as_deref(),
        Some(&b"x"[..]),
        "a link to the place itself is a person's choice"
    );
    // A folder that has become a link since is not undone through either.
    std::fs::rename(root.join("real"), outside.path().join("moved")).expect("moved");
    std::os::unix::fs::symlink(outside.path().join("moved"), root.join("real")).expect("linked");
    let error = scene.undo(with).await.expect_err("one is left");
    assert!(error.message.contains("`real/d`"), "{error}");
    assert!(outside.path().join("moved/d").exists() && !root.join("a").exists());
}
