//! Encodings against what transformers gives for the same vocabulary.

use std::fs;

use super::*;

const VOCABULARY: &str =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\nd\n##s\nplay\n##ing\nE\ne\n!";

/// A directory with a small vocabulary and the given `tokenizer_config.json`.
fn directory(config: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vocab.txt"), VOCABULARY).unwrap();
    if let Some(config) = config {
        fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    }
    folder
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_directory(directory(None).path()).unwrap()
}

#[test]
fn text_is_split_as_bert_does() {
    let tokenizer = tokenizer();
    let cases: [(&str, &[u32]); 5] = [
        ("playing", &[2, 10, 11, 3]),
        ("Plays É!", &[2, 10, 9, 13, 14, 3]),
        ("zzz", &[2, 1, 3]),
        ("a [SEP] b", &[2, 5, 3, 6, 3]),
        ("\u{200b}", &[2, 3]),
    ];
    for (text, ids) in cases {
        let encoding = tokenizer.encode(&Example::of_text(text), 16).unwrap();
        assert_eq!(encoding.ids, ids, "{text}");
        assert_eq!(encoding.type_ids, vec![0; ids.len()], "{text}");
    }
}

#[test]
fn case_is_kept_where_the_config_says_so() {
    let folder = directory(Some(
        "{\"do_lower_case\": false, \"model_max_length\": 512}",
    ));
    let tokenizer = Tokenizer::from_directory(folder.path()).unwrap();
    assert_eq!(
        tokenizer.encode(&Example::of_text("E e"), 8).unwrap().ids,
        [2, 12, 13, 3]
    );
}

#[test]
fn pairs_have_segment_ids() {
    let encoding = tokenizer()
        .encode(&Example::of_pair("a b", "c"), 16)
        .unwrap();
    assert_eq!(encoding.ids, [2, 5, 6, 3, 7, 3]);
    assert_eq!(encoding.type_ids, [0, 0, 0, 0, 1, 1]);
}

#[test]
fn what_is_left_out_of_a_long_text_changes_no_token() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer");
    let fixture = Tokenizer::from_directory(&fixture).unwrap();
    let long = "a plays, b! -- d2 [MASK] the old bridge ".repeat(30);
    let letters = "playing".repeat(40);
    let texts = ["a", "c d a b c d a b c d a", &long, &letters, "- - -", ""];
    let pairs = texts.iter().flat_map(|text| {
        let pair = texts.iter().map(move |pair| Example::of_pair(*text, *pair));
        pair.chain([Example::of_text(*text)])
    });
    let mut left_out = 0;
    for example in pairs {
        for tokenizer in [&tokenizer(), &fixture] {
            for (max_length, overlong) in [
                (6, Overlong::CutEnd),
                (9, Overlong::CutEnd),
                (6, Overlong::CutBeginning),
                (9, Overlong::CutBeginning),
            ] {
                left_out += usize::from(excerpt_of(&example, max_length, overlong).is_some());
                let special = tokenizer.special_tokens(example.pair.is_some());
                let whole = tokenizer.plain(&example).unwrap();
                let whole = tokenizer.truncated(whole, max_length - special, overlong);
                let found = tokenizer.encode_within(&example, max_length, overlong);
                assert_eq!(found.unwrap().ids, whole.unwrap().get_ids(), "{example:?}");
            }
        }
    }
    assert!(left_out >= 8 * 6, "{left_out}");
}

#[test]
fn longest_text_is_cut_first() {
    let tokenizer = tokenizer();
    // Tokens of the first and second text, the length, and what transformers keeps of each.
    let cases = [
        ((6, 2), 8, (3, 2)),
        ((2, 6), 8, (2, 3)),
        ((6, 6), 9, (3, 3)),
        ((6, 6), 8, (2, 3)),
        ((7, 6), 8, (3, 2)),
        ((3, 3), 9, (3, 3)),
        ((1, 9), 5, (1, 1)),
    ];
    for ((first, second), max_length, (kept_first, kept_second)) in cases {
        let text = |word: &str, count| vec![word; count].join(" ");
        let example = Example::of_pair(text("a", first), text("b", second));
        let encoding = tokenizer.encode(&example, max_length).unwrap();
        let count = |id| encoding.ids.iter().filter(|other| **other == id).count();
        let label = format!("{first} and {second} tokens in {max_length}");
        assert_eq!((count(5), count(6)), (kept_first, kept_second), "{label}");
        assert!(encoding.len() <= max_length, "{label}");
    }
    let encoding = tokenizer.encode(&Example::of_text("a b c d"), 4).unwrap();
    assert_eq!(encoding.ids, [2, 5, 6, 3]);
}

#[test]
fn length_must_leave_room_for_the_texts() {
    let error = tokenizer().encode(&Example::of_text("a"), 2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a maximal length of 2 tokens leaves no room beside 2 special tokens; give at least 3"
    );
    assert!(tokenizer().encode(&Example::of_pair("a", "b"), 4).is_err());
    assert!(tokenizer().encode(&Example::of_pair("a", "b"), 5).is_ok());
}

#[test]
fn encodings_of_many_keep_their_order() {
    let tokenizer = tokenizer();
    let examples: Vec<Example> = (0..500)
        .map(|row| Example::of_text(vec!["a"; 1 + row % 7].join(" ")))
        .collect();
    let encodings = tokenizer.encode_all(&examples, 6).unwrap();
    for (example, encoding) in examples.iter().zip(&encodings) {
        assert_eq!(*encoding, tokenizer.encode(example, 6).unwrap());
    }
}

