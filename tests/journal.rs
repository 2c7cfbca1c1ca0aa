//! The journal holds what it said it holds: cut, full, damaged, foreign, shared.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a skip is loud; the child tells its parent")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ferry::engine::{Definition, Event, OnFailure, Outcome, RunStatus, StepPath};
use ferry::journal::{FILE, Holder, Journal, JournalError, LockTry, OpenOptions, Record, Request};
use serde_json::{Value, json};

fn created(run: &str) -> Event {
    Event::RunCreated {
        run: run.to_owned(),
        definition: Box::new(Definition {
            name: "orders".to_owned(),
            steps: Vec::new(),
            finally: Vec::new(),
            max_parallel: 4,
            on_failure: OnFailure::Stop,
            finally_budget: Duration::from_mins(1),
        }),
        document: Value::Null,
        on_failure: OnFailure::Stop,
        until: None,
        by: "anna@desk".to_owned(),
    }
}

fn started(step: &str, attempt: u32) -> Event {
    Event::AttemptStarted { step: step.into(), attempt }
}

fn ended(step: &str, attempt: u32, output: Value) -> Event {
    Event::AttemptEnded { step: step.into(), attempt, outcome: Outcome::Succeeded { output, warnings: 0 } }
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = temp.path().join(".ferry");
    (temp, dir)
}

fn events(records: &[Record]) -> Vec<Event> {
    records.iter().map(|record| record.event.clone()).collect()
}

#[tokio::test]
async fn events_come_back_as_they_went_in() {
    let (_temp, dir) = folder();
    let journal = Journal::open(&dir).expect("a new journal");
    let lease = journal.acquire("r1", "anna@desk").await.expect("nobody holds it");
    let batch = vec![created("r1"), started("a", 1), ended("a", 1, json!({ "text": "ü \u{F5E5}s\u{F5E6}", "n": 1.5 }))];
    let written = journal.append(&lease, batch.clone()).await.expect("room enough");
    assert_eq!(written.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(journal.commits(), 1, "a batch is one transaction");
    journal.append(&lease, vec![started("b", 1)]).await.expect("room enough");
    journal.release(lease).await.expect("ours");
    drop(journal);

    let journal = Journal::read(&dir).expect("it is there");
    let records = journal.records("r1").expect("whole");
    assert_eq!(events(&records[..3]), batch);
    assert_eq!(records[..3], written);
    assert_eq!(journal.records_after("r1", 3).expect("whole")[0].seq, 4);
    let text = serde_json::to_string(&records[1]).expect("a record is JSON");
    assert_eq!(serde_json::from_str::<Record>(&text).expect("read back"), records[1]);
}

#[cfg(unix)]
#[test]
fn the_folder_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_temp, dir) = folder();
    Journal::open(&dir).expect("a new journal");
    let mode = |path: &Path| std::fs::metadata(path).expect("made").permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join(FILE))), (0o700, 0o600));
}

#[test]
fn many_may_make_the_journal_at_once() {
    for _ in 0..10 {
        let (_temp, dir) = folder();
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (dir, start) = (&dir, &start);
                scope.spawn(move || {
                    start.wait();
                    let journal = Journal::open(dir).expect("whoever comes second finds it made");
                    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a thread");
                    runtime.block_on(async {
                        let run = format!("r{n}");
                        let lease = journal.acquire(&run, "anna@desk").await.expect("nobody holds it");
                        journal.append(&lease, vec![created(&run)]).await.expect("room");
                    });
                });
            }
        });
        assert_eq!(Journal::read(&dir).and_then(|journal| journal.runs()).expect("whole").len(), 8);
    }
}

