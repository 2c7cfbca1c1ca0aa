//! The lab's own PostgreSQL, PgBouncer and HAProxy: what other tests may rely on.

mod lab;

use std::time::Duration;

use lab::ledger::Habit;
use lab::postgres::{Cluster, Layout, Settings};
use lab::template::APP;
use lab::{Lab, Machine, tls, until};

/// What `psql` on a host answers when it comes by network; or what went wrong.
fn psql(host: &Machine, how: &str, statement: &str) -> Result<String, String> {
    let mut command = host.enter();
    command.args(["psql", "-XAtq", "-d", how, "-c", statement]).env("PGPASSWORD", APP.1);
    let output = command.output().expect("nsenter is part of util-linux");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn identity(cluster: &Cluster<'_>) -> String {
    cluster.sql("select system_identifier from pg_control_system()")
}

#[test]
fn clusters_start_stop_and_are_killed_and_each_is_its_own() {
    let lab = Lab::new(&["alpha", "beta"]);
    let alpha = lab.cluster("alpha", &Settings::default());
    let beta = lab.cluster("beta", &Settings { port: 5433, layout: Layout::Debian, ..Settings::default() });
    assert_eq!(alpha.sql("create table here (n int); insert into here values (1); select n from here"), "1");
    assert!(beta.asked("app", "select n from here").expect_err("another cluster").contains("does not exist"));
    assert_ne!(identity(&alpha), identity(&beta));
    for cluster in [&alpha, &beta] {
        assert!(!cluster.is_in_recovery());
        cluster.stop();
        assert!(!cluster.runs());
        cluster.start();
        cluster.kill();
        assert!(!cluster.runs());
        cluster.start();
        assert_eq!(cluster.sql("show data_checksums; show wal_level; show wal_log_hints"), "on\nlogical\non");
    }
    assert_eq!(alpha.sql("select n from here"), "1", "what was there before the kill is there");
    // The other host's files are not there.
    let lines = alpha.host.says("ls /var/lib/postgresql /etc/postgresql");
    assert!(!lines.contains("15"), "{lines}");
    assert!(beta.host.inside("ls /var/lib/postgresql/data").stdout.is_empty());
    assert!(beta.host.says("pg_lsclusters -h").contains(" 5433 online postgres /var/lib/postgresql/"));
}

#[test]
fn clients_come_by_network_with_and_without_tls_and_replicas_do_not() {
    let lab = Lab::new(&["alpha", "beta"]);
    let alpha = lab.cluster("alpha", &Settings::default());
    let beta = lab.host("beta");
    let secured = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    for host in ["alpha", "10.77.0.10"] {
        let verified = format!("host={host} user=app dbname=app sslmode=verify-full sslrootcert={}/ca.crt", tls::INSIDE);
        lab.certify();
        assert_eq!(psql(beta, &verified, secured), Ok("t".to_owned()));
    }
    assert_eq!(psql(beta, "host=alpha user=app dbname=app sslmode=disable", secured), Ok("f".to_owned()));
    // Another name, another authority, another password.
    alpha.host.says("true");
    beta.says("echo 10.77.0.10 gamma >>/etc/hosts");
    let wrong = format!("host=gamma user=app dbname=app sslmode=verify-full sslrootcert={}/ca.crt", tls::INSIDE);
    assert!(psql(beta, &wrong, secured).expect_err("refused").contains("does not match host name"));
    let wrong = format!("host=alpha user=app dbname=app sslmode=verify-full sslrootcert={}/server.crt", tls::INSIDE);
    assert!(psql(beta, &wrong, secured).expect_err("refused").contains("certificate verify failed"));
    assert!(
        psql(beta, "host=alpha user=postgres dbname=app", "").expect_err("refused").contains("password authentication failed")
    );
    let replica = psql(beta, "host=alpha user=app dbname=app replication=true", "IDENTIFY_SYSTEM").expect_err("refused");
    assert!(replica.contains("no pg_hba.conf entry for replication connection"), "{replica}");
}

#[test]
fn a_base_backup_follows_on_another_host_with_the_certificate_of_that_host() {
    let lab = Lab::new(&["alpha", "beta"]);
    let alpha = lab.cluster("alpha", &Settings::default());
    let beta = lab.place("beta", &Settings::default());
    std::fs::write(alpha.file("pg_hba.conf"), "local all all peer\nhost replication postgres 10.77.0.20/32 trust\n")
        .expect("written");
    alpha.sql("select pg_reload_conf()");
    beta.must("pg_basebackup", &["-h", "alpha", "-D", &beta.data, "-R", "-X", "stream", "--checkpoint=fast", "--no-sync"]);
    beta.start();
    assert!(beta.is_in_recovery());
    alpha.sql("create table here as select 1 as n");
    until("the replica has it", || beta.asked("app", "select n from here").ok());
    assert_eq!(identity(&alpha), identity(&beta));
    assert_eq!(beta.sql("select pg_promote(); select pg_is_in_recovery()"), "t\nf");
}

#[test]
fn the_pooler_and_the_proxy_lead_clients_to_one_server_and_then_to_the_other() {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    let (alpha, beta) = (lab.cluster("alpha", &Settings::default()), lab.cluster("beta", &Settings::debian()));
    let (pooler, proxy) =
        (lab.pooler("gate", alpha.address(), alpha.port), lab.proxy("gate", "10.77.0.10:5432", "10.77.0.20:5432", "weight 0"));
    let which = "select system_identifier from pg_control_system()";
    for cluster in [&alpha, &beta] {
        cluster.sql("grant execute on function pg_control_system to app");
    }
    let client = lab.host("beta");
    let verified = format!("{}?sslmode=verify-full&sslrootcert={}/ca.crt", pooler.url(), tls::INSIDE);
    for url in [&pooler.url(), &verified, &proxy.url()] {
        assert_eq!(psql(client, url, which), Ok(identity(&alpha)), "{url}");
    }
    assert_eq!(pooler.admin("pause app"), "PAUSE");
    pooler.points_at(beta.address(), beta.port);
    assert_eq!(pooler.admin("reload"), "RELOAD");
    assert_eq!(pooler.admin("resume app"), "RESUME");
    assert_eq!(proxy.ask("set server postgres/new weight 100"), "");
    assert_eq!(proxy.ask("set server postgres/old weight 0"), "");
    for url in [pooler.url(), proxy.url()] {
        assert_eq!(psql(client, &url, which), Ok(identity(&beta)), "{url}");
    }
    pooler.kill();
    pooler.start();
    assert_eq!(psql(client, &pooler.url(), which), Ok(identity(&beta)));
}

#[test]
fn clients_write_through_the_pooler_and_a_pause_is_seen_as_a_gap_and_nothing_else() {
    let lab = Lab::new(&["alpha", "gate"]);
    let alpha = lab.cluster("alpha", &Settings::full(1));
    let pooler = lab.pooler("gate", alpha.address(), alpha.port);
    let written = || alpha.sql("select count(*) from pgbench_history").parse::<u64>().expect("a number");
    let mut load = lab.load(&pooler.url(), 8, &["--max-tries=3"]);
    load.under_way(written);
    assert_eq!(pooler.admin("pause app"), "PAUSE");
    assert_eq!(pooler.pool("sv_active"), 0);
    let before = written();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(written(), before, "a pause is a pause");
    pooler.admin("resume app");
    load.under_way(written);
    let figures = load.stop();
    assert!(figures.gap >= Duration::from_millis(300) && figures.gap < Duration::from_secs(5), "{figures:?}");
    assert_eq!((figures.failed, figures.aborted, figures.acknowledged), (0, 0, written()), "{}", figures.text);
}

#[test]
fn the_shop_has_what_makes_databases_hard_to_move() {
    let lab = Lab::new(&["alpha"]);
    let alpha = lab.cluster("alpha", &Settings::full(1));
    let count = |what: &str| alpha.sql(what).parse::<u64>().expect("a number");
    assert_eq!(count("select count(*) from shop.payment"), 1600);
    assert_eq!(count("select count(distinct oid) from pg_largeobject_metadata"), 5);
    assert_eq!(count("select count(*) from pg_class where relreplident = 'f'"), 1);
    let without_key = "select count(*) from pg_class c where relkind = 'r' and relnamespace = 'shop'::regnamespace and not exists
        (select from pg_constraint where conrelid = c.oid and contype = 'p')";
    assert_eq!(count(without_key), 1);
    for (kind, what) in
        [("p", "partitioned tables"), ("S", "sequences"), ("v", "views"), ("m", "materialized views"), ("c", "types")]
    {
        let found =
            count(&format!("select count(*) from pg_class where relnamespace = 'shop'::regnamespace and relkind = '{kind}'"));
        assert!(found > 0, "no {what}");
    }
    let words = alpha.sql("update shop.film set title = 'Fog', story = 'A dog' where id = 1 returning words");
    assert_eq!(words, "'dog':3 'fog':1", "triggers are at work");
}

#[test]
fn a_ledger_sees_a_pause_a_write_that_is_lost_and_two_servers_at_once() {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    let (alpha, beta) = (lab.cluster("alpha", &Settings::default()), lab.cluster("beta", &Settings::default()));
    beta.sql("create table ledger (client text, number bigint, at timestamptz default now()); grant all on ledger to app");
    let pooler = lab.pooler("gate", alpha.address(), alpha.port);
    let clients = [
        ("kept", pooler.url(), Habit::Keeps),
        ("fresh", pooler.url(), Habit::Anew),
        ("alpha", alpha.url(), Habit::Anew),
        ("beta", beta.url(), Habit::Anew),
    ];
    let ledger = alpha.ledger(&clients);
    ledger.under_way();
    pooler.admin("pause app");
    std::thread::sleep(Duration::from_millis(200));
    pooler.admin("resume app");
    ledger.under_way();
    let seen = ledger.stop();
    for client in ["kept", "fresh"] {
        assert!(seen.client(client).errors.is_empty(), "a pause is no error: {:?}", seen.client(client).errors);
        assert!(seen.client(client).gap() >= Duration::from_millis(200));
    }
    let fails = |what: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(what)).is_err();
    assert!(fails(&|| seen.never_both("alpha", "beta")), "both accept writes");
    let whole = || seen.is_whole_on(&alpha);
    assert!(fails(&|| assert!(whole() > 0)), "what was written to the other is not there");
    let copied: Vec<_> = seen.client("beta").acknowledged.iter().map(|(number, ..)| format!("('beta', {number})")).collect();
    alpha.sql(&format!("insert into ledger values {}", copied.join(", ")));
    assert!(whole() > 200);
    alpha.sql("insert into ledger select client, number from ledger limit 1");
    assert!(fails(&|| assert!(whole() > 0)), "one is there twice");
    alpha.sql("delete from ledger where client = 'kept' and number = 7");
    assert!(fails(&|| assert!(whole() > 0)), "one is lost");
}

