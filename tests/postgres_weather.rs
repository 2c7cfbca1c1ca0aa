//! `postgres.replica` in bad weather: load, cuts, full disks, lost slots, kills; and the source goes on untouched.

#[allow(dead_code, reason = "it is shared with the tests of the command line")]
#[path = "cli/bench.rs"]
mod bench;
mod lab;

use std::time::Duration;

use bench::Bench;
use lab::link::Weather;
use lab::postgres::{Cluster, Settings};
use lab::{Lab, until};

/// A pipeline that makes a standby of alpha on beta; `more` are further keys of the step's `with`.
fn pipeline(lab: &Lab, more: &str) -> String {
    let config = lab.folder().join("config");
    let host = |name: &str| format!("  {name}: {{ ssh: {name}, user: root, config: \"{}\" }}\n", config.display());
    format!(
        "hosts:\n{}{}steps:\n  - id: replica\n    uses: postgres.replica\n    retry: {{ attempts: 8, initial: 500ms, max: 1s }}\n\
         \x20   with: {{ from: alpha, to: beta{more} }}\n\
         \x20 - id: close\n    uses: postgres.catch_up\n    with: {{ replica: \"{{{{ steps.replica.outputs }}}}\", for: 200ms }}\n",
        host("alpha"),
        host("beta")
    )
}

/// What a source is like, apart from its data.
fn outside(source: &Cluster<'_>) -> String {
    let asked = "select rolname from pg_roles order by 1; select slot_name from pg_replication_slots; select name, setting from pg_file_settings";
    source.sql(asked) + &std::fs::read_to_string(source.file("pg_hba.conf")).expect("it has one")
}

fn copying(source: &Cluster<'_>) -> bool {
    source.sql("select count(*) from pg_stat_progress_basebackup where backup_streamed > 1000000") == "1"
}

fn follows(source: &Cluster<'_>, standby: &Cluster<'_>) {
    source.sql("create table if not exists marker (n int); truncate marker; insert into marker values (4711)");
    until("the standby has it", || (standby.asked("app", "select n from marker").ok()? == "4711").then_some(()));
    assert!(standby.is_in_recovery());
}

/// What is left of a standby at the target, and of its processes.
fn left(standby: &Cluster<'_>) -> String {
    standby.host.says("ls -A /var/lib/postgresql | grep -v '^tls$'; pgrep -u postgres -l . || true")
}

#[test]
fn a_copy_under_load_costs_clients_no_error() {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    let alpha = lab.cluster("alpha", &Settings::full(1));
    let beta = lab.place("beta", &Settings::default());
    let pooler = lab.pooler("gate", alpha.address(), alpha.port);
    let mut load = lab.load(&pooler.url(), 16, &[]);
    let written = || alpha.sql("select count(*) from pgbench_history").parse().expect("a number");
    load.under_way(written);
    bench.write("copy.yaml", &pipeline(&lab, ", max_rate: 20MB/s"));
    bench.run(&["run", "copy.yaml", "--yes"]).exits(0);
    load.under_way(written);
    let figures = load.stop();
    assert_eq!((figures.failed, figures.aborted), (0, 0), "{}", figures.text);
    let all = figures.acknowledged.to_string();
    until("the standby has all", || (beta.sql("select count(*) from pgbench_history") == all).then_some(()));
    follows(&alpha, &beta);
}

