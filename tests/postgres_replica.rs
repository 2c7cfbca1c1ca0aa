//! `postgres.replica` between two hosts of the lab: made, followed, killed and resumed, taken back without a trace.

#[allow(dead_code, reason = "it is shared with the tests of the command line")]
#[path = "cli/bench.rs"]
mod bench;
mod lab;

use bench::Bench;
use lab::Lab;
use lab::postgres::{Cluster, Settings};

const REPLICA: &str = "steps:\n  - id: replica\n    uses: postgres.replica\n    with: { from: alpha, to: beta, settings: { work_mem: 5MB } }\n\
    \x20 - id: close\n    uses: postgres.catch_up\n    with: { replica: \"{{ steps.replica.outputs }}\", max_lag: 64KiB, for: 200ms }\n";

/// What a source is like, apart from its data.
fn outside(source: &Cluster<'_>) -> String {
    source.sql("select rolname from pg_roles order by 1; select slot_name from pg_replication_slots; select name, setting from pg_file_settings")
        + &std::fs::read_to_string(source.file("pg_hba.conf")).expect("it has one")
}

#[test]
fn a_standby_follows_and_is_taken_back_without_a_trace() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let alpha = lab.cluster("alpha", &Settings::default());
    let beta = lab.place("beta", &Settings::default());
    alpha.sql("create table t as select n, repeat('x', 100) from generate_series(1, 20000) n");
    let before = outside(&alpha);
    bench.write("replica.yaml", &(lab.yaml(&["alpha", "beta"]) + REPLICA));
    let plan = bench.run(&["plan", "replica.yaml"]).exits(0);
    assert!(plan.stdout.contains("copies the cluster of `alpha`"), "{plan:?}");
    assert_eq!(outside(&alpha), before, "a plan changes nothing");
    assert!(beta.host.inside("ls /var/lib/postgresql/data").stdout.is_empty());

    let run = bench.run(&["run", "replica.yaml", "--yes"]).exits(0);
    assert!(run.stdout.contains("succeeded"), "{run:?}");
    assert!(beta.is_in_recovery());
    alpha.sql("insert into t select n, 'late' from generate_series(20001, 20010) n");
    lab::until("the standby has it", || (beta.sql("select count(*) from t") == "20010").then_some(()));
    assert_eq!(beta.sql("show work_mem; show port"), "5MB\n5432");
    assert_eq!(alpha.sql("select ssl from pg_stat_ssl join pg_stat_replication using (pid)"), "t");
    let rule = std::fs::read_to_string(alpha.file("pg_hba.conf")).expect("it has one");
    assert!(rule.starts_with("hostssl replication ferry_") && rule.contains(" 10.77.0.20/32 scram-sha-256 # ferry "), "{rule}");

    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert_eq!(outside(&alpha), before, "nothing stays at the source");
    let left = beta.host.says("ls -A /var/lib/postgresql | grep -v '^tls$'; pgrep -u postgres postgres || true");
    assert_eq!(left, "", "nothing stays at the target");
}
