//! What all operations of one layer in one pass know.

use badge_kernels::threads::Pool;

use super::packed_batch::{PackedBatch, QueryRows};
use super::rows::Stream;
use crate::ops::{DropoutStream, LayerIndex};

/// One layer of one forward and backward pass.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) pool: &'a Pool,
    pub(super) batch: &'a PackedBatch,
    /// `None` where nothing is dropped.
    pub(super) stream: Option<&'a DropoutStream>,
    pub(super) layer: LayerIndex,
    /// The rows behind keys and values.
    pub(super) query_rows: QueryRows,
}

impl Pass<'_> {
    /// Tokens.
    pub(super) fn rows(&self) -> usize {
        self.batch.count(QueryRows::All)
    }

    /// Rows behind keys and values.
    pub(super) fn queries(&self) -> usize {
        self.batch.count(self.query_rows)
    }

    /// The rows of a layer's input that become queries, gathered into `cls` where they are not all.
    pub(super) fn rows_of_queries<'a>(&self, x: &'a Stream, cls: &'a mut Stream) -> &'a Stream {
        match self.query_rows {
            QueryRows::All => x,
            QueryRows::Cls => {
                cls.gather(x, self.batch.cls_rows(QueryRows::All));
                cls
            }
        }
    }
}
