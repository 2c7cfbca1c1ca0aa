//! The live view of a run on a terminal: finished steps scroll by, steps at work and waiting stand below, a footer last.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::screen::{Screen, pad};
use super::telling::{Mark, Story, Told, one_line, shortened, took_text};
use crate::engine::{Engine, Event, State, StepPath};
use crate::executor::Observer;
use crate::journal::Record;
use crate::secret::unmarked;
use crate::steps::{LogStream, Progress};

const TICK: Duration = Duration::from_millis(100);

/// An answer typed into the live view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The step that asks.
    pub step: StepPath,
    /// Of what was shown.
    pub digest: String,
    /// Yes or no.
    pub approved: bool,
}

/// Where answers go.
pub type Answers = Box<dyn Fn(Answer) + Send>;

/// The live view.
pub struct Live {
    shared: Arc<Shared>,
    ticker: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    inner: Mutex<Inner>,
    is_over: AtomicBool,
}

struct Inner {
    screen: Screen,
    story: Story,
    multi: MultiProgress,
    bars: Vec<ProgressBar>,
    style: ProgressStyle,
    start: Instant,
    refreshed: Instant,
    /// What the last walk over all steps cost: on a graph of thousands it is not done for every event.
    cost: Duration,
    shows_logs: bool,
    answers: Option<Answers>,
    reads: bool,
    questions: VecDeque<Asked>,
}

#[derive(Debug)]
struct Asked {
    step: StepPath,
    digest: String,
    message: String,
}

impl Live {
    /// Whether a live view can be shown and answered in.
    pub fn is_possible() -> bool {
        io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// Starts drawing. With `answers`, approvals are asked for on the keyboard. `shows_logs` lets what steps write scroll by.
    pub fn start(answers: Option<Answers>, shows_logs: bool) -> Self {
        let inner = Inner {
            screen: Screen::default(),
            story: Story::default(),
            multi: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(20)),
            bars: Vec::new(),
            style: ProgressStyle::with_template("{msg}").expect("a constant template with a known name"),
            start: Instant::now(),
            refreshed: Instant::now(),
            cost: Duration::ZERO,
            shows_logs,
            answers: answers.filter(|_| io::stdin().is_terminal()),
            reads: false,
            questions: VecDeque::new(),
        };
        let shared = Arc::new(Shared { inner: Mutex::new(inner), is_over: AtomicBool::new(false) });
        let ticking = Arc::clone(&shared);
        let ticker = std::thread::Builder::new().name("live view".to_owned()).spawn(move || {
            while !ticking.is_over.load(Ordering::Acquire) {
                ticking.inner().draw();
                std::thread::park_timeout(TICK);
            }
        });
        // A machine that gives no thread still gives a run; the view is then drawn with each event only.
        Self { shared, ticker: Mutex::new(ticker.ok()) }
    }
}

impl Live {
    /// Cleans the screen for what follows. Nothing is drawn any more.
    pub fn finish(&self) {
        self.shared.is_over.store(true, Ordering::Release);
        let ticker = self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ticker) = ticker {
            ticker.thread().unpark();
            let _ = ticker.join();
        }
        let mut inner = self.shared.inner();
        inner.questions.clear();
        if std::mem::take(&mut inner.reads) {
            set_echo(true);
        }
        for bar in inner.bars.drain(..) {
            bar.finish_and_clear();
        }
        let _ = inner.multi.clear();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Live {
    fn record(&self, record: &Record, engine: &Engine) {
        let mut inner = self.shared.inner();
        inner.follow(record, engine);
        if let Some(told) = inner.story.tell(record, engine)
            && told.mark != Mark::Begins
        {
            inner.scroll(&told);
        }
        if let Event::ApprovalAsked { step, message, digest, .. } = &record.event {
            let asked = Asked { step: step.clone(), digest: digest.clone(), message: unmarked(message).into_owned() };
            inner.questions.push_back(asked);
            if inner.answers.is_some() && !inner.reads {
                inner.reads = true;
                set_echo(false);
                let shared = Arc::clone(&self.shared);
                let _ = std::thread::Builder::new().name("answers".to_owned()).spawn(move || read_answers(&shared));
            }
        }
        inner.questions.retain(|asked| engine.step(&asked.step).is_some_and(|node| node.state == State::Awaiting));
    }

    fn progress(&self, step: &StepPath, _attempt: u32, progress: &Progress) {
        let mut inner = self.shared.inner();
        let now = inner.start.elapsed();
        inner.screen.progress(step, progress, now);
    }

    fn log(&self, step: &StepPath, stream: LogStream, line: &str) {
        let inner = self.shared.inner();
        if inner.shows_logs || stream == LogStream::Ferry && line.starts_with("warning: ") {
            let line = format!("  {} {} {}", step, console::style("│").for_stderr().dim(), one_line(line));
            let _ = inner.multi.println(shortened(&line, columns()));
        }
    }
}

impl Inner {
    fn follow(&mut self, record: &Record, engine: &Engine) {
        let now = Instant::now();
        let is_due = now.duration_since(self.refreshed) >= self.cost * 20;
        let elapsed = now.duration_since(self.start);
        if is_due || matches!(record.event, Event::Settled { .. } | Event::RunCreated { .. }) {
            self.screen.refresh(engine, elapsed);
            self.refreshed = now;
            self.cost = now.elapsed();
        } else if let Some(node) = record.event.step().and_then(|step| engine.step(step)) {
            self.screen.follow(node, elapsed);
        }
    }

