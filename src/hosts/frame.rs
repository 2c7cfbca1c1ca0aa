//! Marks in an output: where what a program wrote begins and ends, whatever a login shell says before it and whatever
//! its children say after it.

use super::script::MARK;

/// A mark is a line; one that does not end within this is none.
const LONGEST: usize = 200;

/// What a piece of an output is.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::hosts) enum Part<'a> {
    /// What was written.
    Bytes(&'a [u8]),
    /// A mark: what stands behind the nonce.
    Mark(String),
}

/// Parts an output at its marks.
pub(in crate::hosts) struct Frame {
    sign: Vec<u8>,
    /// What may be the beginning of a mark.
    waiting: Vec<u8>,
    /// What waited, and the piece behind it.
    joined: Vec<u8>,
}

impl Frame {
    pub(in crate::hosts) fn new(nonce: &str) -> Self {
        Self { sign: [&[MARK], nonce.as_bytes()].concat(), waiting: Vec::new(), joined: Vec::new() }
    }

    /// Takes bytes in and gives what they are, in order. Nothing is copied but what waits.
    pub(in crate::hosts) fn push<'a>(&'a mut self, piece: &'a [u8]) -> Vec<Part<'a>> {
        let Self { sign, waiting, joined } = self;
        let mut rest = piece;
        if !waiting.is_empty() {
            joined.clear();
            joined.append(waiting);
            joined.extend_from_slice(piece);
            rest = joined;
        }
        let mut parts = Vec::new();
        let mut from = 0;
        while let Some(at) = memchr::memchr(MARK, &rest[from..]).map(|at| from + at) {
            let here = &rest[at..];
            let is_begun = here.len() < sign.len() && sign.starts_with(here);
            let is_sign = here.starts_with(sign);
            if !is_begun && !is_sign {
                from = at + 1;
                continue;
            }
            let end = here.iter().take(LONGEST).position(|byte| *byte == b'\n');
            match end {
                Some(end) if is_sign => {
                    if at > 0 {
                        parts.push(Part::Bytes(&rest[..at]));
                    }
                    parts.push(Part::Mark(String::from_utf8_lossy(&here[sign.len()..end]).trim().to_owned()));
                    rest = &here[end + 1..];
                    from = 0;
                }
                None if here.len() < LONGEST => {
                    waiting.extend_from_slice(here);
                    rest = &rest[..at];
                    break;
                }
                _ => from = at + 1,
            }
        }
        if !rest.is_empty() {
            parts.push(Part::Bytes(rest));
        }
        parts
    }

    /// What still waits when the output is over: no mark any more.
    pub(in crate::hosts) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_wherever_the_output_is_cut() {
        let whole = b"noise\n\x1eabc\nfirst\x1e\x1eab\x1eabc + 12\nsecond\x1eabc 0\nlate".as_slice();
        for cut in 1..whole.len() {
            let mut frame = Frame::new("abc");
            let mut seen = Vec::new();
            for piece in whole.chunks(cut) {
                for part in frame.push(piece) {
                    match part {
                        Part::Bytes(bytes) => seen.extend_from_slice(bytes),
                        Part::Mark(mark) => seen.extend_from_slice(format!("[{mark}]").as_bytes()),
                    }
                }
            }
            seen.extend_from_slice(&frame.rest());
            assert_eq!(String::from_utf8_lossy(&seen), "noise\n[]first\x1e\x1eab[+ 12]second[0]late", "cut at {cut}");
        }
    }
}
