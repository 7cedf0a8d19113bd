//! What a grid keeps of its models: that it is what the engine does live, and that the page made of
//! it can be traced back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use badge_core::policy::ModelExits;
use badge_lab::inference::{Code, InferenceOptions, Precision, open};
use badge_lab::reproduce::cell::Cell;
use badge_lab::reproduce::document::{document, keep, records_named};
use badge_lab::reproduce::outputs::{Answers, class};
use badge_lab::reproduce::plan::Outlook;
use badge_lab::reproduce::store::{CellState, Finished, Weights};
use badge_lab::reproduce::variant::Method;
use badge_lab::reproduce::{
    Ended, Experiment, Materials, Only, Options, Scheduler, Smoke, Sources, Standing, Store,
    Watcher, builtin,
};
use badge_tasks::{Example, TokenCache, Tokenizer, hash};
use badge_train::DeviceName;
use badge_train::observer::Observer;

struct Silent;

impl Observer for Silent {}

impl Watcher for Silent {
    fn note(&mut self, _: &str) {}

    fn begin(&mut self, _: &Cell, _: &Standing) {}

    fn training(&mut self) -> &mut dyn Observer {
        self
    }

    fn end(&mut self, _: &Cell, ended: Ended<'_>, _: &Standing) {
        if let Ended::Failed(message) = ended {
            panic!("{message}");
        }
    }
}

/// Runs a grid in small under a folder.
fn run(experiment: &Experiment, folder: &Path, weights: Weights) -> (Smoke, Store) {
    let smoke = Smoke::new(&folder.join("encoder")).unwrap();
    let axes = (&experiment.tasks[..], &experiment.backbones[..]);
    let materials = Materials::gather(axes, &smoke).unwrap();
    let store = Store::new(&folder.join(&experiment.name));
    let options = Options {
        only: Only::default(),
        threads: 1,
        tokens: TokenCache::off(),
        retry_failed: false,
        weights,
    };
    let scheduler = Scheduler::new((experiment, &store), &materials, &options);
    scheduler.unwrap().run(&mut Silent).unwrap();
    (smoke, store)
}

fn finished(store: &Store, cell: &Cell) -> Box<Finished> {
    match store.state(cell).unwrap() {
        CellState::Done(done) => done,
        CellState::Open | CellState::Failed(_) => panic!("{} has not run", cell.title()),
    }
}

fn with_one_seed(name: &str) -> Experiment {
    let mut experiment = builtin(name).unwrap().smoke();
    experiment.seeds.truncate(1);
    experiment
}

/// Runs every row live under every point's policy; gives how many decisions were compared.
fn compare_live(done: &Finished, texts: &[Example], max_length: usize) -> usize {
    let options = InferenceOptions {
        code: Code::Engine,
        precision: Precision::F32,
        threads: 1,
        device: DeviceName::Cpu,
    };
    let mut model = open(&done.folder, &options).unwrap();
    let exits = ModelExits::of(model.config());
    let tokenizer = Tokenizer::from_directory(&done.folder).unwrap();
    let encode = |example| tokenizer.encode(example, max_length).unwrap();
    let rows: Vec<_> = texts.iter().map(encode).collect();
    let curves = done.results.curves.as_ref().unwrap();
    let mut compared = 0;
    for curve in &curves.curves {
        assert!(!curve.points.is_empty(), "{}", curve.family);
        let replays = curves.replays(&done.folder, curve.family).unwrap();
        for (number, point) in curve.points.iter().enumerate() {
            let policy = Arc::new(point.policy.build_for(&exits).unwrap());
            for (row, encoding) in rows.iter().enumerate() {
                let (live, _) = model.classify_one(encoding, &policy).unwrap();
                let live = (live.depth.0, class(&live.target()).unwrap());
                let replayed = (replays.depths[number][row], replays.answers[number][row]);
                assert_eq!(replayed, live, "{}, row {row}", point.policy);
                compared += 1;
            }
        }
    }
    compared
}

#[test]
fn replays_are_what_the_engine_decides_live_on_every_row_and_policy() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = with_one_seed("figure2");
    let (smoke, store) = run(&experiment, folder.path(), Weights::Keep);
    let rows = smoke.task(&experiment.tasks[0]).unwrap().data.test.examples;
    for cell in experiment.cells(&|_| Outlook::Open) {
        let done = finished(&store, &cell);
        let compared = compare_live(&done, &rows, cell.budget.max_length);
        assert!(compared > 200, "{compared}");
        let curves = done.results.curves.as_ref().unwrap();
        let is_badge = cell.variant.method == Method::Badge;
        assert_eq!(curves.curves.len(), if is_badge { 9 } else { 2 });
        let answers = Answers::read(&done.folder, &done.results.splits[0].answers).unwrap();
        assert_eq!(answers.rows(), rows.len());
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_page_of_reproductions_is_what_its_records_say() {
    let place = "experiments/reproduction";
    let made = document(&root().join(place), place).unwrap();
    let page = fs::read_to_string(root().join("docs/reproduction.md")).unwrap();
    assert_eq!(
        page, made,
        "make it again: badge reproduce --document docs/reproduction.md"
    );
    for (file, sha256) in records_named(&page) {
        let bytes = fs::read(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(hash::sha256_hex(&bytes), sha256, "{file}");
    }
}

#[test]
fn a_page_names_the_records_of_a_search_too() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = with_one_seed("grid");
    keep(&experiment, &folder.path().join("grid")).unwrap();
    let (_, store) = run(&experiment, folder.path(), Weights::Remove);
    let page = document(folder.path(), "records").unwrap();
    let candidates = experiment.cells(&|_| Outlook::Open);
    assert!(candidates.len() > 1);
    for cell in candidates {
        let sha256 = finished(&store, &cell).sha256;
        let named = records_named(&page);
        assert!(named.iter().any(|(_, theirs)| *theirs == sha256), "{page}");
    }
}

#[test]
fn a_page_names_every_record_that_it_was_made_of() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = with_one_seed("table2");
    keep(&experiment, &folder.path().join("table2")).unwrap();
    let (_, store) = run(&experiment, folder.path(), Weights::Remove);
    let page = document(folder.path(), "records").unwrap();
    let named = records_named(&page);
    assert_eq!(named.len(), 3, "{page}");
    for (file, sha256) in named {
        let path = folder.path().join(file.strip_prefix("records/").unwrap());
        assert_eq!(
            hash::sha256_hex(&fs::read(&path).unwrap()),
            sha256,
            "{file}"
        );
        let weights = path.with_file_name("model.safetensors");
        assert!(!weights.exists(), "{}", weights.display());
    }
    // A damaged file of answers is not taken for the one that the record speaks of.
    let done = finished(&store, &experiment.cells(&|_| Outlook::Open)[0]);
    let path = done.folder.join(&done.results.splits[0].answers.file);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let told = format!("{:#}", document(folder.path(), "records").unwrap_err());
    assert!(told.contains("answers-test.safetensors"), "{told}");
    assert!(told.contains("SHA-256"), "{told}");
}
