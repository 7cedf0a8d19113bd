//! A folder with a tiny model and a tiny task, and the program run in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use badge_core::checkpoint::{Checkpoint, read_metadata};
use serde_json::Value;
use tempfile::TempDir;

/// `model/` (five ALBERT blocks with an exit each, five labels), `task.toml` with its files under
/// `data/`, and `texts.txt`.
pub(crate) struct Setup {
    folder: TempDir,
}

/// The words of the tasks' labels.
const SUBJECTS: [(&str, &str); 2] = [("yes", "the cat sat on the mat"), ("no", "a dog ran over")];

pub(crate) const TASK: &str = r#"
name = "tiny"
labels = ["no", "yes"]
metric = "acc"
[files]
train = "data/train.tsv"
dev = "data/dev.tsv"
test = "data/test.tsv"
[columns]
text = "text"
label = "label"
"#;

impl Setup {
    pub(crate) fn new() -> Self {
        let setup = Self {
            folder: TempDir::new().unwrap(),
        };
        setup.add_model("model", "albert");
        setup.write("task.toml", TASK);
        for (name, rows) in [("train", 24), ("dev", 8), ("test", 8)] {
            setup.write(&format!("data/{name}.tsv"), rows_of_task(rows));
        }
        setup.write(
            "texts.txt",
            "the cat sat\na dog\none old red stone bridge\n",
        );
        setup
    }

    /// Puts a model of the fixtures beside the tokeniser that fits its vocabulary.
    pub(crate) fn add_model(&self, name: &str, fixture: &str) {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
        fs::create_dir_all(self.path(name)).unwrap();
        for file in ["config.json", "model.safetensors"] {
            let source = fixtures.join("parity").join(fixture).join(file);
            fs::copy(source, self.path(name).join(file)).unwrap();
        }
        let source = fixtures.join("tokenizer/tokenizer.json");
        fs::copy(source, self.path(name).join("tokenizer.json")).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Changes a JSON file.
    pub(crate) fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&self.read(name)).unwrap();
        edit(&mut value);
        self.write(name, value.to_string());
    }

    /// Changes the tensors of a safetensors file.
    pub(crate) fn edit_tensors(&self, name: &str, edit: impl FnOnce(&mut Checkpoint)) {
        let mut tensors = Checkpoint::from_safetensors(name, &self.read(name)).unwrap();
        edit(&mut tensors);
        self.write(name, tensors.to_safetensors());
    }

    /// The program with arguments as one would type them, in this folder and without the network.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_badge"));
        command.args(arguments.split_whitespace());
        self.isolate(&mut command);
        command
    }

    /// Nothing of the user's environment may reach a test.
    pub(crate) fn isolate(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HF_") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.folder.path())
            .env("HF_HUB_CACHE", self.path("hub"))
            .env("BADGE_CACHE", self.path("cache"))
            .env("HF_HUB_OFFLINE", "1")
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null());
    }

    pub(crate) fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Trains into `out/` with a checkpoint after every step, and kills the run in its second
    /// epoch. Gives the step at which it died.
    pub(crate) fn killed_run(&self, arguments: &str) -> u64 {
        let mut command = self.command(&format!("{arguments} --checkpoint-minutes 0"));
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            if self
                .progress()
                .is_some_and(|p| p["epochs"] == 1 && p["steps_in_epoch"] != 0)
            {
                break; // Most of the epoch is still to come, so that the kill falls into it.
            }
            let ended = child.try_wait().unwrap();
            assert_eq!(ended, None, "the run ended before it could be killed");
            assert!(Instant::now() < deadline, "no checkpoint was written");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        let progress = self.progress().expect("a kill never breaks the checkpoint");
        progress["steps"].as_u64().unwrap()
    }

    /// Where the run that writes into `out/` is.
    fn progress(&self) -> Option<Value> {
        let bytes = fs::read(self.path("out/checkpoint.safetensors")).ok()?;
        let metadata = read_metadata("checkpoint", &bytes).unwrap();
        Some(serde_json::from_str(&metadata["badge.progress"]).unwrap())
    }

    /// Temporary files anywhere below a folder.
    pub(crate) fn leftovers(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "tmp") {
                    found.push(path);
                }
            }
        }
        found
    }
}

/// Labelled rows whose label follows from their words.
fn rows_of_task(count: usize) -> String {
    let words = [
        "one", "two", "three", "four", "five", "six", "seven", "eight",
    ];
    let mut content = "label\ttext\n".to_owned();
    for row in 0..count {
        let (label, text) = SUBJECTS[row % 2];
        let (first, second) = (words[row % 8], words[row / 2 % 8]);
        for part in [label, "\t", text, " ", first, " ", second, "\n"] {
            content.push_str(part);
        }
    }
    content
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
