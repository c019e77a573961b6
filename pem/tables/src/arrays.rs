//! Arrow arrays from the parts that this crate keeps, without surprises about types.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, DictionaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, StringArray,
    TimestampNanosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::Int32Type;

use crate::intern::Interner;
use crate::spec::DataType;

/// Bytes of a value of [`DataType::UInt128`].
pub(crate) const WIDE: usize = 16;

/// Strings one after the other; `offsets` has one more than there are.
pub(crate) fn strings(bytes: Vec<u8>, offsets: Vec<i32>, nulls: Option<NullBuffer>) -> StringArray {
    StringArray::try_new(OffsetBuffer::new(offsets.into()), bytes.into(), nulls)
        .expect("strings are cut at character boundaries and never split after")
}

/// The distinct strings of an interner.
pub(crate) fn distinct(interner: &Interner) -> StringArray {
    let (bytes, offsets) = interner.parts();
    strings(bytes.to_vec(), offsets.to_vec(), None)
}

/// A label column. Every key that is not null numbers one of `values`.
pub(crate) fn label(keys: Vec<i32>, nulls: Option<NullBuffer>, values: Arc<StringArray>) -> ArrayRef {
    let keys = Int32Array::new(keys.into(), nulls);
    Arc::new(DictionaryArray::try_new(keys, values).expect("keys are numbers of the values they come with"))
}

/// An integer or time column.
pub(crate) fn ints(data_type: DataType, values: Vec<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    let values = ScalarBuffer::from(values);
    match data_type {
        DataType::Time64Ns => Arc::new(TimestampNanosecondArray::new(values, nulls).with_timezone("UTC")),
        _ => Arc::new(Int64Array::new(values, nulls)),
    }
}

/// A column of 16-byte values.
pub(crate) fn wide(bytes: Vec<u8>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(FixedSizeBinaryArray::new(WIDE as i32, Buffer::from_vec(bytes), nulls))
}

/// The values of an integer or time column, those of nulls included.
pub(crate) fn int_values(array: &dyn Array) -> &[i64] {
    let any = array.as_any();
    if let Some(array) = any.downcast_ref::<Int64Array>() {
        return array.values();
    }
    any.downcast_ref::<TimestampNanosecondArray>().expect("an integer or time column").values()
}

/// The bytes of a column of 16-byte values.
pub(crate) fn wide_values(array: &dyn Array) -> &[u8] {
    array.as_any().downcast_ref::<FixedSizeBinaryArray>().expect("a 128-bit column").value_data()
}

/// One value of a column of 16-byte values.
pub(crate) fn wide_value(bytes: &[u8], index: usize) -> u128 {
    let at = index * WIDE;
    u128::from_be_bytes(bytes[at..at + WIDE].try_into().expect("a slice of 16 bytes"))
}

/// A label column and its values.
pub(crate) fn label_parts(array: &dyn Array) -> (&[i32], &StringArray) {
    let array = array.as_any().downcast_ref::<DictionaryArray<Int32Type>>().expect("a label column");
    let values = array.values().as_any().downcast_ref::<StringArray>().expect("a label's values are strings");
    (array.keys().values(), values)
}

/// A text column.
pub(crate) fn text(array: &dyn Array) -> &StringArray {
    array.as_any().downcast_ref::<StringArray>().expect("a text column")
}
