//! Two sorted listings merged as streams: each name once, with what either side has of it.

use futures::StreamExt as _;
use futures::stream::{BoxStream, try_unfold};

use super::filter::Filter;
use crate::error::StepError;
use crate::stores::{Listed, Listing, Store};

/// A name, and what either side has of it: at least one has something.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The name.
    pub key: String,
    /// What the source lists.
    pub source: Option<Listed>,
    /// What the target lists.
    pub target: Option<Listed>,
}

struct Merge {
    source: Side,
    target: Side,
    filter: Filter,
}

struct Side {
    listing: Listing,
    head: Option<Listed>,
    is_over: bool,
}

impl Side {
    fn new(listing: Listing) -> Self {
        Self { listing, head: None, is_over: false }
    }

    async fn fill(&mut self, filter: &Filter) -> Result<(), StepError> {
        while self.head.is_none() && !self.is_over {
            match self.listing.next().await? {
                Some(listed) if filter.passes(&listed.key) => self.head = Some(listed),
                Some(_) => {}
                None => self.is_over = true,
            }
        }
        Ok(())
    }
}

/// The pairs of both places in byte order of their names, from behind `after`. The state lies in the stream: dropping
/// a pending `next` loses nothing.
pub fn pairs(
    source: &Store,
    target: &Store,
    after: Option<&str>,
    filter: &Filter,
) -> BoxStream<'static, Result<Pair, StepError>> {
    let merge = Merge { source: Side::new(source.list(after)), target: Side::new(target.list(after)), filter: filter.clone() };
    try_unfold(merge, |mut merge| async move {
        let (source, target) = tokio::join!(merge.source.fill(&merge.filter), merge.target.fill(&merge.filter));
        source?;
        target?;
        let order = match (&merge.source.head, &merge.target.head) {
            (None, None) => return Ok(None),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(source), Some(target)) => source.key.cmp(&target.key),
        };
        let source = if order.is_le() { merge.source.head.take() } else { None };
        let target = if order.is_ge() { merge.target.head.take() } else { None };
        let key = source.as_ref().or(target.as_ref()).map(|listed| listed.key.clone()).unwrap_or_default();
        Ok(Some((Pair { key, source, target }, merge)))
    })
    .boxed()
}
