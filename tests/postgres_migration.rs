//! pipelines/postgres-live-migration.yaml in the lab: run as it stands while clients write, killed in the pause and
//! resumed, rolled back before the pivot; two servers never accept writes at once, and no acknowledged write is lost.

#[allow(dead_code, reason = "it is shared with the tests of the command line")]
#[path = "cli/bench.rs"]
mod bench;
mod lab;

use std::time::Duration;

use bench::Bench;
use lab::ledger::{Habit, Ledger};
use lab::pooler::Pooler;
use lab::postgres::{Cluster, Settings};
use lab::template::APP;
use lab::{Lab, until};

/// The inputs of the pipeline for this lab.
const INPUTS: [&str; 10] = [
    "-i",
    "source=root@alpha",
    "-i",
    "target=root@beta",
    "-i",
    "gate=root@gate",
    "-i",
    "route=10.77.0.30:6432",
    "-i",
    "steady=1s",
];

/// The pipeline as it stands, but for the lab's keys and password.
fn pipeline(lab: &Lab, bench: &Bench) -> String {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/postgres-live-migration.yaml"));
    bench.write("password", APP.1);
    let config = lab.folder().join("config").display().to_string();
    let mut text =
        text.expect("it is there").replace("env: APP_PASSWORD", &format!("file: {}", bench.path("password").display()));
    for host in ["source", "target", "gate"] {
        let line = format!("{host}: {{ ssh: \"{{{{ inputs.{host} }}}}\"");
        assert!(text.contains(&line), "the pipeline has changed");
        text = text.replace(&line, &format!("{line}, config: \"{config}\""));
    }
    text
}

/// What a source is like, apart from its data.
fn outside(source: &Cluster<'_>) -> String {
    let asked = "select rolname from pg_roles order by 1; select slot_name from pg_replication_slots; select name, setting from pg_file_settings";
    source.sql(asked) + &std::fs::read_to_string(source.file("pg_hba.conf")).expect("it has one")
}

/// Clients of all kinds: through the pooler, and past it straight to a server.
fn writers(alpha: &Cluster<'_>, beta: &Cluster<'_>, pooler: &Pooler<'_>) -> Ledger {
    alpha.ledger(&[
        ("kept", pooler.url(), Habit::Keeps),
        ("fresh", pooler.url(), Habit::Anew),
        ("past", alpha.url(), Habit::Keeps),
        ("alpha", alpha.url(), Habit::Anew),
        ("beta", beta.url(), Habit::Anew),
    ])
}

fn run(bench: &Bench) -> Vec<&'static str> {
    assert!(bench.path("move.yaml").exists());
    [&["run", "move.yaml", "--yes", "--json"], INPUTS.as_slice()].concat()
}

#[test]
fn a_cluster_moves_under_load_without_an_error_and_without_a_lost_write() {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    let alpha = lab.cluster("alpha", &Settings::full(2));
    let beta = lab.place("beta", &Settings::default());
    let pooler = lab.pooler("gate", alpha.address(), alpha.port);
    bench.write("move.yaml", &pipeline(&lab, &bench));
    let before = outside(&alpha);
    let plan = bench.run(&[&["plan", "move.yaml"], INPUTS.as_slice()].concat()).exits(0);
    assert!(plan.stdout.contains("pivot") && outside(&alpha) == before, "{plan:?}");

    let ledger = writers(&alpha, &beta, &pooler);
    let mut load = lab.load(&pooler.url(), 8, &[]);
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));
    let ran = bench.run(&run(&bench)).exits(0);
    load.under_way(|| beta.sql("select count(*) from pgbench_history").parse().expect("a number"));
    ledger.under_way();
    let (figures, seen) = (load.stop(), ledger.stop());

    assert_eq!((figures.failed, figures.aborted), (0, 0), "{}", figures.text);
    assert_eq!(beta.sql("select count(*) from pgbench_history"), figures.acknowledged.to_string());
    for client in ["kept", "fresh"] {
        assert!(seen.client(client).errors.is_empty(), "{client}: {:?}", seen.client(client).errors);
    }
    let written = seen.is_whole_on(&beta);
    seen.never_both("alpha", "beta");
    seen.never_both("past", "beta");
    println!(
        "{} transactions, {written} in the ledger; gaps {:?} {:?}",
        figures.acknowledged,
        figures.gap,
        seen.client("kept").gap()
    );
    let ended = ran.stdout.lines().last().unwrap_or_default();
    println!("{ended}");
    let outputs: serde_json::Value = serde_json::from_str(ended).expect("JSON");
    let outputs = &outputs["outputs"];
    assert_eq!((&outputs["primary"], &outputs["errors"]), (&"target".into(), &0.into()), "{ended}");
    assert_eq!(outputs["exactly_once"], outputs["acknowledged"], "{ended}");

    // The new primary is one, and nothing of the move is left on it; the old one lets nobody in.
    assert!(!beta.is_in_recovery() && !alpha.runs());
    assert_eq!(beta.sql("select count(*) from pg_roles where rolname like 'ferry%'; show primary_conninfo"), "0");
    assert_eq!(
        beta.sql("select count(*) from shop.payment; select lo_get(content) is not null from shop.manual limit 1"),
        "3200\nt"
    );
    assert_eq!(lab.host("gate").says("ls /etc/pgbouncer; pgrep -f '[w]atchdog' || true"), "pgbouncer.ini\nuserlist.txt");
    alpha.start();
    assert!(alpha.asked("app", "select 1").expect_err("fenced").contains("pg_hba.conf rejects connection"));
}

