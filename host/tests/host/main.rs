//! The host against guests that break every promise they can, and one that keeps them. The engine is a fake one here, with
//! tables in memory and no planner: what is under test is what stands between it and a guest.

mod admission;
mod cache;
mod compiler;
mod contract;
mod evil;
mod support;
mod tenants;
