//! What a server says of a backup at its end: the label with the place where replay begins.

use super::super::name::WalFile;
use crate::error::StepError;

/// What a label says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    /// `START WAL LOCATION`.
    pub start: String,
    /// The segment in which that is.
    pub segment: WalFile,
}

impl Label {
    pub fn parse(text: &str) -> Result<Self, StepError> {
        let read = || {
            let rest = text.lines().find_map(|line| line.strip_prefix("START WAL LOCATION: "))?;
            let (start, file) = rest.split_once(" (file ")?;
            Some(Self { start: start.to_owned(), segment: WalFile::parse(file.trim_end_matches(')'))? })
        };
        read().ok_or_else(|| StepError::permanent("the server's backup label does not say where replay begins"))
    }
}

/// A place in the log as a number.
pub(super) fn place(lsn: &str) -> Option<u64> {
    let (high, low) = lsn.split_once('/')?;
    Some(u64::from(u32::from_str_radix(high, 16).ok()?) << 32 | u64::from(u32::from_str_radix(low, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_says_where_replay_begins() {
        let label = Label::parse(
            "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\nSTART TIMELINE: 1\n",
        );
        let label = label.expect("a label");
        assert_eq!((label.start.as_str(), label.segment.as_str()), ("0/2000028", "000000010000000000000002"));
        assert!(Label::parse("nothing").is_err());
        assert_eq!(place("16/B374D848"), Some(0x16_B374_D848));
    }
}
