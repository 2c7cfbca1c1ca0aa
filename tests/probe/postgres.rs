//! Probes of a database: the ledger, through a pooler, over kills and from one server to another.

use std::sync::Arc;
use std::time::Duration;

use ferry::error::ErrorClass;
use ferry::steps::StepContext;
use serde_json::{Value, json};

use super::parts::cluster::{Bouncer, Cluster, POSTGRES, until};
use super::parts::scene::Scene;
use super::{probe_by, span};

fn with(port: u16) -> Value {
    json!({
        "route": format!("127.0.0.1:{port}"), "user": "postgres", "password": POSTGRES, "database": "app", "tls": "disable",
        "fresh_every": "20ms", "after": 5,
    })
}

fn table(scene: &Scene) -> String {
    format!("ferry_probe.ledger_{}", scene.context().idempotence_key())
}

/// Blocking work beside the probe.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_and_a_switch_behind_a_pooler_are_one_gap_and_nothing_is_lost() {
    let source = Cluster::new("");
    let target = source.standby("");
    let bouncer = Arc::new(Bouncer::new(source.port));
    let scene = Scene::new([]);
    let mut config = with(bouncer.port);
    (config["max_errors"], config["keep"]) = (json!(0), json!(true));
    let (source, target) = (Arc::new(source), Arc::new(target));
    let seen = probe_by("probe.postgres", &scene, config, {
        let (source, target, bouncer) = (source.clone(), target.clone(), bouncer.clone());
        async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            beside(move || {
                bouncer.order("pause app");
                source.sql("alter system set default_transaction_read_only = on");
                source.sql("select pg_reload_conf()");
                let last = source.sql("select pg_current_wal_flush_lsn()");
                until("it is replayed", || {
                    (target.sql(&format!("select pg_last_wal_replay_lsn() >= '{last}'")) == "t").then_some(())
                });
                target.sql("select pg_promote()");
                bouncer.points_at(target.port);
                bouncer.order("reload");
                bouncer.order("resume app");
            })
            .await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    })
    .await
    .expect("nothing is lost");
    let ledger = &seen["ledger"];
    assert_eq!(seen["errors"], 0, "{seen:#}");
    assert_eq!(ledger["acknowledged"], ledger["exactly_once"], "{seen:#}");
    assert!(ledger["acknowledged"].as_u64() > Some(30), "{seen:#}");
    assert!(span(&seen["longest_gap"]) > Duration::from_millis(10), "{seen:#}");
    let count = |cluster: &Cluster| cluster.sql(&format!("select count(*) from {}", table(&scene))).parse::<u64>().ok();
    assert_eq!(count(&target), ledger["sent"].as_u64(), "{seen:#}");
    assert!(count(&source) < count(&target), "the later ones are there alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_errors_and_what_was_acknowledged_is_there() {
    let mut cluster = Cluster::new("");
    let (scene, config) = (Scene::new([]), with(cluster.port));
    let seen = probe_by("probe.postgres", &scene, config, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // Here and not beside: it dies with the thread that starts it.
        cluster.kill();
        cluster.start();
        tokio::time::sleep(Duration::from_millis(200)).await;
    })
    .await
    .expect("nothing is lost");
    let ledger = &seen["ledger"];
    assert!(seen["errors"].as_u64() >= Some(1), "{seen:#}");
    assert_eq!(ledger["acknowledged"], ledger["exactly_once"], "{seen:#}");
    let sum = ["acknowledged", "unknown", "refused"].map(|name| ledger[name].as_u64().expect("a number")).iter().sum::<u64>();
    assert_eq!(ledger["sent"].as_u64(), Some(sum), "{seen:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_doubled_or_foreign_is_named() {
    let cluster = Arc::new(Cluster::new(""));
    for (harm, said) in [
        ("delete from TABLE where n = 7", "1 write is acknowledged and not there (7)"),
        ("insert into TABLE (n) values (3), (4)", "2 writes are there more than once (3–4)"),
        ("insert into TABLE (n) values (1000000)", "1 row is there that nobody sent (1000000)"),
        ("truncate TABLE", "acknowledged and not there (1"),
    ] {
        let (scene, config) = (Scene::new([]), with(cluster.port));
        let harm = harm.replace("TABLE", &table(&scene));
        let harmed = cluster.clone();
        let error = probe_by("probe.postgres", &scene, config.clone(), async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            beside(move || harmed.sql(&harm)).await;
        })
        .await
        .expect_err(said);
        assert_eq!(error.class, ErrorClass::NeedsPerson, "{}", error.message);
        assert!(error.message.contains(said), "{}", error.message);
        let step = Scene::step("probe.postgres", &config);
        step.undo(&scene.context(), &json!({ "schema": false })).await.expect("undone");
        step.undo(&scene.context(), &json!({ "schema": false })).await.expect("twice is once");
        assert_eq!(cluster.sql("select count(*) from pg_namespace where nspname = 'ferry_probe'"), "0");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_runner_takes_no_acknowledged_write_with_it() {
    let cluster = Arc::new(Cluster::new(""));
    let (scene, config) = (Scene::new([]), with(cluster.port));
    let seen = || {
        let text = std::fs::read_to_string(scene.scratch().join("ledger")).unwrap_or_default();
        text.lines().filter(|line| line.starts_with("a ")).count()
    };
    tokio::select! {
        ended = probe_by("probe.postgres", &scene, config.clone(), std::future::pending()) => panic!("it has no end: {ended:?}"),
        () = async {
            while seen() < 50 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => {}
    }
    let harmed = cluster.clone();
    let sql = format!("delete from {} where n = 20", table(&scene));
    let second = probe_by("probe.postgres", &scene, config.clone(), async {}).await.expect("all is there");
    assert!(second["ledger"]["acknowledged"].as_u64() > Some(60), "{second:#}");

    // The same once more, and one of the first attempt's writes is lost between them.
    let _ = std::fs::remove_dir_all(scene.scratch());
    tokio::select! {
        ended = probe_by("probe.postgres", &scene, config.clone(), std::future::pending()) => panic!("it has no end: {ended:?}"),
        () = async {
            while seen() < 50 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => {}
    }
    beside(move || harmed.sql(&sql)).await;
    let error = probe_by("probe.postgres", &scene, config.clone(), async {}).await.expect_err("one is lost");
    assert!(error.message.contains("1 write is acknowledged and not there (20)"), "{}", error.message);
    // A table that is gone altogether is not made anew.
    cluster.sql(&format!("drop table {}", table(&scene)));
    let error = probe_by("probe.postgres", &scene, config, async {}).await.expect_err("all are lost");
    assert!(error.message.contains("is not there any more"), "{}", error.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_goes_at_the_end_and_what_was_proven_stays() {
    let cluster = Cluster::new("");
    let (scene, config) = (Scene::new([]), with(cluster.port));
    let step = Scene::step("probe.postgres", &config);
    let ctx = StepContext { over: tokio_util::sync::CancellationToken::new(), ..scene.context() };
    ctx.over.cancel();
    let before = step.inspect(&ctx).await.expect("it answers");
    assert_eq!(before, json!({ "schema": false }));
    let first = step.run(&ctx, &before).await.expect("well");
    let none = "select count(*) from pg_namespace where nspname = 'ferry_probe'";
    assert_eq!(cluster.sql(none), "0");
    // The runner died before anybody knew: the next attempt does not take the table's absence for a loss.
    let second = step.run(&ctx, &before).await.expect("it was proven");
    assert_eq!(first, second);
    assert_eq!(cluster.sql(none), "0");
}
