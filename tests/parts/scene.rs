//! A stage for one step: a context whose signals are kept, and stores with short patience.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferry::clock::SystemClock;
use ferry::error::StepError;
use ferry::secret::{Text, Vault};
use ferry::steps::{Attempt, Depth, DynStep, LogStream, Preview, Progress, Signals, StepContext, builtin};
use ferry::stores::{Patience, Store, StoreOptions, Stores};
use futures::future::BoxFuture;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{AZURE_ACCOUNT, AZURE_KEY, Keys, Server};

/// What a step has told.
#[derive(Default)]
pub struct Heard {
    pub progress: Mutex<Vec<Progress>>,
    pub checkpoints: Mutex<Vec<Value>>,
    pub warnings: Mutex<Vec<String>>,
    pub lines: Mutex<Vec<String>>,
    pub readies: std::sync::atomic::AtomicU32,
}

impl Signals for Heard {
    fn progress(&self, progress: Progress) {
        self.progress.lock().expect("not poisoned").push(progress);
    }

    fn checkpoint(&self, token: Value) -> BoxFuture<'_, Result<(), StepError>> {
        self.checkpoints.lock().expect("not poisoned").push(token);
        Box::pin(async { Ok(()) })
    }

    fn pass_pivot(&self) -> BoxFuture<'_, Result<(), StepError>> {
        Box::pin(async { Ok(()) })
    }

    fn ready(&self) {
        self.readies.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }

    fn warn(&self, text: &str) {
        self.warnings.lock().expect("not poisoned").push(text.to_owned());
    }

    fn log(&self, _: LogStream, line: &str) {
        self.lines.lock().expect("not poisoned").push(line.to_owned());
    }
}

/// The stage.
pub struct Scene {
    pub stores: Stores,
    pub heard: Arc<Heard>,
    pub cancel: CancellationToken,
    pub folder: tempfile::TempDir,
    definitions: BTreeMap<String, StoreOptions>,
    attempt: Mutex<u32>,
}

