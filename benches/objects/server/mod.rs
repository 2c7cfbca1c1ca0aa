//! An S3 server in memory, fast enough that the client is the limit: a process of its own, so that its CPU time is
//! counted apart. It is no reference for what services refuse; for that the tests have real servers.

mod content;
mod fill;
mod listing;
mod memory;
mod numbered;
mod s3;
mod throttle;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::auth::SimpleAuth;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

pub use fill::Fill;

use content::Keeping;
use memory::Memory;
use numbered::{Numbered, Numbering};
use throttle::Throttled;

/// Serve buckets from memory until standard input ends.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The key that may do everything
    #[arg(long, value_name = "ID:SECRET")]
    key: String,
    /// A bucket to make; may be given many times
    #[arg(long, value_name = "NAME")]
    bucket: Vec<String>,
    /// Objects to begin with: BUCKET:COUNT,SIZE[,PREFIX]; may be given many times
    #[arg(long, value_name = "OBJECTS")]
    fill: Vec<Fill>,
    /// A bucket that lists so many empty objects without keeping any: BUCKET:COUNT
    #[arg(long, value_name = "OBJECTS")]
    numbered: Vec<Numbering>,
    /// How long each request waits before it is answered, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency: u64,
    /// How fast each connection is each way, in MB/s; 0 is no limit
    #[arg(long, value_name = "RATE", default_value_t = 0)]
    rate: u64,
    /// ETags are numbers and not MD5: cheaper, and no client may compare them with MD5
    #[arg(long)]
    cheap_etags: bool,
    /// Keep sizes and ETags of uploads, and not their bytes
    #[arg(long)]
    drain: bool,
    /// Go on when standard input ends: the server is a thread of its client
    #[arg(long)]
    forever: bool,
    /// How many threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Runs a server; the first line on standard output is its port.
pub fn run(serve: &Serve) -> std::io::Result<()> {
    let memory = Memory::new(Keeping { md5: !serve.cheap_etags, drain: serve.drain });
    for bucket in &serve.bucket {
        memory.create(bucket);
    }
    let block = fill::block();
    for fill in &serve.fill {
        memory.create(&fill.bucket).fill(fill::objects(fill, &block));
    }
    for numbering in &serve.numbered {
        memory.create(&numbering.bucket).number(Numbered::new(numbering.count));
    }
    let mut builder = S3ServiceBuilder::new(s3::Server::new(memory));
    let (id, secret) = serve.key.split_once(':').unwrap_or((&serve.key, ""));
    builder.set_auth(SimpleAuth::from_single(id, secret));
    let mut config = S3Config::default();
    // Keys with `//` in them are keys too.
    config.normalize_forward_slash_path = false;
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    let service = builder.build();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(serve.threads).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", serve.port)).await?;
        let mut out = std::io::stdout();
        writeln!(out, "{}", listener.local_addr()?.port())?;
        out.flush()?;
        let (latency, rate) = (Duration::from_millis(serve.latency), serve.rate * 1_000_000);
        tokio::select! {
            () = accept(listener, &service, latency, rate) => {}
            // Whoever started it is gone.
            () = end_of_input(), if !serve.forever => {}
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, service: &S3Service, latency: Duration, rate: u64) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, service.clone(), latency, rate));
            }
            // Out of descriptors, say: those who wait are served first.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(stream: TcpStream, service: S3Service, latency: Duration, rate: u64) {
    // A client that goes away is no failure of the server.
    let _ = stream.set_nodelay(true);
    let answer = hyper::service::service_fn(move |request| {
        let service = service.clone();
        async move {
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            hyper::service::Service::call(&service, request).await
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .writev(true)
        .serve_connection(TokioIo::new(Throttled::new(stream, rate)), answer)
        .await;
}

async fn end_of_input() {
    let mut input = tokio::io::stdin();
    let mut bytes = [0; 64];
    while !matches!(input.read(&mut bytes).await, Ok(0) | Err(_)) {}
}
