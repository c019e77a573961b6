//! SQL expressions from parts, values quoted.

use crate::bindings::pyxis::script::tables as wit;

/// A SQL expression. Where one is expected, `&str` and `String` are taken as SQL text.
///
/// ```
/// use pyxis_sdk::prelude::*;
/// let slow = col("latency").gt(10_000_000).and(col("req_path").like("/api/%"));
/// assert_eq!(slow.sql(), r#"(("latency" > 10000000) AND ("req_path" LIKE '/api/%'))"#);
/// assert_eq!(col("comm").eq("o'neill").sql(), r#"("comm" = 'o''neill')"#);
/// assert_eq!(quantile("latency", 0.99).sql(), "quantile(latency, 0.99)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expr(String);

/// `expression AS name`. Anything that is an expression is also this, with its text as the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub(crate) name: String,
    pub(crate) expr: String,
}

/// One key of an order; see [`asc`] and [`desc`]. Text is an expression, smallest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKey {
    pub(crate) expr: String,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}

/// A column. Quoted, so that any name will do.
pub fn col(name: &str) -> Expr {
    Expr(format!("\"{}\"", name.replace('"', "\"\"")))
}

/// SQL text.
pub fn expr(sql: impl Into<String>) -> Expr {
    Expr(sql.into())
}

/// A value.
pub fn lit(value: impl Literal) -> Expr {
    Expr(value.sql())
}

/// Rows.
pub fn count() -> Expr {
    expr("count(*)")
}

/// Rows for which the condition is true.
pub fn count_where(condition: impl Into<Expr>) -> Expr {
    Expr(format!("count(*) FILTER (WHERE {})", condition.into().0))
}

/// Distinct values that are not null.
pub fn count_distinct(of: impl Into<Expr>) -> Expr {
    call("count(DISTINCT ", of)
}

/// Sum.
pub fn sum(of: impl Into<Expr>) -> Expr {
    call("sum(", of)
}

/// Mean.
pub fn avg(of: impl Into<Expr>) -> Expr {
    call("avg(", of)
}

/// Smallest.
pub fn min(of: impl Into<Expr>) -> Expr {
    call("min(", of)
}

/// Largest.
pub fn max(of: impl Into<Expr>) -> Expr {
    call("max(", of)
}

/// The value that a share `q` (0 to 1) of values does not exceed, within 1 % of it, from a sketch that merges across nodes.
pub fn quantile(of: impl Into<Expr>, q: f64) -> Expr {
    Expr(format!("quantile({}, {q:?})", of.into().0))
}

/// Smallest first, nulls last.
pub fn asc(by: impl Into<Expr>) -> SortKey {
    SortKey { expr: by.into().0, descending: false, nulls_first: false }
}

/// Largest first, nulls last.
pub fn desc(by: impl Into<Expr>) -> SortKey {
    SortKey { expr: by.into().0, descending: true, nulls_first: false }
}

fn call(open: &str, of: impl Into<Expr>) -> Expr {
    Expr(format!("{open}{})", of.into().0))
}

impl Expr {
    /// With a name.
    pub fn named(self, name: impl Into<String>) -> Named {
        Named { name: name.into(), expr: self.0 }
    }

    /// The text.
    pub fn sql(&self) -> &str {
        &self.0
    }

    /// `self = value`
    #[allow(clippy::should_implement_trait, reason = "gives an expression, not a truth")]
    pub fn eq(self, value: impl Operand) -> Self {
        self.binary("=", value)
    }

    /// `self <> value`
    #[allow(clippy::should_implement_trait, reason = "gives an expression, not a truth")]
    pub fn ne(self, value: impl Operand) -> Self {
        self.binary("<>", value)
    }

    /// `self < value`
    pub fn lt(self, value: impl Operand) -> Self {
        self.binary("<", value)
    }

    /// `self <= value`
    pub fn le(self, value: impl Operand) -> Self {
        self.binary("<=", value)
    }

    /// `self > value`
    pub fn gt(self, value: impl Operand) -> Self {
        self.binary(">", value)
    }

    /// `self >= value`
    pub fn ge(self, value: impl Operand) -> Self {
        self.binary(">=", value)
    }

    /// `self LIKE pattern`: `%` is any text, `_` any character.
    pub fn like(self, pattern: impl Operand) -> Self {
        self.binary("LIKE", pattern)
    }

    /// Contains the text, taken literally.
    pub fn contains(self, text: &str) -> Self {
        Self(format!("(strpos({}, {}) > 0)", self.0, text.sql()))
    }

    /// Starts with the text, taken literally.
    pub fn starts_with(self, text: &str) -> Self {
        Self(format!("starts_with({}, {})", self.0, text.sql()))
    }

    /// Is one of the values; with no values, of nothing.
    pub fn is_in<V: Literal>(self, values: impl IntoIterator<Item = V>) -> Self {
        let values: Vec<String> = values.into_iter().map(|v| v.sql()).collect();
        if values.is_empty() {
            return expr("false");
        }
        Self(format!("({} IN ({}))", self.operand(), values.join(", ")))
    }

    /// Is null.
    pub fn is_null(self) -> Self {
        Self(format!("({} IS NULL)", self.operand()))
    }

    /// Is not null.
    pub fn is_not_null(self) -> Self {
        Self(format!("({} IS NOT NULL)", self.operand()))
    }

