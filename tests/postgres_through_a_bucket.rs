//! pipelines/postgres-through-a-bucket.yaml in the lab, as it stands: two hosts that cannot reach each other, a bucket that
//! both reach, clients that write. Killed in the pause and resumed, rolled back before the pivot, the bucket silent when the
//! last of the log has to go through it.

#[allow(dead_code, reason = "it is shared with the tests of the command line")]
#[path = "cli/bench.rs"]
mod bench;
mod lab;
#[path = "parts/mod.rs"]
mod parts;

use std::time::Duration;

use bench::Bench;
use lab::ledger::{Habit, Ledger};
use lab::pooler::Pooler;
use lab::postgres::{Cluster, Settings};
use lab::template::APP;
use lab::{Lab, until};
use parts::{NEW, Server};

/// The inputs of the pipeline for this lab.
const RUN: [&str; 16] = [
    "run",
    "move.yaml",
    "--yes",
    "--json",
    "-i",
    "bucket=box",
    "-i",
    "source=root@alpha",
    "-i",
    "target=root@beta",
    "-i",
    "gate=root@gate",
    "-i",
    "route=10.77.0.30:6432",
    "-i",
    "data=/var/lib/postgresql/data",
];

/// Two servers that cannot reach each other, and what else a move needs.
struct Move<'a> {
    bench: Bench,
    bucket: Server,
    alpha: Cluster<'a>,
    beta: Cluster<'a>,
    pooler: Pooler<'a>,
}

impl<'a> Move<'a> {
    /// `None` where the bucket's server is missing.
    fn new(lab: &'a Lab, settings: &Settings) -> Option<Self> {
        let bucket = parts::s3_on(Some("10.77.0.1"), &[NEW])?;
        let bench = Bench::new();
        let lines = vec!["archive_mode = on".to_owned()];
        let alpha = lab.cluster("alpha", &Settings { lines, ..settings.clone() });
        let beta = lab.place("beta", &Settings::default());
        alpha.host.says(&format!("ip route add blackhole {}/32", beta.address()));
        beta.host.says(&format!("ip route add blackhole {}/32", alpha.address()));
        let pooler = lab.pooler("gate", alpha.address(), alpha.port);
        let made = Self { bench, bucket, alpha, beta, pooler };
        made.write(lab, "");
        Some(made)
    }

    /// The pipeline as it stands, but for the lab's keys, passwords, the bucket's address and its patience; and more steps.
    fn write(&self, lab: &Lab, more: &str) {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/postgres-through-a-bucket.yaml"));
        let mut text = text.expect("it is there");
        let mut change = |old: &str, new: &str| {
            assert!(text.contains(old), "the pipeline has changed: {old}");
            text = text.replace(old, new);
        };
        for (name, value) in [("APP_PASSWORD", APP.1), ("BUCKET_KEY", NEW.id), ("BUCKET_SECRET", NEW.secret)] {
            let path = self.bench.write(name, value);
            change(&format!("env: {name}"), &format!("file: {}", path.display()));
        }
        let config = lab.folder().join("config").display().to_string();
        for host in ["source", "target", "gate"] {
            let line = format!("{host}: {{ ssh: \"{{{{ inputs.{host} }}}}\"");
            change(&line, &format!("{line}, config: \"{config}\""));
        }
        let endpoint = format!("endpoint: 'http://10.77.0.1:{}'", self.bucket.port);
        change("    scheme: s3\n", &format!("    scheme: s3\n    {endpoint}\n"));
        change("initial: 5s", "initial: 500ms");
        change("\noutputs:\n", &format!("{more}\noutputs:\n"));
        self.bench.write("move.yaml", &text);
    }

    /// Clients of all kinds: through the pooler, and past it straight to a server.
    fn writers(&self) -> Ledger {
        self.alpha.ledger(&[
            ("kept", self.pooler.url(), Habit::Keeps),
            ("fresh", self.pooler.url(), Habit::Anew),
            ("past", self.alpha.url(), Habit::Keeps),
            ("alpha", self.alpha.url(), Habit::Anew),
            ("beta", self.beta.url(), Habit::Anew),
        ])
    }

    /// What the source is like, apart from its data.
    fn outside(&self) -> String {
        let asked = "select name, setting from pg_file_settings where error is null order by 1, 2; show archive_mode";
        self.alpha.sql(asked)
            + &std::fs::read_to_string(self.alpha.file("pg_hba.conf")).expect("it has one")
            + &self
                .alpha
                .host
                .says("ls -A /var/lib/postgresql | grep -v '^log$' | sort; ls -d /var/lib/postgresql/data/pg_wal/*/")
    }

    /// What is left at the target's and the pooler's host, where nothing should be.
    fn left(&self) -> (String, String) {
        let beta = self.beta.host.says("ls -A /var/lib/postgresql | grep -v '^tls$'; pgrep -u postgres -l . || true");
        (beta, self.pooler.host.says("ls /etc/pgbouncer; pgrep -f '[w]atchdog' || true"))
    }
}

