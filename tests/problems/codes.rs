//! One snapshot per code, from the same examples that its page in `docs/errors/` shows.

use std::path::Path;

use ferry::pipeline::{Code, Loaded, Problems};

use crate::{check, check_as, check_with, right};

/// The example of a code, with what cannot be written in a page put in.
fn of(code: Code) -> Result<Loaded, Problems> {
    let text = code.about().wrong;
    match code {
        Code::NotText => {
            let (before, after) = text.split_once("\\xe9").expect("the example holds the byte");
            check([before.as_bytes(), b"\xE9", after.as_bytes()].concat())
        }
        Code::TooLarge => check(text.replace('…', &"x".repeat(6_000_000))),
        Code::ModuleDepth => {
            let names: Vec<String> = (2..=17).map(|n| format!("a{n}.yaml")).collect();
            let texts: Vec<String> = (3..=18).map(|n| text.replace("a2.yaml", &format!("a{n}.yaml"))).collect();
            let files: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
            check_with(text, &files)
        }
        Code::TooManySteps => {
            let ten = |inner: &str| (0..10).map(|n| format!("  - {{ id: s{n}, uses: {inner} }}\n")).collect::<String>();
            let texts: Vec<(String, String)> = (1..=6)
                .map(|n| {
                    let inner = if n == 1 { "postgres.compare".to_owned() } else { format!("./ten{}.yaml", n - 1) };
                    (format!("ten{n}.yaml"), format!("steps:\n{}", ten(&inner)))
                })
                .collect();
            let files: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            check_with(text, &files)
        }
        // It is the type that says which of its keys others can read.
        Code::PublicSecret => check_as(ferry::steps::builtin().catalogue(), text),
        _ => check(text),
    }
}

#[test]
fn every_wrong_example_has_its_problem_and_every_right_one_has_none() {
    for code in Code::ALL.iter().copied() {
        let found = match of(code) {
            Ok(loaded) => loaded.warnings,
            Err(problems) => problems,
        };
        assert!(found.iter().any(|problem| problem.code == code), "{code}:\n{}", found.render(false));
        let warnings = right(code.about().right).warnings;
        assert!(warnings.is_empty(), "{code}:\n{}", warnings.render(false));
    }
}

#[test]
fn every_code_reads_well() {
    for code in Code::ALL.iter().copied() {
        let found = match of(code) {
            Ok(loaded) => loaded.warnings,
            Err(problems) => problems,
        };
        insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(format!("code_{code}"), found.render(false));
        });
    }
}

#[test]
fn every_code_has_its_page() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors");
    let index: String = Code::ALL.iter().map(|code| format!("| [`{code}`]({code}.md) | {} |\n", code.title())).collect();
    let index = format!(
        "# Problems of a pipeline\n\nGenerated from `src/pipeline/code/`; `UPDATE_DOCS=1 cargo nextest run --test problems` \
         writes it anew.\n\n| code | what is wrong |\n| --- | --- |\n{index}"
    );
    let mut pages: Vec<(String, String)> = Code::ALL.iter().map(|code| (format!("{code}.md"), code.page())).collect();
    pages.push(("README.md".to_owned(), index));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        for (name, text) in &pages {
            std::fs::write(folder.join(name), text).expect("the page can be written");
        }
    }
    for (name, text) in &pages {
        let written = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert_eq!(&written, text, "docs/errors/{name} is old: run the test with UPDATE_DOCS=1");
    }
    let count = std::fs::read_dir(&folder).expect("the folder is there").count();
    assert_eq!(count, pages.len(), "docs/errors/ holds a page of a code that is gone");
}
