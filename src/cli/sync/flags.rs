//! The keys of `object.sync` as flags, read from the step's own schema: a key that is added there has its flag at once.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use crate::cli::Fault;
use crate::steps::ObjectSync;

/// What stands on the command line by its place.
const PLACES: [&str; 2] = ["from", "to"];

/// What a value is called in the help, where `VALUE` says too little.
const NAMES: [(&str, &str); 8] = [
    ("include", "GLOB"),
    ("exclude", "GLOB"),
    ("concurrency", "COUNT"),
    ("max_delete", "COUNT"),
    ("bandwidth", "RATE"),
    ("verify", "HOW"),
    ("follow", "LAG"),
    ("storage_class", "CLASS"),
];

/// The flags that were given, as a configuration has them.
#[derive(Debug, Clone, Default)]
pub struct Flags(pub Map<String, Value>);

/// A key of the step.
#[derive(Debug)]
struct Key {
    name: String,
    /// The name with the signs of a flag.
    flag: String,
    says: String,
    default: Value,
    shape: Shape,
}

/// What a key takes.
#[derive(Debug, Default)]
struct Shape {
    /// JSON's types.
    kinds: BTreeSet<String>,
    /// The words, where there are no others.
    words: Vec<String>,
    is_open: bool,
    /// Of a list's items, or of a mapping's values.
    inner: Option<Box<Shape>>,
}

impl Shape {
    fn of(schema: &Value, root: &Value) -> Self {
        let mut shape = Self::default();
        shape.take(schema, root, 8);
        shape
    }

    fn take(&mut self, schema: &Value, root: &Value, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#')) {
            if let Some(target) = root.pointer(target) {
                self.take(target, root, depth);
            }
            return;
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            for inner in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.take(inner, root, depth);
            }
        }
        let choices = schema.get("enum").and_then(Value::as_array).into_iter().flatten().chain(schema.get("const"));
        let choices: Vec<&Value> = choices.collect();
        for choice in &choices {
            let kind = if choice.is_boolean() { "boolean" } else { "string" };
            self.kinds.insert(kind.to_owned());
        }
        let words: Vec<String> = choices.into_iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let kinds: Vec<&str> = match schema.get("type") {
            Some(Value::String(kind)) => vec![kind],
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        self.is_open |= words.is_empty() && kinds.contains(&"string");
        self.words.extend(words);
        self.kinds.extend(kinds.into_iter().filter(|kind| *kind != "null").map(str::to_owned));
        for key in ["items", "additionalProperties"] {
            if let Some(inner @ Value::Object(_)) = schema.get(key) {
                self.inner = Some(Box::new(Self::of(inner, root)));
            }
        }
    }

    fn has(&self, kind: &str) -> bool {
        self.kinds.contains(kind)
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(String::as_str)
    }

    fn is_only(&self, kind: &str) -> bool {
        self.has(kind) && self.kinds.len() == 1
    }

    /// A word as the value it stands for.
    fn scalar(&self, text: &str) -> Value {
        if self.has("boolean")
            && let Ok(is) = text.parse::<bool>()
        {
            return is.into();
        }
        if (self.has("integer") || self.has("number"))
            && let Ok(number) = serde_json::from_str::<serde_json::Number>(text)
        {
            return Value::Number(number);
        }
        text.into()
    }

    /// What was given as the value of the key.
    fn value(&self, given: &[String]) -> Value {
        let one = |shape: &Self, text: &str| match &shape.inner {
            Some(inner) => inner.scalar(text),
            None => Value::from(text),
        };
        if let [text] = given
            && text.starts_with(['{', '['])
            && (self.has("object") || self.has("array") && !self.inner.as_ref().is_some_and(|inner| inner.is_only("string")))
            && let Ok(value) = serde_yaml::from_str::<Value>(text)
            && (value.is_object() || value.is_array())
        {
            return value;
        }
        if self.has("object") && given.iter().all(|text| text.contains('=')) {
            let pairs = given.iter().filter_map(|text| text.split_once('='));
            return pairs.map(|(name, text)| (name.to_owned(), one(self, text))).collect::<Map<_, _>>().into();
        }
        if self.has("array") {
            return given.iter().map(|text| one(self, text)).collect::<Vec<_>>().into();
        }
        given.last().map_or(Value::Null, |text| self.scalar(text))
    }
}

