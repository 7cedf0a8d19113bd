//! Batches: which rows go together, and their tokens padded to the longest among them.
//!
//! Padding is wasted work, so rows of like length are put together. For training the order stays
//! random enough: rows are shuffled first, sorted only within stretches of
//! [`BatchOrder::STRETCH_BATCHES`] batches, and the batches shuffled again. All of it is a pure
//! function of seed and epoch, so that a resumed run sees the batches it would have seen.

use crate::shuffle::{generator, permutation, shuffle};
use crate::task::Target;
use crate::tokenizer::Encoding;

/// Tokens of several rows, padded at the end to the longest of them.
///
/// # Shapes
///
/// `input_ids` and `type_ids` are `[b, t]`, row after row, with `b` = [`Batch::size`] and `t` =
/// [`Batch::tokens`].
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The rows' indices in their split.
    pub rows: Vec<usize>,
    /// Tokens per row, padding included.
    pub tokens: usize,
    /// Token ids, `[b, t]`.
    pub input_ids: Vec<u32>,
    /// Segment ids, `[b, t]`; 0 at the padding.
    pub type_ids: Vec<u32>,
    /// Tokens per row without padding, `[b]`.
    pub lengths: Vec<usize>,
    /// Targets, `[b]`, or none at all for rows without.
    pub targets: Vec<Target>,
}

impl Batch {
    /// Pads the encodings of `rows` with `pad_id` and puts them together; `targets` are those of
    /// the whole split, or empty.
    ///
    /// # Panics
    ///
    /// When `rows` is empty or holds an index beyond `encodings` or beyond non-empty `targets`.
    ///
    /// # Example
    ///
    /// ```
    /// use badge_tasks::{Batch, Encoding};
    ///
    /// let encoding = |ids: &[u32]| Encoding { ids: ids.to_vec(), type_ids: vec![0; ids.len()] };
    /// let encodings = [encoding(&[2, 7, 3]), encoding(&[2, 3])];
    /// let batch = Batch::new(&encodings, &[], &[1, 0], 0);
    /// assert_eq!(batch.input_ids, [2, 3, 0, 2, 7, 3]);
    /// assert_eq!(batch.attention_mask(), [1, 1, 0, 1, 1, 1]);
    /// ```
    pub fn new(encodings: &[Encoding], targets: &[Target], rows: &[usize], pad_id: u32) -> Self {
        assert!(!rows.is_empty(), "a batch has at least one row");
        let lengths: Vec<usize> = rows.iter().map(|row| encodings[*row].len()).collect();
        let tokens = lengths.iter().copied().max().unwrap_or(0);
        let mut input_ids = Vec::with_capacity(rows.len() * tokens);
        let mut type_ids = Vec::with_capacity(rows.len() * tokens);
        for (index, row) in rows.iter().enumerate() {
            let end = (index + 1) * tokens;
            input_ids.extend_from_slice(&encodings[*row].ids);
            input_ids.resize(end, pad_id);
            type_ids.extend_from_slice(&encodings[*row].type_ids);
            type_ids.resize(end, 0);
        }
        let targets = if targets.is_empty() {
            Vec::new()
        } else {
            rows.iter().map(|row| targets[*row].clone()).collect()
        };
        Self {
            rows: rows.to_vec(),
            tokens,
            input_ids,
            type_ids,
            lengths,
            targets,
        }
    }

    /// Number of rows.
    pub fn size(&self) -> usize {
        self.rows.len()
    }

    /// 1 at tokens and 0 at padding, `[b, t]`.
    pub fn attention_mask(&self) -> Vec<u8> {
        let row = |length: &usize| {
            let length = *length;
            (0..self.tokens).map(move |token| u8::from(token < length))
        };
        self.lengths.iter().flat_map(row).collect()
    }
}

/// The order in which training sees its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOrder {
    /// Decides all shuffles.
    pub seed: u64,
    /// Rows per batch; the last of an epoch may have fewer.
    pub batch_size: usize,
}

impl BatchOrder {
    /// How many batches' worth of shuffled rows are sorted by length at a time. More wastes less
    /// padding and mixes less; 50 is what transformers' `group_by_length` sorts.
    pub const STRETCH_BATCHES: usize = 50;

    /// The batches of an epoch: every row exactly once.
    ///
    /// # Panics
    ///
    /// When `batch_size` is 0.
    ///
    /// # Example
    ///
    /// ```
    /// use badge_tasks::BatchOrder;
    ///
    /// let order = BatchOrder { seed: 42, batch_size: 2 };
    /// let batches = order.epoch(1, &[5, 9, 5, 8, 7]);
    /// assert_eq!(batches.len(), 3);
    /// assert_eq!(batches, order.epoch(1, &[5, 9, 5, 8, 7]));
    /// ```
    pub fn epoch(&self, epoch: usize, lengths: &[usize]) -> Vec<Vec<usize>> {
        assert!(self.batch_size > 0, "a batch has at least one row");
        let mut generator = generator(self.seed, epoch as u64);
        let mut rows = permutation(lengths.len(), &mut generator);
        let mut batches = Vec::with_capacity(lengths.len().div_ceil(self.batch_size));
        for stretch in rows.chunks_mut(self.batch_size.saturating_mul(Self::STRETCH_BATCHES)) {
            // A stable sort keeps rows of one length in their shuffled order.
            stretch.sort_by_key(|row| std::cmp::Reverse(lengths[*row]));
            batches.extend(stretch.chunks(self.batch_size).map(<[usize]>::to_vec));
        }
        shuffle(&mut batches, &mut generator);
        batches
    }
}

