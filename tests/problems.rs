//! What a person reads when a pipeline is wrong: every problem, at its place, with what to write instead.

mod problems {
    pub mod catalogue;
}

use std::path::Path;

use ferry::pipeline::{Loaded, Problems, Sources, load};
use problems::catalogue::catalogue;

fn sources(files: &[(&str, &str)]) -> Sources {
    let mut sources = Sources::default();
    for (path, text) in files {
        sources.insert(Path::new(path), (*text).into());
    }
    sources
}

fn check(files: &[(&str, &str)]) -> Result<Loaded, Problems> {
    load(Path::new(files[0].0), &sources(files), &catalogue())
}

fn wrong(text: &str) -> String {
    check(&[("shop.yaml", text)]).expect_err("the pipeline is wrong").render(false)
}

#[test]
fn the_example_of_the_design_is_right() {
    let text = include_str!("problems/orders.yaml");
    let loaded = check(&[("orders.yaml", text)]).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    assert_eq!(loaded.warnings.render(false), "");
    insta::assert_yaml_snapshot!(loaded.pipeline.definition());
}

#[test]
fn an_unknown_need_is_told_with_the_nearest_id() {
    let text = "steps:\n  - id: copy\n    uses: command\n    needs: [frezee]\n    with: { run: x }\n  - { id: freeze, uses: command, with: { run: x } }\n";
    insta::assert_snapshot!(wrong(text));
}
