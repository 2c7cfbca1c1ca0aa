//! `make demo-postgres`: a PostgreSQL cluster moves from one host of the lab to another and back again while clients write. Without
//! `FERRY_DEMO` it is no test and does nothing: `postgres_migration.rs` asks the same and more.
#![expect(clippy::print_stdout, reason = "it is told to a person")]

mod lab;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use ferry::engine::{Event, Outcome};
use ferry::journal::Journal;
use lab::ledger::Habit;
use lab::postgres::Settings;
use lab::template::APP;
use lab::{Lab, until};

fn heading(text: &str) {
    println!("\n== {text}");
}

/// Shows a command line and runs it with this process's own terminal.
fn show(ferry: &PathBuf, folder: &std::path::Path, arguments: &[&str]) {
    println!("$ ferry {}", arguments.join(" "));
    let mut command = Command::new(ferry);
    command.args(arguments).current_dir(folder).env("FERRY_STORE", folder.join("runs")).env("APP_PASSWORD", APP.1);
    let status = command.status().expect("ferry starts");
    assert!(status.success(), "ferry {}: {status}", arguments.join(" "));
}

/// The way back, after the hosts.
const BACK: &str = "steps:
  - id: back
    uses: postgres.failback
    with: { cutover: OUTPUTS }
  - id: home
    uses: postgres.cutover
    pivot: true
    with: { replica: \"{{ steps.back.outputs }}\", routers: [{ pgbouncer: { host: gate } }] }
";

/// A pipeline that leads back what the last run has cut over.
fn way_back(lab: &Lab, runs: &std::path::Path) -> String {
    let journal = Journal::read(runs).expect("it can be read");
    let run = journal.find_run("last").expect("it has run");
    let outputs = journal.records(&run).expect("it can be read").into_iter().rev().find_map(|record| match record.event {
        Event::AttemptEnded { step, outcome: Outcome::Succeeded { output, .. }, .. } if step.as_str() == "cutover" => {
            Some(output)
        }
        _ => None,
    });
    // Called as in the pipeline that went there.
    let hosts = lab.yaml(&["alpha", "beta", "gate"]).replace("  alpha:", "  source:").replace("  beta:", "  target:");
    hosts + &BACK.replace("OUTPUTS", &outputs.expect("it was cut over").to_string())
}

#[test]
fn a_cluster_moves_while_clients_write() {
    let Some(ferry) = std::env::var_os("FERRY_DEMO") else { return };
    let ferry = if ferry == "1" { PathBuf::from(env!("CARGO_BIN_EXE_ferry")) } else { PathBuf::from(ferry) };
    let start = Instant::now();

    heading("Lab: alpha (PostgreSQL with pgbench's tables and a shop), beta (nothing yet), gate (PgBouncer)");
    let lab = Lab::on_disk(&["alpha", "beta", "gate"]);
    let alpha = lab.cluster("alpha", &Settings { fsync: true, ..Settings::full(10) });
    let beta = lab.place("beta", &Settings::default());
    let pooler = lab.pooler("gate", alpha.address(), alpha.port);
    println!("{} on alpha, {}", alpha.sql("select pg_size_pretty(pg_database_size('app'))"), alpha.sql("select version()"));
    let folder = lab.folder().join("demo");
    std::fs::create_dir(&folder).expect("a new folder");
    let config = lab.folder().join("config").display().to_string();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/postgres-live-migration.yaml"));
    let mut text = text.expect("it is there");
    for host in ["source", "target", "gate"] {
        let line = format!("{host}: {{ ssh: \"{{{{ inputs.{host} }}}}\"");
        text = text.replace(&line, &format!("{line}, config: \"{config}\""));
    }
    std::fs::write(folder.join("move.yaml"), text).expect("written");
    let inputs = ["-i", "source=root@alpha", "-i", "target=root@beta", "-i", "gate=root@gate", "-i", "route=10.77.0.30:6432"];

    heading("Clients: eight with pgbench's transactions, one that keeps its connection, one that comes anew each time");
    let clients = [("kept", pooler.url(), Habit::Keeps), ("fresh", pooler.url(), Habit::Anew)];
    let ledger = alpha.ledger(&clients);
    let mut load = lab.load(&pooler.url(), 8, &["--rate=400"]);
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));

    heading("Plan: everything is looked at, nothing is changed");
    show(&ferry, &folder, &[&["plan", "move.yaml"], inputs.as_slice()].concat());
    heading("Run");
    show(&ferry, &folder, &[&["run", "move.yaml", "--yes"], inputs.as_slice()].concat());

    until("the old primary is down", || (!alpha.runs()).then_some(()));
    println!("the old primary is down and fenced");
    load.under_way(|| beta.sql("select count(*) from pgbench_history").parse().expect("a number"));
    let (away, back) = (folder.join("runs"), folder.join("back.yaml"));

    heading("And back: the old primary follows the new one, only what differs is copied, then it takes over again");
    std::fs::write(back, way_back(&lab, &away)).expect("written");
    println!("$ cat back.yaml   # the outputs of the cutover lead back\n{BACK}");
    show(&ferry, &folder, &["run", "back.yaml", "--yes"]);

    heading("What clients saw");
    load.under_way(|| alpha.sql("select count(*) from pgbench_history").parse().expect("a number"));
    ledger.under_way();
    let (figures, seen) = (load.stop(), ledger.stop());
    println!(
        "pgbench: {} transactions, {:.0} in a second, {} failed",
        figures.acknowledged,
        figures.rate,
        figures.failed + figures.aborted as u64
    );
    println!("longest wait of a client of pgbench: {} ms", figures.gap.as_millis());
    for client in &seen.clients {
        println!("longest gap of the client `{}`: {} ms, {} errors", client.name, client.gap().as_millis(), client.errors.len());
    }

    heading("Proof");
    assert_eq!(alpha.sql("select count(*) from pgbench_history"), figures.acknowledged.to_string());
    println!("each of {} transactions is back on alpha, exactly once", figures.acknowledged);
    println!("each of {} writes of the ledger is on alpha, exactly once", seen.is_whole_on(&alpha));
    until("the other one is down", || (!beta.runs()).then_some(()));
    heading("Show: the story of the run");
    show(&ferry, &folder, &["show", "last"]);
    heading(&format!("Done, {} s", start.elapsed().as_secs()));
}
