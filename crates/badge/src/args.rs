//! What can be typed: global flags and one file of flags per command.

use std::env;

use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::bench::BenchArgs;
use crate::commands::calibrate::CalibrateArgs;
use crate::commands::completions::CompletionsArgs;
use crate::commands::doctor::DoctorArgs;
use crate::commands::eval::EvalArgs;
use crate::commands::fetch::FetchArgs;
use crate::commands::inspect::InspectArgs;
use crate::commands::predict::PredictArgs;
use crate::commands::quickstart::QuickstartArgs;
use crate::commands::replay::ReplayArgs;
use crate::commands::reproduce::ReproduceArgs;
use crate::commands::serve::ServeArgs;
use crate::commands::sweep::SweepArgs;
use crate::commands::train::TrainArgs;

/// Fast, adaptive BERT inference: train multi-exit encoders, let each input leave the network as
/// soon as its answer is settled.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Variables that text-embeddings-inference reads, so that what starts it starts `serve` too. Not
/// HOSTNAME, which every shell sets to something else.
const PEER_VARIABLES: [&str; 14] = [
    "API_KEY",
    "AUTO_TRUNCATE",
    "CORS_ALLOW_ORIGIN",
    "JSON_OUTPUT",
    "MAX_BATCH_REQUESTS",
    "MAX_BATCH_TOKENS",
    "MAX_CLIENT_BATCH_SIZE",
    "MAX_CONCURRENT_REQUESTS",
    "MODEL_ID",
    "OTLP_ENDPOINT",
    "OTLP_SERVICE_NAME",
    "PAYLOAD_LIMIT",
    "PORT",
    "TOKENIZATION_WORKERS",
];

impl Cli {
    /// What was typed, or an exit with a message.
    pub(crate) fn read() -> Self {
        let command = Self::command();
        let command = command.mut_subcommand("serve", |serve| serve.mut_args(with_peer_variable));
        let matches = command.get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// Lets a flag read the peer's variable where that is set and ours is not.
fn with_peer_variable(arg: Arg) -> Arg {
    let Some(ours) = arg.get_env() else {
        return arg;
    };
    let is_ours = |peer: &&str| {
        let name = peer.strip_suffix("_ID").unwrap_or(peer);
        ours.to_str() == Some(&format!("BADGE_{name}"))
    };
    let peer = PEER_VARIABLES.into_iter().find(|peer| is_ours(peer));
    match peer {
        Some(peer) if env::var_os(ours).is_none() && env::var_os(peer).is_some() => arg.env(peer),
        _ => arg,
    }
}

/// Flags that every command takes.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Print one JSON document on standard output; progress and logs stay on standard error
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Seed of everything random
    #[arg(long, global = true, value_name = "N", help_heading = "Global options")]
    pub(crate) seed: Option<u64>,
    /// Threads to compute with [default: what the machine grants]
    #[arg(long, global = true, value_name = "N", help_heading = "Global options")]
    pub(crate) threads: Option<usize>,
    /// Say nothing but results and errors
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// Say more
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
}

/// The seed of commands that are given none.
pub(crate) const DEFAULT_SEED: u64 = 42;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See everything once: train, calibrate, evaluate and classify on a corpus made on the spot
    Quickstart(QuickstartArgs),
    /// Fine-tune a multi-exit model
    Train(Box<TrainArgs>),
    /// Score every exit of a model, and what a policy saves
    Eval(EvalArgs),
    /// Draw the speed-score curves of a model's policies
    Sweep(SweepArgs),
    /// Choose an operating point on dev, and certify it
    Calibrate(CalibrateArgs),
    /// Run a table or figure of the paper again, on this machine
    Reproduce(Box<ReproduceArgs>),
    /// Classify texts, each as deep as it needs
    Predict(PredictArgs),
    /// Answer over HTTP
    Serve(Box<ServeArgs>),
    /// Show what a model directory holds, and check every tensor of it
    Inspect(InspectArgs),
    /// Download a model or a task's data into the cache
    Fetch(FetchArgs),
    /// Measure engine and training: latency, throughput, kernels, loading, steps
    Bench(BenchArgs),
    /// Send traffic from a trace to a server, and see how it fares
    Replay(ReplayArgs),
    /// Show what this machine will use, and test it for three seconds
    Doctor(DoctorArgs),
    /// Print a script that completes commands and flags in a shell
    Completions(CompletionsArgs),
}
