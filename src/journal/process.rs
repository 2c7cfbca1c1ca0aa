//! Which process holds a run, and whether it still lives.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Sessions of this process whose lease was not dropped: a process may start and lose several runners.
static LIVE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The runner that holds a run, as the lease names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Who started it: `user@host`.
    pub by: String,
    /// The machine's name.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// When the process started, in the kernel's ticks since boot: tells it from a later process of the same number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// The boot and the process namespace in which the number means something. Unknown outside Linux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world: Option<String>,
    /// Tells runners of one process apart.
    pub session: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (process {} on `{}`)", self.by, self.pid, self.host)
    }
}

impl Holder {
    /// A new session of this process.
    pub(super) fn here(by: &str) -> Self {
        let pid = std::process::id();
        Self {
            by: by.to_owned(),
            host: hostname::get().map_or_else(|_| "?".to_owned(), |name| name.to_string_lossy().into_owned()),
            pid,
            start: start_of(pid),
            world: world(),
            session: uuid::Uuid::now_v7().simple().to_string(),
        }
    }

    /// Whether the runner lives. Of a process of this machine the kernel knows, so that the run of a killed runner is
    /// free at once; of others only the lease's time tells.
    pub(super) fn is_alive(&self, expires: Timestamp, now: Timestamp) -> bool {
        let (Some(world), Some(start)) = (&self.world, self.start) else { return now < expires };
        if self::world().as_ref() != Some(world) {
            return now < expires;
        }
        if start_of(self.pid) != Some(start) {
            return false;
        }
        self.pid != std::process::id() || live().contains(&self.session)
    }
}

/// Keeps a session of this process alive for as long as it exists.
#[derive(Debug)]
pub(super) struct Session(String);

impl Session {
    pub(super) fn of(holder: &Holder) -> Self {
        live().insert(holder.session.clone());
        Self(holder.session.clone())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        live().remove(&self.0);
    }
}

fn live() -> std::sync::MutexGuard<'static, BTreeSet<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Process numbers repeat after a boot and in each container.
fn world() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// When a living process started; `None` when it is dead, a corpse that nobody has collected included.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_a_collected_or_dead_child_does_not() {
        let now = Timestamp::now();
        let me = Holder::here("me");
        assert!(!me.is_alive(now, now), "a session that holds nothing is over");
        let session = Session::of(&me);
        assert!(me.is_alive(now, now), "the lease's time does not matter on the same machine");
        drop(session);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep starts");
        let there = Holder { pid: child.id(), start: start_of(child.id()), ..me.clone() };
        assert!(there.is_alive(now, now));
        child.kill().expect("our child");
        // Not yet collected: a corpse holds nothing.
        while start_of(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert!(!there.is_alive(now + jiff::SignedDuration::from_secs(60), now));
        child.wait().expect("our child");
        let elsewhere = Holder { world: Some("another boot".to_owned()), ..me };
        assert!(elsewhere.is_alive(now + jiff::SignedDuration::from_secs(1), now));
        assert!(!elsewhere.is_alive(now, now));
    }
}
