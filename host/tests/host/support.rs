//! A fake engine, a sink that remembers, and the guests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{Field, Int32Type, Schema, SchemaRef};
use futures::StreamExt;
use futures::stream::BoxStream;
use host::backend::{Backend, Frame, Level, Op, Scalar, Sink, TableInfo, TimeRange};
use host::error::{Error, Position};
use host::meter::{Budget, Meter};
use host::{Config, RunReport, RunRequest, Runtime, Script};

/// Builds a guest of `tests/guests`, once for all tests.
pub fn guest(name: &str) -> Vec<u8> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let out = BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = root.join("../target");
        let say = |line: &str| eprintln!("{line}");
        let toolchain = plugins_build::Toolchain::find(&target.join("guests"), &say).expect("a toolchain for guests");
        let guests = ["evil", "probe"].map(|name| root.join("tests/guests").join(name));
        let out = target.join("test-guests");
        let dirs: Vec<&Path> = guests.iter().map(PathBuf::as_path).collect();
        plugins_build::build_guests(&dirs, &out, &toolchain, &say).expect("the guests build");
        out
    });
    std::fs::read(out.join(format!("{name}.wasm"))).expect("the builder wrote it")
}

/// The same with line tables.
pub fn debug_guest(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = root.join("../target");
    let say = |line: &str| eprintln!("{line}");
    // Not beside the others: the same crate is compiled with other settings at the same time.
    let mut toolchain = plugins_build::Toolchain::find(&target.join("guests"), &say).expect("a toolchain for guests");
    toolchain.debug = true;
    toolchain.cache_dir = target.join("guests-debug");
    let out = target.join("test-guests-debug");
    plugins_build::build_guest(&root.join("tests/guests").join(name), &out, &toolchain, &say).expect("it builds");
    std::fs::read(out.join(format!("{name}.wasm"))).expect("the builder wrote it")
}

/// One runtime for all tests, as one process has one.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new(Config::default()).expect("a runtime"))
}

pub fn script(name: &str) -> Arc<Script> {
    runtime().load(&guest(name)).unwrap()
}

/// What a run put out.
#[derive(Default)]
pub struct Output {
    pub displayed: Mutex<Vec<(String, Arc<dyn Frame>)>>,
    pub emitted: Mutex<BTreeMap<String, Vec<RecordBatch>>>,
    pub views: Mutex<Vec<String>>,
    pub logs: Mutex<Vec<(Level, String)>>,
}

impl Sink for Output {
    fn display(&self, name: &str, frame: Arc<dyn Frame>) -> Result<(), Error> {
        self.displayed.lock().unwrap().push((name.into(), frame));
        Ok(())
    }
    fn emit(&self, name: &str, batch: RecordBatch) -> Result<(), Error> {
        self.emitted.lock().unwrap().entry(name.into()).or_default().push(batch);
        Ok(())
    }
    fn view(&self, json: &str) -> Result<(), Error> {
        self.views.lock().unwrap().push(json.into());
        Ok(())
    }
    fn log(&self, level: Level, message: &str) {
        self.logs.lock().unwrap().push((level, message.into()));
    }
}

impl Output {
    pub fn logged(&self) -> Vec<String> {
        self.logs.lock().unwrap().iter().map(|(_, line)| line.clone()).collect()
    }
    pub fn rows(&self, table: &str) -> usize {
        self.emitted.lock().unwrap().get(table).map_or(0, |b| b.iter().map(RecordBatch::num_rows).sum())
    }
}

/// Runs a guest with arguments, within a budget.
pub struct Run {
    pub report: RunReport,
    pub output: Arc<Output>,
    pub engine: Arc<Engine>,
}

pub async fn run(guest: &str, args: &[(&str, &str)], budget: Budget) -> Run {
    let (engine, output) = (Engine::new(), Arc::new(Output::default()));
    let mut request = RunRequest::new(engine.clone(), output.clone());
    request.args = args.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    request.meter = Arc::new(Meter::new(budget));
    let report = script(guest).run(request).await;
    Run { report, output, engine }
}

/// The fake engine.
pub struct Engine {
    tables: BTreeMap<&'static str, Vec<RecordBatch>>,
    /// Streams that run at the moment.
    pub open: Arc<AtomicUsize>,
}

impl Engine {
    pub fn new() -> Arc<Self> {
        let tables = [
            ("events", vec![events(0)]),
            ("secrets", vec![events(0)]),
            ("endless", vec![events(0)]),
            ("silent", vec![events(0)]),
            ("unique", vec![unique(0)]),
            ("many", (0..10).map(events).collect()),
            ("wide", vec![wide()]),
        ];
        Arc::new(Self { tables: tables.into(), open: Arc::default() })
    }
}

