//! A real cluster through a bucket: archived while clients work, backed up, and made anew on a host that cannot reach it.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

mod lab;
#[path = "parts/mod.rs"]
mod parts;

use lab::postgres::{Cluster, Settings};
use lab::{Lab, Machine};
use parts::{NEW, Server};

const ARCHIVE: &str = "/var/lib/postgresql/archive.yaml";
const FERRY: &str = "/srv/ferry";
const COMMAND: &str = "archive_command = '/srv/ferry wal push --archive /var/lib/postgresql/archive.yaml %p'";

/// A bucket that all hosts of a lab reach.
fn bucket() -> Option<Server> {
    parts::s3_on(Some("10.77.0.1"), &[NEW])
}

/// The program and the archive's settings on a host.
fn equip(host: &Machine, bucket: &Server) {
    std::fs::copy(env!("CARGO_BIN_EXE_ferry"), host.path(FERRY)).expect("room");
    let settings = format!(
        "place: box:prod/\nstores:\n  box: {{ scheme: s3, bucket: box, endpoint: 'http://10.77.0.1:{}', region: us-east-1, access_key_id: {}, secret_access_key: {} }}\n",
        bucket.port, NEW.id, NEW.secret
    );
    std::fs::write(host.path(ARCHIVE), settings).expect("room");
    host.says(&format!("chmod 755 {FERRY}; chown postgres:postgres {ARCHIVE}; chmod 600 {ARCHIVE}"));
}

fn settings(lines: &[&str]) -> Settings {
    let lines = lines.iter().map(|line| (*line).to_owned()).collect();
    Settings { lines, ..Settings::full(1) }
}

fn ferry(host: &Machine, args: &[&str]) -> Output {
    let mut command = host.enter_as("postgres", "/var/lib/postgresql");
    command.arg(FERRY).args(args).output().expect("it starts")
}

