//! Rows that come to the script, by column.

use std::cell::RefCell;
use std::rc::Rc;

use crate::bindings::pyxis::common::types as wit;
use crate::bindings::pyxis::script::batches as host;
use crate::error::Result;
use crate::{DataType, Error, Mistake};

/// Batches of a frame's rows: an iterator of `Result<Batch>`. Dropping it (and its batches) stops the work everywhere.
pub struct Rows(Rc<Stream>);

struct Stream {
    stream: host::BatchStream,
    columns: Vec<wit::Column>,
    /// What is known of each text column's dictionary. It only grows, so each entry crosses once.
    dictionaries: RefCell<Vec<Rc<Texts>>>,
}

/// Some rows. Columns are asked for by name and come whole; asking by the wrong type is an [`Error`].
pub struct Batch {
    batch: host::Batch,
    of: Rc<Stream>,
}

/// One bit a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap(Vec<u8>);

/// Texts, one after the other in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    offsets: Vec<u32>,
    bytes: Vec<u8>,
}

/// A text column by reference: row `i` is entry `codes[i]` of the dictionary.
#[derive(Clone, Debug)]
pub struct Coded {
    /// One for each row; [`Coded::NULL`] where the row is null. The same text has the same code in all batches of a frame,
    /// so a script can count by code in a plain array and look texts up at the end.
    pub codes: Vec<u32>,
    /// The texts.
    pub dictionary: Rc<Texts>,
}

impl Rows {
    pub(crate) fn new(stream: host::BatchStream) -> Self {
        let columns = stream.columns();
        let dictionaries = RefCell::new(columns.iter().map(|_| Rc::default()).collect());
        Self(Rc::new(Stream { stream, columns, dictionaries }))
    }

    /// Columns, in order.
    pub fn columns(&self) -> &[wit::Column] {
        &self.0.columns
    }
}

impl Iterator for Rows {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        let batch = self.0.stream.next().transpose()?;
        Some(batch.map(|batch| Batch { batch, of: Rc::clone(&self.0) }))
    }
}

impl Batch {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.batch.rows() as usize
    }

    /// Columns, in order.
    pub fn columns(&self) -> &[wit::Column] {
        &self.of.columns
    }

    /// Which rows have a value; none = all.
    pub fn valid(&self, name: &str) -> Result<Option<Bitmap>> {
        Ok(self.batch.valid(self.any(name)?).map(Bitmap))
    }

    /// Values of an `int64`, time or duration column. Those of null rows have no meaning.
    pub fn int64(&self, name: &str) -> Result<Vec<i64>> {
        Ok(self.batch.int64s(self.of_type(name, &[DataType::Int64, DataType::TimeNs, DataType::DurationNs])?))
    }

    /// Values of a `float64` column. Those of null rows have no meaning.
    pub fn float64(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.batch.float64s(self.of_type(name, &[DataType::Float64])?))
    }

    /// Values of a `boolean` column. Those of null rows have no meaning.
    pub fn boolean(&self, name: &str) -> Result<Bitmap> {
        Ok(Bitmap(self.batch.booleans(self.of_type(name, &[DataType::Boolean])?)))
    }

    /// Values of a `uint128` column (upids). Those of null rows have no meaning.
    pub fn uint128(&self, name: &str) -> Result<Vec<u128>> {
        let halves = self.batch.uint128s(self.of_type(name, &[DataType::Uint128])?);
        Ok(halves.chunks_exact(2).map(|h| u128::from(h[0]) << 64 | u128::from(h[1])).collect())
    }

    /// Values of a text column, each row's own. For text that repeats, [`Batch::coded`] is far cheaper.
    pub fn text(&self, name: &str) -> Result<Texts> {
        let texts = self.batch.utf8s(self.of_type(name, &[DataType::Utf8])?);
        Ok(Texts { offsets: texts.offsets, bytes: texts.bytes })
    }

    /// Values of a text column by reference to the frame's dictionary of it.
    pub fn coded(&self, name: &str) -> Result<Coded> {
        let column = self.of_type(name, &[DataType::Utf8])?;
        let codes = self.batch.codes(column)?;
        let mut dictionaries = self.of.dictionaries.borrow_mut();
        let known = &mut dictionaries[column as usize];
        let needed = codes.iter().filter(|code| **code != Coded::NULL).max().map_or(0, |most| *most as usize + 1);
        if needed > known.len() {
            let tail = self.of.stream.dictionary(column, known.len() as u32);
            // Copies only if the script still holds an older state of it.
            Rc::make_mut(known).extend(&tail.offsets, &tail.bytes);
        }
        Ok(Coded { codes, dictionary: Rc::clone(known) })
    }

    /// Values of a `binary` column, each row's own.
    pub fn binary(&self, name: &str) -> Result<Texts> {
        let texts = self.batch.binaries(self.of_type(name, &[DataType::Binary])?);
        Ok(Texts { offsets: texts.offsets, bytes: texts.bytes })
    }

    /// The whole batch as an Arrow IPC stream, for scripts that bring an Arrow library.
    pub fn arrow_ipc(&self) -> Vec<u8> {
        self.batch.arrow_ipc()
    }

    fn any(&self, name: &str) -> Result<u32> {
        let found = self.of.columns.iter().position(|c| c.name == name);
        found.map(|i| i as u32).ok_or_else(|| {
            let names: Vec<&str> = self.of.columns.iter().map(|c| c.name.as_str()).collect();
            Error::NotFound(Mistake {
                message: format!("the frame has no column `{name}`"),
                hint: Some(format!("it has {}", names.join(", "))),
                position: None,
            })
        })
    }

    fn of_type(&self, name: &str, types: &[DataType]) -> Result<u32> {
        let column = self.any(name)?;
        let is = self.of.columns[column as usize].data_type;
        if types.contains(&is) {
            return Ok(column);
        }
        Err(Error::Invalid(Mistake {
            message: format!("column `{name}` is {is:?}, read as {:?}", types[0]),
            hint: Some("read it by its own type, or cast it in the frame".into()),
            position: None,
        }))
    }
}

impl Bitmap {
    /// The bit of a row.
    pub fn get(&self, row: usize) -> bool {
        self.0[row / 8] >> (row % 8) & 1 == 1
    }
}

impl Texts {
    /// Entries.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An entry as bytes.
    pub fn bytes(&self, index: usize) -> &[u8] {
        &self.bytes[self.offsets[index] as usize..self.offsets[index + 1] as usize]
    }

    /// An entry as text.
    pub fn get(&self, index: usize) -> &str {
        // The host gives UTF-8 for text columns; of a binary column, what is none reads as empty.
        core::str::from_utf8(self.bytes(index)).unwrap_or_default()
    }

    /// All entries as text.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|i| self.get(i))
    }

    fn extend(&mut self, offsets: &[u32], bytes: &[u8]) {
        let base = self.bytes.len() as u32;
        let skip = usize::from(!self.offsets.is_empty());
        self.offsets.extend(offsets.iter().skip(skip).map(|o| o + base));
        self.bytes.extend_from_slice(bytes);
    }
}

impl Coded {
    /// The code of a null row.
    pub const NULL: u32 = u32::MAX;

    /// A row's text.
    pub fn get(&self, row: usize) -> Option<&str> {
        let code = self.codes[row];
        (code != Self::NULL).then(|| self.dictionary.get(code as usize))
    }
}
