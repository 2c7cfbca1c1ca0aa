//! The ledger: which numbers were sent, which were acknowledged, and whether what is there now is just that.
//!
//! Its file is a line for each thing that happened: `s 17` sent, `a 17` acknowledged, `r 17` refused, and for what is
//! longer ago `a 1 16`. A line is in the hands of the operating system within moments, and on the disk within a second: a
//! runner that is killed loses nothing but the last moments, of which nothing is claimed.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, ErrorKind, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::ranges::Ranges;
use crate::error::StepError;

/// The file in the step's folder.
const NAME: &str = "ledger";
/// So many numbers behind the last one of the file a dead runner may have sent without having noted it.
const UNNOTED: u64 = 1000;
/// How often the file is made durable.
const SYNCED_EVERY: Duration = Duration::from_secs(1);
/// After so many lines the file is written anew, shorter.
const MOST_LINES: u64 = 200_000;

/// What became of numbers.
#[derive(Debug, Clone, Default)]
struct Numbers {
    sent: Ranges,
    acknowledged: Ranges,
    refused: Ranges,
    /// What dead runners may have sent.
    unnoted: Ranges,
}

impl Numbers {
    fn take(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let first = words.next()?.parse().ok()?;
        let last = words.next().map_or(Some(first), |word| word.parse().ok())?;
        match kind {
            "s" => self.sent.add(first, last),
            "a" => self.acknowledged.add(first, last),
            "r" => self.refused.add(first, last),
            "u" => self.unnoted.add(first, last),
            _ => return None,
        }
        Some(())
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        let kinds = [("s", &self.sent), ("a", &self.acknowledged), ("r", &self.refused), ("u", &self.unnoted)];
        kinds.into_iter().flat_map(|(kind, ranges)| ranges.iter().map(move |(first, last)| format!("{kind} {first} {last}\n")))
    }

    fn greatest(&self) -> u64 {
        let all = [&self.sent, &self.acknowledged, &self.unnoted];
        all.into_iter().filter_map(Ranges::greatest).max().unwrap_or(0)
    }
}

/// What the ledger proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Proof {
    /// How many writes were acknowledged.
    acknowledged: u64,
    /// How many of them exist exactly once.
    exactly_once: u64,
    /// How many were sent in all.
    sent: u64,
    /// How many have an unknown outcome: the connection broke before the answer.
    unknown: u64,
    /// How many of these exist.
    unknown_arrived: u64,
    /// How many the server refused.
    refused: u64,
    /// The table that the writes went to.
    table: String,
}

/// What is in the table: first, last and count of each run of numbers without a hole, and numbers that are there more than
/// once.
pub(super) struct Found {
    pub(super) islands: Ranges,
    pub(super) doubled: Vec<u64>,
}