#[test]
fn a_cut_network_and_a_slot_that_has_lost_its_wal_cost_attempts_of_a_copy() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let lines = [
        "max_slot_wal_keep_size = 16MB",
        "wal_keep_size = 0",
        "min_wal_size = 32MB",
        "max_wal_size = 32MB",
        "wal_sender_timeout = 2s",
    ];
    let settings = Settings { lines: lines.map(str::to_owned).to_vec(), ..Settings::full(1) };
    let (alpha, beta) = (lab.cluster("alpha", &settings), lab.place("beta", &Settings::default()));
    bench.write("copy.yaml", &pipeline(&lab, ", max_rate: 12MB/s"));
    let runner = bench.start(&["run", "copy.yaml", "--yes"]);
    until("it copies", || copying(&alpha).then_some(()));
    beta.host.cut();
    alpha.sql("create table much as select repeat('x', 1000) from generate_series(1, 40000)");
    until("the slot has lost its WAL", || {
        alpha.sql("select pg_switch_wal(); checkpoint");
        (alpha.sql("select wal_status from pg_replication_slots") == "lost").then_some(())
    });
    beta.host.mend();
    let ran = runner.ends().exits(0);
    assert!(ran.stdout.contains("attempt") || ran.stderr.contains("attempt"), "{ran:?}");
    follows(&alpha, &beta);
}

#[test]
fn a_link_that_gets_worse_and_better_in_mid_copy_is_only_that() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.cluster("alpha", &Settings::full(1)), lab.place("beta", &Settings::default()));
    let link = |delay: u64, rate: u64, loss: f64| Weather {
        delay: Duration::from_millis(delay),
        rate: Some(rate),
        loss,
        ..Weather::default()
    };
    beta.host.weather(link(5, 100_000_000, 0.0));
    bench.write("copy.yaml", &pipeline(&lab, ", compress: lz4, max_rate: 8MB/s"));
    let runner = bench.start(&["run", "copy.yaml", "--yes"]);
    until("it copies", || copying(&alpha).then_some(()));
    beta.host.weather(link(40, 8_000_000, 0.005));
    std::thread::sleep(Duration::from_secs(2));
    beta.host.weather(link(2, 400_000_000, 0.0));
    runner.ends().exits(0);
    follows(&alpha, &beta);
}

#[test]
fn a_full_disk_at_the_target_is_said_and_the_source_goes_on() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.cluster("alpha", &Settings::full(1)), lab.place("beta", &Settings::default()));
    let before = outside(&alpha);
    beta.host
        .says(&format!("mkdir -m 700 {0} && mount -t tmpfs -o size=100m,mode=700 tmpfs {0} && chown postgres {0}", beta.data));
    bench.write("copy.yaml", &pipeline(&lab, ", max_rate: 10MB/s"));
    let plan = bench.run(&["plan", "copy.yaml"]);
    assert_ne!(plan.code, Some(0), "{plan:?}");
    assert!((plan.stdout.clone() + &plan.stderr).contains("free, and the copy needs"), "{plan:?}");
    // Enough in the plan, and then somebody else takes it.
    beta.host.says(&format!("mount -o remount,size=600m {}", beta.data));
    let runner = bench.start(&["run", "copy.yaml", "--yes"]);
    until("it copies", || copying(&alpha).then_some(()));
    beta.host.says(&format!("mount -o remount,size=30m {}", beta.data));
    let ran = runner.ends();
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!((ran.stdout.clone() + &ran.stderr).contains("No space left"), "{ran:?}");
    alpha.sql("create table goes_on (n int)");
    beta.host.says(&format!("mount -o remount,size=600m {}", beta.data));
    bench.run(&["resume", "last"]).exits(0);
    follows(&alpha, &beta);
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert_eq!(outside(&alpha), before);
    assert_eq!(beta.host.says(&format!("ls -A {}", beta.data)), "", "the mount stays, and nothing is in it");
}

#[test]
fn a_directory_that_is_not_empty_is_never_touched() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.cluster("alpha", &Settings::default()), lab.cluster("beta", &Settings::default()));
    beta.sql("create table precious as select 1 as n");
    bench.write("copy.yaml", &pipeline(&lab, ""));
    for command in [["plan", "copy.yaml"].as_slice(), &["run", "copy.yaml", "--yes"]] {
        let refused = bench.run(command);
        assert_ne!(refused.code, Some(0), "{refused:?}");
        assert!((refused.stdout.clone() + &refused.stderr).contains("is not empty"), "{refused:?}");
    }
    // Not even when it is filled between the plan and the copy.
    bench.run(&["rollback", "last", "--yes"]);
    assert_eq!(beta.sql("select n from precious"), "1");
    assert_eq!(alpha.sql("select count(*) from pg_roles where rolname like 'ferry%'"), "0");
}

