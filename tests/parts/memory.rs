//! An S3 server in memory, the benchmarks' own: it keeps storage classes and tags, which the others at hand do not.

#[path = "../../benches/objects/server/mod.rs"]
#[allow(dead_code, reason = "the benchmarks use all of it")]
mod server;

use std::net::TcpStream;
use std::time::Duration;

use clap::Parser as _;

use crate::parts::{self, Keys};

#[derive(clap::Parser)]
struct Asked {
    #[command(flatten)]
    serve: server::Serve,
}

/// Starts it with a bucket `box`, and gives its port. It ends with the test's process.
pub fn start(keys: Keys) -> u16 {
    let port = parts::free_port();
    let key = format!("{}:{}", keys.id, keys.secret);
    let words = ["server", "--port", &port.to_string(), "--key", &key, "--bucket", "box", "--forever"].map(str::to_owned);
    std::thread::spawn(move || server::run(&Asked::parse_from(words).serve));
    for _ in 0..1000 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return port;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the server in memory did not start");
}
