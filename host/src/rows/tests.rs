use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType as Arrow;

use super::batch;
use crate::bindings::pyxis::common::types::{Coded, Column, ColumnValues, DataType, Rows, Texts, Values};
use crate::error::Error;

fn column(name: &str, data_type: DataType) -> Column {
    let none = String::new;
    Column { name: name.into(), data_type, semantic: none(), unit: none(), pattern: none(), description: none() }
}

fn rows(count: u32, data_type: DataType, values: Values, valid: Option<Vec<u8>>) -> Rows {
    Rows { count, columns: vec![column("c", data_type)], values: vec![ColumnValues { values, valid }] }
}

fn texts(list: &[&str]) -> Texts {
    let (mut offsets, mut bytes) = (vec![0], vec![]);
    for text in list {
        bytes.extend_from_slice(text.as_bytes());
        offsets.push(bytes.len() as u32);
    }
    Texts { offsets, bytes }
}

#[test]
fn what_is_said_about_a_column_is_short() {
    let mut long = rows(1, DataType::Int64, Values::Int64s(vec![1]), None);
    long.columns[0].description = "x".repeat(1024);
    assert!(batch(rows(1, DataType::Int64, Values::Int64s(vec![1]), None)).is_ok());
    long.columns[0].pattern = "y".repeat(1025);
    assert_eq!(refused(long), "column `c` has a text of 1025 bytes about it, at most 1024 are allowed");
}

fn refused(rows: Rows) -> String {
    match batch(rows) {
        Err(Error::Invalid { message, .. }) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn columns_become_arrays() {
    let made = batch(Rows {
        count: 3,
        columns: vec![
            column("flag", DataType::Boolean),
            column("n", DataType::Int64),
            column("took", DataType::DurationNs),
            column("label", DataType::Utf8),
        ],
        values: vec![
            ColumnValues { values: Values::Booleans(vec![0b101]), valid: None },
            ColumnValues { values: Values::Int64s(vec![1, 2, 3]), valid: Some(vec![0b110]) },
            ColumnValues { values: Values::DurationNss(vec![1, 2, 3]), valid: None },
            ColumnValues {
                values: Values::Coded(Coded { codes: vec![1, 0, 9], dictionary: texts(&["a", "b"]) }),
                // The code of a null row has no meaning.
                valid: Some(vec![0b011]),
            },
        ],
    })
    .unwrap();
    let printed = arrow::util::pretty::pretty_format_batches(std::slice::from_ref(&made)).unwrap().to_string();
    let expected = "\
+-------+---+------+-------+
| flag  | n | took | label |
+-------+---+------+-------+
| true  |   | 1    | b     |
| false | 2 | 2    | a     |
| true  | 3 | 3    |       |
+-------+---+------+-------+";
    assert_eq!(printed, expected);
    assert_eq!(made.schema().field(2).metadata()["pyxis.semantic"], "ST_DURATION_NS");
    assert!(matches!(made.column(3).data_type(), Arrow::Dictionary(..)));
}

#[test]
fn upids_are_big_endian() {
    let made = batch(rows(1, DataType::Uint128, Values::Uint128s(vec![1 << 32 | 2, 3]), None)).unwrap();
    let bytes = made.column(0).as_fixed_size_binary().value(0);
    assert_eq!(u128::from_be_bytes(bytes.try_into().unwrap()), 1 << 96 | 2 << 64 | 3);
}

#[test]
fn a_table_may_have_rows_and_no_columns_and_columns_and_no_rows() {
    assert_eq!(batch(Rows { count: 7, columns: vec![], values: vec![] }).unwrap().num_rows(), 7);
    let empty = batch(rows(0, DataType::Utf8, Values::Utf8s(texts(&[])), None)).unwrap();
    assert_eq!((empty.num_rows(), empty.num_columns()), (0, 1));
}

#[test]
fn what_does_not_fit_is_refused_with_the_column() {
    let utf8 = |offsets: Vec<u32>, bytes: &[u8]| Values::Utf8s(Texts { offsets, bytes: bytes.to_vec() });
    for (rows, says) in [
        (rows(2, DataType::Int64, Values::Int64s(vec![1]), None), "has 1 rows, the table has 2"),
        (rows(9, DataType::Boolean, Values::Booleans(vec![1]), None), "9 rows need 2"),
        (rows(1, DataType::Int64, Values::Int64s(vec![1]), Some(vec![])), "validity bitmap of 0 bytes"),
        (rows(1, DataType::Float64, Values::Int64s(vec![1]), None), "is declared as"),
        (rows(2, DataType::Uint128, Values::Uint128s(vec![1, 2, 3]), None), "3 halves"),
        (rows(1, DataType::Utf8, utf8(vec![], b""), None), "offsets"),
        (rows(1, DataType::Utf8, utf8(vec![1, 2], b"ab"), None), "offsets"),
        (rows(2, DataType::Utf8, utf8(vec![0, 2, 1], b"ab"), None), "offsets"),
        (rows(1, DataType::Utf8, utf8(vec![0, 1], b"ab"), None), "offsets"),
        (rows(1, DataType::Utf8, utf8(vec![0, u32::MAX], b"ab"), None), "offsets"),
        (rows(1, DataType::Utf8, utf8(vec![0, 1], b"\xff"), None), "not UTF-8"),
        (rows(2, DataType::Utf8, utf8(vec![0, 1, 2], "é".as_bytes()), None), "not UTF-8"),
        (rows(3, DataType::Utf8, utf8(vec![0, 1], b"a"), Some(vec![7])), "1 texts"),
        (
            rows(1, DataType::Utf8, Values::Coded(Coded { codes: vec![2], dictionary: texts(&["a", "b"]) }), None),
            "code 2 in row 0",
        ),
        (rows(u32::MAX, DataType::Int64, Values::Int64s(vec![]), None), "at most"),
    ] {
        let message = refused(rows);
        assert!(message.contains(says), "{says}: {message}");
    }
    let twice = Rows {
        count: 0,
        columns: vec![column("c", DataType::Int64), column("c", DataType::Int64)],
        values: vec![
            ColumnValues { values: Values::Int64s(vec![]), valid: None },
            ColumnValues { values: Values::Int64s(vec![]), valid: None },
        ],
    };
    assert!(refused(twice).contains("two columns `c`"));
    assert!(
        refused(Rows { count: 0, columns: vec![column("c", DataType::Int64)], values: vec![] }).contains("1 columns")
    );
}