/// The ledger of one step.
pub(super) struct Ledger {
    numbers: Arc<Mutex<Numbers>>,
    next: Mutex<u64>,
    lines: UnboundedSender<String>,
    writer: Mutex<Option<JoinHandle<std::io::Result<()>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unwritable(error: std::io::Error) -> StepError {
    StepError::permanent("cannot keep the ledger of acknowledged writes in the step's folder")
        .cause(error)
        .help("make room or give access, then resume the run")
}

impl Ledger {
    /// Goes on with what earlier attempts have noted.
    pub(super) async fn open(scratch: &Path) -> Result<Self, StepError> {
        let folder = scratch.to_owned();
        let opening = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder)?;
            let path = folder.join(NAME);
            let mut numbers = read(&path)?;
            let greatest = numbers.greatest();
            if greatest > 0 {
                numbers.unnoted.add(greatest + 1, greatest + UNNOTED);
            }
            let file = rewrite(&path, &numbers)?;
            Ok((path, numbers, file))
        });
        let (path, numbers, file) = opening.await.map_err(|error| unwritable(error.into()))?.map_err(unwritable)?;
        let next = numbers.greatest() + 1;
        let numbers = Arc::new(Mutex::new(numbers));
        let (lines, given) = unbounded_channel();
        let writer = tokio::task::spawn_blocking({
            let numbers = numbers.clone();
            move || write(&path, file, given, &numbers)
        });
        Ok(Self { numbers, next: Mutex::new(next), lines, writer: Mutex::new(Some(writer)) })
    }

    /// Whether nothing was sent yet.
    pub(super) fn is_new(&self) -> bool {
        lock(&self.numbers).sent.is_empty()
    }

    /// Takes over what is in the table from an earlier look of this step: it has to be there in the end too.
    pub(super) fn adopt(&self, found: &Ranges) {
        let mut numbers = lock(&self.numbers);
        for (first, last) in found.iter() {
            for kind in ["s", "a"] {
                let line = format!("{kind} {first} {last}");
                let _ = numbers.take(&line);
                let _ = self.lines.send(line + "\n");
            }
        }
        if let Some(greatest) = found.greatest() {
            let line = format!("u {} {}", greatest + 1, greatest + UNNOTED);
            let _ = numbers.take(&line);
            let _ = self.lines.send(line + "\n");
        }
        *lock(&self.next) = numbers.greatest() + 1;
    }

    /// The next number, noted as sent. Nothing is sent that cannot be noted.
    pub(super) fn send(&self) -> Result<u64, StepError> {
        let number = {
            let mut next = lock(&self.next);
            *next += 1;
            *next - 1
        };
        lock(&self.numbers).sent.add(number, number);
        self.lines.send(format!("s {number}\n")).map_err(|_| unwritable(std::io::Error::other("an earlier write failed")))?;
        Ok(number)
    }

    pub(super) fn acknowledged(&self, number: u64) {
        lock(&self.numbers).acknowledged.add(number, number);
        let _ = self.lines.send(format!("a {number}\n"));
    }

    pub(super) fn refused(&self, number: u64) {
        lock(&self.numbers).refused.add(number, number);
        let _ = self.lines.send(format!("r {number}\n"));
    }

    /// Ends the writing; all of it is on the disk then.
    pub(super) async fn close(self) -> Result<Closed, StepError> {
        let Self { numbers, lines, writer, .. } = self;
        drop(lines);
        let writer = lock(&writer).take();
        if let Some(writer) = writer {
            writer.await.map_err(|error| unwritable(error.into()))?.map_err(unwritable)?;
        }
        let numbers = lock(&numbers).clone();
        Ok(Closed(numbers))
    }
}

/// A ledger that is complete.
pub(super) struct Closed(Numbers);

impl Closed {
    /// Holds what is in the table against what was noted.
    pub(super) fn prove(&self, found: &Found, table: &str) -> Result<Proof, StepError> {
        let Numbers { sent, acknowledged, refused, unnoted } = &self.0;
        let unknown = sent.without(acknowledged).without(refused);
        let missing = acknowledged.without(&found.islands);
        let never_sent = found.islands.without(sent).without(unnoted);
        let refused_arrived = found.islands.and(refused);
        let mut wrong = Vec::new();
        for (numbers, one, many, what) in [
            (&missing, "write", "writes", "acknowledged and not there"),
            (&found.doubled.iter().map(|number| (*number, *number)).collect(), "write", "writes", "there more than once"),
            (&never_sent, "row", "rows", "there that nobody sent"),
            (&refused_arrived, "write", "writes", "refused and there all the same"),
        ] {
            match numbers.count() {
                0 => {}
                1 => wrong.push(format!("1 {one} is {what} ({numbers})")),
                count => wrong.push(format!("{count} {many} are {what} ({numbers})")),
            }
        }
        if !wrong.is_empty() {
            let acknowledged = acknowledged.count();
            return Err(StepError::needs_person(format!(
                "the ledger of {acknowledged} acknowledged writes does not agree with `{table}`: {}",
                wrong.join("; ")
            ))
            .help(
                "look at both servers before anything else is changed; `ledger` in the step's folder of the run says what was \
                 sent (s), acknowledged (a) and refused (r), and the table says when each number was written",
            ));
        }
        Ok(Proof {
            acknowledged: acknowledged.count(),
            exactly_once: acknowledged.and(&found.islands).count(),
            sent: sent.count(),
            unknown: unknown.count(),
            unknown_arrived: found.islands.and(&unknown).count(),
            refused: refused.count(),
            table: table.to_owned(),
        })
    }
}

