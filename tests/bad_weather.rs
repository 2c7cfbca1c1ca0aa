//! Bad weather on the real binary: full and read-only disks, damaged journals, files that are too much, long lists.
//! `docs/testing.md` says which test answers for which line of bad input and bad weather.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[path = "cli/bench.rs"]
#[allow(dead_code, reason = "the tests of the command line use the rest")]
mod bench;

use bench::{Bench, Ran};

/// How a test spoils a journal, and what is said of it.
type Spoilt<'a> = (&'a dyn Fn(&Path), &'a [&'a str]);

/// Runs a script in the bench's folder, in a mount namespace of its own; `$0` is ferry.
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
fn in_namespace(bench: &Bench, script: &str) -> Option<Ran> {
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", &format!("echo namespace-begins; {script}")])
        .arg(assert_cmd::cargo::cargo_bin!("ferry"))
        .current_dir(bench.path(""))
        .env_remove("FERRY_STORE")
        .env_remove("FERRY_LOG")
        .env("NO_COLOR", "1")
        .output();
    let why = match output {
        Ok(output) => {
            let ran = Ran::of(&output);
            if ran.stdout.starts_with("namespace-begins") {
                return Some(ran);
            }
            ran.stderr
        }
        Err(error) => error.to_string(),
    };
    assert!(std::env::var_os("CI").is_none(), "no mount namespace: {why}");
    eprintln!("SKIPPED: no mount namespace on this machine: {why}");
    None
}

/// The part of a script's output between two of its own lines.
#[track_caller]
fn part<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let rest = text.split_once(from).unwrap_or_else(|| panic!("no `{from}` in {text}")).1;
    rest.split_once(to).unwrap_or_else(|| panic!("no `{to}` behind `{from}` in {text}")).0
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn every_line_of_the_table_names_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/testing.md")).expect("the page is there");
    let mut named = 0;
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        for place in cell.split('`').skip(1).step_by(2) {
            let (file, test) = place.split_once(' ').unwrap_or_else(|| panic!("`{place}`: a file, a space, a test"));
            let source = std::fs::read_to_string(root.join("tests").join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let is_there = source.contains(&format!("fn {test}(")) || source.contains(&format!("    {test}: \""));
            assert!(is_there, "tests/{file} has no test `{test}`");
            named += 1;
        }
    }
    assert!(named > 35, "{named} tests are named");
}

#[test]
fn a_full_disk_stops_the_run_clearly_and_it_goes_on_when_there_is_room() {
    let bench = Bench::new();
    let numbers: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    bench.write(
        "p.yaml",
        &format!(
            "steps:\n  - id: many\n    uses: command\n    for_each: [{}]\n    max_parallel: 1\n    with: {{ run: \
             'echo {{{{ each.value }}}} >> effects; head -c 100000 /dev/zero | tr \"\\0\" x', outputs: text }}\n",
            numbers.join(", ")
        ),
    );
    std::fs::create_dir(bench.path(".ferry")).expect("a folder can be made");
    let script = "exec 2>&1
        mount -t tmpfs -o size=1m ferry .ferry || exit 99
        \"$0\" run p.yaml; echo run-ended $?
        cp effects effects-then
        \"$0\" show last; echo show-ended $?
        \"$0\" resume last; echo again-ended $?
        mount -o remount,size=100m .ferry || exit 98
        \"$0\" resume last; echo resume-ended $?
        \"$0\" show last --json > story.json; echo story-ended $?";
    let Some(ran) = in_namespace(&bench, script) else { return };
    let text = &ran.stdout;
    let run = part(text, "namespace-begins", "run-ended");
    assert!(run.contains("no room"), "it says what is wrong: {text}");
    assert!(!text.contains("run-ended 0") && !text.contains("panicked"), "{text}");
    assert!(text.contains("show-ended 0"), "what is there can be read: {text}");
    assert!(!text.contains("again-ended 0"), "there still is no room: {text}");
    assert!(text.contains("resume-ended 0") && text.contains("story-ended 0"), "{text}");
    let then = lines(&bench.path("effects-then")).len();
    assert!((2..30).contains(&then), "the disk was full in the middle: {then}");
    // What was at work when the room ended may have run again, and nothing else.
    let mut all = lines(&bench.path("effects"));
    let ran = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 30);
    assert!(ran <= 32, "{ran} effects of 30 steps");
}

