//! The questions that every step type has to answer, put to every step type that there is.

mod archived;
mod cases;
mod over_ssh;
#[path = "../parts/mod.rs"]
mod parts;
mod watched;
mod world;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use ferry::catalogue::{Kind, TypeInfo, Undo};
use ferry::error::StepError;
use ferry::steps::{DynStep, StepContext, builtin};
use serde_json::{Value, json};

use cases::{Case, End, cases};
use world::{CANARY, Moment, Snapshot, World};

/// The questions that are put on this machine, and once more on a machine by SSH to the types that act on hosts.
macro_rules! on_both {
    ($($question:ident),* $(,)?) => {
        mod here {
            //! On this machine.
            $(#[tokio::test] async fn $question() { super::$question().await; })*
        }
        mod by_ssh {
            //! Over SSH.
            $(#[tokio::test] async fn $question() { crate::over_ssh::ask(super::$question()).await; })*
        }
    };
}
on_both!(
    inspect_and_preview_change_nothing,
    running_twice_is_running_once,
    undoing_puts_everything_back_and_twice_is_once,
    stopped_at_any_call_it_can_be_undone_and_undo_can_be_stopped_too,
    stopped_at_any_call_it_is_finished_by_the_next_attempt,
    a_cancel_ends_it_in_time,
    no_secret_is_in_outputs_errors_or_logs,
    a_failure_says_what_to_do,
);

/// More outside calls than any case makes.
const MOST_CALLS: usize = 200;

fn info(uses: &str) -> std::sync::Arc<TypeInfo> {
    builtin().catalogue().get(uses).expect("a type of the list").clone()
}

fn make(case: &Case, world: &World) -> Box<dyn DynStep> {
    (case.prepare)(world);
    builtin().make(case.uses, &(case.with)(world)).expect("the configuration of the case is right")
}

fn undo_of(case: &Case, world: &World) -> Undo {
    (info(case.uses).traits.0)(&(case.with)(world)).undo
}

/// What the journal gives back of what `inspect` saw.
async fn inspect(step: &dyn DynStep, ctx: &StepContext) -> Result<Value, StepError> {
    Ok(ctx.vault.conceal(&step.inspect(ctx).await?))
}

fn cases_that_end(end: End) -> impl Iterator<Item = Case> {
    cases().into_iter().filter(move |case| case.end == end && info(case.uses).kind == Kind::Task)
}

#[test]
fn every_type_has_a_case() {
    let types: BTreeSet<String> = builtin().catalogue().iter().map(|info| info.name.clone()).collect();
    let covered: BTreeSet<String> = cases().into_iter().map(|case| case.uses.to_owned()).collect();
    assert_eq!(types, covered);
}

#[test]
fn every_key_and_output_is_documented() {
    for info in builtin().catalogue().iter() {
        assert!(info.manual.len() > 80, "{} has no manual", info.name);
        assert!(!info.summary.is_empty() && info.summary.ends_with('.'), "{}: {}", info.name, info.summary);
        let mut bare = Vec::new();
        undocumented(&info.config, "with", &mut bare);
        undocumented(&info.outputs, "outputs", &mut bare);
        assert!(bare.is_empty(), "{} does not document {bare:?}", info.name);
        assert!(info.config.get("properties").is_some(), "{} has no keys", info.name);
    }
}

/// Every property of a schema that says nothing, by itself or where it points.
fn undocumented(schema: &Value, place: &str, bare: &mut Vec<String>) {
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let place = format!("{place}.{name}");
        if property.get("description").and_then(Value::as_str).is_none_or(str::is_empty) {
            bare.push(place.clone());
        }
    }
    for (name, inner) in schema.get("$defs").and_then(Value::as_object).into_iter().flatten() {
        undocumented(inner, &format!("{place}:{name}"), bare);
    }
}

#[test]
fn unknown_keys_are_refused_at_every_level() {
    for info in builtin().catalogue().iter() {
        let schemas = std::iter::once(&info.config)
            .chain(info.config.get("$defs").and_then(Value::as_object).into_iter().flatten().map(|(_, inner)| inner));
        for schema in schemas.filter(|schema| schema.get("properties").is_some()) {
            assert_eq!(schema.get("additionalProperties"), Some(&json!(false)), "{}: {schema}", info.name);
        }
    }
}

#[tokio::test]
async fn unknown_keys_are_refused_when_read() {
    let world = World::new().await;
    for case in cases() {
        let mut with = (case.with)(&world);
        with["no_such_key"] = json!(1);
        let error = builtin().make(case.uses, &with).err().unwrap_or_else(|| panic!("{} takes any key", case.name));
        assert!(error.message.contains("no_such_key") && error.help.is_some(), "{}", error.message);
    }
}

#[test]
fn every_example_is_right() {
    for info in builtin().catalogue().iter() {
        let example: Value = serde_yaml::from_str(&info.example).unwrap_or_else(|error| panic!("{}: {error}", info.name));
        assert_eq!(example["uses"], json!(info.name));
        assert!(example["id"].is_string());
        // What stands for the outputs of another step is checked where the other step is there too.
        if info.example.contains("\"{{ steps.") {
            continue;
        }
        if let Err(error) = builtin().make(&info.name, &example["with"]) {
            panic!("{}: {}", info.name, error.message);
        }
        let schema = jsonschema::validator_for(&info.config).expect("a schema");
        if let Err(error) = schema.validate(&example["with"]) {
            panic!("{}: {error}", info.name);
        }
    }
}

async fn inspect_and_preview_change_nothing() {
    for case in cases() {
        let world = World::new().await;
        let step = make(&case, &world);
        let before = world.snapshot();
        if let Ok(seen) = step.inspect(&world.context(0, false)).await {
            let preview = step.preview(&seen).expect("what inspect saw is read back");
            assert!(!preview.does.is_empty() && !preview.undo.is_empty(), "{}", case.name);
        }
        assert_eq!(world.snapshot(), before, "{}", case.name);
        let asked = world.requests();
        assert!(
            asked.iter().all(|request| request.starts_with("GET ") || request.starts_with("HEAD ")),
            "{}: {asked:?}",
            case.name
        );
    }
}

async fn running_twice_is_running_once() {
    for case in cases_that_end(End::Well) {
        let world = World::new().await;
        let step = make(&case, &world);
        let seen = inspect(&*step, &world.context(1, false)).await.expect(case.name);
        step.run(&world.context(1, false), &seen).await.expect(case.name);
        let (once, changes) = (world.snapshot(), world.changes());
        *world.notes.checkpoint.lock().expect("not poisoned") = None;
        step.run(&world.context(2, true), &seen).await.expect(case.name);
        assert_eq!(world.snapshot(), once, "{}", case.name);
        assert_eq!(world.changes(), changes, "{}", case.name);
    }
}

async fn undoing_puts_everything_back_and_twice_is_once() {
    for case in cases_that_end(End::Well) {
        let world = World::new().await;
        let step = make(&case, &world);
        if undo_of(&case, &world) == Undo::Impossible {
            continue;
        }
        let before = world.snapshot();
        let seen = inspect(&*step, &world.context(1, false)).await.expect(case.name);
        step.run(&world.context(1, false), &seen).await.expect(case.name);
        let after = world.snapshot();
        let expected = if undo_of(&case, &world) == Undo::Built { before } else { after };
        for _ in 0..2 {
            step.undo(&world.context(1, false), &seen).await.expect(case.name);
            assert_eq!(world.snapshot(), expected, "{}", case.name);
        }
    }
}

/// Runs a step until its n-th outside call; whether it came that far.
async fn run_until(step: &dyn DynStep, world: &World, seen: &Value, call: usize, moment: Moment) -> bool {
    world.border.stop_at(call, moment);
    let ctx = world.context(1, false);
    let was_stopped = tokio::select! {
        _ = step.run(&ctx, seen) => false,
        () = world.border.reached.notified() => true,
    };
    world.border.open();
    was_stopped
}

async fn stopped_at_any_call_it_can_be_undone_and_undo_can_be_stopped_too() {
    for case in cases_that_end(End::Well) {
        let mut stops = 0;
        'calls: for call in 1..MOST_CALLS {
            for moment in [Moment::Before, Moment::After] {
                let world = World::new().await;
                let step = make(&case, &world);
                if undo_of(&case, &world) != Undo::Built {
                    break 'calls;
                }
                let before = world.snapshot();
                let seen = inspect(&*step, &world.context(1, false)).await.expect(case.name);
                if !run_until(&*step, &world, &seen, call, moment).await {
                    break 'calls;
                }
                stops += 1;
                // The first undo dies half-way as well.
                world.border.stop_at(stops % 3 + 1, moment);
                let ctx = world.context(1, true);
                tokio::select! {
                    undone = step.undo(&ctx, &seen) => undone.expect(case.name),
                    () = world.border.reached.notified() => {}
                }
                world.border.open();
                step.undo(&world.context(1, true), &seen).await.expect(case.name);
                assert_eq!(world.snapshot(), before, "{} stopped {moment:?} call {call}", case.name);
            }
        }
    }
}

