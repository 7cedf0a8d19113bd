//! The server as its callers see it: in this process, over its router or over sockets.

mod administration;
mod damage;
mod deployment;
mod faults;
mod limits;
mod operations;
mod pages;
mod predict;
mod promise;
mod protocol;
mod rerank;
mod setup;
mod sockets;
mod tokens;
