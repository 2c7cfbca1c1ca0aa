//! The `ETag` of an object that was sent in parts: the MD5 of the parts' MD5s, a dash, and their number.
//!
//! It says nothing by itself about another object: the same content in parts of another size has another one. But whoever
//! reads the content can put it together for every likely size of the parts, and so prove that it is the same although
//! only one side was read.

use std::collections::BTreeSet;

use md5::{Digest as _, Md5};

const MIB: u64 = 1 << 20;
/// How many sizes of parts are tried at once.
const MOST: usize = 8;
/// What tools send in unless told otherwise, in MiB: the SDKs and their command lines (5, 8), rclone (5), `mc` (16), s3cmd
/// (15), s5cmd (50), and sizes that people choose.
const LIKELY: [u64; 16] = [8, 5, 16, 15, 50, 64, 10, 100, 32, 128, 25, 256, 512, 6, 20, 1024];

/// An `ETag` of parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartsEtag {
    /// The MD5 of the parts' MD5s.
    md5: String,
    /// How many parts there are.
    parts: u64,
}

impl PartsEtag {
    /// Reads one; `None` for every other.
    pub fn parse(etag: &str) -> Option<Self> {
        let (md5, parts) = etag.trim_matches('"').split_once('-')?;
        let is_md5 = md5.len() == 32 && md5.bytes().all(|byte| byte.is_ascii_hexdigit());
        let parts = parts.parse().ok().filter(|parts| is_md5 && (1..=10_000).contains(parts))?;
        Some(Self { md5: md5.to_ascii_lowercase(), parts })
    }

    /// The sizes that the parts of an object of this size may have had, likely ones first. All parts but the last are equal.
    pub fn part_sizes(&self, size: u64) -> Vec<u64> {
        if self.parts == 1 {
            return vec![size.max(1)];
        }
        if size < self.parts {
            return Vec::new();
        }
        let least = size.div_ceil(self.parts);
        let most = (size - 1) / (self.parts - 1);
        let fits = |part: &u64| (least..=most).contains(part);
        let powers = (0..13).map(|power| (8 * MIB) << power);
        let likely = LIKELY.iter().map(|part| part * MIB).chain(powers).chain([least.div_ceil(MIB) * MIB, least]);
        // Then whole MiB from the least on: large objects are cut into as few parts as are allowed.
        let rest = (least.div_ceil(MIB)..).map(|part| part * MIB).take_while(|part| *part <= most).take(MOST);
        let mut seen = BTreeSet::new();
        likely.chain(rest).filter(fits).filter(|part| seen.insert(*part)).take(MOST).collect()
    }
}

/// The `ETag`s that a content would have, put together while it is read.
pub struct Candidates {
    all: Vec<Candidate>,
    wanted: PartsEtag,
}

struct Candidate {
    part: u64,
    left: u64,
    of_part: Md5,
    of_all: Md5,
    parts: u64,
}

impl Candidates {
    /// For an object of this size with this `ETag`. `None`: nobody knows how large its parts were.
    pub fn new(wanted: PartsEtag, size: u64) -> Option<Self> {
        let new = |part| Candidate { part, left: part, of_part: Md5::new(), of_all: Md5::new(), parts: 0 };
        let all: Vec<Candidate> = wanted.part_sizes(size).into_iter().map(new).collect();
        (!all.is_empty()).then_some(Self { all, wanted })
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for candidate in &mut self.all {
            candidate.update(bytes);
        }
    }

    /// Whether one of them is the one that was wanted. False proves nothing: the parts may have had another size.
    pub fn found(self) -> bool {
        let wanted = self.wanted;
        self.all.into_iter().any(|candidate| candidate.finish() == wanted)
    }
}

impl Candidate {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            self.of_part.update(now);
            self.left -= now.len() as u64;
            bytes = later;
            if self.left == 0 {
                self.end_part();
            }
        }
    }

    fn end_part(&mut self) {
        let part = std::mem::replace(&mut self.of_part, Md5::new()).finalize();
        self.of_all.update(part);
        self.parts += 1;
        self.left = self.part;
    }

    fn finish(mut self) -> PartsEtag {
        if self.left < self.part || self.parts == 0 {
            self.end_part();
        }
        PartsEtag { md5: format!("{:032x}", u128::from_be_bytes(self.of_all.finalize().into())), parts: self.parts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server puts it together.
    fn etag(content: &[u8], part: u64) -> String {
        let (mut all, mut count) = (Md5::new(), 0);
        for piece in content.chunks(usize::try_from(part).expect("it fits")) {
            all.update(Md5::digest(piece));
            count += 1;
        }
        format!("\"{:032x}-{count}\"", u128::from_be_bytes(all.finalize().into()))
    }

    #[test]
    fn only_an_etag_of_parts_is_one() {
        let md5 = "d41d8cd98f00b204e9800998ecf8427e";
        assert_eq!(PartsEtag::parse(&format!("\"{md5}-12\"")), Some(PartsEtag { md5: md5.to_owned(), parts: 12 }));
        for other in [md5.to_owned(), format!("{md5}-0"), format!("{md5}-x"), "0x8D-2".to_owned(), format!("{md5}-10001")] {
            assert_eq!(PartsEtag::parse(&other), None, "{other}");
        }
    }

    #[test]
    fn a_content_is_known_by_its_etag_whatever_the_size_of_the_parts() {
        let content: Vec<u8> = (0..=250_u8).cycle().take(24_129_793).collect();
        for part in [5 * MIB, 8 * MIB, 10 * MIB, 16 * MIB, 7 * MIB, 64 * MIB, content.len() as u64 / 3 + 1] {
            let wanted = PartsEtag::parse(&etag(&content, part)).expect("an ETag of parts");
            for (bytes, is_it) in [(&content[..], true), (&[&content[1..], b"x"].concat()[..], false)] {
                let mut candidates = Candidates::new(wanted.clone(), content.len() as u64).expect("a likely size");
                bytes.chunks(100_000).for_each(|piece| candidates.update(piece));
                assert_eq!(candidates.found(), is_it, "{part}");
            }
        }
    }

    #[test]
    fn a_size_that_cannot_be_is_not_tried() {
        let of = |parts: u64, size: u64| PartsEtag { md5: String::new(), parts }.part_sizes(size);
        for (parts, size) in [(2, 16 * MIB), (3, 17 * MIB), (100, 800 * MIB), (10_000, 80_000 * MIB), (7, 99_999_999)] {
            let sizes = of(parts, size);
            assert!(!sizes.is_empty() && sizes.len() <= MOST, "{parts} {size}");
            assert!(sizes.iter().all(|part| size.div_ceil(*part) == parts), "{parts} {size}: {sizes:?}");
        }
        assert_eq!(of(3, 17 * MIB)[..2], [8 * MIB, 6 * MIB]);
        assert_eq!(of(5, 3), Vec::<u64>::new());
        assert_eq!(of(1, 0), [1]);
    }
}
