//! Packed CPU inference with early exit.
