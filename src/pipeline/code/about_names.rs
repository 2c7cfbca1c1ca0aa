//! What is told of the problems of names: steps, types, stores, hosts, and what templates mention.

use super::{About, Code};

pub(super) fn about(code: Code) -> Option<About> {
    Some(match code {
        Code::UnknownNeed => About {
            why: "`needs` names steps of the same list by their ids. A step of `finally` needs none of `steps`: all are over \
                  when it starts.",
            wrong: "
steps:
  - { id: freeze, uses: command, with: { run: echo freeze } }
  - { id: copy, uses: command, needs: [frezee], with: { run: echo copy } }
",
            right: "
steps:
  - { id: freeze, uses: command, with: { run: echo freeze } }
  - { id: copy, uses: command, needs: [freeze], with: { run: echo copy } }
",
        },
        Code::UnknownStep => About {
            why: "A template or `until` names a step by its id, and no step has it.",
            wrong: "
steps:
  - { id: count, uses: command, with: { run: wc -l list } }
  - { id: show, uses: command, with: { run: \"echo {{ steps.cuont.outputs.text }}\" } }
",
            right: "
steps:
  - { id: count, uses: command, with: { run: wc -l list } }
  - { id: show, uses: command, with: { run: \"echo {{ steps.count.outputs.text }}\" } }
",
        },
        Code::UnknownType => About {
            why: "`ferry steps` lists the step types. What begins with `./` is the path of a pipeline that runs as one step.",
            wrong: "
steps:
  - { id: hello, uses: comand, with: { run: echo hello } }
",
            right: "
steps:
  - { id: hello, uses: command, with: { run: echo hello } }
",
        },
        Code::UnknownStore => About {
            why: "A place is `store:prefix/` with a store listed under `stores:`, or a URL.",
            wrong: "
stores:
  old: { scheme: fs, root: /srv/old }
  new: { scheme: fs, root: /srv/new }
steps:
  - id: copy
    uses: object.sync
    with: { from: \"odl:uploads/\", to: \"new:uploads/\" }
",
            right: "
stores:
  old: { scheme: fs, root: /srv/old }
  new: { scheme: fs, root: /srv/new }
steps:
  - id: copy
    uses: object.sync
    with: { from: \"old:uploads/\", to: \"new:uploads/\" }
",
        },
        Code::UnknownHost => About {
            why: "`on` and some keys of step types name a host listed under `hosts:`, or `local`, which is always there.",
            wrong: "
hosts:
  target: { ssh: db-2 }
steps:
  - { id: hello, uses: command, on: tagret, with: { run: echo hello } }
",
            right: "
hosts:
  target: { ssh: db-2 }
steps:
  - { id: hello, uses: command, on: target, with: { run: echo hello } }
",
        },
        Code::UnknownInput => About {
            why: "A template, a command line or `with` of a pipeline used as a step names an input that is not listed under \
                  `inputs:` of that pipeline.",
            wrong: "
inputs:
  bucket: {}
steps:
  - { id: hello, uses: command, with: { run: \"echo {{ inputs.buckte }} {{ inputs.bucket }}\" } }
",
            right: "
inputs:
  bucket: {}
steps:
  - { id: hello, uses: command, with: { run: \"echo {{ inputs.bucket }}\" } }
",
        },
        Code::UnknownOutput => About {
            why: "`ferry steps TYPE` lists what a step of a type leaves; a pipeline used as a step leaves what stands under its \
                  `outputs:`. The outputs of a `for_each` are a mapping by key: `steps.ID.outputs.KEY.NAME`.",
            wrong: "
steps:
  - { id: ask, uses: http.request, with: { url: \"https://db.example/health\" } }
  - { id: show, uses: command, with: { run: \"echo {{ steps.ask.outputs.stauts }}\" } }
",
            right: "
steps:
  - { id: ask, uses: http.request, with: { url: \"https://db.example/health\" } }
  - { id: show, uses: command, with: { run: \"echo {{ steps.ask.outputs.status }}\" } }
",
        },
        Code::UnknownSecret => About {
            why: "A secret is listed under `secrets:` with the place that its value comes from; templates name it from there.",
            wrong: "
steps:
  - { id: hello, uses: command, with: { run: psql, env: { PGPASSWORD: \"{{ secrets.db }}\" } } }
",
            right: "
secrets:
  db: { env: DB_PASSWORD }
steps:
  - { id: hello, uses: command, with: { run: psql, env: { PGPASSWORD: \"{{ secrets.db }}\" } } }
",
        },
        Code::UnknownName => About {
            why: "Templates know `inputs`, `secrets`, `steps.ID.outputs`, `each`, `hosts`, `run`, `pipeline.name` and `env`. A \
                  missing name is an error here, and never an empty text at run time. A variable of the environment has to \
                  be listed under `env:`.",
            wrong: "
inputs:
  bucket: {}
steps:
  - { id: hello, uses: command, with: { run: \"echo {{ bucket }}\" } }
",
            right: "
inputs:
  bucket: {}
steps:
  - { id: hello, uses: command, with: { run: \"echo {{ inputs.bucket }}\" } }
",
        },
        Code::UnknownHelper => About {
            why: "The helpers are `eq`, `ne`, `lt`, `gt`, `and`, `or`, `not`, `default`, `json`, `join`, `lower`, `upper`, \
                  `replace`, `trim`, `base64` and `sha256`.",
            wrong: "
inputs:
  bucket: {}
steps:
  - { id: hello, uses: command, with: { run: \"echo {{ uper inputs.bucket }}\" } }
",
            right: "
inputs:
  bucket: {}
steps:
  - { id: hello, uses: command, with: { run: \"echo {{ upper inputs.bucket }}\" } }
",
        },
        Code::NotAvailable => About {
            why: "The name is known, but has no value at this place: `each` exists only in a step with `for_each` (and not in \
                  `for_each` itself), `run.status` only under `finally`, a step's own outputs only in its `undo`, the outputs \
                  of a step of `finally` only there, and hosts, stores and secrets are set up before any step runs.",
            wrong: "
steps:
  - { id: hello, uses: command, with: { run: \"echo {{ each.value }}\" } }
",
            right: "
steps:
  - id: hello
    for_each: [a, b]
    uses: command
    with: { run: \"echo {{ each.value }}\" }
",
        },
        Code::PublicSecret => About {
            why: "Every user of a machine can read the arguments of every program that runs on it. Names of files, places, \
                  addresses and choices are kept in the journal and shown; so are the variables that are listed under `env`. \
                  The help line says where the secret goes instead.",
            wrong: "
secrets:
  token: { env: TOKEN }
steps:
  - id: call
    uses: command
    with: { run: \"curl -H 'Authorization: Bearer {{ secrets.token }}' https://api.acme.example/\" }
",
            right: "
secrets:
  token: { env: TOKEN }
steps:
  - id: call
    uses: command
    with:
      run: |
        printf 'header = \"Authorization: Bearer %s\"' \"$TOKEN\" | curl -K - https://api.acme.example/
      env: { TOKEN: \"{{ secrets.token }}\" }
",
        },
        Code::TemplateSyntax => About {
            why: "Templates are Handlebars: `{{ name }}`, `{{ helper argument argument }}`, `(helper argument)` inside. \
                  Strings are quoted. Two opening braces that are meant as they are, are written `\\{{`.",
            wrong: "
inputs:
  bucket: {}
steps:
  - { id: hello, uses: command, with: { run: \"echo {{ upper (lower inputs.bucket }}\" } }
",
            right: "
inputs:
  bucket: {}
steps:
  - { id: hello, uses: command, with: { run: \"echo {{ upper (lower inputs.bucket) }}\" } }
",
        },
        _ => return None,
    })
}
