//! How fast a PostgreSQL cluster is copied, backed up, restored and archived, against `pg_basebackup`, pgBackRest and
//! what people write into `archive_command` by hand.
//!
//! `make bench-postgres` prints a table; `docs/performance.md` holds the last one. All of it happens in a lab of two hosts
//! (`tests/lab/`), whose databases lie in memory: what waits for a disk is the same for all, and would hide the rest. Each
//! run is a whole process, one way after the other, round after round.

#[path = "../../tests/lab/mod.rs"]
mod lab;
mod log;
mod rounds;

use std::io::Write as _;
use std::process::{Command, Stdio};

use lab::Lab;
use lab::postgres::{Cluster, Settings};
use lab::template::POSTGRES;
use rounds::{Row, Used, timed};

const HOME: &str = "/var/lib/postgresql";
const FERRY: &str = "/srv/ferry";

/// What both sides use: two processes, zstd, the same level. pgBackRest as it is fastest: small files in bundles, no look at
/// pages' own checksums (ferry takes none either), nothing waits for the archive, which ferry does.
const PGBACKREST: &str = "[global]\nrepo1-path=/var/lib/postgresql/repo\nrepo1-bundle=y\ncompress-type=zst\ncompress-level=3\n\
    process-max=2\nstart-fast=y\narchive-check=n\nchecksum-page=n\nexpire-auto=n\nlog-level-console=error\nlog-level-file=off\n\
    lock-path=/tmp/pgbackrest\nspool-path=/var/lib/postgresql/spool\narchive-async=y\narchive-get-queue-max=256MB\n\
    [main]\npg1-path=/var/lib/postgresql/data\npg1-socket-path=/run/postgresql\n";
const ARCHIVE: &str = "place: /var/lib/postgresql/depot/\nat_once: 2\nlevel: 3\n";

/// What is measured.
struct Bench<'a> {
    lab: &'a Lab,
    alpha: Cluster<'a>,
    beta: Cluster<'a>,
    folder: tempfile::TempDir,
    ferry: std::path::PathBuf,
    rounds: usize,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let text = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
    let number = |name: &str, usual: usize| text(name).and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (scale, segments, rounds) = (number("--scale", 50), number("--segments", 48), number("--rounds", 3));
    let job = text("--job").unwrap_or_default();
    let lab = Lab::new(&["alpha", "beta"]);
    let ferry = std::env::var_os("FERRY").map_or_else(|| env!("CARGO_BIN_EXE_ferry").into(), std::path::PathBuf::from);
    // A file in `archive_status` for every segment, and nobody who archives them.
    let lines =
        ["archive_mode = on", "archive_command = ''", "shared_buffers = 256MB", "max_wal_size = 8GB", "wal_compression = off"];
    let settings = Settings { lines: lines.map(str::to_owned).to_vec(), ..Settings::default() };
    let alpha = lab.cluster("alpha", &settings);
    let beta = lab.place("beta", &Settings::default());
    let folder = tempfile::tempdir().expect("a folder");
    let bench = Bench { lab: &lab, alpha, beta, folder, ferry, rounds };
    bench.prepare(scale);
    let bytes: f64 = bench.alpha.sql("select sum(pg_database_size(oid)) from pg_database").parse().expect("a number");
    let mut rows = Vec::new();
    if job.is_empty() || job == "copy" {
        rows.extend(bench.copies());
    }
    if job.is_empty() || job == "backup" {
        rows.extend(bench.backups());
    }
    if job.is_empty() || job == "log" {
        rows.extend(bench.log(segments));
    }
    let version = |program: &str| {
        let output = Command::new(program).arg(if program == "pgbackrest" { "version" } else { "--version" }).output();
        output
            .map(|output| String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
            .unwrap_or_default()
    };
    let table = format!(
        "{}\n{:.0} MB of databases, {segments} segments of 16 MiB, {rounds} rounds; {}, {}, {}\n",
        rounds::table(&rows),
        bytes / 1e6,
        version("pg_basebackup"),
        version("pgbackrest"),
        version("zstd"),
    );
    std::io::stdout().write_all(table.as_bytes()).expect("somebody reads");
}

/// A line of shell as the servers' user, measured.
fn run(host: &lab::Machine, line: &str) -> Used {
    let mut command = host.enter_as("postgres", HOME);
    let path = format!("PATH={}:/usr/bin:/bin", lab::template::programs().0.display());
    command.args(["env", "-C", HOME, &path, &format!("PGPASSWORD={POSTGRES}"), "sh", "-ec", line]);
    command.stdout(Stdio::null());
    timed(&mut command)
}

