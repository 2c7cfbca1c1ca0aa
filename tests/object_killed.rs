//! A sync of objects of mixed sizes by the real binary, killed with `kill -9` at random moments and taken up again: the
//! end is identical, parts that have arrived are not sent again, and no upload is left behind.
//!
//! Into Garage, and not into rclone's server: that one throws an upload away when its end is asked for while it still
//! writes what a sender who is dead had sent (docs/object-sync.md).
//!
//! `FERRY_KILLS` says how often it is killed at most, `FERRY_SYNCS` in how many syncs (each is done some time), `FERRY_LARGE`
//! how large the largest object is in MiB, `FERRY_SEED` at which moments, `FERRY_BIN` which binary. `make kills` does it a
//! hundred times with objects of 1 GiB.

mod parts;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use parts::fault::{Proxy, Weather};
use parts::scene::{Scene, s3_store};
use parts::{GARAGE_NEW, OLD};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Requests under way at once: what a kill may cost.
const AT_ONCE: usize = 6;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    // As good as chance, and fast in a debug build too.
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn pipeline(old: u16, new: u16) -> String {
    let store = |port: u16, keys: parts::Keys| {
        format!(
            "{{ scheme: s3, bucket: box, endpoint: 'http://127.0.0.1:{port}', region: us-east-1, access_key_id: '{}', secret_access_key: '{}' }}",
            keys.id, keys.secret
        )
    };
    format!(
        "name: killed\nstores:\n  old: {}\n  new: {}\nsteps:\n  - id: copy\n    uses: object.sync\n    retry: {{ interruptions: 100000 }}\n    with: {{ from: 'old:', to: 'new:', concurrency: {AT_ONCE} }}\n",
        store(old, OLD),
        store(new, GARAGE_NEW)
    )
}