#[test]
fn a_sync_to_a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let bench = Bench::new();
    for number in 0..30 {
        bench.write(&format!("from/{number:02}"), &"x".repeat(100_000));
    }
    std::fs::create_dir(bench.path("to")).expect("a folder can be made");
    bench.write(
        "p.yaml",
        "steps:\n  - { id: copy, uses: object.sync, retry: { attempts: 1 }, with: { from: ./from/, to: ./to/ } }\n",
    );
    let script = "exec 2>&1
        mount -t tmpfs -o size=1m ferry to || exit 99
        \"$0\" run p.yaml --yes; echo run-ended $?
        ls to | wc -l > arrived
        mount -o remount,size=100m to || exit 98
        \"$0\" resume last; echo resume-ended $?
        diff -r from to; echo diff-ended $?
        ls -A to | wc -l > there";
    let Some(ran) = in_namespace(&bench, script) else { return };
    let text = &ran.stdout;
    let run = part(text, "namespace-begins", "run-ended");
    assert!(run.contains("the disk is full") && run.contains("make room, then resume"), "{text}");
    assert!(!text.contains("run-ended 0") && !text.contains("panicked"), "{text}");
    assert!(text.contains("resume-ended 0") && text.contains("diff-ended 0"), "{text}");
    let arrived: usize = lines(&bench.path("arrived"))[0].trim().parse().expect("a number");
    assert!((1..30).contains(&arrived), "the disk was full in the middle: {arrived}");
    assert_eq!(lines(&bench.path("there"))[0].trim(), "30", "nothing else is left there");
}

#[test]
fn a_read_only_journal_folder_stops_before_anything_is_done_and_can_still_be_read() {
    let bench = Bench::new();
    bench.write(
        "p.yaml",
        "steps:\n  - { id: a, uses: command, retry: { attempts: 1 }, with: { run: 'echo x >> effects; test -e fixed' } }\n",
    );
    bench.run(&["run", "p.yaml"]).exits(1);
    bench.write("fixed", "");
    let script = "exec 2>&1
        mount --bind .ferry .ferry && mount -o remount,bind,ro .ferry || exit 99
        \"$0\" run p.yaml; echo run-ended $?
        \"$0\" resume last; echo resume-ended $?
        \"$0\" show last; echo show-ended $?";
    let Some(ran) = in_namespace(&bench, script) else { return };
    let text = &ran.stdout;
    for ended in [part(text, "namespace-begins", "run-ended"), part(text, "run-ended", "resume-ended")] {
        assert!(ended.contains("cannot write to the journal"), "{text}");
    }
    assert!(!text.contains("run-ended 0") && !text.contains("resume-ended 0") && !text.contains("panicked"), "{text}");
    assert!(text.contains("show-ended 0"), "{text}");
    assert_eq!(lines(&bench.path("effects")).len(), 1, "nothing was done that could not be written down");
    bench.run(&["resume", "last"]).exits(0);
    let runs = bench.run(&["runs", "--json"]).exits(0).json();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1), "the refused run left nothing");
}

