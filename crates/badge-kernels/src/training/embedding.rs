//! Gradients of the embedding tables.

use crate::embedding::Token;
use crate::matrix::{Rows, SharedSlice};
use crate::simd::{Operation, Simd};
use crate::threads::{Pool, Task};

/// Where the gradients of the three tables add up, `[entries, E]` each, row after row.
#[derive(Debug)]
pub struct EmbeddingGradients<'a> {
    /// Of the words.
    pub words: &'a mut [f32],
    /// Of the positions.
    pub positions: &'a mut [f32],
    /// Of the segments.
    pub token_types: &'a mut [f32],
}

/// Columns of a strip are a multiple of a cache line's, so that no two cores write the same line.
const LINE: usize = 16;

/// Backward of [`embedding_sum`](crate::embedding::embedding_sum): adds row `t` of `gradient: [T, E]`
/// to the entries that token `t` looked up, token after token.
///
/// Threads share the columns, so that the order of additions is the same for any number of them.
///
/// # Panics
/// When shapes disagree or a token looks up a row that does not exist.
pub fn embedding_backward(
    pool: &Pool,
    tokens: &[Token],
    gradient: Rows<'_, f32>,
    tables: EmbeddingGradients<'_>,
) {
    let EmbeddingGradients {
        words,
        positions,
        token_types,
    } = tables;
    let columns = gradient.columns();
    assert_eq!(tokens.len(), gradient.count(), "a gradient for each token");
    let tables = [words, token_types, positions].map(|table| Table {
        entries: table.len() / columns.max(1),
        numbers: SharedSlice::new(table),
    });
    let isa = pool.isa();
    // Entries lie far apart: each strip more would look them all up again.
    let strip = columns.div_ceil(pool.threads()).next_multiple_of(LINE);
    pool.run(columns.div_ceil(strip.max(1)), &|task: Task| {
        let start = task.index * strip;
        let end = columns.min(start + strip);
        for (t, token) in tokens.iter().enumerate() {
            let row = &gradient.row(t)[start..end];
            let entries = [token.word, token.token_type, token.position];
            for (table, entry) in tables.iter().zip(entries) {
                let entry = entry as usize;
                assert!(entry < table.entries, "entry {entry} of {}", table.entries);
                let at = entry * columns;
                // SAFETY: each task has columns of its own, and the tables are apart.
                let sums = unsafe { table.numbers.part(at + start..at + end) };
                isa.run(Add { row, sums });
            }
        }
    });
}

/// A table as all threads share it.
struct Table {
    entries: usize,
    numbers: SharedSlice<f32>,
}

struct Add<'a> {
    row: &'a [f32],
    sums: &'a mut [f32],
}

impl Operation for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let vectors = self.row.chunks(S::LANES);
        for (x, sum) in vectors.zip(self.sums.chunks_mut(S::LANES)) {
            let total = s.add(s.load_part(sum, 0.0), s.load_part(x, 0.0));
            s.store_part(total, sum);
        }
    }
}
