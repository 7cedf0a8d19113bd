//! `badge serve`: models behind HTTP.

use std::env;
use std::fs;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use badge_core::policy::PolicySpec;
use badge_engine::Precision;
use badge_server::{
    Limits, LogForm, ModelSettings, ModelSource, PairForm, Secret, Settings, TraceSettings,
    default_tokenization_workers, run as serve, start_logging,
};
use clap::{Args, ValueEnum};

use super::{Session, Verdict, sources};

/// Flags of `badge serve`. Names and defaults are those of text-embeddings-inference where it has
/// them.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Each flag is also an environment variable: --max-batch-tokens is \
    BADGE_MAX_BATCH_TOKENS, or MAX_BATCH_TOKENS.\n\n\
    Example:\n  badge serve --model runs/mrpc --precision bf16\n  \
    curl localhost:3000/predict -d '{\"inputs\": \"what a film\"}'"
)]
pub(crate) struct ServeArgs {
    /// Model directory or hub id, or NAME=DIR; several models may be given, the first answers
    /// where a request names none
    #[arg(
        long = "model",
        alias = "model-id",
        env = "BADGE_MODEL",
        required = true,
        value_delimiter = ',',
        value_name = "[NAME=]DIR|HUB_ID"
    )]
    models: Vec<String>,
    /// The address to listen on
    #[arg(
        long,
        env = "BADGE_HOSTNAME",
        default_value = "0.0.0.0",
        value_name = "HOST"
    )]
    hostname: String,
    /// The port to listen on
    #[arg(long, short, env = "BADGE_PORT", default_value_t = 3000)]
    port: u16,
    /// The port to speak the Open Inference Protocol over gRPC on; off by default
    #[arg(long, env = "BADGE_GRPC_PORT", value_name = "PORT")]
    grpc_port: Option<u16>,
    /// When to leave the network, such as dge:tau=0.3,t=2 or fixed:6 [default: what each model was
    /// calibrated for, else full]
    #[arg(long, env = "BADGE_POLICY", value_name = "SPEC")]
    policy: Option<PolicySpec>,
    /// The numbers that the engine multiplies: f32, bf16 or int8
    #[arg(long, env = "BADGE_PRECISION", visible_alias = "dtype", default_value_t = Precision::F32)]
    precision: Precision,
    /// Milliseconds within which texts are to be answered: depth follows the load, among the
    /// policies that a model's calibration has certified
    #[arg(long, env = "BADGE_SLO_MS", value_name = "MS")]
    slo_ms: Option<f64>,
    /// The score below which no policy may be certified that the SLO is kept by
    #[arg(long, env = "BADGE_ACCURACY_FLOOR", value_name = "SCORE")]
    accuracy_floor: Option<f64>,
    /// Longest input in tokens [default: what a model was trained on, else all its positions]
    #[arg(long, env = "BADGE_MAX_LENGTH", value_name = "TOKENS")]
    max_length: Option<usize>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    traces: TraceArgs,
    /// Where models and policies can be changed while serving; off by default
    #[arg(long, env = "BADGE_ADMIN_PORT", value_name = "PORT")]
    admin_port: Option<u16>,
    /// The address of the admin port
    #[arg(
        long,
        env = "BADGE_ADMIN_HOSTNAME",
        default_value = "127.0.0.1",
        value_name = "HOST"
    )]
    admin_hostname: String,
    /// Seconds between the end of readiness and the end of listening
    #[arg(
        long,
        env = "BADGE_SHUTDOWN_DELAY_S",
        default_value_t = 5.0,
        value_name = "SECONDS"
    )]
    shutdown_delay_s: f64,
    /// Seconds that accepted requests may take after that
    #[arg(
        long,
        env = "BADGE_DRAIN_TIMEOUT_S",
        default_value_t = 25.0,
        value_name = "SECONDS"
    )]
    drain_timeout_s: f64,
    /// Log one JSON object a line
    #[arg(long, env = "BADGE_JSON_OUTPUT")]
    json_output: bool,
}

