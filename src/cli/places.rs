//! Places on the command line: what a name in front of `:` may stand for besides the URLs, and the pipeline that is
//! made of them, so that one sync or one listing takes the same way as a pipeline's.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::load::{DiskFiles, Given};
use super::{Context, Fault};
use crate::catalogue::Catalogue;
use crate::error::StepError;
use crate::executor;
use crate::pipeline::{self, Files as _, Loaded, Sources};
use crate::steps::Registry;
use crate::stores::{Remotes, Stores};

/// Said wherever a place is taken.
pub(super) const PLACES: &str = "A place is a directory, a URL, or `name:path` of a known store.\n\
    URLs: `s3://bucket/prefix/`, `azblob://container/`, `gs://bucket/`, `file:///path/`, `sftp://user@host:port/path`,\n\
    `webdavs://host/path`. Options of a store go behind `?`: `s3://b/?endpoint=http://127.0.0.1:9000&region=eu-west-1`.\n\
    Keys come from where the provider's own tools look: AWS_* and AWS_PROFILE with ~/.aws, AZURE_STORAGE_*,\n\
    GOOGLE_APPLICATION_CREDENTIALS, ssh. Two sets of keys: stores of a pipeline (--file), or remotes of rclone.";

/// What names of stores are known.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Known {
    /// A pipeline whose stores are places too: `name:prefix/`
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
    /// A remote of `rclone.conf` that is a place too: `old:` makes `old:bucket/prefix` one; may be given many times
    #[arg(long, value_name = "NAME:")]
    rclone_remote: Vec<String>,
    /// All remotes of `rclone.conf` are places too
    #[arg(long)]
    rclone: bool,
    /// Where `rclone.conf` is, unless it is where rclone looks; all its remotes are places then
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    rclone_config: Option<PathBuf>,
}

/// A pipeline of one step, made of a command line.
pub(super) struct Made {
    pub path: PathBuf,
    pub loaded: Loaded,
    pub inputs: Map<String, Value>,
    /// The places as the step has them.
    pub places: Vec<String>,
}

impl Made {
    /// The stores that the step would be given, and where relative places start.
    pub(super) async fn stores(&self, registry: &Registry) -> Result<(Stores, PathBuf), Fault> {
        Ok(executor::stores(registry, &self.path, &self.loaded, &self.inputs).await?)
    }
}

impl Known {
    /// The pipeline of one step whose keys of these names are places; `with` is all else. What a person wrote goes in as
    /// inputs, so that a name with `{{` in it stays a name.
    pub(super) fn pipeline(
        self,
        context: &Context,
        catalogue: &Catalogue,
        uses: &str,
        places: &[(&str, &str)],
        with: Map<String, Value>,
    ) -> Result<Made, Fault> {
        let id = uses.rsplit('.').next().unwrap_or(uses);
        let path = match &self.file {
            Some(file) => file.with_file_name(format!("{id}.yaml")),
            None => PathBuf::from(format!("{id}.yaml")),
        };
        let mut pipeline = self.sections(context, catalogue)?;
        let mut inputs = self.given.values()?;
        let mut written = Map::new();
        let mut put = |key: &str, kind: &str, value: Value, pipeline: &mut Value| {
            let mut name = key.to_owned();
            while pipeline["inputs"].get(&name).is_some() {
                name.insert_str(0, "the_");
            }
            pipeline["inputs"][&name] = json!({ "type": kind });
            inputs.insert(name.clone(), value);
            Value::from(format!("{{{{ inputs.{name} }}}}"))
        };
        let mut meant = Vec::new();
        for (key, place) in places {
            let place = self.place(place)?;
            self.name_store(&place, &mut pipeline)?;
            written.insert((*key).to_owned(), put(key, "string", place.clone().into(), &mut pipeline));
            meant.push(place);
        }
        for (key, value) in with {
            let kind = match &value {
                Value::Array(_) => "list",
                Value::Object(_) => "map",
                _ => "string",
            };
            let value = if value.to_string().contains("{{") { put(&key, kind, value, &mut pipeline) } else { value };
            written.insert(key, value);
        }
        pipeline["name"] = id.into();
        pipeline["steps"] = json!([{ "id": id, "uses": uses, "with": written }]);
        let mut sources = Sources::default();
        // JSON is YAML.
        sources.insert(&path, format!("{pipeline:#}\n").into());
        let loaded = pipeline::load(&path, &sources, catalogue).map_err(Fault::problems)?;
        Ok(Made { path, loaded, inputs, places: meant })
    }