impl Scene {
    /// With these stores.
    pub fn new(definitions: impl IntoIterator<Item = (&'static str, StoreOptions)>) -> Self {
        let patience = Patience {
            request: Duration::from_secs(10),
            transfer: Duration::from_secs(10),
            repeats: 2,
            wait: Duration::from_millis(20),
            at_once: 64,
        };
        Self::with_patience(definitions, patience)
    }

    /// With these stores and this patience.
    pub fn with_patience(definitions: impl IntoIterator<Item = (&'static str, StoreOptions)>, patience: Patience) -> Self {
        let definitions: BTreeMap<String, StoreOptions> =
            definitions.into_iter().map(|(name, options)| (name.to_owned(), options)).collect();
        Self {
            stores: Stores::with_patience(definitions.clone(), Vault::default(), patience),
            heard: Arc::default(),
            cancel: CancellationToken::new(),
            folder: tempfile::tempdir().expect("a directory"),
            definitions,
            attempt: Mutex::new(0),
        }
    }

    /// The context of the next attempt, with the last checkpoint.
    pub fn context(&self) -> StepContext {
        let mut number = self.attempt.lock().expect("not poisoned");
        *number += 1;
        StepContext {
            attempt: Attempt {
                run: "run".to_owned(),
                step: "step".to_owned(),
                number: *number,
                interrupted: false,
                past_pivot: false,
                checkpoint: self.heard.checkpoints.lock().expect("not poisoned").last().cloned(),
                host: "local".to_owned(),
            },
            depth: Depth::Brief,
            cancel: self.cancel.clone(),
            over: CancellationToken::new(),
            base: self.folder.path().to_owned(),
            clock: SystemClock::shared(),
            hosts: ferry::hosts::Hosts::default(),
            stores: self.stores.clone(),
            vault: Vault::default(),
            http: reqwest::Client::new(),
            signals: self.heard.clone(),
            scratch: self.scratch(),
        }
    }

    /// The step's own folder.
    pub fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    /// A step whose `with` is this.
    pub fn step(uses: &str, with: &Value) -> Box<dyn DynStep> {
        builtin().make(uses, with).expect("a good configuration")
    }

    /// Inspects and runs a step that has never run.
    pub async fn run(&self, uses: &str, with: Value) -> Result<Value, StepError> {
        self.heard.checkpoints.lock().expect("not poisoned").clear();
        *self.attempt.lock().expect("not poisoned") = 0;
        let _ = std::fs::remove_dir_all(self.scratch());
        self.again(uses, with).await
    }

    /// The next attempt of the step that ran last: it has its checkpoint and its folder.
    pub async fn again(&self, uses: &str, with: Value) -> Result<Value, StepError> {
        let step = Self::step(uses, &with);
        let ctx = self.context();
        let before = step.inspect(&ctx).await?;
        step.run(&ctx, &before).await
    }

    /// What a plan would say.
    pub async fn plan(&self, uses: &str, with: Value) -> Result<Preview, StepError> {
        let step = Self::step(uses, &with);
        let ctx = StepContext { depth: Depth::Thorough, ..self.context() };
        *self.attempt.lock().expect("not poisoned") -= 1;
        step.preview(&step.inspect(&ctx).await?)
    }

    /// Undoes a sync.
    pub async fn undo(&self, with: Value) -> Result<(), StepError> {
        let before = serde_json::json!({
            "objects": 0, "create": 0, "overwrite": 0, "bytes": 0, "same": 0, "read": 0, "extra": 0
        });
        Self::step("object.sync", &with).undo(&self.context(), &before).await
    }

    /// An opened place, for looking with the test's own eyes.
    pub fn place(&self, place: &str) -> Store {
        self.stores.open(place, self.folder.path()).expect("it opens")
    }

    /// Puts an object.
    pub async fn put(&self, place: &str, key: &str, content: impl Into<Vec<u8>>) {
        let store = self.place(place);
        let path = store.path(key).expect("a usable name");
        store.operator().write(&path, content.into()).await.expect("written");
    }

    /// Gets an object.
    pub async fn get(&self, place: &str, key: &str) -> Option<Vec<u8>> {
        let store = self.place(place);
        let path = store.path(key).expect("a usable name");
        match store.operator().read(&path).await {
            Ok(content) => Some(content.to_vec()),
            Err(error) if ferry::stores::is_missing(&error) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The names at a place.
    pub async fn names(&self, place: &str) -> Vec<String> {
        let mut listing = self.place(place).list(None);
        let mut names = Vec::new();
        while let Some(listed) = listing.next().await.expect("it lists") {
            names.push(listed.key);
        }
        names
    }

    /// The warnings so far.
    pub fn warnings(&self) -> Vec<String> {
        self.heard.warnings.lock().expect("not poisoned").clone()
    }

    /// The same stores, as a new process would have them; scratch and checkpoints stay.
    pub fn restarted(mut self) -> Self {
        self.stores = Stores::new(self.definitions.clone(), Vault::default());
        self.cancel = CancellationToken::new();
        self
    }
}

/// Options of a store.
pub fn options(list: &[(&str, &str)]) -> StoreOptions {
    list.iter().map(|(name, value)| ((*name).to_owned(), Text::new(*value))).collect()
}

/// The same store, but another bucket.
pub fn other_bucket(mut store: StoreOptions, name: &str) -> StoreOptions {
    store.insert("bucket".to_owned(), Text::new(name));
    store
}

/// The bucket of an S3 server (or of something in front of it).
pub fn s3_store(port: u16, keys: Keys) -> StoreOptions {
    options(&[
        ("scheme", "s3"),
        ("bucket", "box"),
        ("endpoint", &format!("http://127.0.0.1:{port}")),
        ("access_key_id", keys.id),
        ("secret_access_key", keys.secret),
    ])
}

/// A container of azurite, which is made here.
pub async fn azure_store(server: &Server) -> StoreOptions {
    azure_container(server, "box").await
}

/// A container of azurite by this name, which is made here.
pub async fn azure_container(server: &Server, name: &str) -> StoreOptions {
    let endpoint = format!("http://127.0.0.1:{}/{AZURE_ACCOUNT}", server.port);
    make_container(&endpoint, name).await;
    options(&[
        ("scheme", "azblob"),
        ("container", name),
        ("endpoint", &endpoint),
        ("account_name", AZURE_ACCOUNT),
        ("account_key", AZURE_KEY),
    ])
}

/// Asks for a container, signed with the account's key by hand: OpenDAL makes none.
async fn make_container(endpoint: &str, name: &str) {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let text = format!(
        "PUT{}x-ms-date:{now}\nx-ms-version:2021-12-02\n/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{name}\nrestype:container",
        "\n".repeat(12)
    );
    let signature = engine.encode(hmac_sha256(&engine.decode(AZURE_KEY).expect("a key"), text.as_bytes()));
    let answer = reqwest::Client::new()
        .put(format!("{endpoint}/{name}?restype=container"))
        .header("x-ms-date", now)
        .header("x-ms-version", "2021-12-02")
        .header("content-length", "0")
        .header("authorization", format!("SharedKey {AZURE_ACCOUNT}:{signature}"))
        .send()
        .await
        .expect("azurite answers");
    let status = answer.status();
    assert!(status.is_success(), "{status}: {}", answer.text().await.unwrap_or_default());
}

fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
    let inner = Sha256::digest([pad(0x36), text.to_vec()].concat());
    Sha256::digest([pad(0x5c), inner.to_vec()].concat()).to_vec()
}

/// The files of the SFTP server.
pub fn sftp_store(server: &Server) -> StoreOptions {
    let data = server.data.path().display();
    options(&[
        ("scheme", "sftp"),
        ("endpoint", &format!("ssh://127.0.0.1:{}", server.port)),
        ("user", &std::env::var("USER").unwrap_or_else(|_| "root".to_owned())),
        ("key", &format!("{data}/key")),
        ("root", &format!("{data}/files")),
        ("known_hosts_strategy", "accept"),
    ])
}

/// The files of the WebDAV server.
pub fn webdav_store(server: &Server) -> StoreOptions {
    options(&[
        ("scheme", "webdav"),
        ("endpoint", &format!("http://127.0.0.1:{}", server.port)),
        ("username", "me"),
        ("password", "webdav-secret-canary"),
    ])
}

/// A directory.
pub fn directory(path: &std::path::Path) -> StoreOptions {
    options(&[("scheme", "fs"), ("root", &path.display().to_string())])
}
