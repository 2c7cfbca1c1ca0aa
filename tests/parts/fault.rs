//! Bad weather on demand: a proxy between ferry and a real server that refuses, delays, cuts, or passes on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What the proxy does with a request.
#[derive(Debug, Clone)]
pub enum Weather {
    /// Passes it on.
    Fair,
    /// Answers this status, with these headers, without asking the server.
    Answer(u16, &'static [(&'static str, &'static str)], &'static str),
    /// Never answers.
    Hang,
    /// Passes the answer on and cuts the connection after so many bytes of it.
    CutAfter(usize),
    /// Waits, then passes it on.
    Slow(Duration),
    /// Passes the request on with this byte of its body changed.
    Spoil(usize),
}

type Forecast = dyn Fn(&str, &str, usize) -> Weather + Send + Sync;

/// A proxy. Its tasks end with the test's runtime.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// In front of the server at `to`. `forecast` is asked with the method, the path, and the number of the request.
    pub async fn start(to: u16, forecast: impl Fn(&str, &str, usize) -> Weather + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = requests.clone();
        let forecast: Arc<Forecast> = Arc::new(forecast);
        let number = Arc::new(AtomicUsize::new(0));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (forecast, number, kept) = (forecast.clone(), number.clone(), kept.clone());
                tokio::spawn(async move {
                    let _ = serve(client, to, &*forecast, &number, &kept).await;
                });
            }
        });
        Self { port, requests }
    }

    /// `GET /box/a`, one for each request so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").clone()
    }

    /// How many requests so far were of this method and had this in their path.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.requests().iter().filter(|line| line.starts_with(method) && line.contains(path)).count()
    }
}

/// One request per connection: every answer says `Connection: close`, so that a cut hits one request only.
async fn serve(
    mut client: TcpStream,
    to: u16,
    forecast: &Forecast,
    number: &AtomicUsize,
    kept: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut words = text.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    kept.lock().expect("not poisoned").push(format!("{method} {path}"));
    let weather = forecast(method, path, number.fetch_add(1, Ordering::Relaxed));
    let (mut limit, mut spoiled) = (usize::MAX, None);
    match weather {
        Weather::Fair => {}
        Weather::Answer(status, headers, body) => {
            let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
            let answer = format!(
                "HTTP/1.1 {status} Weather\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
                if method == "HEAD" { 0 } else { body.len() }
            );
            client.write_all(answer.as_bytes()).await?;
            if method != "HEAD" {
                let _ = client.write_all(b"").await;
            }
            // What is still being sent is read, else the kernel resets the connection before the answer is seen.
            let _ = tokio::time::timeout(Duration::from_millis(200), drain(&mut client)).await;
            return Ok(());
        }
        Weather::Hang => {
            tokio::time::sleep(Duration::from_hours(1)).await;
        }
        Weather::CutAfter(bytes) => limit = bytes,
        Weather::Slow(by) => tokio::time::sleep(by).await,
        Weather::Spoil(at) => spoiled = Some(at),
    }
    let mut server = TcpStream::connect(("127.0.0.1", to)).await?;
    // The signature covers `host` as the client wrote it; only what is about the connection is changed.
    let head: Vec<String> = text
        .trim_end_matches("\r\n")
        .split("\r\n")
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
        .map(|line| format!("{line}\r\n"))
        .collect();
    let head = head.concat();
    server.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::spawn(async move {
        if let Some(at) = spoiled {
            let mut before = vec![0; at + 1];
            from_client.read_exact(&mut before).await?;
            before[at] ^= 1;
            to_server.write_all(&before).await?;
        }
        tokio::io::copy(&mut from_client, &mut to_server).await
    });
    let mut passed = 0;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = from_server.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        let allowed = count.min(limit - passed);
        to_client.write_all(&buffer[..allowed]).await?;
        passed += allowed;
        if passed == limit {
            break;
        }
    }
    up.abort();
    Ok(())
}

async fn drain(client: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while client.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}