#[test]
fn file_survives_saving() {
    let tokenizer = tokenizer();
    let folder = tempfile::tempdir().unwrap();
    let path = tokenizer.save(folder.path()).unwrap();
    assert_eq!(fs::read(path).unwrap(), tokenizer.json());
    let again = Tokenizer::from_directory(folder.path()).unwrap();
    let example = Example::of_pair("playing a", "b!");
    assert_eq!(
        again.encode(&example, 9).unwrap(),
        tokenizer.encode(&example, 9).unwrap()
    );
    assert_eq!((again.pad_id(), again.vocabulary_size()), (0, 15));
    assert_eq!(again.token(10).as_deref(), Some("play"));
}

#[test]
fn truncation_and_padding_of_the_file_are_not_applied() {
    let mut json: serde_json::Value = serde_json::from_slice(tokenizer().json()).unwrap();
    json["truncation"] = serde_json::json!({
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0
    });
    json["padding"] = serde_json::json!({
        "strategy": { "Fixed": 12 }, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 4, "pad_type_id": 0, "pad_token": "[MASK]"
    });
    let tokenizer = Tokenizer::from_bytes(json.to_string().into_bytes()).unwrap();
    assert_eq!(
        tokenizer.encode(&Example::of_text("a b c"), 9).unwrap().ids,
        [2, 5, 6, 7, 3]
    );
    assert_eq!(tokenizer.pad_id(), 4);
}

#[test]
fn unreadable_tokenisers_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let message = || Tokenizer::from_directory(path).unwrap_err().to_string();
    assert!(
        message().contains("holds no tokenizer.json and no vocab.txt"),
        "{}",
        message()
    );
    fs::write(path.join("spiece.model"), "x").unwrap();
    assert!(message().contains("spiece.model: this form of tokeniser cannot be read"));
    fs::write(path.join("vocab.txt"), "a\nb\n").unwrap();
    assert!(message().contains("vocab.txt: not a valid tokeniser: it has no token `[UNK]`"));
    fs::write(path.join("tokenizer.json"), "{").unwrap();
    assert!(
        message().contains("tokenizer.json: not a valid tokeniser"),
        "{}",
        message()
    );
    let missing = Tokenizer::from_directory(&path.join("none")).unwrap_err();
    assert!(matches!(missing, Error::FileMissing { .. }), "{missing}");
}

#[test]
fn tokeniser_without_special_tokens_refuses_an_empty_result() {
    let mut json: serde_json::Value = serde_json::from_slice(tokenizer().json()).unwrap();
    json["post_processor"] = serde_json::Value::Null;
    let tokenizer = Tokenizer::from_bytes(json.to_string().into_bytes()).unwrap();
    let encoding = tokenizer.encode(&Example::of_pair("a b", "c"), 9).unwrap();
    assert_eq!(
        (encoding.ids, encoding.type_ids),
        (vec![5, 6, 7], vec![0, 0, 1])
    );
    let error = tokenizer
        .encode(&Example::of_text("\u{200b}"), 9)
        .unwrap_err();
    assert!(error.to_string().contains("it has no tokens"), "{error}");
}

#[test]
fn long_pairs_take_time_in_proportion_to_their_length() {
    // Each text leaves thousands of cut-off pieces; combining them would never end.
    let example = Example::of_pair("a ".repeat(50_000), "b ".repeat(50_000));
    assert_eq!(
        tokenizer().encode(&example, 7).unwrap().ids,
        [2, 5, 5, 3, 6, 6, 3]
    );
}

#[test]
fn a_long_text_is_cut_where_it_is_told_to_or_refused() {
    let tokenizer = tokenizer();
    let text = Example::of_text("a b c d");
    let cut = |overlong| tokenizer.encode_within(&text, 4, overlong);
    assert_eq!(cut(Overlong::CutEnd).unwrap().ids, [2, 5, 6, 3]);
    assert_eq!(cut(Overlong::CutBeginning).unwrap().ids, [2, 7, 8, 3]);
    assert!(matches!(
        cut(Overlong::Refuse),
        Err(Error::TooLong {
            tokens: 6,
            max_length: 4
        })
    ));
    let fits = tokenizer.encode_within(&text, 6, Overlong::Refuse).unwrap();
    assert_eq!(fits.ids, [2, 5, 6, 7, 8, 3]);
}

#[test]
fn tokens_say_where_they_stand_and_ids_become_text_again() {
    let tokenizer = tokenizer();
    let tokens = tokenizer.tokens("Playing é!", SpecialTokens::Keep).unwrap();
    let found: Vec<_> = tokens
        .iter()
        .map(|token| (token.id, token.text.as_str(), token.place))
        .collect();
    let expected = [
        (2, "[CLS]", None),
        (10, "Play", Some((0, 4))),
        (11, "ing", Some((4, 7))),
        (13, "é", Some((8, 10))),
        (14, "!", Some((10, 11))),
        (3, "[SEP]", None),
    ];
    assert_eq!(found, expected);
    let bare = tokenizer.tokens("a", SpecialTokens::Skip).unwrap();
    assert_eq!(bare.len(), 1);
    let text = |special| tokenizer.decode(&[2, 10, 11, 3, 999], special).unwrap();
    assert_eq!(text(SpecialTokens::Skip), "playing");
    assert_eq!(text(SpecialTokens::Keep), "[CLS] playing [SEP]");
}