/// Not a test by itself: the process that `a_killed_test_leaves_no_server_and_no_client` kills.
#[test]
fn servers_to_be_killed() {
    let Ok(file) = std::env::var("FERRY_TEST_LAB") else { return };
    let lab = Lab::new(&["alpha", "gate"]);
    let alpha = lab.cluster("alpha", &Settings::full(1));
    let pooler = lab.pooler("gate", alpha.address(), alpha.port);
    let _proxy = lab.proxy("gate", "10.77.0.10:5432", "10.77.0.10:5433", "backup");
    let mut load = lab.load(&pooler.url(), 2, &[]);
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));
    let pids = [lab.host("alpha").process(), lab.host("gate").process(), load.child.id()].map(|pid| pid.to_string());
    std::fs::write(file, format!("{}\n{}\n", lab.folder().display(), pids.join(" "))).expect("written");
    std::thread::sleep(Duration::from_mins(1));
}

#[test]
fn a_killed_test_leaves_no_server_and_no_client() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("told");
    let shared = || {
        let files = std::fs::read_dir("/dev/shm").into_iter().flatten().filter_map(Result::ok);
        files.filter(|file| file.file_name().to_string_lossy().starts_with("PostgreSQL")).count()
    };
    let before = shared();
    let mut killed = std::process::Command::new(std::env::current_exe().expect("this test"));
    let mut killed = killed.args(["--exact", "servers_to_be_killed"]).env("FERRY_TEST_LAB", &file).spawn().expect("started");
    let told = || std::fs::read_to_string(&file).unwrap_or_default();
    until("the lab stands", || (told().lines().count() == 2).then_some(()));
    killed.kill().expect("killed");
    killed.wait().expect("it has ended");
    let told = told();
    let (lab, pids) = told.trim().split_once('\n').expect("two lines");
    // The servers are in the process namespaces of these, which take them along.
    until("all processes are gone", || {
        (!pids.split(' ').any(|pid| std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok())).then_some(())
    });
    until("the lab's folder is gone", || (!std::path::Path::new(lab).exists()).then_some(()));
    assert_eq!(shared(), before, "shared memory is left");
}
