//! For every step type one or more configurations to put the questions to.

use std::os::unix::fs::PermissionsExt;

use ferry::secret::mark;
use serde_json::{Value, json};

use crate::world::World;

/// A configuration of a step type, and the world that it needs.
pub struct Case {
    pub name: &'static str,
    pub uses: &'static str,
    pub with: fn(&World) -> Value,
    pub prepare: fn(&World),
    /// How it is meant to end.
    pub end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It succeeds.
    Well,
    /// It fails.
    Failed,
    /// It works until it is told to stop.
    Never,
}

pub fn nothing(_: &World) {}

/// What it is about is not there.
fn absent(name: &'static str, uses: &'static str, with: fn(&World) -> Value) -> Case {
    Case { name, uses, with, prepare: nothing, end: End::Failed }
}

fn objects(world: &World) {
    for name in ["a.txt", "b/c.txt", "b/d e ü.txt", "z.bin"] {
        world.write(&format!("old/up/{name}"), name.repeat(100));
    }
    world.write("new/kept.txt", "someone else's");
}

/// A server that is not there, as `postgres.replica` tells of one.
fn server(port: u16) -> Value {
    json!({
        "host": "local", "port": port, "socket": "/nowhere", "become": "root", "user": "postgres", "database": "postgres",
        "connect": "socket", "tls": "prefer", "password": mark("canary"),
    })
}

fn replica() -> Value {
    json!({
        "from": server(5432), "to": server(5433), "slot": "ferry_1", "user": "ferry_1", "address": "127.0.0.1:5432",
        "system_identifier": "1", "version": 150_000, "lag": "0B", "lag_time": "0s", "bytes": "1MiB",
    })
}

/// The cases; over SSH those of the types that act on hosts.
pub fn cases() -> Vec<Case> {
    let acts_on_hosts = |case: &Case| matches!(case.uses, "command" | "file.write" | "validate.command");
    let mut cases = all();
    cases.extend(crate::watched::cases());
    cases.extend(crate::archived::cases());
    cases.retain(|case| crate::over_ssh::host().is_none() || acts_on_hosts(case));
    cases
}

