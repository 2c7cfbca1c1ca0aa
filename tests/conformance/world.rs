//! A small world for steps to act on: a folder, a directory store in it, and an HTTP server. Every call that leaves a
//! step is counted, and a step can be stopped at any of them, before or after it has had its effect.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::parts::cluster::Cluster;
use ferry::clock::SystemClock;
use ferry::error::StepError;
use ferry::hosts::{self, Endpoint, FileState, Finished, Forward, Host, Hosts, Invocation, OnLine, Owned, Streams};
use ferry::secret::{Text, Vault};
use ferry::steps::{Attempt, Depth, LogStream, Progress, Signals, StepContext};
use ferry::stores::Stores;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What every artefact is searched for.
pub const CANARY: &str = "c4nary/\"with+bird&seed";

/// When a step is stopped: before its n-th outside call has had its effect, or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Before,
    After,
}

/// Counts the calls that leave a step, and stops it at one of them.
#[derive(Debug, Default)]
pub struct Border {
    calls: AtomicUsize,
    stop: Mutex<Option<(usize, Moment)>>,
    pub reached: Notify,
}

impl Border {
    pub fn stop_at(&self, call: usize, moment: Moment) {
        self.calls.store(0, Ordering::SeqCst);
        *self.stop.lock().expect("not poisoned") = Some((call, moment));
    }

    pub fn open(&self) {
        *self.stop.lock().expect("not poisoned") = None;
    }

    fn is_stop(&self, call: usize, moment: Moment) -> bool {
        *self.stop.lock().expect("not poisoned") == Some((call, moment))
    }

    /// A call that nobody waits for: the step is stopped when it next waits for anything.
    fn tick(&self) {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if self.is_stop(call, Moment::Before) || self.is_stop(call, Moment::After) {
            self.reached.notify_one();
        }
    }

    pub async fn pass<T>(&self, call: impl Future<Output = T>) -> T {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if self.is_stop(number, Moment::Before) {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
        let answer = call.await;
        if self.is_stop(number, Moment::After) {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
        answer
    }
}

/// This machine, behind the border; over SSH too it is this one, so that paths of the test mean the same.
#[derive(Debug)]
struct WatchedHost {
    host: Arc<dyn Host>,
    border: Arc<Border>,
}

impl Host for WatchedHost {
    fn name(&self) -> &str {
        self.host.name()
    }

    fn is_local(&self) -> bool {
        true
    }

    fn stream<'a>(
        &'a self,
        invocation: &'a Invocation,
        vault: &'a Vault,
        cancel: &'a CancellationToken,
        streams: Streams<'a>,
        on_line: OnLine<'a>,
    ) -> BoxFuture<'a, Result<Finished, StepError>> {
        self.border.pass(self.host.stream(invocation, vault, cancel, streams, on_line)).boxed()
    }

    fn read_file<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Option<FileState>, StepError>> {
        self.border.pass(self.host.read_file(path)).boxed()
    }

    fn write_file<'a>(
        &'a self,
        path: &'a Path,
        content: &'a [u8],
        mode: Option<u32>,
        owner: Option<(u32, u32)>,
    ) -> BoxFuture<'a, Result<(), StepError>> {
        self.border.pass(self.host.write_file(path, content, mode, owner)).boxed()
    }

    fn get_file<'a>(
        &'a self,
        path: &'a Path,
        to: &'a mut (dyn AsyncWrite + Send + Unpin),
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<u64>, StepError>> {
        self.border.pass(self.host.get_file(path, to, cancel)).boxed()
    }

    fn put_file<'a>(
        &'a self,
        path: &'a Path,
        from: &'a mut (dyn AsyncRead + Send + Unpin),
        length: u64,
        owned: Owned,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<(), StepError>> {
        self.border.pass(self.host.put_file(path, from, length, owned, cancel)).boxed()
    }

    fn clear_unfinished<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), StepError>> {
        self.border.pass(self.host.clear_unfinished(path)).boxed()
    }

    fn remove_file<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), StepError>> {
        self.border.pass(self.host.remove_file(path)).boxed()
    }

    fn forward<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Forward, StepError>> {
        self.border.pass(self.host.forward(to)).boxed()
    }
}

