//! The bytes of a case: a good model directory, damaged.

use serde_json::{Value, json};

use badge_core::checkpoint::layout;
use badge_core::config::ModelConfig;

use crate::json;
use crate::random::Random;
use crate::weights::File;

/// More values than a mutated configuration may ask for when weights are made that fit it.
const VALUES_MAX: usize = 30_000;

/// The `config.json` of a case.
pub(crate) fn config(number: u64) -> Vec<u8> {
    let mut random = Random::new(number, 1);
    let mut document = random.pick(&good_configs());
    if random.chance(60) {
        for _ in 0..=random.below(2) {
            damage_config(&mut random, &mut document);
        }
    }
    let mut bytes = json::text(&document);
    if random.chance(10) {
        damage_bytes(&mut random, &mut bytes);
    }
    bytes
}

/// The `model.safetensors` of a case whose configuration this is.
pub(crate) fn weights(number: u64, config: &[u8]) -> Vec<u8> {
    let mut random = Random::new(number, 2);
    // Weights that fit the configuration, as it is or as it was before the damage.
    let damaged = ModelConfig::from_json(config)
        .ok()
        .map(|c| layout::of_model(&c));
    let undamaged = || {
        let document = Random::new(number, 1).pick(&good_configs());
        layout::of_model(&ModelConfig::from_json(&json::text(&document)).unwrap())
    };
    let small = damaged.filter(|layout| {
        let values = layout
            .iter()
            .map(|spec| spec.shape.iter().product::<usize>());
        layout.len() < 1000 && values.fold(0, usize::saturating_add) < VALUES_MAX
    });
    let mut file = File::of(&mut random, &small.unwrap_or_else(undamaged));
    if random.chance(60) {
        for _ in 0..=random.below(2) {
            file.damage(&mut random);
        }
    }
    let mut bytes = file.bytes();
    if random.chance(10) {
        damage_bytes(&mut random, &mut bytes);
    }
    bytes
}

/// Damage that knows nothing of the format.
fn damage_bytes(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let place = random.below(bytes.len().max(1)).min(bytes.len());
        // Most of a file is weights; what decides is at its start.
        let place = if random.chance(50) {
            place.min(random.below(200))
        } else {
            place
        };
        match random.below(6) {
            0 => bytes.truncate(place),
            1 => bytes.insert(place, random.byte()),
            2 => bytes.extend(bytes[place..].to_vec()),
            3 => drop(bytes.drain(place..(place + random.below(9)).min(bytes.len()))),
            _ => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = if random.chance(50) {
                        random.byte()
                    } else {
                        *byte ^ 1 << random.below(8)
                    };
                }
            }
        }
    }
}

/// The keys of a configuration, without those of `early_exit`.
const KEYS: &str = "model_type vocab_size hidden_size num_hidden_layers num_attention_heads
    intermediate_size embedding_size num_hidden_groups inner_group_num hidden_act num_labels
    max_position_embeddings type_vocab_size layer_norm_eps hidden_dropout_prob initializer_range
    classifier_dropout_prob pad_token_id id2label problem_type";

const EXIT_KEYS: &str = "version exits pooler bypass exit_dropout max_length rank";

/// Damage to the keys that matter, or to any.
fn damage_config(random: &mut Random, document: &mut Value) {
    match random.below(4) {
        0 => document[random.word(KEYS)] = json::edge(random),
        1 => {
            let (key, value) = (random.word(EXIT_KEYS), json::edge(random));
            if let Some(exits) = document["early_exit"].as_object_mut() {
                exits.insert(key.to_owned(), value);
            }
        }
        2 => {
            let key = random.word("model_type hidden_act problem_type pooler");
            let word = random.word("albert bert elasticbert relu regression own none");
            if key != "pooler" {
                document[key] = word.into();
            } else if document["early_exit"].is_object() {
                document["early_exit"][key] = word.into();
            }
        }
        _ => json::damage(random, document),
    }
    if !document.is_object() {
        *document = json!({ "model_type": document.take() });
    }
}

/// Models of all kinds, so small that a case takes no time; all sizes differ.
fn good_configs() -> [Value; 5] {
    let albert = json!({
        "model_type": "albert", "vocab_size": 19, "embedding_size": 5, "hidden_size": 6,
        "num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 1,
        "num_attention_heads": 3, "intermediate_size": 7, "max_position_embeddings": 11,
        "id2label": {"0": "no", "1": "perhaps", "2": "yes"}
    });
    let bert = json!({
        "model_type": "bert", "vocab_size": 17, "hidden_size": 8, "num_hidden_layers": 3,
        "num_attention_heads": 2, "intermediate_size": 9, "max_position_embeddings": 10,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 1, "num_labels": 2
    });
    let with = |config: &Value, exits: Value| {
        let mut config = config.clone();
        config["early_exit"] = exits;
        config
    };
    let bypass = json!({"rank": 3, "activation": "gelu", "bias": true, "layer_norm": "own"});
    let mut elastic = bert.clone();
    elastic["model_type"] = "elasticbert".into();
    elastic["problem_type"] = "multi_label_classification".into();
    [
        with(
            &albert,
            json!({"version": 1, "exits": [1, 2, 3, 4], "bypass": bypass}),
        ),
        with(
            &bert,
            json!({"version": 1, "exits": [2, 3], "pooler": "own", "max_length": 9}),
        ),
        with(
            &elastic,
            json!({"version": 1, "exits": [1, 3], "pooler": "none", "exit_dropout": 0.1}),
        ),
        albert,
        bert,
    ]
}
