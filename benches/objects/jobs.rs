//! The work that is measured.

/// Between which servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Our own, in memory.
    Memory,
    /// Two of Garage.
    Garage,
    /// Garage and Azurite.
    GarageToAzure,
}

/// One job.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its name on the command line.
    pub name: &'static str,
    /// What the table calls it.
    pub title: String,
    /// Between which servers.
    pub ends: Ends,
    /// How many objects.
    pub count: u64,
    /// The size of each in bytes.
    pub size: u64,
    /// The target holds all of it already, put there by an earlier run of the same tool.
    pub is_unchanged: bool,
    /// Milliseconds before each answer.
    pub latency: u64,
    /// MB/s per connection; 0 is no limit.
    pub rate: u64,
}

impl Job {
    fn new(name: &'static str, title: &str, count: u64, size: u64) -> Self {
        Self { name, title: title.to_owned(), ends: Ends::Memory, count, size, is_unchanged: false, latency: 0, rate: 0 }
    }

    fn unchanged(self) -> Self {
        Self { is_unchanged: true, title: format!("{}, unchanged", self.title), ..self }
    }

    fn far(self, name: &'static str) -> Self {
        Self { name, title: format!("{}, 20 ms and 50 MB/s", self.title), latency: 20, rate: 50, ..self }
    }

    fn between(self, ends: Ends, words: &str) -> Self {
        Self { title: format!("{}, {words}", self.title), ends, ..self }
    }

    /// Whether its objects go in parts.
    pub fn is_large(&self) -> bool {
        self.size > 64 << 20
    }

    /// What fills the bucket `box` of a server with it.
    pub fn fill(&self) -> String {
        format!("box:{},{}", self.count, self.size)
    }

    /// Whether it needs servers that are not installed unasked: then it runs only when it is named.
    pub fn is_named_only(&self) -> bool {
        self.ends != Ends::Memory
    }

    /// Whether it would take minutes with one request after the other.
    pub fn is_long_one_by_one(&self) -> bool {
        let waits = 2 * self.count * self.latency;
        let bytes = if self.rate == 0 { 0 } else { 2 * self.count * self.size / (self.rate * 1000) };
        waits + bytes > 120_000
    }
}

/// All jobs. `share` of 100 is all objects; less is a quick look.
pub fn all(share: u64) -> Vec<Job> {
    let (small, middle, large) = (4 << 10, 1 << 20, 2 << 30);
    let mut jobs = vec![
        Job::new("small", "10,000 × 4 KiB", 10_000, small),
        Job::new("middle", "1,000 × 1 MiB", 1000, middle),
        Job::new("large", "2 × 2 GiB", 2, large),
        Job::new("unchanged", "10,000", 10_000, small).unchanged(),
        Job::new("unchanged-50k", "50,000", 50_000, small).unchanged(),
        Job::new("", "50,000", 50_000, small).unchanged().far("unchanged-far"),
        Job::new("", "10,000 × 4 KiB", 10_000, small).far("small-far"),
        Job::new("", "1,000 × 1 MiB", 1000, middle).far("middle-far"),
        Job::new("", "2 × 2 GiB", 2, large).far("large-far"),
        Job::new("garage", "10,000 × 4 KiB", 10_000, small).between(Ends::Garage, "Garage to Garage"),
        Job::new("garage-middle", "1,000 × 1 MiB", 1000, middle).between(Ends::Garage, "Garage to Garage"),
        Job::new("garage-azure", "10,000 × 4 KiB", 10_000, small).between(Ends::GarageToAzure, "Garage to Azurite"),
    ];
    if share != 100 {
        for job in &mut jobs {
            job.title = format!("{share} % of {}", job.title);
            if job.is_large() {
                job.size = (job.size * share / 100).max(65 << 20);
            } else {
                job.count = (job.count * share / 100).max(1);
            }
        }
    }
    jobs
}
