//! Rules of the layout, checked against what Cargo and the files say: who may use whom, where `unsafe` may be, what the
//! top level holds. They are ARCHITECTURE.md as tests; change both or neither.

#[path = "structure/dependencies.rs"]
mod dependencies;
#[path = "structure/files.rs"]
mod files;
#[path = "structure/graph.rs"]
mod graph;
#[path = "structure/lock.rs"]
mod lock;
#[path = "structure/unsafety.rs"]
mod unsafety;
