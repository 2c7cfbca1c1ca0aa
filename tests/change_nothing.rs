//! `ferry check` and `ferry plan` change nothing: asked of the real binary for every step type, in a world that is looked
//! at as a whole before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

#[path = "cli/bench.rs"]
#[allow(dead_code, reason = "the tests of the command line use the rest")]
mod bench;
mod parts;

use bench::{Bench, Ran};
use parts::cluster::Cluster;

/// A step of each type, as it stands in a pipeline, and whether a run of it changes something outside of `.ferry`. `URL`
/// is a server that notes every request, `PORT` is where it listens, `DATABASE` where a PostgreSQL server does.
const CASES: &[(&str, &str, bool)] = &[
    ("approval", "with: { message: 'Go on?', approvers: [ada] }", false),
    ("assert", "with: { that: true, message: 'never' }", false),
    ("command", "with: { run: 'echo made > made.txt', undo: 'rm -f made.txt; touch undone' }", true),
    ("command", "with: { run: [touch, made.txt], check: 'test -e made.txt', undo: [touch, undone] }", true),
    ("command", "with: { run: 'cat > made.txt', stdin: text, env: { A: b }, workdir: ./deep, outputs: json }", true),
    ("file.write", "with: { path: ./new/up/conf, content: 'new', mode: '0600' }", true),
    ("file.write", "with: { path: ./there.txt, content: 'other', mode: '0640' }", true),
    ("file.write", "with: { path: ./made.txt, template: ./there.txt }", true),
    (
        "http.request",
        "with: { method: POST, url: 'URL/things', json: { a: 1 }, undo: { method: DELETE, url: 'URL/things/1' } }",
        true,
    ),
    ("http.request", "with: { method: PUT, url: 'URL/things/1', body: text }", true),
    ("http.request", "undo: skip\n    with: { method: DELETE, url: 'URL/things/1' }", true),
    ("http.request", "with: { method: GET, url: 'URL/things' }", false),
    ("object.compare", "with: { from: 'old:up/', to: 'old:twin/' }", false),
    ("object.delete", "undo: skip\n    with: { from: 'old:up/' }", true),
    ("object.list", "with: { from: 'old:up/' }", false),
    // The folder of the target is not there yet, and must not be made for a look.
    ("object.sync", "with: { from: 'old:up/', to: 'fresh:up/', verify: true }", true),
    ("object.sync", "with: { from: 'old:up/', to: 'new:up/', mode: mirror, max_delete: 100 }", true),
    ("probe.http", "with: { url: 'URL/up', for: 50ms, every: 10ms, after: 1 }", false),
    ("postgres.compare", "with: { from: SERVER, to: SERVER, databases: [app] }", false),
    ("postgres.query", "with: { server: SERVER, sql: 'create table if not exists t (n int)', undo: 'drop table t' }", false),
    (
        "probe.postgres",
        "with: { route: '127.0.0.1:DATABASE', user: postgres, password: postgres-secret-canary, database: app, for: 50ms }",
        false,
    ),
    ("probe.tcp", "with: { address: 'PORT', for: 50ms, clients: [fresh], after: 1 }", false),
    ("validate.command", "with: { run: 'cat there.txt', codes: [0, 1] }", false),
    ("validate.http", "with: { url: 'URL/up' }", false),
    ("validate.query", "with: { server: SERVER, sql: select true }", false),
    ("validate.tcp", "with: { address: 'PORT' }", false),
    ("wait", "with: { for: 10ms }", false),
    ("wait", "with: { until: '2020-01-01T00:00:00Z' }", false),
    ("wait", "with: { url: 'URL/up', every: 10ms }", false),
    ("wait", "with: { tcp: 'PORT', every: 10ms }", false),
];

/// Types that need hosts of their own: that their plan changes nothing is asked where they have them.
const IN_THE_LAB: &[&str] = &[
    "address.move",         // criu.rs
    "container.checkpoint", // container.rs
    "container.migrate",    // container.rs
    "container.restore",    // container.rs
    "criu.checkpoint",      // criu/stored.rs
    "criu.migrate",         // criu.rs
    "criu.restore",         // criu/stored.rs
    "postgres.base_backup", // postgres_bucket.rs
    "postgres.catch_up",    // postgres_replica.rs
    "postgres.cutover",     // postgres_migration.rs
    "postgres.failback",    // it looks as `postgres.replica` does
    "postgres.logical",     // postgres_logical.rs
    "postgres.replica",     // postgres_replica.rs
    "postgres.restore",     // postgres_bucket.rs
    "postgres.wal_ship",    // postgres_bucket.rs
];

/// A PostgreSQL server.
const SERVER: &str = "{ host: local, connect: tcp, address: 127.0.0.1, port: DATABASE, password: postgres-secret-canary }";

const STORES: &str = "stores:
  old: { scheme: fs, root: ./old }
  new: { scheme: fs, root: ./new }
  fresh: { scheme: fs, root: ./fresh }
";

