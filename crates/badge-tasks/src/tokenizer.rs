//! Texts to token ids, exactly as Hugging Face's fast tokenisers make them.

pub mod cache;
mod excerpt;
mod spelling;
mod wordpiece;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tokenizers::utils::truncation::{TruncationDirection, TruncationStrategy, truncate_encodings};
use tokenizers::{PostProcessor, TruncationParams};

use crate::error::{Error, Result};
use crate::file;
use crate::task::Example;

use excerpt::{End, excerpt};

pub use spelling::{SpecialTokens, Token};

/// The name of a tokeniser's file in a model directory.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Files of tokenisers that only other libraries read.
const FOREIGN_FILES: [&str; 4] = [
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "tokenizer.model",
];

/// A tokeniser and the file it came from.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    json: Vec<u8>,
    pad_id: u32,
}

/// The tokens of one example, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids, `[t]`.
    pub ids: Vec<u32>,
    /// Segment ids, `[t]`: 0 for the text, 1 for its pair, where the tokeniser tells them apart.
    pub type_ids: Vec<u32>,
}

/// What becomes of a text that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Overlong {
    /// It loses tokens at its end.
    #[default]
    CutEnd,
    /// It loses tokens at its beginning.
    CutBeginning,
    /// It is refused.
    Refuse,
}

impl Encoding {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none, which [`Tokenizer::encode`] never returns.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

impl Tokenizer {
    /// The tokeniser of a model directory: `tokenizer.json`, or BERT's WordPiece over `vocab.txt`
    /// with the settings of `tokenizer_config.json`.
    ///
    /// # Errors
    ///
    /// [`Error::TokenizerMissing`], [`Error::TokenizerUnconverted`] for a directory that has only
    /// a SentencePiece model or the like, [`Error::TokenizerInvalid`].
    pub fn from_directory(folder: &Path) -> Result<Self> {
        let path = folder.join(TOKENIZER_FILE);
        if path.is_file() {
            return Self::from_named_bytes(file::read_bytes(&path)?, &path);
        }
        let vocabulary = folder.join("vocab.txt");
        if vocabulary.is_file() {
            let json = wordpiece::build(&vocabulary, &folder.join("tokenizer_config.json"))?;
            return Self::from_named_bytes(json, &vocabulary);
        }
        match FOREIGN_FILES
            .iter()
            .map(|name| folder.join(name))
            .find(|path| path.is_file())
        {
            Some(path) => Err(Error::TokenizerUnconverted { path }),
            None if folder.is_dir() => Err(Error::TokenizerMissing {
                folder: folder.to_path_buf(),
            }),
            None => Err(Error::FileMissing {
                path: folder.to_path_buf(),
            }),
        }
    }

    /// A tokeniser from the content of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// [`Error::TokenizerInvalid`].
    pub fn from_bytes(json: Vec<u8>) -> Result<Self> {
        Self::from_named_bytes(json, Path::new(TOKENIZER_FILE))
    }

    fn from_named_bytes(json: Vec<u8>, path: &Path) -> Result<Self> {
        let invalid = |error: tokenizers::Error| Error::TokenizerInvalid {
            path: path.to_path_buf(),
            problem: error.to_string(),
        };
        let mut inner = tokenizers::Tokenizer::from_bytes(&json).map_err(invalid)?;
        let pad_id = pad_id(&inner);
        // Lengths are the caller's business; what the file says was for its author's use.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(invalid)?;
        Ok(Self {
            inner,
            json,
            pad_id,
        })
    }

    /// The tokens of an example, at most `max_length` of them.
    ///
    /// What is too long loses tokens at its end; of a pair the longer text loses first
    /// (`longest_first` of Hugging Face's fast tokenisers, which give an odd last place to the
    /// second text).
    ///
    /// # Errors
    ///
    /// [`Error::MaxLength`] when special tokens leave no room for each text, [`Error::Encode`]
    /// when nothing comes of the text.
    pub fn encode(&self, example: &Example, max_length: usize) -> Result<Encoding> {
        self.encode_within(example, max_length, Overlong::CutEnd)
    }

    /// The same for a caller that says what becomes of a text that is too long.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`], and [`Error::TooLong`] for a text that is to be refused.
    pub fn encode_within(
        &self,
        example: &Example,
        max_length: usize,
        overlong: Overlong,
    ) -> Result<Encoding> {
        let texts = 1 + usize::from(example.pair.is_some());
        let special = self.special_tokens(example.pair.is_some());
        if max_length < special + texts {
            return Err(Error::MaxLength {
                max_length,
                special,
                needed: special + texts,
            });
        }
        let failed = |problem: String| Error::Encode {
            text: beginning(&example.text),
            problem,
        };
        let library = |error: tokenizers::Error| failed(error.to_string());
        let (text, pair) = self.read(example, max_length, overlong).map_err(library)?;
        let tokens = special + text.len() + pair.as_ref().map_or(0, tokenizers::Encoding::len);
        if overlong == Overlong::Refuse && tokens > max_length {
            return Err(Error::TooLong { tokens, max_length });
        }
        let encoding = self
            .truncated((text, pair), max_length - special, overlong)
            .map_err(library)?;
        let (ids, type_ids) = (
            encoding.get_ids().to_vec(),
            encoding.get_type_ids().to_vec(),
        );
        if ids.is_empty() {
            return Err(failed("it has no tokens, not even special ones".to_owned()));
        }
        Ok(Encoding { ids, type_ids })
    }