/// A client whose transaction ends when this is dropped.
struct Held(std::process::Child);

impl Held {
    /// Whether it has begun.
    fn begin(url: &str) -> (Self, bool) {
        let mut psql = std::process::Command::new("setpriv");
        psql.args(["--pdeathsig", "KILL"]).arg(lab::template::programs().0.join("psql")).args(["-XAtq", url]);
        psql.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut psql = psql.spawn().expect("psql is there");
        std::io::Write::write_all(psql.stdin.as_mut().expect("a pipe"), b"begin; select 'begun';\n").expect("it listens");
        let mut said = [0; 5];
        let has_begun = std::io::Read::read_exact(psql.stdout.as_mut().expect("a pipe"), &mut said).is_ok();
        (Self(psql), has_begun && said == *b"begun")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // At the end of its input it ends, and its transaction with it.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// For those who read the output.
#[expect(clippy::print_stdout, reason = "what was seen is worth more than that it passed")]
fn tell(text: &str) {
    println!("{text}");
}

#[test]
fn a_cluster_moves_between_hosts_that_cannot_reach_each_other_without_an_error_and_without_a_lost_write() {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    let Some(it) = Move::new(&lab, &Settings::full(2)) else { return };
    let (alpha, beta) = (&it.alpha, &it.beta);
    let before = it.outside();
    let plan = it.bench.run(&[&["plan", "move.yaml"], &RUN[4..]].concat()).exits(0);
    assert!(plan.stdout.contains("pivot") && it.outside() == before, "{plan:?}");

    let ledger = it.writers();
    let mut load = lab.load(&it.pooler.url(), 8, &[]);
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));
    let ran = it.bench.run(&RUN).exits(0);
    load.under_way(|| beta.sql("select count(*) from pgbench_history").parse().expect("a number"));
    ledger.under_way();
    let (figures, seen) = (load.stop(), ledger.stop());

    assert_eq!((figures.failed, figures.aborted), (0, 0), "{}", figures.text);
    assert_eq!(beta.sql("select count(*) from pgbench_history"), figures.acknowledged.to_string());
    for client in ["kept", "fresh"] {
        assert!(seen.client(client).errors.is_empty(), "{client}: {:?}", seen.client(client).errors);
    }
    let written = seen.is_whole_on(beta);
    seen.never_both("alpha", "beta");
    seen.never_both("past", "beta");
    let told = |what: &str| ran.stdout.lines().filter(|line| line.contains(what)).collect::<Vec<_>>().join("\n");
    tell(&told("the pause is over"));
    tell(&told("forecast of the pause"));
    tell(&format!("{} transactions, {written} in the ledger; gap {:?}", figures.acknowledged, seen.client("kept").gap()));
    let ended = ran.stdout.lines().last().unwrap_or_default();
    tell(ended);
    let outputs: serde_json::Value = serde_json::from_str(ended).expect("JSON");
    let outputs = &outputs["outputs"];
    assert_eq!((&outputs["primary"], &outputs["errors"]), (&"target".into(), &0.into()), "{ended}");
    assert_eq!(outputs["tables_equal"], true, "{ended}");
    assert_eq!(outputs["exactly_once"], outputs["acknowledged"], "{ended}");

    // The new primary is one, and nothing of the move is left on it; the old one lets nobody in.
    assert!(!beta.is_in_recovery() && !alpha.runs());
    assert_eq!(beta.sql("show restore_command; show archive_mode; show primary_conninfo"), "off");
    assert_eq!(beta.host.says("ls -A /var/lib/postgresql | grep -v '^tls$'"), "data");
    assert_eq!(it.left().1, "pgbouncer.ini\nuserlist.txt");
    alpha.start();
    assert!(alpha.asked("app", "select 1").expect_err("fenced").contains("pg_hba.conf rejects connection"));
}

/// One move in a lab of its own whose runner is killed some time after it has told this; then it is taken up again, or
/// rolled back if it can be.
fn life(told: &str, later: Duration, goes_back: bool) {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    let Some(it) = Move::new(&lab, &Settings::default()) else { return };
    let (alpha, beta) = (&it.alpha, &it.beta);
    let ledger = it.writers();
    ledger.under_way();
    let before = it.outside();
    let mut runner = it.bench.start(&RUN);
    let killed = runner.kill_after(told, later);
    let what = format!("killed {later:?} after `{told}` ({killed})");
    if killed && goes_back && it.bench.run(&["rollback", "last", "--yes"]).code == Some(0) {
        // As it was, and serving.
        ledger.under_way();
        let seen = ledger.stop();
        assert!(seen.client("beta").acknowledged.is_empty(), "{what}");
        assert!(seen.is_whole_on(alpha) > 100, "{what}");
        assert_eq!(it.outside(), before, "{what}");
        assert_eq!(it.left(), (String::new(), "pgbouncer.ini\nuserlist.txt".to_owned()), "{what}");
        tell(&format!("{what}: rolled back; gap {:?}", seen.client("kept").gap()));
        return;
    }
    if killed {
        let resumed = it.bench.run(&["resume", "last", "--yes"]);
        assert_eq!(resumed.code, Some(0), "{what}: {resumed:?}");
    }
    until("the new primary serves", || beta.asked("app", "select 1").ok());
    ledger.under_way();
    let seen = ledger.stop();
    assert!(!beta.is_in_recovery() && !alpha.runs(), "{what}");
    seen.never_both("alpha", "beta");
    seen.never_both("past", "beta");
    assert!(seen.is_whole_on(beta) > 100, "{what}");
    tell(&format!("{what}: went forward; gap {:?}, errors {:?}", seen.client("kept").gap(), seen.client("kept").errors));
}

