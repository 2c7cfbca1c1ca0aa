//! A sync whose ledger lies on a slow disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::ledger::SYNC;
use crate::clock::Clock;
use crate::error::StepError;
use crate::secret::Vault;
use crate::steps::{Attempt, Depth, LogStream, Progress, Signals, StepContext, builtin};
use crate::stores::Stores;

struct Quiet;

impl Signals for Quiet {
    fn progress(&self, _: Progress) {}
    fn checkpoint(&self, _: Value) -> BoxFuture<'_, Result<(), StepError>> {
        Box::pin(async { Ok(()) })
    }
    fn pass_pivot(&self) -> BoxFuture<'_, Result<(), StepError>> {
        Box::pin(async { Ok(()) })
    }
    fn ready(&self) {}
    fn warn(&self, _: &str) {}
    fn log(&self, _: LogStream, _: &str) {}
}

/// Two seconds later whenever it is asked: a checkpoint is due at every look.
#[derive(Debug, Default)]
struct Hasty(AtomicU64);

impl Clock for Hasty {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(2, Ordering::Relaxed))
    }
}

fn context(folder: &Path) -> StepContext {
    StepContext {
        attempt: Attempt {
            run: "run".to_owned(),
            step: "step".to_owned(),
            number: 1,
            interrupted: false,
            past_pivot: false,
            checkpoint: None,
            host: "local".to_owned(),
        },
        depth: Depth::Brief,
        cancel: CancellationToken::new(),
        over: CancellationToken::new(),
        base: folder.to_owned(),
        clock: Arc::new(Hasty::default()),
        hosts: crate::hosts::Hosts::default(),
        stores: Stores::new(BTreeMap::new(), Vault::default()),
        vault: Vault::default(),
        http: reqwest::Client::new(),
        signals: Arc::new(Quiet),
        scratch: folder.join("scratch"),
    }
}

/// Checkpoints ask how much of the ledger is on disk while what was decided is being brought there. Once a checkpoint
/// that fell into a flush waited for ever for the flush that waited for it.
#[tokio::test]
async fn a_checkpoint_that_falls_into_a_flush_waits_for_it_and_no_longer() {
    // Longer than the time between two looks.
    SYNC.set(|file: &File| {
        std::thread::sleep(Duration::from_millis(300));
        file.sync_data()
    });
    let folder = tempfile::tempdir().expect("a directory");
    let write = |path: String| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        std::fs::write(path, "content").expect("written");
    };
    for number in 0..40 {
        write(format!("from/{number:02}"));
    }
    // What is there already moves the marker on, so that there is something to save.
    for number in 0..20 {
        write(format!("to/{number:02}"));
    }
    let ctx = context(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let with = json!({"from": at("from"), "to": at("to")});
    let step = builtin().make("object.sync", &with).expect("a good configuration");
    let before = step.inspect(&ctx).await.expect("both are there");
    let ended = tokio::time::timeout(Duration::from_secs(20), step.run(&ctx, &before)).await;
    let output = ended.expect("it comes to its end").expect("copied");
    assert_eq!((&output["copied"], &output["skipped"]), (&json!(20), &json!(20)));
}