    fn scroll(&self, told: &Told) {
        let name = told.step.as_ref().map(|step| format!("{}  ", pad(step.as_str(), self.screen.width()))).unwrap_or_default();
        let took = told.took.map(took_text).unwrap_or_default();
        let took = if told.step.is_some() { format!("{took:>6}  ") } else { String::new() };
        let line = format!("{} {name}{}{}", told.mark.styled(), console::style(took).for_stderr().dim(), told.text);
        // A failure or a question that is cut off is none: it wraps.
        let is_whole = matches!(told.mark, Mark::Failed | Mark::Asks);
        let _ = self.multi.println(if is_whole { line } else { shortened(&line, columns()) });
        for line in &told.more {
            let _ = self.multi.println(format!("    {line}"));
        }
    }

    fn draw(&mut self) {
        let (width, height) = (columns(), rows());
        let mut lines = self.screen.lines(self.start.elapsed(), self.start.elapsed(), width, height);
        if let Some(asked) = self.questions.front().filter(|_| self.reads) {
            let sign = Mark::Asks.styled();
            let room = width.saturating_sub(28 + asked.step.as_str().len());
            let message = shortened(&one_line(&asked.message), room.max(12));
            lines.push(format!("{sign} {}: {message} [y/n, then Enter] ", asked.step));
        }
        while self.bars.len() > lines.len() {
            if let Some(bar) = self.bars.pop() {
                bar.finish_and_clear();
                self.multi.remove(&bar);
            }
        }
        while self.bars.len() < lines.len() {
            let bar = self.multi.add(ProgressBar::new_spinner());
            bar.set_style(self.style.clone());
            self.bars.push(bar);
        }
        for (bar, line) in self.bars.iter().zip(lines) {
            bar.set_message(line);
        }
    }

    /// Takes a typed line. What is neither yes nor no is asked again: a stray Enter must not deny.
    fn answer(&mut self, line: &str) {
        let Some(asked) = self.questions.front() else { return };
        let approved = match line.trim().to_lowercase().as_str() {
            "y" | "yes" => true,
            "n" | "no" => false,
            _ => return,
        };
        let answer = Answer { step: asked.step.clone(), digest: asked.digest.clone(), approved };
        self.questions.pop_front();
        if let Some(answers) = &self.answers {
            answers(answer);
        }
    }
}

/// Reads lines for as long as there are any. It ends with the process: nothing wakes a thread that waits for a keyboard.
fn read_answers(shared: &Shared) {
    let mut line = String::new();
    while io::stdin().read_line(&mut line).is_ok_and(|count| count > 0) {
        let mut inner = shared.inner();
        if shared.is_over.load(Ordering::Acquire) {
            return;
        }
        inner.answer(&line);
        inner.draw();
        line.clear();
    }
}

/// What is typed must not move the cursor: the view counts lines from where it left off. The settings of a terminal are
/// out of reach of safe Rust; where there is no `stty`, typing leaves a stale line behind and nothing else.
fn set_echo(is_on: bool) {
    let word = if is_on { "echo" } else { "-echo" };
    let _ = Command::new("stty").arg(word).stdin(Stdio::inherit()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn columns() -> usize {
    usize::from(console::Term::stderr().size().1).max(40) - 1
}

fn rows() -> usize {
    usize::from(console::Term::stderr().size().0).max(8)
}
