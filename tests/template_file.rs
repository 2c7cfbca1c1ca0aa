//! Template files: checked like the pipeline that names them, and kept with the run.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use ferry::pipeline::{Files, Loaded, Problems, load};

struct Memory(BTreeMap<&'static str, &'static str>);

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let found = self.0.get(path.to_string_lossy().as_ref());
        found.map(|text| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

const PIPELINE: &str = "
steps:
  - { id: settings, uses: file.write, with: { path: out, template: ./files/app.conf } }
  - { id: count, uses: command, with: { run: ls, outputs: text } }
";

fn check(pipeline: &'static str, file: Option<&'static str>) -> Result<Loaded, Problems> {
    let mut files = BTreeMap::from([("p/pipeline.yaml", pipeline)]);
    files.extend(file.map(|text| ("p/files/app.conf", text)));
    load(Path::new("p/pipeline.yaml"), &Memory(files), ferry::steps::builtin().catalogue())
}

#[test]
fn what_a_template_file_mentions_is_an_edge() {
    let loaded = check(PIPELINE, Some("a = 1\nb = {{ steps.count.outputs.text }}\n")).expect("right");
    assert_eq!(loaded.pipeline.steps[0].edges, ["count"]);
    assert_eq!(loaded.pipeline.steps[0].with["template"]["rendered"], "a = 1\nb = {{ steps.count.outputs.text }}\n");
}

#[test]
fn the_run_keeps_the_text_that_it_was_started_with() {
    let loaded = check(PIPELINE, Some("a = 1\n")).expect("right");
    let kept: ferry::pipeline::Sources =
        serde_json::from_value(serde_json::to_value(&loaded.sources).expect("JSON")).expect("read back");
    let again = load(Path::new("p/pipeline.yaml"), &kept, ferry::steps::builtin().catalogue()).expect("right without the disk");
    assert_eq!(again.pipeline.steps[0].with, loaded.pipeline.steps[0].with);
}

#[test]
fn what_is_wrong_in_a_template_file_is_told_at_its_place_there() {
    let problems = check(PIPELINE, Some("a = 1\nb = {{ steps.cuont.outputs.text }}\n")).expect_err("a wrong name");
    let text = problems.render(false);
    assert!(text.contains("p/files/app.conf:2:"), "{text}");
    assert!(text.contains("did you mean `count`?") || text.contains("count"), "{text}");
}

#[test]
fn a_template_file_that_is_not_there_is_a_problem_of_the_pipeline() {
    let text = check(PIPELINE, None).expect_err("no file").render(false);
    assert!(text.contains("cannot read `p/files/app.conf`") && text.contains("p/pipeline.yaml:3:"), "{text}");
}

#[test]
fn a_circle_through_a_template_file_is_told_in_the_pipeline() {
    let pipeline = "
steps:
  - { id: settings, uses: file.write, with: { path: out, template: ./files/app.conf } }
  - { id: count, uses: command, needs: [settings], with: { run: ls, outputs: text } }
";
    let text = check(pipeline, Some("{{ steps.count.outputs.text }}")).expect_err("a circle").render(false);
    assert!(text.contains("p/pipeline.yaml:"), "{text}");
}

#[test]
fn which_file_it_is_has_to_be_known_before_the_run() {
    let pipeline = "
inputs: { which: { type: string } }
steps:
  - { id: settings, uses: file.write, with: { path: out, template: '{{ inputs.which }}' } }
";
    let text = check(pipeline, None).expect_err("a template").render(false);
    assert!(text.contains("is a template itself"), "{text}");
}
