//! `ferry trial` of a round trip in the lab: pipelines/postgres-failback.yaml as it stands, and the same row by row,
//! pipelines/postgres-logical-failback.yaml, under load. `make trials` does them ten times, near and far, and prints the
//! figures.
#![allow(clippy::print_stdout, reason = "its figures are its end")]

#[allow(dead_code, reason = "it is shared with the tests of the command line")]
#[path = "cli/bench.rs"]
mod bench;
mod lab;

use std::time::Duration;

use bench::Bench;
use lab::Lab;
use lab::link::Weather;
use lab::pooler::PROBER;
use lab::postgres::Settings;
use lab::template::programs;

/// What goes there and back again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A standby is promoted.
    Files,
    /// Databases that follow take over.
    Rows,
}

impl Form {
    fn pipeline(self) -> &'static str {
        if self == Self::Files { "postgres-failback.yaml" } else { "postgres-logical-failback.yaml" }
    }

    /// How each way is called in the outputs; row by row one probe goes both.
    fn ways(self) -> &'static [&'static str] {
        if self == Self::Files { &["_there", "_back"] } else { &[""] }
    }

    fn shown(self) -> &'static [&'static str] {
        if self == Self::Files {
            &["pause_there", "gap_there", "login_there", "pause_back", "gap_back", "login_back"]
        } else {
            &["pause_there", "pause_back", "gap", "login"]
        }
    }
}

/// After a round trip row by row the target is a server that has moved away. The next one needs one that is new.
const ANEW: &str = "  - id: anew\n    uses: command\n    on: target\n    needs: [home]\n    with: { become: postgres, run: \"ANEW\" }\n\noutputs:";

fn pipeline(lab: &Lab, bench: &Bench, form: Form) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(form.pipeline());
    let text = std::fs::read_to_string(path);
    bench.write("password", PROBER.1);
    let config = lab.folder().join("config").display().to_string();
    let text = text.expect("it is there").replace("env: APP_PASSWORD", &format!("file: {}", bench.path("password").display()));
    ["source", "target", "gate"].iter().fold(text, |text, host| {
        let line = format!("{host}: {{ ssh: \"{{{{ inputs.{host} }}}}\"");
        assert!(text.contains(&line), "the pipeline has changed");
        text.replace(&line, &format!("{line}, config: \"{config}\""))
    })
}

