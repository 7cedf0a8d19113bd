//! Sixteen rows of units as sixteen columns: how keys become panels.

use crate::isa::Isa;

/// Rows and units of a square.
pub(crate) const SIDE: usize = 16;

/// Writes unit `g` of row `i` to `out[g * stride + i]`, for 16 rows of 16 units of 32 bits.
///
/// # Safety
/// Each pointer of `rows` may be read for 64 bytes.
pub(crate) unsafe fn transpose(
    isa: Isa,
    rows: &[*const i32; SIDE],
    out: &mut [i32],
    stride: usize,
) {
    assert!(stride >= SIDE && out.len() >= (SIDE - 1) * stride + SIDE);
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves the features; rows are the caller's promise, `out` holds 16 units
        // at each multiple of the stride by the assert.
        Isa::Avx512(_) | Isa::Amx(_) => unsafe {
            avx512::transpose(rows, out.as_mut_ptr(), stride);
        },
        _ => {
            for (lane, row) in rows.iter().enumerate() {
                for unit in 0..SIDE {
                    // SAFETY: the caller's promise.
                    out[unit * stride + lane] = unsafe { row.add(unit).read_unaligned() };
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    #[allow(clippy::wildcard_imports, reason = "intrinsics carry their own prefix")]
    use std::arch::x86_64::*;

    use super::SIDE;

    /// Pairs, then quadruples within each quarter of the vectors, then the quarters themselves: 64
    /// shuffles for 256 units.
    ///
    /// # Safety
    /// The machine has the features (the list must match `Avx512::new` in `isa.rs`); 64 bytes may be
    /// read at each row and written at each multiple of `stride`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn transpose(rows: &[*const i32; SIDE], out: *mut i32, stride: usize) {
        // Not by `map`, whose closure is compiled without the features and called for every row.
        let mut v = [_mm512_setzero_si512(); SIDE];
        for (v, row) in v.iter_mut().zip(rows) {
            // SAFETY: the caller's promise.
            *v = unsafe { _mm512_loadu_si512(row.cast()) };
        }
        for pair in v.as_chunks_mut::<2>().0 {
            let [a, b] = *pair;
            *pair = [_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)];
        }
        for four in v.as_chunks_mut::<4>().0 {
            let [a, b, c, d] = *four;
            *four = [
                _mm512_unpacklo_epi64(a, c),
                _mm512_unpackhi_epi64(a, c),
                _mm512_unpacklo_epi64(b, d),
                _mm512_unpackhi_epi64(b, d),
            ];
        }
        // `v[4 r + u]` now holds, in quarter q, unit 4 q + u of rows 4 r to 4 r + 3.
        for unit in 0..4 {
            let [a, b, c, d] = [v[unit], v[4 + unit], v[8 + unit], v[12 + unit]];
            let even_ab = _mm512_shuffle_i32x4::<0x88>(a, b);
            let odd_ab = _mm512_shuffle_i32x4::<0xdd>(a, b);
            let even_cd = _mm512_shuffle_i32x4::<0x88>(c, d);
            let odd_cd = _mm512_shuffle_i32x4::<0xdd>(c, d);
            let quarters = [
                _mm512_shuffle_i32x4::<0x88>(even_ab, even_cd),
                _mm512_shuffle_i32x4::<0x88>(odd_ab, odd_cd),
                _mm512_shuffle_i32x4::<0xdd>(even_ab, even_cd),
                _mm512_shuffle_i32x4::<0xdd>(odd_ab, odd_cd),
            ];
            for (quarter, column) in quarters.into_iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    _mm512_storeu_si512(out.add((4 * quarter + unit) * stride).cast(), column);
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns_on_every_instruction_set() {
        let units: Vec<i32> = (0..256).collect();
        let rows: [*const i32; SIDE] = std::array::from_fn(|row| units[row * 16..].as_ptr());
        for isa in Isa::available() {
            let mut out = vec![-1; 15 * 20 + 16];
            // SAFETY: each row has sixteen units.
            unsafe { transpose(isa, &rows, &mut out, 20) };
            for (row, unit) in (0..16).flat_map(|row| (0..16).map(move |unit| (row, unit))) {
                assert_eq!(out[unit * 20 + row], units[row * 16 + unit], "{isa}");
            }
            assert_eq!(
                out.iter().filter(|u| **u == -1).count(),
                15 * 4,
                "{isa}: padding"
            );
        }
    }
}
