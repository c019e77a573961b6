use crate::bindings::pyxis::common::types::TimeRange;
use crate::bindings::pyxis::script::clock::Host;
use crate::state::State;

impl Host for State {
    fn now(&mut self) -> wasmtime::Result<i64> {
        self.enter()?;
        Ok(self.now_ns)
    }

    fn range(&mut self) -> wasmtime::Result<TimeRange> {
        self.enter()?;
        Ok(TimeRange { start: self.range.start_ns, end: self.range.end_ns })
    }
}
