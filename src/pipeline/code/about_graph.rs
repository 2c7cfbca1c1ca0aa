//! What is told of the problems of the graph: cycles, background steps, the pivot, pipelines within pipelines.

use super::{About, Code};

pub(super) fn about(code: Code) -> Option<About> {
    Some(match code {
        Code::Cycle => About {
            why: "A step waits for the steps under its `needs` and for every step that one of its templates mentions. In a \
                  cycle each waits for the next, and none can ever start. The whole cycle is shown; one edge has to go.",
            wrong: "
steps:
  - { id: one, uses: command, needs: [two], with: { run: echo one } }
  - { id: two, uses: command, with: { run: \"echo {{ steps.three.outputs }}\" } }
  - { id: three, uses: command, needs: [one], with: { run: echo three } }
",
            right: "
steps:
  - { id: one, uses: command, with: { run: echo one } }
  - { id: two, uses: command, with: { run: \"echo {{ steps.three.outputs }}\" } }
  - { id: three, uses: command, needs: [one], with: { run: echo three } }
",
        },
        Code::NoBackground => About {
            why: "A background step serves others while it runs, and ends when the step under `until` is over. Its type has \
                  to be made for that, and `until` has to be a step that is not over before it starts. A step that ends \
                  only when it is told to (`follow: true`) has to run like this.",
            wrong: "
steps:
  - id: copy
    uses: command
    background: { until: check }
    with: { run: echo copy }
  - { id: check, uses: command, needs: [copy], with: { run: echo check } }
",
            right: "
steps:
  - id: copy
    uses: command
    with: { run: echo copy }
  - { id: check, uses: command, needs: [copy], with: { run: echo check } }
",
        },
        Code::SecondPivot => About {
            why: "The pivot is the one step after whose start a run no longer rolls back by itself. With two of them nobody \
                  could say from which on. Steps behind the pivot are past it without saying so.",
            wrong: "
steps:
  - { id: stop, uses: command, pivot: true, with: { run: echo stop } }
  - { id: switch, uses: command, pivot: true, needs: [stop], with: { run: echo switch } }
",
            right: "
steps:
  - { id: stop, uses: command, with: { run: echo stop } }
  - { id: switch, uses: command, pivot: true, needs: [stop], with: { run: echo switch } }
",
        },
        Code::PivotPlace => About {
            why: "A pivot that may be skipped (`if`, or a `for_each` over nothing) does not hold back the steps that rely on \
                  it, nor does one that may fail before it is passed (`continue_on_error`); one that runs in the background or \
                  under `finally` divides nothing.",
            wrong: "
inputs:
  really: { type: boolean }
stores:
  old: { scheme: fs, root: /srv/old }
steps:
  - { id: switch, uses: command, pivot: true, if: \"{{ inputs.really }}\", with: { run: echo switch } }
  - { id: empty, uses: object.delete, needs: [switch], with: { from: \"old:uploads/\" } }
",
            right: "
inputs:
  really: { type: boolean }
stores:
  old: { scheme: fs, root: /srv/old }
steps:
  - { id: switch, uses: command, pivot: true, with: { run: echo switch } }
  - { id: empty, uses: object.delete, needs: [switch], if: \"{{ inputs.really }}\", with: { from: \"old:uploads/\" } }
",
        },
        Code::BeforePivot => About {
            why: "Until the pivot everything can be undone: that is the promise. A step that cannot be undone therefore has to \
                  be the pivot, need it (directly or through others), or say `undo: skip`, which means that nothing has to be \
                  put back. So has a step that holds a pivot inside: from there on it cannot be undone either.",
            wrong: "
stores:
  old: { scheme: fs, root: /srv/old }
steps:
  - { id: switch, uses: command, pivot: true, with: { run: echo switch } }
  - { id: empty, uses: object.delete, with: { from: \"old:uploads/\" } }
",
            right: "
stores:
  old: { scheme: fs, root: /srv/old }
steps:
  - { id: switch, uses: command, pivot: true, with: { run: echo switch } }
  - { id: empty, uses: object.delete, needs: [switch], with: { from: \"old:uploads/\" } }
",
        },
        Code::NoUndo => About {
            why: "A pipeline used as a step is undone step by step, each as it says itself. `undo: skip` at the step that runs \
                  it skips all of them.",
            wrong: "
steps:
  - id: base
    uses: ./modules/replica.yaml
    with: { from: old }
    undo: { uses: command, with: { run: echo back } }
",
            right: "
steps:
  - id: base
    uses: ./modules/replica.yaml
    with: { from: old }
    undo: skip
",
        },
        Code::ModuleCycle => About {
            why: "A pipeline that runs itself as a step, directly or through others, would never end.",
            wrong: "
# pipeline.yaml
steps:
  - { id: again, uses: ./pipeline.yaml }
",
            right: "
# pipeline.yaml
steps:
  - { id: base, uses: ./modules/replica.yaml, with: { from: old } }
",
        },
        Code::TooManySteps => About {
            why: "A run has at most 100,000 steps, those of pipelines used as steps counted as often as they are used. Pipelines \
                  of pipelines multiply quickly. The instances of a `for_each` do not count: they are made when it runs.",
            wrong: "
# ten.yaml runs a pipeline ten times, which runs one ten times, and so on
steps:
  - { id: a, uses: ./ten6.yaml }
",
            right: "
steps:
  - id: a
    for_each: [one, two, three]
    uses: ./modules/replica.yaml
    with: { from: \"{{ each.value }}\" }
",
        },
        Code::ModuleDepth => About {
            why: "Pipelines may use pipelines sixteen deep. Paths of steps, reports and rollbacks that reach deeper could not \
                  be read by anybody.",
            wrong: "
# a1.yaml uses a2.yaml, which uses a3.yaml, … which uses a17.yaml
steps:
  - { id: inner, uses: ./a2.yaml }
",
            right: "
steps:
  - { id: base, uses: ./modules/replica.yaml, with: { from: old } }
",
        },
        _ => return None,
    })
}