#[test]
fn reading_creates_nothing() {
    let (_temp, dir) = folder();
    assert!(matches!(Journal::read(&dir), Err(JournalError::Missing { .. })));
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_log_cut_anywhere_leaves_whole_batches() {
    let (temp, dir) = folder();
    let journal = Journal::open(&dir).expect("a new journal");
    let lease = journal.acquire("r1", "anna@desk").await.expect("nobody holds it");
    let mut batches = vec![vec![created("r1"), started("a", 1)]];
    for n in 1..12 {
        batches.push(vec![ended("a", n, json!("x".repeat(700))), started("b", n), started("c", n)]);
    }
    for batch in &batches {
        journal.append(&lease, batch.clone()).await.expect("room enough");
    }
    let borders: Vec<usize> = batches
        .iter()
        .scan(0, |sum, batch| {
            *sum += batch.len();
            Some(*sum)
        })
        .collect();
    // While the journal is open its log holds everything: what a power loss leaves is a prefix of it.
    let database = std::fs::read(dir.join(FILE)).expect("there");
    let log = std::fs::read(dir.join(format!("{FILE}-wal"))).expect("there");
    assert!(log.len() > 40_000, "{}", log.len());
    let mut seen = std::collections::BTreeSet::new();
    for cut in (0..=log.len()).step_by(1361).chain([log.len()]) {
        let copy = temp.path().join(format!("cut-{cut}"));
        std::fs::create_dir(&copy).expect("new");
        std::fs::write(copy.join(FILE), &database).expect("room");
        std::fs::write(copy.join(format!("{FILE}-wal")), &log[..cut]).expect("room");
        let journal = Journal::open(&copy).expect("a cut log is no damage");
        let count = match journal.records("r1") {
            Ok(records) => records.len(),
            Err(JournalError::NoRun { .. }) => 0,
            Err(error) => panic!("cut at {cut}: {error}"),
        };
        assert!(count == 0 || borders.contains(&count), "cut at {cut} leaves {count} events: half a batch");
        seen.insert(count);
    }
    assert!(seen.len() > 8 && seen.last() == borders.last(), "{seen:?}");
}

#[tokio::test]
async fn a_full_disk_at_any_write_loses_nothing_acknowledged_and_writes_no_half() {
    for pages in (16..60_u64).step_by(3) {
        let (_temp, dir) = folder();
        let options = OpenOptions { max_size: Some(pages * 4096), ..OpenOptions::default() };
        let journal = Journal::open_with(&dir, options).expect("the tables fit");
        let lease = journal.acquire("r1", "anna@desk").await.expect("fits");
        let mut acknowledged = 0;
        let error = loop {
            let n = u32::try_from(acknowledged).expect("small") + 1;
            let mut batch = if acknowledged == 0 { vec![created("r1")] } else { Vec::new() };
            batch.extend([started("a", n), ended("a", n, json!("y".repeat(900))), started("b", n)]);
            match journal.append(&lease, batch).await {
                Ok(records) => acknowledged = records.last().expect("a batch").seq,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, JournalError::Full { .. }), "{error:?}");
        assert!(error.help_text().contains("make room"), "{}", error.help_text());
        let records = Journal::read(&dir).and_then(|journal| journal.records("r1"));
        match records {
            Ok(records) => assert_eq!(records.last().expect("some").seq, acknowledged),
            Err(JournalError::NoRun { .. }) => assert_eq!(acknowledged, 0),
            Err(error) => panic!("{error}"),
        }
        // With room again, it goes on.
        drop((lease, journal));
        let journal = Journal::open(&dir).expect("whole");
        let lease = journal.acquire("r1", "anna@desk").await.expect("the first runner is gone");
        let next = if acknowledged == 0 { created("r1") } else { started("z", 1) };
        assert_eq!(journal.append(&lease, vec![next]).await.expect("room")[0].seq, acknowledged + 1);
    }
}

/// Runs the test `child` of this binary in a mount namespace of its own, behind `setup`.
fn in_namespace(dir: &Path, setup: &str, task: &str) -> Option<String> {
    let exe = std::env::current_exe().expect("we run");
    let script = format!("{setup} && exec \"$0\" --exact child --nocapture");
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", &script])
        .arg(exe)
        .env("FERRY_TEST_DIR", dir)
        .env("FERRY_TEST_TASK", task)
        .output();
    let text = match &output {
        Ok(output) => String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned(),
        Err(error) => error.to_string(),
    };
    if text.contains("child-begins") {
        return Some(text);
    }
    assert!(std::env::var_os("CI").is_none(), "no mount namespace: {text}");
    eprintln!("SKIPPED: no mount namespace on this machine: {text}");
    None
}

#[test]
fn a_small_file_system_that_fills_up_stops_the_run_clearly() {
    let (temp, dir) = folder();
    let setup = "mount -t tmpfs -o size=256k ferry \"$(dirname \"$FERRY_TEST_DIR\")\"";
    let Some(text) = in_namespace(&dir, setup, "fill") else { return };
    assert!(text.contains("full: there is no room to write to the journal"), "{text}");
    assert!(text.contains("whole: true"), "{text}");
    drop(temp);
}

#[tokio::test]
async fn a_read_only_folder_is_said_so_and_can_still_be_read() {
    let (_temp, dir) = folder();
    let journal = Journal::open(&dir).expect("new");
    let lease = journal.acquire("r1", "anna@desk").await.expect("nobody holds it");
    journal.append(&lease, vec![created("r1"), started("a", 1)]).await.expect("room");
    journal.release(lease).await.expect("ours");
    drop(journal);
    let setup = "mount --bind \"$FERRY_TEST_DIR\" \"$FERRY_TEST_DIR\" && mount -o remount,bind,ro \"$FERRY_TEST_DIR\"";
    let Some(text) = in_namespace(&dir, setup, "read-only") else { return };
    assert!(text.contains("open: cannot write to the journal"), "{text}");
    assert!(text.contains("read: 2 events"), "{text}");
}

/// Not a test of its own: what the tests above and below run in another process.
#[tokio::test]
async fn child() {
    let (Some(dir), Ok(task)) = (std::env::var_os("FERRY_TEST_DIR"), std::env::var("FERRY_TEST_TASK")) else { return };
    println!("child-begins");
    let dir = PathBuf::from(dir);
    match task.as_str() {
        "fill" => {
            let journal = Journal::open(&dir).expect("the tables fit");
            let lease = journal.acquire("r1", "anna@desk").await.expect("fits");
            journal.append(&lease, vec![created("r1")]).await.expect("fits");
            let mut acknowledged = 1;
            for n in 1.. {
                match journal.append(&lease, vec![started("a", n), ended("a", n, json!("z".repeat(3000)))]).await {
                    Ok(records) => acknowledged = records[1].seq,
                    Err(error) => {
                        println!("full: {error}");
                        break;
                    }
                }
            }
            let records = journal.records("r1").expect("readable");
            println!("whole: {}", records.last().map(|record| record.seq) == Some(acknowledged));
        }
        "read-only" => {
            println!("open: {}", Journal::open(&dir).expect_err("it is read-only"));
            let journal = Journal::read(&dir).expect("readable");
            println!("read: {} events", journal.records("r1").expect("whole").len());
        }
        "hold" => {
            let journal = Journal::open(&dir).expect("there");
            let lease = journal.acquire("r1", "bert@desk").await.expect("nobody holds it");
            std::fs::write(dir.join("held"), "").expect("room");
            tokio::time::sleep(Duration::from_mins(2)).await;
            drop(lease);
        }
        other => panic!("no task {other}"),
    }
}

#[tokio::test]
async fn a_second_runner_is_told_who_holds_the_run_and_a_killed_one_holds_nothing() {
    let (_temp, dir) = folder();
    let journal = Journal::open(&dir).expect("new");
    let mut child = Command::new(std::env::current_exe().expect("we run"))
        .args(["--exact", "child"])
        .env("FERRY_TEST_DIR", &dir)
        .env("FERRY_TEST_TASK", "hold")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let begun = Instant::now();
    while !dir.join("held").exists() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the child never took the run");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = journal.acquire("r1", "anna@desk").await.expect_err("the child holds it");
    let JournalError::Held { holder, since, .. } = &error else { panic!("{error:?}") };
    assert_eq!((holder.by.as_str(), holder.pid), ("bert@desk", child.id()));
    assert!(error.to_string().contains(&since.to_string()) && error.to_string().contains("bert@desk"), "{error}");
    assert!(journal.holder("r1").expect("readable").is_some());
    child.kill().expect("ours");
    // At once, and before anybody has collected the dead process: no waiting for the lease's time.
    let begun = Instant::now();
    let lease = loop {
        match journal.acquire("r1", "anna@desk").await {
            Ok(lease) => break lease,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(5), "{error}"),
        }
    };
    assert_eq!(lease.token(), 2);
    child.wait().expect("ours");
}

