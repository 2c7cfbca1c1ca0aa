//! Buckets asked directly: keys that are exact, uploads that go on after a restart, conditions, checksums, bad weather.

#[path = "bucket/azure.rs"]
mod azure;
#[path = "bucket/fake.rs"]
mod fake;
#[path = "bucket/keys.rs"]
mod keys_exact;
#[path = "bucket/odd.rs"]
mod odd;
#[path = "bucket/s3.rs"]
mod s3;
#[path = "bucket/weather.rs"]
mod weather;

mod parts;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ferry::secret::Vault;
use ferry::stores::bucket::{Bucket, Carry, PageQuery};
use ferry::stores::{Patience, StoreOptions, Stores};

/// Short, so that what never answers is noticed.
const PATIENCE: Patience = Patience {
    request: Duration::from_secs(5),
    transfer: Duration::from_secs(5),
    repeats: 3,
    wait: Duration::from_millis(10),
    at_once: 64,
};

/// A copy with all that the source has.
const KEPT: Carry<'static> = Carry::Kept { storage_class: None, tags: true };

/// A client of its own: nothing that another has learned is known to it.
fn open(options: StoreOptions) -> Arc<dyn Bucket> {
    open_with(options, PATIENCE)
}

fn open_with(options: StoreOptions, patience: Patience) -> Arc<dyn Bucket> {
    let stores = Stores::with_patience(BTreeMap::from([("it".to_owned(), options)]), Vault::default(), patience);
    stores.open("it:", Path::new("/")).expect("it opens").bucket().expect("it is a bucket")
}

/// All keys below a prefix, page by page.
async fn keys(bucket: &dyn Bucket, prefix: &str, most: u32) -> Vec<String> {
    let mut query = PageQuery { prefix: prefix.to_owned(), most, ..PageQuery::default() };
    let mut keys = Vec::new();
    loop {
        let page = bucket.list(query.clone()).await.expect("it lists");
        keys.extend(page.entries.into_iter().map(|entry| entry.key));
        match page.next {
            Some(next) => query.token = Some(next),
            None => return keys,
        }
    }
}
