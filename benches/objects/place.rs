//! The two ends of a copy: servers of our own, each a process, and what is in them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use futures::{StreamExt as _, TryStreamExt as _};
use opendal::Operator;

use super::jobs::{Ends, Job};
use super::parts::{self, AZURE_ACCOUNT, AZURE_KEY, GARAGE_NEW, GARAGE_OLD, Keys};
use super::server::Fill;

/// One end of a copy: a server and its place.
pub struct End {
    /// Its bucket.
    pub place: Place,
    process: u32,
    _server: Held,
}

/// Whatever ends when it is dropped.
enum Held {
    Memory { _server: Server },
    Part { _server: parts::Server },
}

impl End {
    /// The source of a job, with all objects in it.
    pub fn source(job: &Job, settings: &Settings) -> Result<Self, String> {
        if job.ends == Ends::Memory {
            return Self::memory(parts::OLD, &Settings { fill: vec![job.fill()], ..settings.clone() });
        }
        let end = Self::part(parts::garage(GARAGE_OLD), "garage", |server| s3(server.port, GARAGE_OLD))?;
        upload(&end.place, &job.fill().parse()?).map_err(|error| error.to_string())?;
        Ok(end)
    }

    /// An empty target.
    pub fn target(job: &Job, settings: &Settings) -> Result<Self, String> {
        match job.ends {
            Ends::Memory => Self::memory(parts::NEW, settings),
            Ends::Garage => Self::part(parts::garage(GARAGE_NEW), "garage", |server| s3(server.port, GARAGE_NEW)),
            Ends::GarageToAzure => {
                let server = parts::azure();
                if let Some(server) = &server {
                    // It makes the container, too.
                    runtime().map_err(|error| error.to_string())?.block_on(parts::scene::azure_store(server));
                }
                Self::part(server, "azurite", |server| Place {
                    is_azure: true,
                    endpoint: format!("http://127.0.0.1:{}/{AZURE_ACCOUNT}", server.port),
                    id: AZURE_ACCOUNT.to_owned(),
                    secret: AZURE_KEY.to_owned(),
                    bucket: "box".to_owned(),
                })
            }
        }
    }

    /// A bucket that lists so many objects, at the source or at the target.
    pub fn numbered(is_source: bool, count: u64, latency: u64) -> Result<Self, String> {
        let settings = Settings { numbered: Some(format!("box:{count}")), latency, ..Settings::default() };
        Self::memory(if is_source { parts::OLD } else { parts::NEW }, &settings)
    }

    fn memory(keys: Keys, settings: &Settings) -> Result<Self, String> {
        let server = Server::start(keys, settings).map_err(|error| format!("cannot start a server: {error}"))?;
        Ok(Self { place: s3(server.port, keys), process: server.child.id(), _server: Held::Memory { _server: server } })
    }

    fn part(server: Option<parts::Server>, name: &str, place: impl Fn(&parts::Server) -> Place) -> Result<Self, String> {
        let server = server.ok_or_else(|| format!("{name} is missing: run `scripts/install-parts.sh {name}`"))?;
        Ok(Self { place: place(&server), process: server.process(), _server: Held::Part { _server: server } })
    }

    /// Seconds of CPU time that its server has used.
    pub fn cpu(&self) -> f64 {
        cpu(self.process)
    }
}

