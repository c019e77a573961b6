//! Columns that come to a function and go from it.

use super::bindings::pyxis::function::arguments::Argument;
use crate::bindings::pyxis::common::types as wit;

/// An argument: a value for each row, or the same for all.
pub struct Column {
    values: Values,
    valid: Option<Vec<u8>>,
}

enum Values {
    Constant(wit::Scalar),
    Booleans(Vec<u8>),
    Int64s(Vec<i64>),
    Uint128s(Vec<u64>),
    Float64s(Vec<f64>),
    Texts(wit::Texts),
    Coded(wit::Coded),
}

impl Column {
    /// All arguments of a call.
    #[doc(hidden)]
    pub fn all(arguments: Vec<Argument>) -> Vec<Self> {
        arguments.into_iter().map(Self::of).collect()
    }

    fn of(argument: Argument) -> Self {
        match argument {
            Argument::Constant(value) => Self { values: Values::Constant(value), valid: None },
            Argument::Values(column) => Self::of_values(column),
        }
    }

    pub(super) fn of_values(column: wit::ColumnValues) -> Self {
        let values = match column.values {
            wit::Values::Booleans(bits) => Values::Booleans(bits),
            wit::Values::Int64s(v) | wit::Values::TimeNss(v) | wit::Values::DurationNss(v) => Values::Int64s(v),
            wit::Values::Uint128s(v) => Values::Uint128s(v),
            wit::Values::Float64s(v) => Values::Float64s(v),
            wit::Values::Utf8s(texts) | wit::Values::Binaries(texts) => Values::Texts(texts),
            wit::Values::Coded(coded) => Values::Coded(coded),
        };
        Self { values, valid: column.valid }
    }

    /// The next argument's value in a row.
    #[doc(hidden)]
    pub fn next<'a, T: FromColumn<'a>>(columns: &mut core::slice::Iter<'a, Column>, row: usize) -> T {
        let column = columns.next().expect("plugin.toml and functions! declare as many arguments");
        T::from_column(column, row)
    }

    /// Whether the row has a value.
    pub fn is_valid(&self, row: usize) -> bool {
        match (&self.values, &self.valid) {
            (Values::Constant(wit::Scalar::Null), _) => false,
            (_, Some(bits)) => bits[row / 8] >> (row % 8) & 1 == 1,
            (_, None) => true,
        }
    }

    fn bytes(&self, row: usize) -> &[u8] {
        let entry = |texts: &'_ wit::Texts, i: usize| texts.offsets[i] as usize..texts.offsets[i + 1] as usize;
        match &self.values {
            Values::Texts(texts) => &texts.bytes[entry(texts, row)],
            Values::Coded(coded) if coded.dictionary.offsets.len() > 1 => {
                &coded.dictionary.bytes[entry(&coded.dictionary, coded.codes[row] as usize)]
            }
            Values::Constant(wit::Scalar::Utf8(text)) => text.as_bytes(),
            Values::Constant(wit::Scalar::Binary(bytes)) => bytes,
            _ => &[],
        }
    }
}

/// What a function can take: `i64` (times and durations too), `f64`, `bool`, `u128`, `&str`, `&[u8]`, and `Option` of these.
pub trait FromColumn<'a> {
    /// The row's value.
    fn from_column(column: &'a Column, row: usize) -> Self;
}

impl<'a> FromColumn<'a> for i64 {
    #[inline]
    fn from_column(column: &'a Column, row: usize) -> Self {
        match &column.values {
            Values::Int64s(values) => values[row],
            Values::Constant(wit::Scalar::Int64(v) | wit::Scalar::TimeNs(v) | wit::Scalar::DurationNs(v)) => *v,
            _ => 0,
        }
    }
}

impl<'a> FromColumn<'a> for f64 {
    #[inline]
    fn from_column(column: &'a Column, row: usize) -> Self {
        match &column.values {
            Values::Float64s(values) => values[row],
            Values::Constant(wit::Scalar::Float64(v)) => *v,
            _ => 0.0,
        }
    }
}

impl<'a> FromColumn<'a> for bool {
    fn from_column(column: &'a Column, row: usize) -> Self {
        match &column.values {
            Values::Booleans(bits) => bits[row / 8] >> (row % 8) & 1 == 1,
            Values::Constant(wit::Scalar::Boolean(v)) => *v,
            _ => false,
        }
    }
}

impl<'a> FromColumn<'a> for u128 {
    fn from_column(column: &'a Column, row: usize) -> Self {
        let whole = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        match &column.values {
            Values::Uint128s(halves) => whole(halves[2 * row], halves[2 * row + 1]),
            Values::Constant(wit::Scalar::Uint128((high, low))) => whole(*high, *low),
            _ => 0,
        }
    }
}

