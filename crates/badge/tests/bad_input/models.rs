//! Model directories that are damaged, one way each.

use std::fs;

use badge_core::checkpoint::{Checkpoint, Tensor};
use serde_json::{Value, json};

use super::setup::Setup;
use super::{Case, NOTHING, case};

pub(crate) const CONFIG: &str = "model/config.json";
pub(crate) const WEIGHTS: &str = "model/model.safetensors";

/// A tensor of the model.
const TENSOR: &str = "exits.1.classifier.weight";

pub(crate) const MODELS: &[Case] = &[
    case(
        "no such directory",
        NOTHING,
        "predict --model ./absent texts.txt",
        &["./absent", "directory"],
    ),
    case(
        "config.json is missing",
        |setup| fs::remove_file(setup.path(CONFIG)).unwrap(),
        "predict --model model texts.txt",
        &["model/config.json", "no such file"],
    ),
    case(
        "config.json is cut off",
        |setup| setup.write(CONFIG, "{\"model_type\": "),
        "predict --model model texts.txt",
        &["config.json", "not valid JSON", "line 1"],
    ),
    case(
        "config.json is a list",
        |setup| setup.write(CONFIG, "[]"),
        "inspect model",
        &["config.json", "JSON object"],
    ),
    case(
        "unknown model_type",
        |setup| setup.edit_json(CONFIG, |config| config["model_type"] = json!("gpt2")),
        "predict --model model texts.txt",
        &["config.json", "model_type", "gpt2", "albert"],
    ),
    case(
        "hidden size zero",
        |setup| setup.edit_json(CONFIG, |config| config["hidden_size"] = json!(0)),
        "predict --model model texts.txt",
        &["hidden_size", "0 is not a whole number in 1..="],
    ),
    case(
        "hidden size beyond memory",
        |setup| setup.edit_json(CONFIG, |config| config["hidden_size"] = json!(1u64 << 60)),
        "predict --model model texts.txt",
        &["hidden_size"],
    ),
    case(
        "heads do not divide the hidden size",
        |setup| setup.edit_json(CONFIG, |config| config["num_attention_heads"] = json!(5)),
        "predict --model model texts.txt",
        &["num_attention_heads", "5", "24"],
    ),
    case(
        "unknown activation",
        |setup| setup.edit_json(CONFIG, |config| config["hidden_act"] = json!("maxout")),
        "inspect model",
        &["hidden_act", "maxout"],
    ),
    case(
        "a label is missing from id2label",
        |setup| {
            setup.edit_json(CONFIG, |config| {
                config["id2label"] = json!({"0": "a", "2": "b"});
            });
        },
        "predict --model model texts.txt",
        &["id2label"],
    ),
    case(
        "a label twice in id2label",
        |setup| {
            setup.edit_json(CONFIG, |config| config["id2label"]["1"] = json!("LABEL_0"));
        },
        "predict --model model texts.txt",
        &["id2label", "LABEL_0"],
    ),
    case(
        "early_exit of a later version",
        |setup| setup.edit_json(CONFIG, |config| config["early_exit"]["version"] = json!(2)),
        "predict --model model texts.txt",
        &["early_exit.version", "reads version 1"],
    ),
    case(
        "an exit beyond the last block",
        |setup| {
            setup.edit_json(CONFIG, |config| {
                config["early_exit"]["exits"] = json!([1, 9]);
            });
        },
        "predict --model model texts.txt",
        &["early_exit.exits", "exit 9 lies outside 1..=5"],
    ),
    case(
        "the deepest block has no exit",
        |setup| {
            setup.edit_json(CONFIG, |config| {
                config["early_exit"]["exits"] = json!([1, 2]);
            });
        },
        "predict --model model texts.txt",
        &["early_exit.exits", "deepest block, 5"],
    ),
    case(
        "a bypass of rank zero",
        |setup| {
            let bypass = json!({"rank": 0});
            setup.edit_json(CONFIG, |config| config["early_exit"]["bypass"] = bypass);
        },
        "predict --model model texts.txt",
        &["early_exit.bypass.rank"],
    ),
    case(
        "weights are missing",
        |setup| fs::remove_file(setup.path(WEIGHTS)).unwrap(),
        "predict --model model texts.txt",
        &["model", "holds no weights", "model.safetensors"],
    ),
    case(
        "weights are empty",
        |setup| setup.write(WEIGHTS, ""),
        "predict --model model texts.txt",
        &["model.safetensors", "not a valid safetensors file"],
    ),
    case(
        "weights are cut off",
        |setup| {
            let bytes = setup.read(WEIGHTS);
            setup.write(WEIGHTS, &bytes[..bytes.len() - 1000]);
        },
        "predict --model model texts.txt",
        &["model.safetensors", "not a valid safetensors file"],
    ),
    case(
        "the header lies about sizes",
        |setup| {
            edit_header(setup, |tensor| {
                tensor["data_offsets"][1] = json!(1u64 << 40);
            });
        },
        "inspect model",
        &["model.safetensors", "not a valid safetensors file"],
    ),
    case(
        "the header claims to be huge",
        |setup| {
            let mut bytes = setup.read(WEIGHTS);
            bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
            setup.write(WEIGHTS, bytes);
        },
        "predict --model model texts.txt",
        &["model.safetensors", "not a valid safetensors file"],
    ),
    case(
        "a tensor lies on its side",
        |setup| edit_header(setup, |tensor| tensor["shape"] = json!([24, 5])),
        "predict --model model texts.txt",
        &[TENSOR, "[24, 5]", "[5, 24]"],
    ),
    case(
        "a tensor is missing",
        |setup| {
            setup.edit_tensors(WEIGHTS, |tensors| {
                assert!(tensors.take(TENSOR, &[5, 24]).unwrap().is_some());
            });
        },
        "inspect model",
        &["model.safetensors", TENSOR, "missing"],
    ),
    case(
        "a tensor too many",
        |setup| setup.edit_tensors(WEIGHTS, add_tensor),
        "predict --model model texts.txt",
        &[
            "model.safetensors",
            "exits.9.classifier.weight",
            "not part of the model",
        ],
    ),
    case(
        "a weight is NaN",
        |setup| set_weight(setup, f32::NAN),
        "predict --model model texts.txt",
        &["model.safetensors", TENSOR, "NaN", "element 7"],
    ),
    case(
        "a weight is infinite",
        |setup| set_weight(setup, f32::INFINITY),
        "inspect model",
        &["model.safetensors", TENSOR, "inf"],
    ),
    case(
        "a backbone with a weight that is NaN",
        |setup| set_weight(setup, f32::NAN),
        "train --backbone model --task task.toml --out out",
        &["model.safetensors", TENSOR, "NaN"],
    ),
    case(
        "weights of an integer type",
        |setup| edit_header(setup, |tensor| tensor["dtype"] = json!("I32")),
        "predict --model model texts.txt",
        &["model.safetensors", TENSOR, "I32"],
    ),
    case(
        "pytorch_model.bin is garbage",
        |setup| {
            fs::remove_file(setup.path(WEIGHTS)).unwrap();
            setup.write("model/pytorch_model.bin", "no pickle in sight");
        },
        "predict --model model texts.txt",
        &["pytorch_model.bin", "not a readable PyTorch checkpoint"],
    ),
    case(
        "the index of shards leads out of the directory",
        |setup| shard_index(setup, "../outside.safetensors"),
        "predict --model model texts.txt",
        &[
            "model.safetensors.index.json",
            TENSOR,
            "../outside.safetensors",
        ],
    ),
    case(
        "a shard is missing",
        |setup| shard_index(setup, "model-00001-of-00001.safetensors"),
        "predict --model model texts.txt",
        &["model-00001-of-00001.safetensors", "no such file"],
    ),
    case(
        "the tokeniser is missing",
        |setup| fs::remove_file(setup.path("model/tokenizer.json")).unwrap(),
        "predict --model model texts.txt",
        &[
            "model",
            "tokenizer.json",
            "copy the model's tokeniser there",
        ],
    ),
    case(
        "the tokeniser is malformed",
        |setup| setup.write("model/tokenizer.json", "{\"model\": 3}"),
        "inspect model",
        &["model/tokenizer.json", "not a valid tokeniser"],
    ),
    case(
        "the tokeniser knows more tokens than the model",
        |setup| {
            let tokenizer = "model/tokenizer.json";
            setup.edit_json(tokenizer, |json| json["model"]["vocab"]["cat"] = json!(500));
        },
        "predict --model model texts.txt",
        &["token id 500", "vocabulary ends at 99", "tokenizer.json"],
    ),
    case(
        "a calibration that is no JSON",
        |setup| setup.write("model/exit_calibration.json", "tau"),
        "inspect model",
        &["exit_calibration.json", "not valid JSON"],
    ),
    case(
        "a calibration of an earlier version",
        |setup| setup.write("model/exit_calibration.json", r#"{"version": 1}"#),
        "predict --model model texts.txt",
        &[
            "exit_calibration.json",
            "`version`: it is 1",
            "calibrate again",
        ],
    ),
];

/// Changes what the header of the weights says about [`TENSOR`], and leaves the data alone.
fn edit_header(setup: &Setup, edit: impl FnOnce(&mut Value)) {
    let bytes = setup.read(WEIGHTS);
    let (header, data) = split_header(&bytes);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    edit(&mut header[TENSOR]);
    let header = header.to_string().into_bytes();
    let mut edited = (header.len() as u64).to_le_bytes().to_vec();
    edited.extend(header);
    edited.extend(data);
    setup.write(WEIGHTS, edited);
}

fn split_header(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_at(8);
    rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize)
}

/// Overwrites element 7 of [`TENSOR`].
fn set_weight(setup: &Setup, value: f32) {
    let mut bytes = setup.read(WEIGHTS);
    let (header, data) = split_header(&bytes);
    let start = bytes.len() - data.len();
    let header: Value = serde_json::from_slice(header).unwrap();
    let offset = header[TENSOR]["data_offsets"][0].as_u64().unwrap() as usize;
    let place = start + offset + 7 * size_of::<f32>();
    bytes[place..][..4].copy_from_slice(&value.to_le_bytes());
    setup.write(WEIGHTS, bytes);
}

fn add_tensor(tensors: &mut Checkpoint) {
    let tensor = Tensor {
        shape: vec![5, 24],
        values: vec![0.25; 120],
    };
    let name = "exits.9.classifier.weight".to_owned();
    tensors.insert("extra", name, tensor).unwrap();
}

/// Puts an index of shards in the place of the weights.
fn shard_index(setup: &Setup, shard: &str) {
    fs::remove_file(setup.path(WEIGHTS)).unwrap();
    let index = json!({"weight_map": {TENSOR: shard}});
    setup.write("model/model.safetensors.index.json", index.to_string());
}
