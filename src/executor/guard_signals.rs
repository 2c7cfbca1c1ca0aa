//! SIGINT and SIGTERM as requests.

/// What the person at the keyboard, or the machine, asks for.
pub(super) enum Request {
    /// SIGINT once, or SIGTERM.
    Cancel,
    /// SIGINT twice.
    EndAtOnce,
}

/// The requests of this process's signals; none when they are not listened to.
pub(super) struct Requests {
    #[cfg(unix)]
    streams: Option<(tokio::signal::unix::Signal, tokio::signal::unix::Signal)>,
    interrupts: u32,
}

impl Requests {
    #[cfg(unix)]
    pub(super) fn new(listens: bool) -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let streams = listens.then(|| Some((signal(SignalKind::interrupt()).ok()?, signal(SignalKind::terminate()).ok()?)));
        Self { streams: streams.flatten(), interrupts: 0 }
    }

    /// The next request; never, when signals are not listened to.
    #[cfg(unix)]
    pub(super) async fn next(&mut self) -> Request {
        let Some((interrupt, terminate)) = &mut self.streams else { return std::future::pending().await };
        tokio::select! {
            _ = interrupt.recv() => {
                self.interrupts += 1;
                if self.interrupts > 1 { Request::EndAtOnce } else { Request::Cancel }
            }
            _ = terminate.recv() => Request::Cancel,
        }
    }
}
