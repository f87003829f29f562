//! Tests of whole parts, in one binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod cli;
mod contract;
mod delivery;
mod demo;
mod path;
mod simulator;
mod support;
