//! The `badge` command.
fn main() {}
