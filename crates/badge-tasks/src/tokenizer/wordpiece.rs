//! BERT's WordPiece out of a `vocab.txt`, for models from before `tokenizer.json`.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::file;

/// The keys of `tokenizer_config.json` that decide how BERT splits text; the defaults are those
/// of transformers' `BertTokenizer`.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Settings {
    do_lower_case: bool,
    tokenize_chinese_chars: bool,
    strip_accents: Option<bool>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            do_lower_case: true,
            tokenize_chinese_chars: true,
            strip_accents: None,
        }
    }
}

/// The `tokenizer.json` that stands for a vocabulary file and its settings.
pub(super) fn build(vocabulary: &Path, config: &Path) -> Result<Vec<u8>> {
    let settings = read_settings(config)?;
    let text = file::read_text(vocabulary)?;
    let mut tokens: Vec<&str> = text
        .split('\n')
        .map(|line| line.trim_end_matches('\r'))
        .collect();
    while tokens.last().is_some_and(|token| token.is_empty()) {
        tokens.pop();
    }
    let id = |token: &str| {
        tokens
            .iter()
            .position(|other| *other == token)
            .ok_or_else(|| Error::TokenizerInvalid {
                path: vocabulary.to_path_buf(),
                problem: format!("it has no token `{token}`"),
            })
    };
    let (unknown, cls, sep) = (id("[UNK]")?, id("[CLS]")?, id("[SEP]")?);
    let special = [
        (id("[PAD]")?, "[PAD]"),
        (unknown, "[UNK]"),
        (cls, "[CLS]"),
        (sep, "[SEP]"),
    ];
    let mut added: Vec<(usize, &str)> = special.to_vec();
    added.extend(id("[MASK]").ok().map(|id| (id, "[MASK]")));
    added.sort_unstable();
    let vocab: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| ((*token).to_owned(), json!(id)))
        .collect();
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.iter().map(|(id, token)| added_token(*id, token)).collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": settings.tokenize_chinese_chars,
            "strip_accents": settings.strip_accents,
            "lowercase": settings.do_lower_case,
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special_piece("[CLS]", 0), text_piece("A", 0), special_piece("[SEP]", 0)],
            "pair": [
                special_piece("[CLS]", 0), text_piece("A", 0), special_piece("[SEP]", 0),
                text_piece("B", 1), special_piece("[SEP]", 1),
            ],
            "special_tokens": {
                "[CLS]": { "id": "[CLS]", "ids": [cls], "tokens": ["[CLS]"] },
                "[SEP]": { "id": "[SEP]", "ids": [sep], "tokens": ["[SEP]"] },
            },
        },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    });
    Ok(json.to_string().into_bytes())
}

fn read_settings(path: &Path) -> Result<Settings> {
    if !path.is_file() {
        return Ok(Settings::default());
    }
    serde_json::from_str(&file::read_text(path)?).map_err(|error| Error::TokenizerInvalid {
        path: path.to_path_buf(),
        problem: error.to_string(),
    })
}

fn added_token(id: usize, token: &str) -> Value {
    json!({
        "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    })
}

fn special_piece(token: &str, type_id: u32) -> Value {
    json!({ "SpecialToken": { "id": token, "type_id": type_id } })
}

fn text_piece(sequence: &str, type_id: u32) -> Value {
    json!({ "Sequence": { "id": sequence, "type_id": type_id } })
}
