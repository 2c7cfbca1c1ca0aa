//! The house style, checked: who may use whom, what the pure parts may not touch, and what every file owes its reader.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which folder may use which, and how `docs/architecture.md` says it.
const MAY_USE: &[(&[&str], &str, &[&str])] = &[
    (&["error", "units", "clock", "secret", "catalogue"], "each other", &["error", "units", "clock", "secret", "catalogue"]),
    (&["engine"], "`error`, `units`, `catalogue`", &["error", "units", "catalogue"]),
    (&["pipeline"], "`engine`, `error`, `units`, `catalogue`, `secret`", &["engine", "error", "units", "catalogue", "secret"]),
    (
        &["journal", "hosts", "stores"],
        "`engine` (its event types), `error`, `secret`, `clock`, `units`",
        &["engine", "error", "secret", "clock", "units"],
    ),
    (&["archive"], "`stores`, `error`, `secret`", &["stores", "error", "secret"]),
    (&["postgres"], "`hosts`, `error`, `secret`, `clock`, `units`", &["hosts", "error", "secret", "clock", "units"]),
    (
        &["steps"],
        "the rows above but `journal`, and `catalogue`",
        &["archive", "postgres", "hosts", "stores", "engine", "error", "secret", "clock", "units", "catalogue"],
    ),
    (
        &["executor"],
        "everything above",
        &[
            "steps",
            "archive",
            "postgres",
            "journal",
            "hosts",
            "stores",
            "pipeline",
            "engine",
            "error",
            "secret",
            "clock",
            "units",
            "catalogue",
        ],
    ),
    (&["report", "cli"], "everything", &["*"]),
];

/// What asks the world: a clock, a disk, a socket, another process, a thread, chance.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "std::time::Instant",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "tokio",
    "rand::",
    "Uuid::",
    "crate::clock",
];

/// Files that may be longer than 500 lines, each for a reason.
const LONG: &[(&str, &str)] =
    &[("tests/journal.rs", "one story told in order: write, cut, damage, lease, fence; the parts share their helpers")];

/// Words that the vocabulary has another word for.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("workflow", "pipeline"),
    ("playbook", "pipeline"),
    ("compensat", "undo"),
    ("point of no return", "pivot"),
    ("utils", "a name that says what it does"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a folder of the sources can be read").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).expect("a source is text")));
            }
        }
    }
    found.sort();
    found
}

/// The code of a file without its unit tests and without its comments.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    code.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line }).collect::<Vec<_>>().join("\n")
}

/// The part of the crate that a file belongs to: `engine` of `src/engine/run.rs`, `error` of `src/error.rs`.
fn part(name: &str) -> &str {
    let name = name.trim_start_matches("src/");
    name.split('/').next().unwrap_or(name).trim_end_matches(".rs")
}

/// Every part of the crate that a text names behind `crate::`, also within `crate::{a, b::c}`.
fn uses(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            None => vec![rest],
            Some(list) => {
                let mut depth = 1;
                let end = list.find(|c: char| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    depth == 0
                });
                list[..end.unwrap_or(0)].split(',').map(str::trim).collect()
            }
        };
        for name in names {
            let name: String = name.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if !name.is_empty() {
                found.insert(name);
            }
        }
    }
    found
}