fn trials(times: &str, far: Option<Weather>, form: Form) {
    let (lab, bench) = (Lab::new(&["alpha", "beta", "gate"]), Bench::new());
    let alpha = lab.cluster("alpha", &Settings { fsync: true, ..Settings::full(2) });
    let settings = Settings { fsync: true, ..Settings::default() };
    let beta = if form == Form::Files { lab.place("beta", &settings) } else { lab.cluster("beta", &settings) };
    let mut text = pipeline(&lab, &bench, form);
    if form == Form::Rows {
        alpha.sql("alter table pgbench_history replica identity full");
        beta.asked("postgres", "drop database app; drop role app").expect("dropped");
        beta.stop();
        beta.host.says(&format!("cp -a {0} {0}.new", beta.data));
        beta.start();
        let start = format!("{}/pg_ctl -s -w -D {} -l /var/lib/postgresql/log start", programs().0.display(), beta.data);
        let anew = format!("rm -rf {0} && cp -a {0}.new {0} && {start}", beta.data);
        text = text.replace("\noutputs:", &ANEW.replace("ANEW", &anew));
    }
    let pooler = lab.pooler("gate", alpha.address(), alpha.port);
    // The probe has a pool of its own. In the load's pool it would wait for its turn behind eight others, while the pooler
    // logs in one connection after the other: that is what the load's own gap tells.
    alpha.sql(&format!("create role {} login password '{}'; grant create on database app to {0}", PROBER.0, PROBER.1));
    if let Some(weather) = far {
        lab.host("beta").weather(weather);
    }
    bench.write("back.yaml", &text);
    // Row by row one process applies what eight clients write: as fast as they can is more than it can on two cores, and then
    // it follows ever further behind.
    let mut load = lab.load(&pooler.url(), 8, if form == Form::Rows { &["--rate=500"] } else { &[] });
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));
    let more = if form == Form::Files { "remove=true" } else { "without_large_objects=true" };
    let inputs = ["source=root@alpha", "target=root@beta", "gate=root@gate", "route=10.77.0.30:6432", "user=prober", more];
    let mut arguments = vec!["trial", "back.yaml", "--times", times, "--svg", "pauses.svg", "--json"];
    arguments.extend(inputs.iter().flat_map(|input| ["-i", input]));
    let ran = bench.run(&arguments);
    assert_eq!(ran.code, Some(0), "{}\n{}\n{}", ran.stderr, bench.run(&["logs", "last"]).stdout, pooler.log());
    let figures = load.stop();
    assert_eq!((figures.failed, figures.aborted), (0, 0), "{}\n{}", figures.text, pooler.log());
    assert_eq!(alpha.sql("select count(*) from pgbench_history"), figures.acknowledged.to_string());
    assert!(!alpha.is_in_recovery() && beta.runs() == (form == Form::Rows));
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let figure = |name: &str| {
        let all = document["figures"].as_array().expect("a list");
        all.iter().find(|figure| figure["name"] == name).unwrap_or_else(|| panic!("no {name}: {}", ran.stdout)).clone()
    };
    for way in form.ways() {
        assert_eq!(figure(&format!("errors{way}"))["max"], 0.0);
        assert_eq!(figure(&format!("acknowledged{way}"))["values"], figure(&format!("exactly_once{way}"))["values"]);
    }
    for name in form.shown() {
        let figure = figure(name);
        let millis = |what: &str| figure[what].as_f64().map_or(0.0, |seconds| (seconds * 1000.0).round());
        let [median, mean, deviation, min, max] = ["median", "mean", "deviation", "min", "max"].map(millis);
        println!("{name}: median {median} ms, mean {mean}, deviation {deviation}, {min} to {max}");
    }
    println!(
        "{} transactions, {:.0} a second; longest gap of a client: {} ms",
        figures.acknowledged,
        figures.rate,
        figures.gap.as_millis()
    );
    let svg = std::fs::read_to_string(bench.path("pauses.svg")).expect("it was written");
    if let Ok(folder) = std::env::var("FERRY_TRIALS_SVG") {
        let rows = if form == Form::Rows { "-rows" } else { "" };
        let name = format!("postgres{rows}-{}.svg", if far.is_some() { "far" } else { "near" });
        std::fs::write(std::path::Path::new(&folder).join(name), &svg).expect("written");
    }
    assert!(svg.contains("pause_back"));
    if std::env::var_os("FERRY_TRIALS").is_some() {
        let told = bench.run(&["logs", "last"]).stdout;
        told.lines().filter(|line| line.contains("the pause is over")).for_each(|line| println!("{line}"));
    }
}

fn times() -> String {
    std::env::var("FERRY_TRIALS").unwrap_or_else(|_| "1".to_owned())
}

#[test]
fn there_and_back_again_on_one_network() {
    trials(&times(), None, Form::Files);
}

#[test]
fn there_and_back_again_row_by_row_on_one_network() {
    trials(&times(), None, Form::Rows);
}

/// 40 ms there and back, 100 Mbit/s.
fn slow() -> Weather {
    Weather { delay: Duration::from_millis(20), rate: Some(100_000_000), ..Weather::default() }
}

#[test]
fn there_and_back_again_row_by_row_over_a_slow_link() {
    if std::env::var_os("FERRY_TRIALS").is_some() {
        trials(&times(), Some(slow()), Form::Rows);
    }
}

#[test]
fn there_and_back_again_over_a_slow_link() {
    // A minute and a half of a slow link, for its figures: part of `make trials` only.
    if std::env::var_os("FERRY_TRIALS").is_none() {
        return;
    }
    trials(&times(), Some(slow()), Form::Files);
}
