//! `postgres.cutover` in the lab: clients write through it and lose nothing.

#[allow(dead_code, reason = "it is shared with the tests of the command line")]
#[path = "cli/bench.rs"]
mod bench;
mod lab;

use bench::Bench;
use lab::Lab;
use lab::pooler::INSIDE;
use lab::postgres::Settings;

/// From alpha to beta, behind the pooler on gate.
fn steps(more: &str) -> String {
    format!(
        "steps:\n  - id: replica\n    uses: postgres.replica\n    with: {{ from: alpha, to: beta }}\n\
         \x20 - id: cutover\n    uses: postgres.cutover\n    pivot: true\n    with:\n      replica: \"{{{{ steps.replica.outputs }}}}\"\n\
         \x20     routers:\n        - pgbouncer: {{ host: gate, ini: {INSIDE}/pgbouncer.ini, socket: /run/pgbouncer }}\n{more}"
    )
}

#[test]
fn clients_go_over_without_an_error_and_nothing_acknowledged_is_lost() {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    let alpha = lab.cluster("alpha", &Settings::full(1));
    let beta = lab.place("beta", &Settings::default());
    let pooler = lab.pooler("gate", alpha.address(), alpha.port);
    bench.write("move.yaml", &(lab.yaml(&["alpha", "beta", "gate"]) + &steps("")));
    bench.run(&["plan", "move.yaml"]).exits(0);
    let mut load = lab.load(&pooler.url(), 8, &[]);
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));
    let run = bench.run(&["run", "move.yaml", "--yes"]).exits(0);
    load.under_way(|| beta.sql("select count(*) from pgbench_history").parse().expect("a number"));
    let figures = load.stop();
    println!("{}\n{figures:?}", run.stdout);
    assert_eq!((figures.failed, figures.aborted), (0, 0), "{figures:?}");
    assert!(!beta.is_in_recovery() && !alpha.runs());
    let rows: u64 = beta.sql("select count(*) from pgbench_history").parse().expect("a number");
    assert_eq!(rows, figures.acknowledged, "each acknowledged transaction is there exactly once");
    assert_eq!(beta.sql("select count(*) from pg_roles where rolname like 'ferry%'"), "0");
    assert_eq!(beta.sql("show primary_conninfo"), "");
    // The old primary stays fenced if somebody starts it.
    alpha.start();
    assert!(alpha.asked("app", "select 1").expect_err("fenced").contains("pg_hba.conf rejects connection"));
}
