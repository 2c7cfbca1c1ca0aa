//! What a right pipeline means: its definition, the steps found by path, its inputs.

use std::path::Path;

use ferry::catalogue::Background;
use ferry::engine::{Body, StepPath, UndoDef};
use ferry::pipeline::{Sources, load};
use serde_json::{Value, json};

use crate::catalogue::catalogue;
use crate::{Memory, check, check_as, check_with, right, wrong};

#[test]
fn the_example_of_the_design_is_right() {
    let loaded = right(include_str!("orders.yaml"));
    assert_eq!(loaded.warnings.render(false), "");
    insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false }, {
        insta::assert_yaml_snapshot!("orders_definition", loaded.pipeline.definition());
    });
}

#[test]
fn edges_come_from_needs_and_from_every_template() {
    let loaded = right(
        "
steps:
  - { id: a, uses: command, with: { run: x } }
  - { id: b, uses: command, with: { run: x } }
  - { id: c, uses: command, with: { run: x } }
  - { id: d, uses: command, with: { run: x } }
  - { id: e, uses: command, with: { run: x } }
  - id: z
    needs: [a]
    if: '{{ steps.b.outputs.x }}'
    lock: 'l-{{ steps.c.outputs.x }}'
    uses: command
    with: { run: ['{{ default steps.d.outputs.x 1 }}', '{{ steps.a.outputs.x }}'] }
    undo: { uses: command, with: { run: '{{ steps.e.outputs.x }} {{ steps.z.outputs.x }}' } }
",
    );
    let definition = loaded.pipeline.definition();
    let step = definition.steps.last().expect("six steps");
    let mut needs = step.needs.clone();
    needs.sort();
    assert_eq!(needs, ["a", "b", "c", "d", "e"]);
    assert!(step.resolve);
    assert_eq!(step.undo, UndoDef::Custom);
}

#[test]
fn background_true_ends_with_the_last_step_behind_it() {
    let loaded = right(
        "
steps:
  - { id: probe, uses: probe.postgres, background: true, with: { route: x } }
  - { id: a, uses: command, needs: [probe], with: { run: x } }
  - { id: b, uses: command, needs: [a], with: { run: x } }
",
    );
    let background = loaded.pipeline.definition().steps[0].background.clone().expect("it runs in the background");
    assert_eq!((background.until.as_str(), background.ready), ("b", Background::ReadyWhenSaid));
}

#[test]
fn a_lock_is_waited_for_as_long_as_the_step_says_and_an_hour_else() {
    let loaded = right(
        "
inputs: { zone: {} }
steps:
  - { id: a, uses: command, lock: 'dns-{{ inputs.zone }}', with: { run: x } }
  - { id: b, uses: command, lock: { name: 'dns-{{ inputs.zone }}', wait: 30m }, with: { run: x } }
  - { id: c, uses: command, with: { run: x } }
",
    );
    let waits: Vec<_> = loaded.pipeline.definition().steps.iter().map(|step| step.lock_wait.map(|wait| wait.as_secs())).collect();
    assert_eq!(waits, [Some(3600), Some(1800), None]);
    assert_eq!(loaded.pipeline.steps[0].lock, loaded.pipeline.steps[1].lock);
    let told = wrong("steps: [{ id: a, uses: command, lock: { wiat: 5, wait: 5 }, with: { run: x } }]");
    for problem in ["`lock` has no key `wiat`", "`lock` has no `name`", "write the unit: `5s`"] {
        assert!(told.contains(problem), "`{problem}` is missing: {told}");
    }
}

#[test]
fn what_a_step_says_goes_over_the_defaults_key_by_key() {
    let loaded = right(
        "
defaults: { retry: { attempts: 7, jitter: false }, timeout: 2h, finally_timeout: 5m }
steps:
  - { id: a, uses: command, retry: { attempts: 2 }, timeout: { idle: 1m }, with: { run: x } }
",
    );
    let definition = loaded.pipeline.definition();
    let step = &definition.steps[0];
    assert_eq!((step.retry.attempts, step.retry.jitter, step.retry.max.as_secs()), (2, false, 60));
    assert_eq!((step.timeout.attempt.map(|t| t.as_secs()), step.timeout.idle.map(|t| t.as_secs())), (Some(7200), Some(60)));
    assert_eq!(definition.finally_budget.as_secs(), 300);
}

