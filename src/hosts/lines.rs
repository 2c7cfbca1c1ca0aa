//! What a program writes, cut into lines for the log, without cutting a secret in two.

use std::ops::Range;

use crate::secret::Vault;

/// A line longer than this goes to the log in parts.
const LONGEST_LINE: usize = 64 << 10;

/// How much of the end of an output is kept for messages.
const TAIL: usize = 4 << 10;

/// Bytes of an output that wait for the end of their line.
pub(in crate::hosts) struct Lines<'a> {
    waiting: Vec<u8>,
    vault: &'a Vault,
}

impl<'a> Lines<'a> {
    pub(in crate::hosts) fn new(vault: &'a Vault) -> Self {
        Self { waiting: Vec::new(), vault }
    }

    /// Takes bytes in and gives every line that they complete.
    pub(in crate::hosts) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        let searched = self.waiting.len();
        self.waiting.extend_from_slice(bytes);
        let mut start = 0;
        let mut from = searched;
        while let Some(end) = self.waiting[from..].iter().position(|byte| *byte == b'\n') {
            let end = from + end;
            line(&text(&self.waiting[start..end]));
            start = end + 1;
            from = start;
        }
        self.waiting.drain(..start);
        while self.waiting.len() > LONGEST_LINE {
            let cut = self.cut();
            line(&text(&self.waiting[..cut]));
            self.waiting.drain(..cut);
        }
    }

    /// Gives what was not ended by a line end.
    pub(in crate::hosts) fn finish(&mut self, mut line: impl FnMut(&str)) {
        if !self.waiting.is_empty() {
            line(&text(&std::mem::take(&mut self.waiting)));
        }
    }

    /// Where an overlong line is parted: not inside a secret, which would be masked in neither part, and so far from
    /// the end that the beginning of one that is still coming stays in the rest.
    fn cut(&self) -> usize {
        let latest = self.waiting.len().saturating_sub(self.vault.longest_form()).max(1);
        let secrets = self.vault.spans(&self.waiting);
        match around(&secrets, whole_character(&self.waiting, latest)) {
            Some(secret) if secret.start > 0 => secret.start,
            Some(secret) => secret.end,
            None => whole_character(&self.waiting, latest),
        }
    }
}

/// The secret that would be parted at a place.
fn around(secrets: &[Range<usize>], place: usize) -> Option<&Range<usize>> {
    secrets.iter().find(|secret| secret.start < place && place < secret.end)
}

/// The last place up to this one that is not inside a character. Bytes that are no text can be parted anywhere.
fn whole_character(bytes: &[u8], place: usize) -> usize {
    let is_inside = |place: &usize| bytes.get(*place).is_some_and(|byte| byte & 0xC0 == 0x80);
    (place.saturating_sub(3).max(1)..=place).rev().find(|place| !is_inside(place)).unwrap_or(place)
}

/// The end of an output, masked, for messages.
pub(in crate::hosts) struct Tail<'a> {
    kept: Vec<u8>,
    is_cut: bool,
    vault: &'a Vault,
    /// What may be the end of a secret whose beginning is gone.
    doubtful: usize,
}

impl<'a> Tail<'a> {
    pub(in crate::hosts) fn new(vault: &'a Vault) -> Self {
        Self { kept: Vec::new(), is_cut: false, vault, doubtful: vault.longest_form() }
    }

    pub(in crate::hosts) fn push(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let over = self.kept.len().saturating_sub(TAIL + 2 * self.doubtful);
        self.is_cut |= over > 0;
        self.kept.drain(..over);
    }

    /// The text, without its first bytes if they may be the end of a secret that is no longer whole.
    pub(in crate::hosts) fn text(&self) -> String {
        let start = if self.is_cut {
            let first = whole_character(&self.kept, self.kept.len().min(self.doubtful + 3));
            around(&self.vault.spans(&self.kept), first).map_or(first, |secret| secret.end)
        } else {
            0
        };
        self.vault.mask(&text(&self.kept[start..])).trim().to_owned()
    }
}

/// Foreign bytes as text; a carriage return before the line end is not part of the line.
fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes))
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    #[test]
    fn lines_come_whole_across_pieces() {
        let vault = Vault::default();
        let mut lines = Lines::new(&vault);
        let mut seen = Vec::new();
        for piece in ["on", "e\ntwo\r\n\nfo", "ur"] {
            lines.push(piece.as_bytes(), |line| seen.push(line.to_owned()));
        }
        lines.finish(|line| seen.push(line.to_owned()));
        assert_eq!(seen, ["one", "two", "", "four"]);
    }

    #[test]
    fn an_overlong_line_is_not_parted_inside_a_secret() {
        let vault = Vault::default();
        vault.insert("key", SecretString::from("correct-horse-battery"));
        for lead in (LONGEST_LINE - 60)..(LONGEST_LINE + 3) {
            let mut lines = Lines::new(&vault);
            let mut seen = String::new();
            let written = format!("{}correct-horse-battery{}", "x".repeat(lead), "y".repeat(90));
            for piece in written.as_bytes().chunks(1000) {
                lines.push(piece, |line| seen.push_str(&vault.mask(line)));
            }
            lines.finish(|line| seen.push_str(&vault.mask(line)));
            assert_eq!(seen, format!("{}***{}", "x".repeat(lead), "y".repeat(90)), "after {lead} bytes");
        }
    }

    /// Bytes that are no text must not hide a secret from the search.
    #[test]
    fn an_overlong_line_of_foreign_bytes_is_not_parted_inside_a_secret() {
        let vault = Vault::default();
        vault.insert("key", SecretString::from("correct-horse-bättery"));
        for lead in (LONGEST_LINE - 60)..(LONGEST_LINE + 3) {
            for stray in [&b"\xff"[..], b"\x80\x80\x80"] {
                let mut lines = Lines::new(&vault);
                let mut seen = String::new();
                let written = [stray, &vec![b'x'; lead], "correct-horse-bättery".as_bytes(), stray, &[b'y'; 90]].concat();
                for piece in written.chunks(1000) {
                    lines.push(piece, |line| seen.push_str(&vault.mask(line)));
                }
                lines.finish(|line| seen.push_str(&vault.mask(line)));
                assert!(seen.contains("***") && !seen.contains("horse") && !seen.contains("tery"), "after {lead} bytes");
            }
        }
    }

    #[test]
    fn the_tail_never_begins_inside_a_secret() {
        let vault = Vault::default();
        vault.insert("key", SecretString::from("correct-horse\nbattery"));
        for after in (TAIL - 10)..(TAIL + 100) {
            let mut tail = Tail::new(&vault);
            let written = format!("{}correct-horse\nbattery{}", "x".repeat(90), "y".repeat(after));
            for piece in written.as_bytes().chunks(100) {
                tail.push(piece);
            }
            let text = tail.text();
            assert!(!text.contains("ry") && !text.contains("co"), "{after}: {}", &text[..40]);
            assert!(text.trim_start_matches('x').trim_start_matches("***").starts_with('y') && text.len() >= TAIL - 50);
        }
    }
}
