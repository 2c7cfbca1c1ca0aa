//! The cases of the types that watch or ask: probes, databases.

use ferry::secret::mark;
use serde_json::json;

use crate::cases::{Case, End, nothing};
use crate::world::World;

/// The cases.
pub fn cases() -> Vec<Case> {
    let case =
        |name, uses, with: fn(&World) -> serde_json::Value, prepare: fn(&World), end| Case { name, uses, with, prepare, end };
    vec![
        case(
            "probe of a port",
            "probe.tcp",
            |world| json!({ "address": world.url.trim_start_matches("http://"), "for": "20ms", "every": "5ms", "fresh_every": "10ms", "after": 1 }),
            nothing,
            End::Well,
        ),
        case(
            "probe of a port that answers",
            "probe.tcp",
            |world| {
                json!({
                    "address": world.url.trim_start_matches("http://"), "for": "10ms", "every": "5ms", "fresh_every": "5ms",
                    "send": format!("GET /things/up HTTP/1.1\r\nhost: me\r\nauthorization: {}\r\n\r\n", mark("canary")),
                    "receives": "200 OK", "after": 1,
                })
            },
            |world| world.put("/things/up", "yes"),
            End::Well,
        ),
        case(
            "probe of a closed port",
            "probe.tcp",
            |_| json!({ "address": "127.0.0.1:9", "ready_within": "30ms" }),
            nothing,
            End::Failed,
        ),
        case(
            "probe that sees too much",
            "probe.tcp",
            |world| json!({ "address": world.url.trim_start_matches("http://"), "for": "20ms", "after": 1, "max_gap": "1us" }),
            nothing,
            End::Failed,
        ),
        case("probe of no port", "probe.tcp", |_| json!({ "address": "localhost" }), nothing, End::Failed),
        case(
            "probe without end",
            "probe.tcp",
            |world| json!({ "address": world.url.trim_start_matches("http://") }),
            nothing,
            End::Never,
        ),
        case(
            "probe of a URL",
            "probe.http",
            |world| {
                json!({
                    "url": format!("{}/echo?key={}", world.url, mark("canary")), "headers": { "Authorization": mark("canary") },
                    "expect": { "json": { "state": "open" } }, "contains": "\"open\"", "for": "20ms", "every": "5ms",
                    "fresh_every": "10ms", "after": 1, "max_errors": 0,
                })
            },
            nothing,
            End::Well,
        ),
        case(
            "probe of a URL that says no",
            "probe.http",
            |world| json!({ "url": format!("{}/refuse?key={}", world.url, mark("canary")), "headers": { "Authorization": mark("canary") } }),
            nothing,
            End::Failed,
        ),
        case(
            "probe of a URL that never answers",
            "probe.http",
            |world| json!({ "url": format!("{}/hang", world.url) }),
            nothing,
            End::Never,
        ),
        case(
            "probe of a database",
            "probe.postgres",
            |world| {
                json!({
                    "route": format!("127.0.0.1:{}", world.cluster().port), "user": "postgres", "password": mark("canary"),
                    "database": "app", "for": "20ms", "every": "5ms", "fresh_every": "20ms", "after": 1, "max_errors": 0,
                })
            },
            nothing,
            End::Well,
        ),
        case(
            "probe of a database that only reads",
            "probe.postgres",
            |world| {
                json!({
                    "route": format!("127.0.0.1:{}", world.cluster().port), "user": "postgres", "password": mark("canary"),
                    "database": "app", "for": "20ms", "ledger": false, "after": 1,
                })
            },
            nothing,
            End::Well,
        ),
        case(
            "probe of a database with a wrong password",
            "probe.postgres",
            |world| {
                json!({
                    "route": format!("127.0.0.1:{}", world.cluster().port), "user": "postgres",
                    "password": format!("{}-", mark("canary")), "database": "app",
                })
            },
            nothing,
            End::Failed,
        ),
        case(
            "query that makes a table",
            "postgres.query",
            |world| {
                json!({
                    "server": server(world), "database": "app", "sql": ["create table if not exists t (n int primary key)",
                    "insert into t values (1), (2) on conflict do nothing", "select count(*) from t"],
                    "undo": "drop table if exists t",
                })
            },
            |world| {
                let _ = world.cluster();
            },
            End::Well,
        ),
        case(
            "query that only reads",
            "postgres.query",
            |world| {
                json!({
                    "server": server(world), "read_only": true, "sql": "select $1::text as secret, $2::int + 1 as sum",
                    "values": [mark("canary"), 41],
                })
            },
            nothing,
            End::Well,
        ),
        case(
            "query that only reads and writes",
            "postgres.query",
            |world| json!({ "server": server(world), "read_only": true, "sql": "create table t (n int)" }),
            nothing,
            End::Failed,
        ),
        case(
            "query with a secret that is wrong",
            "postgres.query",
            |world| json!({ "server": server(world), "sql": format!("select '{}'::int", mark("canary")) }),
            nothing,
            End::Failed,
        ),
        case(
            "query without end",
            "postgres.query",
            |world| json!({ "server": server(world), "sql": "select pg_sleep(1000)" }),
            nothing,
            End::Never,
        ),
        case(
            "answer as expected",
            "validate.query",
            |world| {
                json!({
                    "server": server(world), "sql": "select n, 'x' || n as name from generate_series($1::int, 5) n", "values": [4],
                    "equals": 4, "rows": 2, "at_least": 4, "at_most": 4.5, "json": [{ "n": 4 }, { "name": "x5" }],
                })
            },
            nothing,
            End::Well,
        ),
        case(
            "answer over the limit",
            "validate.query",
            |world| json!({ "server": server(world), "sql": "select 7", "at_most": 6 }),
            nothing,
            End::Failed,
        ),
        case(
            "answer that is no",
            "validate.query",
            |world| json!({ "server": server(world), "sql": format!("select '{}' = 'x'", mark("canary")) }),
            nothing,
            End::Failed,
        ),
        case(
            "compare a database with itself",
            "postgres.compare",
            |world| json!({ "from": server(world), "to": server(world), "databases": ["app"], "parallel": 1 }),
            |world| {
                let made = "create table t (id int primary key, name text); insert into t values (1, 'a'), (2, null)";
                world.cluster().sql(made);
            },
            End::Well,
        ),
        case(
            "compare with no server",
            "postgres.compare",
            |_| json!({ "from": { "host": "local", "connect": "tcp", "address": "127.0.0.1:9" }, "to": "local" }),
            nothing,
            End::Failed,
        ),
        case(
            "compare nothing",
            "postgres.compare",
            |world| json!({ "from": server(world), "to": server(world), "include": ["none.*"], "schema": false }),
            nothing,
            End::Failed,
        ),
    ]
}

/// The world's PostgreSQL server.
fn server(world: &World) -> serde_json::Value {
    json!({
        "host": "local", "connect": "tcp", "address": "127.0.0.1", "port": world.cluster().port, "password": mark("canary"),
        "tls": "disable",
    })
}
