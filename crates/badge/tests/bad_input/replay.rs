//! Traffic that cannot be sent.

use super::{Case, NOTHING, case};

pub(crate) const TRAFFIC: &[Case] = &[
    case(
        "a pattern that does not exist",
        NOTHING,
        "replay --texts texts.txt --trace pulse:rate=3",
        &["--trace", "`pulse` is no pattern"],
    ),
    case(
        "a pattern without its rate",
        NOTHING,
        "replay --texts texts.txt --trace poisson:seconds=3",
        &["--trace", "poisson:seconds=3", "`rate` is missing"],
    ),
    case(
        "a pattern with an impossible rate",
        NOTHING,
        "replay --texts texts.txt --trace ramp:from=1,to=-5",
        &["--trace", "to=-5"],
    ),
    case(
        "a trace with a broken line",
        |setup| {
            setup.write(
                "azure.csv",
                "app,func,end_timestamp,duration\na,f,9,1\na,f,soon,1\n",
            );
        },
        "replay --texts texts.txt --trace azure.csv",
        &["--trace", "azure.csv", "line 3", "end_timestamp is `soon`"],
    ),
    case(
        "a trace that is none",
        NOTHING,
        "replay --texts texts.txt --trace task.toml",
        &[
            "--trace",
            "task.toml",
            "line 2",
            "neither a number nor the head",
        ],
    ),
    case(
        "an empty trace",
        |setup| setup.write("empty.txt", ""),
        "replay --texts texts.txt --trace empty.txt",
        &["--trace", "empty.txt", "empty"],
    ),
    case(
        "nothing to ask about",
        NOTHING,
        "replay --trace poisson:rate=3",
        &["--texts"],
    ),
    case(
        "no such texts",
        NOTHING,
        "replay --trace poisson:rate=3 --texts absent.txt",
        &["absent.txt"],
    ),
    case(
        "rows that the task does not have",
        NOTHING,
        "replay --trace poisson:rate=3 --task task.toml --split holidays",
        &["--split", "holidays"],
    ),
    case(
        "an impossible promise",
        NOTHING,
        "replay --texts texts.txt --trace poisson:rate=3 --slo-ms 0",
        &["--slo-ms", "0 is no time"],
    ),
    case(
        "an impossible scale",
        NOTHING,
        "replay --texts texts.txt --trace poisson:rate=3 --scale 0",
        &["--scale: 0"],
    ),
    case(
        "no connections",
        NOTHING,
        "replay --texts texts.txt --trace poisson:rate=3 --connections 0",
        &["--connections: 0"],
    ),
    case(
        "an address that is none",
        NOTHING,
        "replay --texts texts.txt --trace poisson:rate=3 --url localhost:80",
        &["--url", "`localhost:80`", "http://"],
    ),
    case(
        "a server that is not there",
        NOTHING,
        "replay --texts texts.txt --trace poisson:rate=3 --url http://127.0.0.1:9",
        &["--url", "http://127.0.0.1:9 gives no answer"],
    ),
    case(
        "results over those of a training",
        NOTHING,
        "replay --texts texts.txt --trace poisson:rate=3 --out model",
        &["--out", "model directory"],
    ),
];