#[test]
fn a_damaged_newer_or_foreign_journal_is_said_so_by_every_command_and_left_alone() {
    let not_a_database = |path: &Path| std::fs::write(path, "no database, whatever its name says ".repeat(50)).expect("room");
    let newer = |path: &Path| {
        let raw = rusqlite::Connection::open(path).expect("it is there");
        raw.execute_batch("PRAGMA user_version = 77").expect("it can be written");
    };
    let cut = |path: &Path| {
        let bytes = std::fs::read(path).expect("there");
        std::fs::write(path, &bytes[..bytes.len() / 2 / 4096 * 4096]).expect("room");
    };
    let cases: [Spoilt<'_>; 3] = [(&not_a_database, &["damaged", "ferry.db"]), (&newer, &["newer", "77"]), (&cut, &["damaged"])];
    for (spoil, words) in cases {
        let bench = Bench::new();
        bench.write("p.yaml", "steps:\n  - { id: a, uses: command, with: { run: 'echo x >> effects' } }\n");
        bench.run(&["run", "p.yaml"]).exits(0);
        let path = bench.path(".ferry/ferry.db");
        spoil(&path);
        let before = std::fs::read(&path).expect("there");
        for args in [&["run", "p.yaml"][..], &["runs"], &["show", "last"], &["resume", "last"], &["rollback", "last"]] {
            let ran = bench.run(args);
            assert!(!matches!(ran.code, Some(0) | None), "{args:?}: {ran:?}");
            assert!(words.iter().all(|word| ran.stderr.contains(word)), "{args:?} says {words:?}: {ran:?}");
            assert!(!ran.stderr.contains("panicked"), "{ran:?}");
            assert_eq!(std::fs::read(&path).expect("there"), before, "{args:?} wrote to it");
        }
        assert_eq!(lines(&bench.path("effects")).len(), 1, "no step ran");
    }
}

#[test]
fn ten_megabytes_and_an_alias_bomb_are_answered_at_once() {
    let bench = Bench::new();
    let step = "steps:\n  - { id: a, uses: command, with: { run: 'true' } }\n";
    bench.write("large.yaml", &format!("# {}\n{step}", "x".repeat(10_000_000 - step.len() - 3)));
    bench.write("larger.yaml", &format!("# {}\n{step}", "x".repeat(10_000_000)));
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, before) in ('b'..='z').zip('a'..) {
        let nine = vec![format!("*{before}"); 9].join(", ");
        bomb = format!("{bomb}{name}: &{name} [{nine}]\n");
    }
    bench.write("bomb.yaml", &format!("{bomb}{step}"));
    let start = Instant::now();
    bench.run(&["check", "large.yaml"]).exits(0);
    let ran = bench.run(&["check", "larger.yaml"]).exits(2);
    assert!(ran.stderr.contains("too-large"), "{}", &ran.stderr[..ran.stderr.len().min(2000)]);
    for args in [&["check", "bomb.yaml"][..], &["plan", "bomb.yaml"], &["run", "bomb.yaml"]] {
        let ran = bench.run(args).exits(2);
        assert!(ran.stderr.contains("alias-bomb"), "{}", &ran.stderr[..ran.stderr.len().min(2000)]);
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(!bench.path(".ferry").exists());
}

#[test]
fn a_for_each_over_nothing_succeeds_and_gives_nothing() {
    let bench = Bench::new();
    bench.write(
        "p.yaml",
        "steps:
  - { id: each, uses: command, for_each: [], with: { run: 'echo x >> effects', outputs: text } }
  - { id: after, uses: assert, needs: [each], with: { that: true } }
outputs: { all: '{{ steps.each.outputs }}' }
",
    );
    let ran = bench.run(&["run", "p.yaml", "--json"]).exits(0);
    let result: serde_json::Value = serde_json::from_str(ran.stdout.lines().last().expect("a result")).expect("JSON");
    assert_eq!(result["outputs"]["all"], serde_json::json!({}));
    assert!(!bench.path("effects").exists());
}

#[test]
fn a_for_each_over_ten_thousand_runs_each_once() {
    let bench = Bench::new();
    let items: Vec<String> = (0..10_000).map(|n| format!("i{n}")).collect();
    bench.write(
        "p.yaml",
        &format!(
            "max_parallel: 64\nsteps:\n  - id: each\n    uses: assert\n    for_each: [{}]\n    max_parallel: 64\n    \
             with: {{ that: '{{{{ not (eq each.value \"\") }}}}' }}\n",
            items.join(", ")
        ),
    );
    bench.run(&["run", "p.yaml"]).exits(0);
    let journal = ferry::journal::Journal::read(bench.path(".ferry")).expect("there is a journal");
    let run = journal.find_run("last").expect("there is a run");
    let records = journal.records(&run).expect("readable");
    let ended = records.iter().filter(|record| matches!(record.event, ferry::engine::Event::AttemptEnded { .. })).count();
    assert_eq!(ended, 10_000);
}
