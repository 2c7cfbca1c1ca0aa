//! Bad input, case by case: what the file holds, and what the person reads.

use crate::{check, check_with, codes_of, right, wrong};

/// A named case with its own snapshot.
macro_rules! reads {
    ($($name:ident: $text:expr;)+) => {
        $(#[test]
        fn $name() {
            insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
                insta::assert_snapshot!(stringify!($name), wrong($text));
            });
        })+
    };
}

reads! {
    not_yaml_is_said: "{{{{ [ : ]\n  - what\n";
    an_empty_file_is_said: "";
    a_list_is_no_pipeline: "- a\n- b\n";
    yaml_with_tabs_is_said: "steps:\n  - id: a\n\t  uses: command\n    with: { run: x }\n";
    duplicate_keys_are_shown_both: "name: a\nname: b\nsteps:\n  - id: a\n    uses: command\n    with: { run: x, run: y }\n";
    unknown_keys_are_found_at_every_level: "
nmae: x
inputs:
  a: { typ: string }
secrets:
  s: { enviroment: X }
hosts:
  h: { shh: x }
defaults:
  retyr: {}
  retry: { attempt: 1 }
  timeout: { idel: 1s }
steps:
  - id: a
    uses: command
    need: []
    retry: { jiter: true }
    timeout: { atempt: 1s }
    undo: { uses: command, wiht: {}, with: { rum: x, run: x } }
    with: { run: x, expect: { cod: 1, code: 2 } }
  - id: b
    uses: probe.postgres
    background: { untill: a, until: a }
    with: { route: x, evry: 1s }
";
    wrong_types_are_told_in_words: "
name: 1
env: { a: b }
inputs:
  n: { type: integer, default: x }
  k: { type: kilometres }
hosts: { h: db-1 }
stores: { s: { scheme: s3, bucket: [a] }, t: { bucket: b } }
defaults: { retry: { attempts: \"3\", jitter: yes, initial: 5 }, timeout: { attempt: soon } }
on_failure: explode
max_parallel: 0
steps:
  - id: a
    uses: command
    needs: { b: c }
    if: yes
    pivot: maybe
    undo: never
    background: 5
    with: [run]
  - id: b
    uses: object.sync
    for_each: 5
    with: { from: 5, to: [x], delete: \"true\", concurrency: many, bandwidth: fast, part_size: 1XB, compare: sise, include: x }
  - just text
";
    ids_and_names_are_checked: "
inputs: { 'a b': {} }
steps:
  - { id: 'a/b', uses: command, with: { run: x } }
  - { id: '2nd', uses: command, with: { run: x } }
  - { id: 'c[0]', uses: command, with: { run: x } }
  - { uses: command, with: { run: x } }
  - { id: d }
";
    both_steps_of_one_id_are_checked: "
steps:
  - { id: a, uses: comand, with: { run: x } }
  - { id: b, uses: command, needs: [a], with: { run: x } }
  - id: a
    uses: command
    needs: [b, nobody]
    with: { rum: x, run: '{{ inputs.gone }}' }
finally:
  - { id: a, uses: command, with: { run: x, env: 5 } }
";
    numbers_rates_and_locks_get_a_help: "
secrets: { key: { env: X } }
max_parallel: many
defaults: { retry: { attempts: three } }
steps:
  - { id: a, uses: object.sync, with: { from: /a, to: /b, bandwidth: 5MBps } }
  - { id: b, uses: object.sync, with: { from: /a, to: /b, bandwidth: 5Mbps } }
  - { id: c, uses: command, lock: 'l-{{ secrets.key }}', with: { run: x } }
";
    mappings_and_lists_do_not_stand_in_a_text: "
inputs: { names: { type: list, default: [] }, limits: { type: map, default: {} } }
steps:
  - { id: pg, uses: postgres.replica, with: { from: local, to: local } }
  - { id: each, for_each: [x, y], uses: postgres.replica, with: { from: local, to: local } }
  - { id: base, uses: ./modules/replica.yaml, with: { from: x } }
  - id: say
    uses: command
    with:
      run: >-
        {{ steps.pg.outputs }} {{ steps.pg.outputs.tables }} {{ steps.pg.outputs.at }}
        {{ steps.each.outputs }} {{ steps.each.outputs.x }} {{ steps.each.outputs.x.tables }} {{ steps.base.outputs }}
        {{ inputs.names }} {{ inputs.limits }} {{ hosts.local }}
        {{#if steps.pg.outputs.tables}}{{ steps.pg.outputs.tables }}{{/if}}
        {{ steps.pg.outputs.lag }} {{ steps.pg.outputs.at.lsn }} {{ steps.base.outputs.lag }} {{ inputs.limits.x }}
        {{ json steps.pg.outputs }} {{ join inputs.names \",\" }} {{#each inputs.names}}{{ this }}{{/each}}
      env: { WHOLE: '{{ steps.pg.outputs.tables }}' }
";
    a_cycle_is_shown_whole: "
steps:
  - { id: a, uses: command, needs: [d], with: { run: x } }
  - { id: b, uses: command, needs: [a], with: { run: x } }
  - { id: c, uses: command, with: { run: 'x {{ steps.b.outputs.x }}' } }
  - { id: d, uses: command, needs: [c], with: { run: x } }
  - { id: me, uses: command, needs: [me], with: { run: x } }
";
    unknown_names_are_told_with_the_nearest: "
inputs: { bucket: {} }
secrets: { repl: { env: X } }
hosts: { target: local }
stores: { old: { scheme: fs, root: '/{{ inputs.bukcet }}' } }
steps:
  - id: copy
    uses: object.sync
    on: tagret
    needs: [freze]
    with: { from: 'odl:x/', to: 'new:{{ inputs.bucket }}/' }
  - { id: freeze, uses: comand, with: {} }
  - id: show
    uses: command
    with:
      run: >-
        {{ steps.copy.outputs.byts }} {{ steps.cpoy.outputs.bytes }}
        {{ secrets.rep }} {{ hosts.source }} {{ uper inputs.bucket }}
        {{ env.HOME }} {{ run.di }} {{ steps.copy.bytes }}
  - { id: pg, uses: postgres.replica, with: { from: source, to: target } }
";
    bare_templates_get_their_own_hint: "
inputs: { b: { type: list } }
steps:
  - id: a
    for_each: {{ inputs.b }}
    uses: command
    with: { run: {{ each.value }}, env: { A: {{ inputs.b }} } }
";
    a_bare_template_with_text_behind_it_gets_the_hint: "
steps:
  - id: a
    uses: command
    with:
      run: {{ inputs.b }}/x y
";
    a_bare_template_with_a_helper_gets_the_hint: "
steps:
  - id: a
    uses: command
    with:
      run: {{ upper \"b\" }}
";
    names_that_have_no_value_yet_are_told: "
secrets: { a: { file: '{{ steps.a.outputs.x }}' } }
hosts: { h: { ssh: '{{ secrets.a }}' } }
steps:
  - { id: a, uses: command, with: { run: '{{ each.value }} {{ run.status }} {{ steps.a.outputs.x }} {{ steps.end.outputs }}' } }
  - { id: b, for_each: '{{ each.value }}', uses: command, needs: [end], with: { run: '{{ each.valu }}' } }
finally:
  - { id: end, uses: command, needs: [a], with: { run: '{{ run.status }} {{ steps.a.outputs.x }}' } }
outputs: { x: '{{ steps.end.outputs.x }} {{ run.status }}' }
";
    templates_that_cannot_be_read_are_told: "
steps:
  - { id: a, uses: command, with: { run: 'x {{ } {{ upper }}', env: { B: '{{#if x}}', '{{ c }}': d } } }
";
    templates_do_not_stand_everywhere: "
inputs: { n: { type: integer } }
steps:
  - id: a
    name: 'step {{ inputs.n }}'
    uses: command
    needs: '{{ inputs.n }}'
    max_parallel: '{{ inputs.n }}'
    retry: { attempts: '{{ inputs.n }}', initial: '{{ inputs.n }}s' }
    pivot: '{{ inputs.n }}'
    with: { run: x }
  - { id: ask, uses: approval, with: { message: x, at_most: '{{ inputs.n }}h' } }
";
    partial_templates_are_text: "
inputs: { n: { type: integer } }
stores: { s: { scheme: fs, root: / } }
steps:
  - id: a
    uses: object.sync
    with: { from: 's:', to: 's:x', concurrency: '{{ inputs.n }}0', delete: '{{ inputs.n }}', compare: '{{ inputs.n }}x' }
";
    a_command_that_is_almost_right_is_told_what_belongs_there: "
steps:
  - { id: a, uses: command, with: { run: 5 } }
  - { id: b, uses: command, with: { run: [a, 5] } }
  - { id: c, uses: command, with: { run: x, expect: { code: x } } }
  - { id: d, uses: command, with: { run: x, expect: 5 } }
  - { id: e, uses: command, with: { run: x, env: { A: 5 } } }
  - { id: f, uses: http.request, with: { url: 'not a url' } }
";
    conditions_and_items_are_checked: "
inputs: { a: { type: boolean } }
steps:
  - { id: a, uses: command, if: '{{ inputs.a }} and {{ inputs.a }}', with: { run: x } }
  - { id: b, uses: command, if: 'inputs.a', with: { run: x } }
  - { id: c, uses: command, if: ' {{#if inputs.a}}true{{else}}false{{/if}}', with: { run: x } }
  - { id: d, uses: command, for_each: [{ key: x }, { key: x }, { name: y }, null, [z]], with: { run: x } }
  - { id: e, uses: wait, with: {} }
  - { id: f, uses: wait, with: { for: 5s, url: 'https://x' } }
";
    the_pivot_is_checked: "
inputs: { p: { type: boolean } }
stores: { s: { scheme: fs, root: / } }
steps:
  - { id: before, uses: object.delete, with: { from: 's:a/' } }
  - { id: beside, uses: object.delete, needs: [early], with: { from: 's:a/' } }
  - { id: early, uses: command, with: { run: x } }
  - { id: switch, uses: command, pivot: true, if: '{{ inputs.p }}', needs: [early], with: { run: x } }
  - { id: behind, uses: object.delete, needs: [beside, switch], with: { from: 's:a/' } }
  - { id: skipped, uses: object.delete, undo: skip, with: { from: 's:a/' } }
  - { id: again, uses: command, pivot: true, with: { run: x } }
finally:
  - { id: late, uses: command, pivot: true, with: { run: x } }
";
    a_pivot_inside_a_step_is_checked: "
stores: { s: { scheme: fs, root: / } }
steps:
  - { id: cut, uses: postgres.cutover, with: { replica: {} } }
  - { id: skipped, uses: postgres.cutover, undo: skip, with: { replica: {} } }
";
    a_pivot_inside_a_step_that_may_fail_is_refused: "
stores: { s: { scheme: fs, root: / } }
steps:
  - { id: cut, uses: postgres.cutover, pivot: true, continue_on_error: true, with: { replica: {} } }
  - { id: behind, uses: object.delete, needs: [cut], with: { from: 's:a/' } }
  - { id: beside, uses: postgres.cutover, with: { replica: {} } }
";
    background_steps_have_to_end: "
steps:
  - { id: first, uses: command, with: { run: x } }
  - { id: a, uses: command, background: { until: first }, with: { run: x } }
  - { id: b, uses: probe.postgres, background: { until: frist }, with: { route: x } }
  - { id: c, uses: probe.postgres, background: { until: first }, needs: [first], with: { route: x } }
  - { id: d, uses: probe.postgres, background: true, with: { route: x } }
  - { id: e, uses: ./modules/replica.yaml, background: { until: first }, with: { from: x } }
";
    inputs_of_a_pipeline_used_as_a_step_are_checked: "
steps:
  - { id: a, uses: ./modules/replica.yaml, with: { form: x, jobs: many } }
  - { id: b, uses: ./modules/replica.yaml, with: { from: x, jobs: '{{ steps.a.outputs.lga }}' } }
  - { id: c, uses: ./modules/replika.yaml }
";
    places_after_wide_letters_are_exact: "
description: Größe → ✓ 大きい
steps:
  - { id: grün, uses: command, with: { run: 'é {{ inputs.ü }} {{ inputs.x }}' } }
";
    block_scalars_are_pointed_into: "
steps:
  - id: a
    uses: command
    with:
      run: |
        echo one
        echo {{ inputs.two }}
        echo \"{{ inputs.two }} {{ inputs.three }}\"
";
}

#[test]
fn windows_line_ends_keep_the_places() {
    let text = "steps:\r\n  - id: a\r\n    uses: nope\r\n";
    let problems = check(text).expect_err("the type is unknown");
    let places: Vec<_> = problems.iter().map(|problem| problem.file.line_and_column(problem.span.offset)).collect();
    assert_eq!(places, [(3, 11)]);
}

#[test]
fn a_byte_order_mark_keeps_the_places() {
    let problems = check("\u{FEFF}steps:\n  - id: a\n    uses: nope\n").expect_err("the type is unknown");
    let places: Vec<_> = problems.iter().map(|problem| problem.file.line_and_column(problem.span.offset)).collect();
    assert_eq!(places, [(3, 11)]);
}

#[test]
fn problems_as_data_say_the_same() {
    let problems = check("steps:\n  - id: a\n    uses: comand\n").expect_err("the type is unknown");
    insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false }, {
        insta::assert_json_snapshot!("problems_as_data", problems.to_json());
    });
}

#[test]
fn problems_of_a_module_stand_in_its_own_file() {
    let text = "steps:\n  - { id: a, uses: ./m/x.yaml }\n  - { id: b, uses: ./m/x.yaml }\n";
    let problems = check_with(text, &[("m/x.yaml", "steps:\n  - { id: c, uses: ./y.yaml }\n"), ("m/y.yaml", "steps: 5\n")])
        .expect_err("the innermost file is wrong");
    let told: Vec<_> = problems.iter().map(|problem| (problem.file.name.as_str(), problem.code.name())).collect();
    assert_eq!(told, [("m/y.yaml", "wrong-type")], "a file that is used twice is checked once");
}

#[test]
fn what_a_module_cannot_undo_needs_a_pivot_around_it() {
    let module = "stores: { s: { scheme: fs, root: / } }\nsteps:\n  - { id: rm, uses: object.delete, with: { from: 's:x/' } }\n";
    let used = |rest: &str| {
        let text = format!(
            "steps:\n  - {{ id: p, uses: command, pivot: true, with: {{ run: x }} }}\n  - {{ id: m, uses: ./m.yaml{rest} }}\n"
        );
        check_with(text, &[("m.yaml", module)])
    };
    let problems = used("").expect_err("the step may start before the pivot");
    assert_eq!(problems.to_string(), "step `m/rm` cannot be undone, and may start before the pivot `p`");
    assert!(used(", needs: [p]").is_ok());
    assert!(used(", undo: skip").is_ok());
    let inside = format!("{module}  - {{ id: p, uses: command, pivot: true, with: {{ run: x }} }}\n");
    let problems =
        check_with("steps:\n  - { id: m, uses: ./m.yaml }\n", &[("m.yaml", &inside)]).expect_err("not behind the pivot");
    assert!(problems.to_string().contains("`m/rm` cannot be undone"), "{problems}");
    let inside = inside.replace("uses: object.delete", "needs: [p], uses: object.delete");
    assert!(check_with("steps:\n  - { id: m, uses: ./m.yaml }\n", &[("m.yaml", &inside)]).is_ok());
    let second = "steps:\n  - { id: m, uses: ./m.yaml }\n  - { id: q, uses: command, pivot: true, with: { run: x } }\n";
    let problems = check_with(second, &[("m.yaml", &inside)]).expect_err("two pivots");
    assert!(problems.iter().any(|problem| problem.code.name() == "second-pivot"));
}

#[test]
fn a_file_of_ten_megabytes_is_read_and_a_larger_one_is_refused() {
    let step = "steps:\n  - { id: a, uses: command, with: { run: x } }\n";
    let padding = format!("# {}\n", "x".repeat(10_000_000 - step.len() - 3));
    assert_eq!(codes_of(format!("{padding}{step}")), [""; 0]);
    assert_eq!(codes_of(format!("#{padding}{step}")), ["too-large"]);
}

#[test]
fn an_alias_may_repeat_what_is_small() {
    let loaded = right(
        "
steps:
  - { id: a, uses: command, retry: &often { attempts: 9 }, with: { run: x } }
  - { id: b, uses: command, retry: *often, with: { run: x } }
",
    );
    assert_eq!(loaded.pipeline.definition().steps[1].retry.attempts, 9);
}

#[test]
fn a_for_each_over_nothing_and_over_ten_thousand_is_right() {
    right("steps:\n  - { id: a, for_each: [], uses: command, with: { run: '{{ each.value }}' } }\n");
    let items: Vec<String> = (0..10_000).map(|n| format!("item{n}")).collect();
    right(&format!(
        "steps:\n  - {{ id: a, for_each: [{}], uses: command, with: {{ run: '{{{{ each.value }}}}' }} }}\n",
        items.join(", ")
    ));
}

#[test]
fn a_step_twice_in_a_for_each_is_refused() {
    assert_eq!(codes_of("steps:\n  - { id: a, for_each: [x, y, x], uses: command, with: { run: x } }\n"), ["wrong-value"]);
}

#[test]
fn a_thousand_problems_are_found_and_counted() {
    let steps: String =
        (0..1000).map(|n| format!("  - {{ id: s{n}, uses: command, needs: [t{n}], with: {{ run: x }} }}\n")).collect();
    let problems = check(format!("steps:\n{steps}")).expect_err("no need exists");
    assert_eq!(problems.len(), 1000);
    assert!(problems.render(false).contains("and 950 more"));
}
