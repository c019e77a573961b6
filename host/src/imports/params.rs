use crate::bindings::pyxis::common::types::Scalar;
use crate::bindings::pyxis::script::params::Host;
use crate::convert;
use crate::state::State;

impl Host for State {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<Scalar>> {
        self.enter()?;
        Ok(self.args.iter().find(|(n, _)| *n == name).map(|(_, value)| convert::scalar_out(value)))
    }
}