fn read(path: &Path) -> std::io::Result<Numbers> {
    let mut numbers = Numbers::default();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(numbers),
        Err(error) => return Err(error),
    };
    let mut file = BufReader::new(file);
    let mut line = String::new();
    while file.read_line(&mut line)? > 0 {
        // The last line of a runner that was killed may be the half of one: `a 12` of `a 1234` would be wrong.
        let Some(whole) = line.strip_suffix('\n') else { break };
        numbers.take(whole).ok_or_else(|| std::io::Error::other(format!("`{NAME}` holds a line that is none: {whole}")))?;
        line.clear();
    }
    Ok(numbers)
}

/// Writes the file anew. The old one stays until the new one is durable.
fn rewrite(path: &Path, numbers: &Numbers) -> std::io::Result<File> {
    let next = path.with_extension("next");
    let mut file = BufWriter::new(File::create(&next)?);
    for line in numbers.lines() {
        file.write_all(line.as_bytes())?;
    }
    file.into_inner()?.sync_all()?;
    std::fs::rename(&next, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    OpenOptions::new().append(true).open(path)
}

fn write(path: &Path, file: File, mut lines: UnboundedReceiver<String>, numbers: &Mutex<Numbers>) -> std::io::Result<()> {
    let mut file = BufWriter::new(file);
    let (mut synced, mut written) = (Instant::now(), 0);
    while let Some(line) = lines.blocking_recv() {
        file.write_all(line.as_bytes())?;
        written += 1;
        while let Ok(line) = lines.try_recv() {
            file.write_all(line.as_bytes())?;
            written += 1;
        }
        file.flush()?;
        if written > MOST_LINES {
            let now = lock(numbers).clone();
            file = BufWriter::new(rewrite(path, &now)?);
            written = 0;
        } else if synced.elapsed() >= SYNCED_EVERY {
            file.get_ref().sync_data()?;
            synced = Instant::now();
        }
    }
    file.into_inner()?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn opened(folder: &Path) -> Ledger {
        Ledger::open(folder).await.expect("opened")
    }

    fn found(islands: &[(u64, u64)], doubled: &[u64]) -> Found {
        Found { islands: islands.iter().copied().collect(), doubled: doubled.to_vec() }
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_known_to_the_next_attempt() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = opened(folder.path()).await;
        for number in 1..=9 {
            assert_eq!(ledger.send().expect("noted"), number);
        }
        (1..=5).for_each(|number| ledger.acknowledged(number));
        ledger.refused(6);
        // The runner dies here: 7 to 9 are unknown, and nobody ends the file.
        drop(ledger);
        let text = || std::fs::read_to_string(folder.path().join(NAME)).expect("there");
        while text().lines().count() < 15 {
            tokio::task::yield_now().await;
        }
        std::fs::write(folder.path().join(NAME), text() + "a 8").expect("a torn line");

        let ledger = opened(folder.path()).await;
        assert!(!ledger.is_new());
        assert_eq!(ledger.send().expect("noted"), 9 + UNNOTED + 1);
        ledger.acknowledged(9 + UNNOTED + 1);
        let closed = ledger.close().await.expect("written");
        let proof = closed.prove(&found(&[(1, 5), (8, 8), (12, 12), (1010, 1010)], &[]), "t").expect("as it should be");
        assert_eq!((proof.acknowledged, proof.exactly_once, proof.sent), (6, 6, 10));
        assert_eq!((proof.unknown, proof.unknown_arrived, proof.refused), (3, 1, 1));
        for (islands, doubled, word) in [
            (&[(1, 4), (1010, 1010)][..], &[][..], "1 write is acknowledged and not there (5)"),
            (&[(1, 5), (1010, 1010)], &[3, 4], "2 writes are there more than once (3–4)"),
            (&[(1, 5), (1010, 1011)], &[], "1 row is there that nobody sent (1011)"),
            (&[(1, 6), (1010, 1010)], &[], "1 write is refused and there all the same (6)"),
        ] {
            let error = closed.prove(&found(islands, doubled), "t").expect_err(word);
            assert!(error.message.contains(word), "{}", error.message);
        }
    }
}