#[test]
fn a_pipeline_used_as_a_step_is_found_by_path_and_defined_inside() {
    let text = "steps:\n  - { id: r, for_each: [eu, us], uses: ./modules/replica.yaml, with: { from: '{{ each.value }}' } }\n\
                \x20 - { id: s, uses: command, with: { run: '{{ steps.r.outputs.eu.lag }}' } }\n";
    let pipeline = right(text).pipeline;
    let definition = pipeline.definition();
    assert!(matches!(&definition.steps[0].body, Body::Pipeline(inner) if inner.steps[0].id == "base"));
    assert!(definition.steps[0].resolve);
    let found = pipeline.find(&StepPath::from("r[eu]/base")).expect("the step is there");
    assert_eq!((found.step.uses.as_str(), found.pipeline.name.as_str(), found.chain.len()), ("command", "replica", 2));
    assert!(pipeline.find(&StepPath::from("r[eu]")).is_some());
    assert!(pipeline.find(&StepPath::from("s/base")).is_none());
    assert!(pipeline.find(&StepPath::from("nope")).is_none());
}

#[test]
fn the_sources_in_a_journal_are_enough_to_load_again() {
    let loaded = right("steps:\n  - { id: r, uses: ./modules/replica.yaml, with: { from: x } }\n");
    let kept = serde_json::to_string(&loaded.sources).expect("sources are JSON");
    let sources: Sources = serde_json::from_str(&kept).expect("and back");
    assert_eq!(sources.iter().map(|(path, _)| path).collect::<Vec<_>>(), ["modules/replica.yaml", "pipeline.yaml"]);
    let again = load(Path::new("./pipeline.yaml"), &sources, &catalogue()).expect("the same text is right again");
    assert_eq!(again.pipeline.definition(), loaded.pipeline.definition());
}

#[test]
fn inputs_are_read_as_their_types_and_defaults_filled_in() {
    let pipeline = right(
        "
inputs:
  a: {}
  n: { type: integer, enum: [1, 2], default: 1 }
  size: { type: bytes, default: 1MiB }
steps:
  - { id: a, uses: command, with: { run: '{{ inputs.a }}{{ inputs.n }}{{ inputs.size }}' } }
",
    )
    .pipeline;
    let given = |value: Value| value.as_object().cloned().expect("an object");
    let read = pipeline.inputs(&given(json!({ "a": "x", "n": "2" }))).expect("right inputs");
    assert_eq!(Value::Object(read), json!({ "a": "x", "n": 2, "size": "1MiB" }));
    let problems = pipeline.inputs(&given(json!({ "n": 3, "sise": "1", "size": "1 parsec" }))).expect_err("four mistakes");
    insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("inputs_that_are_wrong", problems.render(false));
    });
}

#[test]
fn a_module_says_what_has_no_effect_in_it() {
    let module =
        "finally:\n  - { id: f, uses: command, with: { run: x } }\nsteps:\n  - { id: a, uses: command, with: { run: x } }\n";
    let loaded = check_with("steps:\n  - { id: m, uses: ./m.yaml }\n", &[("m.yaml", module)]).expect("right");
    let told: Vec<String> = loaded.warnings.iter().map(|warning| warning.message.clone()).collect();
    assert_eq!(told, ["`finally` has no effect when the pipeline is used as a step"]);
}

#[test]
fn a_forged_mark_of_a_secret_is_taken_away() {
    let forged = format!("steps:\n  - {{ id: a, uses: command, with: {{ run: 'x{}' }} }}\n", ferry::secret::mark("repl"));
    let loaded = check(forged).expect("right");
    assert!(!ferry::secret::is_marked(&loaded.pipeline.steps[0].with["run"].to_string()));
}

#[test]
fn an_approval_has_no_timeout_but_at_most() {
    for step in [
        "{ id: go, uses: approval, timeout: 1h, with: { message: x } }",
        "{ id: go, uses: approval, for_each: [a, b], timeout: { attempt: 1h }, with: { message: x } }",
    ] {
        let told = wrong(format!("steps:\n  - {step}\n"));
        assert!(told.contains("`timeout` limits attempts") && told.contains("with: { at_most: … }"), "{told}");
    }
    // What holds for every step is not said of this one.
    let loaded = right("defaults: { timeout: 1h }\nsteps:\n  - { id: go, uses: approval, with: { message: x, at_most: 1h } }\n");
    assert!(loaded.warnings.is_empty());
}

#[test]
fn an_approval_is_not_tried_again_and_check_says_so() {
    let told =
        right("steps:\n  - { id: go, uses: approval, retry: { attempts: 3 }, with: { message: x } }\n").warnings.render(false);
    assert!(told.contains("no-effect") && told.contains("`retry` has no effect"), "{told}");
    let loaded = right("steps:\n  - { id: go, uses: approval, retry: { exhausted: rollback }, with: { message: x } }\n");
    assert!(loaded.warnings.is_empty());
}