/// 100 rows: `n`, `x`, and `name`, whose dictionary differs from batch to batch.
fn events(batch: i64) -> RecordBatch {
    let names: DictionaryArray<Int32Type> =
        (0..100).map(|i| ["cart", "catalog", "checkout", "mail"][((i + batch) % 4) as usize]).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(Int64Array::from_iter_values(0..100))),
        ("x", Arc::new(Float64Array::from_iter_values((0..100).map(|i| i as f64 / 2.0)))),
        ("name", Arc::new(names)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Every type, with nulls.
pub fn wide() -> RecordBatch {
    let field = |name: &str, array: &ArrayRef| Field::new(name, array.data_type().clone(), true);
    let upids = [1u128 << 96 | 2 << 64 | 3, u128::MAX, 0].map(u128::to_be_bytes);
    let label: DictionaryArray<Int32Type> = [Some("é"), None, Some("b")].into_iter().collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("time_", Arc::new(TimestampNanosecondArray::from(vec![1, 2, i64::MAX]).with_timezone("UTC"))),
        ("upid", Arc::new(FixedSizeBinaryArray::try_from_iter(upids.into_iter()).unwrap())),
        ("maybe", Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(7)]))),
        ("x", Arc::new(Float64Array::from(vec![0.5, -1.0, 1e300]))),
        ("flag", Arc::new(BooleanArray::from(vec![true, false, true]))),
        ("label", Arc::new(label)),
        ("text", Arc::new(StringArray::from(vec!["", "ünïcode", "long enough to be no small string"]))),
    ];
    let schema = Schema::new(columns.iter().map(|(n, a)| field(n, a)).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, a)| a).collect()).unwrap()
}

impl Backend for Engine {
    fn tables(&self) -> Vec<TableInfo> {
        let info = |(name, batches): (&&str, &Vec<RecordBatch>)| TableInfo {
            name: (*name).into(),
            description: String::new(),
            schema: batches[0].schema(),
        };
        self.tables.iter().map(info).collect()
    }

    fn table(&self, name: &str, _: Option<TimeRange>) -> Result<Arc<dyn Frame>, Error> {
        let Some((name, batches)) = self.tables.get_key_value(name) else {
            return Err(Error::NotFound {
                message: format!("there is no table `{name}`"),
                hint: Some("did you mean `events`?".into()),
            });
        };
        Ok(Arc::new(Rows {
            batches: batches.clone(),
            kind: match *name {
                "endless" => Kind::Endless,
                "silent" => Kind::Silent,
                "unique" => Kind::Unique,
                _ => Kind::Once,
            },
            sources: vec![(*name).into()],
            ops: 0,
            open: Arc::clone(&self.open),
        }))
    }

    fn sql(&self, text: &str, _: &[(String, Scalar)]) -> Result<Arc<dyn Frame>, Error> {
        self.table(text.rsplit(' ').next().unwrap(), None)
    }

    fn inline(&self, batch: RecordBatch) -> Result<Arc<dyn Frame>, Error> {
        Ok(Arc::new(Rows {
            batches: vec![batch],
            kind: Kind::Once,
            sources: vec![],
            ops: 0,
            open: Arc::clone(&self.open),
        }))
    }
}

/// What comes of a table's batches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Once,
    /// Again and again.
    Endless,
    /// Nothing, ever.
    Silent,
    /// New ones for ever, no text twice.
    Unique,
}

/// 8,192 texts of 100 bytes that no other batch has.
fn unique(batch: usize) -> RecordBatch {
    let texts = StringArray::from_iter_values((0..8_192).map(|row| format!("{batch:050}{row:050}")));
    RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).unwrap()
}

/// A frame that keeps its rows whatever is done to it; what was done is counted.
#[derive(Clone)]
pub struct Rows {
    batches: Vec<RecordBatch>,
    kind: Kind,
    sources: Vec<String>,
    pub ops: usize,
    open: Arc<AtomicUsize>,
}

struct Open(Arc<AtomicUsize>);
impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Frame for Rows {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn apply(&self, op: &Op) -> Result<Arc<dyn Frame>, Error> {
        let mut next = Self { ops: self.ops + 1, ..self.clone() };
        match op {
            Op::Filter(text) if text == "panic" => panic!("an engine's bug"),
            Op::Filter(text) if text.ends_with(">=") => {
                return Err(Error::Invalid {
                    message: "expected an expression, found the end".into(),
                    hint: Some("complete it".into()),
                    position: Some(Position { text: text.clone(), line: 1, column: text.len() as u32 + 1 }),
                });
            }
            Op::Filter(text) if text.contains("secrets") => next.sources.push("secrets".into()),
            _ => {}
        }
        Ok(Arc::new(next))
    }

    fn schema(&self) -> SchemaRef {
        self.batches[0].schema()
    }

    fn sources(&self) -> Vec<String> {
        self.sources.clone()
    }

    fn explain(&self) -> Result<String, Error> {
        Ok(format!("{} operators", self.ops))
    }

    fn collect(&self, meter: Arc<Meter>) -> BoxStream<'static, Result<RecordBatch, Error>> {
        self.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(Arc::clone(&self.open));
        let batches = self.batches.clone();
        let kind = self.kind;
        let rounds = if kind == Kind::Once { 1 } else { usize::MAX };
        let batches = (0..rounds).flat_map(move |round| match kind {
            Kind::Unique => vec![unique(round)],
            _ => batches.clone(),
        });
        futures::stream::iter(batches)
            .then(move |batch| {
                let _ = &open;
                let charged = meter.charge_scan(batch.num_rows() as u64, 0);
                async move {
                    if kind == Kind::Silent {
                        std::future::pending::<()>().await;
                    }
                    tokio::time::sleep(Duration::from_micros(100)).await;
                    charged.map(|()| batch)
                }
            })
            .boxed()
    }
}
