//! What a program writes, cut into lines for the log, without cutting a secret in two.

use crate::secret::Vault;

/// A line longer than this goes to the log in parts.
const LONGEST_LINE: usize = 64 << 10;

/// Bytes of an output that wait for the end of their line.
pub(super) struct Lines<'a> {
    waiting: Vec<u8>,
    vault: &'a Vault,
}

impl<'a> Lines<'a> {
    pub(super) fn new(vault: &'a Vault) -> Self {
        Self { waiting: Vec::new(), vault }
    }

    /// Takes bytes in and gives every line that they complete.
    pub(super) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
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
    pub(super) fn finish(&mut self, mut line: impl FnMut(&str)) {
        if !self.waiting.is_empty() {
            line(&text(&std::mem::take(&mut self.waiting)));
        }
    }

    /// Where an overlong line is parted: not inside a secret, which would be masked in neither part, and so far from
    /// the end that the beginning of one that is still coming stays in the rest.
    fn cut(&self) -> usize {
        let longest = self.vault.longest_form();
        let latest = self.waiting.len().saturating_sub(longest).max(1);
        let whole = self.vault.mask(&text(&self.waiting));
        (latest.saturating_sub(longest).max(1)..=latest)
            .rev()
            .find(|cut| {
                let (head, tail) = self.waiting.split_at(*cut);
                std::str::from_utf8(tail).is_ok() == std::str::from_utf8(&self.waiting).is_ok()
                    && format!("{}{}", self.vault.mask(&text(head)), self.vault.mask(&text(tail))) == whole
            })
            .unwrap_or(latest)
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
}
