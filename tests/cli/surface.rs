//! What the command line looks like from outside: help, manual, completions, wrong command lines.

use std::time::{Duration, Instant};

use clap::CommandFactory as _;

use super::bench::Bench;

#[test]
fn the_manual_says_what_the_command_tree_says() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let manual = ferry::cli::manual();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &manual).expect("the manual can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == manual, "docs/cli.md is not what the command tree says: run `make docs`");
}

#[test]
fn every_command_has_examples_and_says_its_json() {
    for command in ferry::cli::Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "`{name}` says what it does");
        let after = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.contains("Example"), "`{name} --help` shows an example");
        assert!(after.contains("JSON") || name == "completions", "`{name} --help` says its JSON");
    }
}

#[test]
fn help_and_version_go_to_stdout_and_succeed() {
    let bench = Bench::new();
    for args in [&["--help"][..], &["-h"], &["--version"], &["steps", "--help"]] {
        let ran = bench.run(args).exits(0);
        assert!(!ran.stdout.is_empty() && ran.stderr.is_empty(), "{args:?}: {ran:?}");
    }
    insta::assert_snapshot!("help", bench.run(&["--help"]).stdout);
}

#[test]
fn every_command_has_its_help() {
    let bench = Bench::new();
    for command in ferry::cli::Cli::command().get_subcommands() {
        let name = command.get_name();
        let help = bench.run(&[name, "--help"]).exits(0).stdout;
        insta::assert_snapshot!(format!("help_{name}"), help);
    }
}

#[test]
fn a_wrong_command_line_exits_2_and_says_what_was_meant() {
    let bench = Bench::new();
    let ran = bench.run(&["stpes"]).exits(2);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("steps"), "{ran:?}");
    let ran = bench.run(&["stpes", "--json"]).exits(2);
    assert_eq!(ran.json()["error"]["exit"], 2);
    assert!(ran.stderr.is_empty(), "{ran:?}");
    let missing = bench.run(&["--json", "run"]).exits(2).json();
    assert_eq!(missing["error"]["message"], "the following required arguments were not provided: <FILE>");
    let ran = bench.run(&["-C", "no-such-folder", "steps"]).exits(2);
    assert!(ran.stderr.contains("no-such-folder"), "{ran:?}");
}

#[test]
fn completions_are_printed_for_each_shell() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(bench.run(&["completions", shell]).exits(0).stdout.contains("ferry"));
    }
}

#[test]
fn init_writes_once_and_never_over_a_file() {
    let bench = Bench::new();
    bench.run(&["init", "moves/first.yaml"]).exits(0);
    let written = std::fs::read_to_string(bench.path("moves/first.yaml")).expect("it was written");
    assert!(written.starts_with("# yaml-language-server: $schema="));
    let ran = bench.run(&["init", "moves/first.yaml"]).exits(2);
    assert!(ran.stderr.contains("exists already"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(bench.path("moves/first.yaml")).expect("it is still there"), written);
}

#[test]
fn an_unknown_step_type_is_a_wrong_command_line() {
    let ran = Bench::new().run(&["steps", "objekt.sync"]).exits(2);
    assert!(ran.stderr.contains("`objekt.sync`") && ran.stderr.contains("help:"), "{ran:?}");
}

/// Start-up is what a shell prompt, a completion and every script pay. The aim is 10 ms; the bound leaves room for a
/// loaded machine and a build without optimisation, and still notices a registry or a runtime that is built too early.
#[test]
fn version_starts_fast() {
    let bench = Bench::new();
    let best = (0..10)
        .map(|_| {
            let start = Instant::now();
            bench.run(&["--version"]).exits(0);
            start.elapsed()
        })
        .min()
        .expect("ten runs");
    assert!(best < Duration::from_millis(60), "`ferry --version` took {best:?}");
}

#[test]
fn the_schema_takes_what_init_writes() {
    let bench = Bench::new();
    bench.run(&["init"]).exits(0);
    bench.run(&["schema", "--output", "ferry.schema.json"]).exits(0);
    let printed = bench.run(&["schema", "--json"]).exits(0).json();
    let kept = std::fs::read_to_string(bench.path("ferry.schema.json")).expect("it was written");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&kept).expect("it is JSON"), printed);
    let text = std::fs::read_to_string(bench.path("pipeline.yaml")).expect("it was written");
    let pipeline: serde_json::Value = serde_yaml::from_str(&text).expect("it is YAML");
    let schema = jsonschema::validator_for(&printed).expect("it is a schema");
    let errors: Vec<String> = schema.iter_errors(&pipeline).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn doctor_says_what_is_missing_and_changes_nothing() {
    let bench = Bench::new();
    let fine = bench.run(&["doctor", "--json"]).exits(0).json();
    assert_eq!(fine["ok"], true);
    bench.write(
        "needs.yaml",
        "secrets: { key: { env: FERRY_TEST_NO_SUCH_VARIABLE } }\nhosts: { far: { ssh: far.example } }\n\
         steps:\n  - id: a\n    uses: command\n    with: { run: 'true', env: { KEY: '{{ secrets.key }}' } }\n",
    );
    let ran = bench.run(&["doctor", "needs.yaml"]).exits(2);
    assert!(ran.stdout.contains("FERRY_TEST_NO_SUCH_VARIABLE") && ran.stdout.contains("far.example"), "{ran:?}");
    assert!(!bench.path(".ferry").exists());
}

#[test]
fn an_unknown_status_is_a_wrong_command_line() {
    let bench = Bench::new();
    bench.write("ok.yaml", "steps:\n  - { id: a, uses: command, with: { run: 'true' } }\n");
    bench.run(&["run", "ok.yaml"]).exits(0);
    let ran = bench.run(&["--json", "runs", "--status", "bla"]).exits(2);
    let error = &ran.json()["error"];
    assert_eq!(error["message"], "`bla` is not a status of a run");
    assert!(error["help"].as_str().is_some_and(|help| help.contains("`rolled_back`") && help.contains("`succeeded`")), "{error}");
    for (status, count) in [("succeeded", 1), ("rolled-back", 0), ("rollback_failed", 0)] {
        let runs = bench.run(&["--json", "runs", "--status", status]).exits(0).json();
        assert_eq!(runs["runs"].as_array().map(Vec::len), Some(count), "{status}");
    }
}

#[test]
fn what_is_no_file_is_told_by_its_name() {
    let bench = Bench::new();
    let ran = bench.run(&["check", "."]).exits(2);
    assert!(ran.stderr.contains("`.` is a folder, not a pipeline file") && !ran.stderr.contains("1:1"), "{ran:?}");
    for command in ["check", "plan", "run"] {
        let ran = bench.run(&[command, "gone.yaml"]).exits(2);
        assert!(ran.stderr.contains("cannot read `gone.yaml`: there is no such file"), "{ran:?}");
        assert!(ran.stderr.contains("start at the current folder") && !ran.stderr.contains("1:1"), "{ran:?}");
    }
}
