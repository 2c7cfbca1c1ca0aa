//! The keys of the language, level by level. The reader, the JSON Schema and `docs/language.md` are made of this.

/// One mapping of the language.
pub(crate) struct Level {
    /// Its name in the JSON Schema, and in messages.
    pub name: &'static str,
    /// Its heading in the reference.
    pub title: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Its keys.
    pub keys: &'static [KeyDoc],
}

/// One key.
pub(crate) struct KeyDoc {
    /// The key.
    pub name: &'static str,
    /// What may stand there, in words.
    pub value: &'static str,
    /// What may stand there, JSON Schema.
    pub schema: &'static str,
    /// Whether it has to be there.
    pub required: bool,
    /// What it means.
    pub doc: &'static str,
}

const fn key(name: &'static str, value: &'static str, schema: &'static str, doc: &'static str) -> KeyDoc {
    KeyDoc { name, value, schema, required: false, doc }
}

const fn required(name: &'static str, value: &'static str, schema: &'static str, doc: &'static str) -> KeyDoc {
    KeyDoc { name, value, schema, required: true, doc }
}

const TEXT: &str = r#"{"type":"string"}"#;
const ANY: &str = "true";
const BOOL: &str = r#"{"type":"boolean"}"#;
const PORT: &str = r#"{"type":["integer","string"],"minimum":1,"maximum":65535}"#;
const COUNT: &str = r#"{"type":"integer","minimum":1}"#;
const DURATION: &str = r#"{"type":"string","pattern":"^([0-9.]+ *(us|ms|s|min|m|h|d) *)+$","examples":["90s","2h30m"]}"#;