    /// What of the pipeline's file its stores need.
    fn sections(&self, context: &Context, catalogue: &Catalogue) -> Result<Value, Fault> {
        let mut taken = json!({ "name": "", "inputs": {}, "stores": {} });
        let Some(file) = &self.file else { return Ok(taken) };
        // What is wrong with the file is told in the file.
        context.load(file, catalogue)?;
        let unreadable = |cause: String| Fault::wrong(format!("cannot read `{}`", file.display())).cause(cause);
        let bytes = DiskFiles.read(file).map_err(|error| unreadable(error.to_string()))?;
        let whole: Value = serde_yaml::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        for section in ["inputs", "secrets", "env", "stores"] {
            if let Some(value) = whole.get(section).filter(|value| !value.is_null()) {
                taken[section] = value.clone();
            }
        }
        Ok(taken)
    }

    /// A place as a pipeline takes it: here a directory needs no `./` in front.
    fn place(&self, text: &str) -> Result<String, Fault> {
        refuse_credentials(text)?;
        let is_url = text.contains("://");
        if !is_url && !text.contains(':') && !text.starts_with(['/', '.', '~']) && !text.is_empty() {
            let first = text.split('/').next().unwrap_or_default();
            if crate::stores::schemes().contains(&first) && text[first.len()..].starts_with("//") {
                let help = format!("did you mean `{first}://{}`?", text[first.len()..].trim_start_matches('/'));
                return Err(Fault::wrong(format!("`{text}` is not a place")).help(help));
            }
            return self.place(&format!("./{text}"));
        }
        // The pipeline's file may lie elsewhere, and relative places start where a person stands.
        if self.file.is_some() && !is_url && text.starts_with('.') {
            let path = std::path::absolute(text).unwrap_or_else(|_| text.into());
            return Ok(path.to_string_lossy().into_owned());
        }
        Ok(match text.strip_prefix("file:").filter(|_| !is_url) {
            Some(path) if path.starts_with('/') => path.to_owned(),
            Some(path) => self.place(path)?,
            None => text.to_owned(),
        })
    }

    /// Lists the remote that a place names among the pipeline's stores.
    fn name_store(&self, place: &str, pipeline: &mut Value) -> Result<(), Fault> {
        let Some((name, _)) = place.split_once(':').filter(|_| !place.contains("://")) else { return Ok(()) };
        let is_path = place.starts_with(['/', '.', '~']);
        if is_path || pipeline["stores"].get(name).is_some() {
            return Ok(());
        }
        let named: Vec<&str> = self.rclone_remote.iter().map(|remote| remote.trim_end_matches(':')).collect();
        let is_asked = self.rclone || self.rclone_config.is_some() && named.is_empty();
        let wrong = |error: StepError| {
            let failure = error.to_failure();
            let fault = failure.causes.iter().fold(Fault::wrong(failure.message), Fault::cause);
            match failure.help {
                Some(help) => fault.help(help),
                None => fault,
            }
        };
        let remotes = Remotes::read(self.rclone_config.as_deref());
        if !is_asked && !named.contains(&name) {
            // A remote that is there and was not asked for is the likeliest thing to be meant.
            return match remotes {
                Ok(remotes) if remotes.names().any(|known| known == name) => {
                    Err(Fault::wrong(format!("there is no store `{name}`")).help(format!(
                        "`{name}:` is a remote in `{}`: say `--rclone-remote {name}:`, or `--rclone` for all of them",
                        remotes.path().display()
                    )))
                }
                _ => Ok(()),
            };
        }
        let remotes = remotes.map_err(wrong)?;
        remotes.must_have(name).map_err(wrong)?;
        let config = std::path::absolute(remotes.path()).unwrap_or_else(|_| remotes.path().to_owned());
        pipeline["stores"][name] = json!({ "scheme": "rclone", "remote": name, "config": config });
        Ok(())
    }
}

/// A place given here is kept in the journal: a credential in it would be too.
fn refuse_credentials(place: &str) -> Result<(), Fault> {
    let Some((_, rest)) = place.split_once("://") else { return Ok(()) };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let password = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
    let is_secret = |key: &String| {
        ["secret", "password", "token", "account_key", "credential", "connection_string"].iter().any(|word| key.contains(word))
    };
    let key = url::form_urlencoded::parse(query.as_bytes()).map(|(key, _)| key.to_lowercase()).find(is_secret);
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

    #[test]
    fn a_directory_needs_no_sign_in_front_and_a_slip_is_no_directory() {
        let known = Known::default();
        for (text, meant) in
            [("data/x", "./data/x"), ("file:data", "./data"), ("file:/a", "/a"), ("old:x", "old:x"), ("s3://b", "s3://b")]
        {
            assert_eq!(known.place(text).expect(text), meant);
        }
        let fault = known.place("s3//bucket").expect_err("a slip");
        assert_eq!(fault.help.as_deref(), Some("did you mean `s3://bucket`?"));
    }
}
