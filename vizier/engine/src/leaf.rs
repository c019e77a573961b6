//! The leaf of every plan: a scan of one table on one PEM.
//!
//! On Vizier it stands for the table on all PEMs of the query and holds no data; inside a fragment it reads the PEM's own
//! store. It travels through [`crate::codec`].

pub(crate) mod grouped;
mod hints;

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use arrow::array::{Array, AsArray, BooleanArray, FixedSizeBinaryArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{cast, filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, exec_datafusion_err};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::Stream;
use host::backend::TimeRange;
use pem_tables::ScanCounts;

use crate::error::{Fault, message_of};
use crate::exchange::{FragmentCx, View};

/// Name of the column by which rows belong to a node.
pub const UPID: &str = "upid";
/// Name of the column by which tables are indexed.
pub const TIME: &str = "time_";
/// Type of a upid.
pub const UPID_TYPE: DataType = DataType::FixedSizeBinary(16);

/// What to read.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Table.
    pub table: String,
    /// Columns that are read: those put out, then those only filters need.
    pub source: SchemaRef,
    /// Positions in `source` of the columns put out.
    pub projection: Vec<usize>,
    /// All must be true. Over `source`.
    pub filters: Vec<Arc<dyn PhysicalExpr>>,
    /// Rows outside do not exist.
    pub range: TimeRange,
    /// Rows wanted at most, per partition.
    pub fetch: Option<usize>,
}

/// The operator.
#[derive(Debug)]
pub struct PemScanExec {
    scan: Scan,
    partitions: usize,
    /// On Vizier: the agents it stands for. Inside a fragment: none.
    view: Option<Arc<View>>,
    rows: Option<usize>,
    properties: Arc<PlanProperties>,
    /// The store's side, shared by the partitions of this node.
    input: OnceLock<std::result::Result<Arc<Input>, String>>,
}

impl PemScanExec {
    /// `view` is what the leaf stands for on Vizier; `rows` an estimate for the planner.
    pub(crate) fn try_new(scan: Scan, partitions: usize, view: Option<Arc<View>>, rows: Option<usize>) -> Result<Self> {
        let schema = Arc::new(scan.source.project(&scan.projection)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(Self { scan, partitions, view, rows, properties: Arc::new(properties), input: OnceLock::new() })
    }

    /// What it reads.
    pub fn scan(&self) -> &Scan {
        &self.scan
    }

    /// Output partitions.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// The node as it sits in a fragment: partitions of one PEM.
    pub(crate) fn for_fragment(&self) -> Result<Self> {
        let agents = self.view.as_ref().map_or(1, |view| view.agents.len().max(1));
        Self::try_new(self.scan.clone(), (self.partitions / agents).max(1), None, self.rows)
    }

    fn with_fetch_of(&self, fetch: Option<usize>) -> Result<Self> {
        let scan = Scan { fetch, ..self.scan.clone() };
        Self::try_new(scan, self.partitions, self.view.clone(), self.rows)
    }
}

impl DisplayAs for PemScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.schema();
        let columns: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "PemScanExec: table={}, columns=[{}]", self.scan.table, columns.join(", "))?;
        if !self.scan.filters.is_empty() {
            let filters: Vec<_> = self.scan.filters.iter().map(ToString::to_string).collect();
            write!(f, ", filter={}", filters.join(" AND "))?;
        }
        if let Some(fetch) = self.scan.fetch {
            write!(f, ", fetch={fetch}")?;
        }
        if self.partitions > 1 && self.view.is_none() {
            write!(f, ", partitions={}", self.partitions)?;
        }
        Ok(())
    }
}

impl ExecutionPlan for PemScanExec {
    fn name(&self) -> &str {
        "PemScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for filter in &self.scan.filters {
            f(filter)?;
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        if let Some(rows) = self.rows {
            // How many of them the filters keep is not known: enough to tell the large side of a join.
            statistics.num_rows = Precision::Inexact(rows);
        }
        Ok(Arc::new(statistics))
    }

    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    fn with_fetch(&self, fetch: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        self.with_fetch_of(fetch).ok().map(|scan| Arc::new(scan) as _)
    }

    fn fetch(&self) -> Option<usize> {
        self.scan.fetch
    }

    fn execute(&self, _partition: usize, cx: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let fragment = cx.session_config().get_extension::<FragmentCx>().ok_or_else(|| {
            exec_datafusion_err!("the scan of {} was not handed to an agent: this is a bug of the cut", self.scan.table)
        })?;
        let input = self
            .input
            .get_or_init(|| Input::open(&self.scan, self.partitions, fragment).map(Arc::new))
            .clone()
            .map_err(Fault::Node)?;
        let source = &self.scan.source;
        let stream = ScanStream {
            input,
            part: None,
            counted: ScanCounts::default(),
            source: source.clone(),
            upid: source.index_of(UPID).ok().filter(|i| *source.field(*i).data_type() == UPID_TYPE),
            filters: self.scan.filters.clone(),
            projection: self.scan.projection.clone(),
            schema: self.schema(),
            left: self.scan.fetch.unwrap_or(usize::MAX),
        };
        // DataFusion counts the repartition above the cut as the one that yields, and that is in another process.
        Ok(make_cooperative(Box::pin(stream)))
    }
}

/// The store's side of a scan: its parts, of which each partition takes the next one when it is done with one.
struct Input {
    parts: Mutex<VecDeque<pem_tables::Scan>>,
    fragment: Arc<FragmentCx>,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").finish_non_exhaustive()
    }
}