/// What a request may ask for.
#[derive(Debug, Clone, Args)]
struct LimitArgs {
    /// Tokens that are computed together; texts of any length share them without padding
    #[arg(
        long,
        env = "BADGE_MAX_BATCH_TOKENS",
        default_value_t = 2048,
        value_name = "TOKENS"
    )]
    max_batch_tokens: usize,
    /// Texts that are computed together
    #[arg(
        long,
        env = "BADGE_MAX_BATCH_REQUESTS",
        default_value_t = 64,
        value_name = "N"
    )]
    max_batch_requests: usize,
    /// Texts of a model that may be on their way; more are refused with 429
    #[arg(
        long,
        env = "BADGE_MAX_CONCURRENT_REQUESTS",
        default_value_t = 512,
        value_name = "N"
    )]
    max_concurrent_requests: usize,
    /// Texts of one request
    #[arg(
        long,
        env = "BADGE_MAX_CLIENT_BATCH_SIZE",
        default_value_t = 32,
        value_name = "N"
    )]
    max_client_batch_size: usize,
    /// Bytes of one body
    #[arg(
        long,
        env = "BADGE_PAYLOAD_LIMIT",
        default_value_t = 2_000_000,
        value_name = "BYTES"
    )]
    payload_limit: usize,
    /// Whether texts that are too long are cut where a request does not say
    #[arg(long, env = "BADGE_AUTO_TRUNCATE", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "true|false")]
    auto_truncate: bool,
    /// Milliseconds after which an answer is worth nothing, where a request does not say
    #[arg(long, env = "BADGE_DEFAULT_DEADLINE_MS", value_name = "MS")]
    default_deadline_ms: Option<f64>,
    /// Threads that make ids of texts [default: one less than the machine's]
    #[arg(long, env = "BADGE_TOKENIZATION_WORKERS", value_name = "N")]
    tokenization_workers: Option<usize>,
    /// What two strings in a list are to /predict
    #[arg(long, env = "BADGE_PAIR_COMPAT", default_value = "tei")]
    pair_compat: PairArg,
}

/// Who may call.
#[derive(Debug, Clone, Args)]
struct AccessArgs {
    /// The key that inference asks for, as `Authorization: Bearer KEY`
    #[arg(
        long,
        env = "BADGE_API_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    api_key: Option<Secret>,
    /// A file that holds the key, which process lists do not show
    #[arg(
        long,
        env = "BADGE_API_KEY_FILE",
        conflicts_with = "api_key",
        value_name = "FILE"
    )]
    api_key_file: Option<PathBuf>,
    /// The key that the admin port asks for
    #[arg(
        long,
        env = "BADGE_ADMIN_TOKEN",
        hide_env_values = true,
        value_name = "KEY"
    )]
    admin_token: Option<Secret>,
    /// A file that holds it
    #[arg(
        long,
        env = "BADGE_ADMIN_TOKEN_FILE",
        conflicts_with = "admin_token",
        value_name = "FILE"
    )]
    admin_token_file: Option<PathBuf>,
    /// Origins whose pages may call [default: all]
    #[arg(
        long,
        env = "BADGE_CORS_ALLOW_ORIGIN",
        value_delimiter = ',',
        value_name = "ORIGIN"
    )]
    cors_allow_origin: Vec<String>,
}

/// Where spans of requests go.
#[derive(Debug, Clone, Args)]
struct TraceArgs {
    /// The OpenTelemetry collector that is sent a span of every request, over OTLP/HTTP: its base
    /// URL, such as http://localhost:4318 [default: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT as it is,
    /// else OTEL_EXPORTER_OTLP_ENDPOINT, else none]
    #[arg(long, env = "BADGE_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// The service that spans say they are of [default: OTEL_SERVICE_NAME, else badge]
    #[arg(long, env = "BADGE_OTLP_SERVICE_NAME", value_name = "NAME")]
    otlp_service_name: Option<String>,
}

