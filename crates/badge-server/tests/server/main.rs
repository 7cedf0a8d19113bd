//! The server as its callers see it: in this process, over its router or over sockets.

mod administration;
mod calls;
mod damage;
mod deployment;
mod faults;
mod grpc;
mod limits;
mod mutations;
mod operations;
mod pages;
mod predict;
mod promise;
mod protocol;
mod recorded;
mod rerank;
mod setup;
mod sockets;
mod tokens;
mod traces;