fn all() -> Vec<Case> {
    let case = |name, uses, with, prepare, end| Case { name, uses, with, prepare, end };
    vec![
        case("approval", "approval", |_| json!({ "message": "Go on?", "approvers": ["ada"] }), nothing, End::Failed),
        case("assert true", "assert", |_| json!({ "that": true }), nothing, End::Well),
        case("assert false", "assert", |_| json!({ "that": "", "message": mark("canary") }), nothing, End::Failed),
        case(
            "command",
            "command",
            |_| json!({ "run": "cp in out && chmod 600 out", "undo": "rm -f out", "outputs": "lines" }),
            |world| world.write("in", "text"),
            End::Well,
        ),
        case(
            "command with a check",
            "command",
            |_| json!({ "run": "echo made >> log", "check": ["grep", "-qs", "made", "log"], "undo": ["rm", "-f", "log"] }),
            nothing,
            End::Well,
        ),
        case(
            "command that was done before",
            "command",
            |_| json!({ "run": "echo more >> log", "check": "test -e log", "undo": "rm -f log" }),
            |world| world.write("log", "done by others"),
            End::Well,
        ),
        case(
            "command with a secret",
            "command",
            |_| {
                json!({
                    "run": "printf '%s\\n' \"$KEY\"; cat; printf %s \"$KEY\" | base64 -w0 >&2",
                    "env": { "KEY": mark("canary"), "PORT": 5432 }, "stdin": mark("canary"), "outputs": "text",
                })
            },
            nothing,
            End::Well,
        ),
        case(
            "command that tells a secret and fails",
            "command",
            |_| json!({ "run": "echo \"cannot log in with $KEY\" >&2; exit 9", "env": { "KEY": mark("canary") } }),
            nothing,
            End::Failed,
        ),
        case("command with a secret argument", "command", |_| json!({ "run": ["echo", mark("canary")] }), nothing, End::Failed),
        case("command without end", "command", |_| json!({ "run": "sleep 1000 & sleep 1000" }), nothing, End::Never),
        case(
            "file that is new",
            "file.write",
            |_| json!({ "path": "conf", "content": format!("key = {}\n", mark("canary")) }),
            nothing,
            End::Well,
        ),
        case(
            "file that is there",
            "file.write",
            |_| json!({ "path": "conf", "content": "new\n", "mode": "0644" }),
            |world| {
                world.write("conf", "old\n");
                std::fs::set_permissions(world.path("conf"), PermissionsExt::from_mode(0o4600)).expect("mine");
            },
            End::Well,
        ),
        case(
            "file that is no text",
            "file.write",
            |_| json!({ "path": "conf", "template": { "rendered": "new\n" } }),
            |world| world.write("conf", [0, 159, 146, 150]),
            End::Well,
        ),
        case(
            "file that is large",
            "file.write",
            |_| json!({ "path": "conf", "content": "small\n" }),
            |world| world.write("conf", "0123456789".repeat(100_000)),
            End::Well,
        ),
        case(
            "file that holds the secret already",
            "file.write",
            |_| json!({ "path": "conf", "content": "nothing secret" }),
            |world| world.write("conf", format!("old {}", crate::world::CANARY)),
            End::Well,
        ),
        case(
            "file in no folder",
            "file.write",
            |_| json!({ "path": "no/such/folder/conf", "content": mark("canary") }),
            nothing,
            End::Failed,
        ),
        case(
            "request that puts",
            "http.request",
            |world| {
                json!({
                    "method": "PUT", "url": format!("{}/things/a", world.url), "json": { "key": mark("canary") },
                    "undo": { "url": format!("{}/things/a", world.url) },
                })
            },
            nothing,
            End::Well,
        ),
        case(
            "request that posts with a key",
            "http.request",
            |world| {
                json!({
                    "method": "POST", "url": format!("{}/things", world.url), "form": { "size": 3 }, "idempotent": true,
                    "expect": { "status": 201 }, "outputs": "json",
                    // The key is the same for every attempt, so it names what is to be taken back.
                    "undo": { "url": format!("{}/things/{}", world.url, world.context(1, false).idempotence_key()) },
                })
            },
            nothing,
            End::Well,
        ),
        case(
            "request that deletes",
            "http.request",
            |world| json!({ "method": "DELETE", "url": format!("{}/things/a", world.url) }),
            |world| world.put("/things/a", "thing"),
            End::Well,
        ),
        case(
            "request that tells a secret",
            "http.request",
            |world| {
                json!({
                    "method": "PUT", "url": format!("{}/echo?key={}", world.url, mark("canary")), "body": mark("canary"),
                    "headers": { "Authorization": format!("Bearer {}", mark("canary")) },
                    "expect": { "json": { "state": "open", "list": [1, 2], "body": mark("canary") } }, "outputs": "json",
                })
            },
            nothing,
            End::Well,
        ),
        case(
            "request that is refused",
            "http.request",
            |world| {
                json!({
                    "url": format!("{}/refuse", world.url), "query": { "key": mark("canary") },
                    "headers": { "Authorization": mark("canary") },
                })
            },
            nothing,
            End::Failed,
        ),
        case(
            "request without an answer",
            "http.request",
            |world| json!({ "url": format!("{}/hang", world.url) }),
            nothing,
            End::Never,
        ),
        case(
            "command that is as expected",
            "validate.command",
            |_| {
                json!({
                    "run": "cat in; printf '\"%s\"}' \"$KEY\"", "env": { "KEY": "k" },
                    "json": { "count": 3 }, "contains": "count", "within": "20s",
                })
            },
            |world| world.write("in", "{\"count\": 3, \"key\": "),
            End::Well,
        ),
        case(
            "command that is not as expected",
            "validate.command",
            |_| json!({ "run": "printf %s \"$KEY\"", "env": { "KEY": mark("canary") }, "equals": "something else" }),
            nothing,
            End::Failed,
        ),
        case(
            "command that equals a secret",
            "validate.command",
            |_| json!({ "run": ["cat"], "stdin": mark("canary"), "equals": mark("canary") }),
            nothing,
            End::Well,
        ),
        case("command that says no in vain", "validate.command", |_| json!({ "run": "exit 3" }), nothing, End::Failed),
        case("command that never says", "validate.command", |_| json!({ "run": "sleep 1000" }), nothing, End::Never),
        case(
            "URL that is as expected",
            "validate.http",
            |world| {
                json!({
                    "url": format!("{}/echo?key={}", world.url, mark("canary")), "headers": { "Authorization": mark("canary") },
                    "expect": { "status": [200, 204], "json": { "state": "open" } }, "contains": "\"open\"", "within": "20s",
                })
            },
            nothing,
            End::Well,
        ),
        case(
            "URL that is not as expected",
            "validate.http",
            |world| json!({ "url": format!("{}/echo", world.url), "expect": { "json": { "state": "closed" } } }),
            nothing,
            End::Failed,
        ),
        case(
            "URL that lacks a word",
            "validate.http",
            |world| json!({ "url": format!("{}/echo", world.url), "contains": mark("canary") }),
            nothing,
            End::Failed,
        ),
        case(
            "URL that is slow",
            "validate.http",
            |world| json!({ "url": format!("{}/echo", world.url), "within": "1us" }),
            nothing,
            End::Failed,
        ),
        case(
            "URL that never answers",
            "validate.http",
            |world| json!({ "url": format!("{}/hang", world.url) }),
            nothing,
            End::Never,
        ),
        case(
            "port that accepts",
            "validate.tcp",
            |world| json!({ "address": world.url.trim_start_matches("http://") }),
            nothing,
            End::Well,
        ),
        case(
            "port that is closed as it should be",
            "validate.tcp",
            |_| json!({ "address": "127.0.0.1:9", "reachable": false }),
            nothing,
            End::Well,
        ),
        case("port that is closed", "validate.tcp", |_| json!({ "address": "127.0.0.1:9" }), nothing, End::Failed),
        case(
            "port that is open and must not",
            "validate.tcp",
            |world| json!({ "address": world.url.trim_start_matches("http://"), "reachable": false }),
            nothing,
            End::Failed,
        ),
        case("no port", "validate.tcp", |_| json!({ "address": "localhost" }), nothing, End::Failed),
        case(
            "port that says nothing",
            "validate.tcp",
            |world| json!({ "address": world.url.trim_start_matches("http://"), "greets": "SSH-2.0", "within": "1h" }),
            nothing,
            End::Never,
        ),
        // What these do where there are servers is tested in the lab, on hosts of their own.
        case(
            "replica of no server",
            "postgres.replica",
            |_| json!({ "from": server(5432), "to": server(5433) }),
            nothing,
            End::Failed,
        ),
        case("cutover of no server", "postgres.cutover", |_| json!({ "replica": replica() }), nothing, End::Failed),
        case(
            "failback to no server",
            "postgres.failback",
            |_| {
                json!({ "cutover": {
                    "primary": server(5433), "old": { "host": "local", "data": "/nowhere", "bin": "/nowhere" },
                    "fence": { "hba_file": "/nowhere/pg_hba.conf", "kept": "/nowhere/kept", "key": "ferry_1" },
                    "sessions_ended": 0,
                } })
            },
            nothing,
            End::Failed,
        ),
        case(
            "rows of no server",
            "postgres.logical",
            |_| json!({ "from": server(5432), "to": server(5433) }),
            nothing,
            End::Failed,
        ),
        absent(
            "address that nobody has",
            "address.move",
            |_| json!({ "from": "local", "to": "local", "address": { "ip": "192.0.2.1", "device": "nowhere0" } }),
        ),
        absent(
            "images of a process that is not there",
            "criu.checkpoint",
            |_| json!({ "host": "local", "process": { "pid_file": "/nowhere/service.pid" }, "images": "/nowhere/images" }),
        ),
        absent(
            "container that is not there",
            "container.migrate",
            |_| json!({ "from": "local", "to": "local", "container": "nobody" }),
        ),
        absent("images that are not there", "criu.restore", |_| json!({ "host": "local", "images": "/nowhere/images" })),
        absent(
            "checkpoint of no container",
            "container.checkpoint",
            |_| json!({ "container": "nobody", "file": "/nowhere/nobody.tar" }),
        ),
        absent("container of no checkpoint", "container.restore", |_| json!({ "file": "/nowhere/nobody.tar" })),
        absent(
            "process that is not there",
            "criu.migrate",
            |_| json!({ "from": "local", "to": "local", "process": { "pid_file": "/nowhere/service.pid" } }),
        ),
        case("catch up with no server", "postgres.catch_up", |_| json!({ "replica": replica() }), nothing, End::Failed),
        case("wait for a time", "wait", |_| json!({ "for": "20ms" }), nothing, End::Well),
        case("wait until an instant", "wait", |_| json!({ "until": "2020-01-01T00:00:00Z" }), nothing, End::Well),
        case(
            "wait for a URL",
            "wait",
            |world| json!({ "url": format!("{}/things/up", world.url), "every": "10ms" }),
            |world| world.put("/things/up", "yes"),
            End::Well,
        ),
        case("wait for a port", "wait", |world| json!({ "tcp": world.url.trim_start_matches("http://") }), nothing, End::Well),
        case(
            "wait in vain",
            "wait",
            |world| json!({ "url": format!("{}/refuse?key={}", world.url, mark("canary")), "every": "5ms", "at_most": "30ms" }),
            nothing,
            End::Failed,
        ),
        case("wait for two things", "wait", |_| json!({ "for": "1s", "tcp": "localhost:1" }), nothing, End::Failed),
        case("wait for an hour", "wait", |_| json!({ "for": "1h" }), nothing, End::Never),
        case(
            "wait for a server that hangs",
            "wait",
            |world| json!({ "url": format!("{}/hang", world.url) }),
            nothing,
            End::Never,
        ),
        case("sync", "object.sync", |_| json!({ "from": "old:up/", "to": "new:up/", "concurrency": 1 }), objects, End::Well),
        case(
            "sync over other objects",
            "object.sync",
            |_| json!({ "from": "old:up/", "to": "new:up/", "verify": true }),
            |world| {
                objects(world);
                world.write("new/up/mine.txt", "not ours");
            },
            End::Well,
        ),
        case(
            "sync that moves",
            "object.sync",
            |_| json!({ "from": "old:up/", "to": "new:up/", "mode": "move", "concurrency": 1 }),
            |world| {
                objects(world);
                // The one is there already, the other is none of it.
                world.write("new/up/a.txt", "a.txt".repeat(100));
                world.write("new/up/mine.txt", "not ours");
            },
            End::Well,
        ),
        case(
            "sync that mirrors",
            "object.sync",
            |_| json!({ "from": "old:up/", "to": "new:up/", "mode": "mirror", "max_delete": "0%" }),
            objects,
            End::Well,
        ),
        case(
            "sync that would delete too much",
            "object.sync",
            |_| json!({ "from": "old:up/", "to": "new:", "mode": "mirror", "max_delete": 0 }),
            objects,
            End::Failed,
        ),
        case(
            "sync that follows until it has caught up",
            "object.sync",
            |_| json!({ "from": "old:up/", "to": "new:up/", "follow": { "until_lag": "1h" }, "concurrency": 1 }),
            objects,
            End::Well,
        ),
        case(
            "sync that follows",
            "object.sync",
            |_| json!({ "from": "old:up/", "to": "new:up/", "follow": true }),
            objects,
            End::Never,
        ),
        case(
            "sync of all versions",
            "object.sync",
            |_| json!({ "from": "old:up/", "to": "new:up/", "versions": "all" }),
            objects,
            End::Failed,
        ),
        case(
            "sync that follows what it takes away",
            "object.sync",
            |_| json!({ "from": "old:up/", "to": "new:up/", "follow": true, "mode": "move" }),
            objects,
            End::Failed,
        ),
        case("sync of nothing", "object.sync", |_| json!({ "from": "old:none/", "to": "new:up/" }), objects, End::Failed),
        case(
            "compare",
            "object.compare",
            |_| json!({ "from": "old:up/", "to": "new:up/" }),
            |world| {
                objects(world);
                for name in ["a.txt", "b/c.txt", "b/d e ü.txt", "z.bin"] {
                    world.write(&format!("new/up/{name}"), name.repeat(100));
                }
            },
            End::Well,
        ),
        case("compare what differs", "object.compare", |_| json!({ "from": "old:up/", "to": "new:up/" }), objects, End::Failed),
        case("list", "object.list", |_| json!({ "from": "old:up/", "include": ["*.txt"], "limit": 2 }), objects, End::Well),
        case("delete", "object.delete", |_| json!({ "from": "old:up/b/" }), objects, End::Well),
        case("delete without a prefix", "object.delete", |_| json!({ "from": "old:" }), objects, End::Failed),
    ]
}
