//! What is told of the problems of a file: it cannot be read, or it is not YAML.

use super::{About, Code};

pub(super) fn about(code: Code) -> Option<About> {
    Some(match code {
        Code::CannotRead => About {
            why: "The file does not exist, or may not be read. Paths of pipelines used as steps start at the folder of the \
                  file that uses them, not at the folder in which `ferry` was started.",
            wrong: "
steps:
  - id: base
    uses: ./modules/missing.yaml
",
            right: "
steps:
  - id: base
    uses: ./modules/replica.yaml
    with: { from: old }
",
        },
        Code::NotText => About {
            why: "Pipelines are UTF-8. The file may be compressed, or saved in another encoding.",
            wrong: "
name: caf\\xe9   # the byte E9, as Latin-1 writes an é
steps:
  - { id: hello, uses: command, with: { run: echo hello } }
",
            right: "
name: café
steps:
  - { id: hello, uses: command, with: { run: echo hello } }
",
        },
        Code::TooLarge => About {
            why: "A pipeline is at most 10 MB large: all of it goes into the journal of every run. Keep data in a file or a \
                  store and name it.",
            wrong: "
steps:
  - id: hosts
    uses: file.write
    with:
      path: /etc/hosts
      content: \"… 12 MB …\"
",
            right: "
steps:
  - id: hosts
    uses: file.write
    with: { path: /etc/hosts, template: ./hosts.txt }
",
        },
        Code::YamlSyntax => About {
            why: "The file ends or goes on in a way that YAML does not allow: an open bracket or quote, a column that fits \
                  nothing above it, a `: ` inside a text without quotes. Nothing else is checked until this is right.",
            wrong: "
steps:
  - id: hello
    uses: command
    with: { run: echo hello
",
            right: "
steps:
  - id: hello
    uses: command
    with: { run: echo hello }
",
        },
        Code::TabIndent => About {
            why: "YAML forbids tabs in front of a key, because nothing says how wide a tab is. Most editors can be told to \
                  write spaces.",
            wrong: "
steps:
\t- id: hello
",
            right: "
steps:
  - id: hello
    uses: command
    with: { run: echo hello }
",
        },
        Code::UnquotedTemplate => About {
            why: "YAML reads `{` as the beginning of a mapping, so that `{{ inputs.bucket }}` without quotes is a mapping \
                  within a mapping. Quote the whole value, not only the braces.",
            wrong: "
inputs:
  greeting: {}
steps:
  - id: hello
    uses: command
    with:
      run: {{ inputs.greeting }}
",
            right: "
inputs:
  greeting: {}
steps:
  - id: hello
    uses: command
    with:
      run: \"{{ inputs.greeting }}\"
",
        },
        Code::SeveralDocuments => About {
            why: "A line `---` ends one YAML document and begins another. A file is one pipeline; what was behind the line \
                  would silently be ignored.",
            wrong: "
steps:
  - { id: one, uses: command, with: { run: echo one } }
---
steps:
  - { id: two, uses: command, with: { run: echo two } }
",
            right: "
steps:
  - { id: one, uses: command, with: { run: echo one } }
  - { id: two, uses: command, with: { run: echo two } }
",
        },
        Code::DuplicateKey => About {
            why: "YAML has no rule for which of two equal keys counts, and programs differ. Nobody means both.",
            wrong: "
steps:
  - id: hello
    uses: command
    with: { run: echo hello }
    with: { run: echo goodbye }
",
            right: "
steps:
  - id: hello
    uses: command
    with: { run: echo hello }
",
        },
        Code::KeyNotText => About {
            why: "A key is a name. YAML also allows lists, mappings and nothing at all as keys; the language does not.",
            wrong: "
steps:
  - id: hello
    uses: command
    with: { run: echo hello, [a, b]: c }
",
            right: "
steps:
  - id: hello
    uses: command
    with: { run: echo hello, env: { a: c, b: c } }
",
        },
        Code::UnknownAlias => About {
            why: "`*name` repeats the value that `&name` was written in front of, further up. A text that only begins with \
                  an asterisk has to stand in quotes.",
            wrong: "
steps:
  - id: hello
    uses: command
    with: { run: echo, env: { PATTERN: *txt } }
",
            right: "
steps:
  - id: hello
    uses: command
    with: { run: echo, env: { PATTERN: \"*txt\" } }
",
        },
        Code::AliasBomb => About {
            why: "Aliases of aliases multiply: ten lines can stand for a thousand million values. Copies may add 10 MB to a \
                  file, and no more.",
            wrong: "
a: &a [x, x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]
d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]
e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]
f: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]
g: &g [*f, *f, *f, *f, *f, *f, *f, *f, *f, *f]
",
            right: "
inputs:
  names: { type: list, default: [a, b, c] }
steps:
  - id: hello
    for_each: \"{{ inputs.names }}\"
    uses: command
    with: { run: \"echo {{ each.value }}\" }
",
        },
        Code::TooDeep => About {
            why: "Values may be nested a hundred deep. What is deeper is a bracket too many, or an attack.",
            wrong: "
steps: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
",
            right: "
steps:
  - { id: hello, uses: command, with: { run: echo hello } }
",
        },
        _ => return None,
    })
}
