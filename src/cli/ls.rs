//! `ferry ls`: one listing, without a pipeline.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::{Context, Exit, Fault, block_on};
use crate::secret::Vault;
use crate::stores::{Listed, Stores};
use crate::units::ByteSize;

/// List the objects of a place
#[derive(Debug, clap::Args)]
#[command(after_long_help = "A place is a directory or a URL, as for `ferry sync`.\n\n\
    Examples:\n  ferry ls s3://acme-uploads/2026/\n  ferry ls ./data -n 20\n  ferry ls gs://b/ --json | jq -s 'map(.size // 0) | add'\n\n\
    JSON lines: {\"key\", \"kind\", \"size\", \"etag\", \"modified\", \"version\"} per object, in byte order of the keys; the last line\n\
    is {\"objects\", \"bytes\", \"complete\"}.")]
pub struct Ls {
    /// The place
    #[arg(value_name = "URL")]
    place: String,
    /// At most this many
    #[arg(short = 'n', long, value_name = "COUNT")]
    limit: Option<u64>,
}

impl Ls {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        block_on(self.list(context))?
    }

    async fn list(self, context: &Context) -> Result<Exit, Fault> {
        let stores = Stores::new(std::collections::BTreeMap::new(), Vault::default());
        let store = stores.open(&self.place, Path::new(""))?;
        store.must_exist().await?;
        let mut listing = store.list(None);
        let (mut objects, mut bytes, mut complete) = (0_u64, 0_u64, true);
        // A bucket may hold millions: not one write to the terminal for each.
        let mut rows = String::new();
        while let Some(listed) = listing.next().await? {
            if self.limit.is_some_and(|limit| objects >= limit) {
                complete = false;
                break;
            }
            objects += 1;
            bytes += listed.facts.size;
            if context.out.json {
                let mut line = json!({ "key": listed.key, "kind": listed.kind });
                let facts = serde_json::to_value(&listed.facts).unwrap_or_default();
                if let (Some(line), Some(facts)) = (line.as_object_mut(), facts.as_object()) {
                    line.extend(facts.clone());
                }
                rows.push_str(&line.to_string());
            } else {
                rows.push_str(&row(&listed));
            }
            rows.push('\n');
            if rows.len() > 32 * 1024 {
                context.out.text(&std::mem::take(&mut rows))?;
            }
        }
        context.out.text(&rows)?;
        if context.out.json {
            context.out.json_line(&json!({ "objects": objects, "bytes": bytes, "complete": complete }))?;
        } else {
            let more = if complete { "" } else { ", and more" };
            context.out.note(&format!("{objects} objects, {}{more}", ByteSize(bytes)));
        }
        Ok(Exit::Succeeded)
    }
}

fn row(listed: &Listed) -> String {
    let time = listed.facts.modified.map(|at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()).unwrap_or_default();
    let mut text = String::new();
    let _ = write!(text, "{:>10}  {time:20}  ", ByteSize(listed.facts.size).to_string());
    // A name is foreign text: what would move the cursor is shown, not done.
    text.extend(listed.key.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }));
    text
}
