//! What a daemon that was started as root keeps of it: nothing but the right to bind low ports.
//! Of the calling thread, and of those that it starts from then on.

use pyo3::prelude::*;
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs,
};

/// Keeps the permitted capabilities when root becomes somebody else.
#[pyfunction]
pub fn keep_capabilities() -> PyResult<()> {
    set_keep_capabilities(true).map_err(|error| std::io::Error::from(error).into())
}

/// Gives up all capabilities but CAP_NET_BIND_SERVICE, which a program keeps that replaces
/// this one; none that is executed gets more rights.
#[pyfunction]
pub fn keep_net_bind_service() -> PyResult<()> {
    let kept = CapabilitySet::NET_BIND_SERVICE;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    set_capabilities(None, sets)
        .and_then(|()| configure_capability_in_ambient_set(kept, true))
        .and_then(|()| set_no_new_privs(true))
        .map_err(|error| std::io::Error::from(error).into())
}
