//! Every command from outside: what is typed, what comes out.

#[path = "feature/bench.rs"]
mod bench;
#[path = "feature/cache.rs"]
mod cache;
#[path = "feature/calibrate.rs"]
mod calibrate;
#[path = "feature/methods.rs"]
mod methods;
#[path = "feature/precision.rs"]
mod precision;
#[path = "feature/replay.rs"]
mod replay;
#[path = "feature/reproduce.rs"]
mod reproduce;
mod setup;
#[path = "../../badge-lab/tests/setup/stub_server.rs"]
#[expect(
    dead_code,
    reason = "not every test needs all that a server can do wrong"
)]
mod stub_server;

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};
use std::sync::Arc;

use badge_core::checkpoint::{Checkpoint, Tensor};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};
use setup::{Setup, stderr};

const TRAIN: &str = "train --backbone model --task task.toml --out out --batch-size 2 --lr 1e-3 \
                     --bypass-rank 3 --max-length 16";

/// Runs a command that must succeed.
fn done(setup: &Setup, arguments: &str) -> Output {
    let output = setup.run(arguments);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "badge {arguments}\n{told}");
    output
}

/// Runs a command with `--json`; standard output must be one document.
fn document(setup: &Setup, arguments: &str) -> Value {
    let output = done(setup, &format!("{arguments} --json"));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("badge {arguments}: {error}\n{}", stdout(&output)))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn texts(document: &Value) -> Vec<&str> {
    let rows = document["predictions"].as_array().unwrap();
    rows.iter()
        .map(|row| row["text"].as_str().unwrap())
        .collect()
}

/// A Parquet file with one column of texts.
fn parquet_of(texts: &[&str]) -> Vec<u8> {
    let schema = parse_message_type("message m { required binary text (UTF8); }").unwrap();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut content = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut content, Arc::new(schema), properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let values: Vec<_> = texts.iter().map(|text| ByteArray::from(*text)).collect();
    let mut column = group.next_column().unwrap().unwrap();
    let column_writer = column.typed::<ByteArrayType>();
    column_writer.write_batch(&values, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    content
}

#[test]
fn predict_reads_every_format_alike() {
    let setup = Setup::new();
    let expected = ["the cat sat", "a dog, old"];
    setup.write("rows.txt", "the cat sat\na dog, old\n");
    setup.write("rows.tsv", "id\ttext\n1\tthe cat sat\n2\ta dog, old\n");
    setup.write("rows.csv", "text\nthe cat sat\n\"a dog, old\"\n");
    setup.write(
        "rows.jsonl",
        "{\"text\": \"the cat sat\"}\n{\"text\": \"a dog, old\"}\n",
    );
    setup.write("rows.parquet", parquet_of(&expected));
    setup.write("rows.dat", setup.read("rows.csv"));
    let lines = document(&setup, "predict --model model rows.txt");
    assert_eq!(texts(&lines), expected);
    for input in [
        "rows.tsv",
        "rows.csv",
        "rows.jsonl",
        "rows.parquet",
        "rows.dat --format csv",
        "rows.tsv --text-column text",
    ] {
        let rows = document(&setup, &format!("predict --model model {input}"));
        assert_eq!(rows["predictions"], lines["predictions"], "{input}");
    }
}

#[test]
fn predict_reads_standard_input() {
    let setup = Setup::new();
    let from_file = done(&setup, "predict --model model texts.txt");
    for arguments in ["predict --model model", "predict --model model -"] {
        let mut command = setup.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&setup.read("texts.txt")).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stdout(&output), stdout(&from_file));
    }
}

#[test]
fn predict_prints_tab_separated_rows_into_a_pipe() {
    let setup = Setup::new();
    let output = done(&setup, "predict --model model texts.txt");
    let printed = stdout(&output);
    let rows: Vec<Vec<&str>> = printed.lines().map(|l| l.split('\t').collect()).collect();
    assert_eq!(rows.len(), 4, "{printed}");
    assert_eq!(rows[0][..3], ["text", "label", "p(LABEL_0)"]);
    assert_eq!(rows[0][7..], ["exit", "exits", "reason"]);
    assert_eq!(rows[1][0], "the cat sat");
    assert_eq!(rows[1][7..], ["5", "5", "the deepest exit"]);
    let probabilities: Vec<f64> = rows[1][2..7].iter().map(|p| p.parse().unwrap()).collect();
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5);
    let best = probabilities.iter().copied().fold(0.0, f64::max);
    let label = probabilities.iter().position(|p| *p == best).unwrap();
    assert_eq!(rows[1][1], format!("LABEL_{label}"));
    assert!(stderr(&output).contains("full: 3 rows, mean exit 5.00"));
    assert_eq!(
        stderr(&done(&setup, "predict --model model texts.txt -q")),
        ""
    );
}

