//! The buckets of a service.

use super::super::types::BucketError;
use super::super::xml::{self, Met};
use super::S3;
use super::request::Call;
use crate::error::StepError;
use crate::stores::Bucket;

impl S3 {
    /// The buckets that the key may see, in the service's order.
    pub async fn buckets(&self) -> Result<Vec<Bucket>, BucketError> {
        let host = self.place().address.host().to_owned();
        let doing = format!("cannot list the buckets of `{host}`");
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let query = token.iter().map(|token| ("continuation-token", token.as_str())).collect();
            let answer = self.send(Call { query, ..Call::default() }).await.map_err(|refusal| refusal.into_step(&doing))?;
            let (buckets, next) = parse(answer.body())?;
            found.extend(buckets);
            if next.is_none() || next == token {
                return Ok(found);
            }
            token = next;
        }
    }
}

fn parse(body: &[u8]) -> Result<(Vec<Bucket>, Option<String>), StepError> {
    let (mut found, mut next, mut is_listing) = (Vec::new(), None, false);
    let mut bucket: Option<Bucket> = None;
    xml::read(body, |met| match (met, &mut bucket) {
        (Met::Open("ListAllMyBucketsResult"), _) => is_listing = true,
        (Met::Open("Bucket"), _) => bucket = Some(Bucket { name: String::new(), created: None }),
        (Met::Close("Name", name), Some(bucket)) => bucket.name = name,
        (Met::Close("CreationDate", at), Some(bucket)) => bucket.created = at.trim().parse().ok(),
        (Met::Close("Bucket", _), _) => found.extend(bucket.take()),
        (Met::Close("ContinuationToken", token), None) => next = Some(token).filter(|token| !token.is_empty()),
        _ => {}
    })?;
    if is_listing {
        return Ok((found, next));
    }
    Err(StepError::permanent("the store's answer is no list of buckets")
        .help("see that `endpoint` is the service itself, and not a page, a proxy or a bucket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_read() {
        let xml = "<ListAllMyBucketsResult><Owner><ID>o</ID><DisplayName>d</DisplayName></Owner><Buckets><Bucket><Name>a</Name>\
                   <CreationDate>2026-01-02T03:04:05.000Z</CreationDate></Bucket><Bucket><Name>b</Name></Bucket></Buckets>\
                   <ContinuationToken>t</ContinuationToken></ListAllMyBucketsResult>";
        let (found, next) = parse(xml.as_bytes()).expect("a list");
        assert_eq!(found.iter().map(|bucket| bucket.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(found[0].created.is_some() && next.as_deref() == Some("t"));
        assert!(parse(b"<html></html>").is_err());
    }
}