fn must(host: &Machine, args: &[&str]) -> String {
    let output = ferry(host, args);
    assert!(
        output.status.success(),
        "{args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn push(host: &Machine, name: &str) -> serde_json::Value {
    let said = must(host, &["base", "push", "--archive", ARCHIVE, name, "--json"]);
    serde_json::from_str(said.lines().last().expect("a line")).expect("JSON")
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_mins(1), "{what} never came");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// All that two clusters must have in common.
fn content(cluster: &Cluster<'_>) -> String {
    cluster.sql(
        "select count(*), sum(hashtext(t::text)::bigint) from pgbench_accounts t; \
         select count(*), sum(hashtext(t::text)::bigint) from notes t; select count(*) from quick; \
         select oid::text || proname from pg_proc order by oid desc limit 1",
    )
}

#[test]
fn a_cluster_moves_through_a_bucket_while_it_is_written_to() {
    let lab = Lab::new(&["old", "new"]);
    let Some(bucket) = bucket() else { return };
    for host in ["old", "new"] {
        equip(lab.host(host), &bucket);
    }
    let old = lab.cluster("old", &settings(&["archive_mode = on", COMMAND]));
    old.host.says("install -d -o postgres -g postgres /var/lib/postgresql/space");
    old.sql("create table notes (n bigint primary key, t text); create unlogged table quick as select 1 as n");
    // A tablespace cannot be made inside a transaction.
    old.sql("create tablespace space location '/var/lib/postgresql/space'");
    old.sql("create table there tablespace space as select generate_series(1, 20000) as n");
    let (taken, has_written) = std::thread::scope(|scope| {
        let writes = scope.spawn(|| {
            let mut command = old.host.enter_as("postgres", "/var/lib/postgresql");
            command.args(["psql", "-XAtq", "-d", "app", "-c"]);
            command.arg("do $$ begin for i in 1..400 loop insert into notes values (i, repeat('x', 500)); update pgbench_accounts set abalance = abalance + 1 where aid = i; commit; perform pg_sleep(0.005); end loop; end $$");
            command.stdin(Stdio::null()).status().expect("psql starts").success()
        });
        let taken = push(old.host, "monday");
        (taken, writes.join().expect("no panic"))
    });
    assert!(has_written && taken["was_there"] == false && taken["files"].as_u64() > Some(900), "{taken}");
    assert_eq!(push(old.host, "monday")["was_there"], true, "once more is no other");
    old.sql("insert into notes values (1000, 'last'); select pg_switch_wal()");

    let new = lab.place("new", &settings(&[]));
    // What is not empty is not touched.
    new.host.says("install -d -o postgres -g postgres -m 700 /var/lib/postgresql/data; echo mine >/var/lib/postgresql/data/mine");
    let fetch = [
        "base",
        "fetch",
        "--archive",
        ARCHIVE,
        "latest",
        "--to",
        "/var/lib/postgresql/data",
        "--tablespace",
        "/var/lib/postgresql/space=/var/lib/postgresql/elsewhere",
    ];
    let refused = ferry(new.host, &fetch);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(new.host.says("cat /var/lib/postgresql/data/*"), "mine");
    new.host.says("rm /var/lib/postgresql/data/mine");
    must(new.host, &fetch);
    must(new.host, &fetch);
    new.must("pg_verifybackup", &["-n", "/var/lib/postgresql/data"]);
    new.start();
    until("the last write", || new.asked("app", "select 1 from notes where n = 1000").is_ok_and(|said| said == "1"));
    assert!(new.is_in_recovery(), "it follows");
    // What is archived later comes too.
    old.sql("insert into notes values (1001, 'later'); select pg_switch_wal()");
    until("a later write", || new.sql("select count(*) from notes where n = 1001") == "1");
    assert_eq!(new.sql("select count(*) from there"), "20000");
    assert_eq!(new.host.says("readlink /var/lib/postgresql/data/pg_tblspc/*"), "/var/lib/postgresql/elsewhere");
    old.sql("truncate quick");
    old.stop();
    new.sql("select pg_promote()");
    until("the promotion", || !new.is_in_recovery());
    let moved = content(&new);
    old.start();
    assert_eq!(moved, content(&old));
    new.must("pg_amcheck", &["-d", "app", "--heapallindexed", "--install-missing"]);
}

#[test]
fn a_backup_that_was_killed_is_gone_on_with_and_looks_like_none_before() {
    let lab = Lab::new(&["old"]);
    let Some(bucket) = bucket() else { return };
    equip(lab.host("old"), &bucket);
    let old =
        lab.cluster("old", &Settings { lines: vec!["archive_mode = on".to_owned(), COMMAND.to_owned()], ..Settings::full(20) });
    let parts = bucket.data.path().join("box/prod/base/killed/parts");
    let count = || std::fs::read_dir(&parts).map_or(0, Iterator::count);
    let mut command = old.host.enter_as("postgres", "/var/lib/postgresql");
    let mut child = command.args([FERRY, "base", "push", "--archive", ARCHIVE, "killed"]).spawn().expect("it starts");
    until("some parts", || count() >= 3);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    // The kill hits what entered the host; what runs there is ended with its server's session.
    old.host.inside("pkill -KILL -x ferry");
    assert!(must(old.host, &["base", "ls", "--archive", ARCHIVE]).is_empty(), "it looks like none");
    old.sql("update pgbench_branches set bbalance = 7");
    let taken = push(old.host, "killed");
    assert!(taken["resumed"].as_u64() > Some(1 << 20), "{taken}");
    assert!(must(old.host, &["base", "ls", "--archive", ARCHIVE]).starts_with("killed"));

    // Into a data directory: killed, then gone on with, and no server starts on what is half.
    let to = "/var/lib/postgresql/again";
    let fetch = [FERRY, "base", "fetch", "--archive", ARCHIVE, "killed", "--to", to, "--recover", "--consistent"];
    let mut command = old.host.enter_as("postgres", "/var/lib/postgresql");
    let mut child = command.args(fetch).spawn().expect("it starts");
    let mark = old.host.path(&format!("{to}/ferry-restore"));
    until("some parts", || std::fs::read_to_string(&mark).is_ok_and(|text| text.lines().count() > 3));
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    old.host.inside("pkill -KILL -x ferry");
    assert!(!old.host.path(&format!("{to}/global/pg_control")).exists());
    assert!(
        !old.program("pg_ctl", &["-D", to, "-W", "-s", "start"]).status.success()
            || !old.host.path(&format!("{to}/postmaster.pid")).exists()
    );
    let said = must(old.host, &[&fetch[1..], &["--json"]].concat());
    let restored: serde_json::Value = serde_json::from_str(said.lines().last().expect("a line")).expect("JSON");
    assert!(restored["resumed"].as_u64() > Some(1 << 20), "{restored}");
    old.must("pg_verifybackup", &["-n", to]);
}

#[test]
fn the_log_is_replayed_to_a_place_and_no_further_and_without_archiving_a_backup_is_whole() {
    let lab = Lab::new(&["old", "new"]);
    let Some(bucket) = bucket() else { return };
    for host in ["old", "new"] {
        equip(lab.host(host), &bucket);
    }
    let old = lab.cluster("old", &settings(&[]));
    old.sql("create table notes (n bigint primary key, t text); create unlogged table quick (n int)");
    let taken = push(old.host, "alone");
    assert!(taken["stop"].as_str() > taken["start"].as_str(), "{taken}");
    let new = lab.place("new", &settings(&[]));
    must(new.host, &["base", "fetch", "--archive", ARCHIVE, "alone", "--to", &new.data, "--recover", "--consistent"]);
    new.start();
    until("it serves", || new.asked("app", "select pg_is_in_recovery()").is_ok_and(|said| said == "f"));
    assert_eq!(content(&new), content(&old));
    new.stop();
    new.host.says(&format!("rm -rf {}", new.data));

    // Archived by hand: to a place between two writes.
    old.sql("insert into notes values (1, 'before')");
    let place = old.sql("select pg_current_wal_lsn()");
    old.sql("insert into notes values (2, 'after')");
    let segment = old.sql("select pg_walfile_name(pg_current_wal_lsn())");
    old.sql("select pg_switch_wal()");
    must(old.host, &["wal", "push", "--archive", ARCHIVE, &format!("{}/pg_wal/{segment}", old.data)]);
    must(new.host, &["base", "fetch", "--archive", ARCHIVE, "alone", "--to", &new.data, "--recover", "--lsn", &place]);
    new.start();
    until("it serves", || new.asked("app", "select pg_is_in_recovery()").is_ok_and(|said| said == "f"));
    assert_eq!(new.sql("select string_agg(t, ',') from notes"), "before");
}

#[test]
fn what_is_written_while_the_store_is_cut_off_is_archived_when_it_is_back() {
    let lab = Lab::new(&["old"]);
    let Some(bucket) = bucket() else { return };
    equip(lab.host("old"), &bucket);
    let old =
        lab.cluster("old", &Settings { lines: vec!["archive_mode = on".to_owned(), COMMAND.to_owned()], ..Settings::default() });
    old.sql("create table notes (n bigint)");
    old.sql("select pg_switch_wal()");
    let archived = || old.sql("select coalesce(last_archived_wal, '') from pg_stat_archiver");
    until("the first segment", || !archived().is_empty());
    old.host.cut();
    let mut last = String::new();
    for n in 0..6 {
        old.sql(&format!("insert into notes values ({n})"));
        last = old.sql("select pg_walfile_name(pg_current_wal_insert_lsn())");
        old.sql("select pg_switch_wal()");
    }
    assert!(archived() < last, "nothing is acknowledged that is not stored");
    old.host.mend();
    until("the last segment", || archived() >= last);
    // Each of them is there, and is what the server has.
    for name in old.host.says("ls /var/lib/postgresql/data/pg_wal/archive_status").lines() {
        let Some(name) = name.strip_suffix(".done") else { continue };
        must(old.host, &["wal", "fetch", "--archive", ARCHIVE, name, "/tmp/back"]);
        old.host.says(&format!("cmp /tmp/back /var/lib/postgresql/data/pg_wal/{name}"));
    }
}

#[test]
fn a_promoted_standby_goes_on_in_the_archive_and_others_follow_it_onto_its_timeline() {
    let lab = Lab::new(&["old", "new"]);
    let Some(bucket) = bucket() else { return };
    for host in ["old", "new"] {
        equip(lab.host(host), &bucket);
    }
    let lines = vec!["archive_mode = on".to_owned(), COMMAND.to_owned()];
    let old = lab.cluster("old", &Settings { lines, ..Settings::default() });
    old.sql("create table notes (n int, t text)");
    push(old.host, "monday");
    old.sql("insert into notes values (1, 'archived'); select pg_switch_wal()");
    let new = lab.place("new", &Settings::default());
    must(new.host, &["base", "fetch", "--archive", ARCHIVE, "latest", "--to", &new.data]);
    // This one takes the old one's place in the archive too.
    new.host.says(&format!("echo 'archive_mode = on' >>{}/postgresql.auto.conf", new.data));
    new.start();
    until("it follows", || new.asked("app", "select 1 from notes where n = 1").is_ok_and(|said| said == "1"));
    old.sql("insert into notes values (2, 'rescued')");
    let segment = old.sql("select pg_walfile_name(pg_current_wal_lsn())");
    old.kill();
    // What was not archived is brought over by hand: the new timeline begins in the middle of a segment.
    let inside = format!("/var/lib/postgresql/data/pg_wal/{segment}");
    std::fs::copy(old.host.path(&inside), new.host.path(&inside)).expect("room");
    new.host.says(&format!("chown postgres:postgres {inside}"));
    until("it has all", || new.asked("app", "select 1 from notes where n = 2").is_ok_and(|said| said == "1"));
    new.sql("select pg_promote(); insert into notes values (3, 'since'); select pg_switch_wal()");
    let archived = |name: &str| bucket.data.path().join("box/prod/wal").join(name).exists();
    until("the history and the last part of the old timeline", || {
        archived("00000002.history") && archived(&format!("{}/{segment}.partial", &segment[..16]))
    });
    assert!(!archived(&format!("{}/{segment}", &segment[..16])), "nobody takes a part for the whole");

    // Another one, made of the backup on the old timeline, where the old one was.
    old.host.says(&format!("rm -rf {}", old.data));
    must(old.host, &["base", "fetch", "--archive", ARCHIVE, "monday", "--to", &old.data]);
    old.start();
    let all = "select string_agg(t, ',' order by n) from notes";
    until("it follows onto the new timeline", || old.asked("app", all).is_ok_and(|said| said == "archived,rescued,since"));
    assert!(old.is_in_recovery());
    new.sql("insert into notes values (4, 'later'); select pg_switch_wal()");
    until("it follows", || old.asked("app", all).is_ok_and(|said| said.ends_with("later")));
}
