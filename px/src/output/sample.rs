//! A batch with one of everything, for tests of the writers.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    StringViewArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, TimeUnit};

use super::Head;
use super::meaning::{SEMANTIC, UNIT};

fn tagged(field: Field, key: &str, value: &str) -> Field {
    field.with_metadata(HashMap::from([(key.to_owned(), value.to_owned())]))
}

pub fn batch() -> RecordBatch {
    let upid = |pid: u128| ((1u128 << 96) | (pid << 64) | 77).to_be_bytes();
    let dictionary = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
    let fields = vec![
        Field::new("time_", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false),
        tagged(Field::new("upid", DataType::FixedSizeBinary(16), false), SEMANTIC, "ST_UPID"),
        tagged(Field::new("req_method", dictionary, true), SEMANTIC, "ST_HTTP_REQ_METHOD"),
        Field::new("req_path", DataType::Utf8View, true),
        tagged(Field::new("resp_status", DataType::Int64, true), SEMANTIC, "ST_HTTP_RESP_STATUS"),
        tagged(Field::new("resp_body_size", DataType::Int64, true), SEMANTIC, "ST_BYTES"),
        tagged(Field::new("latency", DataType::Int64, true), SEMANTIC, "ST_DURATION_NS"),
        tagged(Field::new("errors", DataType::Float64, true), UNIT, "ratio"),
        Field::new("encrypted", DataType::Boolean, false),
        Field::new("note", DataType::Utf8, true),
    ];
    let method: DictionaryArray<Int32Type> = [Some("GET"), Some("POST"), None].into_iter().collect();
    let second = 1_000_000_000;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            TimestampNanosecondArray::from(vec![
                1_700_000_000 * second,
                1_700_000_001 * second + 1,
                1_700_000_002 * second,
            ])
            .with_timezone("UTC"),
        ),
        Arc::new(FixedSizeBinaryArray::try_from_iter([upid(41), upid(42), upid(43)].iter()).unwrap()),
        Arc::new(method),
        Arc::new(StringViewArray::from(vec![Some("/a\x1b[31m"), Some("/orders?id=1,2"), None])),
        Arc::new(Int64Array::from(vec![Some(200), Some(503), None])),
        Arc::new(Int64Array::from(vec![Some(12), Some(1_500_000), None])),
        Arc::new(Int64Array::from(vec![Some(1_234_567), Some(950), None])),
        Arc::new(Float64Array::from(vec![Some(0.0), Some(0.125), Some(f64::NAN)])),
        Arc::new(BooleanArray::from(vec![false, true, false])),
        Arc::new(StringArray::from(vec![Some("say \"hi\",\nthere"), Some(""), None])),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

pub fn head() -> Head {
    Head { name: "http_requests".into(), schema: batch().schema(), round: 0, view: None, columns_chosen: false }
}