#[test]
fn a_runner_that_is_killed_while_the_last_segment_is_on_its_way_goes_on_without_a_lost_write() {
    life("the pause begins", Duration::from_millis(150), false);
}

#[test]
fn a_runner_that_is_killed_before_the_pivot_is_rolled_back_and_the_source_serves_and_archives_as_it_did() {
    life("the pause begins", Duration::ZERO, true);
}

/// `make sweep` asks for more.
#[test]
fn a_runner_that_is_killed_at_any_moment_of_the_handover_never_makes_two_primaries() {
    let kills = std::env::var("FERRY_KILLS").ok().and_then(|kills| kills.parse::<u32>().ok()).unwrap_or(1);
    for kill in 0..kills {
        life("both servers write a checkpoint", Duration::from_millis(rand::random_range(0..4000)), kill % 2 == 0);
    }
}

#[test]
fn a_bucket_that_is_silent_in_the_pause_costs_an_attempt_and_nothing_else() {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    let Some(it) = Move::new(&lab, &Settings::default()) else { return };
    let (alpha, beta) = (&it.alpha, &it.beta);
    let ledger = it.writers();
    let mut runner = it.bench.start(&[&RUN, ["-i", "max_pause=15s"].as_slice()].concat());
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill").args([format!("-{name}"), it.bucket.process().to_string()]).status();
        assert!(sent.expect("`kill` runs").success());
    };
    // A client in the middle of a transaction: the pause begins, and waits for it.
    assert!(runner.tells("forecast of the pause"), "{:?}", runner.ends());
    let (held, at_work) = Held::begin(&it.pooler.url());
    assert!(at_work && runner.tells("the pause begins"), "{:?}", runner.ends());
    signal("STOP");
    drop(held);
    // The fence stands, the last segment does not come, and all is put back: who was held back goes on at the old server.
    until("the fence stands", || alpha.asked("app", "select 1").err());
    until("it is lifted", || alpha.asked("app", "select 1").ok());
    ledger.under_way();
    assert!(beta.is_in_recovery() && alpha.runs());
    signal("CONT");
    let ran = runner.ends();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    until("the new primary serves", || beta.asked("app", "select 1").ok());
    ledger.under_way();
    let seen = ledger.stop();
    for client in ["kept", "fresh"] {
        assert!(seen.client(client).errors.is_empty(), "{client}: {:?}", seen.client(client).errors);
    }
    assert!(!beta.is_in_recovery() && !alpha.runs());
    seen.never_both("alpha", "beta");
    assert!(seen.is_whole_on(beta) > 100);
    tell(&format!("gap {:?}", seen.client("kept").gap()));
}

#[test]
fn the_old_primary_follows_where_there_is_a_way_and_where_there_is_none_it_is_said() {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    let Some(it) = Move::new(&lab, &Settings::default()) else { return };
    let (alpha, beta) = (&it.alpha, &it.beta);
    let back = "\n  - id: back\n    uses: postgres.failback\n    retry: { attempts: 1 }\n    with: { cutover: \"{{ steps.cutover.outputs }}\" }\n";
    it.write(&lab, back);
    let ran = it.bench.run(&RUN);
    let said = it.bench.run(&["show", "last"]).stdout;
    assert!(ran.code != Some(0) && said.contains("reaches no server"), "{ran:?}\n{said}");
    assert!(!beta.is_in_recovery() && !alpha.runs(), "the cutover stands");
    assert!(!std::fs::read_to_string(beta.file("pg_hba.conf")).expect("it has one").contains("ferry"), "nothing was changed");
    alpha.host.says(&format!("ip route del blackhole {}/32", beta.address()));
    beta.host.says(&format!("ip route del blackhole {}/32", alpha.address()));
    it.bench.run(&["resume", "last", "--yes"]).exits(0);
    beta.sql("create table since as select 1 as n");
    until("it follows", || (alpha.asked("app", "select n from since").as_deref() == Ok("1")).then_some(()));
    assert!(alpha.is_in_recovery());
}
