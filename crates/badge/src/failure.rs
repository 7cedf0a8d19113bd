//! How a command that cannot be carried out says so.

use std::io::{self, ErrorKind};
use std::process::ExitCode;

/// Usage or bad input.
const BAD_INPUT: u8 = 2;

/// Prints the chain of causes on one line and gives the exit code.
///
/// A reader that went away (`badge predict ... | head`) is no failure.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    let mut message = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        let cause = cause.trim_end();
        // Many an error says what caused it in its own words already.
        if !message.contains(cause) {
            if !message.is_empty() {
                message.push_str(": ");
            }
            message.push_str(cause);
        }
    }
    #[expect(clippy::print_stderr, reason = "the one place where a failure is told")]
    {
        eprintln!("error: {message}");
    }
    ExitCode::from(BAD_INPUT)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
    })
}
