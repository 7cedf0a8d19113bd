//! Gradients of the embedding tables.

use crate::embedding::Token;
use crate::matrix::Rows;
use crate::threads::Pool;

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

/// Backward of [`embedding_sum`](crate::embedding::embedding_sum): adds row `t` of `gradient: [T, E]`
/// to the entries that token `t` looked up, token after token.
///
/// # Panics
/// When shapes disagree or a token looks up a row that does not exist.
pub fn embedding_backward(
    pool: &Pool,
    tokens: &[Token],
    gradient: Rows<'_, f32>,
    tables: EmbeddingGradients<'_>,
) {
    let _ = pool;
    let EmbeddingGradients {
        words,
        positions,
        token_types,
    } = tables;
    let columns = gradient.columns();
    assert_eq!(tokens.len(), gradient.count(), "a gradient for each token");
    for (t, token) in tokens.iter().enumerate() {
        let add = |table: &mut [f32], entry: u32| {
            let entries = table.len() / columns;
            assert!((entry as usize) < entries, "entry {entry} of {entries}");
            let row = &mut table[entry as usize * columns..][..columns];
            row.iter_mut()
                .zip(gradient.row(t))
                .for_each(|(sum, g)| *sum += g);
        };
        add(words, token.word);
        add(token_types, token.token_type);
        add(positions, token.position);
    }
}
