//! The repository read as a text: what no compiler checks and every reader relies on.
//!
//! Each check gathers all it finds wrong and reports it at once. Words that must occur nowhere are
//! put together from halves here, so that these files are held to the same rules.

#[path = "tidy/edges.rs"]
mod edges;
#[path = "tidy/items.rs"]
mod items;
#[path = "tidy/paper_map.rs"]
mod paper_map;
#[path = "tidy/repository.rs"]
mod repository;
#[path = "tidy/sources.rs"]
mod sources;
#[path = "tidy/texts.rs"]
mod texts;
