//! The store as simple as it can be: rows in a vector.

use arrow::array::{
    Array, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::Int32Type;
use pem_tables::spec::{ColumnSpec, DataType, TableSpec};
use pem_tables::{Literal, Predicate, TimeRange, Value};

/// A table with every type of column, and two of some.
pub static EVERYTHING: TableSpec = TableSpec {
    name: "everything",
    description: "One column of each type.",
    columns: &[
        ColumnSpec::time("When."),
        ColumnSpec::boolean("flag", "A truth value."),
        ColumnSpec::int("count", "An integer."),
        ColumnSpec::upid("A wide value."),
        ColumnSpec::new("ratio", DataType::Float64, "A float."),
        ColumnSpec::label("label", "A string that repeats."),
        ColumnSpec::text("text", "A string that does not."),
        ColumnSpec::new("started_at", DataType::Time64Ns, "Another time."),
        ColumnSpec::text("more", "Another string."),
    ],
    budget_share: 1,
};

#[derive(Debug, Clone, PartialEq)]
pub enum Owned {
    Null,
    Bool(bool),
    Int(i64),
    U128(u128),
    /// By bits, so that NaN equals itself.
    Float(u64),
    Str(String),
    Time(i64),
}

impl Owned {
    pub fn value(&self) -> Value<'_> {
        match self {
            Owned::Null => Value::Null,
            Owned::Bool(value) => Value::Bool(*value),
            Owned::Int(value) => Value::Int(*value),
            Owned::U128(value) => Value::U128(*value),
            Owned::Float(bits) => Value::Float(f64::from_bits(*bits)),
            Owned::Str(text) => Value::Str(text),
            Owned::Time(value) => Value::Time(*value),
        }
    }
}

pub type Row = Vec<Owned>;

/// Rows of batches, as they went in.
pub fn rows_of(batches: impl IntoIterator<Item = RecordBatch>) -> Vec<Row> {
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<Vec<Owned>> = batch.columns().iter().map(|column| values_of(column.as_ref())).collect();
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| column[row].clone()).collect());
        }
    }
    rows
}

fn values_of(array: &dyn Array) -> Vec<Owned> {
    let any = array.as_any();
    let get: Box<dyn Fn(usize) -> Owned> = if let Some(array) = any.downcast_ref::<BooleanArray>() {
        Box::new(|i| Owned::Bool(array.value(i)))
    } else if let Some(array) = any.downcast_ref::<Int64Array>() {
        Box::new(|i| Owned::Int(array.value(i)))
    } else if let Some(array) = any.downcast_ref::<FixedSizeBinaryArray>() {
        Box::new(|i| Owned::U128(u128::from_be_bytes(array.value(i).try_into().unwrap())))
    } else if let Some(array) = any.downcast_ref::<Float64Array>() {
        Box::new(|i| Owned::Float(array.value(i).to_bits()))
    } else if let Some(array) = any.downcast_ref::<StringArray>() {
        Box::new(|i| Owned::Str(array.value(i).to_owned()))
    } else if let Some(array) = any.downcast_ref::<TimestampNanosecondArray>() {
        Box::new(|i| Owned::Time(array.value(i)))
    } else {
        let array = any.downcast_ref::<DictionaryArray<Int32Type>>().expect("no other type");
        let values = array.values().as_any().downcast_ref::<StringArray>().unwrap();
        Box::new(|i| Owned::Str(values.value(array.keys().value(i) as usize).to_owned()))
    };
    (0..array.len()).map(|i| if array.is_null(i) { Owned::Null } else { get(i) }).collect()
}

pub fn project(rows: &[Row], columns: &[usize]) -> Vec<Row> {
    rows.iter().map(|row| columns.iter().map(|column| row[*column].clone()).collect()).collect()
}

pub fn within(rows: &[Row], range: TimeRange) -> Vec<Row> {
    let keep = |row: &&Row| match row[0] {
        Owned::Time(time) => range.start_ns <= time && (time < range.end_ns || range.end_ns == i64::MAX),
        _ => panic!("every row has its time"),
    };
    rows.iter().filter(keep).cloned().collect()
}

/// Whether SQL's WHERE would keep the row.
pub fn meets(row: &Row, predicate: &Predicate) -> bool {
    let value = &row[predicate.column()];
    let order = |literal: &Literal| {
        Some(match (value, literal) {
            (Owned::Bool(a), Literal::Bool(b)) => a.cmp(b),
            (Owned::Int(a) | Owned::Time(a), Literal::Int(b)) => a.cmp(b),
            (Owned::U128(a), Literal::U128(b)) => a.cmp(b),
            (Owned::Float(a), Literal::Float(b)) => f64::from_bits(*a).total_cmp(b),
            (Owned::Str(a), Literal::Str(b)) => a.as_bytes().cmp(b.as_bytes()),
            _ => return None,
        })
    };
    match predicate {
        Predicate::Eq(_, literal) => order(literal).is_some_and(|order| order.is_eq()),
        Predicate::Ne(_, literal) => order(literal).is_some_and(|order| order.is_ne()),
        Predicate::Lt(_, literal) => order(literal).is_some_and(|order| order.is_lt()),
        Predicate::Le(_, literal) => order(literal).is_some_and(|order| order.is_le()),
        Predicate::Gt(_, literal) => order(literal).is_some_and(|order| order.is_gt()),
        Predicate::Ge(_, literal) => order(literal).is_some_and(|order| order.is_ge()),
        Predicate::In(_, literals) => literals.iter().any(|literal| order(literal).is_some_and(|order| order.is_eq())),
    }
}

