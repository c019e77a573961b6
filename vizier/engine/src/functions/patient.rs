//! Functions whose work for one row has hardly a bound: patterns above all, which may come from a column, be as good as endless,
//! or run over long texts. They are called for a few rows at a time, and between two calls it is asked whether the run still
//! goes on; so they hold a thread no longer than their run may.
//!
//! Plans are planned with the functions and operators as SQL has them. Before a plan is run they are replaced by
//! [`Patient`] ones, which are bound to the run, and travel to agents by name and [`MARK`].

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::functions::all_default_functions;
use datafusion::logical_expr::expr::{Like, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr as PhysicalBinary, Column, LikeExpr, Literal};
use host::function::Bounds;

use super::plugin::fault;

/// What a plan has in place of a definition.
pub(crate) const MARK: &[u8] = b"patient";

/// Built-in functions of this kind.
const SLOW: [&str; 6] =
    ["levenshtein", "regexp_count", "regexp_instr", "regexp_like", "regexp_match", "regexp_replace"];

/// Rows of the first call. A pattern of some thousand states takes 5 ms to compile.
const ROWS_FIRST: usize = 64;
/// Rows that a call begins with when those before it were quick; the next ones may be slow.
const ROWS_AGAIN: usize = 1024;
/// The same where each row brings its own pattern, each of which is compiled and kept for the call.
const ROWS_OF_PATTERNS_MAX: usize = 256;
/// A call that takes less is followed by one of twice the rows, one that takes more than the second by one of half.
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(10);

/// What is done to two texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Function(Arc<ScalarUDF>),
    Like { negated: bool, case_insensitive: bool },
    Matches(Operator),
}

impl Work {
    /// By the name it travels under.
    fn of(name: &str) -> Option<Self> {
        static SLOW_FUNCTIONS: LazyLock<BTreeMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
            let slow = all_default_functions().into_iter().filter(|function| SLOW.contains(&function.name()));
            slow.map(|function| (function.name().to_owned(), function)).collect()
        });
        let like = |negated, case_insensitive| Some(Self::Like { negated, case_insensitive });
        match name {
            "like" => like(false, false),
            "ilike" => like(false, true),
            "not_like" => like(true, false),
            "not_ilike" => like(true, true),
            "matches" => Some(Self::Matches(Operator::RegexMatch)),
            "imatches" => Some(Self::Matches(Operator::RegexIMatch)),
            "not_matches" => Some(Self::Matches(Operator::RegexNotMatch)),
            "not_imatches" => Some(Self::Matches(Operator::RegexNotIMatch)),
            function => SLOW_FUNCTIONS.get(function).cloned().map(Self::Function),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Function(function) => function.name(),
            Self::Like { negated: false, case_insensitive: false } => "like",
            Self::Like { negated: false, case_insensitive: true } => "ilike",
            Self::Like { negated: true, case_insensitive: false } => "not_like",
            Self::Like { negated: true, case_insensitive: true } => "not_ilike",
            Self::Matches(Operator::RegexMatch) => "matches",
            Self::Matches(Operator::RegexIMatch) => "imatches",
            Self::Matches(Operator::RegexNotMatch) => "not_matches",
            Self::Matches(_) => "not_imatches",
        }
    }
}

/// One of them, bound to a run.
#[derive(Debug)]
pub(crate) struct Patient {
    work: Work,
    signature: Signature,
    bounds: Arc<Bounds>,
    /// Rows that the last call ended with.
    rows: AtomicUsize,
}

impl PartialEq for Patient {
    fn eq(&self, other: &Self) -> bool {
        self.work == other.work
    }
}

impl Eq for Patient {}

impl Hash for Patient {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.work.name().hash(state);
    }
}

impl Patient {
    fn new(work: Work, bounds: Arc<Bounds>) -> Self {
        let signature = match &work {
            Work::Function(function) => function.signature().clone(),
            Work::Like { .. } | Work::Matches(_) => Signature::any(2, Volatility::Immutable),
        };
        Self { work, signature, bounds, rows: AtomicUsize::new(ROWS_FIRST) }
    }

