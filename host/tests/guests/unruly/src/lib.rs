//! Functions of which some break every promise.

use pyxis_sdk::bindings::pyxis::common::types::ColumnValues;
use pyxis_sdk::function::{Aggregate, Arguments, Output};
use pyxis_sdk::prelude::*;

pyxis_sdk::functions! {
    scalar {
        twice(i64) -> i64,
        shout(&str) -> String,
        told(Option<i64>) -> i64,
        boom(i64) -> i64,
        spin(i64) -> i64,
        short(i64) -> Short,
        hog(i64) -> i64,
    }
    aggregate { counted: Counted }
    table { endless }
}

fn twice(n: i64) -> i64 {
    n * 2
}

fn shout(text: &str) -> String {
    text.to_uppercase()
}

fn told(n: Option<i64>) -> i64 {
    i64::from(n.is_some())
}

fn boom(n: i64) -> i64 {
    panic!("{n} is too much")
}

fn spin(n: i64) -> i64 {
    let mut n = n;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

fn hog(n: i64) -> i64 {
    let mut held = Vec::new();
    loop {
        held.push(vec![n; 1 << 20]);
        std::hint::black_box(&held);
    }
}

fn short(n: i64) -> Short {
    Short(n)
}

/// Loses its last value.
pub struct Short(i64);

impl Output for Short {
    type Builder = Vec<i64>;
    fn builder(rows: usize) -> Self::Builder {
        Vec::with_capacity(rows)
    }
    fn push(builder: &mut Self::Builder, value: Self) {
        builder.push(value.0);
    }
    fn push_null(builder: &mut Self::Builder) {
        builder.push(0);
    }
    fn finish(mut builder: Self::Builder) -> ColumnValues {
        builder.pop();
        i64::finish(builder)
    }
}

#[derive(Default)]
struct Counted(i64);

impl Aggregate for Counted {
    type Input<'a> = (i64,);
    type Output = i64;
    fn add(&mut self, _: (i64,)) {
        self.0 += 1;
    }
    fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }
    fn save(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }
    fn load(bytes: &[u8]) -> Option<Self> {
        Some(Self(i64::from_le_bytes(bytes.try_into().ok()?)))
    }
    fn value(self) -> i64 {
        self.0
    }
}

fn endless(_: &Arguments) -> Result<impl Iterator<Item = Columns> + 'static> {
    Ok((0..).map(|from: i64| Columns::new().int64("n", (from * 1000)..(from + 1) * 1000)))
}
