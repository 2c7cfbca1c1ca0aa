//! `ferry wal push`: nothing is acknowledged that is not stored, nothing is written over another.

use super::stage::{Stage, content, name, said};
use crate::parts::{self, NEW};

#[test]
fn what_was_pushed_comes_back_from_a_directory_and_from_a_bucket() {
    let Some(server) = parts::s3(NEW) else { return };
    for stage in [Stage::directory(), Stage::bucket(&server, NEW)] {
        let segment = stage.segment(3, "one", true);
        stage.write("00000002.history", b"1\t0/3000000\tno recovery target specified\n");
        stage.write(&format!("{segment}.00000028.backup"), b"START WAL LOCATION: 0/300028\n");
        let partial = format!("{}.partial", stage.segment(4, "two", false));
        stage.write(&partial, &content(1, 4, "two"));
        for name in [&*segment, "00000002.history", &format!("{segment}.00000028.backup"), &partial] {
            let before = std::fs::read(stage.path(&format!("data/pg_wal/{name}"))).expect("there");
            stage.pushed(name);
            assert!(stage.fetched(name) == before, "{name}");
            stage.pushed(name);
        }
        let missing = stage.fetch(&name(9));
        assert_eq!(missing.status.code(), Some(1), "{}", said(&missing));
    }
}

#[test]
fn another_file_of_the_same_name_is_refused_and_nothing_is_written_over() {
    let Some(server) = parts::s3(NEW) else { return };
    for stage in [Stage::directory(), Stage::bucket(&server, NEW)] {
        let segment = stage.segment(3, "first", false);
        stage.pushed(&segment);
        stage.segment(3, "second", false);
        let refused = stage.push(&segment);
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        assert!(said(&refused).contains("holds another"), "{}", said(&refused));
        assert!(stage.fetched(&segment) == content(1, 3, "first"));
    }
}

#[test]
fn an_archive_is_of_one_cluster() {
    let stage = Stage::directory();
    stage.pushed(&stage.segment(1, "mine", false));
    let other = stage.beside();
    let refused = other.push(&other.segment_of(2, 7, "theirs", false));
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("belongs to the cluster 1"), "{}", said(&refused));
}

#[test]
fn what_is_no_segment_is_not_archived() {
    let stage = Stage::directory();
    let segment = stage.segment(5, "x", false);
    std::fs::rename(stage.path(&format!("data/pg_wal/{segment}")), stage.path(&format!("data/pg_wal/{}", name(6))))
        .expect("renamed");
    assert!(said(&stage.push(&name(6))).contains("another place in the log"));
    stage.write(&name(7), &content(1, 7, "x")[..4096]);
    assert!(said(&stage.push(&name(7))).contains("4096 bytes long"));
    stage.write(&name(8), b"");
    assert_eq!(stage.push(&name(8)).status.code(), Some(1));
    assert_eq!(stage.push("RECOVERYXLOG").status.code(), Some(1));
    assert!(!stage.path("archive").exists(), "nothing was archived");
}

#[test]
fn segments_that_wait_are_pushed_with_the_first() {
    let Some(server) = parts::s3(NEW) else { return };
    let stage = Stage::bucket(&server, NEW);
    let names: Vec<String> = (1..=6).map(|number| stage.segment(number, "w", true)).collect();
    stage.pushed(&names[0]);
    // What was stored ahead is answered without the store.
    drop(server);
    for name in &names[1..] {
        stage.pushed(name);
    }
    let one_more = stage.segment(7, "w", true);
    assert_eq!(stage.push(&one_more).status.code(), Some(1), "it is stored nowhere");
}

#[test]
fn a_note_of_another_content_acknowledges_nothing() {
    let stage = Stage::directory();
    let first = stage.segment(1, "w", true);
    let second = stage.segment(2, "before", true);
    stage.pushed(&first);
    // The cluster was put back to an earlier state and has written another segment of that name since.
    stage.segment(2, "after", true);
    let refused = stage.push(&second);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
}

#[test]
fn of_many_that_push_at_once_one_content_is_kept() {
    // rclone's server does not know conditions: it tells two that look at the same moment apart by nothing.
    let stage = Stage::directory();
    let others: Vec<Stage> = (0..6).map(|_| stage.beside()).collect();
    let started: Vec<_> = others
        .iter()
        .enumerate()
        .map(|(at, other)| {
            let word = format!("writer {}", at % 2);
            let segment = other.segment(3, &word, false);
            (
                word,
                other
                    .command("push", &[&format!("pg_wal/{segment}")])
                    .stderr(std::process::Stdio::null())
                    .spawn()
                    .expect("it starts"),
            )
        })
        .collect();
    let ended: Vec<(String, bool)> =
        started.into_iter().map(|(word, mut child)| (word, child.wait().expect("it ends").success())).collect();
    let kept = stage.fetched(&name(3));
    for (word, was_acknowledged) in ended {
        assert_eq!(was_acknowledged, kept == content(1, 3, &word), "{word}");
    }
}

#[test]
fn a_push_that_was_killed_leaves_nothing_half() {
    let stage = Stage::directory();
    let segment = stage.segment(3, "x", false);
    for after in 0..12 {
        let mut child = stage.command("push", &[&format!("pg_wal/{segment}")]).spawn().expect("it starts");
        std::thread::sleep(std::time::Duration::from_millis(after * 4));
        let _ = child.kill();
        let _ = child.wait();
        let object = stage.path(&format!("archive/wal/{}/{segment}", &segment[..16]));
        if object.exists() {
            assert!(stage.fetched(&segment) == content(1, 3, "x"));
        }
    }
    stage.pushed(&segment);
    assert!(stage.fetched(&segment) == content(1, 3, "x"));
}

#[test]
fn settings_that_others_may_read_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::directory();
    let segment = stage.segment(1, "x", false);
    std::fs::set_permissions(stage.path("archive.yaml"), std::fs::Permissions::from_mode(0o640)).expect("ours");
    let refused = stage.push(&segment);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("chmod 600"));
    assert_eq!(stage.fetch(&segment).status.code(), Some(255));
}