    /// The one of that name.
    pub fn named(name: &str, bounds: Arc<Bounds>) -> Result<Self> {
        let work = Work::of(name).ok_or_else(|| exec_datafusion_err!("there is no patient function {name}"))?;
        Ok(Self::new(work, bounds))
    }

    /// All rows of these arguments at once.
    fn at_once(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let of_two: Box<dyn Fn(_, _) -> Arc<dyn PhysicalExpr>> = match &self.work {
            Work::Function(function) => return function.invoke_with_args(args),
            Work::Like { negated, case_insensitive } => {
                Box::new(|text, pattern| Arc::new(LikeExpr::new(*negated, *case_insensitive, text, pattern)))
            }
            Work::Matches(operator) => {
                Box::new(|text, pattern| Arc::new(PhysicalBinary::new(text, *operator, pattern)))
            }
        };
        let (mut fields, mut columns, mut operands) = (Vec::new(), Vec::new(), Vec::new());
        for argument in args.args {
            let operand: Arc<dyn PhysicalExpr> = match argument {
                ColumnarValue::Scalar(value) => Arc::new(Literal::new(value)),
                ColumnarValue::Array(array) => {
                    let name = if columns.is_empty() { "a" } else { "b" };
                    fields.push(Field::new(name, array.data_type().clone(), true));
                    columns.push(array);
                    Arc::new(Column::new(name, columns.len() - 1))
                }
            };
            operands.push(operand);
        }
        let [text, pattern] = <[_; 2]>::try_from(operands)
            .map_err(|operands| exec_datafusion_err!("{} takes 2 arguments, not {}", self.name(), operands.len()))?;
        if columns.is_empty() {
            let row = RecordBatch::new_empty(Arc::new(Schema::empty()));
            return of_two(text, pattern).evaluate(&row);
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        debug_assert_eq!(batch.num_rows(), rows);
        of_two(text, pattern).evaluate(&batch)
    }

    /// Of a text by reference against one pattern: each entry is looked at once.
    fn of_entries(&self, args: &ScalarFunctionArgs) -> Option<Result<ColumnarValue>> {
        let mut arrays = args.args.iter().enumerate().filter_map(|(i, argument)| match argument {
            ColumnarValue::Array(array) => Some((i, array)),
            ColumnarValue::Scalar(_) => None,
        });
        let (Some((at, array)), None) = (arrays.next(), arrays.next()) else { return None };
        let dictionary = array.as_dictionary_opt::<Int32Type>()?;
        let over = || {
            let compacted = if dictionary.len() < dictionary.values().len() {
                crate::exchange::batches::compact_dictionary(dictionary)?
            } else {
                dictionary.clone()
            };
            let entries = compacted.values().len();
            let mut args = ScalarFunctionArgs { number_rows: entries, ..args.clone() };
            args.args[at] = ColumnarValue::Array(compacted.values().clone());
            let results = self.bit_by_bit(&args)?.into_array(entries)?;
            Ok(ColumnarValue::Array(take(&results, compacted.keys(), None)?))
        };
        Some(over())
    }

    fn bit_by_bit(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let total = args.number_rows;
        // The second argument is the pattern, or the other text.
        let patterns = matches!(args.args.get(1), Some(ColumnarValue::Array(_)));
        let (first, most) = match patterns {
            true => (ROWS_FIRST, ROWS_OF_PATTERNS_MAX),
            false => (self.rows.load(Ordering::Relaxed).min(ROWS_AGAIN), usize::MAX),
        };
        let mut rows = first;
        let (mut from, mut parts) = (0, Vec::<ArrayRef>::new());
        while from < total {
            if let Some(why) = self.bounds.stopped() {
                return Err(fault(why));
            }
            let count = rows.min(total - from);
            let slice = |argument: &ColumnarValue| match argument {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(from, count)),
                ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.clone()),
            };
            let part =
                ScalarFunctionArgs { args: args.args.iter().map(slice).collect(), number_rows: count, ..args.clone() };
            let began = Instant::now();
            parts.push(self.at_once(part)?.into_array(count)?);
            from += count;
            match began.elapsed() {
                took if took < SHORT => rows = (rows * 2).min(most),
                took if took > LONG => rows = (rows / 2).max(1),
                _ => {}
            }
        }
        if !patterns {
            self.rows.store(rows, Ordering::Relaxed);
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }
}

