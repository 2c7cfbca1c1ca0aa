//! Two PostgreSQL servers compared: equal ones, also while clients write, and each way of not being equal.

mod parts;

use std::process::{Child, Command, Stdio};

use ferry::error::StepError;
use ferry::hosts;
use ferry::steps::StepContext;
use parts::cluster::{Cluster, POSTGRES};
use parts::scene::Scene;
use serde_json::{Value, json};

/// A server as the step is told of it.
fn server(cluster: &Cluster) -> Value {
    json!({
        "host": "local", "connect": "tcp", "address": "127.0.0.1", "port": cluster.port, "user": "postgres", "password": POSTGRES,
        "tls": "disable",
    })
}

/// Compares the database `app`.
async fn compare(from: &Cluster, to: &Cluster, more: Value) -> Result<Value, StepError> {
    let scene = Scene::new([]);
    let mut with = json!({ "from": server(from), "to": server(to), "databases": ["app"], "fail": false });
    for (name, value) in more.as_object().expect("a mapping") {
        with[name] = value.clone();
    }
    let step = Scene::step("postgres.compare", &with);
    let ctx = StepContext { hosts: ferry::hosts::Hosts::new([hosts::local("local")]), ..scene.context() };
    let before = step.inspect(&ctx).await?;
    step.run(&ctx, &before).await
}

