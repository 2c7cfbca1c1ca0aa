//! A small catalogue of step types: what `check` needs to know of them, and nothing that runs.

use std::sync::Arc;

use ferry::catalogue::{Background, Catalogue, Interrupted, Kind, Pivot, Traits, TraitsOf, TypeInfo, Undo};
use serde_json::{Value, json};

fn object(properties: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn info(name: &str, config: Value, outputs: Value) -> TypeInfo {
    TypeInfo {
        name: name.to_owned(),
        summary: format!("The type {name}."),
        manual: format!("The type {name}."),
        config,
        outputs,
        example: String::new(),
        kind: Kind::Task,
        background: Background::No,
        pivot: Pivot::AtStart,
        tools: Vec::new(),
        traits: TraitsOf(Arc::new(|_| Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst })),
    }
}

fn undo(undo: Undo) -> TraitsOf {
    TraitsOf(Arc::new(move |_| Traits { undo, interrupted: Interrupted::RunAgain }))
}

/// The types that the tests use.
pub fn catalogue() -> Catalogue {
    let place = json!({ "type": "string", "format": "place", "description": "`store:prefix/` or a URL." });
    let host = json!({ "type": "string", "format": "host", "description": "A host of the pipeline." });
    let size = json!({ "type": ["string", "integer"], "format": "bytes" });
    let mut catalogue = Catalogue::default();
    catalogue.add(info(
        "object.sync",
        json!({
            "type": "object",
            "required": ["from", "to"],
            "additionalProperties": false,
            "properties": {
                "from": { "$ref": "#/$defs/Place", "description": "What is copied. More words." },
                "to": { "$ref": "#/$defs/Place", "description": "Where it goes." },
                "delete": { "type": "boolean", "description": "Whether what is gone is deleted." },
                "concurrency": { "type": ["integer", "null"], "minimum": 1, "maximum": 256 },
                "bandwidth": { "anyOf": [{ "type": "string", "format": "rate" }, { "type": "null" }] },
                "part_size": size,
                "include": { "type": "array", "items": { "type": "string" } },
                "compare": { "$ref": "#/$defs/Compare" }
            },
            "$defs": {
                "Place": place,
                "Compare": { "oneOf": [
                    { "type": "string", "const": "auto", "description": "As the stores can." },
                    { "type": "string", "enum": ["size", "etag"] },
                    { "type": "string", "const": "checksum" }
                ] }
            }
        }),
        object(json!({ "objects": { "type": "integer" }, "bytes": { "type": "integer" } }), &[]),
    ));
    catalogue.add(TypeInfo {
        traits: undo(Undo::Impossible),
        ..info(
            "object.delete",
            object(json!({ "from": { "type": "string", "format": "place" }, "everything": { "type": "boolean" } }), &["from"]),
            json!({ "type": "null" }),
        )
    });
    catalogue.add(info(
        "postgres.replica",
        object(json!({ "from": host, "to": host, "password": { "type": "string", "x-secret": true } }), &["from", "to"]),
        json!({
            "type": "object",
            "properties": {
                "lag": { "type": "integer" },
                "slot": { "type": "string" },
                "tables": { "type": "array" },
                "at": { "$ref": "#/$defs/At" }
            },
            "$defs": { "At": { "type": "object", "properties": { "lsn": { "type": "string" } } } }
        }),
    ));
    catalogue.add(TypeInfo {
        background: Background::ReadyWhenSaid,
        traits: undo(Undo::Nothing),
        ..info(
            "probe.postgres",
            object(json!({ "route": { "type": "string" }, "every": { "type": "string", "format": "duration" } }), &["route"]),
            json!({ "type": "object", "properties": { "longest_gap": { "type": "string" } } }),
        )
    });
    catalogue.add(TypeInfo {
        kind: Kind::Approval,
        traits: undo(Undo::Nothing),
        ..info(
            "approval",
            object(
                json!({ "message": { "type": "string" }, "at_most": { "type": "string", "format": "duration" } }),
                &["message"],
            ),
            json!({ "type": "null" }),
        )
    });
    catalogue.add(TypeInfo {
        pivot: Pivot::Inside,
        ..info(
            "postgres.cutover",
            object(
                json!({ "replica": { "type": "object" }, "max_lag": { "type": ["string", "integer"], "format": "bytes" } }),
                &["replica"],
            ),
            json!({ "type": "null" }),
        )
    });
    catalogue.add(TypeInfo { traits: undo(Undo::Nothing), ..info("postgres.compare", object(json!({}), &[]), json!(true)) });
    catalogue.add(TypeInfo {
        traits: undo(Undo::Nothing),
        ..info(
            "assert",
            object(json!({ "that": { "type": ["boolean", "string"] }, "message": { "type": "string" } }), &["that"]),
            json!({ "type": "null" }),
        )
    });
    catalogue.add(info(
        "command",
        object(
            json!({
                "run": { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }], "description": "What is run." },
                "env": { "type": "object", "additionalProperties": { "type": "string", "x-secret": true } },
                "expect": { "anyOf": [
                    object(json!({ "code": { "type": "integer" } }), &["code"]),
                    { "type": "null" }
                ] }
            }),
            &["run"],
        ),
        json!(true),
    ));
    let mut wait = object(json!({ "for": { "type": "string", "format": "duration" }, "url": { "type": "string" } }), &[]);
    wait["oneOf"] = json!([{ "required": ["for"] }, { "required": ["url"] }]);
    catalogue.add(info("wait", wait, json!({ "type": "null" })));
    catalogue.add(info(
        "file.write",
        object(
            json!({ "path": { "type": "string" }, "content": { "type": "string" }, "template": { "type": "string" } }),
            &["path"],
        ),
        json!({ "type": "null" }),
    ));
    catalogue.add(info(
        "http.request",
        object(json!({ "method": { "type": "string" }, "url": { "type": "string", "format": "uri" }, "json": true }), &["url"]),
        json!({ "type": "object", "properties": { "status": { "type": "integer" }, "body": true } }),
    ));
    catalogue
}
