//! Fork-join over the parts of one operation.