    /// Both.
    pub fn and(self, other: impl Into<Expr>) -> Self {
        self.binary("AND", other.into())
    }

    /// Either.
    pub fn or(self, other: impl Into<Expr>) -> Self {
        self.binary("OR", other.into())
    }

    /// The first that is not null: `coalesce(self, value)`.
    pub fn or_else(self, value: impl Operand) -> Self {
        Self(format!("coalesce({}, {})", self.0, value.operand()))
    }

    fn binary(self, operator: &str, value: impl Operand) -> Self {
        Self(format!("({} {operator} {})", self.operand(), value.operand()))
    }
}

impl core::ops::Not for Expr {
    type Output = Self;
    fn not(self) -> Self {
        Self(format!("(NOT {})", self.operand()))
    }
}

macro_rules! arithmetic {
    ($trait:ident, $method:ident, $operator:literal) => {
        impl<V: Operand> core::ops::$trait<V> for Expr {
            type Output = Expr;
            fn $method(self, value: V) -> Expr {
                self.binary($operator, value)
            }
        }
    };
}
arithmetic!(Add, add, "+");
arithmetic!(Sub, sub, "-");
arithmetic!(Mul, mul, "*");
arithmetic!(Div, div, "/");

/// What can stand beside an operator: an [`Expr`], or a value.
pub trait Operand {
    /// As SQL that binds tighter than any operator.
    fn operand(&self) -> String;
}

/// A value that can be written in SQL. Text is quoted.
pub trait Literal {
    /// As SQL.
    fn sql(&self) -> String;
}

impl Operand for Expr {
    fn operand(&self) -> String {
        let text = self.0.as_str();
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let quoted =
            text.len() > 1 && text.starts_with('"') && text.ends_with('"') && !text[1..text.len() - 1].contains('"');
        if text.chars().all(name) || quoted || wrapped(text) { text.to_owned() } else { format!("({text})") }
    }
}

/// Whether the text is one pair of parentheses with all the rest within.
fn wrapped(text: &str) -> bool {
    let mut depth = 0i32;
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i > 0 && i + 1 == text.len();
        }
    }
    false
}

impl<L: Literal> Operand for L {
    fn operand(&self) -> String {
        self.sql()
    }
}

impl Literal for str {
    fn sql(&self) -> String {
        format!("'{}'", self.replace('\'', "''"))
    }
}
impl Literal for String {
    fn sql(&self) -> String {
        self.as_str().sql()
    }
}
impl<T: Literal + ?Sized> Literal for &T {
    fn sql(&self) -> String {
        (**self).sql()
    }
}
impl Literal for bool {
    fn sql(&self) -> String {
        self.to_string()
    }
}
macro_rules! literal_int {
    ($($type:ty),*) => { $(impl Literal for $type {
        fn sql(&self) -> String {
            // A negative number is an operator and its operand; in parentheses it is one thing.
            if *self < 0 as $type { format!("({self})") } else { self.to_string() }
        }
    })* };
}
literal_int!(i32, i64, u32, u64, usize);
impl Literal for f64 {
    fn sql(&self) -> String {
        if self.is_nan() {
            return "CAST('NaN' AS DOUBLE)".into();
        }
        if self.is_infinite() {
            return format!("CAST('{}Infinity' AS DOUBLE)", if *self < 0.0 { "-" } else { "" });
        }
        // `{:?}` keeps the point, without which SQL would read an integer.
        if *self < 0.0 { format!("({self:?})") } else { format!("{self:?}") }
    }
}

impl From<&str> for Expr {
    fn from(sql: &str) -> Self {
        Self(sql.into())
    }
}
impl From<String> for Expr {
    fn from(sql: String) -> Self {
        Self(sql)
    }
}
impl From<&Expr> for Expr {
    fn from(other: &Expr) -> Self {
        other.clone()
    }
}

impl From<Expr> for Named {
    fn from(e: Expr) -> Self {
        // A plain column keeps its name.
        let name =
            e.0.strip_prefix('"')
                .and_then(|t| t.strip_suffix('"'))
                .map_or_else(|| e.0.clone(), |t| t.replace("\"\"", "\""));
        Self { name, expr: e.0 }
    }
}
/// The name of a column, which keeps it; or SQL text, which becomes the name too.
impl From<&str> for Named {
    fn from(sql: &str) -> Self {
        Self { name: sql.into(), expr: sql.into() }
    }
}
/// (name, SQL)
impl From<(&str, &str)> for Named {
    fn from((name, sql): (&str, &str)) -> Self {
        Self { name: name.into(), expr: sql.into() }
    }
}
impl From<Named> for wit::Named {
    fn from(named: Named) -> Self {
        Self { name: named.name, expr: named.expr }
    }
}

impl Named {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl SortKey {
    /// Nulls before everything else.
    pub fn nulls_first(mut self) -> Self {
        self.nulls_first = true;
        self
    }
}
impl From<&str> for SortKey {
    fn from(sql: &str) -> Self {
        asc(sql)
    }
}
impl From<Expr> for SortKey {
    fn from(e: Expr) -> Self {
        asc(e)
    }
}
impl From<SortKey> for wit::SortKey {
    fn from(key: SortKey) -> Self {
        Self { expr: key.expr, descending: key.descending, nulls_first: key.nulls_first }
    }
}
