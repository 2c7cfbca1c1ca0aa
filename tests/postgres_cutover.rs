//! `postgres.cutover` in the lab: clients write through it and lose nothing.

#[allow(dead_code, reason = "it is shared with the tests of the command line")]
#[path = "cli/bench.rs"]
mod bench;
mod lab;

use bench::Bench;
use lab::Lab;
use lab::postgres::Settings;

/// From alpha to beta, behind the pooler on gate.
fn steps(more: &str) -> String {
    format!(
        "steps:\n  - id: replica\n    uses: postgres.replica\n    with: {{ from: alpha, to: beta }}\n\
         \x20 - id: cutover\n    uses: postgres.cutover\n    pivot: true\n    with:\n      replica: \"{{{{ steps.replica.outputs }}}}\"\n\
         \x20     routers:\n        - pgbouncer: {{ host: gate }}\n{more}"
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
    bench.run(&["run", "move.yaml", "--yes"]).exits(0);
    load.under_way(|| beta.sql("select count(*) from pgbench_history").parse().expect("a number"));
    let figures = load.stop();
    assert_eq!((figures.failed, figures.aborted), (0, 0), "{figures:?}");
    assert!(!beta.is_in_recovery() && !alpha.runs());
    assert_eq!(lab.host("gate").running("watchdog") + lab.host("gate").running("sleep"), 0);
    let left = lab.host("gate").says("ls -A /tmp /etc/pgbouncer | grep ferry; true");
    assert_eq!(left, "", "nothing is left beside others' files");
    let rows: u64 = beta.sql("select count(*) from pgbench_history").parse().expect("a number");
    assert_eq!(rows, figures.acknowledged, "each acknowledged transaction is there exactly once");
    assert_eq!(beta.sql("select count(*) from pg_roles where rolname like 'ferry%'"), "0");
    assert_eq!(beta.sql("show primary_conninfo"), "");
    let rules = std::fs::read_to_string(beta.file("pg_hba.conf")).expect("it has one");
    assert!(!rules.contains("ferry"), "{rules}");
    // The old primary stays fenced if somebody starts it.
    alpha.start();
    assert!(alpha.asked("app", "select 1").expect_err("fenced").contains("pg_hba.conf rejects connection"));
}

#[test]
fn a_pooler_that_takes_any_database_is_held_as_a_whole() {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    let alpha = lab.cluster("alpha", &Settings::full(1));
    let beta = lab.place("beta", &Settings::default());
    let pooler = lab.pooler("gate", alpha.address(), alpha.port);
    let file = pooler.host.path(lab::pooler::INSIDE).join("pgbouncer.ini");
    let text = std::fs::read_to_string(&file).expect("it is there");
    let any = text.replace("app = ", "* = ").replace(" dbname=app", "");
    // One that stays elsewhere would be held with it: that is refused before anything is held.
    std::fs::write(&file, any.replace("* = ", "other = host=10.77.0.99\n* = ")).expect("written");
    pooler.admin("reload");
    bench.write("move.yaml", &(lab.yaml(&["alpha", "beta", "gate"]) + &steps("")));
    // The plan says so before there is a standby.
    let said = bench.run(&["plan", "move.yaml"]).exits(0).stdout;
    assert!(said.contains("! cutover") && said.contains("lead to more than one server: `*` is another's"), "{said}");
    assert!(said.contains("an earlier step may bring it"), "{said}");
    let said = bench.run(&["run", "move.yaml", "--yes"]).exits(1).stderr;
    assert!(said.contains("lead to more than one server: `*` is another's"), "{said}");
    std::fs::write(&file, any).expect("written");
    pooler.admin("reload");
    let mut load = lab.load(&pooler.url(), 8, &[]);
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));
    bench.run(&["resume", "last"]).exits(0);
    load.under_way(|| beta.sql("select count(*) from pgbench_history").parse().expect("a number"));
    let figures = load.stop();
    assert_eq!((figures.failed, figures.aborted), (0, 0), "{}\n{}", figures.text, pooler.log());
    assert_eq!(beta.sql("select count(*) from pgbench_history"), figures.acknowledged.to_string());
    assert!(std::fs::read_to_string(&file).expect("it is there").contains("* = host=10.77.0.20 port=5432\n"));
}

