//! Gradients of embedding tables: sums in the order of the tokens.

use badge_kernels::embedding::Token;
use badge_kernels::reference::{wide, wide_slice};
use badge_kernels::training::embedding::{EmbeddingGradients, embedding_backward};
use badge_kernels::training::reference;

use crate::{Random, name, pools};

const WORDS: usize = 50;
const POSITIONS: usize = 20;

struct Gradients {
    words: Vec<f32>,
    positions: Vec<f32>,
    token_types: Vec<f32>,
}

impl Gradients {
    fn random(random: &mut Random, columns: usize) -> Self {
        Self {
            words: random.numbers(WORDS * columns),
            positions: random.numbers(POSITIONS * columns),
            token_types: random.numbers(2 * columns),
        }
    }
}

#[test]
fn every_entry_gathers_the_gradients_of_its_tokens() {
    let mut random = Random(60);
    for columns in [1, 3, 16, 63, 64, 65, 130, 768] {
        for count in [0, 1, 2, 100] {
            let token = |random: &mut Random| Token {
                word: random.below(WORDS) as u32,
                position: random.below(POSITIONS) as u32,
                token_type: random.below(2) as u32,
            };
            let tokens: Vec<Token> = (0..count).map(|_| token(&mut random)).collect();
            let dy = random.matrix(count, columns);
            let start = Gradients::random(&mut random, columns);
            let rows = wide(dy.rows(count));
            let of = |entries, entry: fn(&Token) -> u32| {
                reference::embedding_backward(entries, &tokens, entry, &rows)
            };
            let expected = [
                of(WORDS, |t| t.word),
                of(POSITIONS, |t| t.position),
                of(2, |t| t.token_type),
            ];
            let mut first: Option<[Vec<f32>; 3]> = None;
            for pool in pools() {
                let what = format!("{}, {count} x {columns}", name(&pool));
                let (mut words, mut positions, mut token_types) = (
                    start.words.clone(),
                    start.positions.clone(),
                    start.token_types.clone(),
                );
                let tables = EmbeddingGradients {
                    words: &mut words,
                    positions: &mut positions,
                    token_types: &mut token_types,
                };
                embedding_backward(&pool, &tokens, dy.rows(count), tables);
                let all = [words, positions, token_types];
                let starts = [&start.words, &start.positions, &start.token_types];
                for ((table, start), expected) in all.iter().zip(starts).zip(&expected) {
                    let (table, start) = (wide_slice(table, columns), wide_slice(start, columns));
                    for (i, row) in table.iter().enumerate() {
                        for (j, sum) in row.iter().enumerate() {
                            // An entry without tokens gathers nothing, and there is no row of it.
                            let gathered = expected[i].get(j).copied().unwrap_or(0.0);
                            let error = (sum - start[i][j] - gathered).abs();
                            // At most a hundred roundings of sums of a few dozen.
                            assert!(error < 1e-4, "{what}: {error:e} at [{i}, {j}]");
                        }
                    }
                }
                // Additions have one order: every instruction set gives the same bits.
                match &first {
                    Some(first) => assert!(*first == all, "{what}"),
                    None => first = Some(all),
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "entry 3 of 3")]
fn a_token_beyond_its_table_panics() {
    let token = Token {
        position: 3,
        ..Token::default()
    };
    let tables = EmbeddingGradients {
        words: &mut [0.0; 5],
        positions: &mut [0.0; 15],
        token_types: &mut [0.0; 5],
    };
    let dy = badge_kernels::matrix::Matrix::zeros(1, 5);
    embedding_backward(&pools()[0], &[token], dy.rows(1), tables);
}