async fn stopped_at_any_call_it_is_finished_by_the_next_attempt() {
    for case in cases_that_end(End::Well) {
        let finished: Snapshot = {
            let world = World::new().await;
            let step = make(&case, &world);
            let seen = inspect(&*step, &world.context(1, false)).await.expect(case.name);
            step.run(&world.context(1, false), &seen).await.expect(case.name);
            world.snapshot()
        };
        'calls: for call in 1..MOST_CALLS {
            for moment in [Moment::Before, Moment::After] {
                let world = World::new().await;
                let step = make(&case, &world);
                let seen = inspect(&*step, &world.context(1, false)).await.expect(case.name);
                if !run_until(&*step, &world, &seen, call, moment).await {
                    break 'calls;
                }
                step.run(&world.context(2, true), &seen).await.expect(case.name);
                assert_eq!(world.snapshot(), finished, "{} stopped {moment:?} call {call}", case.name);
            }
        }
    }
}

async fn a_cancel_ends_it_in_time() {
    for case in cases().into_iter().filter(|case| info(case.uses).kind == Kind::Task) {
        for delay in [Duration::ZERO, Duration::from_millis(40)] {
            let world = World::new().await;
            let step = make(&case, &world);
            let Ok(seen) = inspect(&*step, &world.context(1, false)).await else { continue };
            let ctx = world.context(1, false);
            let cancel = ctx.cancel.clone();
            if delay.is_zero() {
                cancel.cancel();
            }
            let start = Instant::now();
            let (ended, ()) = tokio::join!(step.run(&ctx, &seen), async {
                tokio::time::sleep(delay).await;
                cancel.cancel();
            });
            assert!(start.elapsed() < Duration::from_secs(4), "{} took {:?}", case.name, start.elapsed());
            assert!(ended.is_err() || case.end != End::Never, "{} ended well though it has no end", case.name);
        }
    }
}

