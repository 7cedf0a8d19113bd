//! Memory for weights and activations: aligned to cache lines, on huge pages where it is large.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Vector loads never straddle two cache lines.
const CACHE_LINE: usize = 64;

/// A page of this size covers 512 ordinary ones: a pass over 28 MB of packed weights then misses
/// the translation buffer a few times instead of thousands of times.
const HUGE_PAGE: usize = 2 << 20;

/// Numbers for which all-zero bytes are a value, zero itself.
///
/// # Safety
/// The type has no padding, no destructor, and its all-zero bit pattern is valid.
pub(crate) unsafe trait Zeroable: Copy + Send + Sync + 'static {}

// SAFETY: plain numbers.
unsafe impl Zeroable for f32 {}
// SAFETY: plain numbers.
unsafe impl Zeroable for i32 {}
// SAFETY: plain numbers.
unsafe impl Zeroable for u8 {}
// SAFETY: plain numbers.
unsafe impl Zeroable for i8 {}
// SAFETY: a transparent u16.
unsafe impl Zeroable for half::bf16 {}

/// A slice of numbers that starts at a cache line.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    start: NonNull<T>,
    length: usize,
}

// SAFETY: the buffer owns its memory, and its elements are plain numbers.
unsafe impl<T: Zeroable> Send for Buffer<T> {}
// SAFETY: shared access only reads plain numbers.
unsafe impl<T: Zeroable> Sync for Buffer<T> {}

impl<T> Buffer<T> {
    fn layout(length: usize) -> Layout {
        let bytes = length
            .checked_mul(size_of::<T>())
            .expect("the buffer fits the address space");
        let align = if bytes >= HUGE_PAGE {
            HUGE_PAGE
        } else {
            CACHE_LINE
        };
        Layout::from_size_align(bytes, align).expect("the buffer fits the address space")
    }
}

impl<T: Zeroable> Buffer<T> {
    /// `length` zeros.
    pub(crate) fn zeroed(length: usize) -> Self {
        let layout = Self::layout(length);
        if layout.size() == 0 {
            return Self {
                start: NonNull::dangling(),
                length: 0,
            };
        }
        // SAFETY: the layout has a size other than zero.
        let bytes = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(bytes.cast::<T>()) else {
            handle_alloc_error(layout)
        };
        advise_huge_pages(bytes, layout.size());
        // SAFETY: `bytes` was allocated with `layout.size()` bytes just now.
        unsafe { bytes.write_bytes(0, layout.size()) };
        Self { start, length }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.length * size_of::<T>()
    }
}

/// Asks for huge pages before the memory is first touched; without them all still works.
fn advise_huge_pages(bytes: *mut u8, length: usize) {
    #[cfg(all(target_os = "linux", not(miri)))]
    if length >= HUGE_PAGE {
        // SAFETY: the range was allocated by the caller; the advice changes no content.
        unsafe { libc::madvise(bytes.cast(), length, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = (bytes, length);
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let layout = Self::layout(self.length);
        if layout.size() > 0 {
            // SAFETY: allocated with this very layout; elements have no destructor.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) };
        }
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `start` points to `length` initialised elements (or dangles with length 0).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_at_cache_lines_and_hold_zeros() {
        for length in [0, 1, 63, 64, 1000] {
            let mut buffer = Buffer::<f32>::zeroed(length);
            assert!(buffer.iter().all(|x| *x == 0.0));
            assert!(length == 0 || (buffer.as_ptr() as usize).is_multiple_of(CACHE_LINE));
            buffer.fill(1.0);
            assert_eq!(buffer.len(), length);
        }
    }

    #[test]
    fn large_buffers_start_at_huge_pages() {
        let buffer = Buffer::<u8>::zeroed(HUGE_PAGE + 1);
        assert!((buffer.as_ptr() as usize).is_multiple_of(HUGE_PAGE));
    }
}