#[tokio::test]
async fn a_runner_that_was_taken_over_writes_nothing_more() {
    let (_temp, dir) = folder();
    let journal = Journal::open(&dir).expect("new");
    let first = journal.acquire("r1", "anna@desk").await.expect("nobody holds it");
    journal.append(&first, vec![created("r1")]).await.expect("room");
    assert!(matches!(journal.acquire("r1", "bert@desk").await, Err(JournalError::Held { .. })));
    // As if the first runner were on another machine and had not been heard of for long.
    let elsewhere = Holder { world: Some("another boot".to_owned()), ..journal.holder("r1").expect("readable").expect("held").0 };
    let raw = rusqlite::Connection::open(dir.join(FILE)).expect("there");
    raw.execute("UPDATE leases SET expires = 0, holder = ?1", [serde_json::to_string(&elsewhere).expect("plain data")])
        .expect("a table of ours");
    let second = journal.acquire("r1", "bert@desk").await.expect("the lease ran out");
    let refused = journal.append(&first, vec![started("a", 1)]).await.expect_err("a newer token is out");
    assert!(matches!(refused, JournalError::Fenced { .. }), "{refused:?}");
    assert!(matches!(journal.renew(&first).await, Err(JournalError::Fenced { .. })));
    assert!(matches!(journal.try_lock(&first, &"a".into(), "dns").await, Err(JournalError::Fenced { .. })));
    journal.renew(&second).await.expect("ours");
    // Giving back what is no longer ours takes nothing from the other.
    journal.release(first).await.expect("no error");
    assert_eq!(journal.append(&second, vec![started("a", 1)]).await.expect("room")[0].seq, 2);
    assert_eq!(journal.records("r1").expect("whole").len(), 2);
}