impl Bench<'_> {
    fn prepare(&self, scale: usize) {
        for host in [self.alpha.host, self.beta.host] {
            std::fs::copy(&self.ferry, host.path(FERRY)).expect("room");
            host.says(&format!("chmod 755 {FERRY}"));
            for (name, text) in [("archive.yaml", ARCHIVE), ("pgbackrest.conf", PGBACKREST)] {
                std::fs::write(host.path(&format!("{HOME}/{name}")), text).expect("room");
                host.says(&format!("chown postgres:postgres {HOME}/{name}; chmod 600 {HOME}/{name}"));
            }
        }
        let host = self.alpha.host;
        // The rows of pgbench compress to nothing: half of the bytes are of a table with what applications keep.
        self.alpha.sql(&format!(
            "create table mixed (id bigint primary key, name text, price numeric(12, 2), at timestamptz, tags text[], more jsonb, note text); \
             insert into mixed select n, 'name ' || md5(n::text), n / 7.0, 'epoch'::timestamptz + n * interval '1 minute', \
             array['a' || n % 10, 'b'], json_build_object('n', n, 'x', md5(n::text)), case when n % 3 > 0 then repeat('x', n % 90) end \
             from generate_series(1, {scale} * 50000) n"
        ));
        run(host, &format!("pgbench -i -q -I dtGvp -s {scale} app && pgbench -n -c 4 -t 8000 app"));
        // The last of the log: new rows, rows that change, whole pages.
        self.alpha.sql(
            "checkpoint; update mixed set price = price + 1 where id % 4 = 1; \
             insert into mixed select id + 100000000, md5(name), price, at, tags, more, note from mixed where id % 4 = 2",
        );
        self.alpha.sql("vacuum; checkpoint; select pg_switch_wal()");
        // Replicas by hand: `postgres.replica` makes its own line, of the same kind.
        let rules = self.alpha.file("pg_hba.conf");
        let text = std::fs::read_to_string(&rules).expect("it has one");
        std::fs::write(&rules, text + "host replication all 10.77.0.0/24 scram-sha-256\n").expect("written");
        self.alpha.sql("select pg_reload_conf()");
    }

    /// `postgres.replica` against `pg_basebackup`.
    fn copies(&self) -> Vec<Row> {
        let basebackup = format!("pg_basebackup -d 'host={} user=postgres' -D plain -X stream -c fast", self.alpha.address());
        let mut rows = vec![
            Row::new("a copy to another host (`postgres.replica`, its copy alone)", "`pg_basebackup -X stream`", "0.95"),
            Row::new("the same, read again and verified", "`pg_basebackup`, then `pg_verifybackup`", "0.95"),
            Row::new(
                "the whole run: user, slot, copy, verified, a standby that follows",
                "`pg_basebackup`, then `pg_verifybackup`",
                "",
            ),
        ];
        for _ in 0..self.rounds {
            for verify in [false, true] {
                let (whole, copy) = self.replica(verify);
                run(self.beta.host, "rm -rf plain");
                let then = if verify { " && pg_verifybackup -q plain" } else { "" };
                let plain = run(self.beta.host, &format!("{basebackup}{then}"));
                run(self.beta.host, "rm -rf plain");
                rows[usize::from(verify)].add(Used { wall: copy, cpu: None }, Used { cpu: None, ..plain });
                if verify {
                    rows[2].add(Used { wall: whole.wall, cpu: None }, Used { cpu: None, ..plain });
                }
            }
        }
        rows
    }

    /// A whole run and its copy, in seconds.
    fn replica(&self, verify: bool) -> (Used, f64) {
        let steps = format!(
            "steps:\n  - id: replica\n    uses: postgres.replica\n    with: {{ from: alpha, to: beta, verify: {verify} }}\n\
             outputs:\n  copy: \"{{{{ steps.replica.outputs.copy_took }}}}\"\n"
        );
        std::fs::write(self.folder.path().join("replica.yaml"), self.lab.yaml(&["alpha", "beta"]) + &steps).expect("room");
        let said = self.folder.path().join("said");
        let ferry = |args: &[&str]| {
            let mut command = Command::new(&self.ferry);
            command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
            command.stdout(std::fs::File::create(&said).expect("room"));
            timed(&mut command)
        };
        let used = ferry(&["run", "replica.yaml", "--yes", "--json"]);
        let text = std::fs::read_to_string(&said).expect("it is there");
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
        let span = serde_json::from_value::<ferry::units::Span>(last["outputs"]["copy"].clone()).expect("a time");
        ferry(&["rollback", "last", "--yes"]);
        (used, span.0.as_secs_f64())
    }

    /// A backup into a directory, and a data directory out of it, against pgBackRest.
    fn backups(&self) -> Vec<Row> {
        let mut rows = vec![
            Row::new("a backup to a store (`ferry base push`, two at once)", "`pgbackrest backup`, two processes", "1.0"),
            Row::new("a data directory of it (`ferry base fetch`, two at once)", "`pgbackrest restore`, two processes", "1.0"),
        ];
        let host = self.alpha.host;
        let backrest = "pgbackrest --config=/var/lib/postgresql/pgbackrest.conf --stanza=main";
        for _ in 0..self.rounds {
            run(host, "rm -rf depot repo back back2; install -d -m 700 back2");
            run(host, &format!("{backrest} stanza-create"));
            let push = run(host, &format!("{FERRY} base push --archive archive.yaml one"));
            let theirs = run(host, &format!("{backrest} --type=full backup"));
            rows[0].add(push, theirs);
            let fetch = run(host, &format!("{FERRY} base fetch --archive archive.yaml one --to {HOME}/back"));
            let theirs = run(host, &format!("{backrest} --pg1-path={HOME}/back2 restore"));
            rows[1].add(fetch, theirs);
            let sizes = host.says(&format!("cd {HOME}; du -sm depot repo | tr '\\n' ' '"));
            rows[0].note = format!("MB: {sizes}");
        }
        run(host, "rm -rf depot repo back back2");
        rows
    }
}
