//! What templates promise, as facts.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::*;
use crate::secret::{Vault, mark};

fn with_scope<T>(check: impl FnOnce(&Scope<'_>, &Vault) -> T) -> T {
    let inputs = json!({
        "bucket": "uploads", "n": 3, "on": true, "off": false, "none": null, "list": ["a", "b"], "empty": [],
        "max": "1MiB", "wait": "2m", "map": { "weird key": 1, "x": { "y": 2.5 } }, "html": "<&\">",
    });
    let vault = Vault::default();
    vault.insert("repl", SecretString::from("pä\"ss"));
    let steps = |id: &str| match id {
        "copy" => StepView::Outputs(json!({ "bytes": 4096, "took": "90s", "login": format!("me:{}", mark("repl")) })),
        "later" => StepView::NotYet,
        "skipped" => StepView::Skipped,
        _ => StepView::Unknown,
    };
    let scope = Scope {
        inputs: inputs.as_object().unwrap(),
        secrets: BTreeMap::from([("repl".to_owned(), mark("repl"))]),
        steps: &steps,
        each: Some(Each { key: "eu".to_owned(), value: json!({ "zone": 1 }), index: 4 }),
        hosts: Map::from_iter([("source".to_owned(), json!({ "ssh": "db.example" }))]),
        run: Map::from_iter([("id".to_owned(), json!("r1"))]),
        env: Map::new(),
        pipeline_name: "demo",
    };
    check(&scope, &vault)
}

fn shown(text: &str) -> Value {
    with_scope(|scope, vault| render(&json!(text), scope, vault)).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> RenderError {
    with_scope(|scope, vault| render(&json!(text), scope, vault)).expect_err(text)
}

fn problem(text: &str) -> TemplateProblem {
    Template::parse(text).expect_err(text)
}

#[test]
fn a_whole_value_keeps_its_type() {
    assert_eq!(shown("{{ inputs.list }}"), json!(["a", "b"]));
    assert_eq!(shown("{{inputs.n}}"), json!(3));
    assert_eq!(shown("  {{ inputs.map }}\n"), json!({ "weird key": 1, "x": { "y": 2.5 } }));
    assert_eq!(shown("{{ inputs.none }}"), json!(null));
    assert_eq!(shown("{{ eq inputs.n 3 }}"), json!(true));
    assert_eq!(shown("{{ 5 }}"), json!(5));
    assert_eq!(shown("{{ steps.copy.outputs.bytes }}"), json!(4096));
    assert_eq!(shown("{{ each }}"), json!({ "key": "eu", "value": { "zone": 1 }, "index": 4 }));
}

#[test]
fn text_around_an_expression_gives_text() {
    assert_eq!(shown("{{inputs.n}} of {{ inputs.bucket }}"), json!("3 of uploads"));
    assert_eq!(shown("{{ inputs.bucket }}\n"), json!("uploads\n"));
    assert_eq!(shown("{{ inputs.n }}\n"), json!("3\n"));
    assert_eq!(shown("{{ inputs.html }}!"), json!("<&\">!"));
    assert_eq!(shown("{{{ inputs.html }}}{{& inputs.html }}"), json!("<&\"><&\">"));
    assert_eq!(shown("no template"), json!("no template"));
    assert_eq!(shown(""), json!(""));
    assert!(refused("all: {{ inputs.list }}").help.unwrap().contains("json"));
    assert!(refused("all: {{ inputs.none }}").message.contains("null"));
}

#[test]
fn a_tree_keeps_its_shape() {
    with_scope(|scope, vault| {
        let tree = json!({ "{{ inputs.n }}": ["{{ inputs.list }}", 7, { "a": "{{ each.key }}/{{ each.value.zone }}" }] });
        assert_eq!(render(&tree, scope, vault).unwrap(), json!({ "{{ inputs.n }}": [["a", "b"], 7, { "a": "eu/1" }] }));
    });
}

#[test]
fn names_reach_into_values() {
    assert_eq!(shown("{{ inputs.map.[weird key] }}"), json!(1));
    assert_eq!(shown("{{ inputs.map.x.y }}"), json!(2.5));
    assert_eq!(shown("{{ inputs.list.1 }}"), json!("b"));
    assert_eq!(shown("{{ hosts.source.ssh }} {{ run.id }} {{ pipeline.name }}"), json!("db.example r1 demo"));
}

#[test]
fn a_missing_name_is_an_error_with_the_nearest_one() {
    assert_eq!(refused("{{ inputs.buckte }}").help.unwrap(), "did you mean `inputs.bucket`?");
    assert_eq!(refused("{{ inptus.bucket }}").help.unwrap(), "did you mean `inputs`?");
    assert_eq!(refused("{{ inputs.bucket.x }}").message, "`inputs.bucket` is a text and has no `x`");
    assert_eq!(refused("{{ inputs.list.7 }}").message, "`inputs.list` is a list of 2 and has no `7`");
    assert_eq!(refused("{{ secrets.repk }}").help.unwrap(), "did you mean `secrets.repl`?");
    assert_eq!(refused("{{ steps.nope.outputs.x }}").message, "there is no step `nope`");
    assert_eq!(refused("{{ steps.later.outputs.x }}").waits_for.as_deref(), Some("later"));
}

#[test]
fn default_catches_a_missing_last_part_and_nothing_else() {
    assert_eq!(shown("{{ default inputs.nope 7 }}"), json!(7));
    assert_eq!(shown("{{ default inputs.none \"x\" }}"), json!("x"));
    assert_eq!(shown("{{ default inputs.off true }}"), json!(false));
    assert_eq!(shown("{{ default steps.skipped.outputs.bytes 0 }}"), json!(0));
    assert_eq!(shown("{{ default steps.copy.outputs.nope (lower \"A\") }}"), json!("a"));
    assert_eq!(refused("{{ default inputs.nope.deeper 1 }}").message, "`inputs` has no `nope`");
    assert_eq!(refused("{{ default steps.later.outputs.x 1 }}").waits_for.as_deref(), Some("later"));
}

#[test]
fn helpers_do_what_they_say() {
    for (text, value) in [
        ("{{ ne inputs.n 3.0 }}", json!(false)),
        ("{{ eq inputs.list '[\"a\"]' }}", json!(false)),
        ("{{ eq inputs.list [\"a\", \"b\"] }}", json!(true)),
        ("{{ lt inputs.n 4 }}", json!(true)),
        ("{{ gt inputs.max \"1MB\" }}", json!(true)),
        ("{{ lt steps.copy.outputs.took inputs.wait }}", json!(true)),
        ("{{ gt \"20MB/s\" \"3MB/s\" }}", json!(true)),
        ("{{ lt steps.copy.outputs.bytes inputs.max }}", json!(true)),
        ("{{ and inputs.on (not inputs.off) }}", json!(true)),
        ("{{ or inputs.on inputs.nope }}", json!(true)),
        ("{{ and inputs.empty inputs.nope }}", json!(false)),
        ("{{ json inputs.map }}", json!("{\"weird key\":1,\"x\":{\"y\":2.5}}")),
        ("{{ join inputs.list \", \" }}", json!("a, b")),
        ("{{ upper inputs.bucket }}", json!("UPLOADS")),
        ("{{ replace inputs.bucket 'up' 'down' }}", json!("downloads")),
        ("{{ trim '  x ' }}", json!("x")),
        ("{{ base64 \"hi\" }}", json!("aGk=")),
        ("{{ sha256 \"\" }}", json!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")),
    ] {
        assert_eq!(shown(text), value, "{text}");
    }
    assert!(refused("{{ lt inputs.bucket 3 }}").message.contains("cannot order `uploads` and `3`"));
    assert!(refused("{{ upper inputs.list }}").message.contains("takes a text"));
}

#[test]
fn blocks_choose_and_repeat() {
    assert_eq!(shown("{{#if inputs.on}}yes{{else}}no{{/if}}"), json!("yes"));
    assert_eq!(shown("{{#if inputs.off}}1{{else if (eq inputs.n 3)}}2{{else}}3{{/if}}"), json!("2"));
    assert_eq!(shown("{{#each inputs.list}}{{@index}}={{this}}{{#if @last}}.{{else}}, {{/if}}{{/each}}"), json!("0=a, 1=b."));
    assert_eq!(shown("{{#each inputs.map}}{{@key}};{{/each}}"), json!("weird key;x;"));
    assert_eq!(shown("{{#each inputs.empty}}x{{else}}none{{/each}}"), json!("none"));
    assert_eq!(
        shown("{{#each inputs.list}}\n- {{this}} of {{inputs.bucket}}\n{{/each}}\nend"),
        json!("- a of uploads\n- b of uploads\nend")
    );
    assert_eq!(shown("a {{! not shown }}b{{!-- nor }} this --}} \\{{ c }} \\\\{{inputs.n}}"), json!("a b {{ c }} \\3"));
    assert_eq!(shown("a  {{~ inputs.n ~}}  b"), json!("a3b"));
    assert!(refused("{{ this }}").message.contains("each"));
}

#[test]
fn a_secret_is_a_mark_that_follows_the_value() {
    let revealed = |text: &str| {
        with_scope(|scope, vault| {
            let value = render(&json!(text), scope, vault).unwrap();
            let marked = value.as_str().unwrap();
            assert!(!marked.contains("pä"), "{text}: {marked}");
            vault.reveal(marked).unwrap().expose_secret().to_owned()
        })
    };
    assert_eq!(revealed("u:{{ secrets.repl }}"), "u:pä\"ss");
    assert_eq!(revealed("{{ upper steps.copy.outputs.login }}"), "ME:PÄ\"SS");
    assert_eq!(revealed("{{ base64 (lower secrets.repl) }}"), "cMOkInNz");
    assert_eq!(revealed("{{ default secrets.repl \"x\" }}"), "pä\"ss");
    assert_eq!(revealed("x{{ json steps.copy.outputs }}"), "x{\"bytes\":4096,\"took\":\"90s\",\"login\":\"me:pä\\\"ss\"}");
}

#[test]
fn comparing_a_secret_is_refused() {
    for text in [
        "{{ eq secrets.repl \"x\" }}",
        "{{ lt secrets.repl 3 }}",
        "{{ not secrets.repl }}",
        "{{ or secrets.repl inputs.on }}",
        "{{#if secrets.repl}}x{{/if}}",
        "{{ ne (base64 secrets.repl) \"x\" }}",
        "{{ eq steps.copy.outputs inputs.map }}",
    ] {
        assert!(refused(text).message.contains("would compare a secret"), "{text}");
    }
}

#[test]
fn nobody_forges_a_mark_in_a_template() {
    assert_eq!(shown(&format!("{} {{{{ inputs.n }}}}", mark("repl"))), json!("\u{FFFD}repl\u{FFFD} 3"));
}

#[test]
fn problems_point_at_their_place() {
    let text = "copy {{ upper inputs.bucket \"x\" }} now";
    let found = problem(text);
    assert_eq!((&text[found.offset..][..found.len], found.code), ("upper", "helper-arguments"));
    let text = "{{ eq (lowr inputs.n) 1 }}";
    let found = problem(text);
    assert_eq!((&text[found.offset..][..found.len], found.code), ("lowr", "unknown-helper"));
    assert_eq!(found.help.as_deref(), Some("did you mean `lower`?"));
    for (text, place, says) in [
        ("ü {{ inputs.a", "{{ inputs.a", "never closed"),
        ("a {{ inputs.a } b", "{{ inputs.a } b", "never closed"),
        ("{{#if inputs.a}}x", "{{#if inputs.a}}", "never closed"),
        ("{{#if inputs.a}}x{{/each}}", "{{#if inputs.a}}", "closed by"),
        ("x{{/if}}", "{{/if}}", "closes nothing"),
        ("{{else}}", "{{else}}", "outside"),
        ("{{#with inputs.a}}{{/with}}", "with", "no block"),
        ("{{ }}", "{{ }}", "nothing between"),
        ("{{ lower }}", "lower", "takes 1 argument, not 0"),
        ("{{else", "{{else", "never closed"),
        ("{{#", "{{#", "never closed"),
        ("{{# }}", "{{# }}", "no block"),
        ("{{ eq lower 1 }}", "lower", "no arguments"),
        ("{{ inputs.a inputs.b }}", "inputs.a", "not a helper"),
        ("{{ eq (inputs.a 1 }}", "inputs.a", "not a helper"),
        ("{{ eq (lower inputs.a 1 }}", "lower", "takes 1 argument"),
        ("{{ not (lower inputs.a }}", "(", "never closed"),
        ("{{ lower 'a }}", "'a }}", "never closed"),
        ("{{ lower \"a }}", "\"a }}", "JSON"),
        ("{{ inputs. }}", "inputs.", "nothing behind"),
        ("{{ inputs.[a }}", "[a }}", "never closed"),
        ("{{> other }}", "{{> other }}", "partials"),
        ("{{ @keys }}", "@keys", "no `@keys`"),
        ("{{ ../a }}", "../a", "`..`"),
        ("{{ lower a=1 }}", "a=", "named arguments"),
        ("{{ == }}", "==", "not a name"),
        ("{{{{raw}}}} x {{{{/raw}}}}", "{{{{raw}}", "raw blocks"),
    ] {
        let found = problem(text);
        assert_eq!(&text[found.offset..found.offset + found.len], place, "{text}: {found:?}");
        assert!(found.message.contains(says), "{text}: {found:?}");
    }
}

#[test]
fn every_name_is_told_with_its_place() {
    let text = "ü {{#if (eq inputs.a \"inputs.b\")}}{{ default steps.x.outputs.[y z] secrets.s }}{{#each this.q}}{{@key}}{{/each}}{{/if}}";
    let names = Template::parse(text).unwrap().names();
    let told: Vec<_> = names.iter().map(|name| (&text[name.offset..name.offset + name.len], name.is_optional)).collect();
    assert_eq!(told, [("inputs.a", false), ("steps.x.outputs.[y z]", true), ("secrets.s", false)]);
    assert_eq!(names[1].path, ["steps", "x", "outputs", "y z"]);
}

#[test]
fn a_hostile_template_is_a_problem() {
    assert!(problem(&format!("{{{{ {}", "(lower ".repeat(100_000))).message.contains("nest deeper"));
    assert!(problem(&"{{#if inputs.a}}".repeat(100_000)).message.contains("nest deeper"));
    assert!(problem(&format!("{{{{#if inputs.a}}}}{}", "{{else if inputs.a}}".repeat(100_000))).message.contains("nest deeper"));
    assert!(Template::parse(&format!("{{{{ lower {}", "[".repeat(100_000))).is_err());
    assert!(Template::parse(&"{{ inputs.a }} ".repeat(100_000)).is_ok());
}

/// What `handlebars` itself makes of a template that both know. No `~}}`: the crate lets one reach over text and comments
/// to the next white space, which Handlebars does not.
fn oracle(text: &str) -> Result<String, handlebars::RenderError> {
    let mut registry = handlebars::Handlebars::new();
    registry.set_strict_mode(true);
    registry.register_escape_fn(handlebars::no_escape);
    let data = json!({ "inputs": {
        "bucket": "uploads", "n": 3, "on": true, "off": false, "list": ["a", "b"], "empty": [], "map": { "k": 1, "weird key": 2 },
    }});
    registry.render_template(text, &data)
}

fn piece() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[ a-c\n\t]{0,4}",
        Just("\n".to_owned()),
        Just("\\ ".to_owned()),
        Just("\\\\{{@root.inputs.n}}".to_owned()),
        Just("{{ @root.inputs.bucket }}".to_owned()),
        Just("{{@root.inputs.n}}".to_owned()),
        Just("{{~@root.inputs.map.[weird key]}}".to_owned()),
        Just("{{{@root.inputs.bucket}}}".to_owned()),
        Just("{{! c }}".to_owned()),
        Just("\\{{x}} ".to_owned()),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let many = prop::collection::vec(inner, 0..4).prop_map(|parts| parts.concat());
        prop_oneof![
            (many.clone(), many.clone()).prop_map(|(a, b)| format!("{{{{#if @root.inputs.on}}}}{a}{{{{else}}}}{b}{{{{/if}}}}")),
            (many.clone(), many.clone())
                .prop_map(|(a, b)| format!("{{{{#if @root.inputs.off}}}}{a}{{{{else if @root.inputs.n}}}}{b}{{{{/if}}}}")),
            many.clone().prop_map(|a| format!("{{{{#each @root.inputs.list}}}}{a}{{{{/each}}}}")),
            many,
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in "([{}#/~!@.\\[\\]()\"'\\\\=^ ü\n]|if|each|else|this|inputs|eq|lower|-?[0-9]|\\{\\{|\\}\\}|a){0,40}") {
        match Template::parse(&text) {
            Ok(template) => {
                for name in template.names() {
                    prop_assert!(text.get(name.offset..name.offset + name.len).is_some());
                }
                with_scope(|scope, vault| drop(template.render(scope, vault)));
            }
            Err(problem) => prop_assert!(text.get(problem.offset..problem.offset + problem.len).is_some(), "{:?}", problem),
        }
    }

    #[test]
    fn a_text_without_braces_stays_as_it_is(text in "[^{]{0,60}") {
        prop_assert_eq!(shown(&text), json!(text.replace(['\u{F5E5}', '\u{F5E6}'], "\u{FFFD}")));
    }

    #[test]
    fn the_syntax_is_that_of_handlebars(parts in prop::collection::vec(piece(), 0..5)) {
        let text = parts.concat();
        let ours = with_oracle_scope(|scope| Template::parse(&text).map(|template| template.render(scope, &Vault::default())));
        let ours = match ours.unwrap().unwrap() {
            Value::String(text) => text,
            value => value.to_string(),
        };
        let theirs = oracle(&text).unwrap();
        prop_assert_eq!(ours.trim(), theirs.trim(), "{}", text);
    }
}

fn with_oracle_scope<T>(check: impl FnOnce(&Scope<'_>) -> T) -> T {
    let inputs = json!({
        "bucket": "uploads", "n": 3, "on": true, "off": false, "list": ["a", "b"], "empty": [], "map": { "k": 1, "weird key": 2 },
    });
    check(&Scope {
        inputs: inputs.as_object().unwrap(),
        secrets: BTreeMap::new(),
        steps: &|_| StepView::Unknown,
        each: None,
        hosts: Map::new(),
        run: Map::new(),
        env: Map::new(),
        pipeline_name: "demo",
    })
}
