//! What must hold for octets from strangers: three properties, each a function
//! that takes any octets and panics where its promise is broken.
//!
//! libFuzzer calls them from `fuzz_targets`, `cargo test` calls them with every
//! file of `corpus`. Each promise is stated with libraries or a naive twin that
//! share no code with the engine; `world` alone knows the engine.

mod addresses;
mod beside;
mod formats;
pub mod list;
pub mod query;
pub mod reading;
pub mod response;
pub mod world;
