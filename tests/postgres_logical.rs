//! `postgres.logical` in the lab: databases follow row by row, clients go over, and all is taken back without a trace.

#[allow(dead_code, reason = "it is shared with the tests of the command line")]
#[path = "cli/bench.rs"]
mod bench;
mod lab;

use bench::Bench;
use lab::Lab;
use lab::postgres::{Cluster, Settings};

const ROWS: &str = "steps:\n  - id: rows\n    uses: postgres.logical\n    with: { from: alpha, to: beta, databases: [shop], without_large_objects: true }\n";
const OVER: &str = "  - id: cutover\n    uses: postgres.cutover\n    pivot: true\n    with:\n      replica: \"{{ steps.rows.outputs }}\"\n\
    \x20     routers:\n        - pgbouncer: { host: gate }\n";

/// A database `shop` with the tables of `pgbench`, which has a table without a key, and one with a sequence.
fn shop(alpha: &Cluster<'_>) {
    alpha.sql("create role clerk login password 'clerk-secret-canary'; create role staff; grant staff to clerk");
    alpha.asked("postgres", "alter database app rename to shop").expect("renamed");
    alpha.asked("shop", "alter table pgbench_history replica identity full; create table orders (id bigserial primary key, at timestamptz default now());
        alter table orders owner to clerk; insert into orders select from generate_series(1, 500)").expect("made");
}

fn outside(cluster: &Cluster<'_>) -> String {
    let asked = "select rolname from pg_roles order by 1; select datname from pg_database order by 1; select slot_name from pg_replication_slots";
    let rules = std::fs::read_to_string(cluster.file("pg_hba.conf")).expect("it has one");
    cluster.asked("postgres", asked).expect("an answer") + &rules
}

#[test]
fn databases_follow_row_by_row_and_are_taken_back_without_a_trace() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let alpha = lab.cluster("alpha", &Settings::full(1));
    let beta = lab.cluster("beta", &Settings::default());
    shop(&alpha);
    beta.asked("postgres", "drop database app; drop role app").expect("dropped");
    let beside = "alter database shop set work_mem = '5MB'; alter database shop connection limit 30; revoke connect on database shop from public;
        grant connect on database shop to staff; alter role clerk set search_path = '$user', \"Odd \"\"one\"\"\", public;
        alter role clerk in database shop set my.own = 'a=b'; comment on database shop is 'Sells';";
    alpha.asked("postgres", beside).expect("done");
    let before = (outside(&alpha), outside(&beta));
    bench.write("rows.yaml", &(lab.yaml(&["alpha", "beta"]) + ROWS));
    let plan = bench.run(&["plan", "rows.yaml"]).exits(0);
    assert!(plan.stdout.contains("copies `shop` of `alpha`"), "{plan:?}");
    assert_eq!((outside(&alpha), outside(&beta)), before, "a plan changes nothing");
    bench.run(&["run", "rows.yaml", "--yes"]).exits(0);
    alpha
        .asked("shop", "insert into orders select from generate_series(1, 10); delete from pgbench_branches where bid > 1")
        .expect("written");
    lab::until("it follows", || (beta.asked("shop", "select count(*) from orders").as_deref() == Ok("510")).then_some(()));
    let sums = "select count(*), sum(hashtext(t::text)) from pgbench_accounts t";
    assert_eq!(alpha.asked("shop", sums), beta.asked("shop", sums));
    assert_eq!(beta.asked("shop", "select tableowner from pg_tables where tablename = 'orders'"), Ok("clerk".to_owned()));
    let belongs = "select (select array_agg(a) from unnest(datacl) a where a::text !~ '^ferry'), shobj_description(oid, 'pg_database') from pg_database where datname = 'shop';
        select coalesce(rolname, '-'), c from pg_db_role_setting s left join pg_roles r on r.oid = setrole, unnest(setconfig) c where c not like 'ferry%' order by 1, 2";
    assert_eq!(beta.asked("shop", belongs), alpha.asked("shop", belongs));
    // Closed until a cutover.
    let said = beta.program(
        "psql",
        &["-XAtqc", "select 1", &beta.url().replace("app:app-secret", "clerk:clerk-secret").replace("/app", "/shop")],
    );
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("too many connections for database \"shop\""), "{said}");
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert_eq!((outside(&alpha), outside(&beta)), before);
    assert_eq!(alpha.asked("shop", "select count(*) from pg_publication"), Ok("0".to_owned()));
}

