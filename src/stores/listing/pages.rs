//! The pages of a bucket, in order, and several ranges of its names at once.
//!
//! One listing gives a thousand names a request, one request after the other: a hundred million objects at 50 ms are
//! more than an hour. So where whoever reads has to wait for pages, ranges of names that lie ahead are listed beside. Where
//! they end is guessed ([`Stride`]); what is given out is the same as from one listing, in the same order, because each
//! range begins behind the name where the one before it ends.
//!
//! In memory: at most [`MOST_RANGES`] ranges with [`PAGES`] pages each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::guess::Stride;
use crate::error::StepError;
use crate::stores::bucket::{Bucket, BucketError, Circle, Entry, PageQuery};

/// Pages that wait to be taken, of each range, and about how many a range is meant to have.
const PAGES: usize = 4;
/// What services give at once.
const PAGE: u64 = 1000;
/// How many ranges are listed at once.
const MOST_AT_ONCE: usize = 8;
/// How many ranges there may be, the finished ones with them.
const MOST_RANGES: usize = 16;
/// Whoever waited for so long for a page could do with more of them.
const LONG: Duration = Duration::from_millis(10);
/// So many more pages that were waited for than such that were there, and more ranges are listed: one alone is chance.
const MOST_WAITS: u32 = 2;
/// After so many pages without a wait fewer ranges are listed: whoever reads is the limit.
const READY: u32 = 64;
/// After so many more useless ranges than useful ones no more are guessed for a while.
const MOST_USELESS: i32 = 16;
/// How many pages that while is.
const WHILE: u32 = 200;

/// Why there is no page.
pub(super) enum Trouble {
    /// The bucket does not list in order of the bytes of the names.
    Unordered,
    /// Something else.
    Failed(StepError),
}

/// A listing by pages.
pub(super) struct Pages {
    bucket: Arc<dyn Bucket>,
    prefix: String,
    label: Arc<str>,
    ranges: VecDeque<Range>,
    /// How many ranges are to be listed at once.
    width: usize,
    /// How the last page went on.
    stride: Option<Stride>,
    /// Pages that were waited for, less those that were there.
    waits: u32,
    /// Pages in a row that were there.
    ready: u32,
    /// Useful ranges less useless ones.
    score: i32,
    /// No range is guessed before so many more pages were taken.
    pause: u32,
    throttled: u64,
    taken: u64,
    /// A name that the range before saw behind its end: the next one has to have it.
    seen_behind: Option<String>,
    /// A page that is looked at before it is given out.
    held: Option<Vec<Entry>>,
}

/// Names behind one and up to another, listed by a task of its own.
struct Range {
    after: Option<String>,
    pages: mpsc::Receiver<Message>,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
    /// Names taken out of it.
    names: usize,
}

#[derive(Default)]
struct State {
    /// The last name that belongs to it. `None`: all to the end.
    until: Option<String>,
    /// How far it has come.
    last: Option<String>,
    pages: usize,
    /// It has a page that there is no room for.
    is_waiting: bool,
    is_over: bool,
}

enum Message {
    Page(Vec<Entry>),
    /// There are no more; perhaps a name was seen that lies behind the end.
    Over(Option<String>),
    Failed(Trouble),
}

impl Drop for Range {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pages {
    /// All whole keys below a prefix, from behind one.
    pub fn new(bucket: Arc<dyn Bucket>, prefix: String, label: Arc<str>, after: Option<String>) -> Self {
        let mut pages = Self {
            throttled: bucket.throttled(),
            bucket,
            prefix,
            label,
            ranges: VecDeque::new(),
            width: 1,
            stride: None,
            waits: 0,
            ready: 0,
            score: 0,
            pause: 0,
            taken: 0,
            seen_behind: None,
            held: None,
        };
        // Who wants only a few names shall not cause many requests.
        let first = pages.range(after, None, 1);
        pages.ranges.push_back(first);
        pages
    }

    /// The next page, `None` at the end. Whoever stops waiting loses no page.
    pub async fn next(&mut self) -> Result<Option<Vec<Entry>>, Trouble> {
        loop {
            if self.held.is_some() || self.ranges.is_empty() {
                self.must_be_listed().await?;
                return Ok(self.held.take());
            }
            let Some(front) = self.ranges.front_mut() else { continue };
            let must_wait = front.pages.is_empty();
            let began = Instant::now();
            match front.pages.recv().await {
                Some(Message::Page(entries)) => {
                    front.names += entries.len();
                    let has_waited = must_wait && self.taken > 0 && began.elapsed() >= LONG;
                    self.taken += 1;
                    self.spread(has_waited, &entries);
                    self.held = Some(entries);
                }
                Some(Message::Over(seen)) => {
                    let was_useful = front.names > 0;
                    self.score = (self.score + if was_useful { 1 } else { -1 }).min(MOST_USELESS);
                    self.ranges.pop_front();
                    self.seen_behind = self.seen_behind.take().or(seen);
                }
                Some(Message::Failed(trouble)) => return Err(trouble),
                None => return Err(Trouble::Failed(StepError::permanent("a page got lost: a bug of ferry"))),
            }
        }
    }

