//! The quickstart's tokeniser: the corpus's closed vocabulary as a Hugging Face `tokenizer.json`.

use serde_json::{Map, Value, json};

use super::corpus::Corpus;

/// Padding, at id 0.
pub const PAD: &str = "[PAD]";
/// Any word outside the corpus, at id 1.
pub const UNKNOWN: &str = "[UNK]";
/// The first token of every input, at id 2; exits read it.
pub const CLASSIFY: &str = "[CLS]";
/// The last token of every text, at id 3.
pub const SEPARATE: &str = "[SEP]";

const SPECIAL: [&str; 4] = [PAD, UNKNOWN, CLASSIFY, SEPARATE];

/// The tokens in the order of their ids.
pub fn vocabulary() -> Vec<String> {
    SPECIAL
        .into_iter()
        .map(str::to_owned)
        .chain(Corpus::words())
        .collect()
}

/// The text of `tokenizer.json`: lower case, split at spaces and signs, whole words, `[CLS] A
/// [SEP]` for a text and `[CLS] A [SEP] B [SEP]` for a pair.
pub fn tokenizer_json() -> String {
    let vocabulary: Map<String, Value> = vocabulary()
        .into_iter()
        .enumerate()
        .map(|(id, token)| (token, json!(id)))
        .collect();
    let special: Vec<Value> = (SPECIAL.iter().enumerate())
        .map(|(id, token)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let document = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
                       "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": template(),
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": UNKNOWN},
    });
    pretty(&document)
}

/// The text of `tokenizer_config.json`, with which `transformers` finds class and special tokens.
pub fn tokenizer_config_json(tokens_max: usize) -> String {
    pretty(&json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokens_max,
        "do_lower_case": true,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "cls_token": CLASSIFY,
        "sep_token": SEPARATE,
    }))
}

fn template() -> Value {
    let special =
        |token: &str, segment: usize| json!({"SpecialToken": {"id": token, "type_id": segment}});
    let sequence =
        |name: &str, segment: usize| json!({"Sequence": {"id": name, "type_id": segment}});
    let single = [special(CLASSIFY, 0), sequence("A", 0), special(SEPARATE, 0)];
    let second = [sequence("B", 1), special(SEPARATE, 1)];
    let pair: Vec<&Value> = single.iter().chain(&second).collect();
    let entry = |id: usize| json!({"id": SPECIAL[id], "ids": [id], "tokens": [SPECIAL[id]]});
    json!({
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": {CLASSIFY: entry(2), SEPARATE: entry(3)},
    })
}

fn pretty(document: &Value) -> String {
    serde_json::to_string_pretty(document).expect("a JSON value has only string keys") + "\n"
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokenizers::Tokenizer;

    use super::*;

    fn tokenizer() -> Tokenizer {
        tokenizer_json().parse().unwrap()
    }

    #[test]
    fn ids_are_the_places_in_the_vocabulary_and_no_word_comes_twice() {
        let vocabulary = vocabulary();
        assert_eq!(
            vocabulary.iter().collect::<HashSet<_>>().len(),
            vocabulary.len()
        );
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.get_vocab_size(true), vocabulary.len());
        for (id, token) in vocabulary.iter().enumerate() {
            assert_eq!(tokenizer.token_to_id(token), Some(id as u32), "{token}");
        }
    }

    #[test]
    fn a_text_is_lowered_split_and_framed() {
        let encoding = tokenizer().encode("I agree with Bob.", true).unwrap();
        assert_eq!(
            encoding.get_tokens(),
            ["[CLS]", "i", "agree", "with", "bob", ".", "[SEP]"]
        );
        assert_eq!(encoding.get_ids()[0], 2);
    }

    #[test]
    fn a_pair_has_two_segments() {
        let encoding = tokenizer().encode(("the film", "loved it"), true).unwrap();
        assert_eq!(
            encoding.get_tokens(),
            ["[CLS]", "the", "film", "[SEP]", "loved", "it", "[SEP]"]
        );
        assert_eq!(encoding.get_type_ids(), [0, 0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn a_word_outside_the_corpus_is_unknown() {
        let encoding = tokenizer().encode("the zeppelin was great!", true).unwrap();
        assert_eq!(
            encoding.get_tokens(),
            ["[CLS]", "the", "[UNK]", "was", "great", "[UNK]", "[SEP]"]
        );
    }

    #[test]
    fn the_configuration_names_tokens_that_exist() {
        let config: Value = serde_json::from_str(&tokenizer_config_json(64)).unwrap();
        let vocabulary = vocabulary();
        for key in ["pad_token", "unk_token", "cls_token", "sep_token"] {
            let token = config[key].as_str().unwrap();
            assert!(vocabulary.iter().any(|word| word == token), "{key}");
        }
        assert_eq!(config["model_max_length"], 64);
    }
}