impl<'a> FromColumn<'a> for &'a [u8] {
    fn from_column(column: &'a Column, row: usize) -> Self {
        column.bytes(row)
    }
}

impl<'a> FromColumn<'a> for &'a str {
    fn from_column(column: &'a Column, row: usize) -> Self {
        // The host gives UTF-8 for text.
        core::str::from_utf8(column.bytes(row)).unwrap_or_default()
    }
}

impl<'a, T: FromColumn<'a>> FromColumn<'a> for Option<T> {
    fn from_column(column: &'a Column, row: usize) -> Self {
        column.is_valid(row).then(|| T::from_column(column, row))
    }
}

/// What a function can give: `i64`, `f64`, `bool`, `String`, `Vec<u8>`, and `Option` of these. For a time or a duration give
/// [`Time`] or [`Duration`].
pub trait Output: Sized {
    /// Values so far.
    type Builder;
    /// None so far.
    fn builder(rows: usize) -> Self::Builder;
    /// One more.
    fn push(builder: &mut Self::Builder, value: Self);
    /// One more, without a value.
    fn push_null(builder: &mut Self::Builder);
    /// The column.
    fn finish(builder: Self::Builder) -> wit::ColumnValues;
}

macro_rules! numbers {
    ($type:ty, $variant:ident, $null:expr, $of:expr) => {
        impl Output for $type {
            type Builder = Vec<$type>;
            fn builder(rows: usize) -> Self::Builder {
                Vec::with_capacity(rows)
            }
            #[inline]
            fn push(builder: &mut Self::Builder, value: Self) {
                builder.push(value);
            }
            fn push_null(builder: &mut Self::Builder) {
                builder.push($null);
            }
            fn finish(builder: Self::Builder) -> wit::ColumnValues {
                let of: fn(Vec<$type>) -> _ = $of;
                wit::ColumnValues { values: wit::Values::$variant(of(builder)), valid: None }
            }
        }
    };
}

/// An instant: ns since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub i64);

/// A length of time in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration(pub i64);

numbers!(i64, Int64s, 0, |v| v);
numbers!(f64, Float64s, 0.0, |v| v);
numbers!(Time, TimeNss, Time(0), |v| v.into_iter().map(|v| v.0).collect());
numbers!(Duration, DurationNss, Duration(0), |v| v.into_iter().map(|v| v.0).collect());
numbers!(u128, Uint128s, 0, |v| v.into_iter().flat_map(|v| [(v >> 64) as u64, v as u64]).collect());
numbers!(bool, Booleans, false, |v| bitmap(v.into_iter()));

macro_rules! texts {
    ($type:ty, $variant:ident, $bytes:ident) => {
        impl Output for $type {
            type Builder = wit::Texts;
            fn builder(rows: usize) -> Self::Builder {
                let mut offsets = Vec::with_capacity(rows + 1);
                offsets.push(0);
                wit::Texts { offsets, bytes: Vec::new() }
            }
            fn push(builder: &mut Self::Builder, value: Self) {
                builder.bytes.extend_from_slice(value.$bytes());
                builder.offsets.push(builder.bytes.len() as u32);
            }
            fn push_null(builder: &mut Self::Builder) {
                builder.offsets.push(builder.bytes.len() as u32);
            }
            fn finish(builder: Self::Builder) -> wit::ColumnValues {
                wit::ColumnValues { values: wit::Values::$variant(builder), valid: None }
            }
        }
    };
}

texts!(String, Utf8s, as_bytes);
texts!(std::borrow::Cow<'_, str>, Utf8s, as_bytes);
texts!(Vec<u8>, Binaries, as_slice);

impl<T: Output> Output for Option<T> {
    type Builder = (T::Builder, Vec<bool>);
    fn builder(rows: usize) -> Self::Builder {
        (T::builder(rows), Vec::with_capacity(rows))
    }
    fn push(builder: &mut Self::Builder, value: Self) {
        builder.1.push(value.is_some());
        match value {
            Some(value) => T::push(&mut builder.0, value),
            None => T::push_null(&mut builder.0),
        }
    }
    fn push_null(builder: &mut Self::Builder) {
        builder.1.push(false);
        T::push_null(&mut builder.0);
    }
    fn finish((builder, valid): Self::Builder) -> wit::ColumnValues {
        wit::ColumnValues { valid: Some(bitmap(valid.into_iter())), ..T::finish(builder) }
    }
}

fn bitmap(bits: impl Iterator<Item = bool>) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, bit) in bits.enumerate() {
        if i % 8 == 0 {
            out.push(0);
        }
        out[i / 8] |= u8::from(bit) << (i % 8);
    }
    out
}