/// What a step says while it works.
pub struct Notes {
    border: Arc<Border>,
    pub checkpoint: Mutex<Option<Value>>,
    pub said: Mutex<Vec<String>>,
}

impl Signals for Notes {
    fn progress(&self, progress: Progress) {
        self.said.lock().expect("not poisoned").extend(progress.message);
        self.border.tick();
    }

    fn checkpoint(&self, token: Value) -> BoxFuture<'_, Result<(), StepError>> {
        self.border
            .pass(async move {
                *self.checkpoint.lock().expect("not poisoned") = Some(token);
                Ok(())
            })
            .boxed()
    }

    fn pass_pivot(&self) -> BoxFuture<'_, Result<(), StepError>> {
        self.border.pass(async { Ok(()) }).boxed()
    }

    fn ready(&self) {}

    fn warn(&self, text: &str) {
        self.said.lock().expect("not poisoned").push(text.to_owned());
    }

    fn log(&self, _: LogStream, line: &str) {
        self.said.lock().expect("not poisoned").push(line.to_owned());
    }
}

/// What the HTTP server holds and was asked.
#[derive(Debug, Default)]
struct Site {
    things: BTreeMap<String, String>,
    changes: usize,
    requests: Vec<String>,
}

/// The world of one test.
pub struct World {
    folder: tempfile::TempDir,
    site: Arc<Mutex<Site>>,
    pub url: String,
    pub border: Arc<Border>,
    pub vault: Vault,
    pub notes: Arc<Notes>,
    cluster: OnceLock<Cluster>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// All that a step could have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    files: BTreeMap<String, (u32, String)>,
    things: BTreeMap<String, String>,
    tables: String,
}

/// Every table that is not PostgreSQL's own, with its rows, and every schema.
const TABLES: &str = "select nspname from pg_namespace where nspname !~ '^pg_' order by 1; select table_schema, table_name, \
    query_to_xml(format('select * from %I.%I', table_schema, table_name), true, true, '') from information_schema.tables \
    where table_schema !~ '^(pg_|information_schema)' order by 1, 2";