#[test]
fn every_part_uses_only_what_the_table_allows() {
    let architecture = fs::read_to_string(root().join("docs/architecture.md")).expect("the page is there");
    for (parts, words, _) in MAY_USE {
        let names: Vec<String> = parts.iter().map(|part| format!("`{part}`")).collect();
        let row = architecture.lines().find(|line| line.starts_with(&format!("| {} |", names.join(" "))));
        let row = row.unwrap_or_else(|| panic!("docs/architecture.md has no row {names:?}"));
        assert!(row.trim_end().ends_with(&format!("| {words} |")), "docs/architecture.md and tests/tidy.rs differ: {row}");
    }
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, text) in sources("src", "rs") {
        let part = part(&name);
        if matches!(part, "lib" | "main") {
            continue;
        }
        let (_, _, allowed) = MAY_USE
            .iter()
            .find(|(parts, _, _)| parts.contains(&part))
            .unwrap_or_else(|| panic!("{name}: docs/architecture.md says nothing of `{part}`"));
        seen.insert(part.to_owned());
        for used in uses(&code(&text)) {
            if used != part && !allowed.contains(&"*") && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{name} uses `{used}`, but `{part}` may use {allowed:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen.len() >= 12, "the sources were not found: {seen:?}");
}

#[test]
fn the_pure_parts_touch_no_clock_disk_network_process_or_chance() {
    let mut wrong = Vec::new();
    for (name, text) in sources("src/engine", "rs").into_iter().chain(sources("src/pipeline", "rs")) {
        let code = code(&text);
        for (number, line) in code.lines().enumerate() {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{name}:{}: `{word}` in `{}`", number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let mut wrong = Vec::new();
    let files = ["src", "tests", "benches"].into_iter().flat_map(|folder| sources(folder, "rs"));
    for (name, text) in files {
        if !text.starts_with("//! ") {
            wrong.push(format!("{name} does not begin with a `//!` sentence"));
        }
        let head: String = text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join(" ");
        if name.starts_with("src/")
            && name.ends_with("/mod.rs")
            && name.matches('/').count() == 2
            && !head.to_lowercase().contains("never")
        {
            wrong.push(format!("{name} does not say what is never done there"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_500_lines_without_a_reason() {
    let files: Vec<_> = ["src", "tests", "benches"].into_iter().flat_map(|folder| sources(folder, "rs")).collect();
    let mut wrong = Vec::new();
    for (name, text) in &files {
        let length = text.lines().count();
        if length > 500 && !LONG.iter().any(|(long, _)| long == name) {
            wrong.push(format!("{name} has {length} lines: part it where its matters part"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (long, _) in LONG {
        assert!(files.iter().any(|(name, _)| name == long), "{long} is gone: take it from the list");
    }
}

#[test]
fn nothing_is_put_off_or_left_out() {
    // Written in two parts, so that this file does not name them.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[ig", "nore"),
    ];
    for (name, text) in ["src", "tests", "benches"].into_iter().flat_map(|folder| sources(folder, "rs")) {
        for word in words {
            assert!(!text.contains(word), "{name} holds `{word}`");
        }
    }
}

#[test]
fn words_are_those_of_the_vocabulary() {
    let mut wrong = Vec::new();
    let texts = sources("src", "rs").into_iter().chain(sources("docs", "md")).chain(sources("pipelines", "yaml"));
    // The vocabulary itself and the style say which words are not used.
    for (name, text) in texts.filter(|(name, _)| !matches!(name.as_str(), "docs/vocabulary.md" | "docs/style.md")) {
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            for (word, instead) in OTHER_WORDS.iter().filter(|(word, _)| lower.contains(word)) {
                wrong.push(format!("{name}:{}: `{word}`: the vocabulary says {instead}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_step_type_has_an_example_that_checks() {
    struct Disk;
    impl ferry::pipeline::Files for Disk {
        fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
            fs::read(root().join(path))
        }
    }
    let registry = ferry::steps::builtin();
    for info in registry.catalogue().iter() {
        let path = format!("pipelines/examples/{}.yaml", info.name);
        let text = fs::read_to_string(root().join(&path)).unwrap_or_else(|_| panic!("`{}` has no {path}", info.name));
        assert!(text.contains(&format!("uses: {}\n", info.name)), "{path} does not use `{}`", info.name);
        assert!(text.starts_with("# "), "{path} does not say what it shows");
    }
    for (path, _) in sources("pipelines", "yaml") {
        match ferry::pipeline::load(Path::new(&path), &Disk, registry.catalogue()) {
            Ok(loaded) => assert!(loaded.warnings.to_json() == serde_json::json!([]), "{path}: {}", loaded.warnings.to_json()),
            Err(problems) => panic!("{path}: {:#}", problems.to_json()),
        }
    }
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let page = fs::read_to_string(root().join("docs/dependencies.md")).expect("the page");
    let mut section = "";
    let mut wanted = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]")
            && let Some((name, _)) = line.split_once(" = ")
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        {
            wanted.insert(name.to_owned());
        }
    }
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let told: BTreeSet<String> = rows.map(|(name, _)| name.to_owned()).collect();
    assert!(wanted.len() > 30, "the manifest was not read: {wanted:?}");
    assert_eq!(told, wanted, "docs/dependencies.md (left) and Cargo.toml (right) differ");
}

#[test]
fn every_word_of_the_design_is_in_the_vocabulary() {
    let page = fs::read_to_string(root().join("docs/vocabulary.md")).expect("the page");
    for word in [
        "pipeline",
        "step",
        "step type",
        "run",
        "attempt",
        "journal",
        "checkpoint",
        "outputs",
        "before",
        "interrupted",
        "undo",
        "rollback",
        "pivot",
        "host",
        "store",
        "plugin",
    ] {
        assert!(page.contains(&format!("| {word} |")), "docs/vocabulary.md does not say what `{word}` is");
    }
}

#[test]
fn what_the_manual_quotes_is_what_the_sources_say() {
    let page = fs::read_to_string(root().join("docs/writing-a-step-type.md")).expect("the page");
    let sources: String = ["src/steps/assert.rs", "tests/conformance/cases.rs"]
        .map(|name| fs::read_to_string(root().join(name)).expect("a source"))
        .join("\n");
    let quoted: Vec<&str> = page.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(quoted.len() > 3);
    for quote in quoted {
        assert!(sources.contains(quote), "docs/writing-a-step-type.md quotes what is not there:\n{quote}");
    }
}
