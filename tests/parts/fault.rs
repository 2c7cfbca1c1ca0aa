//! Bad weather on demand: a proxy between ferry and a real server that refuses, delays, cuts, or passes on.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
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
    /// Cuts the connection after so many quarters of the request's body, or of what is asked for: the server sees as much.
    CutUp(u8),
    /// Cuts the connection after so many quarters of the answer's body.
    CutDown(u8),
    /// Passes it on and takes every `ETag` out of the answer.
    NoEtag,
}

/// A request, as a forecast sees it.
pub struct Asked<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// The headers as they came.
    pub head: &'a str,
    /// How many came before it.
    pub number: usize,
}

type Forecast = dyn Fn(&Asked<'_>) -> Weather + Send + Sync;

/// A proxy. Its tasks end with the test's runtime.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    /// The port of the client that was accepted last.
    last: Arc<AtomicU16>,
    /// Connections whose request is not known yet.
    unread: Arc<AtomicUsize>,
}

/// A connection whose request is not known yet.
struct Unread(Arc<AtomicUsize>);

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Proxy {
    /// In front of the server at `to`. `forecast` is asked with the method, the path, and the number of the request.
    pub async fn start(to: u16, forecast: impl Fn(&str, &str, usize) -> Weather + Send + Sync + 'static) -> Self {
        Self::seeing(to, move |asked| forecast(asked.method, asked.path, asked.number)).await
    }

    /// The same with a forecast that sees the headers too.
    pub async fn seeing(to: u16, forecast: impl Fn(&Asked<'_>) -> Weather + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (last, unread) = (Arc::<AtomicU16>::default(), Arc::<AtomicUsize>::default());
        let (kept, accepted, waiting) = (requests.clone(), last.clone(), unread.clone());
        let forecast: Arc<Forecast> = Arc::new(forecast);
        let number = Arc::new(AtomicUsize::new(0));
        tokio::spawn(async move {
            while let Ok((client, from)) = listener.accept().await {
                let (forecast, number, kept) = (forecast.clone(), number.clone(), kept.clone());
                waiting.fetch_add(1, Ordering::Relaxed);
                accepted.store(from.port(), Ordering::Release);
                let unread = Unread(waiting.clone());
                tokio::spawn(async move {
                    let _ = serve(client, to, &*forecast, &number, &kept, unread).await;
                });
            }
        });
        Self { port, requests, last, unread }
    }

    /// `GET /box/a`, one for each request so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").clone()
    }

    /// Returns when all that a client which is gone by now has asked for is among the requests.
    pub async fn has_seen_all(&self) {
        // Connections are accepted in the order in which they were made.
        let mark = TcpStream::connect(("127.0.0.1", self.port)).await.expect("it listens");
        let port = mark.local_addr().expect("it is connected").port();
        while self.last.load(Ordering::Acquire) != port {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(mark);
        while self.unread.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
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
    unread: Unread,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut words = text.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    kept.lock().expect("not poisoned").push(format!("{method} {path}"));
    drop(unread);
    let weather = forecast(&Asked { method, path, head: &text, number: number.fetch_add(1, Ordering::Relaxed) });
    let (mut limit, mut spoiled, mut quarters, mut most_up) = (usize::MAX, None, None, u64::MAX);
    let mut has_no_etag = false;
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
        Weather::CutUp(of_four) => most_up = length(&text) * u64::from(of_four) / 4,
        Weather::CutDown(of_four) => quarters = Some(u64::from(of_four)),
        Weather::NoEtag => has_no_etag = true,
    }
    let mut server = TcpStream::connect(("127.0.0.1", to)).await?;
    // The signature covers `host` as the client wrote it; only what is about the connection is changed.
    let head: Vec<String> = text
        .trim_end_matches("\r\n")
        .split("\r\n")
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
        .map(|line| format!("{line}\r\n"))
        .collect();
    let mut head = head.concat();
    if has_no_etag {
        // Of this version nobody sends a body in chunks.
        head = head.replacen("HTTP/1.1", "HTTP/1.0", 1);
    }
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
        let sent = tokio::io::copy(&mut tokio::io::AsyncReadExt::take(&mut from_client, most_up), &mut to_server).await;
        if most_up < u64::MAX {
            // What the kernel still holds is lost with the connection; the server has to have seen the rest.
            to_server.flush().await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sent
    });
    if most_up < u64::MAX {
        let _ = up.await;
        return Ok(());
    }
    if has_no_etag {
        let mut answer = Vec::new();
        from_server.read_to_end(&mut answer).await?;
        to_client.write_all(&without_etag(&answer)).await?;
        up.abort();
        return Ok(());
    }
    if let Some(quarters) = quarters {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(from_server.read_u8().await?);
        }
        to_client.write_all(&head).await?;
        limit = usize::try_from(length(&String::from_utf8_lossy(&head)) * quarters / 4).expect("it fits");
    }
    let mut passed = 0;
    let mut buffer = vec![0; 16 << 10];
    if limit == 0 {
        up.abort();
        return Ok(());
    }
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

/// What `Content-Length` says.
fn length(head: &str) -> u64 {
    let line = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// An answer without the `ETag` of its head and those of its listing.
fn without_etag(answer: &[u8]) -> Vec<u8> {
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&answer[..at]).into_owned();
    let is_xml = head.to_ascii_lowercase().contains("xml");
    let mut body = answer[at..].to_vec();
    if is_xml {
        let mut text = String::from_utf8_lossy(&body).into_owned();
        while let Some((from, to)) = text.find("<ETag>").zip(text.find("</ETag>")) {
            text.replace_range(from..to + "</ETag>".len(), "");
        }
        body = text.into_bytes();
    }
    let mut whole = String::new();
    for line in head.trim_end().lines() {
        let lower = line.to_ascii_lowercase();
        if is_xml && (lower.starts_with("content-length:") || lower.starts_with("transfer-encoding:")) {
            continue;
        }
        if !lower.starts_with("etag:") {
            whole.push_str(line);
            whole.push_str("\r\n");
        }
    }
    if is_xml {
        whole = format!("{whole}content-length: {}\r\n", body.len());
    }
    whole.push_str("\r\n");
    [whole.into_bytes(), body].concat()
}

async fn drain(client: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while client.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}