impl Key {
    /// The step's keys, in its own order.
    fn all() -> &'static [Self] {
        static KEYS: OnceLock<Vec<Key>> = OnceLock::new();
        KEYS.get_or_init(Self::read)
    }

    fn read() -> Vec<Self> {
        let root = schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<ObjectSync>();
        let root = root.to_value();
        let properties = root.get("properties").and_then(Value::as_object).into_iter().flatten();
        properties
            .filter(|(name, _)| !PLACES.contains(&name.as_str()))
            .map(|(name, schema)| Self {
                name: name.clone(),
                flag: name.replace('_', "-"),
                says: schema.get("description").and_then(Value::as_str).unwrap_or_default().to_owned(),
                default: schema.get("default").cloned().unwrap_or_default(),
                shape: Shape::of(schema, &root),
            })
            .collect()
    }

    fn arg(&'static self) -> Arg {
        let says = self.says.replace('\n', " ");
        let arg = Arg::new(self.name.as_str()).long(self.flag.as_str()).help(says.trim_end_matches('.').to_owned());
        let name = NAMES.iter().find(|(key, _)| *key == self.name).map(|(_, name)| *name);
        let shape = &self.shape;
        if shape.is_only("boolean") {
            if self.default == json!(false) {
                return arg.action(ArgAction::SetTrue);
            }
            let choices = PossibleValuesParser::new(["true", "false"]);
            return arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_name("BOOL")
                .value_parser(choices);
        }
        if shape.has("boolean") {
            let arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
            let arg = arg.value_name(name.unwrap_or("HOW"));
            if shape.is_open || shape.words.is_empty() {
                return arg;
            }
            return arg.value_parser(PossibleValuesParser::new(["true", "false"].into_iter().chain(shape.words())));
        }
        if shape.has("object") || shape.has("array") {
            let pair = if shape.has("object") { "NAME=VALUE" } else { "VALUE" };
            let many = if shape.has("object") && shape.kinds.len() > 1 { name.unwrap_or(pair) } else { pair };
            let arg = arg.action(ArgAction::Append).value_name(name.unwrap_or(many));
            let says = says.trim_end_matches('.');
            let how = if shape.has("object") {
                "or part by part: `--FLAG NAME=VALUE`, many times".replace("FLAG", &self.flag)
            } else {
                "may be given many times".to_owned()
            };
            return arg.help(format!("{says}; {how}"));
        }
        if !shape.words.is_empty() && !shape.is_open {
            return arg.value_name(name.unwrap_or("HOW")).value_parser(PossibleValuesParser::new(shape.words()));
        }
        arg.value_name(name.unwrap_or("VALUE"))
    }

    fn given(&self, matches: &ArgMatches) -> Option<Value> {
        if matches.value_source(&self.name) != Some(clap::parser::ValueSource::CommandLine) {
            return None;
        }
        if self.shape.is_only("boolean") && self.default == json!(false) {
            return Some(matches.get_flag(&self.name).into());
        }
        let given: Vec<String> = matches.get_many::<String>(&self.name).into_iter().flatten().cloned().collect();
        Some(self.shape.value(&given))
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(Key::all().iter().map(Key::arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(Key::all().iter().filter_map(|key| Some((key.name.clone(), key.given(matches)?))).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Flags {
    /// Refuses what the step would refuse, flag by flag: there is no file to point into.
    pub(super) fn check(&self) -> Result<(), Fault> {
        for (name, value) in &self.0 {
            let mut with = json!({ "from": "./a", "to": "./b" });
            with[name] = value.clone();
            if let Err(error) = ObjectSync::deserialize(&with) {
                let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let fault = Fault::wrong(format!("`--{}` cannot be `{shown}`", name.replace('_', "-")));
                return Err(fault.cause(error).help("`ferry sync --help` says what it takes"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn parse(args: &[&str]) -> Value {
        let command = Flags::augment_args(Command::new("sync").no_binary_name(true));
        let matches = command.try_get_matches_from(args).expect("a command line");
        Flags::from_arg_matches(&matches).expect("flags").0.into()
    }

    #[test]
    fn every_key_of_the_step_has_a_flag_that_says_what_it_does() {
        let keys = Key::all();
        assert!(keys.len() >= 9, "{keys:?}");
        let command = Flags::augment_args(Command::new("sync"));
        for key in keys {
            let arg = command.get_arguments().find(|arg| arg.get_long() == Some(key.flag.as_str()));
            let says = arg.and_then(Arg::get_help).map(ToString::to_string).unwrap_or_default();
            assert!(says.len() > 20, "`{}` has no flag that says what it does", key.name);
            let is_known = ["boolean", "integer", "number", "string", "array", "object"].iter().any(|kind| key.shape.has(kind));
            assert!(is_known, "what the flag of `{}` takes is not known: {:?}", key.name, key.shape);
        }
    }

    #[test]
    fn flags_become_what_the_step_takes() {
        let args = "--include *.jpg --include b --compare size --mode mirror --max-delete 1% --verify --concurrency 8 \
                    --bandwidth 08:00-18:00=50MB/s --bandwidth otherwise=1GB/s --allow-empty";
        let found = parse(&args.split_whitespace().collect::<Vec<_>>());
        assert_eq!(
            found,
            json!({
                "include": ["*.jpg", "b"], "compare": "size", "mode": "mirror", "max_delete": "1%", "verify": true,
                "concurrency": 8, "bandwidth": { "08:00-18:00": "50MB/s", "otherwise": "1GB/s" }, "allow_empty": true,
            })
        );
        assert!(Flags(found.as_object().cloned().unwrap_or_default()).check().is_ok());
        let found = parse(&["--max-delete", "5", "--bandwidth", "1MB/s", "--verify=sample 5%", "--exclude", "[a]*"]);
        let wanted = json!({ "exclude": ["[a]*"], "max_delete": 5, "verify": "sample 5%", "bandwidth": "1MB/s" });
        assert_eq!(found, wanted);
        let found =
            parse(&["--tags", "--storage-class", "STANDARD_IA=Cool", "--storage-class", "otherwise=keep", "--allow-empty"]);
        let wanted =
            json!({ "tags": true, "storage_class": { "STANDARD_IA": "Cool", "otherwise": "keep" }, "allow_empty": true });
        assert_eq!(found, wanted);
        assert_eq!(parse(&["--tags=auto", "--storage-class", "default"]), json!({ "tags": "auto", "storage_class": "default" }));
        assert_eq!(parse(&[]), json!({}));
    }

    #[test]
    fn a_value_that_the_step_refuses_is_told_by_its_flag() {
        let flags = Flags(Map::from_iter([("max_delete".to_owned(), json!("many"))]));
        let fault = flags.check().expect_err("no number");
        assert!(fault.message.contains("--max-delete") && fault.message.contains("many"), "{fault:?}");
        assert!(fault.causes[0].contains("a number of objects"), "{fault:?}");
    }
}