#[test]
fn programs_of_another_version_are_refused_by_the_plan() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (_alpha, beta) = (lab.cluster("alpha", &Settings::default()), lab.place("beta", &Settings::default()));
    let bin = lab::template::programs().0.display();
    beta.host.says(&format!(
        "mkdir /srv/bin && ln -s {bin}/* /srv/bin && rm /srv/bin/pg_ctl && echo 'echo pg_ctl \\(PostgreSQL\\) 11.4' >/srv/bin/pg_ctl && chmod 755 /srv/bin/pg_ctl"
    ));
    bench.write("copy.yaml", &pipeline(&lab, "").replace("to: beta", "to: { host: beta, bin: /srv/bin }"));
    let plan = bench.run(&["plan", "copy.yaml"]);
    assert_ne!(plan.code, Some(0), "{plan:?}");
    assert!((plan.stdout.clone() + &plan.stderr).contains("it says `pg_ctl (PostgreSQL) 11.4`"), "{plan:?}");
    assert_eq!(left(&beta), "");
}

#[test]
fn a_wrong_password_is_told_and_changes_nothing() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.cluster("alpha", &Settings::default()), lab.place("beta", &Settings::default()));
    alpha.sql("create role mover login replication password 'right-canary'");
    let hba = alpha.file("pg_hba.conf");
    let text = std::fs::read_to_string(&hba).expect("it has one");
    std::fs::write(&hba, text + "hostssl replication mover 10.77.0.20/32 scram-sha-256\n").expect("written");
    alpha.sql("select pg_reload_conf()");
    let before = outside(&alpha);
    let with_password = |value: &str| {
        bench.write("password", value);
        let secrets = format!("secrets: {{ word: {{ file: {} }} }}\n", bench.path("password").display());
        bench.write("copy.yaml", &(secrets + &pipeline(&lab, ", user: mover, password: \"{{ secrets.word }}\"")));
    };
    with_password("wrong-canary");
    let ran = bench.run(&["run", "copy.yaml", "--yes"]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    let said = ran.stdout.clone() + &ran.stderr;
    assert!(said.contains("password authentication failed") && !said.contains("wrong-canary"), "{ran:?}");
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert_eq!(outside(&alpha), before);
    assert_eq!(left(&beta), "");
    with_password("right-canary");
    bench.run(&["run", "copy.yaml", "--yes"]).exits(0);
    follows(&alpha, &beta);
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert_eq!(outside(&alpha), before);
    assert_eq!(left(&beta), "");
}

#[test]
fn a_runner_that_is_killed_at_each_event_is_resumed_or_rolled_back_without_a_trace() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.cluster("alpha", &Settings::default()), lab.place("beta", &Settings::default()));
    let before = outside(&alpha);
    bench.write("copy.yaml", &pipeline(&lab, ""));
    let all = std::env::var("FERRY_KILLS").is_ok();
    let mut kills = 0;
    // The first ones, then fewer and fewer; all of them in `make sweep`.
    for moment in (0..).scan(0, |moment, step| Some(std::mem::replace(moment, *moment + if all { 1 } else { 1 + step }))) {
        let mut runner = bench.start(&["run", "copy.yaml", "--yes", "--json"]);
        let was_killed = runner.kill_at_line(moment);
        if was_killed {
            kills += 1;
            if kills % 2 == 0 {
                bench.run(&["resume", "last", "--yes"]).exits(0);
                follows(&alpha, &beta);
            }
        } else {
            follows(&alpha, &beta);
        }
        bench.run(&["rollback", "last", "--yes"]);
        alpha.sql("drop table if exists marker");
        assert_eq!(outside(&alpha), before, "killed at event {moment}");
        assert_eq!(left(&beta), "", "killed at event {moment}");
        if !was_killed {
            break;
        }
    }
    assert!(kills > 3, "only {kills} kills");
}
