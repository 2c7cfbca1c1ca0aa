//! Object sync against its peers: whole processes in interleaved rounds, between S3 servers that are not the limit.
//!
//! `make bench-objects` prints a table; `docs/performance.md` holds the last one and says how to read it.

mod jobs;
mod measure;
mod memory;
#[path = "../../tests/parts/mod.rs"]
mod parts;
mod peers;
mod place;
mod rounds;
mod server;
mod table;

use std::process::ExitCode;

use clap::Parser as _;

/// Object sync against its peers
#[derive(Debug, clap::Parser)]
enum Task {
    /// Run the rounds and print the table; the default
    Run(rounds::Run),
    /// Serve buckets from memory until standard input ends
    Serve(server::Serve),
    /// Show how much memory a listing of many objects takes
    Memory(memory::Memory),
    /// Run a program and write what it used to a file
    Measure(measure::Measure),
}

fn main() -> ExitCode {
    // `cargo bench` adds this to what it passes on.
    let mut arguments: Vec<String> = std::env::args().collect();
    if arguments.last().is_some_and(|last| last == "--bench") {
        arguments.pop();
    }
    if arguments.get(1).is_none_or(|first| first.starts_with("--") && first != "--help") {
        arguments.insert(1, "run".to_owned());
    }
    let ended = match Task::parse_from(arguments) {
        Task::Run(run) => rounds::run(&run).map(|()| ExitCode::SUCCESS),
        Task::Memory(memory) => memory::run(&memory).map(|()| ExitCode::SUCCESS),
        Task::Serve(serve) => server::run(&serve).map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string()),
        Task::Measure(measure) => measure::run(&measure).map_err(|error| error.to_string()),
    };
    ended.unwrap_or_else(|error| {
        say(&error);
        ExitCode::FAILURE
    })
}

/// Tells the person who waits.
#[expect(clippy::print_stderr, reason = "a benchmark is a program of its own")]
fn say(text: &str) {
    eprintln!("{text}");
}
