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
    ]
}
