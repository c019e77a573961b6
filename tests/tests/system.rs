//! The whole system against real programs. Each test starts a Pyxis of its own; run them one after the other
//! (`cargo xtask test` does), since some count what was lost under load.

#[path = "system/agents.rs"]
mod agents;
#[path = "system/capture.rs"]
mod capture;
#[path = "system/commands.rs"]
mod commands;
#[path = "system/demo.rs"]
mod demo;
#[path = "system/input.rs"]
mod input;
#[path = "system/interrupt.rs"]
mod interrupt;
#[path = "system/lifecycle.rs"]
mod lifecycle;
#[path = "system/loss.rs"]
mod loss;
#[path = "system/plugins.rs"]
mod plugins;
#[path = "system/protocols.rs"]
mod protocols;
#[path = "system/replay.rs"]
mod replay;
#[path = "system/scripts.rs"]
mod scripts;
