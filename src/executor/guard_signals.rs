//! SIGINT, SIGTERM and SIGHUP as requests.

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// What the person at the keyboard, or the machine, asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// SIGINT once, SIGTERM, or SIGHUP: the terminal was closed.
    Cancel,
    /// SIGINT twice.
    EndAtOnce,
}

/// The exit status of a process that a SIGINT ended.
const INTERRUPTED: i32 = 130;

/// The requests of this process's signals; none when they are not listened to.
pub(super) struct Requests {
    requests: Option<mpsc::UnboundedReceiver<Request>>,
    watcher: Option<AbortHandle>,
}

impl Drop for Requests {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

impl Requests {
    #[cfg(unix)]
    pub(super) fn new(listens: bool) -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let streams = listens.then(|| Some((signal(SignalKind::interrupt()).ok()?, signal(SignalKind::terminate()).ok()?)));
        let Some((mut interrupt, mut terminate)) = streams.flatten() else { return Self { requests: None, watcher: None } };
        let mut hangup = if minds_hangups() { signal(SignalKind::hangup()).ok() } else { None };
        let (sender, requests) = mpsc::unbounded_channel();
        // Beside the loop: from here on the process does not end by a signal by itself, and whatever the loop hangs in, a
        // journal on a dead disk or its own end, a person can still end it.
        let watcher = tokio::spawn(async move {
            let mut interrupts = 0;
            loop {
                let request = tokio::select! {
                    _ = interrupt.recv() => {
                        interrupts += 1;
                        if interrupts == 1 { Request::Cancel } else { Request::EndAtOnce }
                    }
                    _ = terminate.recv() => Request::Cancel,
                    () = hung_up(hangup.as_mut()) => Request::Cancel,
                };
                if interrupts > 2 || sender.send(request).is_err() {
                    std::process::exit(INTERRUPTED);
                }
            }
        });
        Self { requests: Some(requests), watcher: Some(watcher.abort_handle()) }
    }

    /// The next request; never, when signals are not listened to.
    pub(super) async fn next(&mut self) -> Request {
        let next = match &mut self.requests {
            Some(requests) => requests.recv().await,
            None => None,
        };
        match next {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }
}

#[cfg(unix)]
async fn hung_up(hangup: Option<&mut tokio::signal::unix::Signal>) {
    match hangup {
        Some(hangup) => {
            let _ = hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether SIGHUP would end this process. Under `nohup` it is ignored, and stays so: to listen to it would undo that. Where
/// the system does not tell, it is left as it is.
#[cfg(unix)]
fn minds_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 == 0)
}