/// The file.
pub(crate) const PIPELINE: Level = Level {
    name: "pipeline",
    title: "A pipeline",
    doc: "A file is one pipeline: what a run is given, the machines and stores it works with, and the steps.",
    keys: &[
        key("name", "text", TEXT, "What people call it. The file's name unless given."),
        key("description", "text", TEXT, "What it is for."),
        key(
            "env",
            "list of names",
            r#"{"type":"array","items":{"type":"string"}}"#,
            "The environment variables that templates may read as `env.NAME`. No other variable is visible to them.",
        ),
        key(
            "inputs",
            "mapping of inputs",
            r##"{"type":"object","additionalProperties":{"$ref":"#/$defs/input"}}"##,
            "What a run is given, by `-i NAME=VALUE` or a file. Templates read it as `inputs.NAME`.",
        ),
        key(
            "secrets",
            "mapping of secrets",
            r##"{"type":"object","additionalProperties":{"$ref":"#/$defs/secret"}}"##,
            "Where secrets come from. Templates read one as `secrets.NAME`; the value itself is put in where it is used, \
             never before.",
        ),
        key(
            "hosts",
            "mapping of hosts",
            r##"{"type":"object","additionalProperties":{"$ref":"#/$defs/host"}}"##,
            "The machines that steps act on. `local` is always there.",
        ),
        key(
            "stores",
            "mapping of stores",
            r#"{"type":"object","additionalProperties":{"type":"object","required":["scheme"],"properties":{"scheme":{"type":"string","examples":["s3","azblob","gcs","fs","sftp","webdav"]}}}}"#,
            "The object stores, by name. `scheme` says which kind; the other keys are OpenDAL's own option names for it. \
             What is not given comes from where the provider's tools look. A place in a store is `NAME:prefix/`.",
        ),
        key("defaults", "mapping", r##"{"$ref":"#/$defs/defaults"}"##, "What holds for every step that does not say otherwise."),
        key(
            "on_failure",
            "`stop` or `rollback`",
            r#"{"enum":["stop","rollback"],"default":"stop"}"#,
            "What a failed step does to the run: `stop` starts nothing new and leaves it resumable, `rollback` undoes it, \
             unless the run is past its pivot.",
        ),
        key("max_parallel", "integer", COUNT, "How many steps may be at work at once. 8 unless given."),
        required(
            "steps",
            "list of steps",
            r##"{"type":"array","minItems":1,"items":{"$ref":"#/$defs/step"}}"##,
            "The steps. Their order in the file means nothing: `needs` and templates make the edges.",
        ),
        key(
            "finally",
            "list of steps",
            r##"{"type":"array","items":{"$ref":"#/$defs/step"}}"##,
            "Steps that run whatever the outcome, after a cancel and a rollback too. Their templates may read `run.status`. \
             In a pipeline used as a step they do not run.",
        ),
        key(
            "outputs",
            "mapping",
            r#"{"type":"object"}"#,
            "What a run leaves; what a step that runs this pipeline leaves for later steps.",
        ),
    ],
};

/// One input.
pub(crate) const INPUT: Level = Level {
    name: "input",
    title: "An input",
    doc: "A value that a run is given. Without a default it has to be given.",
    keys: &[
        key(
            "type",
            "name of a type",
            r#"{"enum":["string","integer","number","boolean","list","map","bytes","rate","duration"],"default":"string"}"#,
            "What its values are: `string` (unless given), `integer`, `number`, `boolean`, `list`, `map`, `bytes` (`1MiB`), \
             `rate` (`200MB/s`) or `duration` (`2h30m`).",
        ),
        key("default", "value of the type", ANY, "Its value when none is given."),
        key("description", "text", TEXT, "What it is for."),
        key("enum", "list of values", r#"{"type":"array","minItems":1}"#, "The only values it may have."),
    ],
};

/// One secret.
pub(crate) const SECRET: Level = Level {
    name: "secret",
    title: "A secret",
    doc: "Exactly one of the keys says where the value comes from. It is read when a run starts or is resumed, and is never \
          written anywhere.",
    keys: &[
        key("env", "name of a variable", TEXT, "An environment variable."),
        key("file", "path", TEXT, "The content of a file, without its last line break. May read `inputs` and `env`."),
        key(
            "command",
            "text or list",
            r#"{"type":["string","array"],"items":{"type":"string"}}"#,
            "What a command prints, without its last line break: text goes to `sh -c`, a list is executed as it is. \
             May read `inputs` and `env`.",
        ),
    ],
};

/// One host.
pub(crate) const HOST: Level = Level {
    name: "host",
    title: "A host",
    doc: "The text `local`, or a mapping.",
    keys: &[
        required(
            "ssh",
            "text",
            TEXT,
            "What one would write behind `ssh`: `user@machine`, or a name from `~/.ssh/config`, whose settings, agent and jump \
             hosts apply. May read `inputs` and `env`, as all keys of a host may.",
        ),
        key("user", "name of a user", TEXT, "The user to log in as. What `ssh` takes unless given."),
        key("port", "number", PORT, "The port. What `ssh` takes unless given."),
        key(
            "identity",
            "path",
            TEXT,
            "A file with the private key, for the machine and its jump hosts. The keys of the agent and of `~/.ssh` unless given.",
        ),
        key("config", "path", TEXT, "The configuration to read in place of `~/.ssh/config` and the system's, as `ssh -F` does."),
        key("jump", "text", TEXT, "The jump hosts, as behind `ssh -J`: `user@bastion:22,next`."),
        key(
            "become",
            "name of a user",
            TEXT,
            "The user whom commands run as and files belong to there, by `runuser` when root logs in and by `sudo -n` \
             otherwise. The user who logs in unless given.",
        ),
    ],
};

/// `defaults`.
pub(crate) const DEFAULTS: Level = Level {
    name: "defaults",
    title: "Defaults",
    doc: "What holds for every step that does not say otherwise, key by key.",
    keys: &[
        key("retry", "mapping", r##"{"$ref":"#/$defs/retry"}"##, "What is done about failed attempts."),
        key("timeout", "duration or mapping", r##"{"$ref":"#/$defs/timeout"}"##, "Limits of an attempt."),
        key("finally_timeout", "duration", DURATION, "How long the `finally` steps may take together. `10m` unless given."),
    ],
};

/// `retry`.
pub(crate) const RETRY: Level = Level {
    name: "retry",
    title: "Retry",
    doc: "What is done about attempts that fail with an error that may pass. Other errors are not tried again.",
    keys: &[
        key("attempts", "integer", COUNT, "How many attempts may fail before the step does. 3 unless given."),
        key(
            "backoff",
            "`exponential`, `linear` or `constant`",
            r#"{"enum":["constant","linear","exponential"],"default":"exponential"}"#,
            "How the wait grows: it doubles each time, grows by the first wait, or stays.",
        ),
        key("initial", "duration", DURATION, "The first wait. `1s` unless given."),
        key(
            "max",
            "duration",
            DURATION,
            "No wait is longer but one that the other side asks for, and that is cut at `1h`. `1m` unless given.",
        ),
        key("jitter", "boolean", BOOL, "Whether a wait is drawn between half its length and its length. `true` unless given."),
        key(
            "exhausted",
            "`fail`, `pause` or `rollback`",
            r#"{"enum":["pause","fail","rollback"],"default":"fail"}"#,
            "What follows when no attempt is left: the step fails, waits for a person, or fails and the run rolls back.",
        ),
        key(
            "interruptions",
            "integer",
            COUNT,
            "How often an attempt's runner may die before a person is asked: the step may be what kills it. 5 unless given.",
        ),
    ],
};

/// `timeout`.
pub(crate) const TIMEOUT: Level = Level {
    name: "timeout",
    title: "Timeout",
    doc: "Limits of an attempt. A duration alone is `attempt`.",
    keys: &[
        key("attempt", "duration", DURATION, "The whole attempt."),
        key("idle", "duration", DURATION, "No progress (bytes, rows, LSN) for this long."),
    ],
};

/// A step.
pub(crate) const STEP: Level = Level {
    name: "step",
    title: "A step",
    doc: "A node of the graph. It waits for the steps it names under `needs` and for every step that one of its templates \
          mentions.",
    keys: &[
        required(
            "id",
            "name",
            r#"{"type":"string","pattern":"^[A-Za-z][A-Za-z0-9_-]*$"}"#,
            "Its name in the pipeline: a letter, then letters, digits, `_` and `-`.",
        ),
        key("name", "text", TEXT, "What people read beside the id: in plans, `ferry show`, reports and graphs."),
        required(
            "uses",
            "step type or path",
            TEXT,
            "Its type (`ferry steps` lists them), or the path of a pipeline, from this file's folder.",
        ),
        key("with", "mapping", r#"{"type":"object"}"#, "Its configuration, as its type says; for a pipeline its inputs."),
        key(
            "needs",
            "list of ids",
            r#"{"type":["array","string"],"items":{"type":"string"}}"#,
            "The steps that must be over before it starts.",
        ),
        key("if", "template", r#"{"type":["string","boolean"]}"#, "Whether it runs: a template that gives `true` or `false`."),
        key(
            "for_each",
            "list, mapping or template",
            r#"{"type":["array","object","string"]}"#,
            "Runs once for each item; templates read `each.key`, `each.value` and `each.index`. Its outputs are a mapping by key.",
        ),
        key(
            "max_parallel",
            "integer or `auto`",
            r#"{"anyOf":[{"type":"integer","minimum":1},{"const":"auto"}]}"#,
            "How many of its instances may be at work at once. `auto` begins with one and goes up by one as long as they move more \
             together, by what they tell of their progress.",
        ),
        key("retry", "mapping", r##"{"$ref":"#/$defs/retry"}"##, "What is done about failed attempts."),
        key("timeout", "duration or mapping", r##"{"$ref":"#/$defs/timeout"}"##, "Limits of an attempt."),
        key("on", "name of a host", TEXT, "The host it acts on. `local` unless given."),
        key(
            "pivot",
            "boolean",
            BOOL,
            "Once it has started (or, if its type holds the pivot inside, has passed it), the run no longer rolls back by \
             itself. Whatever cannot be undone has to stand behind it.",
        ),
        key(
            "background",
            "`true` or mapping",
            r##"{"anyOf":[{"type":"boolean"},{"$ref":"#/$defs/background"}]}"##,
            "It serves others while it runs: the steps behind it may start when it is ready. A step with its pivot inside that has begun and is taken up again waits for none: it may be what keeps them from being ready.",
        ),
        key(
            "undo",
            "`auto`, `skip` or mapping",
            r##"{"anyOf":[{"enum":["auto","skip"]},{"$ref":"#/$defs/undo"}]}"##,
            "What a rollback does about it: what its type does (`auto`), nothing (`skip`), or another step body.",
        ),
        key(
            "continue_on_error",
            "boolean",
            BOOL,
            "Its failure does not stop the steps behind it. The run still fails in the end.",
        ),
        key(
            "lock",
            "text or mapping",
            r##"{"$ref":"#/$defs/lock"}"##,
            "A name that one step at a time holds, across all runs; others wait.",
        ),
        key("placement", "text", TEXT, "Which group of workers may run it."),
    ],
};

/// `background`.
pub(crate) const BACKGROUND: Level = Level {
    name: "background",
    title: "Background",
    doc: "`true` stands for the one step behind it that nothing else stands behind.",
    keys: &[required("until", "id of a step", TEXT, "It ends when this step is over.")],
};

/// `lock`.
pub(crate) const LOCK: Level = Level {
    name: "lock",
    title: "Lock",
    doc: "A text alone is `name`. The wait is no part of an attempt: `timeout` begins behind it.",
    keys: &[
        required("name", "text", TEXT, "What the lock is called. May hold a template, and no secret."),
        key(
            "wait",
            "duration",
            DURATION,
            "How long the step waits while another run holds the lock; then it fails. `1h` unless given. The steps of one run \
             stand in line for as long as it takes.",
        ),
    ],
};

/// `undo`.
pub(crate) const UNDO: Level = Level {
    name: "undo",
    title: "Undo",
    doc: "A step body that replaces the undo of the type. Its templates may read the step's own outputs.",
    keys: &[
        required("uses", "step type", TEXT, "Its type."),
        key("with", "mapping", r#"{"type":"object"}"#, "Its configuration."),
    ],
};

/// Every level, in the order of the reference.
pub(crate) const LEVELS: [&Level; 11] =
    [&PIPELINE, &INPUT, &SECRET, &HOST, &DEFAULTS, &RETRY, &TIMEOUT, &STEP, &BACKGROUND, &LOCK, &UNDO];
