//! The containers of an account.

use super::super::types::BucketError;
use super::super::xml::{self, Met};
use super::Azblob;
use super::request::Call;
use crate::error::StepError;
use crate::stores::Bucket;

impl Azblob {
    /// The containers of the account, in byte order.
    pub async fn containers(&self) -> Result<Vec<Bucket>, BucketError> {
        let doing = format!("cannot list the containers of `{}`", self.account.host());
        let mut found = Vec::new();
        let mut marker: Option<String> = None;
        loop {
            let mut query = vec![("comp", "list")];
            query.extend(marker.iter().map(|marker| ("marker", marker.as_str())));
            let answer = self.send(Call { query, ..Call::default() }).await.map_err(|refusal| refusal.into_step(&doing))?;
            let (containers, next) = parse(answer.body())?;
            found.extend(containers);
            if next.is_none() || next == marker {
                return Ok(found);
            }
            marker = next;
        }
    }
}

fn parse(body: &[u8]) -> Result<(Vec<Bucket>, Option<String>), StepError> {
    let (mut found, mut next, mut is_listing) = (Vec::new(), None, false);
    let mut container: Option<Bucket> = None;
    xml::read(body, |met| match (met, &mut container) {
        (Met::Open("Containers"), _) => is_listing = true,
        (Met::Open("Container"), _) => container = Some(Bucket { name: String::new(), created: None }),
        (Met::Close("Name", name), Some(container)) => container.name = name,
        (Met::Close("Last-Modified", at), Some(container)) => {
            container.created = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(at.trim()).ok();
        }
        (Met::Close("Container", _), _) => found.extend(container.take()),
        (Met::Close("NextMarker", marker), None) => next = Some(marker).filter(|marker| !marker.is_empty()),
        _ => {}
    })?;
    if is_listing {
        return Ok((found, next));
    }
    Err(StepError::permanent("the store's answer is no list of containers")
        .help("see that `endpoint` is the account itself, and not a page, a proxy or a container"))
}
