//! A script that stands ready on a host and waits for its word: inside a pause no program has to be started.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::sync::Mutex;

use super::owner::Owner;
use crate::error::StepError;
use crate::hosts::{Invocation, Shell, Streams};

/// Whatever else comes than the word, the end of its input above all, it ends and has done nothing.
const WAIT: &str = r#"printf +; read -r word && [ "$word" = go ] || exit 3; "#;

/// A script that has started and has done nothing yet. When this is dropped it ends, and so does it when the runner dies.
#[derive(Debug)]
pub struct Waiting {
    stream: Mutex<DuplexStream>,
}

impl Owner {
    /// Starts a script that waits. `None`: it did not start, and whoever wants something done has to do it otherwise.
    pub async fn wait(&self, script: &str, arguments: &[&str]) -> Option<Waiting> {
        let (mut near, far) = duplex(64);
        let script = format!("{WAIT}{{ {script}; }} && printf +");
        let argv = ["sh", "-c", script.as_str(), "ferry"].into_iter().chain(arguments.iter().copied());
        let invocation = Invocation::new(argv);
        let shell = Shell { cancel: self.cancel.child_token(), ..Shell::clone(self) };
        tokio::spawn(async move {
            let (mut input, mut output) = split(far);
            let streams = Streams { input: Some(&mut input), output: Some(&mut output) };
            shell.stream(invocation, streams, &|_, _| {}).await
        });
        let mut ready = [0];
        near.read_exact(&mut ready).await.ok()?;
        Some(Waiting { stream: Mutex::new(near) })
    }
}

impl Waiting {
    /// Gives the word, and returns when the script has done its work.
    pub async fn go(&self) -> Result<(), StepError> {
        let mut stream = self.stream.lock().await;
        let lost = |error: std::io::Error| StepError::transient("a script that waited for its word is gone").cause(error);
        stream.write_all(b"go\n").await.map_err(lost)?;
        let mut done = [0];
        stream.read_exact(&mut done).await.map(drop).map_err(lost)
    }
}
