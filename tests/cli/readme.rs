//! README keeps its word: its pipeline runs as it stands there, and so do the pipelines that ferry gives away.

use std::path::Path;

use super::bench::Bench;

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README is there")
}

/// The first block of this language.
fn block(text: &str, language: &str) -> String {
    let start = format!("```{language}\n");
    let from = text.find(&start).expect("README has such a block") + start.len();
    let to = text[from..].find("```").expect("the block ends");
    text[from..from + to].to_owned()
}

#[test]
fn the_first_pipeline_of_readme_runs_in_under_20_lines() {
    let pipeline = block(&readme(), "yaml");
    assert!(pipeline.lines().count() < 20, "{pipeline}");
    let bench = Bench::new();
    bench.write("first.yaml", &pipeline);
    bench.write("data/a.txt", "a");
    bench.write("data/deep/b.txt", "b");
    bench.run(&["check", "first.yaml"]).exits(0);
    bench.run(&["plan", "first.yaml"]).exits(0);
    assert!(!bench.path("moved").exists() && !bench.path(".ferry").exists(), "a plan changes nothing");
    bench.run(&["run", "first.yaml"]).exits(0);
    assert_eq!(std::fs::read_to_string(bench.path("moved.txt")).expect("it was written"), "2 files moved\n");
    assert!(bench.path("moved/deep/b.txt").exists());
    bench.run(&["show", "last"]).exits(0);
    bench.run(&["rollback", "last"]).exits(0);
    assert!(!bench.path("moved.txt").exists() && !bench.path("moved/a.txt").exists());
}

#[test]
fn readme_names_every_exit_status() {
    let readme = readme();
    for code in [0, 1, 2, 3, 4, 5, 130] {
        assert!(readme.contains(&format!("| {code} | ")), "{code}");
    }
}

#[test]
fn readme_points_only_at_pages_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for part in readme().split("](").skip(1) {
        let target = part.split(')').next().unwrap_or_default();
        assert!(target.starts_with("http") || root.join(target).exists(), "`{target}` is not there");
    }
}

#[test]
fn the_pipeline_that_init_writes_runs_as_it_is() {
    let bench = Bench::new();
    bench.write("data/a.txt", "a");
    bench.run(&["init"]).exits(0);
    bench.run(&["check", "pipeline.yaml", "--strict"]).exits(0);
    bench.run(&["run", "pipeline.yaml"]).exits(0);
    assert!(bench.path("moved/a.txt").exists() && bench.path("moved.txt").exists());
}

#[test]
fn hello_greets_and_is_taken_back() {
    let bench = Bench::new();
    let root = env!("CARGO_MANIFEST_DIR");
    let hello = std::fs::read_to_string(Path::new(root).join("pipelines/hello.yaml")).expect("it is there");
    bench.write("hello.yaml", &hello);
    bench.run(&["run", "hello.yaml", "-i", "name=Ada"]).exits(0);
    assert_eq!(std::fs::read_to_string(bench.path("hello.txt")).expect("it greets"), "Hello, Ada!\n");
    bench.run(&["rollback", "last"]).exits(0);
    assert!(!bench.path("hello.txt").exists());
}