/// Runs ferry; kills it a while after it has begun to work, if it is given and ferry is still there.
fn go(folder: &Path, args: &[&str], life: Option<Duration>, begun: &dyn Fn() -> bool) -> Option<i32> {
    let binary = std::env::var_os("FERRY_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_ferry").into());
    let mut child = Command::new(binary)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join("stderr")).expect("a file can be made"))
        .spawn()
        .expect("ferry starts");
    let mut deadline = None;
    loop {
        if deadline.is_none() && life.is_some() && begun() {
            deadline = life.map(|life| Instant::now() + life);
        }
        if let Some(status) = child.try_wait().expect("a child can be asked") {
            return status.code();
        }
        if deadline.is_some_and(|deadline: Instant| Instant::now() >= deadline) {
            child.kill().expect("a child can be killed");
            child.wait().expect("it is dead");
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What one sync has cost.
#[derive(Debug, Default, Clone, Copy)]
struct Row {
    kills: u64,
    /// Parts that the objects have.
    parts: usize,
    /// Of these begun when ferry was killed, and not known to ferry to have arrived.
    under_way: usize,
    /// Sent more than once.
    again: usize,
}

/// A part: its object, and its number.
type Part = (String, u64);

/// The parts that ferry knows to have arrived.
fn told(folder: &Path) -> BTreeSet<Part> {
    let mut told = BTreeSet::new();
    for run in std::fs::read_dir(folder.join(".ferry/runs")).into_iter().flatten() {
        let ledger = run.expect("readable").path().join("scratch/copy/ledger.jsonl");
        let text = std::fs::read_to_string(ledger).unwrap_or_default();
        // The last line may have been cut off by the kill.
        for line in text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
            if line["what"] == "part" {
                told.insert((line["key"].as_str().expect("a name").to_owned(), line["is"]["number"].as_u64().expect("one")));
            }
        }
    }
    told
}

/// The parts that were begun to be sent, one for each request.
fn begun(proxy: &Proxy) -> Vec<Part> {
    let part = |line: String| {
        let (key, query) = line.strip_prefix("PUT /box/")?.split_once('?')?;
        let number = query.split('&').find_map(|pair| pair.strip_prefix("partNumber="))?;
        Some((key.to_owned(), number.parse().ok()?))
    };
    proxy.requests().into_iter().filter_map(part).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_costs_the_parts_under_way_and_nothing_else() {
    let Some(old) = parts::s3(OLD) else { return };
    let (kills, syncs, large) = (number("FERRY_KILLS", 6), number("FERRY_SYNCS", 1), number("FERRY_LARGE", 96));
    let sizes = [large << 20, 40 << 20, (17 << 20) + 5, 16 << 20, 1 << 20];
    let small = (0..300).map(|number| 1 + number * 97 % 9000);
    for (at, size) in sizes.into_iter().chain(small).enumerate() {
        let content = bytes(at as u64, usize::try_from(size).expect("it fits"));
        std::fs::write(old.data.path().join("box").join(format!("{at:04}")), content).expect("written");
    }
    let mut all = Row::default();
    eprintln!("| seed | kills | parts | under way when killed | sent again |\n| --- | --- | --- | --- | --- |");
    let first = number("FERRY_SEED", 1);
    for seed in first..first + syncs {
        let Some(row) = one_sync(&old, seed, kills - all.kills).await else { return };
        eprintln!("| {seed} | {} | {} | {} | {} |", row.kills, row.parts, row.under_way, row.again);
        all = Row {
            kills: all.kills + row.kills,
            parts: all.parts + row.parts,
            under_way: all.under_way + row.under_way,
            again: all.again + row.again,
        };
        if all.kills >= kills {
            break;
        }
    }
    eprintln!("| all | {} | {} | {} | {} |", all.kills, all.parts, all.under_way, all.again);
    assert!(all.kills >= kills || syncs == 1, "{} kills only: give it more syncs", all.kills);
}

/// One sync into a new server, killed at most so often.
async fn one_sync(old: &parts::Server, seed: u64, kills: u64) -> Option<Row> {
    let new = parts::garage(GARAGE_NEW)?;
    let mut rng = StdRng::seed_from_u64(seed);
    // A little slow, so that there is something to kill.
    let proxy = Proxy::start(new.port, |_, path, _| {
        Weather::Slow(Duration::from_millis(if path.contains("partNumber") { 60 } else { 4 }))
    })
    .await;
    let here = tempfile::tempdir().expect("a directory");
    std::fs::write(here.path().join("p.yaml"), pipeline(old.port, proxy.port)).expect("written");
    let (mut row, mut before) = (Row::default(), Vec::<Part>::new());
    loop {
        let known = told(here.path());
        let asked = proxy.count("", "");
        let is_at_work = || proxy.count("", "") > asked;
        let is_first = !here.path().join(".ferry").exists() || go(here.path(), &["show", "last"], None, &is_at_work) != Some(0);
        let args: &[&str] = if is_first { &["run", "p.yaml", "--yes"] } else { &["resume", "last"] };
        let life = (row.kills < kills).then(|| Duration::from_millis(rng.random_range(100..1200)));
        let ended = go(here.path(), args, life, &is_at_work);
        proxy.has_seen_all().await;
        let (all, now) = (begun(&proxy), told(here.path()));
        let in_this_life = &all[before.len()..];
        for part in in_this_life {
            assert!(!known.contains(part), "seed {seed}, kill {}: {part:?} is sent again: it has arrived", row.kills);
        }
        row.again += in_this_life.iter().filter(|part| before.contains(part)).count();
        let under_way = in_this_life.iter().filter(|part| !now.contains(part)).count();
        assert!(under_way <= AT_ONCE, "seed {seed}, kill {}: {under_way} parts are under way at once", row.kills);
        row.under_way += under_way;
        assert!(row.again <= row.under_way, "seed {seed}, kill {}: more is sent again than was under way: {row:?}", row.kills);
        before = all;
        match ended {
            None => row.kills += 1,
            Some(0) => break,
            Some(code) => panic!(
                "seed {seed}, kill {}: exit {code}: {}",
                row.kills,
                std::fs::read_to_string(here.path().join("stderr")).unwrap_or_default()
            ),
        }
    }
    // Each byte, and that nothing else is there, as rclone sees it.
    let (from, to) = (parts::rclone_s3(old.port, OLD), parts::rclone_s3(new.port, GARAGE_NEW));
    parts::ask_rclone(&["check", "--download", &from, &to])?;
    let scene = Scene::new([("new", s3_store(new.port, GARAGE_NEW))]);
    let uploads = scene.place("new:").bucket().expect("a bucket").uploads("").await.expect("listed");
    assert!(uploads.is_empty(), "seed {seed}: left behind: {uploads:?}");
    row.parts = before.into_iter().collect::<BTreeSet<_>>().len();
    Some(row)
}
