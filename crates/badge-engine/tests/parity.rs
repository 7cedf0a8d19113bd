//! The engine in f32 against the golden logits of every exit, which Hugging Face's models computed
//! in f64 (`reference/make_golden.py`); lower precisions against the engine in f32.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use badge_core::exit::Depth;
use badge_engine::kernels::isa::Isa;
use badge_engine::{Engine, EngineOptions, ExitOutput, Precision, TokenIds};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

/// Largest absolute difference of a logit in f32, the trainer's bound: the same sums in another
/// order. 9.5e-7 were measured, over all instruction sets.
const EXIT: f32 = 5e-6;

/// Of a logit in bf16, where the logits lie within ±2.4: factors keep eight bits, an error of 2⁻⁹
/// each, through up to eight layers. 0.014 were measured.
const EXIT_BF16: f32 = 0.03;

/// Of a logit in int8: rows of 24 random values are scaled by the largest of them. 0.036 were
/// measured.
const EXIT_INT8: f32 = 0.06;

const CASES: [&str; 5] = [
    "albert",
    "albert_groups",
    "bert_gelu",
    "bert_relu",
    "elasticbert",
];

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/parity")
        .join(case)
}

/// One row of tokens.
#[derive(Debug, Clone)]
struct Row {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
}

impl Row {
    fn tokens(&self) -> TokenIds<'_> {
        TokenIds {
            ids: &self.ids,
            type_ids: &self.type_ids,
        }
    }
}

/// Inputs, and the expected logits by depth, one row after the other.
struct Golden {
    rows: Vec<Row>,
    logits: BTreeMap<usize, Vec<f32>>,
    long: Row,
    long_logits: BTreeMap<usize, Vec<f32>>,
}

impl Golden {
    fn read(case: &str) -> Self {
        let bytes = std::fs::read(folder(case).join("golden.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let ids = |name: &str| -> Vec<u32> {
            let tensor = file.tensor(name).unwrap();
            assert_eq!(tensor.dtype(), Dtype::I64);
            let (values, _) = tensor.data().as_chunks::<8>();
            values
                .iter()
                .map(|v| i64::from_le_bytes(*v) as u32)
                .collect()
        };
        let t = file.tensor("input_ids").unwrap().shape()[1];
        let rows = ids("input_ids")
            .chunks(t)
            .zip(ids("token_type_ids").chunks(t))
            .zip(ids("attention_mask").chunks(t))
            .map(|((ids, type_ids), mask)| {
                let length = mask.iter().sum::<u32>() as usize;
                Row {
                    ids: ids[..length].to_vec(),
                    type_ids: type_ids[..length].to_vec(),
                }
            })
            .collect();
        let long = ids("long.input_ids");
        Self {
            rows,
            logits: exits(&file, ""),
            long: Row {
                type_ids: vec![0; long.len()],
                ids: long,
            },
            long_logits: exits(&file, "long."),
        }
    }
}

/// `exit.{index}.logits` by depth.
fn exits(file: &SafeTensors<'_>, prefix: &str) -> BTreeMap<usize, Vec<f32>> {
    let mut logits = BTreeMap::new();
    for (name, tensor) in file.tensors() {
        let index = name
            .strip_prefix(prefix)
            .and_then(|name| name.strip_prefix("exit."))
            .and_then(|name| name.strip_suffix(".logits"));
        if let Some(index) = index {
            let (values, _) = tensor.data().as_chunks::<4>();
            let values = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
            logits.insert(index.parse::<usize>().unwrap() + 1, values);
        }
    }
    logits
}

/// The logits of every exit on a batch, row after row.
fn all_exits(engine: &mut Engine, rows: &[Row]) -> BTreeMap<usize, Vec<f32>> {
    let inputs: Vec<_> = rows.iter().map(Row::tokens).collect();
    let outputs = engine.config().head.outputs();
    let mut logits = BTreeMap::new();
    let on_exit = |index: usize, depth: Depth, found: ExitOutput<'_>| {
        let all = logits
            .entry(depth.0)
            .or_insert_with(|| vec![f32::NAN; rows.len() * outputs]);
        all[index * outputs..][..outputs].copy_from_slice(found.logits);
    };
    engine.all_exits(&inputs, on_exit).unwrap();
    logits
}

fn options(precision: Precision) -> EngineOptions {
    EngineOptions {
        tokens_max: 600,
        threads: 2,
        ..EngineOptions::new(precision)
    }
}

fn close(
    what: &str,
    found: &BTreeMap<usize, Vec<f32>>,
    expected: &BTreeMap<usize, Vec<f32>>,
    tolerance: f32,
) {
    assert!(
        found.keys().eq(expected.keys()),
        "{what}: exits {:?}",
        found.keys()
    );
    for (depth, expected) in expected {
        assert_eq!(found[depth].len(), expected.len(), "{what}");
        for (a, b) in found[depth].iter().zip(expected) {
            let difference = (a - b).abs();
            assert!(
                difference <= tolerance,
                "{what} exit {depth}: {a} for {b}, off by {difference:e}"
            );
        }
    }
}

#[test]
fn every_exit_agrees_in_f32_on_every_instruction_set() {
    for case in CASES {
        let golden = Golden::read(case);
        for isa in Isa::available() {
            let options = EngineOptions {
                isa: Some(isa),
                ..options(Precision::F32)
            };
            let mut engine = Engine::load(&folder(case), options).unwrap();
            let what = format!("{case} on {isa}");
            close(
                &what,
                &all_exits(&mut engine, &golden.rows),
                &golden.logits,
                EXIT,
            );
            let long = all_exits(&mut engine, std::slice::from_ref(&golden.long));
            close(
                &format!("{what}, 512 tokens,"),
                &long,
                &golden.long_logits,
                EXIT,
            );
        }
    }
}

#[test]
fn lower_precisions_stay_near() {
    for case in CASES {
        let golden = Golden::read(case);
        for (precision, tolerance) in [(Precision::Bf16, EXIT_BF16), (Precision::Int8, EXIT_INT8)] {
            let mut engine = Engine::load(&folder(case), options(precision)).unwrap();
            let found = all_exits(&mut engine, &golden.rows);
            close(
                &format!("{case} in {precision}"),
                &found,
                &golden.logits,
                tolerance,
            );
        }
    }
}
