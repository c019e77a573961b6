use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Int32Array, Int64Array,
    ListArray, RecordBatch, StringArray, StringViewArray, UInt64Array,
};
use arrow::datatypes::{Int32Type, Int64Type, UInt8Type};

use super::{Dictionary, NULL_CODE, binaries, booleans, column, float64s, int64s, plain, utf8s, valid};
use crate::bindings::pyxis::common::types::DataType;

fn plain_of(array: ArrayRef) -> ArrayRef {
    let batch = RecordBatch::try_from_iter([("c", array)]).unwrap();
    plain(&batch).unwrap().remove(0)
}

fn text(array: ArrayRef) -> Vec<String> {
    let texts = utf8s(&plain_of(array)).unwrap();
    texts
        .offsets
        .windows(2)
        .map(|w| String::from_utf8(texts.bytes[w[0] as usize..w[1] as usize].to_vec()).unwrap())
        .collect()
}

fn codes_of(dictionary: &mut Dictionary, array: ArrayRef) -> Vec<u32> {
    dictionary.codes(&array).expect("it is text").expect("there is room")
}

#[test]
fn types_beyond_the_contract_are_widened() {
    assert_eq!(int64s(&plain_of(Arc::new(Int32Array::from(vec![-1, 7])))).unwrap(), [-1, 7]);
    assert_eq!(float64s(&plain_of(Arc::new(Float32Array::from(vec![0.5])))).unwrap(), [0.5]);
    let decimal = Decimal128Array::from(vec![1234]).with_precision_and_scale(10, 2).unwrap();
    assert_eq!(float64s(&plain_of(Arc::new(decimal))).unwrap(), [12.34]);
    assert_eq!(int64s(&plain_of(Arc::new(Date32Array::from(vec![1])))).unwrap(), [86_400_000_000_000]);
    assert_eq!(text(Arc::new(StringViewArray::from(vec!["a", "a text longer than twelve bytes"]))).len(), 2);
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
    assert_eq!(text(Arc::new(lists)), ["[1, ]", ""]);
    let short: DictionaryArray<UInt8Type> = ["x", "y", "x"].into_iter().collect();
    assert_eq!(text(Arc::new(short)), ["x", "y", "x"]);
}

#[test]
fn what_does_not_fit_is_null_and_not_a_wrong_number() {
    let array = plain_of(Arc::new(UInt64Array::from(vec![u64::MAX, 1])));
    assert_eq!(valid(&array).unwrap(), [0b10]);
    assert_eq!(int64s(&array).unwrap()[1], 1);
}

#[test]
fn slices_are_read_from_their_start() {
    let flags: BooleanArray = (0..20).map(|i| Some(i % 3 == 0)).collect();
    let sliced: ArrayRef = Arc::new(flags.slice(3, 9));
    // Rows 3, 6 and 9 of twenty are rows 0, 3 and 6 of the slice; bits past its nine rows are zero.
    assert_eq!(booleans(&sliced).unwrap(), [0b0100_1001, 0]);
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter((0..20).map(|i| (i % 4 != 0).then_some(i))).slice(4, 3));
    assert_eq!(valid(&numbers).unwrap(), [0b110]);
    assert_eq!(int64s(&numbers).unwrap()[1..], [5, 6]);
    let words: ArrayRef = Arc::new(StringArray::from(vec!["zero", "one", "two", "three"]).slice(1, 2));
    assert_eq!(text(words), ["one", "two"]);
}

#[test]
fn a_column_of_another_type_is_none() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    assert!(float64s(&numbers).is_none() && utf8s(&numbers).is_none() && booleans(&numbers).is_none());
    assert!(binaries(&numbers).is_none() && Dictionary::default().codes(&numbers).is_none());
}

#[test]
fn a_text_keeps_its_code_from_batch_to_batch() {
    let mut dictionary = Dictionary::default();
    let first: DictionaryArray<Int32Type> = [Some("a"), None, Some("b"), Some("a")].into_iter().collect();
    let second: DictionaryArray<Int32Type> = [Some("c"), Some("b")].into_iter().collect();
    assert_eq!(codes_of(&mut dictionary, Arc::new(first.clone())), [0, NULL_CODE, 1, 0]);
    assert_eq!(codes_of(&mut dictionary, Arc::new(second)), [2, 1]);
    assert_eq!(
        codes_of(&mut dictionary, Arc::new(StringArray::from(vec![Some("b"), None, Some("d")]))),
        [1, NULL_CODE, 3]
    );
    // The same Arrow dictionary again, sliced.
    assert_eq!(codes_of(&mut dictionary, Arc::new(first.slice(2, 2))), [1, 0]);
    let tail = dictionary.tail(2);
    assert_eq!((tail.offsets.as_slice(), tail.bytes.as_slice()), ([0, 1, 2].as_slice(), b"cd".as_slice()));
    assert_eq!(dictionary.tail(4).offsets, [0]);
    assert_eq!(dictionary.tail(400).offsets, [0]);
}

#[test]
fn entries_no_row_refers_to_get_no_code() {
    let mut dictionary = Dictionary::default();
    let keys = Int32Array::from(vec![1, 1]);
    let values: ArrayRef = Arc::new(StringArray::from(vec!["unused", "used"]));
    codes_of(&mut dictionary, Arc::new(DictionaryArray::<Int32Type>::try_new(keys, values).unwrap()));
    assert_eq!(dictionary.tail(0).bytes, b"used");
}

#[test]
fn a_field_says_what_it_means() {
    let meta = [("pyxis.semantic".into(), "ST_BYTES".into()), ("pyxis.unit".into(), "bytes".into())].into();
    let field = arrow::datatypes::Field::new("sent", arrow::datatypes::DataType::Int64, true).with_metadata(meta);
    let column = column(&field);
    assert_eq!(
        (column.data_type, column.semantic.as_str(), column.unit.as_str()),
        (DataType::Int64, "ST_BYTES", "bytes")
    );
}