    /// Sees that two ranges meet where they should: a bucket with an order of its own could lose names there.
    async fn must_be_listed(&mut self) -> Result<(), Trouble> {
        let first = self.held.as_ref().and_then(|page| page.first()).map(|entry| &entry.key);
        let Some(seen) = self.seen_behind.as_ref().filter(|seen| first.is_none_or(|first| first > *seen)) else {
            self.seen_behind = None;
            return Ok(());
        };
        match self.bucket.head(seen).await {
            // Deleted meanwhile.
            Err(BucketError::Missing) => self.seen_behind = None,
            Ok(_) => return Err(Trouble::Unordered),
            Err(error) => return Err(Trouble::Failed(self.cannot_list(error))),
        }
        Ok(())
    }

    fn cannot_list(&self, error: BucketError) -> StepError {
        error.into_step(&format!("cannot list `{}`", self.label))
    }

    /// Lists more ranges beside, if that helps.
    fn spread(&mut self, has_waited: bool, page: &[Entry]) {
        let throttled = self.bucket.throttled();
        if throttled > self.throttled {
            self.throttled = throttled;
            self.width = (self.width / 2).max(1);
            self.pause = WHILE;
        }
        if self.score <= -MOST_USELESS {
            (self.score, self.pause) = (0, WHILE);
        }
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        (self.waits, self.ready) = if has_waited { (self.waits + 1, 0) } else { (self.waits.saturating_sub(1), self.ready + 1) };
        if self.waits >= MOST_WAITS {
            (self.waits, self.width) = (0, (self.width * 4).min(MOST_AT_ONCE));
        } else if self.ready >= READY {
            (self.ready, self.width) = (0, (self.width / 2).max(1));
        }
        if self.width == 1 || !self.bucket.can().starts_after {
            return;
        }
        self.stride = Stride::of(page.iter().map(|entry| entry.key.as_str())).or(self.stride.take());
        let Some(stride) = self.stride.clone() else { return };
        let prefix = self.prefix.chars().count();
        while self.ranges.len() < MOST_RANGES && self.ranges.iter().filter(|range| range.is_busy()).count() < self.width {
            // The first one that is known to be long.
            let Some(at) = self.ranges.iter().position(Range::is_long) else { return };
            let Some((from, until)) = self.ranges[at].split(&stride, prefix) else { return };
            let range = self.range(Some(from), until, PAGES);
            self.ranges.insert(at + 1, range);
        }
    }

    fn range(&self, after: Option<String>, until: Option<String>, room: usize) -> Range {
        let (sender, pages) = mpsc::channel(room);
        let state = Arc::new(Mutex::new(State { until, ..State::default() }));
        let query = PageQuery { prefix: self.prefix.clone(), start_after: after.clone(), ..PageQuery::default() };
        let (bucket, label, shared) = (self.bucket.clone(), self.label.clone(), state.clone());
        let task = tokio::spawn(async move {
            if let Err(trouble) = list(&*bucket, query, &label, &shared, &sender).await {
                let _ = sender.send(Message::Failed(trouble)).await;
            }
        });
        Range { after, pages, state, task, names: 0 }
    }
}

/// Lists one range.
async fn list(
    bucket: &dyn Bucket,
    mut query: PageQuery,
    label: &str,
    state: &Mutex<State>,
    to: &mpsc::Sender<Message>,
) -> Result<(), Trouble> {
    let mut circle = Circle::default();
    loop {
        let page = bucket.list(query.clone()).await;
        let page = page.map_err(|error| Trouble::Failed(error.into_step(&format!("cannot list `{label}`"))))?;
        let mut entries = page.entries;
        if !entries.is_sorted_by(|a, b| a.key < b.key) {
            return Err(Trouble::Unordered);
        }
        let is_further = entries.last().is_some_and(|entry| lock(state).last.as_ref().is_none_or(|last| entry.key > *last));
        if page.next.as_ref().is_some_and(|next| !circle.goes_on(next, is_further)) {
            return Err(Trouble::Failed(Circle::failure(label)));
        }
        // A service may take no notice of where it is to begin.
        let before = query.start_after.as_ref().map_or(0, |after| entries.partition_point(|entry| entry.key <= *after));
        entries.drain(..before);
        let mut behind = None;
        let is_over = {
            let mut state = lock(state);
            if let Some(until) = &state.until {
                let own = entries.partition_point(|entry| entry.key <= *until);
                behind = entries.get(own).map(|entry| entry.key.clone());
                entries.truncate(own);
            }
            state.pages += 1;
            state.last = entries.last().map(|entry| entry.key.clone()).or(state.last.take());
            state.is_over = behind.is_some() || page.next.is_none();
            state.is_waiting = to.capacity() == 0;
            state.is_over
        };
        if !entries.is_empty() && to.send(Message::Page(entries)).await.is_err() {
            return Ok(());
        }
        lock(state).is_waiting = false;
        if is_over {
            let _ = to.send(Message::Over(behind)).await;
            return Ok(());
        }
        query.token = page.next;
    }
}

impl Range {
    /// Whether a request of it is under way: it has neither come to its end nor to that of the room it has.
    fn is_busy(&self) -> bool {
        let state = lock(&self.state);
        !state.is_over && !state.is_waiting
    }

