//! What an engine refuses, and in which words.

mod tiny;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use badge_core::checkpoint::Checkpoint;
use badge_core::exit::Depth;
use badge_core::policy::{Policy, PolicySpec};
use badge_engine::{Admission, Engine, EngineOptions, Operation, Precision, Profiling, TokenIds};
use tiny::{Model, Row};

fn options() -> EngineOptions {
    EngineOptions {
        threads: 1,
        tokens_max: 20,
        sequences_max: 2,
        ..EngineOptions::default()
    }
}

fn full(engine: &Engine) -> Arc<Policy> {
    Arc::new(engine.policy(&PolicySpec::Full).unwrap())
}

#[test]
fn inputs_that_the_model_cannot_take_are_refused_and_leave_the_engine_as_it_was() {
    let mut engine = Model::random(0, 1).engine(options());
    let policy = full(&engine);
    let zeros = [0; 25];
    for (ids, type_ids, reason) in [
        (&[][..], &[][..], "a sequence needs at least one token"),
        (&zeros[..2], &zeros[..1], "2 token ids, but 1 segment ids"),
        (
            &zeros,
            &zeros,
            "input of 25 tokens, but the backbone has positions for 24",
        ),
        (
            &zeros[..21],
            &zeros[..21],
            "input of 21 tokens, but the engine has room for 20 (tokens_max)",
        ),
        (
            &[4, 99],
            &zeros[..2],
            "token id 99, but the backbone's vocabulary ends at 99",
        ),
        (&zeros[..1], &[2], "segment id 2, but the backbone has 2"),
    ] {
        let tokens = TokenIds { ids, type_ids };
        let error = engine.admit(0, tokens, &policy).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        let good = Row::random(5, 3);
        let error = engine
            .classify(&[good.tokens(), tokens], &policy)
            .unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(engine.live(), 0);
        assert_eq!(engine.classify(&[good.tokens()], &policy).unwrap().len(), 1);
    }
}

#[test]
fn a_full_engine_says_so_until_steps_make_room() {
    let mut engine = Model::random(0, 1).engine(options());
    let policy = Arc::new(engine.policy(&"fixed:1".parse().unwrap()).unwrap());
    let (short, long) = (Row::random(3, 1), Row::random(18, 2));
    let admit = |engine: &mut Engine, row: &Row| engine.admit(7, row.tokens(), &policy).unwrap();
    assert_eq!(admit(&mut engine, &short), Admission::Accepted);
    assert_eq!(
        admit(&mut engine, &long),
        Admission::Full,
        "21 of 20 tokens"
    );
    assert_eq!(admit(&mut engine, &short), Admission::Accepted);
    assert_eq!(
        admit(&mut engine, &short),
        Admission::Full,
        "3 of 2 sequences"
    );
    let report = engine.step();
    assert_eq!((report.advanced, report.left), (2, 2));
    assert_eq!(admit(&mut engine, &long), Admission::Accepted);
    let requests: Vec<_> = engine.finished().map(|finished| finished.request).collect();
    assert_eq!(requests, [7, 7]);
}

#[test]
fn policies_of_other_models_are_refused() {
    let mut engine = Model::random(0, 1).engine(options());
    let other = Model::random(1, 1).engine(options());
    let row = Row::random(4, 4);
    let error = engine.admit(0, row.tokens(), &full(&other)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "policy `full` was built for another model's exits or answers"
    );
    let spec: PolicySpec = "lte:0.1".parse().unwrap();
    let exits = full(&engine).exits().clone().with_learning_to_exit();
    let with_head = Arc::new(spec.build_for(&exits).unwrap());
    let error = engine.admit(0, row.tokens(), &with_head).unwrap_err();
    assert!(error.to_string().contains("policy `lte:0.1`"), "{error}");
    let error = engine.policy(&spec).unwrap_err();
    assert!(error.to_string().contains("no learning-to-exit"), "{error}");
    let error = other.policy(&"fixed:4".parse().unwrap()).unwrap_err();
    assert!(
        error.to_string().contains("block 4 carries no exit"),
        "{error}"
    );
}