async fn no_secret_is_in_outputs_errors_or_logs() {
    let forms = forms();
    for case in cases().into_iter().filter(|case| case.end != End::Never && info(case.uses).kind == Kind::Task) {
        let world = World::new().await;
        let step = make(&case, &world);
        let ctx = world.context(1, false);
        let mut shown = Vec::new();
        let failed = |error: StepError| serde_json::to_string(&ctx.vault.mask_failure(&error)).expect("a failure is JSON");
        match step.inspect(&ctx).await {
            Err(error) => shown.push(failed(error)),
            Ok(seen) => {
                let kept = ctx.vault.conceal(&seen);
                shown.push(kept.to_string());
                let preview = step.preview(&kept).expect("read back");
                shown.push(ctx.vault.mask(&serde_json::to_string(&preview).expect("a preview is JSON")));
                match step.run(&ctx, &kept).await {
                    Ok(output) => shown.push(ctx.vault.conceal(&output).to_string()),
                    Err(error) => {
                        assert_eq!(case.end, End::Failed, "{}: {}", case.name, failed(error));
                        shown.push(failed(step.run(&ctx, &kept).await.expect_err("fails again")));
                    }
                }
                shown.extend(step.undo(&ctx, &kept).await.err().map(failed));
            }
        }
        shown.extend(world.notes.said.lock().expect("not poisoned").iter().map(|line| ctx.vault.mask(line)));
        for text in shown {
            if let Some(form) = forms.iter().find(|form| text.contains(*form)) {
                panic!("{} shows `{form}`: {text}", case.name);
            }
        }
    }
}

/// The canary as it may show up.
fn forms() -> Vec<String> {
    let standard = base64::engine::general_purpose::STANDARD_NO_PAD;
    let mut forms = vec![CANARY.to_owned(), "with+bird".to_owned(), "with%2Bbird".to_owned()];
    for lead in 0..3 {
        let shifted = standard.encode([vec![b'x'; lead], CANARY.as_bytes().to_vec()].concat());
        forms.push(shifted[4..shifted.len() - 4].to_owned());
    }
    forms
}

async fn a_failure_says_what_to_do() {
    for case in cases_that_end(End::Failed) {
        let world = World::new().await;
        let step = make(&case, &world);
        let ctx = world.context(1, false);
        let error = match step.inspect(&ctx).await {
            Err(error) => error,
            Ok(seen) => step.run(&ctx, &seen).await.err().unwrap_or_else(|| panic!("{} succeeds", case.name)),
        };
        let help = error.help.unwrap_or_else(|| panic!("{}: `{}` helps nobody", case.name, error.message));
        assert!(!error.message.ends_with('.') && !help.is_empty(), "{}", error.message);
    }
}