    /// The tokens of many examples, in their order, on all threads.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`], for the first example that fails.
    pub fn encode_all(&self, examples: &[Example], max_length: usize) -> Result<Vec<Encoding>> {
        examples
            .par_iter()
            .map(|example| self.encode(example, max_length))
            .collect()
    }

    /// The content of the `tokenizer.json` that stands for this tokeniser, to be written beside a
    /// model's weights.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// Writes `tokenizer.json` into a model directory.
    ///
    /// # Errors
    ///
    /// As [`file::write_atomic`].
    pub fn save(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(TOKENIZER_FILE);
        file::write_atomic(&path, &self.json)?;
        Ok(path)
    }

    /// The id that padding is filled with.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// The number of ids, added tokens included.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// A token in writing.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    fn special_tokens(&self, is_pair: bool) -> usize {
        self.inner
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(is_pair))
    }

    /// The tokens of the texts that can be among the first or last `max_length`, without special ones:
    /// who sends a very long text is not to keep others waiting.
    fn read(
        &self,
        example: &Example,
        max_length: usize,
        overlong: Overlong,
    ) -> tokenizers::Result<Texts> {
        let Some(excerpt) = excerpt_of(example, max_length, overlong) else {
            return self.plain(example);
        };
        let (text, pair) = self.plain(&excerpt)?;
        let other = pair.as_ref().map_or(0, tokenizers::Encoding::len);
        let (cut, other) = if excerpt.text.len() < example.text.len() {
            (text.len(), other)
        } else {
            (other, text.len())
        };
        // Not of a tokeniser that makes fewer tokens than words; and which text loses tokens depends
        // on which is longer.
        if cut >= max_length && cut > other {
            Ok((text, pair))
        } else {
            self.plain(example)
        }
    }

    /// The tokens of the texts, without special ones.
    fn plain(&self, example: &Example) -> tokenizers::Result<Texts> {
        let text = self.inner.encode_fast(example.text.as_str(), false)?;
        let pair = match &example.pair {
            None => None,
            Some(pair) => {
                let mut pair = self.inner.encode_fast(pair.as_str(), false)?;
                pair.set_type_ids(vec![1; pair.len()]);
                Some(pair)
            }
        };
        Ok((text, pair))
    }

    /// Truncates texts that were encoded without special tokens, then adds these: the order in
    /// which the library itself works, which only knows one maximal length per tokeniser.
    fn truncated(
        &self,
        (text, pair): Texts,
        max_length: usize,
        overlong: Overlong,
    ) -> tokenizers::Result<tokenizers::Encoding> {
        let (mut text, mut pair) = truncate_encodings(
            text,
            pair,
            &TruncationParams {
                max_length,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
                direction: match overlong {
                    Overlong::CutEnd | Overlong::Refuse => TruncationDirection::Right,
                    Overlong::CutBeginning => TruncationDirection::Left,
                },
            },
        )?;
        // The cut-off rest would be combined with every cut-off rest of the pair below.
        text.take_overflowing();
        if let Some(pair) = &mut pair {
            pair.take_overflowing();
        }
        self.inner.post_process(text, pair, true)
    }
}

/// The example with what can matter of its one long text; none where that is all. Of two long texts
/// nothing is left out: which of them keeps a token more is decided by their whole lengths.
fn excerpt_of(example: &Example, max_length: usize, overlong: Overlong) -> Option<Example> {
    let end = match overlong {
        Overlong::Refuse => return None,
        Overlong::CutEnd => End::First,
        Overlong::CutBeginning => End::Last,
    };
    let text = excerpt(&example.text, max_length, end);
    let pair = example.pair.as_ref();
    match (text, pair.and_then(|pair| excerpt(pair, max_length, end))) {
        (Some(text), None) => Some(Example {
            text: text.to_owned(),
            ..example.clone()
        }),
        (None, Some(pair)) => Some(Example {
            pair: Some(pair.to_owned()),
            ..example.clone()
        }),
        _ => None,
    }
}

/// A text as the library encodes it, and its pair.
type Texts = (tokenizers::Encoding, Option<tokenizers::Encoding>);

/// The padding of the file, or the token that usually serves for it.
fn pad_id(tokenizer: &tokenizers::Tokenizer) -> u32 {
    let named = || {
        ["[PAD]", "<pad>"]
            .iter()
            .find_map(|token| tokenizer.token_to_id(token))
    };
    tokenizer
        .get_padding()
        .map(|padding| padding.pad_id)
        .or_else(named)
        .unwrap_or(0)
}

fn beginning(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests;
