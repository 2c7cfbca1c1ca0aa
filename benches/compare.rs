//! How fast two PostgreSQL servers are compared, against what people do by hand: one ordered `md5(string_agg(…))` per table.
//!
//! `make bench-compare` prints a table; `docs/performance.md` holds the last one. Both ways read the same tables of a
//! source and its standby on this machine, in interleaved rounds, both sides at once.

#[path = "../tests/parts/mod.rs"]
mod parts;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use ferry::hosts::{self, Hosts};
use ferry::steps::StepContext;
use parts::cluster::{Cluster, POSTGRES};
use parts::scene::Scene;
use serde_json::{Value, json};

/// The tables, and what their rows are ordered by.
const TABLES: [(&str, &str); 2] = [("pgbench_accounts", "aid"), ("mixed", "id")];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let argument = |name: &str, usual: u32| {
        args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(usual)
    };
    let (scale, rounds) = (argument("--scale", 20), argument("--rounds", 3));
    let source = Cluster::new("shared_buffers = 256MB\nmax_wal_size = 4GB");
    let mut bench = Command::new(parts::cluster::programs().join("pgbench"));
    bench.env("PGPASSWORD", POSTGRES).args(["-h", "127.0.0.1", "-U", "postgres", "-p", &source.port.to_string()]);
    bench.args(["-i", "-q", "-I", "dtGvp", "-s", &scale.to_string(), "app"]).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(bench.status().expect("pgbench is there").success());
    source.sql(&format!(
        "create table mixed (id bigint primary key, name text, price numeric(12, 2), at timestamptz, tags text[], more jsonb, note text); \
         insert into mixed select n, 'name ' || md5(n::text), n / 7.0, 'epoch'::timestamptz + n * interval '1 minute', \
         array['a' || n % 10, 'b'], json_build_object('n', n, 'x', md5(n::text)), case when n % 3 > 0 then repeat('x', n % 90) end \
         from generate_series(1, {scale} * 25000) n"
    ));
    source.sql("vacuum analyze mixed");
    let standby = source.standby("shared_buffers = 256MB");
    let bytes: f64 = source.sql("select pg_table_size('pgbench_accounts') + pg_table_size('mixed')").parse().expect("a number");
    let ways: [(&str, Option<usize>); 4] =
        [("naive", None), ("ferry, 1 at once", Some(1)), ("ferry, 2 at once", Some(2)), ("ferry, 4 at once", Some(4))];
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    for _ in 0..rounds {
        for ((_, parallel), seconds) in ways.iter().zip(&mut seconds) {
            let start = Instant::now();
            match parallel {
                None => naive(&source, &standby),
                Some(parallel) => compare(&source, &standby, *parallel),
            }
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let mut table = String::from("| what | median | GB/s of the source | ratio to the naive |\n| --- | --- | --- | --- |\n");
    let median = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let peer = median(&seconds[0]);
    for ((name, _), seconds) in ways.iter().zip(&seconds) {
        let median = median(seconds);
        let _ = writeln!(table, "| {name} | {median:.2} s | {:.3} | {:.1} |", bytes / median / 1e9, peer / median);
    }
    let _ = writeln!(table, "\n{:.0} MB in two tables, {rounds} rounds", bytes / 1e6);
    std::io::stdout().write_all(table.as_bytes()).expect("somebody reads");
}

/// Both sides at once, table by table, each in one ordered text.
fn naive(source: &Cluster, standby: &Cluster) {
    for (table, key) in TABLES {
        let sql = format!("select md5(string_agg(t::text, ',' order by {key})) from {table} t");
        let (here, there) = std::thread::scope(|scope| {
            let there = scope.spawn(|| standby.sql(&sql));
            (source.sql(&sql), there.join().expect("no panic"))
        });
        assert_eq!(here, there, "{table}");
    }
}

fn compare(source: &Cluster, standby: &Cluster, parallel: usize) {
    let server = |cluster: &Cluster| -> Value {
        json!({ "host": "local", "connect": "tcp", "address": "127.0.0.1", "port": cluster.port, "password": POSTGRES })
    };
    let include: Vec<String> = TABLES.iter().map(|(name, _)| format!("public.{name}")).collect();
    let with = json!({
        "from": server(source), "to": server(standby), "databases": ["app"], "parallel": parallel, "schema": false,
        "include": include, "chunk": "32MiB",
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let scene = Scene::new([]);
        let step = Scene::step("postgres.compare", &with);
        let ctx = StepContext { hosts: Hosts::new([hosts::local("local")]), ..scene.context() };
        let before = step.inspect(&ctx).await.expect("it is right");
        let compared = step.run(&ctx, &before).await.expect("they are equal");
        assert_eq!(compared["equal_tables"], TABLES.len());
    });
}