    /// Whether there is no end of it, or one that was a bad guess.
    fn is_long(&self) -> bool {
        let state = lock(&self.state);
        !state.is_over && (state.until.is_none() || state.pages > 2 * PAGES)
    }

    /// Ends it some pages ahead; gives the name behind which the rest begins, and where that ends.
    fn split(&self, stride: &Stride, prefix: usize) -> Option<(String, Option<String>)> {
        let mut state = lock(&self.state);
        let from = state.last.as_ref().or(self.after.as_ref())?;
        let to = stride.ahead(from, PAGES as u64 * PAGE, prefix)?;
        if state.is_over || state.until.as_ref().is_some_and(|until| to >= *until) {
            return None;
        }
        state.pages = 0;
        Some((to.clone(), state.until.replace(to)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::Ordering;

    use super::super::synthetic::Synthetic;
    use super::*;

    async fn list_all(bucket: &Arc<Synthetic>, after: Option<&str>) -> Result<Vec<String>, Trouble> {
        let mut pages = Pages::new(bucket.clone(), String::new(), "it".into(), after.map(str::to_owned));
        let mut names = Vec::new();
        while let Some(page) = pages.next().await? {
            names.extend(page.into_iter().map(|entry| entry.key));
        }
        Ok(names)
    }

    async fn must_list(names: BTreeSet<String>, after: Option<&str>) -> Arc<Synthetic> {
        let expected: Vec<String> =
            names.iter().filter(|name| after.is_none_or(|after| name.as_str() > after)).cloned().collect();
        let bucket = Arc::new(Synthetic::new(names));
        let listed = list_all(&bucket, after).await.unwrap_or_else(|_| panic!("it lists"));
        assert!(listed == expected, "{} names instead of {}", listed.len(), expected.len());
        bucket
    }

    #[tokio::test]
    async fn a_flat_bucket_far_away_is_listed_in_ranges() {
        let bucket = must_list((0..80_000).map(|n| format!("object-{n:09}")).collect(), None).await;
        let (at_once, requests) = (bucket.most_at_once.load(Ordering::Relaxed), bucket.requests.load(Ordering::Relaxed));
        // One that waits for room may go on when others have begun.
        assert!((MOST_AT_ONCE..MOST_AT_ONCE + 4).contains(&at_once), "{at_once}");
        assert!(requests < 80 + 40, "{requests}");
    }

    #[tokio::test]
    async fn hashes_and_folders_are_listed_in_ranges_too() {
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let shapes: [fn(u64, u64) -> String; 5] = [
            |_, hash| format!("{hash:016x}"),
            |n, _| format!("2026/{:02}/{:02}/{:06}.log", n % 12, n % 28, n),
            |n, hash| format!("user{}/{}/{n}", hash % 1000, hash % 7),
            |n, hash| format!("{:02x}/{:04x}-{:08x}/ü{n}", hash % 256, hash % 65536, hash >> 32),
            |n, _| format!("{n}"),
        ];
        for (at, shape) in shapes.iter().enumerate() {
            let names: BTreeSet<String> = (0..60_000).map(|n| shape(n, hash(n))).collect();
            let bucket = must_list(names, None).await;
            let (at_once, requests) = (bucket.most_at_once.load(Ordering::Relaxed), bucket.requests.load(Ordering::Relaxed));
            println!("shape {at}: {at_once} at once, {requests} requests for 60 pages, {:?}", bucket.since.elapsed());
            // How many guesses are tried depends on how fast pages come.
            assert!(at_once > 4 && requests < 180, "shape {at}: {at_once} at once, {requests} requests");
        }
    }

    #[tokio::test]
    async fn odd_distributions_lose_nothing() {
        // Lumps: names that get long, alike, and jump.
        let lumps = |n: u64| match n % 3 {
            0 => format!("a{}", "z".repeat((n % 500) as usize)) + &n.to_string(),
            1 => format!("logs/{:03}", n / 40),
            _ => format!("\u{10fffe}{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 3000),
        };
        let names: BTreeSet<String> = (0..60_000).map(lumps).collect();
        let middle = names.iter().nth(names.len() / 2).cloned();
        must_list(names.clone(), None).await;
        must_list(names, middle.as_deref()).await;
    }

    #[tokio::test]
    async fn a_service_without_start_after_is_listed_whole() {
        let names: BTreeSet<String> = (0..30_000).map(|n| format!("{n:06}")).collect();
        let bucket = Arc::new(Synthetic { ignores_start: true, ..Synthetic::new(names.clone()) });
        let listed = list_all(&bucket, None).await.unwrap_or_else(|_| panic!("it lists"));
        assert!(listed == names.into_iter().collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn names_that_a_range_does_not_list_are_missed() {
        let names: BTreeSet<String> = (0..40_000).map(|n| format!("{n:06}")).collect();
        let bucket = Arc::new(Synthetic { skips_first_behind_start: true, ..Synthetic::new(names) });
        assert!(matches!(list_all(&bucket, None).await, Err(Trouble::Unordered)));
    }
}
