//! A cluster that goes there and back again, leg by leg, while clients of all kinds write: through the pooler, and past it
//! straight to either server. After each leg everything is looked at, whatever has happened on the way.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::time::Duration;

use ferry::engine::{Event, Outcome};
use ferry::journal::Journal;
use serde_json::Value;

use crate::bench::{Bench, Ran, Started};
use crate::lab::ledger::{Habit, Ledger};
use crate::lab::pooler::Pooler;
use crate::lab::postgres::{Cluster, Settings};
use crate::lab::{Lab, until};

/// After how long the watchdog lets clients go on.
pub const WATCHDOG: Duration = Duration::from_secs(8);
/// What a client waits at most beyond that: for its login, and for a machine that is busy.
const SLACK: Duration = Duration::from_secs(20);

/// Where it happens. `outputs` are those of the last cutover.
pub struct Journey<'a> {
    pub lab: &'a Lab,
    pub bench: Bench,
    pub alpha: Cluster<'a>,
    pub beta: Cluster<'a>,
    pub pooler: Pooler<'a>,
    outputs: RefCell<Value>,
    legs: Cell<usize>,
}

/// What a cutover is told.
#[derive(Debug, Clone, Copy)]
pub struct Leg {
    /// How long clients may be held back before the pivot.
    pub max_pause: Duration,
    /// After how long the watchdog lets them go on.
    pub watchdog: Duration,
    /// How often the cutover is tried.
    pub attempts: u32,
}

impl Default for Leg {
    /// A pause that is held on purpose is not too long.
    fn default() -> Self {
        Self { max_pause: Duration::from_secs(30), watchdog: WATCHDOG, attempts: 1 }
    }
}

impl<'a> Journey<'a> {
    /// A new lab's clusters, with the data on alpha.
    pub fn new(lab: &'a Lab) -> Self {
        let alpha = lab.cluster("alpha", &Settings::default());
        let beta = lab.place("beta", &Settings::default());
        let pooler = lab.pooler("gate", alpha.address(), alpha.port);
        Self { lab, bench: Bench::new(), alpha, beta, pooler, outputs: RefCell::default(), legs: Cell::default() }
    }

    /// Which server clients are at, and which they come to next.
    pub fn ends(&self) -> (&Cluster<'a>, &Cluster<'a>) {
        let is_home = self.outputs.borrow().get("primary").is_none_or(|primary| primary["host"] == "alpha");
        if is_home { (&self.alpha, &self.beta) } else { (&self.beta, &self.alpha) }
    }

    /// Begins the next leg: a standby follows, made anew or of the old primary of the leg before. Clients write. What is
    /// left to be done is the cutover.
    pub fn set_out(&self, leg: Leg) -> Ledger {
        let first = match &*self.outputs.borrow() {
            Value::Null => "  - { id: standby, uses: postgres.replica, with: { from: alpha, to: beta } }\n".to_owned(),
            over => format!("  - {{ id: standby, uses: postgres.failback, with: {{ cutover: {over} }} }}\n"),
        };
        let text = format!(
            "{}steps:\n{first}  - id: cutover\n    uses: postgres.cutover\n    pivot: true\n\
             \x20   retry: {{ attempts: {}, initial: 200ms, max: 500ms }}\n    with:\n\
             \x20     replica: \"{{{{ steps.standby.outputs }}}}\"\n      routers:\n        - pgbouncer: {{ host: gate }}\n\
             \x20     max_lag: 64MiB\n      max_pause: {}ms\n      watchdog: {}ms\n",
            self.lab.yaml(&["alpha", "beta", "gate"]),
            leg.attempts,
            leg.max_pause.as_millis(),
            leg.watchdog.as_millis()
        );
        self.bench.write("leg.yaml", &text);
        self.legs.set(self.legs.get() + 1);
        let ran = self.bench.run(&["run", "leg.yaml", "--yes", "--until", "standby"]);
        assert!(self.ends().1.runs(), "{ran:?}");
        self.writers()
    }

    /// Clients begin to write: `kept` and `fresh` through the pooler, `old` and `new` straight to a server each, and `past`
    /// with one connection to the old one for as long as it lasts.
    fn writers(&self) -> Ledger {
        let (old, new) = self.ends();
        let name = |kind: &str| format!("{kind}{}", self.legs.get());
        let clients = [
            (name("kept"), self.pooler.url(), Habit::Keeps),
            (name("fresh"), self.pooler.url(), Habit::Anew),
            (name("past"), old.url(), Habit::Keeps),
            (name("old"), old.url(), Habit::Anew),
            (name("new"), new.url(), Habit::Anew),
        ];
        let ledger = old.ledger(&clients.each_ref().map(|(name, url, habit)| (name.as_str(), url.clone(), *habit)));
        ledger.under_way();
        ledger
    }

