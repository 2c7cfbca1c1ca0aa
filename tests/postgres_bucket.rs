//! A cluster through a bucket by a pipeline: shipped, backed up, made anew on the other host, and taken back.

#[allow(dead_code, reason = "it is shared with the tests of the command line")]
#[path = "cli/bench.rs"]
mod bench;
mod lab;
#[path = "parts/mod.rs"]
mod parts;

use bench::Bench;
use lab::Lab;
use lab::postgres::{Cluster, Settings};
use parts::{NEW, Server};

/// Where a server keeps what a rollback must leave as it was.
fn outside(source: &Cluster<'_>) -> String {
    source.sql("select name, setting from pg_file_settings where error is null order by 1, 2; show archive_mode")
        + &source.host.says("ls -A /var/lib/postgresql /var/lib/postgresql/data | sort; ls -d /var/lib/postgresql/data/pg_wal/*/")
}

fn pipeline(lab: &Lab, bucket: &Server, rest: &str) -> String {
    format!(
        "name: through\n{}secrets: {{ key: {{ env: BUCKET_SECRET }} }}\nstores:\n  between: {{ scheme: s3, bucket: box, endpoint: 'http://10.77.0.1:{}', region: us-east-1, access_key_id: {}, secret_access_key: '{{{{ secrets.key }}}}' }}\n{rest}",
        lab.yaml(&["alpha", "beta"]),
        bucket.port,
        NEW.id
    )
}

const STEPS: &str = "defaults: { retry: { attempts: 1, interruptions: 1000 } }
steps:
  - id: log
    uses: postgres.wal_ship
    with: { from: alpha, to: 'between:prod/', restart: true }
  - id: base
    uses: postgres.base_backup
    needs: [log]
    with: { from: alpha, to: 'between:prod/' }
  - id: standby
    uses: postgres.restore
    with: { from: 'between:prod/', backup: '{{ steps.base.outputs.name }}', to: { host: beta, data: /var/lib/postgresql/data }, settings: { work_mem: 5MB } }
";

fn ran(bench: &Bench, args: &[&str], code: i32) -> bench::Ran {
    let output = bench.ferry(args).env("BUCKET_SECRET", NEW.secret).output().expect("the binary starts");
    bench::Ran::of(&output).exits(code)
}

#[test]
fn a_standby_on_the_other_side_follows_through_the_bucket_and_all_is_taken_back() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let Some(bucket) = parts::s3_on(Some("10.77.0.1"), &[NEW]) else { return };
    let alpha = lab.cluster("alpha", &Settings::full(1));
    let beta = lab.place("beta", &Settings::default());
    let before = outside(&alpha);
    bench.write("through.yaml", &pipeline(&lab, &bucket, STEPS));
    let plan = ran(&bench, &["plan", "through.yaml"], 0);
    assert!(plan.stdout.contains("restarts it for that") && plan.stdout.contains("backs up the cluster of `alpha`"), "{plan:?}");
    assert_eq!(outside(&alpha), before, "a plan changes nothing");
    assert!(!bucket.data.path().join("box/prod").exists());

    let run = ran(&bench, &["run", "through.yaml", "--yes"], 0);
    assert!(run.stdout.contains("succeeded"), "{run:?}");
    assert!(beta.is_in_recovery());
    assert_eq!(beta.sql("show work_mem"), "5MB");
    alpha.sql("create table late as select generate_series(1, 1000) n; select pg_switch_wal()");
    lab::until("the standby has it", || {
        beta.asked("app", "select count(*) from late").is_ok_and(|said| said == "1000").then_some(())
    });
    // The key is in files that only the servers' user may read, and in no process's arguments.
    for host in [alpha.host, beta.host] {
        assert_eq!(host.running(NEW.secret), 0);
        assert_eq!(host.says("stat -c '%U %a' /var/lib/postgresql/.ferry-*/archive.yaml | sort -u"), "postgres 600");
    }
    let journal = bench.path(".ferry/ferry.db");
    let kept = std::fs::read(journal).expect("it is there");
    assert!(!kept.windows(NEW.secret.len()).any(|part| part == NEW.secret.as_bytes()), "no secret is journaled");

    ran(&bench, &["rollback", "last", "--yes"], 0);
    assert_eq!(outside(&alpha), before, "nothing stays at the source");
    let left = beta.host.says("ls -A /var/lib/postgresql | grep -v '^tls$'; pgrep -u postgres postgres || true");
    assert_eq!(left, "", "nothing stays at the target");
    assert!(!bucket.data.path().join("box/prod/base").exists_with_something(), "no backup stays");
}

/// Whether a folder holds a file at any depth.
trait Holds {
    fn exists_with_something(&self) -> bool;
}

impl Holds for std::path::PathBuf {
    fn exists_with_something(&self) -> bool {
        std::fs::read_dir(self)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.path().is_file() || entry.path().exists_with_something())
    }
}

#[test]
fn a_runner_that_is_killed_again_and_again_comes_to_the_same_end() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let Some(bucket) = parts::s3_on(Some("10.77.0.1"), &[NEW]) else { return };
    let alpha = lab.cluster("alpha", &Settings { lines: vec!["archive_mode = on".to_owned()], ..Settings::full(5) });
    let beta = lab.place("beta", &Settings::default());
    bench.write("through.yaml", &pipeline(&lab, &bucket, STEPS));
    let mut kills = 0;
    for round in 0_u64.. {
        // Before its first event there is no run.
        let has_run = bench.ferry(&["show", "last"]).output().is_ok_and(|output| output.status.success());
        let args: &[&str] = if has_run { &["resume", "last"] } else { &["run", "through.yaml", "--yes"] };
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ferry"));
        command.args(args).current_dir(bench.path("")).env("BUCKET_SECRET", NEW.secret).env_remove("FERRY_STORE");
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let until = std::time::Instant::now() + std::time::Duration::from_millis(700 + round * 331 % 2900);
        let ended = loop {
            if let Some(status) = child.try_wait().expect("it can be asked") {
                break Some(status);
            }
            if kills < 8 && std::time::Instant::now() >= until {
                child.kill().expect("it runs");
                child.wait().expect("it ends");
                break None;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        match ended {
            None => kills += 1,
            Some(status) if status.success() => break,
            Some(status) => {
                let said = ran(&bench, &["show", "last"], 0);
                panic!("{status} after {kills} kills: {said:?}");
            }
        }
    }
    assert!(kills >= 3, "it was killed {kills} times");
    alpha.sql("create table late as select 1 as n; select pg_switch_wal()");
    lab::until("the standby has it", || beta.asked("app", "select n from late").is_ok_and(|said| said == "1").then_some(()));
    let sum = "select count(*), sum(hashtext(t::text)::bigint) from pgbench_accounts t";
    assert_eq!(beta.sql(sum), alpha.sql(sum));
    let backups = std::fs::read_dir(bucket.data.path().join("box/prod/base")).expect("there").count();
    assert_eq!(backups, 1);
}