/// Batches for evaluation: rows by length, the longest first, so that a batch that does not fit
/// into memory fails at once.
///
/// # Panics
///
/// When `batch_size` is 0.
pub fn evaluation_batches(lengths: &[usize], batch_size: usize) -> Vec<Vec<usize>> {
    assert!(batch_size > 0, "a batch has at least one row");
    let mut rows: Vec<usize> = (0..lengths.len()).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(lengths[*row]));
    rows.chunks(batch_size).map(<[usize]>::to_vec).collect()
}

/// Puts outputs that came batch by batch back into the order of the rows.
///
/// # Panics
///
/// When the batches do not hold every row from 0 exactly once, or there are more or fewer outputs.
///
/// # Example
///
/// ```
/// use badge_tasks::batch::restore_order;
///
/// assert_eq!(restore_order(&[vec![2, 0], vec![1]], vec!['c', 'a', 'b']), ['a', 'b', 'c']);
/// ```
pub fn restore_order<T>(batches: &[Vec<usize>], outputs: Vec<T>) -> Vec<T> {
    let rows: Vec<usize> = batches.iter().flatten().copied().collect();
    assert_eq!(rows.len(), outputs.len(), "one output per row");
    let mut restored: Vec<Option<T>> = (0..rows.len()).map(|_| None).collect();
    for (row, output) in rows.into_iter().zip(outputs) {
        assert!(
            restored[row].replace(output).is_none(),
            "row {row} occurs twice"
        );
    }
    restored
        .into_iter()
        .map(|output| output.expect("as many rows as outputs, none twice"))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoding(length: usize) -> Encoding {
        let ids: Vec<u32> = (0..length as u32)
            .map(|id| 10 * length as u32 + id)
            .collect();
        Encoding {
            type_ids: ids.iter().map(|id| id % 2).collect(),
            ids,
        }
    }

    fn padding(batches: &[Vec<usize>], lengths: &[usize]) -> usize {
        let cost = |batch: &Vec<usize>| {
            let longest = batch.iter().map(|row| lengths[*row]).max().unwrap();
            batch
                .iter()
                .map(|row| longest - lengths[*row])
                .sum::<usize>()
        };
        batches.iter().map(cost).sum()
    }

    #[test]
    fn rows_are_padded_to_the_longest() {
        let encodings = [encoding(1), encoding(3), encoding(2)];
        let targets = [Target::Class(4), Target::Class(5), Target::Class(6)];
        let batch = Batch::new(&encodings, &targets, &[2, 0], 99);
        assert_eq!((batch.size(), batch.tokens), (2, 2));
        assert_eq!(batch.input_ids, [20, 21, 10, 99]);
        assert_eq!(batch.type_ids, [0, 1, 0, 0]);
        assert_eq!(batch.lengths, [2, 1]);
        assert_eq!(batch.attention_mask(), [1, 1, 1, 0]);
        assert_eq!(batch.targets, [Target::Class(6), Target::Class(4)]);
        assert!(Batch::new(&encodings, &[], &[1], 0).targets.is_empty());
    }

    #[test]
    fn epochs_differ_and_repeat() {
        let lengths: Vec<usize> = (0..200).map(|row| row % 13).collect();
        let order = BatchOrder {
            seed: 1,
            batch_size: 4,
        };
        assert_eq!(order.epoch(3, &lengths), order.epoch(3, &lengths));
        assert_ne!(order.epoch(3, &lengths), order.epoch(4, &lengths));
        assert_ne!(
            order.epoch(3, &lengths),
            BatchOrder { seed: 2, ..order }.epoch(3, &lengths)
        );
    }

    #[test]
    fn buckets_save_most_of_the_padding() {
        let lengths: Vec<usize> = (0..2_000).map(|row| (row * 7919) % 128).collect();
        let batches = BatchOrder {
            seed: 5,
            batch_size: 16,
        }
        .epoch(0, &lengths);
        let in_order: Vec<Vec<usize>> = (0..2_000)
            .collect::<Vec<_>>()
            .chunks(16)
            .map(<[usize]>::to_vec)
            .collect();
        assert!(padding(&batches, &lengths) * 10 < padding(&in_order, &lengths));
    }

    #[test]
    fn batches_of_an_epoch_are_not_sorted_by_length() {
        let lengths: Vec<usize> = (0..1_000).collect();
        let batches = BatchOrder {
            seed: 5,
            batch_size: 10,
        }
        .epoch(0, &lengths);
        assert!(!batches.is_sorted_by_key(|batch| batch[0]));
        assert!(!batches.is_sorted_by_key(|batch| usize::MAX - batch[0]));
    }

    #[test]
    fn no_rows_make_no_batches() {
        assert!(
            BatchOrder {
                seed: 0,
                batch_size: 3
            }
            .epoch(0, &[])
            .is_empty()
        );
        assert!(evaluation_batches(&[], 3).is_empty());
    }

    proptest! {
        #[test]
        fn every_row_is_seen_once(
            lengths in prop::collection::vec(1_usize..40, 0..300),
            batch_size in 1_usize..20,
            seed: u64,
        ) {
            let training = BatchOrder { seed, batch_size }.epoch(2, &lengths);
            let evaluation = evaluation_batches(&lengths, batch_size);
            for batches in [training, evaluation] {
                prop_assert_eq!(batches.len(), lengths.len().div_ceil(batch_size));
                prop_assert!(batches.iter().all(|batch| batch.len() <= batch_size));
                let outputs: Vec<usize> = batches.iter().flatten().copied().collect();
                let restored = restore_order(&batches, outputs);
                prop_assert_eq!(restored, (0..lengths.len()).collect::<Vec<_>>());
            }
        }
    }
}
