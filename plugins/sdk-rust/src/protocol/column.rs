//! Columns of a protocol's table, built row by row.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::bindings::pyxis::common::types::{Coded, ColumnValues, Texts, Values};

/// What a field of a row may be.
pub trait Value {
    /// What a column of it collects.
    type Data: Data;
    /// Appends it; none = null.
    fn push(self, column: &mut Column<Self::Data>);
}

/// Collected values of one type.
pub trait Data: Default {
    /// Appends what stands under a null.
    fn nothing(&mut self);
    /// The values as the contract has them; empty afterwards.
    fn finish(&mut self) -> Values;
}

/// A column that grows.
#[derive(Default)]
pub struct Column<D> {
    data: D,
    rows: usize,
    /// Made with the first null.
    valid: Option<Bits>,
}

impl<D: Data> Column<D> {
    /// Appends a value.
    pub fn push(&mut self, value: impl Value<Data = D>) {
        value.push(self);
    }

    /// The column as the contract has it; empty afterwards.
    pub fn finish(&mut self) -> ColumnValues {
        self.rows = 0;
        ColumnValues { values: self.data.finish(), valid: self.valid.take().map(|bits| bits.bytes) }
    }

    fn append(&mut self, with: impl FnOnce(&mut D)) {
        with(&mut self.data);
        if let Some(valid) = &mut self.valid {
            valid.push(true);
        }
        self.rows += 1;
    }

    fn null(&mut self) {
        self.data.nothing();
        let rows = self.rows;
        self.valid.get_or_insert_with(|| Bits::ones(rows)).push(false);
        self.rows += 1;
    }
}

/// Text that repeats: crosses to the host as a code. Its column says `repeats = true`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Label(pub Cow<'static, str>);

impl From<&'static str> for Label {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Label {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

/// An instant, ns since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeNs(pub i64);

/// A length of time in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurationNs(pub i64);

/// A bitmap as the contract has it.
#[derive(Default)]
pub struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    fn ones(len: usize) -> Self {
        let mut bits = Self::default();
        (0..len).for_each(|_| bits.push(true));
        bits
    }

    fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << (self.len % 8);
        }
        self.len += 1;
    }
}

impl Data for Bits {
    fn nothing(&mut self) {
        self.push(false);
    }

    fn finish(&mut self) -> Values {
        self.len = 0;
        Values::Booleans(std::mem::take(&mut self.bytes))
    }
}

macro_rules! numbers {
    ($($name:ident, $value:ty, $element:ty, $variant:ident, $of:expr;)+) => {$(
        /// Collects values of one type.
        #[derive(Default)]
        pub struct $name(Vec<$element>);

        impl Data for $name {
            fn nothing(&mut self) {
                self.0.push(<$element>::default());
            }

            fn finish(&mut self) -> Values {
                Values::$variant(std::mem::take(&mut self.0))
            }
        }

        impl Value for $value {
            type Data = $name;

            fn push(self, column: &mut Column<$name>) {
                let of: fn($value) -> $element = $of;
                column.append(|data| data.0.push(of(self)));
            }
        }
    )+};
}

numbers! {
    Int64s, i64, i64, Int64s, |n| n;
    Float64s, f64, f64, Float64s, |n| n;
    TimeNss, TimeNs, i64, TimeNss, |n| n.0;
    DurationNss, DurationNs, i64, DurationNss, |n| n.0;
}

/// Collects values of 128 bits.
#[derive(Default)]
pub struct Uint128s(Vec<u64>);

impl Data for Uint128s {
    fn nothing(&mut self) {
        self.0.extend([0, 0]);
    }

    fn finish(&mut self) -> Values {
        Values::Uint128s(std::mem::take(&mut self.0))
    }
}

impl Value for u128 {
    type Data = Uint128s;

    fn push(self, column: &mut Column<Uint128s>) {
        column.append(|data| data.0.extend([(self >> 64) as u64, self as u64]));
    }
}

/// Collects text.
pub struct Utf8s {
    offsets: Vec<u32>,
    bytes: Vec<u8>,
}

impl Default for Utf8s {
    fn default() -> Self {
        Self { offsets: vec![0], bytes: Vec::new() }
    }
}

impl Utf8s {
    fn add(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.offsets.push(self.bytes.len() as u32);
    }

    fn take(&mut self) -> Texts {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        Texts { offsets, bytes: std::mem::take(&mut self.bytes) }
    }
}

impl Data for Utf8s {
    fn nothing(&mut self) {
        self.add("");
    }

    fn finish(&mut self) -> Values {
        Values::Utf8s(self.take())
    }
}

/// Collects text that repeats.
#[derive(Default)]
pub struct Labels {
    codes: Vec<u32>,
    known: HashMap<Cow<'static, str>, u32>,
    texts: Utf8s,
}

impl Data for Labels {
    fn nothing(&mut self) {
        self.codes.push(0);
    }

    fn finish(&mut self) -> Values {
        self.known.clear();
        Values::Coded(Coded { codes: std::mem::take(&mut self.codes), dictionary: self.texts.take() })
    }
}

impl Value for bool {
    type Data = Bits;

    fn push(self, column: &mut Column<Bits>) {
        column.append(|data| data.push(self));
    }
}

impl Value for String {
    type Data = Utf8s;

    fn push(self, column: &mut Column<Utf8s>) {
        column.append(|data| data.add(&self));
    }
}

impl Value for Label {
    type Data = Labels;

    fn push(self, column: &mut Column<Labels>) {
        column.append(|data| {
            let code = match data.known.get(&self.0) {
                Some(code) => *code,
                None => {
                    let code = data.known.len() as u32;
                    data.texts.add(&self.0);
                    data.known.insert(self.0, code);
                    code
                }
            };
            data.codes.push(code);
        });
    }
}

impl<V: Value> Value for Option<V> {
    type Data = V::Data;

    fn push(self, column: &mut Column<V::Data>) {
        match self {
            Some(value) => value.push(column),
            None => column.null(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_labels_and_texts_are_as_the_contract_has_them() {
        let mut labels = Column::<Labels>::default();
        for label in [Some("get"), None, Some("set"), Some("get")] {
            labels.push(label.map(Label::from));
        }
        let ColumnValues { values: Values::Coded(coded), valid } = labels.finish() else { panic!("not coded") };
        assert_eq!((coded.codes, valid), (vec![0, 0, 1, 0], Some(vec![0b1101])));
        assert_eq!(coded.dictionary.bytes, b"getset");
        assert_eq!(coded.dictionary.offsets, [0, 3, 6]);
        labels.push(Label::from("set"));
        let ColumnValues { values: Values::Coded(coded), valid } = labels.finish() else { panic!("not coded") };
        assert_eq!((coded.codes, valid, coded.dictionary.bytes), (vec![0], None, b"set".to_vec()));
        let mut texts = Column::<Utf8s>::default();
        texts.push("é".to_owned());
        texts.push(None::<String>);
        let ColumnValues { values: Values::Utf8s(texts), valid } = texts.finish() else { panic!("no text") };
        assert_eq!((texts.offsets, texts.bytes, valid), (vec![0, 2, 2], "é".into(), Some(vec![1])));
        let mut wide = Column::<Uint128s>::default();
        wide.push(1u128 << 64 | 7);
        let Values::Uint128s(halves) = wide.finish().values else { panic!("not wide") };
        assert_eq!(halves, [1, 7]);
    }
}
