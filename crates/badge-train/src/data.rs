//! A split as the model takes it: token ids and targets.

use badge_core::config::BackboneConfig;
use badge_tasks::batch::{Batch, evaluation_batches};
use badge_tasks::hash::ContentHasher;
use badge_tasks::tokenizer::cache::Origin;
use badge_tasks::{Encoding, Split, Target, TokenCache, Tokenizer};

use crate::error::{Error, Result};
use crate::framework::Device;
use crate::model::{ModelInput, check_ids};

/// Token ids and targets of every row of a split.
#[derive(Debug)]
pub struct EncodedSplit {
    encodings: Vec<Encoding>,
    targets: Vec<Target>,
    lengths: Vec<usize>,
    pad_token: u32,
    origin: Origin,
}

impl EncodedSplit {
    /// The tokens of a labelled split, from the cache where they lie there already.
    ///
    /// # Errors
    /// When a row has no label or cannot be tokenised.
    pub fn new(
        split: &Split,
        tokenizer: &Tokenizer,
        max_length: usize,
        cache: &TokenCache,
    ) -> Result<Self> {
        let (encodings, origin) = cache.encode(&split.examples, tokenizer, max_length)?;
        Ok(Self {
            origin,
            ..Self::from_encodings(encodings, split.targets()?, tokenizer.pad_id())
        })
    }

    /// A split from token ids; `targets` may be empty where only logits are wanted.
    pub fn from_encodings(encodings: Vec<Encoding>, targets: Vec<Target>, pad_token: u32) -> Self {
        let lengths = encodings.iter().map(Encoding::len).collect();
        Self {
            encodings,
            targets,
            lengths,
            pad_token,
            origin: Origin::Texts,
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.encodings.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.encodings.is_empty()
    }

    /// Tokens of every row.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Token ids of every row.
    pub fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }

    /// The truth of every row.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Where the token ids came from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// A hash of all token ids: the same texts and another tokeniser give another one.
    pub fn sha256(&self) -> String {
        let mut hasher = ContentHasher::new();
        for encoding in &self.encodings {
            let bytes: Vec<u8> = encoding
                .ids
                .iter()
                .flat_map(|id| id.to_le_bytes())
                .collect();
            hasher.update_field(&bytes);
        }
        hasher.finish()
    }

    /// These rows as one padded batch.
    pub fn batch(&self, rows: &[usize]) -> Batch {
        Batch::new(&self.encodings, &self.targets, rows, self.pad_token)
    }

    /// Batches for evaluation, rows of like length together.
    pub fn evaluation_batches(&self, batch_size: usize) -> Vec<Vec<usize>> {
        evaluation_batches(&self.lengths, batch_size)
    }

    /// Refuses a split that a model on this backbone cannot take, before any time is spent.
    ///
    /// # Errors
    /// When it is empty, or an id lies outside the model's tables.
    pub fn check(&self, backbone: &BackboneConfig, name: &'static str) -> Result<()> {
        if self.is_empty() {
            let problem = "holds no rows; at least one is needed".to_owned();
            return Err(Error::Setting {
                setting: name,
                problem,
            });
        }
        for encoding in &self.encodings {
            let max = |ids: &[u32]| ids.iter().copied().max().unwrap_or(0);
            let maxima = (max(&encoding.ids), max(&encoding.type_ids));
            check_ids(encoding.len(), maxima, backbone)?;
        }
        Ok(())
    }
}

impl ModelInput {
    /// A padded batch on a device.
    ///
    /// # Errors
    /// When the framework cannot allocate.
    pub fn of_batch(batch: &Batch, device: &Device) -> Result<Self> {
        Self::new(&batch.input_ids, &batch.type_ids, &batch.lengths, device)
    }
}
