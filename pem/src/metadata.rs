//! What the places where a process lives say of it.

pub mod cgroup;
