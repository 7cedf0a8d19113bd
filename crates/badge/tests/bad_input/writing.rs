//! Runs that were interrupted, and places that cannot be written to.

use std::fs;
use std::process::{Command, Output, Stdio};

use badge_core::checkpoint::Checkpoint;
use serde_json::json;

use super::models::{CONFIG, WEIGHTS};
use super::refused;
use super::setup::{Setup, TASK, stderr};

const RUN: &str = "train --backbone model --task task.toml --out out --epochs 2 --batch-size 2 \
                   --max-length 16";

#[test]
fn a_run_is_not_resumed_with_other_settings() {
    let setup = Setup::new();
    setup.killed_run(RUN);
    let before = contents(&setup, "out");
    for (flags, words) in [
        ("--lr 1e-3", ["checkpoint.safetensors", "learning_rate"]),
        ("--seed 7", ["checkpoint.safetensors", "seed"]),
        ("--bypass-rank 5", ["checkpoint.safetensors", "model"]),
    ] {
        let output = setup.run(&format!("{RUN} --resume {flags}"));
        refused(flags, &output, &words);
        assert_eq!(
            contents(&setup, "out"),
            before,
            "{flags}: the run was touched"
        );
    }
    let other = TASK.replace("train.tsv", "dev.tsv");
    setup.write("task.toml", other);
    let output = setup.run(&format!("{RUN} --resume"));
    refused(
        "other data",
        &output,
        &["checkpoint.safetensors", "train_sha256"],
    );
    assert_eq!(contents(&setup, "out"), before, "the run was touched");
}

#[test]
fn a_damaged_checkpoint_is_not_resumed() {
    let setup = Setup::new();
    setup.killed_run(RUN);
    let bytes = setup.read("out/checkpoint.safetensors");
    setup.write("out/checkpoint.safetensors", &bytes[..bytes.len() / 2]);
    let output = setup.run(&format!("{RUN} --resume"));
    refused("cut off", &output, &["out/checkpoint.safetensors"]);
}

#[test]
fn what_a_kill_left_behind_does_not_harm_the_next_run() {
    let setup = Setup::new();
    let left = "out/.checkpoint.safetensors.4242-17.tmp";
    setup.write(left, "half a checkpoint");
    setup.write("out/.model.safetensors.4242-18.tmp", "");
    let output = setup.run(RUN);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(setup.leftovers("out"), Vec::<std::path::PathBuf>::new());
    let output = setup.run("inspect out");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn an_output_folder_that_cannot_be_written_is_refused() {
    let setup = Setup::new();
    let below_a_file = RUN.replace("--out out", "--out texts.txt/out");
    refused(
        "below a file",
        &setup.run(&below_a_file),
        &["texts.txt/out", "cannot write"],
    );
    let eval = "eval --model model --task task.toml --out texts.txt";
    setup.edit_json(CONFIG, |config| {
        config["id2label"] = json!({"0": "no", "1": "yes"});
    });
    setup.edit_tensors(WEIGHTS, keep_two_labels);
    refused("a file", &setup.run(eval), &["texts.txt", "name a folder"]);
    assert!(setup.leftovers(".").is_empty());
}

#[cfg(unix)]
#[test]
fn a_read_only_output_folder_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let setup = Setup::new();
    let folder = setup.path("out");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    // The superuser writes where nobody may.
    if fs::write(folder.join("probe"), "").is_ok() {
        #[expect(clippy::print_stderr, reason = "whoever reads the log should know")]
        {
            eprintln!("left out: permissions are not enforced for this user");
        }
        return;
    }
    refused(
        "read-only",
        &setup.run(RUN),
        &["out", "not allowed to write"],
    );
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(contents(&setup, "out").is_empty());
}

/// Runs a command that may write no file larger than `blocks` times 512 bytes, and meets an error
/// where it does, as on a full disk.
#[cfg(unix)]
fn run_with_limit(setup: &Setup, blocks: usize, arguments: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_badge");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec '{program}' {arguments}");
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    setup.isolate(&mut command);
    command.output().unwrap()
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_old_model_as_it_was() {
    let setup = Setup::new();
    assert_eq!(setup.run(RUN).status.code(), Some(0));
    let whole = |setup: &Setup| {
        let mut files = contents(setup, "out");
        files.retain(|(name, _)| !name.starts_with("log") && !name.starts_with("tensorboard"));
        files
    };
    let before = whole(&setup);
    // Room for logs, not for weights.
    let output = run_with_limit(&setup, 40, &format!("{RUN} --seed 7"));
    refused(
        "no room for weights",
        &output,
        &["out/model.safetensors", "cannot write"],
    );
    assert!(setup.leftovers("out").is_empty());
    assert_eq!(whole(&setup), before, "the old model was touched");
    let output = setup.run("predict --model out texts.txt");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_last_checkpoint_and_can_be_resumed() {
    let setup = Setup::new();
    assert_eq!(setup.run(RUN).status.code(), Some(0));
    let expected = setup.read("out/model.safetensors");
    fs::remove_dir_all(setup.path("out")).unwrap();

    setup.killed_run(RUN);
    let checkpoint = setup.read("out/checkpoint.safetensors");
    // Room for the weights, not for the moments beside them.
    let output = run_with_limit(&setup, 200, &format!("{RUN} --resume"));
    let words = ["out/checkpoint.safetensors", "cannot write"];
    refused("no room for a checkpoint", &output, &words);
    assert!(setup.leftovers("out").is_empty());
    assert_eq!(setup.read("out/checkpoint.safetensors"), checkpoint);

    let output = setup.run(&format!("{RUN} --resume"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(setup.read("out/model.safetensors"), expected);
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_do_not_fit_on_the_disk_are_a_failure() {
    let setup = Setup::new();
    for arguments in [
        "predict --model model texts.txt",
        "predict --model model texts.txt --json",
        "inspect model",
        "completions bash",
    ] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let mut command = setup.command(arguments);
        let child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        refused(arguments, &output, &["standard output", "No space left"]);
    }
}

/// Every file below a folder with its content, in the order of the names.
fn contents(setup: &Setup, folder: &str) -> Vec<(String, Vec<u8>)> {
    let root = setup.path(folder);
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            files.push((name, fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

/// Every classifier cut down to its first two labels.
fn keep_two_labels(tensors: &mut Checkpoint) {
    let mut cut = Checkpoint::default();
    for (name, tensor) in tensors.iter() {
        let mut tensor = tensor.clone();
        if name.contains("classifier") {
            let outputs = tensor.shape[0];
            tensor.values.truncate(2 * tensor.values.len() / outputs);
            tensor.shape[0] = 2;
        }
        cut.insert("cut", name.to_owned(), tensor).unwrap();
    }
    *tensors = cut;
}
