//! Benchmarks that cannot be run.

use super::{Case, NOTHING, case};

pub(crate) const BENCHMARKS: &[Case] = &[
    case(
        "unknown precision",
        NOTHING,
        "bench latency --model model --precision f32,fp8",
        &["--precision", "`fp8` is not f32, bf16 or int8"],
    ),
    case(
        "no such model to measure",
        NOTHING,
        "bench latency --model ./absent",
        &["./absent", "directory"],
    ),
    case(
        "no model to measure",
        NOTHING,
        "bench throughput --lengths-file lengths.json",
        &["--model"],
    ),
    case(
        "inputs without tokens",
        NOTHING,
        "bench latency --model model --lengths 16,0",
        &["--lengths", "0 does not lie in 1..="],
    ),
    case(
        "inputs longer than the model's positions",
        NOTHING,
        "bench latency --model model --lengths 4096",
        &["--lengths", "4096", "positions of the model"],
    ),
    case(
        "no runs",
        NOTHING,
        "bench latency --model model --runs 0",
        &["--runs", "1..=1000000"],
    ),
    case(
        "a training batch of no rows",
        NOTHING,
        "bench train --model model --batch 0 --length 4",
        &["--batch", "1..=65536"],
    ),
    case(
        "training rows longer than the model's positions",
        NOTHING,
        "bench train --model model --length 4096",
        &["--length", "4096", "positions of the model"],
    ),
    case(
        "dropout of everything",
        NOTHING,
        "bench train --model model --dropout 1",
        &["--dropout", "[0, 1)"],
    ),
    case(
        "an unknown shape",
        NOTHING,
        "bench train --shape huge",
        &["--shape", "albert-base"],
    ),
    case(
        "no rounds",
        |setup| setup.write("lengths.json", "[3]"),
        "bench throughput --model model --lengths-file lengths.json --rounds 0",
        &["--rounds", "1..=1000000"],
    ),
    case(
        "more runs than anybody waits for",
        NOTHING,
        "bench latency --model model --runs 18446744073709551615",
        &["--runs", "1..=1000000"],
    ),
    case(
        "a batch that no memory holds",
        NOTHING,
        "bench latency --model model --batch 18446744073709551615",
        &["--batch", "1..=65536"],
    ),
    case(
        "batches of nothing",
        NOTHING,
        "bench latency --model model --batch 0",
        &["--batch", "1..=65536"],
    ),
    case(
        "a policy for another model",
        NOTHING,
        "bench latency --model model --policy fixed:9",
        &["fixed:9", "1..=5"],
    ),
    case(
        "other exits than all",
        NOTHING,
        "bench latency --model model --exits few",
        &["--exits", "few", "all"],
    ),
    case(
        "nothing to run",
        NOTHING,
        "bench throughput --model model",
        &["--lengths-file or --task is missing"],
    ),
    case(
        "a file of lengths that is missing",
        NOTHING,
        "bench throughput --model model --lengths-file absent.json",
        &["absent.json", "no such file"],
    ),
    case(
        "a file of lengths that is no list",
        |setup| setup.write("lengths.json", "{\"lengths\": 3}"),
        "bench throughput --model model --lengths-file lengths.json",
        &["lengths.json", "not a JSON list of lengths"],
    ),
    case(
        "a file without lengths",
        |setup| setup.write("lengths.json", "[]"),
        "bench throughput --model model --lengths-file lengths.json",
        &["lengths.json", "no length"],
    ),
    case(
        "a length of zero in a file",
        |setup| setup.write("lengths.json", "[3, 0]"),
        "bench throughput --model model --lengths-file lengths.json",
        &["lengths.json", "0 does not lie in 1..="],
    ),
    case(
        "shares that are more than all",
        |setup| setup.write("lengths.json", "[3]"),
        "bench throughput --model model --lengths-file lengths.json --exit-shares 0.7@2,0.7@3",
        &["--exit-shares", "1.4"],
    ),
    case(
        "shares that leave where there is no exit",
        |setup| setup.write("lengths.json", "[3]"),
        "bench throughput --model model --lengths-file lengths.json --exit-shares 0.5@9",
        &["--exit-shares", "fixed:9", "1..=5"],
    ),
    case(
        "a kernel without rows",
        NOTHING,
        "bench kernels --model model --rows 0",
        &["--rows", "0 does not lie in 1..="],
    ),
    case(
        "room for more tokens than positions",
        NOTHING,
        "bench load --model model --tokens 4096",
        &["--tokens", "4096"],
    ),
    case(
        "a record in the place of a directory",
        NOTHING,
        "bench latency --model model --out data",
        &["--out", "data is a directory"],
    ),
    case(
        "a record in a folder that is not there",
        NOTHING,
        "bench latency --model model --out absent/record.json",
        &["--out", "absent/record.json", "does not exist"],
    ),
    case("unknown benchmark", NOTHING, "bench speed", &["speed"]),
];
