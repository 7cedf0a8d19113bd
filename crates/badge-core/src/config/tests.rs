use super::*;
use crate::activation::Activation;
use crate::exit::Depth;

fn albert_json() -> Value {
    serde_json::json!({
        "model_type": "albert", "vocab_size": 30000, "embedding_size": 128, "hidden_size": 768,
        "num_hidden_layers": 12, "num_hidden_groups": 1, "inner_group_num": 1,
        "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu_new",
        "classifier_dropout_prob": 0.1, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0,
        "down_scale_factor": 1
    })
}

fn parse(value: &Value) -> Result<ModelConfig> {
    ModelConfig::from_json(value.to_string().as_bytes())
}

#[test]
fn albert_base_reads_with_its_own_defaults() {
    let config = parse(&albert_json()).unwrap();
    let backbone = &config.backbone;
    assert_eq!(
        (backbone.embedding, backbone.hidden, backbone.head_size()),
        (128, 768, 64)
    );
    assert_eq!(backbone.activation, Activation::GeluTanh);
    assert_eq!(
        (backbone.hidden_dropout, backbone.classifier_dropout),
        (0.0, 0.1)
    );
    assert_eq!(config.head.labels, ["LABEL_0", "LABEL_1"]);
    assert_eq!(config.exits().exits.depths(), [Depth(12)]);
}

#[test]
fn bert_takes_its_classifier_dropout_from_the_hidden_one() {
    let config = parse(&serde_json::json!({
        "model_type": "bert", "vocab_size": 99, "hidden_size": 24, "num_hidden_layers": 4,
        "num_attention_heads": 4, "intermediate_size": 37, "hidden_dropout_prob": 0.25,
        "classifier_dropout": null, "id2label": {"1": "b", "0": "a", "2": "c"}
    }))
    .unwrap();
    assert_eq!(config.backbone.classifier_dropout, 0.25);
    assert_eq!(config.backbone.embedding, 24);
    assert_eq!(config.head.labels, ["a", "b", "c"]);
}

#[test]
fn writing_and_reading_again_changes_nothing_and_keeps_unknown_keys() {
    let plain = parse(&albert_json()).unwrap();
    let exits = EarlyExitConfig::new(
        ExitPlan::new(vec![3, 6, 12], 12).unwrap(),
        Pooler::Own,
        Some(BypassConfig::default()),
        0.1,
    );
    let head = HeadConfig {
        labels: vec!["no".to_owned(), "yes".to_owned()],
        problem: ProblemType::SingleLabel,
    };
    let config = plain.with_exits(head, exits);
    let bytes = config.to_json();
    let again = ModelConfig::from_json(&bytes).unwrap();
    assert_eq!(again.backbone, config.backbone);
    assert_eq!(again.head, config.head);
    assert_eq!(again.early_exit, config.early_exit);
    assert_eq!(again.to_json(), bytes);
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(value["down_scale_factor"], 1);
    assert_eq!(value["early_exit"]["exits"], serde_json::json!([3, 6, 12]));
}

#[test]
fn a_backbone_is_cut_to_its_first_blocks() {
    let json = serde_json::json!({
        "model_type": "albert", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 4,
        "num_attention_heads": 2, "intermediate_size": 7
    });
    let config = |groups: usize| {
        let mut json = json.clone();
        json["num_hidden_groups"] = groups.into();
        ModelConfig::from_json(json.to_string().as_bytes()).unwrap()
    };
    let cut = config(1).cut_to(Depth(3)).unwrap();
    assert_eq!(
        (cut.backbone.blocks, cut.exits().exits.deepest()),
        (3, Depth(3))
    );
    for (groups, depth, reason) in [
        (1, 0, "outside 1..=4"),
        (1, 5, "outside"),
        (2, 3, "2 groups"),
    ] {
        let message = config(groups).cut_to(Depth(depth)).unwrap_err();
        assert!(message.contains(reason), "{message}");
    }
    assert!(config(2).cut_to(Depth(4)).is_ok());
}

