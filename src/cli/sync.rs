//! `ferry sync`: one object sync without writing a pipeline, run through the engine, so that it can be resumed.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::drive::Drive;
use super::{Context, Exit, Fault, block_on};
use crate::executor::{self, ExecutorError, NewRun};
use crate::pipeline::{self, Sources};
use crate::steps::Depth;

/// The name of the pipeline that stands in the journal in place of a file. Relative places start where ferry was started.
const NAME: &str = "sync.yaml";

/// Copy what differs from one place to another, as a run of one `object.sync` step
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "A place is a directory or a URL: `./data`, `s3://bucket/prefix/`, `azblob://container/`, `gs://bucket/`,\n\
    `sftp://user@host/path`. Options of a store go behind `?`: `s3://b/?endpoint=http://127.0.0.1:9000&region=eu-west-1`.\n\
    Credentials come from where the provider's own tools look; two sets of keys need a pipeline with two `stores`.\n\n\
    Examples:\n  ferry sync ./uploads s3://acme-uploads/2026/\n  ferry sync s3://old/ gs://new/ --exclude '**/*.tmp'\n  \
    ferry resume last\n\nJSON: as `ferry run`."
)]
pub struct Sync {
    /// Where the objects are
    from: String,
    /// Where they go
    to: String,
    /// Only objects whose names match this glob; may be given many times
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// No objects whose names match this glob; may be given many times
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// What makes two objects the same: auto, size, etag, mtime or checksum
    #[arg(long, value_name = "HOW")]
    compare: Option<String>,
    /// What becomes of objects that are only at one side: `copy` (nothing), `mirror` (deleted at TO) or `move` (deleted at FROM)
    #[arg(long, value_name = "MODE", value_parser = ["copy", "mirror", "move"])]
    mode: Option<String>,
    /// With `--mode mirror`: stop instead of deleting more than this many objects, or than this part of them: `1%`
    #[arg(long, value_name = "COUNT", requires = "mode")]
    max_delete: Option<String>,
    /// Read copied objects again and compare: all, or `--verify='sample 5%'`
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "full", require_equals = true)]
    verify: Option<String>,
    /// How many requests are under way at once; found by trying unless given
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<u32>,
    /// No faster than this: `200MB/s`
    #[arg(long, value_name = "RATE")]
    bandwidth: Option<String>,
}

impl Sync {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        for place in [&self.from, &self.to] {
            refuse_credentials(place)?;
        }
        let (text, inputs) = self.pipeline();
        let mut sources = Sources::default();
        sources.insert(Path::new(NAME), text.as_str().into());
        let registry = crate::steps::builtin();
        let loaded = pipeline::load(Path::new(NAME), &sources, registry.catalogue()).map_err(Fault::problems)?;
        let mut new = NewRun::new(NAME, loaded, inputs);
        let plan = block_on(executor::preflight(&registry, &mut new, Depth::Brief))??;
        if plan.blocking().next().is_some() {
            return Err(ExecutorError::Preflight(Box::new(plan)).into());
        }
        let journal = context.journal_for(Path::new(NAME))?;
        Drive::new(context, journal, registry).start(new)
    }

    /// The step as a pipeline. The places go in as inputs, so that a name with `{{` in it stays a name.
    fn pipeline(self) -> (String, Map<String, Value>) {
        let mut with = json!({ "from": "{{ inputs.from }}", "to": "{{ inputs.to }}" });
        let mut inputs = Map::new();
        inputs.insert("from".to_owned(), self.from.into());
        inputs.insert("to".to_owned(), self.to.into());
        let mut declared = json!({ "from": { "type": "string" }, "to": { "type": "string" } });
        for (name, globs) in [("include", self.include), ("exclude", self.exclude)] {
            if !globs.is_empty() {
                with[name] = format!("{{{{ inputs.{name} }}}}").into();
                declared[name] = json!({ "type": "list" });
                inputs.insert(name.to_owned(), globs.into());
            }
        }
        let texts = [
            ("mode", self.mode),
            ("compare", self.compare),
            ("bandwidth", self.bandwidth),
            ("verify", self.verify),
            ("max_delete", self.max_delete),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                with[name] = value.into();
            }
        }
        if let Some(value) = self.concurrency {
            with["concurrency"] = value.into();
        }
        // JSON is YAML.
        let pipeline = json!({
            "name": "sync",
            "inputs": declared,
            "steps": [{ "id": "sync", "uses": "object.sync", "with": with }],
        });
        (format!("{pipeline:#}\n"), inputs)
    }
}

/// A place given here is kept in the journal: a credential in it would be too.
pub(super) fn refuse_credentials(place: &str) -> Result<(), Fault> {
    let Some((_, rest)) = place.split_once("://") else { return Ok(()) };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let password = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
    let key = url::form_urlencoded::parse(query.as_bytes())
        .map(|(key, _)| key.to_lowercase())
        .find(|key| ["secret", "password", "token", "account_key", "credential"].iter().any(|word| key.contains(word)));
    if !password && key.is_none() {
        return Ok(());
    }
    let what = key.map_or_else(|| "a password".to_owned(), |key| format!("`{key}`"));
    Err(Fault::wrong(format!("a place given on the command line may not hold {what}: it would be kept in the journal"))
        .help("set the provider's environment variables, or write a pipeline with `secrets:` and `stores:`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_in_a_place_is_refused() {
        for place in ["s3://b/?secret_access_key=x", "azblob://c/?account_key=x", "webdavs://me:pw@host/", "gs://b/?Token=1"] {
            assert!(refuse_credentials(place).is_err(), "{place}");
        }
        for place in ["./a:b@c", "s3://b/?endpoint=http://h:1", "sftp://me@host/p", "s3://b/a?region=r"] {
            assert!(refuse_credentials(place).is_ok(), "{place}");
        }
    }
}
