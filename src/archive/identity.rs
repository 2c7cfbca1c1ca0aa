//! Whose archive it is: one cluster's, told by the number that `initdb` gave it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::depot::Depot;
use super::name::{WalFile, is_segment_size};
use super::spool::Spool;
use crate::error::StepError;

/// The object that says whose archive it is. It is there before the first segment.
pub(super) const KEY: &str = "archive.json";

/// Whose archive it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// The format: 1.
    pub ferry: u32,
    /// The cluster's system identifier, as `pg_controldata` shows it. A text: it is larger than what JSON's numbers hold.
    pub system: String,
    /// Bytes of a segment.
    pub segment: u64,
}

/// What the first page of a segment says.
pub(super) fn of_segment(name: &WalFile, content: &[u8]) -> Result<Identity, StepError> {
    let wrong = |what: &str| {
        StepError::permanent(format!("`{name}` is no segment of the write-ahead log: {what}"))
            .help("see what is in the file; nothing was archived")
    };
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = content.get(at..at + length)?;
        Some(bytes.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)))
    };
    // XLogLongPageHeaderData: magic 0, info 2, timeline 4, address of the page 8, system identifier 24, segment size 32.
    let read = || Some((number(2, 2)?, number(8, 8)?, number(24, 8)?, number(32, 4)?));
    let (info, address, system, segment) = read().ok_or_else(|| wrong("it is too short"))?;
    if info & 2 == 0 || !is_segment_size(segment) {
        return Err(wrong("it does not begin with the header of one (on this machine's byte order)"));
    }
    if name.start(segment) != Some(address) {
        return Err(wrong("its first page belongs to another place in the log"));
    }
    if name.is_segment() && content.len() as u64 != segment {
        return Err(wrong(&format!("it is {} bytes long, and a segment is {segment}", content.len())));
    }
    Ok(Identity { ferry: 1, system: system.to_string(), segment })
}

impl Depot {
    /// Whose archive it is; `None` when nothing was archived yet.
    pub(super) async fn identity(&self) -> Result<Option<Identity>, StepError> {
        let Some(body) = self.read(KEY).await? else { return Ok(None) };
        serde_json::from_slice(&body).map(Some).map_err(|error| {
            StepError::needs_person(format!("`{KEY}` in `{}` is not ferry's", self.label()))
                .cause(error)
                .help("give the archive a place of its own")
        })
    }

    /// Makes the archive this cluster's, or finds that it is. Asked once per spool.
    pub(super) async fn claim(&self, mine: &Identity, spool: &Spool) -> Result<(), StepError> {
        let known = format!("{} {} {}", self.whereabouts(), mine.system, mine.segment);
        if spool.knows(&known) {
            return Ok(());
        }
        let mut found = self.identity().await?;
        if found.is_none() {
            let body = serde_json::to_vec_pretty(mine)
                .map_err(|error| StepError::permanent("cannot write the archive's identity").cause(error))?;
            self.write_new(KEY, Bytes::from(body)).await?;
            // Somebody else may have been there at the same moment.
            found = self.identity().await?;
        }
        let found = found.unwrap_or_else(|| mine.clone());
        if found != *mine {
            let (theirs, ours) = (&found.system, &mine.system);
            return Err(StepError::needs_person(format!(
                "the archive `{}` belongs to the cluster {theirs}, and this is the cluster {ours}",
                self.label()
            ))
            .help("give each cluster an archive of its own: another `place`"));
        }
        spool.remember(&known);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_says_whose_it_is_and_which() {
        let mut content = vec![0_u8; 1 << 20];
        content[2] = 2;
        content[4] = 1;
        content[8..16].copy_from_slice(&(3_u64 << 20).to_le_bytes());
        content[24..32].copy_from_slice(&7_416_000_000_000_000_001_u64.to_le_bytes());
        content[32..36].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        let name = |name: &str| WalFile::parse(name).expect(name);
        let found = of_segment(&name("000000010000000000000003"), &content).expect("a segment");
        assert_eq!((found.system.as_str(), found.segment), ("7416000000000000001", 1 << 20));
        let error = of_segment(&name("000000010000000000000004"), &content).expect_err("another one");
        assert!(error.message.contains("another place"), "{error}");
        assert!(of_segment(&name("000000010000000000000003"), &content[..1 << 19]).is_err());
        assert!(of_segment(&name("000000010000000000000003.partial"), &content[..1 << 19]).is_ok());
        assert!(of_segment(&name("000000010000000000000003"), &vec![0; 1 << 20]).is_err());
    }
}
