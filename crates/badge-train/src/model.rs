//! The multi-exit encoder on the autodiff framework: embeddings, blocks, bypasses, exits.

mod attention;
mod block;
mod bypass;
mod embeddings;
mod exit;
mod exit_attention;
mod feed_forward;
mod heads;
mod input;
mod junction;
mod linear;
mod multi_exit;
mod past_future;
mod taps;

pub use heads::ExitOutput;
pub(crate) use heads::HeadPass;
pub use input::ModelInput;
pub(crate) use input::check_ids;
pub use junction::Junction;
pub use multi_exit::{Forward, Mode, MultiExitModel};
pub use past_future::ImitatedStates;
pub(crate) use taps::{BlockTaps, Tap};