    /// A runner takes the run up, and is left at work.
    pub fn start(&self) -> Started {
        self.bench.start(&["resume", "last", "--yes"])
    }

    /// Takes the run up, to its end.
    pub fn resume(&self) -> Ran {
        self.bench.run(&["resume", "last", "--yes"])
    }

    /// The events of the last run.
    pub fn events(&self) -> Vec<Event> {
        let Ok(journal) = Journal::read(self.bench.path(".ferry")) else { return Vec::new() };
        let records = journal.find_run("last").and_then(|run| journal.records(&run));
        records.unwrap_or_default().into_iter().map(|record| record.event).collect()
    }

    /// Whether the run has passed its pivot.
    pub fn is_past(&self) -> bool {
        self.events().iter().any(|event| matches!(event, Event::PivotPassed { .. }))
    }

    /// The leg is over: clients are at the other server, and everything is as it should be. `what` it was, for messages.
    #[track_caller]
    pub fn arrived(&self, ran: &Ran, ledger: Ledger, what: &str) {
        let (old, new) = self.ends();
        let output = self.events().into_iter().rev().find_map(|event| match event {
            Event::AttemptEnded { step, outcome: Outcome::Succeeded { output, .. }, .. } if step.as_str() == "cutover" => {
                Some(output)
            }
            _ => None,
        });
        assert!(ran.code == Some(0), "{what}: {ran:?}");
        ledger.under_way();
        let seen = ledger.stop();
        self.is_sound(&seen, what);
        assert!(!new.is_in_recovery() && !old.runs(), "{what}");
        assert!(seen.is_whole_on(new) > 100, "{what}");
        assert_eq!(self.left(new), "", "{what}: something is left of the leg");
        *self.outputs.borrow_mut() = output.unwrap_or_default();
    }

    /// The leg was rolled back: clients are where they were, and nothing is left.
    #[track_caller]
    pub fn went_back(&self, ledger: Ledger, what: &str) {
        let (old, new) = self.ends();
        ledger.under_way();
        let seen = ledger.stop();
        self.is_sound(&seen, what);
        let fresh = seen.client(&format!("new{}", self.legs.get()));
        assert!(fresh.acknowledged.is_empty() && !new.runs(), "{what}");
        assert!(seen.is_whole_on(old) > 100, "{what}");
        assert_eq!(self.left(old), "", "{what}: something is left of the leg");
    }

    /// What holds for each leg: never two that accept writes, and nobody who waits longer than the watchdog lets them.
    #[track_caller]
    fn is_sound(&self, seen: &crate::lab::ledger::Seen, what: &str) {
        let name = |kind: &str| format!("{kind}{}", self.legs.get());
        seen.never_both(&name("old"), &name("new"));
        seen.never_both(&name("past"), &name("new"));
        for kind in ["kept", "fresh"] {
            let waited = seen.client(&name(kind)).waited;
            assert!(waited < WATCHDOG + SLACK, "{what}: a client has waited {waited:?}");
        }
    }

    /// What lies about that is not to, with the clients at this server: on the hosts, at the server, in the pooler.
    fn left(&self, primary: &Cluster<'_>) -> String {
        let gate = self.lab.host("gate");
        let mut left = primary.host.says(&format!("ls -A {} {} | grep ferry; true", primary.data, primary.configuration));
        // A guard of a connection that was killed needs a moment to see that it is alone.
        let temporary = || {
            let asked = "ls -A /tmp | grep ferry; pgrep -f '[w]atchdog'; true";
            ["alpha", "beta", "gate"].map(|host| self.lab.host(host).says(asked)).concat()
        };
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while !temporary().is_empty() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        left.push_str(&temporary());
        let files = gate.says("ls /etc/pgbouncer");
        if files != "pgbouncer.ini\nuserlist.txt" {
            left.push_str(&files);
        }
        let asked =
            "select rolname from pg_roles where rolname like 'ferry%' union all select slot_name from pg_replication_slots";
        left.push_str(&primary.sql(asked));
        let ini = gate.says("cat /etc/pgbouncer/pgbouncer.ini");
        let databases = self.pooler.admin("show databases");
        let app = databases.lines().find(|line| line.starts_with("app|")).unwrap_or_default();
        let leads = |text: &str| text.contains(&format!("host={} ", primary.address()));
        if !leads(&ini) || !app.contains(&format!("|{}|", primary.address())) || !app.ends_with("|0|0") {
            let _ = write!(left, "the pooler leads elsewhere or is paused: {app}\n{ini}");
        }
        left
    }

    /// Waits until clients are held back: there are places for all of them, and yet one has waited for a while.
    pub fn is_paused(&self) {
        until("the pooler holds clients back", || {
            let waited = self.pooler.pool("maxwait") * 1_000_000 + self.pooler.pool("maxwait_us");
            (waited > 300_000).then_some(())
        });
    }
}
