//! The cases of the types that move a cluster through a store. What they do with a real one is in
//! `tests/postgres_bucket.rs`: here nobody answers.

use serde_json::{Value, json};

use crate::cases::{Case, End, nothing};

/// A server that is not there, and whose host has no such user.
fn server(data: Option<&str>) -> Value {
    json!({ "host": "local", "socket": "/nowhere", "become": "root", "data": data })
}

/// The cases.
pub fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "base backup of no server",
            uses: "postgres.base_backup",
            with: |_| json!({ "from": server(None), "to": "new:pg/" }),
            prepare: nothing,
            end: End::Failed,
        },
        Case {
            name: "shipping of no server",
            uses: "postgres.wal_ship",
            with: |_| json!({ "from": server(None), "to": "new:pg/", "restart": true }),
            prepare: nothing,
            end: End::Failed,
        },
        Case {
            name: "restore over what is there",
            uses: "postgres.restore",
            with: |world| json!({ "from": "new:pg/", "to": server(world.path("new").to_str()) }),
            prepare: |world| world.write("new/kept.txt", "someone else's"),
            end: End::Failed,
        },
        Case {
            name: "restore to nowhere",
            uses: "postgres.restore",
            with: |_| json!({ "from": "new:pg/", "to": "local" }),
            prepare: nothing,
            end: End::Failed,
        },
    ]
}
