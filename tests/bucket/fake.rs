//! A server that says what a test wants, and keeps what it was asked, byte for byte. Only for answers that no server at
//! hand gives.

use std::sync::{Arc, Mutex};

use ferry::stores::StoreOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::parts::scene::options;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `PUT /box/a//b HTTP/1.1`.
    pub line: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// `PUT /box/a`.
    pub fn asks(&self, start: &str) -> bool {
        self.line.starts_with(start)
    }
}

/// An answer: its status, its headers, its body. Status 0: the connection ends without one.
pub struct Reply(pub u16, pub &'static [(&'static str, &'static str)], pub &'static str);

pub const OK: Reply = Reply(200, &[("etag", "\"9a0364b9e99bb480dd25e1f0284c8555\"")], "");

pub struct Fake {
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    /// Asks `script` with each request and its number.
    pub async fn start(script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (kept, script) = (seen.clone(), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (kept, script) = (kept.clone(), script.clone());
                tokio::spawn(async move {
                    let _ = serve(client, &kept, &*script).await;
                });
            }
        });
        Self { port, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// A store that asks it.
    pub fn store(&self, more: &[(&str, &str)]) -> StoreOptions {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let mut all = vec![("scheme", "s3"), ("bucket", "box"), ("endpoint", endpoint.as_str()), ("region", "us-east-1")];
        all.extend([("access_key_id", "FAKEKEY"), ("secret_access_key", "fake-secret-canary")]);
        all.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
        all.extend(more);
        options(&all)
    }
}

async fn serve(
    mut client: TcpStream,
    kept: &Mutex<Vec<Seen>>,
    script: &(dyn Fn(&Seen, usize) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.trim_end().split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body).await?;
    let is_head = line.starts_with("HEAD");
    let seen = Seen { line, headers, body: String::from_utf8_lossy(&body).into_owned() };
    let number = {
        let mut kept = kept.lock().expect("not poisoned");
        kept.push(seen.clone());
        kept.len() - 1
    };
    let Reply(status, headers, body) = script(&seen, number);
    if status == 0 {
        return Ok(());
    }
    let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
    let length =
        if is_head && headers.contains("content-length") { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let body = if is_head { "" } else { body };
    client.write_all(format!("HTTP/1.1 {status} Said\r\n{headers}{length}connection: close\r\n\r\n{body}").as_bytes()).await?;
    client.flush().await
}
