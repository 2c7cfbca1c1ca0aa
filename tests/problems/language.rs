//! The schema and the reference say what the reader does.

use std::path::Path;

use ferry::catalogue::Catalogue;
use ferry::pipeline::{reference, schema};
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::catalogue::catalogue;
use crate::{check_as, codes_of, right};

fn validator(catalogue: &Catalogue) -> Validator {
    jsonschema::options().should_validate_formats(true).build(&schema(catalogue)).expect("it is a JSON Schema")
}

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).expect("the test's own text is YAML")
}

#[test]
fn the_schema_takes_what_check_takes() {
    let validator = validator(&catalogue());
    let orders = include_str!("orders.yaml");
    let short = "
hosts: { a: local }
defaults: { timeout: 2h }
steps:
  - { id: m, uses: ./m/x.yaml, with: { anything: 1 } }
  - { id: a, uses: object.sync, with: { from: 'x:', to: '{{ y }}', delete: '{{ z }}', concurrency: '{{ n }}', bandwidth: 5MB/s, include: '{{ l }}' } }
  - { id: b, uses: probe.postgres, background: true, undo: { uses: command, with: { run: [x] } }, with: { route: x, every: 5ms } }
";
    for text in [orders, short] {
        let errors: Vec<String> =
            validator.iter_errors(&yaml(text)).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }
    right(orders);
}

#[test]
fn the_schema_refuses_what_check_refuses() {
    let validator = validator(&catalogue());
    for text in [
        "steps: []",
        "steps: [{ id: a, uses: comand }]",
        "steps: [{ id: a, uses: command }]",
        "steps: [{ id: a, uses: command, with: { rum: x } }]",
        "steps: [{ id: 'a/b', uses: command, with: { run: x } }]",
        "steps: [{ id: a, uses: command, wiht: {}, with: { run: x } }]",
        "steps: [{ id: a, uses: command, retry: { attempts: 0 }, with: { run: x } }]",
        "{ steps: [{ id: a, uses: command, with: { run: x } }], secrets: { s: { env: A, file: b } } }",
        "{ steps: [{ id: a, uses: command, with: { run: x } }], hosts: { h: db-1 } }",
        "{ steps: [{ id: a, uses: object.sync, with: { from: 'a:', to: 'b:', compare: sise } }], stores: { a: { scheme: fs }, b: { scheme: fs } } }",
    ] {
        assert!(!validator.is_valid(&yaml(text)), "the schema takes {text}");
        assert!(!codes_of(text).is_empty(), "check takes {text}");
    }
}

#[test]
fn the_schema_of_the_built_in_types_is_a_schema() {
    let registry = ferry::steps::builtin();
    let schema = schema(registry.catalogue());
    assert_eq!(schema["title"], json!("ferry pipeline"));
    let _ = validator(registry.catalogue());
    // Every reference leads somewhere.
    let text = schema.to_string();
    for target in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(schema.pointer(target).is_some(), "{target}");
    }
}

#[test]
fn the_reference_is_what_the_definitions_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/language.md");
    let text = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "docs/language.md is old: run the test with UPDATE_DOCS=1");
}

/// What the examples of the built-in types mention.
const AROUND: &str = "
inputs: { database: {} }
secrets: { db: { env: DB }, status: { env: STATUS }, ferry: { env: FERRY } }
stores: { old: { scheme: memory }, new: { scheme: memory }, between: { scheme: memory } }
hosts: { old-db: { ssh: old }, new-db: { ssh: new }, source: { ssh: old }, target: { ssh: new }, gate: { ssh: gate } }
steps:
  - { id: replica, uses: postgres.replica, with: { from: source, to: target } }
  - { id: copy, uses: object.sync, with: { from: 'old:', to: 'new:' } }
  - { id: cutover, uses: wait, with: { for: 1s } }
  - { id: base, uses: postgres.base_backup, with: { from: source, to: 'between:orders/' } }
  - { id: count, uses: command, with: { run: wc -l, outputs: json } }
";

#[test]
fn the_example_of_every_built_in_type_is_right() {
    let registry = ferry::steps::builtin();
    let validator = validator(registry.catalogue());
    for info in registry.catalogue().iter() {
        let step: String = info
            .example
            .trim_matches('\n')
            .lines()
            .enumerate()
            // Its id may be one of those around it.
            .map(|(at, line)| if at == 0 { "  - id: example\n".to_owned() } else { format!("    {line}\n") })
            .collect();
        let text = format!("{AROUND}{step}");
        let found = check_as(registry.catalogue(), &text);
        assert!(found.is_ok(), "{}", found.err().map(|problems| problems.render(false)).unwrap_or_default());
        let errors: Vec<String> =
            validator.iter_errors(&yaml(&text)).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", info.name);
    }
}
