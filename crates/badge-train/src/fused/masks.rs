//! Dropout masks of packed rows: the same elements that the padded computation drops.

use badge_kernels::training::dropout::{DropoutMask, KeepBits};

use super::pass::Pass;
use crate::ops::{self, DropoutSite};

/// The mask of one site, and the memory for the next.
#[derive(Debug, Default)]
pub(super) struct Mask {
    keep: KeepBits,
    /// `None` where nothing is dropped.
    scale: Option<f32>,
}

impl Mask {
    /// The mask as kernels take it.
    pub(super) fn get(&self) -> Option<DropoutMask<'_>> {
        let keep = &self.keep;
        self.scale.map(|scale| DropoutMask { keep, scale })
    }

    /// A row behind this mask.
    pub(super) fn of_row(&self, row: usize, values: &[f32]) -> impl Iterator<Item = f32> {
        values
            .iter()
            .enumerate()
            .map(move |(column, value)| match self.scale {
                None => *value,
                Some(scale) if self.keep.keeps(row, column) => value * scale,
                Some(_) => 0.0,
            })
    }

    /// Draws the mask of rows `[B, T, D]`, of those that the pass has.
    pub(super) fn draw_rows(
        &mut self,
        pass: &Pass<'_>,
        (site, rate): (DropoutSite, f64),
        columns: usize,
    ) {
        let (batch, rows) = (pass.batch, pass.query_rows);
        let draw = |row: usize, words: &mut [u64], mask: &ops::Mask| {
            let (sample, position) = batch.place(row, rows);
            let start = (sample * batch.padded_tokens() + position) * columns;
            mask.keep(start, columns, words);
        };
        self.draw(pass, (site, rate), (batch.count(rows), columns), &draw);
    }

    /// Draws the mask of attention probabilities `[B, H, T, T]`: row `h M + i` of the bits is
    /// head h of query row i.
    pub(super) fn draw_probabilities(
        &mut self,
        pass: &Pass<'_>,
        (site, rate): (DropoutSite, f64),
        heads: usize,
    ) {
        let (batch, rows) = (pass.batch, pass.query_rows);
        let (count, t) = (batch.count(rows), batch.padded_tokens());
        let draw = |row: usize, words: &mut [u64], mask: &ops::Mask| {
            let (head, query) = (row / count, row % count);
            let (sample, position) = batch.place(query, rows);
            let start = ((sample * heads + head) * t + position) * t;
            mask.keep(start, batch.length(sample), words);
        };
        let shape = (heads * count, batch.longest());
        self.draw(pass, (site, rate), shape, &draw);
    }

    fn draw(
        &mut self,
        pass: &Pass<'_>,
        (site, rate): (DropoutSite, f64),
        (rows, columns): (usize, usize),
        draw: &(dyn Fn(usize, &mut [u64], &ops::Mask) + Sync),
    ) {
        let mask = pass.stream.and_then(|stream| stream.mask(rate, site));
        self.scale = mask.as_ref().map(ops::Mask::scale);
        if let Some(mask) = mask {
            self.keep.reshape(rows, columns);
            let row = |row: usize, words: &mut [u64]| draw(row, words, &mask);
            self.keep.fill(pass.pool, &row);
        }
    }
}