/// The old primary follows, and the same cutover goes back.
const BACK: &str = "  - id: back\n    uses: postgres.failback\n    with: { cutover: \"{{ steps.cutover.outputs }}\" }\n\
    \x20 - id: home\n    uses: postgres.cutover\n    needs: [back]\n    with:\n      replica: \"{{ steps.back.outputs }}\"\n      routers:\n\
    \x20       - pgbouncer: { host: gate }\n";

#[test]
fn it_goes_there_and_back_again_while_clients_write() {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    let alpha = lab.cluster("alpha", &Settings::full(1));
    let beta = lab.place("beta", &Settings::default());
    let pooler = lab.pooler("gate", alpha.address(), alpha.port);
    let rules = std::fs::read_to_string(alpha.file("pg_hba.conf")).expect("it has one");
    bench.write("move.yaml", &(lab.yaml(&["alpha", "beta", "gate"]) + &steps(BACK)));
    let mut load = lab.load(&pooler.url(), 4, &[]);
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));
    bench.run(&["run", "move.yaml", "--yes"]).exits(0);
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));
    let figures = load.stop();
    assert_eq!((figures.failed, figures.aborted), (0, 0), "{figures:?}");
    assert!(!alpha.is_in_recovery() && !beta.runs());
    let rows: u64 = alpha.sql("select count(*) from pgbench_history").parse().expect("a number");
    assert_eq!(rows, figures.acknowledged, "each acknowledged transaction is there exactly once");
    assert_eq!(std::fs::read_to_string(alpha.file("pg_hba.conf")).expect("it has one"), rules);
    assert_eq!(
        alpha.sql("select timeline_id from pg_control_checkpoint(); select count(*) from pg_roles where rolname like 'ferry%'"),
        "3\n0"
    );
}

#[test]
fn an_old_primary_that_has_written_more_is_rewound() {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    let alpha = lab.cluster("alpha", &Settings::default());
    let beta = lab.place("beta", &Settings::default());
    lab.pooler("gate", alpha.address(), alpha.port);
    // Its start and its end write checkpoints behind the fork.
    let control = format!("{}/pg_ctl -s -D {}", lab::template::programs().0.display(), alpha.data);
    let more = format!(
        "  - id: tail\n    uses: command\n    on: alpha\n    needs: [cutover]\n\
         \x20   with: {{ become: postgres, run: \"{control} -l /tmp/log start && {control} stop\" }}\n\
         \x20 - id: back\n    uses: postgres.failback\n    needs: [tail]\n    with: {{ cutover: \"{{{{ steps.cutover.outputs }}}}\" }}\n"
    );
    bench.write("move.yaml", &(lab.yaml(&["alpha", "beta", "gate"]) + &steps(&more)));
    bench.run(&["run", "move.yaml", "--yes"]).exits(0);
    let log = bench.run(&["logs", "last", "back"]).stdout;
    assert!(log.contains("it is rewound"), "{log}");
    beta.sql("create table since (n int); insert into since values (1)");
    lab::until("it follows", || (alpha.asked("app", "select n from since").as_deref() == Ok("1")).then_some(()));
    assert!(alpha.is_in_recovery());
}

#[test]
fn what_was_acknowledged_before_it_was_on_the_disk_is_not_lost() {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    // Nobody flushes for a long time but who has to.
    let lazy = ["synchronous_commit = off", "wal_writer_delay = 10s", "wal_writer_flush_after = 1GB"];
    let alpha = lab.cluster("alpha", &Settings { lines: lazy.map(str::to_owned).to_vec(), ..Settings::full(1) });
    let beta = lab.place("beta", &Settings::default());
    let pooler = lab.pooler("gate", alpha.address(), alpha.port);
    bench.write("move.yaml", &(lab.yaml(&["alpha", "beta", "gate"]) + &steps("")));
    let mut load = lab.load(&pooler.url(), 8, &[]);
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));
    bench.run(&["run", "move.yaml", "--yes"]).exits(0);
    load.under_way(|| beta.sql("select count(*) from pgbench_history").parse().expect("a number"));
    let figures = load.stop();
    assert_eq!((figures.failed, figures.aborted), (0, 0), "{figures:?}");
    assert_eq!(beta.sql("select count(*) from pgbench_history"), figures.acknowledged.to_string());
}