/// What differs, in lines.
fn differences(compared: &Value) -> Vec<String> {
    let list = compared["first_differences"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    list.map(|one| format!("{} {}: {}", text(&one["kind"]), text(&one["name"]), text(&one["what"]))).collect()
}

/// Clients that write into `app`.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bench(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(parts::cluster::programs().join("pgbench"));
    command.env("PGPASSWORD", POSTGRES).args(["-h", "127.0.0.1", "-U", "postgres", "-p", &cluster.port.to_string()]);
    command.args(arguments).arg("app").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

// Connections end beside the test, which waits for `psql`.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_equal_to_its_source_while_clients_write() {
    let source = Cluster::new("");
    assert!(bench(&source, &["-i", "-q", "-s", "2"]).status().expect("pgbench is there").success());
    let standby = source.standby("");
    let quiet = compare(&source, &standby, json!({ "chunk": "1MiB" })).await.expect("compared");
    assert_eq!((&quiet["equal"], &quiet["tables"], &quiet["rows"]), (&json!(true), &json!(4), &json!(200_022)), "{quiet:#}");
    let load = Load(bench(&source, &["-n", "-c", "4", "-T", "120"]).spawn().expect("pgbench is there"));
    parts::cluster::until("they write", || source.sql("select count(*) > 100 from pgbench_history").eq("t").then_some(()));
    for chunk in ["1MiB", "128MiB"] {
        let busy = compare(&source, &standby, json!({ "chunk": chunk })).await.expect("compared");
        assert_eq!((&busy["equal"], &busy["equal_tables"]), (&json!(true), &json!(4)), "{busy:#}");
    }
    // The other way round, the standby is the source.
    let back = compare(&standby, &source, json!({})).await.expect("compared");
    assert_eq!(back["equal"], true, "{back:#}");
    drop(load);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_that_differs_is_named() {
    let (from, to) = (Cluster::new(""), Cluster::fresh(""));
    let copies = [Cluster::new(""), to];
    let make = "create table big (id int primary key, name text, at timestamptz); \
        insert into big select n, 'name ' || n, 'epoch'::timestamptz + n * interval '1 minute' from generate_series(1, 60000) n; \
        create table pair (a text, b numeric, c bytea, primary key (a, b)); \
        insert into pair select 'it''s \\' || n % 7, n / 10.0, decode(md5(n::text), 'hex') from generate_series(1, 3000) n; \
        create table keyless (a int, b text); insert into keyless select n % 3, null from generate_series(1, 100) n; \
        create table empty (a int primary key)";
    from.sql(make);
    for to in &copies {
        to.sql(make);
        let same = compare(&from, to, json!({ "chunk": "1MiB", "schema": false })).await.expect("compared");
        assert_eq!((&same["equal"], &same["tables"], &same["rows"]), (&json!(true), &json!(4), &json!(63_100)), "{same:#}");
        to.sql(
            "update big set name = 'other' where id = 31234; delete from big where id = 7; insert into big values (60001, 'x'); \
             update pair set c = '\\x00' where a = 'it''s \\3' and b = 1.0; update keyless set b = '' where ctid = '(0,5)'",
        );
        let compared = compare(&from, to, json!({ "chunk": "1MiB", "schema": false, "parallel": 2 })).await.expect("compared");
        let found = differences(&compared);
        for wanted in [
            "row public.big: row (id) = (7): missing in the target",
            "row public.big: row (id) = (60001): not in the source",
            "public.pair: row (a, b) = (it's \\3, 1.0",
        ] {
            assert!(found.iter().any(|line| line.contains(wanted)), "{wanted}: {found:#?}");
        }
        // A row that was written anew lies elsewhere, and is told by its key all the same.
        assert!(found.iter().any(|line| line.contains("row (id) = (31234)")), "{found:#?}");
        assert!(found.iter().any(|line| line.contains("public.keyless")), "{found:#?}");
        assert_eq!((&compared["equal"], &compared["equal_tables"]), (&json!(false), &json!(1)), "{compared:#}");
        let error = compare(&from, to, json!({ "schema": false, "fail": true })).await.expect_err("they differ");
        assert!(error.message.contains("differences between") && error.help.is_some(), "{}", error.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_changed_places_and_nulls_are_seen() {
    let (from, to) = (Cluster::new(""), Cluster::new(""));
    for (here, there) in [
        ("values (1, 'a', 'b'), (2, 'c', 'd')", "values (1, 'a', 'd'), (2, 'c', 'b')"),
        ("values (1, 'a', null::text), (2, null, 'a')", "values (1, null, 'a'), (2, 'a', null::text)"),
        ("values (1, '', null::text)", "values (1, null, '')"),
        ("values (1, 'a', 'b'), (1, 'a', 'b')", "values (1, 'a', 'b')"),
        ("values (1, 'ab', 'c')", "values (1, 'a', 'bc')"),
    ] {
        for (cluster, rows) in [(&from, here), (&to, there)] {
            cluster.sql(&format!("drop table if exists t; create table t as select * from ({rows}) as v (id, one, two)"));
        }
        let compared = compare(&from, &to, json!({ "schema": false })).await.expect("compared");
        assert_eq!(compared["equal"], false, "{here} and {there}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beside_the_rows_is_compared_too() {
    let (from, to) = (Cluster::new(""), Cluster::new(""));
    let make = "create table t (id int primary key, kind text not null default 'x'); create index t_kind on t (kind); \
        create sequence s; select nextval('s') from generate_series(1, 100); create type mood as enum ('well', 'away'); \
        create function f() returns int language sql as 'select 1'; create view v as select id from t; \
        select lo_from_bytea(4711, 'large')";
    from.sql(make);
    to.sql(make);
    let same = compare(&from, &to, json!({})).await.expect("compared");
    assert_eq!(same["equal"], true, "{same:#}");
    for (harm, wanted) in [
        ("drop index t_kind", "schema i public.t_kind: missing in the target"),
        ("alter table t alter kind drop not null", "schema column public.t.kind:"),
        ("select setval('s', 99)", "sequence public.s:"),
        ("alter type mood add value 'stuck'", "schema type public.mood:"),
        ("create or replace function f() returns int language sql as 'select 2'", "schema function public.f():"),
        ("create role extra", "role extra: not in the source"),
        ("alter role app connection limit 3", "role app: other attributes"),
        ("select lo_put(4711, 0, 'L')", "large_object large objects:"),
        ("create table more (id int)", "table public.more: not in the source"),
        ("alter table t add extra int", "table public.t: other columns in the target"),
    ] {
        to.sql(harm);
        let compared = compare(&from, &to, json!({})).await.expect("compared");
        let found = differences(&compared);
        assert!(found.iter().any(|line| line.starts_with(wanted)), "{harm}: {found:#?}");
    }
    // A sequence may be ahead.
    to.sql("select setval('s', 500)");
    let compared = compare(&from, &to, json!({})).await.expect("compared");
    assert!(!differences(&compared).iter().any(|line| line.starts_with("sequence")), "{compared:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_all_shapes_is_equal_after_a_dump_and_a_restore() {
    let (from, to) = (Cluster::new(""), Cluster::fresh(""));
    let shop = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/shop.sql");
    from.file(shop, &["-v", "scale=1"]);
    let dump = std::env::temp_dir().join(format!("ferry-compare-{}.sql", from.port));
    let mut dumping = Command::new(parts::cluster::programs().join("pg_dump"));
    dumping.env("PGPASSWORD", POSTGRES).args(["-h", "127.0.0.1", "-U", "postgres", "-p", &from.port.to_string(), "-f"]);
    assert!(dumping.arg(&dump).arg("app").status().expect("pg_dump is there").success());
    to.file(&dump.to_string_lossy(), &[]);
    std::fs::remove_file(dump).expect("it is ours");
    let compared = compare(&from, &to, json!({ "chunk": "1MiB" })).await.expect("compared");
    let found = differences(&compared);
    assert!(found.is_empty(), "{found:#?}");
    assert!(compared["tables"].as_u64() > Some(10), "{compared:#}");
}
