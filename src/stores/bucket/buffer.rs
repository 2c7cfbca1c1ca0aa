//! Buffers for bodies that come in pieces, used again and again.
//!
//! A buffer of a megabyte that is freed goes back to the system, and the next one is made of new pages, each filled with
//! zeros when it is first touched: that is a tenth of the CPU time of a copy. So some are kept.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// The smallest buffer that is kept; all that are have a power of two times this.
const SMALLEST: usize = 64 << 10;
/// How many sizes there are: up to 16 MiB.
const SIZES: usize = 9;
/// Bytes in buffers that wait to be used again.
const MOST_IDLE: usize = 64 << 20;

static IDLE: Mutex<Idle> = Mutex::new(Idle { bytes: 0, buffers: [const { Vec::new() }; SIZES] });

struct Idle {
    bytes: usize,
    buffers: [Vec<Vec<u8>>; SIZES],
}

/// A buffer that is being filled.
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    /// With room for so many bytes; it grows if there are more.
    pub fn with_room(size: usize) -> Self {
        let Some(class) = class_for(size) else { return Self(Vec::with_capacity(size)) };
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = idle.buffers[class].pop() {
            idle.bytes -= buffer.capacity();
            return Self(buffer);
        }
        drop(idle);
        Self(Vec::with_capacity(SMALLEST << class))
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// What is in it, to be shared. The last one to drop it gives the buffer back.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        let capacity = buffer.capacity();
        // What has grown has an odd size.
        let Some(class) = class_for(capacity).filter(|class| SMALLEST << class == capacity) else { return };
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.bytes + capacity <= MOST_IDLE {
            buffer.clear();
            idle.bytes += capacity;
            idle.buffers[class].push(buffer);
        }
    }
}

/// Which size holds so many bytes. `None`: too few to be worth it, or too many.
fn class_for(size: usize) -> Option<usize> {
    let class = size.div_ceil(SMALLEST).next_power_of_two().trailing_zeros() as usize;
    (size >= SMALLEST / 2 && class < SIZES).then_some(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_holds_what_is_put_in() {
        for size in [0, 10, SMALLEST, SMALLEST + 1, 3 << 20, 16 << 20, 17 << 20] {
            for _ in 0..3 {
                let mut buffer = Buffer::with_room(size);
                assert!(buffer.as_ref().is_empty());
                let bytes: Vec<u8> = (0..=255).cycle().take(size).collect();
                for piece in bytes.chunks(100_000) {
                    buffer.extend(piece);
                }
                let shared = buffer.freeze();
                let (left, right) = (shared.slice(..size / 2), shared.slice(size / 2..));
                drop(shared);
                assert!(left == bytes[..size / 2] && right == bytes[size / 2..]);
            }
        }
        assert!(IDLE.lock().expect("not poisoned").bytes <= MOST_IDLE);
    }

    #[test]
    fn sizes_fit() {
        assert_eq!(class_for(1), None);
        assert_eq!(class_for(SMALLEST), Some(0));
        assert_eq!(class_for(SMALLEST + 1), Some(1));
        assert_eq!(class_for(16 << 20), Some(SIZES - 1));
        assert_eq!(class_for((16 << 20) + 1), None);
    }
}
