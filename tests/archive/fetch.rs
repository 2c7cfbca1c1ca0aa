//! `ferry wal fetch`: the log's end is told as that, and nothing else is.

use super::stage::{SEGMENT, Stage, content, name, said};
use crate::parts::{self, NEW};

fn code(output: &std::process::Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn what_is_not_known_stops_recovery_and_a_standby_asks_again() {
    let Some(server) = parts::s3(NEW) else { return };
    let stage = Stage::bucket(&server, NEW);
    let nothing = stage.fetch(&name(1));
    assert_eq!(code(&nothing), Some(255), "there is no archive at all: {}", said(&nothing));
    stage.pushed(&stage.segment(1, "x", false));
    assert_eq!(code(&stage.fetch(&name(2))), Some(1), "the log's end");
    drop(server);
    let down = stage.fetch(&name(1));
    assert_eq!(code(&down), Some(255), "{}", said(&down));
    let down = stage.command("fetch", &["--standby", &name(1), "pg_wal/RECOVERYXLOG"]).output().expect("it starts");
    assert_eq!(code(&down), Some(1), "{}", said(&down));
    assert!(!stage.path("data/pg_wal/RECOVERYXLOG").exists());
}

#[test]
fn a_wrong_command_line_is_not_the_log_s_end() {
    let stage = Stage::directory();
    assert_eq!(code(&stage.command("fetch", &[]).output().expect("it starts")), Some(255));
    assert_eq!(code(&stage.command("fetch", &["--no-such", "a", "b"]).output().expect("it starts")), Some(255));
    assert_eq!(code(&stage.fetch("nonsense")), Some(255));
    stage.settings("place: nowhere:x/\n");
    assert_eq!(code(&stage.fetch(&name(1))), Some(255));
    stage.settings("plaec: x\n");
    assert_eq!(code(&stage.fetch(&name(1))), Some(255));
}

#[test]
fn a_damaged_object_is_never_handed_out() {
    let stage = Stage::directory();
    let segment = stage.segment(1, "x", false);
    stage.pushed(&segment);
    let object = stage.path(&format!("archive/wal/{}/{segment}", &segment[..16]));
    let whole = std::fs::read(&object).expect("there");
    let middle = whole.len() / 2;
    let mut turned = whole.clone();
    turned[middle] ^= 1;
    for damaged in [&turned[..], &whole[..middle], &[]] {
        std::fs::write(&object, damaged).expect("ours");
        for standby in [&["--standby"][..], &[]] {
            let output =
                stage.command("fetch", &[standby, &[&*segment, "pg_wal/RECOVERYXLOG"]].concat()).output().expect("it starts");
            assert_eq!(code(&output), Some(255), "{}", said(&output));
        }
        assert!(!stage.path("data/pg_wal/RECOVERYXLOG").exists());
        let again = stage.push(&segment);
        assert_eq!(code(&again), Some(1), "it is not safely stored: {}", said(&again));
    }
    // One segment under another's name.
    std::fs::write(&object, &whole).expect("ours");
    std::fs::copy(&object, object.with_file_name(name(2))).expect("room");
    assert_eq!(code(&stage.fetch(&name(2))), Some(255));
}

#[test]
fn the_next_segments_are_fetched_before_they_are_asked_for() {
    let Some(server) = parts::s3(NEW) else { return };
    let stage = Stage::bucket(&server, NEW);
    let names: Vec<String> = (1..=40).map(|number| stage.segment(number, "w", true)).collect();
    for name in &names {
        stage.pushed(name);
    }
    let text = std::fs::read_to_string(stage.path("archive.yaml")).expect("written");
    stage.settings(&format!("{text}ahead: 8\n"));
    assert!(stage.fetched(&names[0]) == content(1, 1, "w"));
    stage.until_ahead(8);
    assert_eq!(stage.ahead(), names[1..9]);
    for (at, name) in names.iter().enumerate().take(9).skip(1) {
        assert!(stage.fetched(name) == content(1, at as u64 + 1, "w"), "{name}");
    }
    // Others were fetched meanwhile; of what recovery is past nothing is left.
    stage.until_ahead(4);
    assert!(stage.ahead().iter().all(|name| *name > names[8]), "{:?}", stage.ahead());
    // What lies ready needs no store.
    let ready = stage.ahead();
    drop(server);
    for name in &ready {
        assert_eq!(stage.fetched(name).len(), SEGMENT);
    }
}

#[test]
fn a_jump_back_is_served_and_clears_what_was_ahead() {
    let stage = Stage::directory();
    let names: Vec<String> = (1..=12).map(|number| stage.segment(number, "w", true)).collect();
    for name in &names {
        stage.pushed(name);
    }
    assert!(stage.fetched(&names[5]) == content(1, 6, "w"));
    stage.until_ahead(6);
    assert!(stage.fetched(&names[0]) == content(1, 1, "w"));
    assert!(stage.fetched(&names[11]) == content(1, 12, "w"));
}

#[test]
fn what_lay_ready_before_the_machine_started_anew_is_not_used() {
    let stage = Stage::directory();
    let names: Vec<String> = (1..=4).map(|number| stage.segment(number, "w", true)).collect();
    for name in &names {
        stage.pushed(name);
    }
    assert!(stage.fetched(&names[0]) == content(1, 1, "w"));
    stage.until_ahead(3);
    let spool = stage.path("data/pg_wal/ferry-spool");
    std::fs::write(spool.join("boot"), "another").expect("ours");
    std::fs::write(spool.join("fetched").join(&names[1]), "").expect("a file that lost its content with the power");
    assert!(stage.fetched(&names[1]) == content(1, 2, "w"));
}
