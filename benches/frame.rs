//! How long the frame itself takes: 10,000 steps that do nothing, their journal read again, a big check, a start.
//!
//! `make bench` prints a table; `docs/performance.md` holds the last one. The machines are shared and noisy, so every
//! figure stands beside a peer measured in the same interleaved round: bare SQLite with as many commits, `cat` of the
//! same file, `true`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use ferry::engine::Engine;
use ferry::journal::Journal;

/// One measured thing and its peer.
struct Row {
    what: &'static str,
    aim: &'static str,
    ours: Vec<f64>,
    peer: &'static str,
    theirs: Vec<f64>,
    note: String,
}

fn main() {
    // `cargo bench -- --steps 1000` is a quick look.
    let args: Vec<String> = std::env::args().collect();
    let steps = args.iter().position(|arg| arg == "--steps").and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(10_000);
    let rounds = 3;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let big = folder.path().join("big.yaml");
    std::fs::write(&big, dag(steps)).expect("a file can be written");
    let thousand = folder.path().join("thousand.yaml");
    std::fs::write(&thousand, dag(1000)).expect("a file can be written");

    let mut run = Row::new("a DAG of no-op steps, every event on disk", "15 s, 200 MB", "bare SQLite, as many commits");
    let mut fold = Row::new("opening and folding that run's journal", "0.3 s", "reading the rows, not parsing them");
    let mut check = Row::new("`ferry check` of 1,000 steps", "100 ms", "`cat` of the file");
    let mut version = Row::new("`ferry --version`", "10 ms", "`true`");
    for round in 0..rounds {
        let store = folder.path().join(format!("store-{round}"));
        let (took, peak) = ferry(&["run", path(&big), "--store", path(&store), "--json"], &store);
        run.ours.push(took);
        let journal = Journal::read(&store).expect("the journal can be read");
        let id = journal.find_run("last").expect("there is a run");
        let started = Instant::now();
        let journal = Journal::read(&store).expect("the journal can be read");
        let records = journal.records(&id).expect("the run can be read");
        let mut engine = Engine::new();
        for record in &records {
            engine.on(&record.event);
        }
        fold.ours.push(started.elapsed().as_secs_f64());
        assert_eq!(engine.status(), ferry::engine::RunStatus::Succeeded);
        fold.note = format!("{} events", records.len());
        fold.theirs.push(bare_read(&store));
        run.note = format!("{steps} steps, peak {peak:.0} MB");
        run.theirs.push(bare_sqlite(&folder.path().join(format!("bare-{round}")), steps));
        for _ in 0..5 {
            check.ours.push(quiet(env!("CARGO_BIN_EXE_ferry"), &["check", path(&thousand)]));
            check.theirs.push(quiet("cat", &[path(&thousand)]));
            version.ours.push(quiet(env!("CARGO_BIN_EXE_ferry"), &["--version"]));
            version.theirs.push(quiet("true", &[]));
        }
    }
    let mut table =
        String::from("| what | aim | median | peer | its median | ratio | |\n| --- | --- | --- | --- | --- | --- | --- |\n");
    for mut row in [run, fold, check, version] {
        let (ours, theirs) = (median(&mut row.ours), median(&mut row.theirs));
        let (what, aim, peer, note) = (row.what, row.aim, row.peer, &row.note);
        let ratio = ours / theirs;
        let _ = writeln!(table, "| {what} | {aim} | {} | {peer} | {} | {ratio:.1} | {note} |", show(ours), show(theirs));
    }
    #[expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
    {
        println!("{table}");
    }
}

impl Row {
    fn new(what: &'static str, aim: &'static str, peer: &'static str) -> Self {
        Self { what, aim, ours: Vec::new(), peer, theirs: Vec::new(), note: String::new() }
    }
}

/// A hundred layers; each step needs two of the layer before.
fn dag(steps: usize) -> String {
    let width = (steps / 100).max(1);
    let mut text = String::from("name: bench\nmax_parallel: 64\nsteps:\n");
    for n in 0..steps {
        let needs = if n < width {
            String::new()
        } else {
            let layer = (n / width - 1) * width;
            format!(", needs: [s{}, s{}]", layer + n % width, layer + (n + 1) % width)
        };
        let _ = writeln!(text, "  - {{ id: s{n}, uses: assert{needs}, with: {{ that: true }} }}");
    }
    text
}

/// Runs ferry to its end; wall-clock seconds and peak memory in MB. GNU time asks the system what the finished process
/// has used (`ru_maxrss` of `wait4`): that misses no peak, and nobody looks on while time is taken.
fn ferry(args: &[&str], folder: &Path) -> (f64, f64) {
    std::fs::create_dir_all(folder).expect("a folder can be made");
    let used = folder.join("used");
    let started = Instant::now();
    let status = Command::new("time")
        .args(["-f", "%M", "-o", path(&used), env!("CARGO_BIN_EXE_ferry")])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("GNU time is installed (the package `time`)");
    let took = started.elapsed().as_secs_f64();
    assert!(status.success(), "ferry {} ended with {status}", args.join(" "));
    let used = std::fs::read_to_string(used).expect("time writes what it was asked for");
    let kibibytes: f64 = used.trim().parse().expect("%M is a number");
    (took, kibibytes * 1024.0 / 1e6)
}

fn quiet(program: &str, args: &[&str]) -> f64 {
    let started = Instant::now();
    let status = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("it starts").success(), "{program} {}", args.join(" "));
    started.elapsed().as_secs_f64()
}

/// The floor of any journal with every event on disk: three events a step, 64 steps to a commit at best.
fn bare_sqlite(file: &Path, steps: usize) -> f64 {
    let started = Instant::now();
    let mut database = rusqlite::Connection::open(file).expect("a database can be made");
    database.pragma_update(None, "journal_mode", "WAL").expect("a setting");
    database.pragma_update(None, "synchronous", "FULL").expect("a setting");
    database.execute("create table events (seq integer primary key, body text)", []).expect("a table");
    let payload = "x".repeat(120);
    for _ in 0..steps * 3 / 64 {
        let transaction = database.transaction().expect("a transaction");
        for _ in 0..64 {
            transaction.execute("insert into events (body) values (?1)", [&payload]).expect("a row");
        }
        transaction.commit().expect("a commit");
    }
    started.elapsed().as_secs_f64()
}

fn bare_read(store: &Path) -> f64 {
    let started = Instant::now();
    let database = rusqlite::Connection::open(store.join("ferry.db")).expect("the database opens");
    let mut statement = database.prepare("select * from events").expect("the table is there");
    let mut rows = statement.query([]).expect("it can be read");
    while rows.next().expect("a row").is_some() {}
    started.elapsed().as_secs_f64()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn show(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1000.0) } else { format!("{seconds:.2} s") }
}
