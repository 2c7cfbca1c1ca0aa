//! The content hash: BLAKE3, of a whole object or put together from its parts.
//!
//! BLAKE3 is a tree. A part whose size is a power of two, at a multiple of that size, is a subtree of it: parts are
//! hashed side by side, in any order, in different lives of the runner, and the result is still what `b3sum` prints.

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// The hash of a part, without which the whole's cannot be made. Hexadecimal digits in a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartHash(ChainingValue);

impl PartHash {
    /// The hash of a part of a larger object. `offset` is a multiple of the size of all parts but the last.
    pub fn of(bytes: &[u8], offset: u64) -> Self {
        Self(Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root())
    }

    /// For a ledger.
    pub fn to_hex(self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// From a ledger.
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

/// The hash of bytes that are all there.
pub fn of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The hash of the object that these two or more parts make, in their order.
pub fn of_parts(parts: &[PartHash]) -> String {
    let (left, right) = split(parts);
    merge_subtrees_root(&join(left), &join(right), Mode::Hash).to_hex().to_string()
}

fn join(parts: &[PartHash]) -> ChainingValue {
    if let [only] = parts {
        return only.0;
    }
    let (left, right) = split(parts);
    merge_subtrees_non_root(&join(left), &join(right), Mode::Hash)
}

/// The left side of a tree is as large as a whole tree can be without being all of it.
fn split(parts: &[PartHash]) -> (&[PartHash], &[PartHash]) {
    let half = parts.len().next_power_of_two() / 2;
    parts.split_at(half.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_any_number_give_the_hash_of_the_whole() {
        let part = 4096;
        let whole: Vec<u8> = (0..=252_u8).cycle().take(part * 9 + 77).collect();
        for length in [part + 1, part * 2, part * 2 + 1, part * 3, part * 4 - 1, part * 5, part * 8, part * 9 + 77] {
            let bytes = &whole[..length];
            let parts: Vec<PartHash> =
                bytes.chunks(part).enumerate().map(|(number, piece)| PartHash::of(piece, (number * part) as u64)).collect();
            assert_eq!(of_parts(&parts), of(bytes), "{length}");
            assert_eq!(PartHash::from_hex(&parts[0].to_hex()), Some(parts[0]));
        }
    }
}