#[tokio::test]
async fn a_damaged_file_is_named_and_left_alone() {
    let (_temp, dir) = folder();
    std::fs::create_dir(&dir).expect("new");
    for content in [b"this is no database, whatever its name says ".repeat(40), vec![0; 8192]] {
        std::fs::write(dir.join(FILE), &content).expect("room");
        let error = Journal::open(&dir).expect_err("it is no database");
        assert!(matches!(error, JournalError::Damaged { .. }), "{error:?}");
        assert!(Journal::read(&dir).is_err());
        assert_eq!(std::fs::read(dir.join(FILE)).expect("there"), content, "nothing was written");
    }
}

#[tokio::test]
async fn one_flipped_bit_in_an_event_is_noticed() {
    let (_temp, dir) = folder();
    let journal = Journal::open(&dir).expect("new");
    let lease = journal.acquire("r1", "anna@desk").await.expect("nobody holds it");
    journal.append(&lease, vec![created("r1"), ended("a", 1, json!("lsn 0/16B3748"))]).await.expect("room");
    drop((lease, journal));
    let mut bytes = std::fs::read(dir.join(FILE)).expect("there");
    let place = bytes.windows(9).position(|window| window == b"0/16B3748").expect("in the file once it is closed");
    bytes[place] ^= 1;
    std::fs::write(dir.join(FILE), &bytes).expect("room");
    let error = Journal::read(&dir).expect("opens").records("r1").expect_err("the value is not what was written");
    assert!(matches!(&error, JournalError::Damaged { what, .. } if what.contains("event 2")), "{error:?}");
}

