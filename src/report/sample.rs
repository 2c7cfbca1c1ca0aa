//! Runs for the tests of this folder: real events, folded by the real engine.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::engine::{
    Background, BackgroundDef, Body, Definition, Event, Interrupted, OnFailure, Outcome, Resolution, Retry, RunStatus, StepDef,
    StepPath, Timeout, UndoDef,
};
use crate::error::{ErrorClass, Failure};
use crate::journal::Record;
use crate::secret::mark;

pub fn step(id: &str, uses: &str, needs: &[&str]) -> StepDef {
    StepDef {
        id: id.to_owned(),
        name: None,
        uses: uses.to_owned(),
        body: Body::Task,
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        resolve: false,
        for_each: false,
        max_parallel: None,
        retry: Retry::default(),
        timeout: Timeout::default(),
        pivot: false,
        pivot_inside: false,
        background: None,
        undo: UndoDef::Built,
        continue_on_error: false,
        lock_wait: None,
        placement: None,
        interrupted: Interrupted::RunAgain,
    }
}

pub fn definition(name: &str, steps: Vec<StepDef>, finally: Vec<StepDef>) -> Definition {
    Definition {
        name: name.to_owned(),
        steps,
        finally,
        max_parallel: 8,
        on_failure: OnFailure::Stop,
        finally_budget: Duration::from_mins(5),
    }
}

/// A pipeline that has everything.
pub fn orders() -> Definition {
    let inner = definition(
        "replica",
        vec![step("base", "postgres.base_backup", &[]), step("wal", "postgres.wal_ship", &["base"])],
        vec![],
    );
    definition(
        "orders <aws> & azure",
        vec![
            StepDef { for_each: true, resolve: true, ..step("uploads", "object.sync", &[]) },
            StepDef { body: Body::Pipeline(Box::new(inner)), resolve: true, ..step("replica", "./replica.yaml", &[]) },
            StepDef {
                background: Some(BackgroundDef { until: "same".to_owned(), ready: Background::ReadyAtStart }),
                undo: UndoDef::Nothing,
                ..step("probe", "probe.postgres", &["replica"])
            },
            StepDef {
                resolve: true,
                undo: UndoDef::Skip,
                continue_on_error: true,
                ..step("notes", "http.request", &["uploads"])
            },
            StepDef {
                body: Body::Approval { at_most: Some(Duration::from_hours(1)) },
                undo: UndoDef::Nothing,
                ..step("go", "approval", &["uploads", "probe", "replica"])
            },
            StepDef { pivot: true, undo: UndoDef::Impossible, ..step("cutover", "postgres.cutover", &["go"]) },
            StepDef { undo: UndoDef::Nothing, ..step("same", "postgres.compare", &["cutover", "notes"]) },
            StepDef { undo: UndoDef::Impossible, ..step("clean", "object.delete", &["cutover"]) },
        ],
        vec![StepDef { undo: UndoDef::Nothing, ..step("tell", "http.request", &[]) }],
    )
}

/// Writes records at times of its own.
pub struct Pen {
    pub records: Vec<Record>,
    now: Timestamp,
}

impl Pen {
    pub fn new() -> Self {
        Self { records: Vec::new(), now: "2026-11-21T07:00:00Z".parse().expect("a time") }
    }

    pub fn after(&mut self, seconds: u64, event: Event) -> &mut Self {
        self.now = self.now.checked_add(Duration::from_secs(seconds)).expect("a time");
        let seq = self.records.len() as u64 + 1;
        self.records.push(Record { seq, at: self.now, event });
        self
    }

    pub fn start(&mut self, seconds: u64, path: &str, attempt: u32) -> &mut Self {
        if attempt == 1 {
            self.inspected(0, path, &format!("digest of {path}"));
        }
        self.after(seconds, Event::AttemptStarted { step: path.into(), attempt })
    }

    pub fn inspected(&mut self, seconds: u64, path: &str, digest: &str) -> &mut Self {
        let config = json!({ "of": path, "password": mark("repl") });
        self.after(
            seconds,
            Event::Inspected {
                step: path.into(),
                before: Value::Null,
                config,
                surroundings: Value::Null,
                digest: digest.to_owned(),
            },
        )
    }

    fn resolved(&mut self, path: &str) -> &mut Self {
        self.after(0, Event::Resolved { step: path.into(), resolution: Resolution::Run { lock: None }, operands: Value::Null })
    }

    pub fn end(&mut self, seconds: u64, path: &str, attempt: u32, outcome: Outcome) -> &mut Self {
        self.after(seconds, Event::AttemptEnded { step: path.into(), attempt, outcome })
    }
}

pub fn created(definition: Definition) -> Event {
    Event::RunCreated {
        run: "01993f2a".to_owned(),
        definition: Box::new(definition),
        document: json!({ "inputs": { "bucket": "uploads", "password": mark("repl") }, "sources": { "orders.yaml": "name: orders\n" } }),
        on_failure: OnFailure::Stop,
        until: None,
        by: "ann@desk".to_owned(),
    }
}

pub fn good(output: Value) -> Outcome {
    Outcome::Succeeded { output, warnings: 0 }
}

pub fn bad(message: &str, class: ErrorClass) -> Outcome {
    Outcome::Failed {
        failure: Failure {
            message: message.to_owned(),
            class,
            help: Some("start `db-2`".to_owned()),
            retry_after: None,
            causes: vec!["connection refused".to_owned()],
        },
    }
}