#[test]
fn predict_prints_json_lines_as_they_come() {
    let setup = Setup::new();
    let output = done(&setup, "predict --model model texts.txt --output jsonl");
    let rows: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let whole = document(&setup, "predict --model model texts.txt");
    assert_eq!(Value::from(rows), whole["predictions"]);
}

#[test]
fn predict_leaves_where_its_policy_says() {
    let setup = Setup::new();
    let full = document(&setup, "predict --model model texts.txt --logits");
    assert_eq!(
        (&full["model"], &full["policy"]),
        (&json!("model"), &json!("full"))
    );
    for depth in 1..=5 {
        let arguments = format!("predict --model model texts.txt --policy fixed:{depth} --logits");
        let rows = document(&setup, &arguments);
        assert_eq!(rows["summary"]["mean_exit"], json!(f64::from(depth)));
        let (rows, full) = (&rows["predictions"][0], &full["predictions"][0]);
        assert_eq!((&rows["exit"], &rows["exits"]), (&json!(depth), &json!(5)));
        // What the policy does not reach is computed for --logits alone, and is the same.
        assert_eq!(rows["exit_logits"], full["exit_logits"]);
        let logits: Vec<f64> =
            serde_json::from_value(rows["exit_logits"][depth as usize - 1].clone()).unwrap();
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        for (class, logit) in logits.iter().enumerate() {
            let p = rows["probabilities"][format!("LABEL_{class}")]
                .as_f64()
                .unwrap();
            assert!((p - logit.exp() / sum).abs() < 1e-5, "exit {depth}");
        }
    }
    let rows = document(
        &setup,
        "predict --model model texts.txt --policy dge:tau=99,t=2",
    );
    assert_eq!(
        rows["summary"]["histogram"],
        json!([[1, 0], [2, 0], [3, 3], [4, 0], [5, 0]])
    );
    assert_eq!(rows["summary"]["rows"], 3);
    let reason = rows["predictions"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("2 earlier exits within 99"), "{reason}");
}

#[test]
fn predict_takes_pairs_by_their_usual_and_by_given_names() {
    let setup = Setup::new();
    setup.write("usual.tsv", "sentence1\tsentence2\nthe cat\ta dog\n");
    setup.write("given.tsv", "left\tright\nthe cat\ta dog\n");
    let usual = document(&setup, "predict --model model usual.tsv");
    assert_eq!(usual["predictions"][0]["text_pair"], "a dog");
    let given = "predict --model model given.tsv --text-column left";
    let pairs = document(&setup, &format!("{given} --pair-column right"));
    assert_eq!(pairs["predictions"], usual["predictions"]);
    let single = document(&setup, given);
    assert_eq!(single["predictions"][0].get("text_pair"), None);
    assert_ne!(
        single["predictions"][0]["score"],
        usual["predictions"][0]["score"]
    );
    let table = stdout(&done(&setup, "predict --model model usual.tsv"));
    assert!(table.starts_with("text\ttext_pair\tlabel"), "{table}");
}

#[test]
fn predict_answers_with_a_set_of_labels_or_a_number() {
    let setup = Setup::new();
    setup.add_model("several", "bert_relu");
    let rows = document(&setup, "predict --model several texts.txt");
    for row in rows["predictions"].as_array().unwrap() {
        let likely: Vec<_> = (row["probabilities"].as_object().unwrap().iter())
            .filter(|(_, p)| p.as_f64().unwrap() > 0.5)
            .map(|(label, _)| json!(label))
            .collect();
        assert_eq!(row["label"], Value::from(likely));
    }
    setup.add_model("value", "albert_groups");
    let rows = document(&setup, "predict --model value texts.txt --logits");
    let row = &rows["predictions"][0];
    assert_eq!(row["value"], row["exit_logits"][3][0]);
    assert_eq!((row.get("label"), row.get("probabilities")), (None, None));
    let printed = stdout(&done(&setup, "predict --model value texts.txt"));
    assert!(printed.starts_with("text\tvalue\texit\t"), "{printed}");
}