#[test]
fn a_logit_that_is_not_finite_fails_its_own_request_alone() {
    let model = Model::random(0, 1).with_huge_word(50);
    let mut engine = model.engine(options());
    let policy = full(&engine);
    let damaged = TokenIds {
        ids: &[50, 50],
        type_ids: &[0, 0],
    };
    let good = TokenIds {
        ids: &[1, 2, 3],
        type_ids: &[0, 0, 0],
    };
    let alone = engine.classify(&[good], &policy).unwrap();
    engine.admit(1, damaged, &policy).unwrap();
    engine.admit(2, good, &policy).unwrap();
    while engine.live() > 0 {
        engine.step();
    }
    for finished in engine.finished() {
        match finished.request {
            1 => assert!(finished.answer.unwrap_err().to_string().contains("damaged")),
            _ => assert_eq!(finished.answer.unwrap().logits, alone[0].logits),
        }
    }
    assert!(engine.classify(&[good, damaged], &policy).is_err());
    assert_eq!(
        engine.classify(&[good], &policy).unwrap()[0].logits,
        alone[0].logits
    );
}

#[test]
fn options_of_zero_are_refused_by_name() {
    for (options, name) in [
        (
            EngineOptions {
                threads: 0,
                ..options()
            },
            "threads",
        ),
        (
            EngineOptions {
                tokens_max: 0,
                ..options()
            },
            "tokens_max",
        ),
        (
            EngineOptions {
                sequences_max: 0,
                ..options()
            },
            "sequences_max",
        ),
    ] {
        let error = Model::random(0, 1)
            .try_engine(options)
            .unwrap_err()
            .to_string();
        assert_eq!(error, format!("{name}: must be at least 1"));
    }
}

fn refused(directory: &Path) -> String {
    Engine::load(directory, options()).unwrap_err().to_string()
}

#[test]
fn directories_that_are_no_model_are_refused_with_the_file_and_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    assert!(refused(folder.path()).contains("config.json: "));
    let model = Model::random(2, 1);
    fs::write(file("config.json"), model.config.to_json()).unwrap();
    assert!(refused(folder.path()).contains("model.safetensors: "));

    let weights = model.weights.to_safetensors();
    for length in [0, 7, 8, 100, weights.len() - 1] {
        fs::write(file("model.safetensors"), &weights[..length]).unwrap();
        let error = refused(folder.path());
        assert!(
            error.contains("not a valid safetensors file"),
            "{length} bytes: {error}"
        );
    }
    let mut fewer = Checkpoint::default();
    for (name, tensor) in model
        .weights
        .iter()
        .filter(|(name, _)| *name != "classifier.bias")
    {
        fewer
            .insert("memory", name.to_owned(), tensor.clone())
            .unwrap();
    }
    fs::write(file("model.safetensors"), fewer.to_safetensors()).unwrap();
    let error = refused(folder.path());
    assert!(
        error.contains("model.safetensors: tensor `classifier.bias` is missing"),
        "{error}"
    );
}

#[test]
fn a_model_from_files_answers_as_the_one_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..tiny::MODELS.len() {
        let model = Model::random(index, 5);
        fs::write(folder.path().join("config.json"), model.config.to_json()).unwrap();
        fs::write(
            folder.path().join("model.safetensors"),
            model.weights.to_safetensors(),
        )
        .unwrap();
        let row = Row::random(11, 5);
        for precision in Precision::ALL {
            let options = EngineOptions {
                precision,
                ..options()
            };
            let mut memory = model.engine(options.clone());
            let mut file = Engine::load(folder.path(), options).unwrap();
            let policy = full(&memory);
            let expected = memory.classify(&[row.tokens()], &policy).unwrap();
            let found = file.classify(&[row.tokens()], &policy).unwrap();
            assert_eq!(found[0].logits, expected[0].logits);
            assert_eq!(file.packed_bytes(), memory.packed_bytes());
        }
    }
}

#[test]
fn a_profile_counts_the_operations_and_depths_that_ran() {
    let options = EngineOptions {
        profiling: Profiling::On,
        ..options()
    };
    let mut engine = Model::random(0, 1).engine(options);
    let policy = Arc::new(engine.policy(&"fixed:3".parse().unwrap()).unwrap());
    engine
        .classify(&[Row::random(9, 9).tokens()], &policy)
        .unwrap();
    let profile = engine.profile();
    for operation in Operation::ALL {
        assert!(
            !profile.operation(operation).is_zero(),
            "{}",
            operation.name()
        );
    }
    let ran: Vec<_> = (1..=5)
        .map(|depth| !profile.depth(Depth(depth)).is_zero())
        .collect();
    assert_eq!(ran, [true, true, true, false, false]);
    engine.reset_profile();
    assert!(engine.profile().depth(Depth(1)).is_zero());
}

#[test]
fn an_engine_can_be_handed_to_another_thread() {
    fn sent<T: Send>() {}
    sent::<Engine>();
}