/// A part of a scan is read without a pause, so it bounds how long cancelling waits (some ms).
const PART_ROWS: usize = 32 << 10;

impl Input {
    /// The error says what this node lacks.
    fn open(scan: &Scan, partitions: usize, fragment: Arc<FragmentCx>) -> std::result::Result<Self, String> {
        let table = fragment.store.table(&scan.table).ok_or_else(|| format!("it has no table {}", scan.table))?;
        let schema = table.schema();
        let mut columns = Vec::with_capacity(scan.source.fields().len());
        for wanted in scan.source.fields() {
            let Ok(position) = schema.index_of(wanted.name()) else {
                return Err(format!("its table {} has no column {}", scan.table, wanted.name()));
            };
            let here = schema.field(position).data_type();
            if here != wanted.data_type() && plain(here) != plain(wanted.data_type()) {
                return Err(format!(
                    "column {} of its table {} is {here}, others have {}",
                    wanted.name(),
                    scan.table,
                    wanted.data_type()
                ));
            }
            columns.push(position);
        }
        let range = pem_tables::TimeRange { start_ns: scan.range.start_ns, end_ns: scan.range.end_ns };
        let hints: Vec<_> = scan.filters.iter().filter_map(|filter| hints::of(filter, &columns)).collect();
        let input = table.scan_filtered(range, Some(&columns), &hints);
        let parts = (input.rows_upper_bound() / PART_ROWS + 1).max(partitions);
        Ok(Self { parts: Mutex::new(input.split(parts).into()), fragment })
    }

    fn part(&self) -> Option<pem_tables::Scan> {
        self.parts.lock().expect("nothing panics while it is held").pop_front()
    }
}

/// The cut relies on each upid occurring on one node only; a null would occur on many. A row whose process is not known
/// belongs to the node's "unknown process", `asid:0:0`.
fn with_unknown_process(upids: &FixedSizeBinaryArray, asid: u32) -> Result<FixedSizeBinaryArray> {
    let unknown = (u128::from(asid) << 96).to_be_bytes();
    let filled = (0..upids.len()).map(|i| if upids.is_valid(i) { upids.value(i) } else { &unknown[..] });
    Ok(FixedSizeBinaryArray::try_from_iter(filled)?)
}

fn plain(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, value) => value,
        other => other,
    }
}

struct ScanStream {
    input: Arc<Input>,
    part: Option<pem_tables::Scan>,
    counted: ScanCounts,
    source: SchemaRef,
    upid: Option<usize>,
    filters: Vec<Arc<dyn PhysicalExpr>>,
    projection: Vec<usize>,
    schema: SchemaRef,
    left: usize,
}

/// Steps without a row before the stream lets others run: else a selective filter over a large table would hold its thread,
/// and cancelling would wait for it.
const BARREN_STEPS_MAX: usize = 4;

impl ScanStream {
    /// The next batch, or `Ok(None)` after a step that gave none, or `None` at the end.
    fn step(&mut self) -> Option<Result<Option<RecordBatch>>> {
        let mut part = match self.part.take() {
            Some(part) => part,
            None => {
                self.counted = ScanCounts::default();
                self.input.part()?
            }
        };
        let batch = part.next();
        let counts = part.counts();
        let rows = counts.rows_read - self.counted.rows_read;
        let bytes = counts.bytes_read - self.counted.bytes_read;
        if let Err(e) = self.input.fragment.meter.charge(rows, bytes) {
            return Some(Err(e));
        }
        self.counted = counts;
        let Some(batch) = batch else { return Some(Ok(None)) };
        self.part = Some(part);
        // Rows that are not what the table says are this node's own affair.
        let fitted = self.fit(batch).map_err(|e| {
            let why = message_of(&e);
            Fault::Node(format!("its table does not hold what it says: {why}")).into()
        });
        Some(fitted.and_then(|batch| self.select(batch)).map(Some))
    }

    fn fit(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let mut columns = batch.columns().to_vec();
        for (column, wanted) in columns.iter_mut().zip(self.source.fields()) {
            if column.data_type() != wanted.data_type() {
                *column = cast(column, wanted.data_type())?;
            }
        }
        if let Some(upid) = self.upid
            && columns[upid].null_count() > 0
        {
            let filled = with_unknown_process(columns[upid].as_fixed_size_binary(), self.input.fragment.asid)?;
            columns[upid] = Arc::new(filled);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.source.clone(), columns, &options)?)
    }

    fn select(&mut self, mut batch: RecordBatch) -> Result<RecordBatch> {
        for filter in &self.filters {
            if batch.num_rows() == 0 {
                break;
            }
            let mask = filter.evaluate(&batch)?.into_array(batch.num_rows())?;
            let mask = mask.as_boolean();
            let kept = true_count(mask);
            if kept < batch.num_rows() {
                batch = filter_record_batch(&batch, mask)?;
            }
        }
        if batch.num_rows() > self.left {
            batch = batch.slice(0, self.left);
        }
        self.left -= batch.num_rows();
        let columns = self.projection.iter().map(|i| batch.column(*i).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

fn true_count(mask: &BooleanArray) -> usize {
    if mask.null_count() == 0 { mask.true_count() } else { prep_null_mask_filter(mask).true_count() }
}

impl Stream for ScanStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        for _ in 0..BARREN_STEPS_MAX {
            match self.step() {
                Some(Ok(Some(batch))) if batch.num_rows() > 0 => return Poll::Ready(Some(Ok(batch))),
                Some(Ok(_)) => {}
                Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                None => return Poll::Ready(None),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl RecordBatchStream for ScanStream {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}
