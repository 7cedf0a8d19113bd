//! Recorded traces: Azure Functions 2021, lists of arrivals, rates minute by minute.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use badge_tasks::file;
use rand_chacha::ChaCha8Rng;

use super::arrivals::{Arrivals, Segment};

/// The head of Azure's file of single invocations.
const AZURE_COLUMNS: [&str; 4] = ["app", "func", "end_timestamp", "duration"];

/// The seconds that one number of a list of rates stands for.
const MINUTE: f64 = 60.0;

/// What a file of traffic may look like; told by its first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `app,func,end_timestamp,duration`: the Azure Functions trace of 2021. An invocation arrived
    /// at `end_timestamp - duration`, in seconds.
    Azure,
    /// One arrival a line, in milliseconds; further columns are passed over. The Twitter traces
    /// that come with Proteus have this form.
    Arrivals,
    /// One number a line: requests in that minute.
    Rates,
}

/// Reads the trace at `path`, with `scale` times as many arrivals; those that are drawn from rates
/// are Poisson. Time begins with the first arrival.
///
/// # Errors
/// Names the file, the line and what is wrong there.
pub fn read(path: &Path, scale: f64, random: &mut ChaCha8Rng) -> Result<(Arrivals, Format)> {
    let text = file::read_text(path)?;
    parse(&text, scale, random).with_context(|| path.display().to_string())
}

fn parse(text: &str, scale: f64, random: &mut ChaCha8Rng) -> Result<(Arrivals, Format)> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim()));
    let mut lines = lines.filter(|(_, line)| !line.is_empty()).peekable();
    let Some((number, first)) = lines.peek().copied() else {
        bail!("the file is empty");
    };
    let format = format_of(first).with_context(|| format!("line {number}"))?;
    if format == Format::Azure {
        lines.next();
    }
    let numbers = lines.map(|(number, line)| {
        let value = match format {
            Format::Azure => azure_start(line),
            Format::Arrivals => milliseconds(line),
            Format::Rates => number_of(line, "a rate"),
        };
        value.with_context(|| format!("line {number}"))
    });
    let numbers: Vec<f64> = numbers.collect::<Result<_>>()?;
    let arrivals = match format {
        Format::Azure | Format::Arrivals if scale == 1.0 => from_first(numbers)?,
        Format::Azure | Format::Arrivals => from_first(numbers)?.scaled(scale, random)?,
        Format::Rates => {
            let minute = |count: &f64| Segment {
                seconds: MINUTE,
                rate: scale * count / MINUTE,
            };
            let minutes: Vec<Segment> = numbers.iter().map(minute).collect();
            Arrivals::draw(&minutes, 1.0, random)?
        }
    };
    Ok((arrivals, format))
}

fn format_of(line: &str) -> Result<Format> {
    let columns: Vec<&str> = line.split(',').map(str::trim).collect();
    if columns == AZURE_COLUMNS {
        return Ok(Format::Azure);
    }
    ensure!(
        columns[0].parse::<f64>().is_ok(),
        "`{}` is neither a number nor the head of an Azure trace, `{}`",
        shortened(line),
        AZURE_COLUMNS.join(",")
    );
    Ok(match columns.len() {
        1 => Format::Rates,
        _ => Format::Arrivals,
    })
}

/// When an invocation arrived, in seconds.
fn azure_start(line: &str) -> Result<f64> {
    let columns: Vec<&str> = line.split(',').collect();
    let [_, _, end, duration] = columns[..] else {
        bail!(
            "`{}` has {} columns where there should be 4",
            shortened(line),
            columns.len()
        );
    };
    let (end, duration) = (
        number_of(end, "end_timestamp")?,
        number_of(duration, "duration")?,
    );
    // Invocations that began before the trace did.
    Ok(end - duration)
}

fn milliseconds(line: &str) -> Result<f64> {
    let first = line.split(',').next().unwrap_or_default();
    Ok(number_of(first, "a time in milliseconds")? / 1e3)
}

fn number_of(text: &str, what: &str) -> Result<f64> {
    let value: Option<f64> = text.trim().parse().ok();
    let value = value.filter(|value| value.is_finite() && *value >= 0.0);
    value.with_context(|| format!("{what} is `{}`, no number of 0 or more", shortened(text)))
}

fn from_first(mut times: Vec<f64>) -> Result<Arrivals> {
    let first = times.iter().copied().fold(f64::INFINITY, f64::min);
    for time in &mut times {
        *time -= first;
    }
    let last = times.iter().copied().fold(0.0, f64::max);
    Arrivals::new(times, last)
}

fn shortened(line: &str) -> String {
    const LONGEST: usize = 60;
    if line.chars().count() <= LONGEST {
        return line.to_owned();
    }
    line.chars().take(LONGEST).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn parsed(text: &str) -> Result<(Arrivals, Format)> {
        parse(text, 1.0, &mut ChaCha8Rng::seed_from_u64(1))
    }

    #[test]
    fn an_azure_trace_gives_when_invocations_began() {
        let text =
            "app,func,end_timestamp,duration\na1,f1,10.5,0.5\na2,f2,13.0,5.0\na1,f1,12.25,0.25\n";
        let (arrivals, format) = parsed(text).unwrap();
        assert_eq!(format, Format::Azure);
        assert_eq!(arrivals.times(), [0.0, 2.0, 4.0]);
    }

    #[test]
    fn a_list_of_arrivals_is_in_milliseconds() {
        let (arrivals, format) = parsed("114,1,75\n120,1,75\n1114,1,75\n").unwrap();
        assert_eq!(format, Format::Arrivals);
        let times = arrivals.times();
        assert!((times[1] - 0.006).abs() < 1e-12 && (times[2] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn rates_are_requests_a_minute() {
        let (arrivals, format) = parsed("600\n\n6000\n").unwrap();
        assert_eq!((format, arrivals.seconds()), (Format::Rates, 120.0));
        let early = arrivals.times().iter().filter(|time| **time < 60.0).count();
        assert!((500..700).contains(&early), "{early}");
        assert!((6200..7000).contains(&arrivals.times().len()));
    }

    #[test]
    fn broken_lines_are_refused_by_number() {
        for (text, parts) in [
            ("", "empty"),
            ("\n \n", "empty"),
            (
                "app,func,end,duration\n",
                "line 1: `app,func,end,duration` is neither",
            ),
            (
                "app,func,end_timestamp,duration\na,f,1\n",
                "line 2: `a,f,1` has 3 columns",
            ),
            (
                "app,func,end_timestamp,duration\na,f,x,1\n",
                "line 2: end_timestamp is `x`",
            ),
            (
                "app,func,end_timestamp,duration\na,f,1,-1\n",
                "line 2: duration is `-1`",
            ),
            ("app,func,end_timestamp,duration\n", "no arrival"),
            ("5,1\nNaN,1\n", "line 2: a time in milliseconds is `NaN`"),
            ("5\ninf\n", "line 2: a rate is `inf`"),
            ("0\n0\n", "no arrival"),
            ("1e300\n", "arrivals"),
        ] {
            let error = format!("{:#}", parsed(text).unwrap_err());
            assert!(error.contains(parts), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let path = Path::new("no-such-trace.csv");
        let error = read(path, 1.0, &mut ChaCha8Rng::seed_from_u64(1)).unwrap_err();
        assert!(format!("{error:#}").contains("no-such-trace.csv"));
    }
}
