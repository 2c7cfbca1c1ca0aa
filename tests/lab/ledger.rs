//! A ledger: clients that write ever higher numbers, and remember which were acknowledged and when. What was
//! acknowledged has to be found exactly once wherever the clients have been led to, and no two servers may ever accept
//! writes at the same time.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

use super::postgres::Cluster;
use super::until;

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// One connection for as long as it lasts.
    Keeps,
    /// A new connection for every write.
    Anew,
}

/// Clients at work.
pub struct Ledger {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Client>>,
}

/// What a client has seen.
pub struct Client {
    /// Its name.
    pub name: String,
    /// Numbers that were acknowledged: when the write began, and when it was known to be done.
    pub acknowledged: Vec<(i64, Instant, Instant)>,
    /// What else happened: of these numbers nobody can say whether they were written.
    pub errors: Vec<(i64, Instant, String)>,
    /// The longest that it has waited for an answer, good or bad.
    pub waited: Duration,
}

/// What all of them have seen.
pub struct Seen {
    /// Each.
    pub clients: Vec<Client>,
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Cluster<'_> {
    /// Clients of these names, addresses and habits begin to write. The table is made here.
    pub fn ledger(&self, clients: &[(&str, String, Habit)]) -> Ledger {
        self.sql(
            "create table if not exists ledger (client text, number bigint, at timestamptz default clock_timestamp());
             grant all on ledger to app",
        );
        let (stop, acknowledged): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
        let threads = clients.iter().map(|(name, url, habit)| {
            let (name, url, habit) = ((*name).to_owned(), url.clone(), *habit);
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            // In the lab's network, as this thread is.
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(write(name, &url, habit, &stop, &acknowledged))
            })
        });
        Ledger { threads: threads.collect(), stop, acknowledged }
    }
}

/// How long a client rests between writes.
const EVERY: Duration = Duration::from_millis(5);
/// When a client gives a write up.
const PATIENCE: Duration = Duration::from_secs(45);

async fn write(name: String, url: &str, habit: Habit, stop: &AtomicBool, acknowledged: &AtomicUsize) -> Client {
    let mut client = Client { name, acknowledged: Vec::new(), errors: Vec::new(), waited: Duration::ZERO };
    let mut connection = None;
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        let writing = async {
            if connection.is_none() {
                let (database, driver) = tokio_postgres::connect(url, NoTls).await?;
                tokio::spawn(driver);
                connection = Some(database);
            }
            let database = connection.as_ref().expect("it was made above");
            // As one message, which poolers that keep no prepared statements understand.
            database.batch_execute(&format!("insert into ledger values ('{}', {number})", client.name)).await
        };
        let written = tokio::time::timeout(PATIENCE, writing).await;
        client.waited = client.waited.max(began.elapsed());
        match written {
            Ok(Ok(())) => {
                client.acknowledged.push((number, began, Instant::now()));
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Err(error)) => {
                let said = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
                client.errors.push((number, Instant::now(), said));
                connection = None;
            }
            Err(_) => {
                client.errors.push((number, Instant::now(), "no answer".to_owned()));
                connection = None;
            }
        }
        if habit == Habit::Anew {
            connection = None;
        }
        tokio::time::sleep(EVERY).await;
    }
    client
}

impl Ledger {
    /// Waits until a hundred more writes are acknowledged.
    pub fn under_way(&self) {
        let enough = self.acknowledged.load(Ordering::Relaxed) + 100;
        until("the ledger grows", || (self.acknowledged.load(Ordering::Relaxed) > enough).then_some(()));
    }

    /// Lets them come to their end.
    pub fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        Seen { clients: threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect() }
    }
}

impl Seen {
    /// The client of this name.
    pub fn client(&self, name: &str) -> &Client {
        self.clients.iter().find(|client| client.name == name).expect("a client of this name")
    }

    /// Asserts that this cluster has each acknowledged number exactly once, and no number twice. How many there are.
    #[track_caller]
    pub fn is_whole_on(&self, cluster: &Cluster<'_>) -> usize {
        let rows = cluster.sql("select client, number, count(*) from ledger group by 1, 2");
        let mut found: HashMap<(&str, i64), u64> = HashMap::new();
        for row in rows.lines() {
            let fields: Vec<&str> = row.split('|').collect();
            found.insert((fields[0], fields[1].parse().expect("a number")), fields[2].parse().expect("a number"));
        }
        let mut wrong = String::new();
        for ((client, number), times) in found.iter().filter(|(_, times)| **times > 1) {
            let _ = writeln!(wrong, "{client} {number} is there {times} times");
        }
        let mut all = 0;
        for client in &self.clients {
            all += client.acknowledged.len();
            let lost = client.acknowledged.iter().filter(|(number, ..)| !found.contains_key(&(client.name.as_str(), *number)));
            for (number, ..) in lost {
                let _ = writeln!(wrong, "{} {number} was acknowledged and is lost", client.name);
            }
        }
        assert!(wrong.is_empty(), "on `{}`, of {all} acknowledged: {wrong}", cluster.host.name);
        all
    }

    /// Asserts that from the first write that the client `new` was acknowledged on, none that the client `old` began was:
    /// two that go straight to a server each.
    #[track_caller]
    pub fn never_both(&self, old: &str, new: &str) {
        let Some(first) = self.client(new).acknowledged.iter().map(|(_, _, done)| *done).min() else { return };
        let late = self.client(old).acknowledged.iter().filter(|(_, began, _)| *began > first).count();
        assert_eq!(late, 0, "`{old}` accepted {late} writes after `{new}` had accepted one");
    }
}

impl Client {
    /// The longest time from one acknowledged write to the next.
    pub fn gap(&self) -> Duration {
        let pairs = self.acknowledged.windows(2).map(|pair| pair[1].2.saturating_duration_since(pair[0].2));
        pairs.max().unwrap_or_default()
    }
}
