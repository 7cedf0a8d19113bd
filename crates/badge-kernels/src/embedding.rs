//! Sums of word, position and segment embeddings.

use crate::matrix::{Rows, RowsMut, for_each_row};
use crate::simd::{Operation, Simd};
use crate::threads::Pool;

/// The three tables, `[entries, E]` each.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingTables<'a> {
    /// One row a word piece.
    pub words: Rows<'a, f32>,
    /// One row a position.
    pub positions: Rows<'a, f32>,
    /// One row a segment.
    pub token_types: Rows<'a, f32>,
}

/// What a token looks up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Token {
    /// Row of the words.
    pub word: u32,
    /// Row of the positions.
    pub position: u32,
    /// Row of the segments.
    pub token_type: u32,
}

/// `out = (word + segment) + position` for each token, in this order of additions.
///
/// # Panics
/// When shapes disagree or a token looks up a row that does not exist.
pub fn embedding_sum(
    pool: &Pool,
    tables: &EmbeddingTables<'_>,
    tokens: &[Token],
    mut out: RowsMut<'_, f32>,
) {
    let columns = tables.words.columns();
    assert!(tables.positions.columns() == columns && tables.token_types.columns() == columns);
    assert_eq!(
        (out.count(), out.columns()),
        (tokens.len(), columns),
        "output of another shape"
    );
    let out = out.share();
    let isa = pool.isa();
    for_each_row(pool, tokens.len(), &|index| {
        let token = tokens[index];
        isa.run(SumOfThree {
            word: tables.words.row(token.word as usize),
            token_type: tables.token_types.row(token.token_type as usize),
            position: tables.positions.row(token.position as usize),
            // SAFETY: each row is one task.
            out: unsafe { out.row(index) },
        });
    });
}

struct SumOfThree<'a> {
    word: &'a [f32],
    token_type: &'a [f32],
    position: &'a [f32],
    out: &'a mut [f32],
}

impl Operation for SumOfThree<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = [self.word, self.token_type, self.position];
        let mut vectors = self.out.chunks_exact_mut(S::LANES);
        let [words, token_types, positions] = rows.map(|row| row.chunks_exact(S::LANES));
        let tables = words.zip(token_types).zip(positions);
        for (((word, token_type), position), out) in tables.zip(&mut vectors) {
            let sum = s.add(s.load(word), s.load(token_type));
            s.store(s.add(sum, s.load(position)), out);
        }
        let rest = vectors.into_remainder();
        let full = self.word.len() - rest.len();
        let [word, token_type, position] = rows.map(|row| s.load_part(&row[full..], 0.0));
        s.store_part(s.add(s.add(word, token_type), position), rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::matrix::Matrix;

    #[test]
    fn padding_stays_zero_at_every_width() {
        for isa in Isa::available() {
            let pool = Pool::new(isa, 1);
            for columns in 1..=70 {
                let table = Matrix::from_rows(&vec![0.5; columns], columns);
                let tables = EmbeddingTables {
                    words: table.rows(1),
                    positions: table.rows(1),
                    token_types: table.rows(1),
                };
                let mut out = Matrix::zeros(3, columns);
                embedding_sum(&pool, &tables, &[Token::default(); 3], out.rows_mut(3));
                let rows = out.rows(3);
                for row in rows.elements().chunks_exact(rows.stride()) {
                    assert!(row[columns..].iter().all(|x| *x == 0.0));
                }
            }
        }
    }
}
