//! Tokens in writing: which pieces a text falls into, and ids back to text.

use super::{Tokenizer, beginning};
use crate::error::{Error, Result};

/// One token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The piece of the text that it stands for; of a special token its name.
    pub text: String,
    /// Where the piece stands in the text, in bytes; none for a special token.
    pub place: Option<(usize, usize)>,
}

/// Whether special tokens such as \[CLS\] take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpecialTokens {
    /// They do.
    Keep,
    /// They do not.
    Skip,
}

impl Tokenizer {
    /// The tokens of a text of any length.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`].
    pub fn tokens(&self, text: &str, special: SpecialTokens) -> Result<Vec<Token>> {
        let encoded = self.inner.encode(text, special == SpecialTokens::Keep);
        let encoding = encoded.map_err(|error| Error::Encode {
            text: beginning(text),
            problem: error.to_string(),
        })?;
        let names = encoding.get_tokens().iter();
        let places = encoding.get_offsets().iter();
        let is_special = encoding.get_special_tokens_mask().iter();
        let tokens = encoding.get_ids().iter().zip(names).zip(places);
        let token = |(((id, name), (start, end)), is_special): (((&u32, &String), &_), &u32)| {
            let piece = text.get(*start..*end).filter(|_| *is_special == 0);
            Token {
                id: *id,
                text: piece.unwrap_or(name).to_owned(),
                place: piece.map(|_| (*start, *end)),
            }
        };
        Ok(tokens.zip(is_special).map(token).collect())
    }

    /// The text that token ids stand for. Ids beyond the vocabulary stand for nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`].
    pub fn decode(&self, ids: &[u32], special: SpecialTokens) -> Result<String> {
        let decoded = self.inner.decode(ids, special == SpecialTokens::Skip);
        decoded.map_err(|error| Error::Decode {
            problem: error.to_string(),
        })
    }
}