#[test]
fn a_plain_hugging_face_classifier_has_one_exit() {
    let setup = Setup::new();
    setup.add_model("plain", "albert");
    setup.edit_json("plain/config.json", |config| {
        config.as_object_mut().unwrap().remove("early_exit");
    });
    setup.edit_tensors("plain/model.safetensors", |tensors| {
        let mut kept = Checkpoint::default();
        for (name, tensor) in tensors
            .iter()
            .filter(|(name, _)| !name.starts_with("exits."))
        {
            kept.insert("plain", name.to_owned(), tensor.clone())
                .unwrap();
        }
        *tensors = kept;
    });
    let plain = document(&setup, "predict --model plain texts.txt");
    let ours = document(&setup, "predict --model model texts.txt");
    assert_eq!(plain["predictions"], ours["predictions"]);
    let facts = document(&setup, "inspect plain");
    assert_eq!(facts["kind"], "classifier");
    assert_eq!(facts["cost"]["exits"].as_array().unwrap().len(), 1);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let setup = Setup::new();
    setup.write("long.txt", "the cat sat\n".repeat(400));
    let mut child = setup
        .command("predict --model model long.txt")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn inspect_tells_what_a_directory_holds() {
    let setup = Setup::new();
    setup.add_model("bypassed", "bert_gelu");
    let facts = document(&setup, "inspect bypassed --tokens 32");
    assert_eq!(
        (&facts["kind"], &facts["family"]),
        (&json!("multi-exit model"), &json!("bert"))
    );
    assert_eq!(facts["early_exit"]["bypass"]["rank"], 9);
    assert_eq!(facts["sizes"]["hidden"], 24);
    assert_eq!(facts["tokenizer_vocabulary"], 99);
    // W_down, W_up and the LayerNorm of three bypasses.
    let parameters = &facts["weights"]["parameters"];
    assert_eq!(parameters["bypasses"], 3 * (2 * 24 * 9 + 2 * 24));
    assert_eq!(parameters["exits"], 3 * (5 * 24 + 5));
    let costs: Vec<f64> = (facts["cost"]["exits"].as_array().unwrap().iter())
        .map(|exit| exit["mflops"].as_f64().unwrap())
        .collect();
    assert!(costs.windows(2).all(|pair| pair[0] < pair[1]), "{costs:?}");
    let weights = (facts["files"].as_array().unwrap().iter())
        .find(|file| file["name"] == "model.safetensors")
        .unwrap();
    assert_eq!(
        weights["bytes"],
        setup.read("bypassed/model.safetensors").len()
    );
    assert_eq!(weights["sha256"].as_str().unwrap().len(), 64);
    let told = stdout(&done(&setup, "inspect bypassed"));
    for words in [
        "of rank 9, gelu",
        "after blocks 1, 2, 3",
        "MFLOPs",
        "tokenizer.json",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn inspect_tells_what_a_backbone_lacks_and_what_it_has_too_much() {
    let setup = Setup::new();
    setup.edit_json("model/config.json", |config| {
        config.as_object_mut().unwrap().remove("early_exit");
    });
    setup.edit_tensors("model/model.safetensors", |tensors| {
        let mut kept = Checkpoint::default();
        for (name, tensor) in tensors
            .iter()
            .filter(|(name, _)| name.starts_with("albert."))
        {
            kept.insert("bare", name.to_owned(), tensor.clone())
                .unwrap();
        }
        let extra = Tensor {
            shape: vec![2],
            values: vec![0.5; 2],
        };
        kept.insert("bare", "predictions.bias".to_owned(), extra)
            .unwrap();
        *tensors = kept;
    });
    let facts = document(&setup, "inspect model");
    assert_eq!(facts["kind"], "pre-trained backbone");
    let weights = &facts["weights"];
    assert_eq!(
        weights["missing"],
        json!(["classifier.weight", "classifier.bias"])
    );
    assert_eq!(weights["unused"], json!(["predictions.bias"]));
}

#[test]
fn doctor_passes_its_own_test() {
    let setup = Setup::new();
    let facts = document(&setup, "doctor --threads 1");
    assert_eq!(facts["self_test"]["passed"], true);
    assert_eq!(facts["self_test"]["checks"].as_array().unwrap().len(), 3);
    assert!(
        facts["self_test"]["speed"]["ms_per_block"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    assert_eq!(facts["machine"]["threads"], 1);
    let arithmetic = &facts["arithmetic"];
    let forced = std::env::var_os("BADGE_ISA").is_some_and(|name| !name.is_empty());
    assert_eq!(arithmetic["forced"], forced);
    assert_eq!(arithmetic["products"].as_array().unwrap().len(), 3);
    let peak = &arithmetic["peaks"]["all_threads"]["f32_gflops"];
    assert!(peak.as_f64().unwrap() > 0.0, "{arithmetic}");
    assert_eq!(facts["hub"]["offline"], true);
    assert_eq!(facts["hub"]["cache"], setup.path("hub").to_str().unwrap());
    let mut command = setup.command("doctor");
    command
        .env("HF_TOKEN", "hf_secret")
        .env("BADGE_ISA", "scalar");
    let output = command.output().unwrap();
    let told = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("hub token     set"), "{told}");
    for words in [
        "scalar, forced by BADGE_ISA",
        "int8: portable code",
        "multiply-add GFLOP/s",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains("hf_secret") && !stderr(&output).contains("hf_secret"));
}

#[test]
fn completions_know_every_command() {
    let setup = Setup::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = stdout(&done(&setup, &format!("completions {shell}")));
        for command in [
            "train", "eval", "sweep", "predict", "serve", "inspect", "fetch", "doctor",
        ] {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
        let whole = document(&setup, &format!("completions {shell}"));
        assert_eq!(whole, json!({"shell": shell, "script": script}));
    }
}

#[test]
fn every_command_shows_an_example() {
    let setup = Setup::new();
    for command in [
        "quickstart",
        "train",
        "eval",
        "sweep",
        "calibrate",
        "predict",
        "serve",
        "inspect",
        "fetch",
        "bench",
        "bench latency",
        "bench throughput",
        "bench kernels",
        "bench load",
        "doctor",
        "completions",
    ] {
        let help = stdout(&done(&setup, &format!("{command} --help")));
        let example = format!("Example:\n  badge {command}");
        assert!(help.contains(&example), "{command}: {help}");
        assert!(help.contains("--json"), "{command} does not take --json");
    }
}

#[test]
fn fetch_prints_where_things_lie_in_the_cache() {
    let setup = Setup::new();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    setup.write("hub/models--org--tiny/refs/main", commit);
    let snapshot = format!("hub/models--org--tiny/snapshots/{commit}");
    setup.add_model(&snapshot, "albert");
    setup.write("hub/datasets--nyu-mll--glue/refs/main", commit);
    let data = format!("hub/datasets--nyu-mll--glue/snapshots/{commit}");
    for split in ["train", "validation", "test"] {
        setup.write(
            &format!("{data}/rte/{split}-00000-of-00001.parquet"),
            "PAR1",
        );
    }
    let (snapshot, data) = (setup.path(&snapshot), setup.path(&data));
    let printed = stdout(&done(&setup, "fetch org/tiny --task rte"));
    assert_eq!(
        printed,
        format!("{}\n{}\n", snapshot.display(), data.display())
    );
    assert_eq!(
        document(&setup, "fetch org/tiny"),
        json!({"model": {"name": "org/tiny", "path": snapshot}})
    );
    // What is in the cache serves every command by its id.
    let by_id = document(&setup, "predict --model org/tiny texts.txt");
    let by_path = document(&setup, "predict --model model texts.txt");
    assert_eq!(by_id["predictions"], by_path["predictions"]);
}

#[test]
fn a_trained_model_can_be_evaluated_inspected_and_asked() {
    let setup = Setup::new();
    let trained = document(&setup, &format!("{TRAIN} --epochs 1"));
    assert_eq!(
        (&trained["epochs"], &trained["steps"]),
        (&json!(1), &json!(12))
    );
    let record: Value = serde_json::from_slice(&setup.read("out/record.json")).unwrap();
    assert_eq!(record["command"], "train");
    let facts = document(&setup, "inspect out");
    assert_eq!(facts["labels"], json!(["no", "yes"]));
    assert_eq!(facts["early_exit"]["bypass"]["rank"], 3);

    let eval = "eval --model out --task task.toml --policy dge:tau=0.5,t=1 --policy fixed:2";
    let scores = document(&setup, &format!("{eval} --out scores"));
    assert_eq!(scores["evaluation"]["rows"], 8);
    assert_eq!(scores["evaluation"]["depths"], json!([1, 2, 3, 4, 5]));
    assert_eq!(scores["policies"][1]["mean_exit"], 2.0);
    let logits = setup.read("scores/logits-test.safetensors");
    let logits = Checkpoint::from_safetensors("logits", &logits).unwrap();
    assert_eq!(logits.get("logits").unwrap().shape, [8, 5, 2]);
    let told = stdout(&done(&setup, eval));
    assert!(told.contains("S-avg") && told.contains("fixed:2"), "{told}");

    let asked = document(&setup, "predict --model out --logits data/test.tsv");
    let (label, row) = (
        &asked["predictions"][3]["label"],
        &logits.get("logits").unwrap().values,
    );
    let deepest = &row[(3 * 5 + 4) * 2..][..2];
    assert_eq!(label, if deepest[1] > deepest[0] { "yes" } else { "no" });
}

#[test]
fn a_config_file_holds_the_flags_and_flags_win() {
    let setup = Setup::new();
    setup.write(
        "run.toml",
        "backbone = 'model'\ntask = 'task.toml'\nout = 'out'\nmethod = 'joint'\nepochs = 3\n\
         batch-size = 8\nexits = [2, 5]\nseed = 7\n",
    );
    let trained = document(&setup, "train --config run.toml --epochs 1");
    assert_eq!(
        (&trained["epochs"], &trained["steps"]),
        (&json!(1), &json!(3))
    );
    let record: Value = serde_json::from_slice(&setup.read("out/record.json")).unwrap();
    assert_eq!(record["configuration"]["training"]["seed"], 7);
    assert_eq!(
        record["configuration"]["early_exit"]["exits"],
        json!([2, 5])
    );
    assert_eq!(record["configuration"]["early_exit"]["bypass"], Value::Null);
}

#[test]
fn a_killed_run_resumes_to_the_same_bits() {
    let setup = Setup::new();
    // Dropout, so that its generator has to be resumed too.
    setup.edit_json("model/config.json", |config| {
        config["hidden_dropout_prob"] = json!(0.1);
        config["attention_probs_dropout_prob"] = json!(0.1);
    });
    let whole = document(&setup, &format!("{TRAIN} --epochs 3"));
    let expected = setup.read("out/model.safetensors");
    fs::remove_dir_all(setup.path("out")).unwrap();

    let step = setup.killed_run(&format!("{TRAIN} --epochs 3"));
    let output = done(&setup, &format!("{TRAIN} --epochs 3 --resume --json"));
    let told = stderr(&output);
    assert!(
        told.contains(&format!("resuming behind step {step} of 36")),
        "{told}"
    );
    assert_eq!(
        setup.read("out/model.safetensors"),
        expected,
        "the weights differ"
    );
    let resumed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(resumed["steps"], whole["steps"]);
    for epoch in 0..3 {
        let (one, other) = (&resumed["history"][epoch], &whole["history"][epoch]);
        assert_eq!(
            (&one["scores"], &one["loss"]),
            (&other["scores"], &other["loss"])
        );
    }
    assert!(setup.leftovers("out").is_empty());
    assert!(!setup.path("out/checkpoint.safetensors").exists());
    let steps = String::from_utf8(setup.read("out/log.jsonl")).unwrap();
    let steps = steps
        .lines()
        .filter(|line| line.contains("\"event\":\"step\""));
    let steps: Vec<u64> = steps
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["step"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(steps, (1..=36).collect::<Vec<_>>(), "the log has gaps");
}