#[test]
fn a_table_that_cannot_follow_is_named_by_the_plan() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let alpha = lab.cluster("alpha", &Settings::default());
    let _beta = lab.cluster("beta", &Settings::default());
    alpha.asked("postgres", "alter database app rename to shop").expect("renamed");
    alpha.asked("shop", "create table bare (n int)").expect("made");
    bench.write("rows.yaml", &(lab.yaml(&["alpha", "beta"]) + ROWS));
    let plan = bench.run(&["plan", "rows.yaml"]).exits(2);
    assert!(plan.stdout.contains("have no primary key and no replica identity: public.bare"), "{plan:?}");
}

#[test]
fn clients_go_over_to_the_rows_with_their_sequences() {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    let alpha = lab.cluster("alpha", &Settings::full(1));
    let beta = lab.cluster("beta", &Settings::default());
    // The pooler knows the database as `app`.
    alpha.sql("alter table pgbench_history replica identity full; create table orders (id bigserial primary key); insert into orders select from generate_series(1, 500)");
    beta.asked("postgres", "drop database app; drop role app").expect("dropped");
    let pooler = lab.pooler("gate", alpha.address(), alpha.port);
    let steps = (ROWS.to_owned() + OVER).replace("[shop]", "[app]");
    bench.write("move.yaml", &(lab.yaml(&["alpha", "beta", "gate"]) + &steps));
    let mut load = lab.load(&pooler.url(), 8, &[]);
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));
    bench.run(&["run", "move.yaml", "--yes"]).exits(0);
    load.under_way(|| beta.sql("select count(*) from pgbench_history").parse().expect("a number"));
    let figures = load.stop();
    assert_eq!((figures.failed, figures.aborted), (0, 0), "{figures:?}");
    let rows: u64 = beta.sql("select count(*) from pgbench_history").parse().expect("a number");
    assert_eq!(rows, figures.acknowledged, "each acknowledged transaction is there exactly once");
    assert_eq!(beta.sql("insert into orders default values returning id"), "501");
    assert_eq!(beta.sql("select count(*) from pg_subscription"), "0");
    assert!(!alpha.runs());
}

#[test]
fn a_table_that_was_made_while_rows_follow_is_not_left_behind() {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    let (alpha, beta) = (lab.cluster("alpha", &Settings::full(1)), lab.cluster("beta", &Settings::default()));
    alpha.sql("alter table pgbench_history replica identity full; create table orders (id bigserial primary key)");
    beta.asked("postgres", "drop database app; drop role app").expect("dropped");
    let _pooler = lab.pooler("gate", alpha.address(), alpha.port);
    let steps = (ROWS.to_owned() + OVER).replace("[shop]", "[app]");
    bench.write("move.yaml", &(lab.yaml(&["alpha", "beta", "gate"]) + &steps));
    bench.run(&["run", "move.yaml", "--yes", "--until", "rows"]);
    let subscription = beta.sql("select subname from pg_subscription");
    // As a person would, at the target too, as it is told.
    let changes = [
        ("create table later (id int primary key)", "public.later does not follow"),
        ("alter table orders add note text", "`note` of public.orders does not follow"),
        ("create sequence numbers; select nextval('numbers')", "public.numbers (a sequence) does not follow"),
    ];
    for (change, told) in changes {
        alpha.sql(change);
        let ran = bench.run(&["resume", "last", "--yes"]);
        assert_ne!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stderr.contains(told) && ran.stderr.contains("refresh publication"), "{ran:?}");
        assert_eq!(alpha.sql("select 1"), "1", "nothing was begun");
        beta.sql(change);
        beta.sql(&format!("alter subscription {subscription} refresh publication"));
    }
    alpha.sql("insert into later values (1); insert into orders (note) values ('the first')");
    lab::until("the new table follows", || (beta.sql("select count(*) from later") == "1").then_some(()));
    bench.run(&["resume", "last", "--yes"]).exits(0);
    assert_eq!(beta.sql("select note from orders"), "the first");
}