#[test]
fn a_secret_in_the_arguments_of_a_command_is_found_by_check() {
    let of = |with: &str| format!("secrets: {{ s: {{ env: S }} }}\nsteps:\n  - {{ id: a, uses: command, with: {{ {with} }} }}\n");
    let builtin = ferry::steps::builtin();
    let told = |text: &str| check_as(builtin.catalogue(), text).map(drop).map_err(|problems| problems.render(false));
    for with in [
        "run: 'x {{ secrets.s }}'",
        "run: [x, '-p{{ secrets.s }}']",
        "run: x, check: 'y {{ upper secrets.s }}'",
        "run: x, undo: [y, '{{ secrets.s }}']",
    ] {
        assert!(told(&of(with)).expect_err(with).contains("public-secret"), "{with}");
    }
    let text = told(&of("run: [x, '-p{{ secrets.s }}']")).expect_err("a secret");
    assert!(text.contains("pipeline.yaml:3:52") && text.contains("pass the secret with `env:`"), "{text}");
    assert_eq!(told(&of("run: 'x $S', env: { S: '{{ secrets.s }}' }, stdin: '{{ secrets.s }}'")), Ok(()));
    assert!(
        told("secrets: { s: { env: S } }\nsteps:\n  - { id: a, uses: command, with: { run: x }, undo: { uses: command, with: { run: '{{ secrets.s }}' } } }\n")
            .is_err_and(|text| text.contains("public-secret"))
    );
}

#[test]
fn a_secret_in_a_key_that_takes_none_is_found_by_check() {
    let of = |uses: &str, with: &str| {
        format!(
            "secrets: {{ s: {{ env: S }} }}\nstores: {{ a: {{ scheme: memory }} }}\nsteps:\n  - {{ id: x, uses: {uses}, with: {{ {with} }} }}\n"
        )
    };
    let builtin = ferry::steps::builtin();
    let told = |text: &str| check_as(builtin.catalogue(), text).map(drop).map_err(|problems| problems.render(false));
    for (uses, with, key) in [
        ("file.write", "path: './{{ secrets.s }}', content: x", "path"),
        ("file.write", "path: x, content: x, owner: '{{ lower secrets.s }}'", "owner"),
        ("wait", "tcp: '{{ secrets.s }}:5432'", "tcp"),
        ("object.list", "from: 'a:{{ secrets.s }}/'", "from"),
        ("object.sync", "from: 'a:x/', to: 'a:y/', exclude: ['{{ secrets.s }}']", "exclude.0"),
        ("http.request", "url: 'http://x/', undo: { url: 'http://x/', method: '{{ secrets.s }}' }", "undo.method"),
    ] {
        let text = told(&of(uses, with)).expect_err(with);
        assert!(text.contains("public-secret") && text.contains(&format!("`secrets.s` stands in `{key}` of `{uses}`")), "{text}");
    }
    for (uses, with) in [
        ("file.write", "path: x, content: 'a {{ secrets.s }}'"),
        ("wait", "url: 'http://x/{{ secrets.s }}'"),
        ("http.request", "url: 'http://x/', json: { a: [{ b: '{{ secrets.s }}' }] }, expect: { json: { c: '{{ secrets.s }}' } }"),
        ("http.request", "url: 'http://x/', headers: { A: '{{ secrets.s }}' }, undo: { url: '{{ secrets.s }}' }"),
        ("assert", "that: true, message: '{{ secrets.s }}'"),
    ] {
        assert_eq!(told(&of(uses, with)), Ok(()), "{with}");
    }
}

#[test]
fn a_variable_that_is_a_secret_is_not_listed_under_env() {
    let text = "env: [HOME, TOKEN]\nsecrets: { t: { env: TOKEN } }\nsteps: [{ id: a, uses: assert, with: { that: true, message: '{{ secrets.t }}' } }]\n";
    let builtin = ferry::steps::builtin();
    let told = check_as(builtin.catalogue(), text).expect_err("an open secret").render(false);
    assert!(
        told.contains("public-secret") && told.contains("pipeline.yaml:1:13") && told.contains("write `secrets.t`"),
        "{told}"
    );
    assert!(check_as(builtin.catalogue(), &text.replace(", TOKEN]", "]")).is_ok());
}

#[test]
fn a_file_that_cannot_be_read_is_told_without_a_place() {
    let told = load(Path::new("gone.yaml"), &Memory::default(), &catalogue()).expect_err("there is none").render(false);
    assert!(told.contains("cannot read `gone.yaml`") && told.contains("the command line") && !told.contains("1:1"), "{told}");
}