impl ScalarUDFImpl for Patient {
    fn name(&self) -> &str {
        self.work.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match &self.work {
            Work::Function(function) => function.return_type(arguments),
            Work::Like { .. } | Work::Matches(_) => Ok(DataType::Boolean),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match &self.work {
            Work::Function(function) => function.return_field_from_args(args),
            Work::Like { .. } | Work::Matches(_) => {
                let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
                Ok(Arc::new(Field::new(self.name(), DataType::Boolean, nullable)))
            }
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args.args.iter().any(|argument| matches!(argument, ColumnarValue::Array(_)));
        if !arrays || args.number_rows == 0 {
            return self.at_once(args);
        }
        match self.of_entries(&args) {
            Some(result) => result,
            None => self.bit_by_bit(&args),
        }
    }
}

/// The plan with what may be slow bound to the run. For a plan that is optimised: rules know patterns by their operators.
pub(crate) fn patient(plan: LogicalPlan, bounds: &Arc<Bounds>) -> Result<LogicalPlan> {
    let replaced = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| Ok(replaced(expr, bounds)))?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(replaced.data)
}

fn replaced(expr: Expr, bounds: &Arc<Bounds>) -> Transformed<Expr> {
    let made = |work: Work, args: Vec<Expr>| {
        let function = Arc::new(ScalarUDF::new_from_impl(Patient::new(work, bounds.clone())));
        Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, args)))
    };
    match expr {
        Expr::ScalarFunction(call) if SLOW.contains(&call.func.name()) => {
            let function: &dyn std::any::Any = call.func.inner().as_ref();
            if function.is::<Patient>() {
                return Transformed::no(Expr::ScalarFunction(call));
            }
            made(Work::Function(call.func), call.args)
        }
        // The planner says that other escapes are not supported.
        Expr::Like(like) if !plain(&like.pattern) && like.escape_char.is_none_or(|escape| escape == '\\') => {
            let Like { negated, expr, pattern, case_insensitive, .. } = like;
            made(Work::Like { negated, case_insensitive }, vec![*expr, *pattern])
        }
        Expr::SimilarTo(like) if like.escape_char.is_none() => {
            let operator = match (like.negated, like.case_insensitive) {
                (false, false) => Operator::RegexMatch,
                (false, true) => Operator::RegexIMatch,
                (true, false) => Operator::RegexNotMatch,
                (true, true) => Operator::RegexNotIMatch,
            };
            made(Work::Matches(operator), vec![*like.expr, *like.pattern])
        }
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: op @ (Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch),
            right,
        }) => made(Work::Matches(op), vec![*left, *right]),
        other => Transformed::no(other),
    }
}

/// A pattern that is a text at the beginning, at the end or anywhere: found in one pass.
fn plain(pattern: &Expr) -> bool {
    let Expr::Literal(value, _) = pattern else { return false };
    let value = match value {
        ScalarValue::Dictionary(_, value) => value,
        value => value,
    };
    match value.try_as_str() {
        Some(Some(text)) => {
            let inner = text.strip_prefix('%').unwrap_or(text);
            let inner = inner.strip_suffix('%').unwrap_or(inner);
            !inner.contains(['%', '_', '\\'])
        }
        // Nothing is like null.
        _ => value.is_null(),
    }
}
