use std::sync::Arc;

use wasmtime::component::Resource;

use crate::arrays;
use crate::backend::{Backend, Op};
use crate::bindings::pyxis::common::types::{Column, Rows, Scalar, TimeRange};
use crate::bindings::pyxis::script::tables::{Host, HostFrame, JoinKind, Named, SortKey, TableInfo};
use crate::convert;
use crate::error::Error;
use crate::rows;
use crate::state::{Answer, GuestFrame, State};

type Handle = Resource<GuestFrame>;

impl Host for State {
    async fn list_tables(&mut self) -> wasmtime::Result<Vec<TableInfo>> {
        self.enter()?;
        let backend = Arc::clone(&self.backend);
        let tables = self.outside(move || Ok(backend.tables())).await.map_err(crate::state::stop)?;
        Ok(tables
            .into_iter()
            .map(|t| TableInfo {
                name: t.name,
                description: t.description,
                columns: t.schema.fields().iter().map(|f| arrays::column(f)).collect(),
            })
            .collect())
    }

    async fn table(&mut self, name: String, range: Option<TimeRange>) -> Answer<Handle> {
        self.enter()?;
        let backend = Arc::clone(&self.backend);
        self.made(move || {
            let range = range.map(convert::range_in).transpose()?;
            backend.table(&convert::name(name)?, range)
        })
        .await
    }

    async fn sql(&mut self, text: String, params: Vec<(String, Scalar)>) -> Answer<Handle> {
        self.enter()?;
        let backend = Arc::clone(&self.backend);
        self.made(move || {
            convert::count(params.len(), "parameters")?;
            let params: Vec<_> = params.into_iter().map(|(name, value)| (name, convert::scalar_in(value))).collect();
            backend.sql(&convert::text(text)?, &params)
        })
        .await
    }

    async fn inline(&mut self, rows: Rows) -> Answer<Handle> {
        self.enter()?;
        let backend = Arc::clone(&self.backend);
        let meter = Arc::clone(&self.meter);
        self.made(move || {
            let batch = rows::batch(rows)?;
            meter.keep(batch.get_array_memory_size() as u64)?;
            backend.inline(batch)
        })
        .await
    }
}

impl HostFrame for State {
    async fn select(&mut self, frame: Handle, columns: Vec<Named>) -> Answer<Handle> {
        self.applied(frame, || Ok(Op::Select(convert::named_in(columns)?))).await
    }

    async fn with_columns(&mut self, frame: Handle, columns: Vec<Named>) -> Answer<Handle> {
        self.applied(frame, || Ok(Op::WithColumns(convert::named_in(columns)?))).await
    }

    async fn without(&mut self, frame: Handle, columns: Vec<String>) -> Answer<Handle> {
        self.applied(frame, || Ok(Op::Drop(convert::names_in(columns)?))).await
    }

    async fn filter(&mut self, frame: Handle, expr: String) -> Answer<Handle> {
        self.applied(frame, || Ok(Op::Filter(convert::text(expr)?))).await
    }

    async fn aggregate(&mut self, frame: Handle, keys: Vec<Named>, values: Vec<Named>) -> Answer<Handle> {
        self.applied(frame, || Ok(Op::Aggregate { keys: convert::named_in(keys)?, values: convert::named_in(values)? }))
            .await
    }

    async fn join(
        &mut self,
        frame: Handle,
        right: Handle,
        kind: JoinKind,
        on: Vec<(String, String)>,
        suffix: String,
    ) -> Answer<Handle> {
        let right = self.frame(&right)?;
        self.applied(frame, || {
            convert::count(on.len(), "join columns")?;
            if on.is_empty() {
                return Err(convert::invalid("a join needs at least one pair of columns".into()));
            }
            Ok(Op::Join { right, kind: convert::join_in(kind), on, suffix: convert::name(suffix)? })
        })
        .await
    }

    async fn union(&mut self, frame: Handle, other: Handle) -> Answer<Handle> {
        let other = self.frame(&other)?;
        self.applied(frame, || Ok(Op::Union(other))).await
    }

    async fn sort(&mut self, frame: Handle, keys: Vec<SortKey>) -> Answer<Handle> {
        self.applied(frame, || Ok(Op::Sort(convert::sort_in(keys)?))).await
    }

    async fn limit(&mut self, frame: Handle, skip: u64, count: u64) -> Answer<Handle> {
        self.applied(frame, || Ok(Op::Limit { skip, count })).await
    }

    async fn distinct(&mut self, frame: Handle) -> Answer<Handle> {
        self.applied(frame, || Ok(Op::Distinct)).await
    }

    async fn window(&mut self, frame: Handle, columns: Vec<Named>) -> Answer<Handle> {
        self.applied(frame, || Ok(Op::Window(convert::named_in(columns)?))).await
    }

    fn columns(&mut self, frame: Handle) -> wasmtime::Result<Vec<Column>> {
        self.enter()?;
        Ok(self.frame(&frame)?.schema().fields().iter().map(|f| arrays::column(f)).collect())
    }

    async fn explain(&mut self, frame: Handle) -> Answer<String> {
        self.enter()?;
        let frame = self.frame(&frame)?;
        let backend = Arc::clone(&self.backend);
        let text = self
            .outside(move || {
                backend.check(&*frame)?;
                frame.explain()
            })
            .await;
        self.answer(text)
    }

    fn drop(&mut self, frame: Handle) -> wasmtime::Result<()> {
        self.drop_frame(frame)
    }
}

impl State {
    async fn applied(&mut self, frame: Handle, op: impl FnOnce() -> Result<Op, Error>) -> Answer<Handle> {
        self.enter()?;
        let frame = self.frame(&frame)?;
        match op() {
            Ok(op) => self.made(move || frame.apply(&op)).await,
            Err(error) => self.answer(Err(error)),
        }
    }

    async fn made(
        &mut self,
        make: impl FnOnce() -> Result<Arc<dyn crate::backend::Frame>, Error> + Send + 'static,
    ) -> Answer<Handle> {
        let frame = self.outside(make).await.and_then(|frame| self.hand(GuestFrame(frame)));
        self.answer(frame)
    }
}
