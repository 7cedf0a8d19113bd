//! Embedding sums are exact: each is two additions in a given order.

use badge_kernels::embedding::{EmbeddingTables, Token, embedding_sum};
use badge_kernels::matrix::Matrix;
use badge_kernels::reference;

use crate::{Random, assert_close, assert_untouched, lengths, name, pools, sentinels};

const WORDS: usize = 50;
const POSITIONS: usize = 20;

struct Tables {
    words: Matrix<f32>,
    positions: Matrix<f32>,
    token_types: Matrix<f32>,
}

impl Tables {
    fn random(random: &mut Random, columns: usize) -> Self {
        Self {
            words: random.matrix(WORDS, columns),
            positions: random.matrix(POSITIONS, columns),
            token_types: random.matrix(2, columns),
        }
    }

    fn view(&self) -> EmbeddingTables<'_> {
        EmbeddingTables {
            words: self.words.rows(WORDS),
            positions: self.positions.rows(POSITIONS),
            token_types: self.token_types.rows(2),
        }
    }
}

fn tokens(random: &mut Random, count: usize) -> Vec<Token> {
    (0..count)
        .map(|_| Token {
            word: random.below(WORDS) as u32,
            position: random.below(POSITIONS) as u32,
            token_type: random.below(2) as u32,
        })
        .collect()
}

#[test]
fn sums_are_word_plus_segment_plus_position_to_the_bit() {
    let mut random = Random(1);
    for pool in pools() {
        for columns in lengths() {
            let tables = Tables::random(&mut random, columns);
            let count = random.below(20);
            let tokens = tokens(&mut random, count);
            let mut out = sentinels(count + 2, columns);
            embedding_sum(&pool, &tables.view(), &tokens, out.rows_mut(count));
            let what = format!("{}, {count} x {columns}", name(&pool));
            for (i, token) in tokens.iter().enumerate() {
                for j in 0..columns {
                    let word = tables.words.row(token.word as usize)[j];
                    let token_type = tables.token_types.row(token.token_type as usize)[j];
                    let position = tables.positions.row(token.position as usize)[j];
                    let expected = (word + token_type) + position;
                    assert_eq!(out.row(i)[j].to_bits(), expected.to_bits(), "{what}");
                }
            }
            let expected = reference::embedding_sum(&tables.view(), &tokens);
            // Two roundings of sums below 3.
            assert_close(&what, out.rows(count), &expected, |_, _| 3e-7);
            assert_untouched(&what, &out, count);
        }
    }
}

/// Looks up one token on the first pool.
fn look_up(token: Token) {
    let tables = Tables::random(&mut Random(2), 8);
    let mut out = Matrix::zeros(1, 8);
    embedding_sum(&pools()[0], &tables.view(), &[token], out.rows_mut(1));
}

#[test]
#[should_panic(expected = "row 50 of 50")]
fn a_word_beyond_the_table_panics() {
    look_up(Token {
        word: WORDS as u32,
        ..Token::default()
    });
}

#[test]
#[should_panic(expected = "row 20 of 20")]
fn a_position_beyond_the_table_panics() {
    look_up(Token {
        position: POSITIONS as u32,
        ..Token::default()
    });
}

#[test]
#[should_panic(expected = "row 2 of 2")]
fn a_segment_beyond_the_table_panics() {
    look_up(Token {
        token_type: 2,
        ..Token::default()
    });
}
