//! The sessions that an agent decodes plans against, one for each set of options.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use datafusion::common::Result;
use datafusion::execution::TaskContext;

use crate::session;

/// Sets of options for which a session is kept. Vizier sends the same set again and again.
const SESSIONS_KEPT: usize = 8;

type Options = BTreeMap<String, String>;
type Make = dyn Fn(&Options) -> Result<Arc<TaskContext>> + Send + Sync;

/// Makes sessions and keeps those used last.
pub(super) struct Sessions {
    /// A closure and not the `SessionState` itself: each async method of the service that holds this proves that it is
    /// `Send`, and for that the compiler walks all of SQL's syntax tree again. It took a minute of the build.
    make: Box<Make>,
    kept: Mutex<Vec<(Options, Arc<TaskContext>)>>,
}

impl Sessions {
    /// `memory_bytes` is for the operators of all fragments together.
    pub fn new(memory_bytes: usize) -> Result<Self> {
        let state = session::agent(memory_bytes)?;
        let make = move |options: &Options| {
            let mut state = state.clone();
            for (key, value) in options {
                state.config_mut().options_mut().set(key, value)?;
            }
            Ok(state.task_ctx())
        };
        Ok(Self { make: Box::new(make), kept: Mutex::default() })
    }

    /// The session of a set of options: scalar functions of a plan keep those they were decoded with.
    pub fn with(&self, options: &Options) -> Result<Arc<TaskContext>> {
        let mut kept = self.kept.lock().expect("no panic while it is held");
        if let Some(found) = kept.iter().position(|(known, _)| known == options) {
            let entry = kept.remove(found);
            let session = entry.1.clone();
            kept.push(entry);
            return Ok(session);
        }
        let session = (self.make)(options)?;
        if kept.len() == SESSIONS_KEPT {
            kept.remove(0);
        }
        kept.push((options.clone(), session.clone()));
        Ok(session)
    }
}