/// [`PairForm`] as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PairArg {
    /// A pair, as text-embeddings-inference has it
    Tei,
    /// A batch of two texts
    Batch,
}

pub(crate) fn run(args: &ServeArgs, session: Session) -> Result<Verdict> {
    let settings = args.settings(session)?;
    let form = if args.json_output || session.console.json {
        LogForm::Json
    } else {
        LogForm::Text
    };
    start_logging(form, session.console.log_level());
    serve(settings)?;
    Ok(Verdict::Done)
}

impl ServeArgs {
    fn settings(&self, session: Session) -> Result<Settings> {
        let (limits, access) = (&self.limits, &self.access);
        let models = self.models.iter();
        let models = models.map(|model| source(model, session));
        let settings = Settings {
            model: ModelSettings {
                precision: self.precision,
                threads: session.threads,
                policy: self.policy.clone(),
                batch_tokens_max: limits.max_batch_tokens,
                batch_requests_max: limits.max_batch_requests,
                concurrent_requests_max: limits.max_concurrent_requests,
                length_max: self.max_length,
                slo: match self.slo_ms {
                    Some(ms) => Some(seconds("--slo-ms", ms / 1e3)?),
                    None => None,
                },
                accuracy_floor: self.accuracy_floor,
            },
            limits: limits.limits()?,
            tokenization_workers: limits
                .tokenization_workers
                .unwrap_or_else(default_tokenization_workers),
            api_key: key(access.api_key.as_ref(), access.api_key_file.as_deref())?,
            cors_allow_origin: access.cors_allow_origin.clone(),
            address: address("--hostname", &self.hostname, self.port)?,
            grpc_address: match self.grpc_port {
                Some(port) => Some(address("--hostname", &self.hostname, port)?),
                None => None,
            },
            admin_address: match self.admin_port {
                Some(port) => Some(address("--admin-hostname", &self.admin_hostname, port)?),
                None => None,
            },
            admin_token: key(
                access.admin_token.as_ref(),
                access.admin_token_file.as_deref(),
            )?,
            traces: self.traces.settings(variable)?,
            shutdown_delay: seconds("--shutdown-delay-s", self.shutdown_delay_s)?,
            drain_timeout: seconds("--drain-timeout-s", self.drain_timeout_s)?,
            ..Settings::new(models.collect::<Result<_>>()?)
        };
        ensure!(
            settings.admin_token.is_some()
                || settings
                    .admin_address
                    .is_none_or(|address| address.ip().is_loopback()),
            "--admin-hostname: {} is reached from other machines; give --admin-token too",
            self.admin_hostname
        );
        settings.check()?;
        Ok(settings)
    }
}

impl LimitArgs {
    fn limits(&self) -> Result<Limits> {
        let deadline = self.default_deadline_ms.map(|ms| ms / 1e3);
        Ok(Limits {
            client_batch_max: self.max_client_batch_size,
            payload_max: self.payload_limit,
            auto_truncate: self.auto_truncate,
            default_deadline: match deadline {
                Some(deadline) => Some(seconds("--default-deadline-ms", deadline)?),
                None => None,
            },
            pair_form: match self.pair_compat {
                PairArg::Tei => PairForm::Tei,
                PairArg::Batch => PairForm::Batch,
            },
            ..Limits::default()
        })
    }
}

