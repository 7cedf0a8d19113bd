//! The multi-exit encoder on the autodiff framework: embeddings, blocks, bypasses, exits.

mod attention;
mod block;
mod bypass;
mod embeddings;
mod exit;
mod feed_forward;
mod input;
mod linear;
mod multi_exit;

pub use input::ModelInput;
pub(crate) use input::check_ids;
pub use multi_exit::{Forward, Mode, MultiExitModel};