/// For those who read the output of a sweep.
#[expect(clippy::print_stdout, reason = "what was seen is worth more than that it passed")]
fn tell(text: &str) {
    println!("{text}");
}

/// One move in a lab of its own whose runner is killed some time after it has told this; then it is taken up again, or
/// rolled back if it can be.
fn life(told: &str, later: Duration, goes_back: bool) {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    let alpha = lab.cluster("alpha", &Settings::default());
    let beta = lab.place("beta", &Settings::default());
    let pooler = lab.pooler("gate", alpha.address(), alpha.port);
    bench.write("move.yaml", &pipeline(&lab, &bench));
    let ledger = writers(&alpha, &beta, &pooler);
    ledger.under_way();
    let before = outside(&alpha);
    let mut runner = bench.start(&run(&bench));
    let killed = runner.kill_after(told, later);
    let what = format!("killed {later:?} after `{told}` ({killed})");
    if killed && goes_back && bench.run(&["rollback", "last", "--yes"]).code == Some(0) {
        // As it was, and serving.
        ledger.under_way();
        let seen = ledger.stop();
        assert!(seen.client("beta").acknowledged.is_empty(), "{what}");
        assert!(seen.is_whole_on(&alpha) > 100, "{what}");
        assert_eq!(outside(&alpha), before, "{what}");
        assert_eq!(
            lab.host("gate").says("ls /etc/pgbouncer; pgrep -f '[w]atchdog' || true"),
            "pgbouncer.ini\nuserlist.txt",
            "{what}"
        );
        let left = beta.host.says("ls -A /var/lib/postgresql | grep -v '^tls$'; pgrep -u postgres -l . || true");
        assert_eq!(left, "", "{what}");
        tell(&format!("{what}: rolled back; gap {:?}", seen.client("kept").gap()));
        return;
    }
    if killed {
        let resumed = bench.run(&["resume", "last", "--yes"]);
        assert_eq!(resumed.code, Some(0), "{what}: {resumed:?}");
    }
    until("the new primary serves", || beta.asked("app", "select 1").ok());
    ledger.under_way();
    let seen = ledger.stop();
    assert!(!beta.is_in_recovery() && !alpha.runs(), "{what}");
    seen.never_both("alpha", "beta");
    seen.never_both("past", "beta");
    assert!(seen.is_whole_on(&beta) > 100, "{what}");
    tell(&format!("{what}: went forward; gap {:?}, errors {:?}", seen.client("kept").gap(), seen.client("kept").errors));
}

#[test]
fn a_runner_that_is_killed_in_the_pause_goes_on_without_a_lost_write() {
    life("the pause begins", Duration::from_millis(40), false);
}

#[test]
fn a_runner_that_is_killed_before_the_pivot_is_rolled_back_and_the_source_serves_as_it_did() {
    life("the pause begins", Duration::ZERO, true);
}

/// `make sweep` asks for more.
#[test]
fn a_runner_that_is_killed_at_any_moment_of_the_cutover_never_makes_two_primaries() {
    let kills = std::env::var("FERRY_KILLS").ok().and_then(|kills| kills.parse::<u32>().ok()).unwrap_or(1);
    for kill in 0..kills {
        life("both servers write a checkpoint", Duration::from_millis(rand::random_range(0..1200)), kill % 2 == 0);
    }
}
