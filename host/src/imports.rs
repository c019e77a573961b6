//! What a script can call, one file for each interface of the contract.

mod batches;
mod clock;
mod log;
mod output;
mod params;
mod tables;

use crate::bindings::pyxis::common::types;
use crate::state::State;

impl types::Host for State {}