#[tokio::test]
async fn a_cut_database_is_damaged_and_not_repaired() {
    let (_temp, dir) = folder();
    let journal = Journal::open(&dir).expect("new");
    let lease = journal.acquire("r1", "anna@desk").await.expect("nobody holds it");
    let filler = (1..200).map(|n| ended("a", n, json!("w".repeat(500))));
    journal.append(&lease, [created("r1")].into_iter().chain(filler).collect()).await.expect("room");
    drop((lease, journal));
    let bytes = std::fs::read(dir.join(FILE)).expect("there");
    assert!(bytes.len() > 100_000 && !dir.join(format!("{FILE}-wal")).exists(), "closed well");
    for keep in [bytes.len() / 2, bytes.len() - 4096] {
        std::fs::write(dir.join(FILE), &bytes[..keep / 4096 * 4096]).expect("room");
        let error = Journal::read(&dir).and_then(|journal| journal.records("r1")).expect_err("half of it is gone");
        assert!(matches!(error, JournalError::Damaged { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn an_emptied_database_beside_its_log_is_damaged() {
    let (_temp, dir) = folder();
    let journal = Journal::open(&dir).expect("new");
    let lease = journal.acquire("r1", "anna@desk").await.expect("nobody holds it");
    journal.append(&lease, vec![created("r1")]).await.expect("room");
    let log = std::fs::read(dir.join(format!("{FILE}-wal"))).expect("there");
    let (_other, copy) = folder();
    std::fs::create_dir(&copy).expect("new");
    std::fs::write(copy.join(FILE), "").expect("room");
    std::fs::write(copy.join(format!("{FILE}-wal")), &log).expect("room");
    assert!(matches!(Journal::open(&copy), Err(JournalError::Damaged { .. })));
    assert_eq!(std::fs::read(copy.join(format!("{FILE}-wal"))).expect("there"), log, "nothing was thrown away");
}

#[tokio::test]
async fn a_missing_event_is_noticed() {
    let (_temp, dir) = folder();
    let journal = Journal::open(&dir).expect("new");
    let lease = journal.acquire("r1", "anna@desk").await.expect("nobody holds it");
    journal.append(&lease, vec![created("r1"), started("a", 1), started("b", 1)]).await.expect("room");
    let raw = rusqlite::Connection::open(dir.join(FILE)).expect("there");
    raw.execute("DELETE FROM events WHERE seq = 2", []).expect("a table of ours");
    let error = journal.records("r1").expect_err("there is a gap");
    assert!(matches!(&error, JournalError::Damaged { what, .. } if what.contains("event 2")), "{error:?}");
}

#[test]
fn a_newer_journal_and_a_foreign_database_are_left_alone() {
    for (sql, is_newer) in [
        ("PRAGMA application_id = 0x46455259; PRAGMA user_version = 7; CREATE TABLE runs (x)", true),
        ("CREATE TABLE bookmarks (url TEXT)", false),
        ("PRAGMA application_id = 42; CREATE TABLE runs (x)", false),
    ] {
        let (_temp, dir) = folder();
        std::fs::create_dir(&dir).expect("new");
        rusqlite::Connection::open(dir.join(FILE)).and_then(|raw| raw.execute_batch(sql)).expect("a database");
        let before = std::fs::read(dir.join(FILE)).expect("there");
        for error in [Journal::open(&dir).expect_err("not ours"), Journal::read(&dir).expect_err("not ours")] {
            match error {
                JournalError::Newer { found, known, .. } => assert!(is_newer && found == 7 && known == 1),
                JournalError::Foreign { .. } => assert!(!is_newer),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(std::fs::read(dir.join(FILE)).expect("there"), before, "nothing was written");
    }
}

#[tokio::test]
async fn runs_are_listed_newest_first_and_found_by_a_part_of_their_id() {
    let (_temp, dir) = folder();
    let journal = Journal::open(&dir).expect("new");
    for (run, status) in [("0199aa11", RunStatus::Failed), ("0199aa22", RunStatus::Succeeded), ("0199bb33", RunStatus::Running)] {
        let lease = journal.acquire(run, "anna@desk").await.expect("nobody holds it");
        let mut batch = vec![created(run)];
        if status != RunStatus::Running {
            batch.push(Event::Settled { status });
        }
        journal.append(&lease, batch).await.expect("room");
        if status == RunStatus::Running {
            std::mem::forget(lease);
        } else {
            journal.release(lease).await.expect("ours");
        }
    }
    let runs = journal.runs().expect("readable");
    assert_eq!(runs.iter().map(|run| run.id.as_str()).collect::<Vec<_>>(), ["0199bb33", "0199aa22", "0199aa11"]);
    assert_eq!(runs.iter().map(|run| run.live).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(runs[2].status, RunStatus::Failed);
    assert!(runs[2].ended.is_some() && runs[0].ended.is_none());
    for (text, id) in [("last", "0199bb33"), ("0199b", "0199bb33"), ("aa11", "0199aa11"), ("0199AA22", "0199aa22")] {
        assert_eq!(journal.find_run(text).expect(text), id);
    }
    let error = journal.find_run("0199aa").expect_err("two are called so");
    assert!(matches!(&error, JournalError::Ambiguous { runs, .. } if runs.len() == 2), "{error:?}");
    for text in ["", "xyz", "0199aa112"] {
        assert!(matches!(journal.find_run(text), Err(JournalError::NoRun { .. })), "{text}");
    }
    let lease = journal.acquire("0199aa11", "bert@desk").await.expect("given back");
    journal.append(&lease, vec![Event::Resumed { by: "bert@desk".to_owned(), until: None }]).await.expect("room");
    assert_eq!(journal.run("0199aa11").expect("there").status, RunStatus::Running);
    assert!(journal.run("0199aa11").expect("there").ended.is_none());
}

#[tokio::test]
async fn a_request_stays_until_it_is_answered() {
    let (_temp, dir) = folder();
    let journal = Journal::open(&dir).expect("new");
    let other = Journal::open(&dir).expect("the same file");
    let lease = journal.acquire("r1", "anna@desk").await.expect("nobody holds it");
    journal.append(&lease, vec![created("r1")]).await.expect("room");
    let version = journal.version().expect("readable");
    assert_eq!(journal.version().expect("readable"), version, "nothing was written");
    let request = Request::Cancel { by: "bert@desk".to_owned() };
    other.put("r1", &request).await.expect("room");
    other.put("r2", &request).await.expect("room");
    assert_ne!(journal.version().expect("readable"), version, "somebody wrote");
    let letters = journal.letters("r1", 0).expect("readable");
    assert_eq!(letters.iter().map(|letter| &letter.request).collect::<Vec<_>>(), [&request]);
    assert_eq!(journal.letters("r1", 0).expect("readable").len(), 1, "reading takes nothing out");
    assert!(journal.letters("r1", letters[0].id).expect("readable").is_empty());
    let event = Event::CancelRequested { by: "bert@desk".to_owned() };
    journal.append_answering(&lease, vec![event], vec![letters[0].id]).await.expect("room");
    assert!(journal.letters("r1", 0).expect("readable").is_empty());
    assert_eq!(journal.letters("r2", 0).expect("readable").len(), 1);
}

#[tokio::test]
async fn a_lock_has_one_holder_across_runs_and_outlives_a_pause() {
    let (_temp, dir) = folder();
    let journal = Journal::open(&dir).expect("new");
    let step = StepPath::from("cutover");
    let first = journal.acquire("r1", "anna@desk").await.expect("nobody holds it");
    let second = journal.acquire("r2", "bert@desk").await.expect("nobody holds it");
    journal.append(&first, vec![created("r1")]).await.expect("room");
    journal.append(&second, vec![created("r2")]).await.expect("room");
    for _ in 0..2 {
        assert_eq!(journal.try_lock(&first, &step, "dns").await.expect("ours"), LockTry::Taken);
    }
    let busy = journal.try_lock(&second, &step, "dns").await.expect("ours");
    assert!(matches!(&busy, LockTry::Busy(holder) if holder.run == "r1" && holder.live), "{busy:?}");
    assert!(matches!(journal.try_lock(&first, &"other".into(), "dns").await.expect("ours"), LockTry::Busy(_)));
    assert_eq!(journal.try_lock(&second, &step, "vip").await.expect("ours"), LockTry::Taken);

    // The runner pauses: the lock stays, and whoever waits is told what to do.
    journal.append(&first, vec![Event::Settled { status: RunStatus::Paused }]).await.expect("room");
    journal.release(first).await.expect("ours");
    let LockTry::Busy(holder) = journal.try_lock(&second, &step, "dns").await.expect("ours") else { panic!("it was taken") };
    assert!(!holder.live && holder.to_string().contains("resume it or roll it back"), "{holder}");
    assert_eq!(journal.locks_of("r1").expect("readable").len(), 1);

    // A run that came to a good end holds nothing.
    let first = journal.acquire("r1", "anna@desk").await.expect("given back");
    journal.append(&first, vec![Event::Settled { status: RunStatus::RolledBack }]).await.expect("room");
    assert!(matches!(journal.try_lock(&second, &step, "dns").await.expect("ours"), LockTry::Busy(_)), "still at work");
    journal.release(first).await.expect("ours");
    assert_eq!(journal.try_lock(&second, &step, "dns").await.expect("ours"), LockTry::Taken);
    journal.unlock(&second, &"other".into(), "dns").await.expect("no error");
    assert_eq!(journal.locks_of("r2").expect("readable").len(), 2, "only the holder gives it back");
    journal.unlock(&second, &step, "dns").await.expect("ours");
    assert_eq!(journal.locks_of("r2").expect("readable").len(), 1);
}

#[tokio::test]
async fn an_event_beyond_the_limit_is_refused_whole() {
    let (_temp, dir) = folder();
    let journal = Journal::open(&dir).expect("new");
    let lease = journal.acquire("r1", "anna@desk").await.expect("nobody holds it");
    journal.append(&lease, vec![created("r1")]).await.expect("room");
    let batch = vec![started("a", 1), ended("a", 1, json!("v".repeat(17 << 20)))];
    let error = journal.append(&lease, batch).await.expect_err("too large");
    assert!(matches!(error, JournalError::TooLarge { .. }), "{error:?}");
    assert_eq!(journal.records("r1").expect("whole").len(), 1);
}
