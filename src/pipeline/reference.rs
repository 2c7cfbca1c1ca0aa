//! `docs/language.md`, made of the same definitions as the reader and the schema.

use std::fmt::Write as _;

use super::code::Code;
use super::language::LEVELS;
use super::template;

const HEAD: &str = "# The pipeline language

Generated from `src/pipeline/language.rs`; `UPDATE_DOCS=1 cargo nextest run --test problems` writes it anew. The step
types and what stands under their `with` are not here: `ferry steps` lists them, `ferry steps TYPE` is the manual of one.
`ferry schema > ferry.schema.json` writes the JSON Schema of all of it for an editor; the line
`# yaml-language-server: $schema=./ferry.schema.json` at the top of a file makes the editor use it.

A file is YAML 1.2: `yes` and `on` are texts, `true` and `false` are booleans. It is parsed first, and templates are
rendered in the scalars of the tree afterwards: a value can never change the shape of the document. Unknown keys,
duplicate keys and unknown names are errors everywhere. Anchors and aliases work; merge keys (`<<`) do not exist.
";

const TAIL: &str = "
## Edges

A step waits for the steps under its `needs`, and for every step that one of its templates mentions, in `with`, `if`,
`for_each`, `on`, `lock` or `undo`. Order in the file means nothing. A cycle is an error and is shown whole. A step of
`finally` may mention every step; it waits only for steps of `finally`.

A step that was skipped (`if`) counts as over for the steps behind it, and leaves no outputs:
`default steps.ID.outputs.NAME \"...\"` says what to use then.

## Values with units

| type | written as |
| --- | --- |
| bytes | `512KiB`, `1.5GB`, a number of bytes; `K`, `M`, `G`, `T`, `P` are powers of 1000, `Ki`, `Mi`, ... of 1024 |
| rate | `200MB/s` |
| duration | `500ms`, `90s`, `2h30m`, `1d`; units `us`, `ms`, `s`, `m`, `h`, `d` |

## Places

A place is `store:prefix/`, with a store listed under `stores:`, or a URL.

## Templates

Templates are Handlebars without HTML escaping, and strict: a missing name is an error at `check` time, not an empty text
at run time. Quote every value that holds one: YAML reads a bare `{{` as a mapping. A value that is exactly one
`{{ expression }}` keeps its type (a list stays a list); with text around it, it gives text. `{{#if}}` and `{{#each}}`
blocks work inside texts. `\\{{` writes two braces as they are. Keys are never rendered.

| name | value | where |
| --- | --- | --- |
| `inputs.NAME` | an input | everywhere |
| `env.NAME` | a variable listed under `env:` | everywhere |
| `pipeline.name` | the pipeline's name | everywhere |
| `secrets.NAME` | a secret, put in where it is used | steps, `stores`, `outputs`; not in `lock` |
| `steps.ID.outputs` | what a step left; of a `for_each` a mapping by key | steps, `outputs` |
| `each.key`, `each.value`, `each.index` | the item of a `for_each`; of a list the key is the value as text | in that step, not in `for_each` itself |
| `hosts.NAME` | a host | steps, `outputs` |
| `run.id`, `run.started_at` | this run | steps, `outputs` |
| `run.status` | how the run ended | `finally` |
";

/// The reference of the language, Markdown.
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    for level in LEVELS {
        let _ = write!(text, "\n## {}\n\n{}\n\n| key | value | meaning |\n| --- | --- | --- |\n", level.title, level.doc);
        for key in level.keys {
            let mark = if key.required { " (required)" } else { "" };
            let _ = writeln!(text, "| `{}`{mark} | {} | {} |", key.name, key.value, key.doc);
        }
    }
    text.push_str(TAIL);
    text.push_str("\nHelpers:\n\n");
    for usage in template::helpers() {
        let _ = writeln!(text, "- `{usage}`");
    }
    let _ = write!(
        text,
        "\n## Problems\n\n`ferry check` finds all problems of a file at once, each with its place and what to write instead. There are {} \
         kinds, [each with its page](errors/README.md).\n",
        Code::ALL.len()
    );
    text
}