impl TraceArgs {
    /// Where spans go; `variable` is the environment, where an empty variable is none.
    fn settings(
        &self,
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Option<TraceSettings>> {
        const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const WHOLE: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let is = |name, value: &str| variable(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
        let mut settings = if let Some(url) = &self.otlp_endpoint {
            TraceSettings::of_base("--otlp-endpoint", url)?
        } else if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        } else if let Some(url) = variable(WHOLE) {
            TraceSettings::of_url(WHOLE, &url)?
        } else if let Some(url) = variable(BASE) {
            TraceSettings::of_base(BASE, &url)?
        } else {
            return Ok(None);
        };
        let names = [
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ];
        let protocol = names
            .into_iter()
            .find_map(|name| Some((name, variable(name)?)));
        if let Some((name, protocol)) = protocol {
            ensure!(
                protocol == "http/protobuf",
                "{name}: `{protocol}` is not spoken to collectors; http/protobuf is, mostly on \
                 port 4318"
            );
        }
        settings.service_name.clone_from(&self.otlp_service_name);
        Ok(Some(settings))
    }
}

fn variable(name: &'static str) -> Option<String> {
    let value = env::var(name).ok()?.trim().to_owned();
    (!value.is_empty()).then_some(value)
}

/// A model as it was typed: a path, or a hub id whose files are fetched.
fn source(text: &str, session: Session) -> Result<ModelSource> {
    let (name, place) = match text.split_once('=') {
        Some((name, place)) => (Some(name.to_owned()), place),
        None => (None, text),
    };
    let directory = sources::model_directory(place, session.console)?;
    let name = name.unwrap_or_else(|| {
        if Path::new(place).is_dir() {
            ModelSource::of_directory(place).name
        } else {
            let last = place.rsplit('/').next();
            last.unwrap_or(place).to_owned()
        }
    });
    // Names are parts of paths of URLs.
    let plain = |c: char| c.is_alphanumeric() || "-_.@".contains(c);
    ensure!(
        !name.is_empty() && name.chars().all(plain),
        "--model: `{name}` is no name: letters, digits and -_.@ are; write NAME={place}"
    );
    Ok(ModelSource::new(name, directory))
}

fn address(flag: &str, host: &str, port: u16) -> Result<SocketAddr> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::from((ip, port)));
    }
    let found = (host, port).to_socket_addrs();
    let mut found = found.with_context(|| format!("{flag}: `{host}` is no address"))?;
    let first = found.next();
    first.with_context(|| format!("{flag}: `{host}` has no address"))
}

fn seconds(flag: &str, seconds: f64) -> Result<Duration> {
    let duration = Duration::try_from_secs_f64(seconds);
    let duration = duration.ok().filter(|d| d.as_secs() <= 86_400);
    duration.with_context(|| format!("{flag}: {seconds} is no time between 0 and a day"))
}

/// A key as it was typed, or as a file holds it.
fn key(typed: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>> {
    let Some(path) = file else {
        return Ok(typed.cloned());
    };
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("{}", path.display()))?;
    let secret = Secret::new(&text).map_err(anyhow::Error::msg);
    secret
        .map(Some)
        .with_context(|| format!("{}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_go_where_the_flag_says_else_where_the_environment_does() {
        let endpoint = |flag: Option<&str>, variables: &[(&str, &str)]| {
            let arguments = TraceArgs {
                otlp_endpoint: flag.map(str::to_owned),
                otlp_service_name: None,
            };
            let variable = |name: &'static str| {
                let found = variables.iter().find(|(given, _)| *given == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let settings = arguments.settings(variable);
            settings.map(|traces| traces.map(|traces| traces.endpoint().to_owned()))
        };
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:4318");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://w/here");
        let (disabled, none) = (
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_EXPORTER", "none"),
        );
        for (flag, variables, expected) in [
            (None, &[][..], None),
            (None, &[base], Some("http://b:4318/v1/traces")),
            (None, &[base, whole], Some("http://w/here")),
            (None, &[base, disabled], None),
            (None, &[whole, none], None),
            (
                Some("http://f"),
                &[base, whole, none],
                Some("http://f/v1/traces"),
            ),
        ] {
            let found = endpoint(flag, variables).unwrap();
            assert_eq!(found.as_deref(), expected, "{flag:?} {variables:?}");
        }
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        for (flag, variables, name) in [
            (Some("f"), &[][..], "--otlp-endpoint"),
            (None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "b:4317")], base.0),
            (None, &[base, grpc], grpc.0),
        ] {
            let message = endpoint(flag, variables).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{name}: ")), "{message}");
        }
    }
}
