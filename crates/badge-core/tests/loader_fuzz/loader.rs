//! The way from bytes to a model, as every reader of this workspace goes, with its promises.

use std::collections::BTreeSet;

use badge_core::Error;
use badge_core::checkpoint::layout::{self, TensorSpec};
use badge_core::checkpoint::stored::StoredCheckpoint;
use badge_core::checkpoint::{Checkpoint, pretrained, read_metadata};
use badge_core::config::ModelConfig;

use crate::tally::{Outcome, Stage};

const FILE: &str = "model.safetensors";

/// Loads a model from the bytes of its two files.
pub(crate) fn load(config: &[u8], weights: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    let config = outcome.note(Stage::Config, ModelConfig::from_json(config));
    let model = config.map(|config| {
        let layout = layout::of_model(&config);
        check_config(&config, &layout);
        (config, layout)
    });
    let stored = outcome.note(Stage::Header, read_header(weights));
    let whole = Checkpoint::from_safetensors(FILE, weights);
    let Some(stored) = stored else {
        assert!(whole.is_err(), "a file whose header is refused is read");
        return outcome;
    };
    read_metadata(FILE, weights).expect("the header is good");
    let streamed = stream(&stored, weights);
    assert_eq!(text(&streamed), text(&whole.as_ref().map(|_| ())));
    let fits = model.as_ref().map(|(_, layout)| {
        let fits = stored.check(layout);
        if let Ok(whole) = &whole {
            assert_eq!(text(&fits), text(&whole.check(layout)));
        }
        fits
    });
    let fits = fits.and_then(|fits| outcome.note(Stage::Layout, fits));
    let whole = outcome.note(Stage::Values, whole);
    let (Some((config, layout)), Some(whole)) = (model, whole) else {
        return outcome;
    };
    if fits.is_some() {
        outcome.reached(Stage::Model);
        check_model(&config, &whole);
    }
    adapt(&mut outcome, &config, &layout, whole);
    outcome
}

fn text<T>(result: &Result<T, impl ToString>) -> String {
    match result {
        Ok(_) => "fine".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// As from a file: first the length, then the header.
fn read_header(bytes: &[u8]) -> Result<StoredCheckpoint, Error> {
    let size = bytes.len() as u64;
    let length = StoredCheckpoint::header_bytes(FILE, &bytes[..bytes.len().min(8)], size)?;
    StoredCheckpoint::from_header(FILE, &bytes[..length], size)
}

/// All values, one tensor at a time.
fn stream(stored: &StoredCheckpoint, bytes: &[u8]) -> Result<(), Error> {
    for tensor in stored.iter() {
        let place = tensor.place();
        let values = tensor.values(&bytes[place.start as usize..place.end as usize])?;
        assert_eq!(values.len(), tensor.shape().iter().product::<usize>());
        assert!(values.iter().all(|value| value.is_finite()));
    }
    Ok(())
}

/// A configuration that is accepted is written and read again as the same model.
fn check_config(config: &ModelConfig, layout: &[TensorSpec]) {
    let names: BTreeSet<_> = layout.iter().map(|spec| &spec.name).collect();
    assert_eq!(names.len(), layout.len(), "a tensor twice");
    let again = ModelConfig::from_json(&config.to_json()).expect("what we write we read");
    let shapes = |specs: &[TensorSpec]| -> Vec<_> {
        let pairs = specs
            .iter()
            .map(|spec| (spec.name.clone(), spec.shape.clone()));
        pairs.collect()
    };
    assert_eq!(shapes(&layout::of_model(&again)), shapes(layout));
    assert_eq!(again.head, config.head);
    assert_eq!(again.exits().exits, config.exits().exits);
    assert_eq!(again.exits().max_length, config.exits().max_length);
}

/// A model that is accepted costs something and is written and read again as the same.
fn check_model(config: &ModelConfig, weights: &Checkpoint) {
    let block = config
        .backbone
        .shape()
        .block_macs(config.backbone.positions);
    assert!(block.total() > 0);
    let bytes = weights.to_safetensors();
    let again = Checkpoint::from_safetensors(FILE, &bytes).expect("what we write we read");
    let pairs = again.iter().zip(weights.iter());
    assert!(pairs.into_iter().all(|(found, expected)| found == expected));
}

/// As a backbone to start from: other names, missing exits, tensors of no use.
fn adapt(outcome: &mut Outcome, config: &ModelConfig, layout: &[TensorSpec], weights: Checkpoint) {
    let adapted = pretrained::adapt(weights, &config.backbone, layout);
    let Some(adapted) = outcome.note(Stage::Adapted, adapted) else {
        return;
    };
    for spec in layout {
        match adapted.tensors.get(&spec.name) {
            Some(tensor) => assert_eq!(tensor.shape, spec.shape, "{}", spec.name),
            None => assert!(adapted.missing.contains(&spec.name), "{}", spec.name),
        }
    }
}
