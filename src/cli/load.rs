//! Reads pipeline files and inputs from the disk, and tells what is wrong with them.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Context, Fault};
use crate::catalogue::Catalogue;
use crate::pipeline::{self, Files, Loaded};

/// No pipeline is larger. A device or a pipe without end must not fill the memory.
const MOST: u64 = 64 << 20;

/// The disk of this machine.
#[derive(Debug, Clone, Copy)]
pub struct DiskFiles;

impl Files for DiskFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        // Even to open a pipe waits for somebody at its other end; a folder says by itself what it is.
        let about = std::fs::metadata(path)?;
        if !about.is_file() && !about.is_dir() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        read_bounded(path)
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 64 MiB"));
    }
    Ok(bytes)
}

impl Context {
    /// A pipeline that is fine. Its warnings are told on stderr.
    pub(super) fn load(&self, file: &Path, catalogue: &Catalogue) -> Result<Loaded, Fault> {
        let loaded = pipeline::load(file, &DiskFiles, catalogue).map_err(Fault::problems)?;
        if !loaded.warnings.is_empty() && !self.out.json {
            self.out.note(&loaded.warnings.render(console::colors_enabled_stderr()));
        }
        Ok(loaded)
    }
}

/// The inputs of a run.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Given {
    /// An input; may be given many times. Lists: `-i names=a,b`; maps and lists also as JSON
    #[arg(short, long = "input", value_name = "NAME=VALUE", value_parser = name_and_value)]
    input: Vec<(String, String)>,
    /// A YAML or JSON file with inputs; `-i` wins over it
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    inputs: Option<PathBuf>,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("an input is written `NAME=VALUE`".to_owned()),
    }
}

impl Given {
    /// What was given, unchecked: the pipeline reads each by its type.
    pub(super) fn values(&self) -> Result<Map<String, Value>, Fault> {
        let mut values = match &self.inputs {
            None => Map::new(),
            Some(file) => read_inputs(file)?,
        };
        let mut seen = std::collections::BTreeSet::new();
        for (name, value) in &self.input {
            if !seen.insert(name) {
                return Err(Fault::wrong(format!("the input `{name}` is given twice")).help("give each `-i` once"));
            }
            values.insert(name.clone(), Value::String(value.clone()));
        }
        Ok(values)
    }
}

fn read_inputs(file: &Path) -> Result<Map<String, Value>, Fault> {
    let shown = file.display();
    let bytes = read_bounded(file).map_err(|error| Fault::wrong(format!("cannot read the inputs in `{shown}`")).cause(error))?;
    let wrong = |cause: String| {
        Fault::wrong(format!("the inputs in `{shown}` are not a mapping of names to values"))
            .cause(cause)
            .help("write one `name: value` per line, or a JSON object")
    };
    let value: Value = serde_yaml::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    match value {
        Value::Object(values) => Ok(values),
        Value::Null => Ok(Map::new()),
        _ => Err(wrong("the file holds something else".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_a_name_and_everything_behind_the_first_equals_sign() {
        assert_eq!(name_and_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(name_and_value("a="), Ok(("a".to_owned(), String::new())));
        assert!(name_and_value("a").is_err() && name_and_value("=b").is_err());
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_twice_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "a: 1\nb: [x]\n").expect("it can be written");
        let mut given = Given { input: vec![("a".into(), "2".into())], inputs: Some(file.path().to_owned()) };
        let values = given.values().expect("fine");
        assert_eq!(Value::Object(values), serde_json::json!({ "a": "2", "b": ["x"] }));
        given.input.push(("a".into(), "3".into()));
        assert!(given.values().is_err());
        std::fs::write(file.path(), "- a\n").expect("it can be written");
        assert!(Given { input: Vec::new(), inputs: Some(file.path().to_owned()) }.values().is_err());
    }
}