fn s3(port: u16, keys: Keys) -> Place {
    Place {
        is_azure: false,
        endpoint: format!("http://127.0.0.1:{port}"),
        id: keys.id.to_owned(),
        secret: keys.secret.to_owned(),
        bucket: "box".to_owned(),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    opendal::install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// A bucket or container, and the key to it.
#[derive(Debug, Clone)]
pub struct Place {
    /// Azure Blob, or else S3.
    pub is_azure: bool,
    /// `http://127.0.0.1:9000`.
    pub endpoint: String,
    /// The key's name, or the account's.
    pub id: String,
    /// The key.
    pub secret: String,
    /// The bucket or container.
    pub bucket: String,
}

/// A server of our own. It ends when its standard input does: also when this process dies.
struct Server {
    child: Child,
    port: u16,
}

/// What a server is started with.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Milliseconds before each answer.
    pub latency: u64,
    /// MB/s per connection; 0 is no limit.
    pub rate: u64,
    /// ETags are not MD5.
    pub cheap_etags: bool,
    /// Bodies are not kept.
    pub drain: bool,
    /// `BUCKET:COUNT,SIZE[,PREFIX]`.
    pub fill: Vec<String>,
    /// `BUCKET:COUNT`.
    pub numbered: Option<String>,
}

impl Server {
    /// Starts one, with the bucket `box`.
    fn start(keys: Keys, settings: &Settings) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--bucket", "box", "--key", &format!("{}:{}", keys.id, keys.secret)]);
        command.args(["--latency", &settings.latency.to_string(), "--rate", &settings.rate.to_string()]);
        for fill in &settings.fill {
            command.args(["--fill", fill]);
        }
        if let Some(numbered) = &settings.numbered {
            command.args(["--numbered", numbered]);
        }
        for (flag, is_set) in [("--cheap-etags", settings.cheap_etags), ("--drain", settings.drain)] {
            if is_set {
                command.arg(flag);
            }
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let port = line.trim().parse().map_err(|_| std::io::Error::other("the server did not start"))?;
        Ok(Self { child, port })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of CPU time that a process has used.
fn cpu(process: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is a name in brackets, and may hold anything.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    // Linux tells it in hundredths of a second, whatever its own clock does.
    (ticks(11) + ticks(12)) / 100.0
}

/// Sizes and ETags by key.
pub type Listing = BTreeMap<String, (u64, String)>;

/// Lists a place with OpenDAL: none of the tools that are measured, nor ferry's own listing.
pub fn list(place: &Place) -> opendal::Result<Listing> {
    let runtime = runtime().map_err(|error| opendal::Error::new(opendal::ErrorKind::Unexpected, error.to_string()))?;
    runtime.block_on(async {
        let operator = operator(place)?;
        let mut lister = operator.lister_with("").recursive(true).await?;
        let mut found = Listing::new();
        while let Some(entry) = lister.try_next().await? {
            let metadata = entry.metadata();
            if metadata.is_file() {
                let etag = metadata.etag().unwrap_or_default().trim_matches('"').to_owned();
                found.insert(entry.path().to_owned(), (metadata.content_length(), etag));
            }
        }
        Ok(found)
    })
}

fn operator(place: &Place) -> opendal::Result<Operator> {
    if place.is_azure {
        let builder = opendal::services::Azblob::default()
            .endpoint(&place.endpoint)
            .account_name(&place.id)
            .account_key(&place.secret)
            .container(&place.bucket);
        return Operator::new(builder);
    }
    let builder = opendal::services::S3::default()
        .endpoint(&place.endpoint)
        .region(REGION)
        .access_key_id(&place.id)
        .secret_access_key(&place.secret)
        .bucket(&place.bucket);
    Operator::new(builder)
}

/// Puts the objects into a server that cannot be started with them.
fn upload(place: &Place, fill: &Fill) -> opendal::Result<()> {
    let runtime = runtime().map_err(|error| opendal::Error::new(opendal::ErrorKind::Unexpected, error.to_string()))?;
    runtime.block_on(async {
        let operator = operator(place)?;
        let objects = futures::stream::iter(fill.objects()).map(|(key, pieces)| {
            let operator = operator.clone();
            async move { operator.write(&key, pieces).await.map(drop) }
        });
        objects.buffer_unordered(16).try_collect().await
    })
}

/// The region that signatures are made for.
pub const REGION: &str = "us-east-1";

/// What is wrong with a copy; nothing when it is whole. ETags are compared where both are MD5 of as many parts.
pub fn compare(from: &Listing, to: &Listing, with_etags: bool) -> Option<String> {
    if from.len() != to.len() {
        return Some(format!("{} objects instead of {}", to.len(), from.len()));
    }
    from.iter().find_map(|(key, (size, etag))| {
        let Some((its_size, its_etag)) = to.get(key) else { return Some(format!("`{key}` is missing")) };
        let is_comparable = with_etags && form(etag) == form(its_etag) && form(etag).0 == 32;
        if size != its_size {
            Some(format!("`{key}` has {its_size} bytes instead of {size}"))
        } else if is_comparable && etag != its_etag {
            Some(format!("`{key}` has the ETag {its_etag} instead of {etag}"))
        } else {
            None
        }
    })
}

/// How long the hash is, and how many parts it is of.
fn form(etag: &str) -> (usize, &str) {
    etag.split_once('-').map_or((etag.len(), ""), |(hash, parts)| (hash.len(), parts))
}
