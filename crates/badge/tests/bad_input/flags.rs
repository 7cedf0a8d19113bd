//! Flags and configuration files that cannot be meant.

use super::{Case, NOTHING, case};

pub(crate) const FLAGS: &[Case] = &[
    case("unknown command", NOTHING, "trian", &["trian"]),
    case("unknown flag", NOTHING, "doctor --hard", &["--hard"]),
    case(
        "unknown policy",
        NOTHING,
        "predict --model model --policy psychic texts.txt",
        &["--policy", "`psychic`", "dge"],
    ),
    case(
        "tau is NaN",
        NOTHING,
        "predict --model model --policy dge:tau=nan,t=2 texts.txt",
        &["--policy", "`tau`", "NaN"],
    ),
    case(
        "tau is zero",
        NOTHING,
        "eval --model model --task task.toml --policy dge:tau=0,t=2",
        &["--policy", "`tau`", "0"],
    ),
    case(
        "t is zero",
        NOTHING,
        "predict --model model --policy dge:tau=0.3,t=0 texts.txt",
        &["--policy", "`t`", "0"],
    ),
    case(
        "a key of a policy twice",
        NOTHING,
        "predict --model model --policy dge:tau=0.3,t=2,tau=0.4 texts.txt",
        &["--policy", "`tau` is given twice"],
    ),
    case(
        "an exit that the model does not have",
        NOTHING,
        "predict --model model --policy fixed:99 texts.txt",
        &["fixed:99", "1..=5"],
    ),
    case(
        "no epochs",
        NOTHING,
        "train --backbone model --task task.toml --out out --epochs 0",
        &["--epochs", "at least 1"],
    ),
    case(
        "a learning rate that is NaN",
        NOTHING,
        "train --backbone model --task task.toml --out out --lr nan",
        &["--lr", "above 0", "NaN"],
    ),
    case(
        "batches without rows",
        NOTHING,
        "train --backbone model --task task.toml --out out --batch-size 0",
        &["--batch-size", "at least 1"],
    ),
    case(
        "a time between checkpoints that is NaN",
        NOTHING,
        "train --backbone model --task task.toml --out out --checkpoint-minutes nan",
        &["--checkpoint-minutes", "NaN"],
    ),
    case(
        "exits that are no numbers",
        NOTHING,
        "train --backbone model --task task.toml --out out --exits few",
        &["--exits", "few"],
    ),
    case(
        "exits beyond the last block",
        NOTHING,
        "train --backbone model --task task.toml --out out --exits 2,9",
        &["--exits", "exit 9", "1..=5"],
    ),
    case(
        "a rank of zero",
        NOTHING,
        "train --backbone model --task task.toml --out out --bypass-rank 0",
        &["--bypass-rank", "0"],
    ),
    case(
        "bypasses for a method without",
        NOTHING,
        "train --backbone model --task task.toml --out out --method joint --bypass-rank 4",
        &["--method joint", "--bypass"],
    ),
    case(
        "no output folder",
        NOTHING,
        "train --backbone model --task task.toml",
        &["--out is missing", "--config"],
    ),
    case(
        "an unknown key in a configuration file",
        |setup| setup.write("run.toml", "epochs = 2\nlearning-rate = 1e-5\n"),
        "train --backbone model --task task.toml --out out --config run.toml",
        &["run.toml", "line 2", "learning-rate"],
    ),
    case(
        "a value of the wrong type in a configuration file",
        |setup| setup.write("run.toml", "epochs = \"two\"\n"),
        "train --backbone model --task task.toml --out out --config run.toml",
        &["run.toml", "line 1", "two"],
    ),
    case(
        "a configuration file is missing",
        NOTHING,
        "train --config absent.toml",
        &["absent.toml", "no such file"],
    ),
    case(
        "no threads",
        NOTHING,
        "doctor --threads 0",
        &["--threads", "0"],
    ),
    case(
        "no tokens to count",
        NOTHING,
        "inspect model --tokens 0",
        &["--tokens", "1..=512"],
    ),
    case("nothing to fetch", NOTHING, "fetch", &["<ID>"]),
    case(
        "a directory to fetch",
        NOTHING,
        "fetch model",
        &["`model`", "local directory"],
    ),
    case(
        "a task that is not of the hub",
        NOTHING,
        "fetch --task task.toml",
        &["--task", "GLUE"],
    ),
    case(
        "a model that the cache lacks, offline",
        NOTHING,
        "fetch org/name",
        &["org/name", "HF_HUB_OFFLINE"],
    ),
    case(
        "a hub id that is none",
        NOTHING,
        "fetch a/b/c",
        &["`a/b/c`", "hub id"],
    ),
    case(
        "unknown shell",
        NOTHING,
        "completions tcsh",
        &["tcsh", "bash"],
    ),
];