#[test]
fn heads_that_do_not_go_together_are_refused_by_their_key() {
    let early_exit = |heads: serde_json::Value| {
        let mut json = serde_json::json!({
            "model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 7,
            "early_exit": {"version": 1, "exits": [1, 2]}
        });
        let keys = heads.as_object().unwrap().clone();
        json["early_exit"].as_object_mut().unwrap().extend(keys);
        ModelConfig::from_json(json.to_string().as_bytes())
    };
    let bottleneck = serde_json::json!({"kind": "mha_bottleneck", "rank": 6, "heads": 2});
    let fastbert = serde_json::json!({"kind": "mha_fastbert", "dim": 6, "heads": 2});
    let read = early_exit(serde_json::json!({"exit_head": bottleneck, "lte": true})).unwrap();
    let written = ModelConfig::from_json(&read.to_json()).unwrap();
    assert_eq!(written.early_exit, read.early_exit);
    for (heads, key) in [
        (
            serde_json::json!({"exit_head": bottleneck, "bypass": {}}),
            "exit_head",
        ),
        (
            serde_json::json!({"exit_head": bottleneck, "global_past_future": true}),
            "exit_head",
        ),
        (serde_json::json!({"exit_head": fastbert}), "pooler"),
        (
            serde_json::json!({"exit_head": {"kind": "mha_bottleneck", "rank": 6, "heads": 4}}),
            "exit_head",
        ),
        (
            serde_json::json!({"global_past_future": true, "pooler": "own"}),
            "pooler",
        ),
        (serde_json::json!({"bypass": {"rank": 0}}), "bypass.rank"),
    ] {
        let message = early_exit(heads).unwrap_err().to_string();
        assert!(message.contains(&format!("early_exit.{key}")), "{message}");
    }
}

#[test]
fn elasticbert_is_written_as_the_bert_that_transformers_loads() {
    let mut json = albert_json();
    json["model_type"] = "elasticbert".into();
    json["num_output_layers"] = 1.into();
    let config = parse(&json).unwrap();
    let exits = EarlyExitConfig::new(ExitPlan::every_block(12), Pooler::Own, None, 0.1);
    let written = config.with_exits(config.head.clone(), exits).to_json();
    let value: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(value["model_type"], "bert");
    assert_eq!(value["architectures"][0], "BertForSequenceClassification");
    assert!(value.get("num_output_layers").is_none());
}

#[test]
fn groups_are_spread_over_blocks_as_hugging_face_does() {
    let mut json = albert_json();
    json["num_hidden_groups"] = 5.into();
    let backbone = parse(&json).unwrap().backbone;
    for block in 0..12_usize {
        let hugging_face = (block as f64 / (12.0 / 5.0)) as usize;
        assert_eq!(backbone.group_of(block), hugging_face, "block {block}");
    }
}

#[test]
fn each_impossible_value_is_refused_by_the_name_of_its_key() {
    let cases: &[(&str, Value)] = &[
        ("model_type", "roberta".into()),
        ("model_type", Value::Null),
        ("hidden_size", 0.into()),
        ("hidden_size", "768".into()),
        ("hidden_size", Value::Null),
        ("vocab_size", 1e12.into()),
        ("num_attention_heads", 7.into()),
        ("num_hidden_groups", 13.into()),
        ("num_hidden_layers", 5000.into()),
        ("inner_group_num", 342.into()),
        ("inner_group_num", (1 << 24).into()),
        ("num_labels", ((1 << 16) + 1).into()),
        ("hidden_act", "gleu".into()),
        ("hidden_dropout_prob", 1.0.into()),
        ("layer_norm_eps", 0.0.into()),
        ("pad_token_id", 30000.into()),
        ("pad_token_id", (-1).into()),
        ("position_embedding_type", "relative_key".into()),
        ("problem_type", "ranking".into()),
        ("id2label", serde_json::json!({"0": "a", "2": "b"})),
        ("id2label", serde_json::json!({"0": "a"})),
        (
            "early_exit.version",
            serde_json::json!({"version": 2, "exits": [12]}),
        ),
        (
            "early_exit.exits",
            serde_json::json!({"version": 1, "exits": [3]}),
        ),
        (
            "early_exit",
            serde_json::json!({"version": 1, "exits": [12], "colour": "red"}),
        ),
        (
            "early_exit.bypass.rank",
            serde_json::json!({"version": 1, "exits": [12], "bypass": {"rank": 0}}),
        ),
    ];
    for (key, value) in cases {
        let mut json = albert_json();
        json[key.split('.').next().unwrap()] = value.clone();
        if *key == "id2label" {
            json["problem_type"] = "single_label_classification".into();
        }
        let message = parse(&json).unwrap_err().to_string();
        assert!(
            message.contains(&format!("key `{key}`")),
            "{key} = {value}: {message}"
        );
    }
}