/// splitmix64
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E3779B97F4A7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58476D1CE4E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D049BB133111EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Makes rows in a mood of its own: how its columns behave is drawn anew now and then.
pub struct Rows {
    pub random: Random,
    moods: Vec<u64>,
    now_ns: i64,
    made: i64,
}

impl Rows {
    pub fn new(seed: u64) -> Rows {
        let mut rows = Rows { random: Random(seed), moods: Vec::new(), now_ns: 1_700_000_000_000_000_000, made: 0 };
        rows.change();
        rows
    }

    pub fn change(&mut self) {
        self.moods = EVERYTHING.columns.iter().map(|_| self.random.below(8)).collect();
    }

    /// Latest time so far, about.
    pub fn now_ns(&self) -> i64 {
        self.now_ns
    }

    pub fn row(&mut self) -> Row {
        self.made += 1;
        self.now_ns += 1 + self.random.below(1000) as i64;
        EVERYTHING.columns.iter().enumerate().map(|(index, column)| self.value(index, column)).collect()
    }

    fn value(&mut self, index: usize, column: &ColumnSpec) -> Owned {
        let mood = self.moods[index];
        if index == 0 {
            let late = match mood {
                0..4 => 0,
                4..7 => self.random.below(3000) as i64,
                _ if self.random.one_in(10) => self.random.below(1_000_000) as i64,
                _ => 0,
            };
            return Owned::Time(self.now_ns - late);
        }
        let null = match mood {
            7 => self.random.one_in(2),
            6 => self.random.one_in(50),
            5 => self.random.one_in(10) || index.is_multiple_of(3),
            _ => false,
        };
        if null {
            return Owned::Null;
        }
        match column.data_type {
            DataType::Boolean => Owned::Bool(mood != 0 && self.random.one_in(mood + 1)),
            DataType::Int64 => Owned::Int(self.int(mood)),
            DataType::Time64Ns => Owned::Time(self.int(mood)),
            DataType::UInt128 => Owned::U128((self.int(mood) as u128) << 64 | self.int(mood) as u128),
            DataType::Float64 => Owned::Float(match mood {
                0 => 1.5f64.to_bits(),
                1 => self.random.next(),
                _ => (self.int(mood) as f64 / 8.0).to_bits(),
            }),
            DataType::String => Owned::Str(self.text(mood)),
        }
    }

    fn int(&mut self, mood: u64) -> i64 {
        match mood {
            0 => 42,
            1 => self.random.next() as i64,
            2 => self.made * 10,
            3 => [200, 404, 500, -1][self.random.below(4) as usize],
            4 => self.random.below(1000) as i64,
            5 => [i64::MIN, i64::MAX, 0, -1, 1][self.random.below(5) as usize],
            6 if self.random.one_in(40) => self.random.next() as i64,
            _ => self.random.below(64) as i64 - 32,
        }
    }

    fn text(&mut self, mood: u64) -> String {
        match mood {
            0 => String::new(),
            1 => format!("{:016x}{:016x}", self.random.next(), self.random.next()),
            2 => ["GET", "POST", "", "PUT"][self.random.below(4) as usize].to_owned(),
            3 => format!("/api/v1/users/{}", self.random.below(5000)),
            4 => ["é", "日本語", "\0", "a\0b", "🦀🦀", "\u{10FFFF}"][self.random.below(6) as usize].to_owned(),
            5 => "x".repeat(self.random.below(3000) as usize),
            _ => format!("{{\"n\":{},\"words\":\"lorem ipsum dolor sit amet\"}}", self.random.below(100)),
        }
    }

    pub fn predicate(&mut self, of: Option<&Row>) -> Predicate {
        let column = self.random.below(EVERYTHING.columns.len() as u64) as usize;
        let value = match of {
            Some(row) if !self.random.one_in(4) => row[column].clone(),
            _ => self.value(column, &EVERYTHING.columns[column]),
        };
        let literal = match value {
            Owned::Bool(value) => Literal::Bool(value),
            Owned::Int(value) | Owned::Time(value) => Literal::Int(value),
            Owned::U128(value) => Literal::U128(value),
            Owned::Float(bits) => Literal::Float(f64::from_bits(bits)),
            Owned::Str(text) => Literal::Str(text),
            Owned::Null => return Predicate::In(column, Vec::new()),
        };
        match self.random.below(7) {
            0 => Predicate::Ne(column, literal),
            1 => Predicate::Lt(column, literal),
            2 => Predicate::Le(column, literal),
            3 => Predicate::Gt(column, literal),
            4 => Predicate::Ge(column, literal),
            5 => Predicate::In(column, vec![literal.clone(), literal]),
            _ => Predicate::Eq(column, literal),
        }
    }
}
