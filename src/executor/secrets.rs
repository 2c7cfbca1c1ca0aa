//! Gets secrets from where the pipeline says they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::level::Level;
use super::session::Session;
use crate::error::{Failure, StepError};
use crate::pipeline::SecretSpec;
use crate::secret::mark;
use crate::units::ByteSize;

/// A command that asks a person or hangs must not hold up a run for ever.
const COMMAND_LIMIT: Duration = Duration::from_mins(1);

/// A longer one is no secret but a mistake: a device, or a program that does not end. 1 MiB is also what others take.
const LONGEST: u64 = 1 << 20;

/// Loads a pipeline's secrets and gives their marks by name. One that cannot be had is remembered: the steps that need
/// it fail with the reason, and nothing else does.
pub(super) async fn load(session: &Session, level: &Level) -> Result<BTreeMap<String, String>, Failure> {
    let mut marks = BTreeMap::new();
    for (name, spec) in &level.pipeline.secrets {
        // Two pipelines of a run may call different secrets by one name.
        let marked = level.path.as_ref().map_or_else(|| name.clone(), |path| format!("{path}:{name}"));
        match get(session, level, name, spec).await {
            Ok(value) => {
                if value.expose_secret().contains('\n') {
                    session.hold_back.fetch_max(2 * value.expose_secret().len(), Ordering::Relaxed);
                }
                session.vault.insert(&marked, value);
            }
            Err(error) => {
                let failure = error.to_failure();
                session.missing.lock().unwrap_or_else(PoisonError::into_inner).insert(marked.clone(), failure);
            }
        }
        marks.insert(name.clone(), mark(&marked));
    }
    Ok(marks)
}

async fn get(session: &Session, level: &Level, name: &str, spec: &SecretSpec) -> Result<SecretString, StepError> {
    let what = format!("secret `{name}`");
    let text = |source: &str| {
        level
            .render_early(session, &what, &Value::from(source))
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .map_err(|failure| StepError::permanent(failure.message))
    };
    let value = match spec {
        SecretSpec::Env(variable) => {
            let variable = text(variable)?;
            if session.env.contains_key(&variable) {
                return Err(StepError::permanent(format!(
                    "the secret `{name}` is the variable `{variable}`, which is listed under `env` and so is in the journal"
                ))
                .help("take it out of `env`, in the pipelines that are used as steps too, and change the secret"));
            }
            std::env::var(&variable).map_err(|_| {
                StepError::permanent(format!("the secret `{name}` is not there: the environment has no `{variable}`"))
                    .help(format!("set it: `export {variable}=…`"))
            })?
        }
        SecretSpec::File(file) => read(name, &level.base.join(text(file)?)).await?,
        SecretSpec::Command(command) => {
            let command = level.render_early(session, &what, command).map_err(|failure| StepError::permanent(failure.message))?;
            let key = (level.base.clone(), command.to_string());
            if let Some(answer) = session.asked.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
                return Ok(answer.clone());
            }
            let answer = ask(name, &level.base, &command).await?;
            let kept = SecretString::from(answer.clone());
            session.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(key, kept);
            answer
        }
    };
    if value.is_empty() {
        return Err(
            StepError::permanent(format!("the secret `{name}` is empty")).help("an empty secret protects nothing: set its value")
        );
    }
    Ok(SecretString::from(value))
}

fn too_long(name: &str) -> StepError {
    StepError::permanent(format!("the secret `{name}` is longer than {}", ByteSize(LONGEST)))
        .help("a secret is a password, a token or a key: give its own file, or a command that prints nothing else")
}

/// All of it, if that is not too much.
async fn bounded(name: &str, source: impl AsyncRead + Unpin) -> std::io::Result<Result<Vec<u8>, StepError>> {
    let mut bytes = Vec::new();
    source.take(LONGEST + 1).read_to_end(&mut bytes).await?;
    Ok(if bytes.len() as u64 > LONGEST { Err(too_long(name)) } else { Ok(bytes) })
}

async fn read(name: &str, path: &Path) -> Result<String, StepError> {
    let unreadable = |error: std::io::Error| {
        StepError::permanent(format!("the secret `{name}` cannot be read from `{}`", path.display()))
            .cause(error)
            .help("see that the file exists and that you may read it")
    };
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let bytes = bounded(name, file).await.map_err(unreadable)??;
    let text = String::from_utf8(bytes).map_err(|_| unreadable(std::io::Error::other("it is not UTF-8")))?;
    Ok(without_line_end(text))
}

async fn ask(name: &str, folder: &Path, command: &Value) -> Result<String, StepError> {
    let argv: Vec<String> = match command {
        Value::Array(words) => words.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned)).collect(),
        Value::String(line) => vec!["sh".to_owned(), "-c".to_owned(), line.clone()],
        other => vec![other.to_string()],
    };
    let help = "run the command by hand: it has to print the secret and exit with 0";
    let failed = |why: String| StepError::permanent(format!("the command for the secret `{name}` {why}")).help(help);
    let (program, arguments) = argv.split_first().ok_or_else(|| failed("is empty".to_owned()))?;
    // What it writes to its standard error is not shown: it may hold a part of the secret.
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .current_dir(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("could not be started".to_owned()).cause(error))?;
    let stdout = child.stdout.take().ok_or_else(|| failed("has no standard output".to_owned()))?;
    let run = async {
        let bytes = bounded(name, stdout).await.map_err(|error| failed("could not be heard".to_owned()).cause(error))??;
        let status = child.wait().await.map_err(|error| failed("could not be waited for".to_owned()).cause(error))?;
        Ok((bytes, status))
    };
    let (bytes, status) = tokio::time::timeout(COMMAND_LIMIT, run)
        .await
        .map_err(|_| failed(format!("did not end within {} seconds", COMMAND_LIMIT.as_secs())))??;
    if !status.success() {
        return Err(failed(format!("ended with {status}")));
    }
    let text = String::from_utf8(bytes).map_err(|_| failed("printed something that is not UTF-8".to_owned()))?;
    Ok(without_line_end(text))
}

fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}
