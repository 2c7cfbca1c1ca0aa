//! pipelines/postgres-logical.yaml in the lab: run as it stands while clients write, killed in the copy, in catch-up and in
//! the pause and resumed, rolled back before the pivot without a trace; and pipelines/postgres-logical-failback.yaml, there
//! and back again.
#![allow(clippy::print_stdout, reason = "what was seen is worth more than that it passed")]

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

/// The inputs of the pipelines for this lab.
const INPUTS: [&str; 12] = [
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
    "-i",
    "without_large_objects=true",
];

/// A pipeline as it stands, but for the lab's keys and password.
fn pipeline(lab: &Lab, bench: &Bench, name: &str) {
    let text = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(name));
    bench.write("password", APP.1);
    let config = lab.folder().join("config").display().to_string();
    let text = text.expect("it is there").replace("env: APP_PASSWORD", &format!("file: {}", bench.path("password").display()));
    let text = ["source", "target", "gate"].iter().fold(text, |text, host| {
        let line = format!("{host}: {{ ssh: \"{{{{ inputs.{host} }}}}\"");
        assert!(text.contains(&line), "the pipeline has changed");
        text.replace(&line, &format!("{line}, config: \"{config}\""))
    });
    bench.write("move.yaml", &text);
}

fn run() -> Vec<&'static str> {
    [&["run", "move.yaml", "--yes", "--json"], INPUTS.as_slice()].concat()
}

/// Two clusters that are no relatives: one with data of all shapes, one with none of it.
fn clusters<'a>(lab: &'a Lab, settings: &Settings) -> (Cluster<'a>, Cluster<'a>, Pooler<'a>) {
    let alpha = lab.cluster("alpha", settings);
    let beta = lab.cluster("beta", &Settings { fsync: settings.fsync, ..Settings::default() });
    beta.asked("postgres", "drop database app; drop role app").expect("dropped");
    let pooler = lab.pooler("gate", alpha.address(), alpha.port);
    // What `pgbench` and the ledger lack to be followed.
    alpha.sql(
        "create table ledger (client text, number bigint, at timestamptz default clock_timestamp());
         alter table ledger replica identity full",
    );
    if alpha.sql("select to_regclass('pgbench_history') is not null") == "t" {
        alpha.sql("alter table pgbench_history replica identity full");
    }
    (alpha, beta, pooler)
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

/// What a server is like, apart from its data.
fn outside(cluster: &Cluster<'_>) -> String {
    let asked = "select rolname, rolpassword from pg_authid order by 1; select datname, datconnlimit from pg_database order by 1;
        select slot_name from pg_replication_slots; select count(*) from pg_subscription; select * from pg_db_role_setting;
        select name, setting from pg_file_settings";
    let rules = std::fs::read_to_string(cluster.file("pg_hba.conf")).expect("it has one");
    cluster.asked("postgres", asked).expect("an answer") + &rules
}

/// What a move leaves at a server that is in use: nothing.
fn is_tidy(cluster: &Cluster<'_>) {
    let left = "select 'slot ' || slot_name from pg_replication_slots union all select 'role ' || rolname from pg_roles where rolname like 'ferry%'
        union all select 'publication ' || pubname from pg_publication union all select 'subscription ' || subname from pg_subscription
        union all select 'mark ' || setconfig::text from pg_db_role_setting where setconfig::text like '%ferry.%'
        union all select 'closed ' || datname from pg_database where datconnlimit <> -1
        union all select 'schema ' || nspname from pg_namespace where nspname like 'ferry%'";
    assert_eq!(cluster.sql(left), "", "left on `{}`", cluster.host.name);
    let rules = std::fs::read_to_string(cluster.file("pg_hba.conf")).expect("it has one");
    assert!(!rules.contains("ferry"), "{rules}");
}

fn outputs(stdout: &str) -> serde_json::Value {
    let ended = stdout.lines().last().unwrap_or_default();
    println!("{ended}");
    serde_json::from_str::<serde_json::Value>(ended).expect("JSON")["outputs"].clone()
}

#[test]
fn databases_move_under_load_without_an_error_and_without_a_lost_write() {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    let (alpha, beta, pooler) = clusters(&lab, &Settings::full(2));
    pipeline(&lab, &bench, "postgres-logical.yaml");
    let before = (outside(&alpha), outside(&beta));
    let plan = bench.run(&[&["plan", "move.yaml"], INPUTS.as_slice()].concat()).exits(0);
    assert!(plan.stdout.contains("pivot"), "{plan:?}");
    assert_eq!((outside(&alpha), outside(&beta)), before, "a plan changes nothing");

    let ledger = writers(&alpha, &beta, &pooler);
    // As much as one process can apply, also where others work beside: with more the rows would fall behind for ever.
    let mut load = lab.load(&pooler.url(), 8, &["--rate=300"]);
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));
    let ran = bench.run(&run());
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stderr, bench.run(&["logs", "last"]).stdout);
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
    let outputs = outputs(&ran.stdout);
    assert_eq!((&outputs["primary"], &outputs["errors"]), (&"target".into(), &0.into()));
    assert_eq!((&outputs["tables_equal"], &outputs["exactly_once"]), (&true.into(), &outputs["acknowledged"]));

    assert!(!alpha.runs());
    is_tidy(&beta);
    // Their values have come over, and the next ones are new.
    assert_eq!(beta.sql("select nextval(pg_get_serial_sequence('shop.rental', 'id'))"), "3201");
    alpha.start();
    assert!(alpha.asked("app", "select 1").expect_err("fenced").contains("pg_hba.conf rejects connection"));
}