/// The run of `orders` up to the approval, with a retry and a crash on the way.
pub fn until_approval() -> Pen {
    let mut pen = Pen::new();
    let instances = Resolution::Instances { items: vec![("eu".to_owned(), json!("eu")), ("us/<1>".to_owned(), json!("us"))] };
    let us = StepPath::root("uploads").instance("us/<1>");
    pen.after(0, created(orders()))
        .after(
            1,
            Event::Resolved { step: "uploads".into(), resolution: instances, operands: json!({ "for_each": { "text": "{{ inputs.list }}", "values": { "inputs.list": ["eu", "us"] }, "result": ["eu", "us"] } }) },
        )
        .after(
            0,
            Event::Resolved {
                step: "replica".into(),
                resolution: Resolution::Inputs { inputs: json!({}), digest: "d".to_owned(), lock: None },
                operands: Value::Null,
            },
        )
        .resolved("uploads[eu]")
        .resolved(us.as_str())
        .start(1, "uploads[eu]", 1)
        .start(0, us.as_str(), 1)
        .start(0, "replica/base", 1)
        .end(
            20,
            "uploads[eu]",
            1,
            good(json!({ "objects": 780, "bytes": 3_145_728, "url": format!("https://x/{}", mark("repl")) })),
        )
        .end(0, us.as_str(), 1, bad("`db-2` refused the connection", ErrorClass::Transient))
        .after(2, Event::TimerFired { timer: crate::engine::Timer::Retry { step: us.clone(), failures: 1 } })
        .start(0, us.as_str(), 2)
        .after(5, Event::Checkpoint { step: "replica/base".into(), attempt: 1, token: json!({ "at": 5 }) })
        .after(3600, Event::Resumed { by: "bob@desk".to_owned(), until: None })
        .end(0, us.as_str(), 2, Outcome::Interrupted)
        .end(0, "replica/base", 1, Outcome::Interrupted)
        .start(1, us.as_str(), 3)
        .start(0, "replica/base", 2)
        .end(9, us.as_str(), 3, good(json!({ "objects": 12, "bytes": 4096 })))
        .after(
            0,
            Event::Resolved {
                step: "notes".into(),
                resolution: Resolution::Skip,
                operands: json!({ "if": { "text": "{{ inputs.tell }}", "values": { "inputs.tell": false, "x": mark("repl") }, "result": false } }),
            },
        )
        .end(30, "replica/base", 2, good(json!({ "bytes": 1_073_741_824_u64 })))
        .start(0, "replica/wal", 1)
        .end(4, "replica/wal", 1, good(json!({})))
        .start(0, "probe", 1)
        .after(0, Event::Ready { step: "probe".into(), attempt: 1 })
        .after(
            1,
            Event::ApprovalAsked {
                step: "go".into(),
                message: "Lag 0 B. Cut over?".to_owned(),
                digest: "q1".to_owned(),
                approvers: vec![],
            },
        );
    pen
}

/// The same, approved and done.
pub fn succeeded() -> Pen {
    let mut pen = until_approval();
    pen.after(
        60,
        Event::ApprovalGiven {
            step: "go".into(),
            digest: "q1".to_owned(),
            approved: true,
            by: "eve@desk".to_owned(),
            comment: Some("fine".to_owned()),
        },
    )
    .start(1, "cutover", 1)
    .end(2, "cutover", 1, good(json!({ "pause": "380ms" })))
    .start(0, "same", 1)
    .start(0, "clean", 1)
    .end(3, "same", 1, good(json!({ "differences": 0 })))
    .end(0, "clean", 1, good(json!({ "objects": 3 })))
    .end(1, "probe", 1, good(json!({ "longest_gap": "412ms" })))
    .start(0, "tell", 1)
    .end(1, "tell", 1, good(json!({ "status": 200 })))
    .after(0, Event::Settled { status: RunStatus::Succeeded });
    pen
}

/// A run whose last step fails for good.
pub fn failed() -> Pen {
    let mut pen = Pen::new();
    let mut b = step("b", "command", &["a"]);
    b.retry.attempts = 1;
    pen.after(0, created(definition("two", vec![step("a", "wait", &[]), b, step("c", "command", &["b"])], vec![])))
        .start(1, "a", 1)
        .end(2, "a", 1, good(Value::Null))
        .start(0, "b", 1)
        .end(3, "b", 1, bad("`db-2` refused the connection", ErrorClass::Permanent))
        .after(0, Event::Settled { status: RunStatus::Failed });
    pen
}

/// A run that fails and is rolled back; one undo fails.
pub fn rolled_back() -> Pen {
    let mut pen = Pen::new();
    let mut b = step("b", "command", &["a"]);
    b.retry.attempts = 1;
    let two = definition("two", vec![step("a", "wait", &[]), b], vec![]);
    let event = match created(two) {
        Event::RunCreated { run, definition, document, until, by, .. } => {
            Event::RunCreated { run, definition, document, on_failure: OnFailure::Rollback, until, by }
        }
        other => other,
    };
    let undone = |pen: &mut Pen, path: &str, outcome: Outcome| {
        pen.after(1, Event::UndoStarted { step: path.into(), attempt: 1 });
        pen.after(2, Event::UndoEnded { step: path.into(), attempt: 1, outcome });
    };
    pen.after(0, event).start(1, "a", 1).end(2, "a", 1, good(Value::Null)).start(0, "b", 1).end(
        3,
        "b",
        1,
        bad("`db-2` refused the connection", ErrorClass::Permanent),
    );
    undone(&mut pen, "b", good(Value::Null));
    undone(&mut pen, "a", bad("`db-1` is gone", ErrorClass::Permanent));
    pen.after(0, Event::Settled { status: RunStatus::RollbackFailed });
    pen
}
