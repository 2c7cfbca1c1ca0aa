//! What is told of the problems of shape: keys, types, ids, inputs.

use super::{About, Code};

pub(super) fn about(code: Code) -> Option<About> {
    Some(match code {
        Code::UnknownKey => About {
            why: "Every mapping of the language has a fixed list of keys (`docs/language.md`, `ferry steps TYPE`). An unknown \
                  one is most often a misspelt one, and ignoring it would run something else than what was meant.",
            wrong: "
steps:
  - id: hello
    uses: command
    wiht: { run: echo hello }
",
            right: "
steps:
  - id: hello
    uses: command
    with: { run: echo hello }
",
        },
        Code::MissingKey => About {
            why: "Without this key nothing can be done. The help line says what it is for.",
            wrong: "
steps:
  - id: hello
    uses: command
    with: { env: { LANG: C } }
",
            right: "
steps:
  - id: hello
    uses: command
    with: { run: echo hello, env: { LANG: C } }
",
        },
        Code::WrongType => About {
            why: "A list stands where a text belongs, a text where a number belongs, and so on. Text in quotes is always text; \
                  `yes` and `on` are texts in YAML 1.2; a template with text around it gives text. Some keys \
                  (`needs`, `retry`, `timeout`, `max_parallel` and others) are needed before anything is rendered and cannot \
                  hold a template.",
            wrong: "
steps:
  - id: hello
    uses: command
    continue_on_error: yes
    with: { run: echo hello }
",
            right: "
steps:
  - id: hello
    uses: command
    continue_on_error: true
    with: { run: echo hello }
",
        },
        Code::WrongValue => About {
            why: "The type is right, the value is not: not one of the words that may stand here, out of range, or without \
                  a unit. Durations are written as `90s` or `2h30m`, sizes as `1MiB`, rates as `200MB/s`.",
            wrong: "
defaults:
  retry: { backoff: fibonacci, max: 5 parsecs }
steps:
  - { id: hello, uses: command, with: { run: echo hello } }
",
            right: "
defaults:
  retry: { backoff: exponential, max: 5m }
steps:
  - { id: hello, uses: command, with: { run: echo hello } }
",
        },
        Code::BadId => About {
            why: "Ids are written in templates (`steps.ID.outputs`), in paths (`replica/base`, `uploads[invoices]`) and on the \
                  command line. A letter, then letters, digits, `_` and `-`, go everywhere without quoting.",
            wrong: "
steps:
  - id: say/hello
    uses: command
    with: { run: echo hello }
",
            right: "
steps:
  - id: say-hello
    uses: command
    with: { run: echo hello }
",
        },
        Code::DuplicateId => About {
            why: "`needs`, templates and the journal name steps by their ids: two steps with one id could not be told apart.",
            wrong: "
steps:
  - { id: hello, uses: command, with: { run: echo hello } }
  - { id: hello, uses: command, with: { run: echo goodbye } }
",
            right: "
steps:
  - { id: hello, uses: command, with: { run: echo hello } }
  - { id: goodbye, uses: command, with: { run: echo goodbye } }
",
        },
        Code::MissingInput => About {
            why: "An input without a default has to be given: with `-i name=value`, in a file with `--inputs`, or under `with` \
                  when the pipeline is used as a step.",
            wrong: "
steps:
  - id: base
    uses: ./modules/replica.yaml   # has the input `from`, without a default
",
            right: "
steps:
  - id: base
    uses: ./modules/replica.yaml
    with: { from: old }
",
        },
        Code::WrongInput => About {
            why: "What was given is not of the input's type, or not one of the values under its `enum`. On a command line a \
                  list may be written as `a,b` or as JSON.",
            wrong: "
steps:
  - id: base
    uses: ./modules/replica.yaml
    with: { from: old, jobs: many }   # `jobs` is an integer
",
            right: "
steps:
  - id: base
    uses: ./modules/replica.yaml
    with: { from: old, jobs: 4 }
",
        },
        Code::Unused => About {
            why: "A warning. Nothing mentions it, which is most often a misspelling elsewhere or a leftover. A secret that is \
                  listed is fetched when the run starts, used or not.",
            wrong: "
inputs:
  greeting: {}
steps:
  - { id: hello, uses: command, with: { run: echo hello } }
",
            right: "
inputs:
  greeting: {}
steps:
  - { id: hello, uses: command, with: { run: \"echo {{ inputs.greeting }}\" } }
",
        },
        Code::NoEffect => About {
            why: "A warning. The key is right and does nothing here: `finally`, `on_failure` and `max_parallel` of a pipeline \
                  count only when it is run by itself, `max_parallel` of a step only beside `for_each`, \
                  and an approval is not tried again.",
            wrong: "
steps:
  - id: hello
    uses: command
    max_parallel: 2
    with: { run: echo hello }
",
            right: "
steps:
  - id: hello
    for_each: [a, b, c]
    uses: command
    max_parallel: 2
    with: { run: \"echo {{ each.value }}\" }
",
        },
        _ => return None,
    })
}