impl World {
    pub async fn new() -> Self {
        let border = Arc::new(Border::default());
        let site = Arc::new(Mutex::new(Site::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let server = tokio::spawn(serve(listener, site.clone(), border.clone()));
        let vault = Vault::default();
        vault.insert("canary", SecretString::from(CANARY));
        let notes = Arc::new(Notes { border: border.clone(), checkpoint: Mutex::default(), said: Mutex::default() });
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("world")).expect("created");
        Self { folder, site, url, border, vault, notes, cluster: OnceLock::new(), server }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("world").join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("created");
        std::fs::write(path, content).expect("written");
    }

    pub fn put(&self, name: &str, thing: &str) {
        self.site.lock().expect("not poisoned").things.insert(name.to_owned(), thing.to_owned());
    }

    pub fn requests(&self) -> Vec<String> {
        self.site.lock().expect("not poisoned").requests.clone()
    }

    /// How often the server changed anything.
    pub fn changes(&self) -> usize {
        self.site.lock().expect("not poisoned").changes
    }

    /// A PostgreSQL server, started when it is first asked for. The password of `postgres` is the secret.
    pub fn cluster(&self) -> &Cluster {
        self.cluster.get_or_init(|| {
            let cluster = Cluster::new("");
            cluster.sql(&format!("alter role postgres password '{CANARY}'"));
            cluster
        })
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut files = BTreeMap::new();
        collect(&self.path(""), &self.path(""), &mut files);
        let tables = self.cluster.get().map(|cluster| cluster.sql(TABLES)).unwrap_or_default();
        Snapshot { files, things: self.site.lock().expect("not poisoned").things.clone(), tables }
    }

    pub fn context(&self, number: u32, interrupted: bool) -> StepContext {
        let store = |root: &str| {
            let root = self.path(root).to_string_lossy().into_owned();
            BTreeMap::from([("scheme".to_owned(), Text::new("fs")), ("root".to_owned(), Text::new(root))])
        };
        let stores = BTreeMap::from([("old".to_owned(), store("old")), ("new".to_owned(), store("new"))]);
        StepContext {
            attempt: Attempt {
                run: "0199aaaa-run".to_owned(),
                step: "it".to_owned(),
                number,
                interrupted,
                past_pivot: false,
                checkpoint: self.notes.checkpoint.lock().expect("not poisoned").clone(),
                host: "local".to_owned(),
            },
            depth: if number == 0 { Depth::Thorough } else { Depth::Brief },
            cancel: CancellationToken::new(),
            over: CancellationToken::new(),
            base: self.path(""),
            clock: SystemClock::shared(),
            hosts: Hosts::new([Arc::new(WatchedHost {
                host: crate::over_ssh::host().unwrap_or_else(|| hosts::local("local")),
                border: self.border.clone(),
            }) as Arc<dyn Host>]),
            stores: Stores::new(stores, self.vault.clone()),
            vault: self.vault.clone(),
            http: reqwest::Client::new(),
            signals: self.notes.clone(),
            scratch: self.folder.path().join("scratch"),
        }
    }
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, (u32, String)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            let mode = path.metadata().expect("there").permissions().mode() & 0o7777;
            let digest = format!("{:x}", Sha256::digest(std::fs::read(&path).expect("readable")));
            files.insert(name, (mode, digest));
        }
    }
}

async fn serve(listener: tokio::net::TcpListener, site: Arc<Mutex<Site>>, border: Arc<Border>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (site, border) = (site.clone(), border.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let (site, border) = (site.clone(), border.clone());
                async move { Ok::<_, Infallible>(border.pass(answer(request, &site)).await) }
            });
            let stream = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, site: &Mutex<Site>) -> Response<Full<Bytes>> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (key, authorization) = (header("idempotency-key"), header("authorization"));
    site.lock().expect("not poisoned").requests.push(format!("{method} {}", request.uri()));
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body = String::from_utf8_lossy(&body).into_owned();
    let say = |status: u16, body: Value| {
        Response::builder().status(status).body(Full::from(body.to_string())).expect("a status and a text")
    };
    let mut site = site.lock().expect("not poisoned");
    match (&method, path.as_str()) {
        (_, "/hang") => {
            drop(site);
            std::future::pending().await
        }
        (_, "/busy") => Response::builder().status(503).header("retry-after", "7").body(Full::default()).expect("an answer"),
        (_, "/refuse") => say(418, json!({ "you said": authorization.unwrap_or_default(), "body": body })),
        (_, "/echo") => say(200, json!({ "authorization": authorization, "body": body, "list": [1, 2], "state": "open" })),
        (&Method::POST, "/things") => {
            let id = key.unwrap_or_else(|| format!("thing-{}", site.changes));
            let path = format!("/things/{id}");
            if site.things.insert(path, body).is_none() {
                site.changes += 1;
            }
            say(201, json!({ "id": id }))
        }
        (&Method::PUT, path) => {
            if site.things.insert(path.to_owned(), body.clone()) != Some(body) {
                site.changes += 1;
            }
            say(200, json!({}))
        }
        (&Method::DELETE, path) => match site.things.remove(path) {
            Some(_) => {
                site.changes += 1;
                say(200, json!({}))
            }
            None => say(404, json!({})),
        },
        (_, path) => match site.things.get(path) {
            Some(thing) => say(200, json!({ "thing": thing })),
            None => say(404, json!({})),
        },
    }
}
