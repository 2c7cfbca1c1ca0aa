//! `ferry ls`: one listing, without a pipeline.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::places::{Known, PLACES};
use super::{Context, Exit, Fault, block_on};
use crate::report::telling::{counted_u64, grouped};
use crate::stores::{Bucket, Kind, Seen, Store};
use crate::units::ByteSize;

/// How much text is gathered before it is written: a bucket may hold millions, and not each is worth a write.
const GATHER: usize = 32 * 1024;

/// List the buckets, folders and objects of a place
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!(
    "{PLACES}\nA service without a bucket lists its buckets: `s3://`, `azblob://`, `old:` of a store without one.\n\n\
    Examples:\n  ferry ls s3://\n  ferry ls -l s3://acme-uploads/2026/\n  ferry ls --rclone old:\n  ferry ls -r gs://b/ --json | jq -s 'map(.size // 0) | add'\n\n\
    JSON lines: {{\"key\", \"kind\": \"object|marker|folder|link|other|bad_name\", \"size\", \"etag\", \"modified\", \"version\", \"md5\",\n\
    \"storage_class\"}} per entry, in byte order of the keys; of a service {{\"bucket\", \"created\"}}. The last line is {{\"objects\",\n\
    \"folders\", \"bytes\", \"complete\"}}, or {{\"buckets\", \"complete\"}}."
))]
pub struct Ls {
    /// The place
    #[arg(value_name = "PLACE")]
    place: String,
    /// Sizes, times and storage classes too
    #[arg(short, long)]
    long: bool,
    /// All objects below, not the folders
    #[arg(short, long)]
    recursive: bool,
    /// At most this many
    #[arg(short = 'n', long, value_name = "COUNT")]
    limit: Option<u64>,
    #[command(flatten)]
    known: Known,
}

#[derive(Default)]
struct Sums {
    objects: u64,
    folders: u64,
    bytes: u64,
    is_cut: bool,
}

impl Ls {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        block_on(self.list(context))?
    }

    async fn list(self, context: &Context) -> Result<Exit, Fault> {
        let registry = crate::steps::builtin();
        let places = [("from", self.place.as_str())];
        let made = self.known.clone().pipeline(context, registry.catalogue(), "object.list", &places, Map::new())?;
        let (stores, base) = made.stores(&registry).await?;
        let place = &made.places[0];
        if let Some(buckets) = stores.buckets(place, &base).await? {
            return self.buckets(context, &buckets);
        }
        let store = stores.open(place, &base)?;
        store.must_exist().await?;
        let sums = self.objects(context, &store).await?;
        if context.out.json {
            let Sums { objects, folders, bytes, is_cut } = sums;
            context.out.json_line(&json!({ "objects": objects, "folders": folders, "bytes": bytes, "complete": !is_cut }))?;
        } else {
            context.out.note(&sums.text());
        }
        Ok(Exit::Succeeded)
    }

    async fn objects(&self, context: &Context, store: &Store) -> Result<Sums, Fault> {
        let mut look = store.look(self.recursive);
        let mut sums = Sums::default();
        // What S3 says nothing about lies there.
        let usual = if store.scheme() == "s3" { "STANDARD" } else { "-" };
        let class = store.bucket().map(|_| usual);
        let mut rows = String::new();
        while let Some(seen) = look.next().await? {
            if self.limit.is_some_and(|limit| sums.objects + sums.folders >= limit) {
                sums.is_cut = true;
                break;
            }
            sums.add(&seen);
            if context.out.json {
                rows.push_str(&data(&seen).to_string());
            } else {
                if self.long {
                    about(&seen, class, &mut rows);
                }
                rows.extend(shown(&seen.name));
            }
            rows.push('\n');
            if rows.len() > GATHER {
                context.out.text(&std::mem::take(&mut rows))?;
            }
        }
        context.out.text(&rows)?;
        Ok(sums)
    }

    fn buckets(&self, context: &Context, buckets: &[Bucket]) -> Result<Exit, Fault> {
        let most = self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let mut rows = String::new();
        for bucket in buckets.iter().take(most) {
            if context.out.json {
                let _ = writeln!(rows, "{}", json!({ "bucket": bucket.name, "created": bucket.created }));
                continue;
            }
            if self.long {
                let _ = write!(rows, "{:20}  ", bucket.created.map(time).unwrap_or_default());
            }
            rows.extend(shown(&bucket.name));
            rows.push_str("/\n");
        }
        context.out.text(&rows)?;
        let is_whole = buckets.len() <= most;
        if context.out.json {
            context.out.json_line(&json!({ "buckets": buckets.len().min(most), "complete": is_whole }))?;
        } else {
            let more = if is_whole { "" } else { ", and more" };
            context.out.note(&format!("{}{more}", counted_u64(buckets.len().min(most) as u64, "bucket", "buckets")));
        }
        Ok(Exit::Succeeded)
    }
}

impl Sums {
    fn add(&mut self, seen: &Seen) {
        if seen.kind.is_none() {
            self.folders += 1;
        } else {
            self.objects += 1;
            self.bytes += seen.facts.size;
        }
    }

    fn text(&self) -> String {
        let mut parts = Vec::new();
        if self.folders > 0 {
            parts.push(format!("{} {}", grouped(self.folders), if self.folders == 1 { "folder" } else { "folders" }));
        }
        parts.push(format!("{} {}", grouped(self.objects), if self.objects == 1 { "object" } else { "objects" }));
        parts.push(ByteSize(self.bytes).to_string());
        if self.is_cut {
            parts.push("and more".to_owned());
        }
        parts.join(", ")
    }
}

fn data(seen: &Seen) -> Value {
    let mut line = json!({ "key": seen.name, "kind": seen.kind.map_or_else(|| json!("folder"), |kind| json!(kind)) });
    if seen.kind.is_none() {
        return line;
    }
    let facts = serde_json::to_value(&seen.facts).unwrap_or_default();
    if let (Some(line), Some(facts)) = (line.as_object_mut(), facts.as_object()) {
        line.extend(facts.clone());
    }
    for (name, value) in [("md5", &seen.md5), ("storage_class", &seen.storage_class)] {
        if let Some(value) = value {
            line[name] = value.as_str().into();
        }
    }
    line
}

fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// What stands in front of a name.
fn about(seen: &Seen, class: Option<&str>, to: &mut String) {
    let size = seen.kind.map(|_| ByteSize(seen.facts.size).to_string()).unwrap_or_default();
    let at = seen.facts.modified.map(time).unwrap_or_default();
    let _ = write!(to, "{size:>10}  {at:20}  ");
    if let Some(usual) = class {
        let class = seen.kind.map(|_| seen.storage_class.as_deref().unwrap_or(usual)).unwrap_or_default();
        let _ = write!(to, "{class:8}  ");
    }
    match seen.kind {
        Some(Kind::Link) => to.push_str("(link) "),
        Some(Kind::Other) => to.push_str("(neither file nor folder) "),
        Some(Kind::BadName) => to.push_str("(not UTF-8) "),
        Some(Kind::Object | Kind::Marker) | None => {}
    }
}

/// A name is foreign text: what would move the cursor is shown, not done.
fn shown(name: &str) -> impl Iterator<Item = char> {
    name.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c })
}
