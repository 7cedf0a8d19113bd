//! Memory for weights and activations: aligned to cache lines, side by side on huge pages.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Vector loads never straddle two cache lines.
const CACHE_LINE: usize = 64;

/// A page of this size covers 512 ordinary ones.
///
/// Single rows times weights, as exits multiply them, leave no time to hide the translation of
/// addresses in: a pooler of 1.2 MB spans 288 ordinary pages, and a virtual machine may read twenty
/// tables for each.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes that are asked of the system at a time. What is not handed out is never touched, so it
/// costs addresses, not memory. Miri would not see a read beyond a buffer inside a region, so there
/// each buffer has its own.
const REGION: usize = if cfg!(miri) { 0 } else { 32 << 20 };

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

/// Memory from the system, returned when the last buffer in it is dropped.
#[derive(Debug)]
struct Region {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a region is only an address and a size; buffers in it do not overlap.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Room for `bytes` or more.
    fn with_room(bytes: usize) -> Self {
        let (size, align) = if cfg!(miri) {
            (bytes, CACHE_LINE)
        } else {
            let size = bytes.max(REGION).checked_next_multiple_of(HUGE_PAGE);
            (size.expect("buffers fit the address space"), HUGE_PAGE)
        };
        let layout = Layout::from_size_align(size, align).expect("buffers fit the address space");
        // SAFETY: only buffers with elements ask for a region, so the size is not zero.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        advise_huge_pages(start.as_ptr(), size);
        Self { start, layout }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated with this very layout, and no buffer uses it any more.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// The region that is handed out at present, and how much of it has been.
struct Current {
    region: Arc<Region>,
    used: usize,
}

static CURRENT: Mutex<Option<Current>> = Mutex::new(None);

/// `bytes` bytes at a cache line that nobody else has, and the region that they belong to.
fn take(bytes: usize) -> (NonNull<u8>, Arc<Region>) {
    let bytes = bytes
        .checked_next_multiple_of(CACHE_LINE)
        .expect("buffers fit the address space");
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut place = match current.take() {
        Some(place) if place.region.layout.size() - place.used >= bytes => place,
        _ => Current {
            region: Arc::new(Region::with_room(bytes)),
            used: 0,
        },
    };
    // SAFETY: the region has room for `bytes` more behind what is used.
    let start = unsafe { place.region.start.add(place.used) };
    place.used += bytes;
    let region = Arc::clone(&place.region);
    *current = (place.used < place.region.layout.size()).then_some(place);
    (start, region)
}

/// A slice of numbers that starts at a cache line.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    start: NonNull<T>,
    length: usize,
    /// Keeps the memory; none without elements.
    _region: Option<Arc<Region>>,
}

// SAFETY: the buffer owns its memory, and its elements are plain numbers.
unsafe impl<T: Zeroable> Send for Buffer<T> {}
// SAFETY: shared access only reads plain numbers.
unsafe impl<T: Zeroable> Sync for Buffer<T> {}

impl<T: Zeroable> Buffer<T> {
    /// `length` zeros.
    pub(crate) fn zeroed(length: usize) -> Self {
        let bytes = length
            .checked_mul(size_of::<T>())
            .expect("the buffer fits the address space");
        if bytes == 0 {
            return Self {
                start: NonNull::dangling(),
                length: 0,
                _region: None,
            };
        }
        let (start, region) = take(bytes);
        // SAFETY: these bytes are this buffer's alone.
        unsafe { start.write_bytes(0, bytes) };
        Self {
            start: start.cast(),
            length,
            _region: Some(region),
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.length * size_of::<T>()
    }
}

/// Asks for huge pages before the memory is first touched; without them all still works.
fn advise_huge_pages(bytes: *mut u8, length: usize) {
    #[cfg(all(target_os = "linux", not(miri)))]
    // SAFETY: the range was allocated by the caller; the advice changes no content.
    unsafe {
        libc::madvise(bytes.cast(), length, libc::MADV_HUGEPAGE);
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = (bytes, length);
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
    fn buffers_lie_side_by_side_and_never_overlap() {
        let mut buffers: Vec<_> = (0..200_u8)
            .map(|i| (i, Buffer::<u8>::zeroed(usize::from(i) * 37 + 1)))
            .collect();
        for (i, buffer) in &mut buffers {
            buffer.fill(*i);
        }
        buffers.retain(|(i, _)| i % 3 > 0);
        let more: Vec<_> = (0..50).map(|_| Buffer::<u8>::zeroed(4096)).collect();
        assert!(more.iter().all(|buffer| buffer.iter().all(|x| *x == 0)));
        for (i, buffer) in &buffers {
            assert!(buffer.iter().all(|x| x == i));
        }
    }

    #[test]
    #[cfg_attr(
        miri,
        ignore = "half a minute of zeros; small buffers run the same code"
    )]
    fn a_buffer_may_be_larger_than_a_region() {
        let mut buffer = Buffer::<u8>::zeroed(REGION + 1);
        buffer[REGION] = 7;
        assert_eq!(buffer[REGION - 1..], [0, 7]);
    }
}
