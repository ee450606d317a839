//! Capabilities of a daemon that was started as root: it keeps only the right to bind low ports.
//! They apply to the calling thread and to the threads that it starts later.

use pyo3::prelude::*;
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs,
};

/// Keeps the permitted capabilities when root switches to another user.
#[pyfunction]
pub fn keep_capabilities() -> PyResult<()> {
    set_keep_capabilities(true).map_err(|error| std::io::Error::from(error).into())
}

/// Drops all capabilities except CAP_NET_BIND_SERVICE, which a successor process keeps. No executed
/// program gets more rights.
#[pyfunction]
pub fn keep_net_bind_service() -> PyResult<()> {
    let kept = CapabilitySet::NET_BIND_SERVICE;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    set_capabilities(None, sets)
        .and_then(|()| configure_capability_in_ambient_set(kept, true))
        .and_then(|()| set_no_new_privs(true))
        .map_err(|error| std::io::Error::from(error).into())
}
