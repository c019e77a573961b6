//! Functions of texts and times that SQL lacks.

mod common;
mod redact;

use pyxis_sdk::function::Arguments;
use pyxis_sdk::prelude::*;

use common::MostCommon;

pyxis_sdk::functions! {
    scalar { redact_pii(&str) -> String }
    aggregate { most_common: MostCommon }
    table { time_bins }
}

fn redact_pii(text: &str) -> String {
    redact::redact(text)
}

/// Rows of a batch.
const BATCH_ROWS: i64 = 8192;

fn time_bins(args: &Arguments) -> Result<impl Iterator<Item = Columns> + 'static> {
    let (Some(start), Some(end), Some(width)) = (args.int64(0), args.int64(1), args.int64(2)) else {
        fail!("time_bins takes start, end and width");
    };
    if width <= 0 {
        fail!("the width of a bin is {width} ns, it must be more than 0");
    }
    // Bins begin at multiples of the width, as those of `date_bin` do, so that the two can be joined.
    let first = start.div_euclid(width) * width;
    let bins = if end <= first { 0 } else { (end.saturating_sub(first) - 1) / width + 1 };
    Ok((0..bins).step_by(BATCH_ROWS as usize).map(move |from| {
        let starts: Vec<i64> = (from..bins.min(from + BATCH_ROWS)).map(|i| first + i * width).collect();
        let ends: Vec<i64> = starts.iter().map(|at| at.saturating_add(width)).collect();
        Columns::new().time_ns("bin_start", starts).time_ns("bin_end", ends)
    }))
}