/// Everything below a folder: kind and mode, time of the last change, content.
fn look(folder: &Path) -> BTreeMap<String, (u32, i128, Vec<u8>)> {
    fn walk(root: &Path, path: &Path, found: &mut BTreeMap<String, (u32, i128, Vec<u8>)>) {
        let meta = path.symlink_metadata().expect("it was just listed");
        let content = if meta.is_file() { std::fs::read(path).expect("readable") } else { Vec::new() };
        let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        let changed = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        found.insert(name, (meta.mode(), changed, content));
        if meta.is_dir() {
            for entry in std::fs::read_dir(path).expect("readable") {
                walk(root, &entry.expect("readable").path(), found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

/// A server that says yes to everything and notes what it was asked.
fn serve() -> (String, Arc<Mutex<Vec<String>>>) {
    fn answer(stream: TcpStream, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let (mut first, mut length) = (String::new(), 0);
        reader.read_line(&mut first)?;
        if first.is_empty() {
            return Ok(()); // Somebody only looked whether the port answers.
        }
        asked.lock().expect("not poisoned").push(first.trim().to_owned());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.trim().is_empty() {
                break;
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        reader.into_inner().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, &notes);
        }
    });
    (port, asked)
}

/// A home and a place for temporary files within the world, so that nothing is written past it.
fn ferry(bench: &Bench, args: &[&str]) -> Ran {
    let mut command = bench.ferry(args);
    for (name, folder) in [
        ("HOME", "home"),
        ("TMPDIR", "tmp"),
        ("XDG_CACHE_HOME", "home/cache"),
        ("XDG_CONFIG_HOME", "home/config"),
        ("XDG_STATE_HOME", "home/state"),
        ("XDG_DATA_HOME", "home/data"),
    ] {
        command.env(name, bench.path(folder));
    }
    Ran::of(&command.output().expect("the binary starts"))
}

fn world(port: &str, uses: &str, rest: &str) -> Bench {
    let bench = Bench::new();
    for folder in ["home", "tmp", "deep", "new/up"] {
        std::fs::create_dir_all(bench.path(folder)).expect("a folder can be made");
    }
    for (name, text) in
        [("there.txt", "here"), ("old/up/a.txt", "a"), ("old/up/b/c.txt", "c"), ("new/up/kept.txt", "someone else's")]
    {
        bench.write(name, text);
        if let Some(name) = name.strip_prefix("old/up/") {
            bench.write(&format!("old/twin/{name}"), text);
        }
    }
    let rest = rest.replace("URL", &format!("http://{port}")).replace("PORT", port);
    bench.write("p.yaml", &format!("{STORES}steps:\n  - id: it\n    uses: {uses}\n    {rest}\n"));
    bench
}

/// What a request that only asks begins with.
fn only_asks(request: &str) -> bool {
    request.starts_with("GET ") || request.starts_with("HEAD ")
}

#[test]
fn every_step_type_has_a_case() {
    let cases: BTreeSet<&str> = CASES.iter().map(|(uses, _, _)| *uses).collect();
    let registry = ferry::steps::builtin();
    let cases: BTreeSet<&str> = cases.into_iter().chain(IN_THE_LAB.iter().copied()).collect();
    let types: BTreeSet<&str> = registry.catalogue().iter().map(|info| info.name.as_str()).collect();
    assert_eq!(types, cases);
}

#[test]
fn check_and_plan_change_nothing_for_any_step_type() {
    let mut cluster = None;
    for (uses, rest, changes) in CASES {
        let rest = rest.replace("SERVER", SERVER);
        let rest = &if rest.contains("DATABASE") {
            let cluster = cluster.get_or_insert_with(|| {
                let cluster = Cluster::new("");
                cluster.sql("create table held (n int primary key)");
                cluster
            });
            rest.replace("DATABASE", &cluster.port.to_string())
        } else {
            rest
        };
        let (port, asked) = serve();
        let bench = world(&port, uses, rest);
        let before = look(&bench.path(""));
        for args in [
            &["check", "p.yaml"][..],
            &["check", "p.yaml", "--json"],
            &["plan", "p.yaml"],
            &["plan", "p.yaml", "--json"],
            &["graph", "p.yaml"],
        ] {
            ferry(&bench, args).exits(0);
            let after = look(&bench.path(""));
            let differs: Vec<_> =
                before.keys().chain(after.keys()).filter(|name| before.get(*name) != after.get(*name)).collect();
            assert!(differs.is_empty(), "{uses}, {rest}: `ferry {}` changed {differs:?}", args.join(" "));
            let asked = asked.lock().expect("not poisoned").clone();
            assert!(asked.iter().all(|request| only_asks(request)), "{uses}, {rest}: {args:?} asked {asked:?}");
        }
        assert!(!bench.path(".ferry").exists(), "{uses}: a look leaves no journal");

        // That the look would have been noticed: a run of the same pipeline is.
        let ran = ferry(&bench, &["run", "p.yaml"]);
        let files = |seen: BTreeMap<String, (u32, i128, Vec<u8>)>| -> Vec<_> {
            let is_world = |name: &str| !name.is_empty() && !name.starts_with(".ferry") && !name.starts_with("tmp");
            seen.into_iter().filter(|(name, _)| is_world(name)).map(|(name, (mode, _, text))| (name, mode, text)).collect()
        };
        let wrote = asked.lock().expect("not poisoned").iter().any(|request| !only_asks(request));
        let changed = files(before) != files(look(&bench.path("")));
        assert_eq!(wrote || changed, *changes, "{uses}, {rest}: {ran:?}");
    }
}