/// One move in a lab of its own whose runner is killed some time after it has told this; then it is taken up again, or
/// rolled back if it can be.
fn life(told: &str, later: Duration, goes_back: bool) {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    let (alpha, beta, pooler) = clusters(&lab, &Settings::full(1));
    pipeline(&lab, &bench, "postgres-logical.yaml");
    let ledger = writers(&alpha, &beta, &pooler);
    ledger.under_way();
    let before = (outside(&alpha), outside(&beta));
    let mut runner = bench.start(&run());
    let killed = runner.kill_after(told, later);
    let what = format!("killed {later:?} after `{told}` ({killed})");
    assert!(killed, "{what}");
    if goes_back {
        let back = bench.run(&["rollback", "last", "--yes"]);
        assert_eq!(back.code, Some(0), "{what}: {back:?}");
        // As it was, and serving.
        ledger.under_way();
        let seen = ledger.stop();
        assert!(seen.client("beta").acknowledged.is_empty(), "{what}");
        assert!(seen.is_whole_on(&alpha) > 100, "{what}");
        assert_eq!((outside(&alpha), outside(&beta)), before, "{what}");
        is_tidy(&alpha);
        let left = lab.host("gate").says("ls /etc/pgbouncer; pgrep -f '[w]atchdog' || true");
        assert_eq!(left, "pgbouncer.ini\nuserlist.txt", "{what}");
        println!("{what}: rolled back; gap {:?}", seen.client("kept").gap());
        return;
    }
    let resumed = bench.run(&["resume", "last", "--yes"]);
    assert_eq!(resumed.code, Some(0), "{what}: {resumed:?}\n{}", bench.run(&["logs", "last"]).stdout);
    until("the new primary serves", || beta.asked("app", "select 1").ok());
    ledger.under_way();
    let seen = ledger.stop();
    assert!(!alpha.runs(), "{what}");
    seen.never_both("alpha", "beta");
    seen.never_both("past", "beta");
    assert!(seen.is_whole_on(&beta) > 100, "{what}");
    is_tidy(&beta);
    println!("{what}: went forward; gap {:?}, errors {:?}", seen.client("kept").gap(), seen.client("kept").errors);
}

#[test]
fn a_runner_that_is_killed_in_the_copy_of_rows_goes_on() {
    life("tables follow", Duration::ZERO, false);
}

#[test]
fn a_runner_that_is_killed_in_catch_up_of_rows_goes_on() {
    life(" behind", Duration::ZERO, false);
}

#[test]
fn a_runner_that_is_killed_in_the_pause_by_rows_goes_on_without_a_lost_write() {
    life("the pause begins", Duration::from_millis(40), false);
}

#[test]
fn a_runner_that_is_killed_in_the_copy_of_rows_is_rolled_back_without_a_trace() {
    let step = if std::env::var_os("FERRY_SWEEP").is_some() { 20 } else { 400 };
    // Between the making of the database and its mark, above all; a statement outlives the runner that sent it.
    for later in (80..400).step_by(step) {
        life("copies the schema", Duration::from_millis(later), true);
    }
}

#[test]
fn a_runner_that_is_killed_before_the_pivot_by_rows_is_rolled_back_without_a_trace() {
    life("the pause begins", Duration::ZERO, true);
}

#[test]
fn databases_go_there_and_back_again_row_by_row_while_clients_write() {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    let (alpha, beta, pooler) = clusters(&lab, &Settings::full(1));
    pipeline(&lab, &bench, "postgres-logical-failback.yaml");
    let before = outside(&alpha);
    let ledger = writers(&alpha, &beta, &pooler);
    let mut load = lab.load(&pooler.url(), 8, &["--rate=300"]);
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));
    let ran = bench.run(&run());
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stderr, bench.run(&["logs", "last"]).stdout);
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));
    ledger.under_way();
    let (figures, seen) = (load.stop(), ledger.stop());

    assert_eq!((figures.failed, figures.aborted), (0, 0), "{}", figures.text);
    assert_eq!(alpha.sql("select count(*) from pgbench_history"), figures.acknowledged.to_string());
    for client in ["kept", "fresh"] {
        assert!(seen.client(client).errors.is_empty(), "{client}: {:?}", seen.client(client).errors);
    }
    let written = seen.is_whole_on(&alpha);
    println!(
        "{} transactions, {written} in the ledger; gaps {:?} {:?}",
        figures.acknowledged,
        figures.gap,
        seen.client("kept").gap()
    );
    let outputs = outputs(&ran.stdout);
    assert_eq!((&outputs["tables_equal"], &outputs["errors"]), (&true.into(), &0.into()));
    assert_eq!(outputs["exactly_once"], outputs["acknowledged"]);
    assert!(!beta.runs());
    is_tidy(&alpha);
    assert_eq!(outside(&alpha), before, "the old primary is as it was");
}

#[test]
fn a_runner_that_is_killed_while_the_old_primary_begins_to_follow_by_rows_goes_on() {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    let (alpha, beta, pooler) = clusters(&lab, &Settings::default());
    pipeline(&lab, &bench, "postgres-logical-failback.yaml");
    let before = outside(&alpha);
    let ledger = writers(&alpha, &beta, &pooler);
    ledger.under_way();
    let mut runner = bench.start(&run());
    assert!(runner.kill_after("closes the databases of the old primary", Duration::ZERO));
    ledger.under_way();
    let resumed = bench.run(&["resume", "last", "--yes"]);
    assert_eq!(resumed.code, Some(0), "{resumed:?}\n{}", bench.run(&["logs", "last"]).stdout);
    ledger.under_way();
    let seen = ledger.stop();
    for client in ["kept", "fresh"] {
        assert!(seen.client(client).errors.is_empty(), "{client}: {:?}", seen.client(client).errors);
    }
    assert!(seen.is_whole_on(&alpha) > 100 && !beta.runs());
    is_tidy(&alpha);
    assert_eq!(outside(&alpha), before);
}
