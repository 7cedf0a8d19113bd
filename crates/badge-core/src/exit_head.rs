//! Exits that read more than the \[CLS\] row: multi-head attention between a block and its classifier.

use serde::{Deserialize, Serialize};

/// What stands between a block's rows and the exit's classifier, where that is more than a pooler
/// on \[CLS\]: attention over all rows of `H_m`, of which only the \[CLS\] row goes on.
///
/// Neither form has a residual sum or a LayerNorm (FastBERT; the paper's 98k parameters leave room
/// for none).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ExitHead {
    /// `v = O(Attention(Q h, K h, V h))` without biases, then the usual pooler and classifier
    /// (paper, section 4.4: 98k parameters at r = 32).
    MhaBottleneck {
        /// Size `r` that queries, keys and values are narrowed to.
        rank: usize,
        /// Attention heads, which divide `r` among them.
        heads: usize,
    },
    /// FastBERT's classifier: `u = tanh(A h)`, `v = O(Attention(Q u, K u, V u))`,
    /// `w = tanh(B v)`, with biases, and a classifier of that size.
    MhaFastbert {
        /// Size `n` that everything inside has.
        dim: usize,
        /// Attention heads, which divide `n` among them.
        heads: usize,
    },
}

impl ExitHead {
    /// The paper's bottleneck form: r = 32 (paper, App. C), two heads.
    pub const BOTTLENECK: Self = Self::MhaBottleneck { rank: 32, heads: 2 };
    /// FastBERT's own form: size 128, two heads.
    pub const FASTBERT: Self = Self::MhaFastbert { dim: 128, heads: 2 };

    /// Refuses sizes of which no attention can be made.
    ///
    /// # Errors
    /// A sentence that says which size is wrong.
    pub fn check(self) -> Result<(), String> {
        let (name, size, heads) = match self {
            Self::MhaBottleneck { rank, heads } => ("rank", rank, heads),
            Self::MhaFastbert { dim, heads } => ("dim", dim, heads),
        };
        if !(1..=65_536).contains(&size) {
            return Err(format!("{name} {size} does not lie in 1..=65536"));
        }
        if heads == 0 || !size.is_multiple_of(heads) {
            return Err(format!("{heads} heads do not divide {name} {size}"));
        }
        Ok(())
    }

    /// Inputs of the pooler or classifier behind it, on a backbone of hidden size `d`.
    pub fn width(self, d: usize) -> usize {
        match self {
            Self::MhaBottleneck { .. } => d,
            Self::MhaFastbert { dim, .. } => dim,
        }
    }

    /// Parameters in front of pooler and classifier, on a backbone of hidden size `d`.
    pub fn parameters(self, d: usize) -> usize {
        match self {
            Self::MhaBottleneck { rank, .. } => 4 * d * rank,
            Self::MhaFastbert { dim, .. } => (d + 1) * dim + 5 * (dim + 1) * dim,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_their_published_parameter_counts() {
        assert_eq!(ExitHead::BOTTLENECK.parameters(768), 98_304);
        let classifier = |head: ExitHead| 2 * (head.width(768) + 1);
        let fastbert = |dim| ExitHead::MhaFastbert { dim, heads: 2 };
        for (dim, count) in [(128, 181_250), (32, 29_954)] {
            let head = fastbert(dim);
            assert_eq!(head.parameters(768) + classifier(head), count);
        }
    }

    #[test]
    fn heads_must_divide_the_size() {
        assert!(ExitHead::BOTTLENECK.check().is_ok());
        for (head, reason) in [
            (ExitHead::MhaBottleneck { rank: 0, heads: 1 }, "rank 0"),
            (ExitHead::MhaBottleneck { rank: 32, heads: 3 }, "3 heads"),
            (ExitHead::MhaFastbert { dim: 128, heads: 0 }, "0 heads"),
        ] {
            let message = head.check().unwrap_err();
            assert!(message.contains(reason), "{message}");
        }
    }
}
