//! Names of what PostgreSQL archives: segments, their last part on an old timeline, histories, labels of backups.

use std::fmt;

/// The name of a file that PostgreSQL asks to archive, or asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalFile {
    name: String,
}

impl WalFile {
    /// The file of this name; `None` for what PostgreSQL never archives.
    pub fn parse(name: &str) -> Option<Self> {
        let is_hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
        };
        let (first, rest) = name.split_once('.').unwrap_or((name, ""));
        let is_known = match rest {
            "" => name.len() == 24 && is_hex(first, 24),
            "partial" => is_hex(first, 24),
            "history" => is_hex(first, 8),
            _ => is_hex(first, 24) && rest.strip_suffix(".backup").is_some_and(|offset| is_hex(offset, 8)),
        };
        is_known.then(|| Self { name: name.to_owned() })
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whether it is a whole segment.
    pub fn is_segment(&self) -> bool {
        self.name.len() == 24
    }

    /// Whether it holds a segment's bytes: a whole one, or the last one of a timeline.
    pub fn holds_log(&self) -> bool {
        self.is_segment() || self.name.ends_with(".partial")
    }

    /// Where it lies in an archive: segments in folders of a few hundred, histories beside them.
    pub fn key(&self) -> String {
        match self.name.get(..16) {
            Some(folder) if !self.name.ends_with(".history") => format!("wal/{folder}/{}", self.name),
            _ => format!("wal/{}", self.name),
        }
    }

    /// The place in the log at which its segment begins, if segments are this long.
    pub fn start(&self, segment: u64) -> Option<u64> {
        let number = |range: std::ops::Range<usize>| u64::from_str_radix(self.name.get(range)?, 16).ok();
        if !self.holds_log() || !is_segment_size(segment) {
            return None;
        }
        let low = number(16..24)?;
        (low < (1 << 32) / segment).then_some((number(8..16)? << 32) | (low * segment))
    }

    /// The timeline it belongs to.
    pub fn timeline(&self) -> u32 {
        self.name.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default()
    }

    /// The segment of this timeline that holds a place in the log.
    pub fn at(timeline: u32, place: u64, segment: u64) -> Self {
        let low = (place & 0xffff_ffff) / segment;
        Self { name: format!("{timeline:08X}{:08X}{low:08X}", place >> 32) }
    }

    /// The segment behind this one.
    pub fn next(&self, segment: u64) -> Option<Self> {
        let start = self.start(segment).filter(|_| self.is_segment())?;
        Some(Self::at(self.timeline(), start.checked_add(segment)?, segment))
    }
}

impl fmt::Display for WalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whether segments can be this long: a power of two between 1 MiB and 1 GiB.
pub(super) fn is_segment_size(size: u64) -> bool {
    size.is_power_of_two() && (1 << 20..=1 << 30).contains(&size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_by_their_form() {
        for (name, key) in [
            ("00000001000000A900000065", "wal/00000001000000A9/00000001000000A900000065"),
            ("00000001000000A900000065.partial", "wal/00000001000000A9/00000001000000A900000065.partial"),
            ("00000001000000A900000065.00000028.backup", "wal/00000001000000A9/00000001000000A900000065.00000028.backup"),
            ("00000002.history", "wal/00000002.history"),
        ] {
            assert_eq!(WalFile::parse(name).expect(name).key(), key);
        }
        for wrong in [
            "",
            "RECOVERYXLOG",
            "00000001000000a900000065",
            "00000001000000A90000006",
            "00000001000000A900000065.",
            "../00000001000000A9000000",
            "00000002.history.tmp",
            "xlogtemp.123",
        ] {
            assert!(WalFile::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn segments_follow_each_other() {
        let segment = |name: &str| WalFile::parse(name).expect(name);
        let next = |name: &str, size: u64| segment(name).next(size).map(|next| next.to_string());
        assert_eq!(next("000000010000000000000001", 16 << 20).as_deref(), Some("000000010000000000000002"));
        assert_eq!(next("0000000100000000000000FF", 16 << 20).as_deref(), Some("000000010000000100000000"));
        assert_eq!(next("000000070000000000000FFF", 1 << 20).as_deref(), Some("000000070000000100000000"));
        assert_eq!(next("000000010000000000000100", 16 << 20), None, "no segment of that size has that number");
        assert_eq!(segment("000000010000000A00000002").start(16 << 20), Some(0xA_0200_0000));
        assert_eq!(next("00000002.history", 16 << 20), None);
    }
}
