//! Properties of the engine for hostile input. Each of the three targets is a function that takes any
//! bytes, and panics if a property does not hold.
//!
//! libFuzzer calls them from `fuzz_targets`, and `cargo test` calls them with each file of `corpus`.
//! They compare the engine with libraries or with naive models that share no code with it. Only
//! `engine.rs` uses the engine's items.

mod addresses;
pub mod engine;
mod filtering;
mod formats;
pub mod list;
pub mod parsing;
pub mod query;
pub mod response;
