//! Token ids as the model takes them.

use std::sync::Arc;

use badge_core::config::BackboneConfig;

use crate::error::{Error, Result};
use crate::framework::{Device, Tensor};

/// A padded batch of `B` rows of `T` tokens.
#[derive(Debug, Clone)]
pub struct ModelInput {
    /// Token ids `[B, T]`.
    pub(crate) ids: Tensor,
    /// Segment ids `[B, T]`.
    pub(crate) type_ids: Tensor,
    /// Tokens of each row that are not padding.
    pub(crate) lengths: Arc<[usize]>,
    /// The largest id, checked against the vocabulary by the model.
    pub(crate) id_max: u32,
    /// The largest segment id.
    pub(crate) type_id_max: u32,
}

impl ModelInput {
    /// A batch from row-major ids; each row's first `lengths[b]` tokens are real.
    ///
    /// # Errors
    /// When the framework cannot allocate.
    ///
    /// # Panics
    /// When the sizes disagree or a row is empty.
    pub fn new(ids: &[u32], type_ids: &[u32], lengths: &[usize], device: &Device) -> Result<Self> {
        let b = lengths.len();
        assert!(b > 0 && ids.len().is_multiple_of(b) && ids.len() == type_ids.len());
        let t = ids.len() / b;
        assert!(
            lengths.iter().all(|l| (1..=t).contains(l)),
            "row lengths {lengths:?} of {t}"
        );
        Ok(Self {
            ids: Tensor::from_slice(ids, (b, t), device)?,
            type_ids: Tensor::from_slice(type_ids, (b, t), device)?,
            lengths: Arc::from(lengths),
            id_max: ids.iter().copied().max().unwrap_or(0),
            type_id_max: type_ids.iter().copied().max().unwrap_or(0),
        })
    }

    /// Rows of the batch, `B`.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// Tokens of the padded rows, `T`.
    pub fn tokens(&self) -> usize {
        self.ids.dims()[1]
    }

    /// Refuses ids that the tables do not hold.
    pub(crate) fn check(&self, config: &BackboneConfig) -> Result<()> {
        check_ids(self.tokens(), (self.id_max, self.type_id_max), config)
    }
}

/// Refuses a row of so many tokens, or ids up to these, that the tables do not hold.
pub(crate) fn check_ids(
    tokens: usize,
    (id_max, type_id_max): (u32, u32),
    config: &BackboneConfig,
) -> Result<()> {
    if tokens > config.positions {
        return Err(Error::TooLong {
            tokens,
            positions: config.positions,
        });
    }
    if id_max as usize >= config.vocabulary {
        return Err(Error::TokenId {
            id: id_max,
            vocabulary: config.vocabulary,
        });
    }
    if type_id_max as usize >= config.token_types {
        return Err(Error::Setting {
            setting: "type_vocab_size",
            problem: format!(
                "the tokeniser gave segment id {type_id_max}, but the backbone has {}; \
                 this backbone takes single texts only",
                config.token_types
            ),
        });
    }
    Ok(())
}
