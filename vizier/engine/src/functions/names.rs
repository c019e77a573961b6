//! Names of coded columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int32Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// Which column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Decoder {
    TraceRole,
    Protocol,
}

impl Decoder {
    pub const ALL: [Self; 2] = [Self::TraceRole, Self::Protocol];

    fn function(self) -> &'static str {
        match self {
            Self::TraceRole => "trace_role_name",
            Self::Protocol => "protocol_name",
        }
    }

    /// Names by code; the last stands for every other code.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::TraceRole => &["unknown", "client", "server", "unknown"],
            Self::Protocol => &[
                "unknown", "http", "http2", "mysql", "cql", "pgsql", "dns", "redis", "nats", "mongodb", "kafka", "mux",
                "amqp", "tls", "unknown",
            ],
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Named {
    decoder: Decoder,
    signature: Signature,
}

impl Named {
    pub fn new(decoder: Decoder) -> Self {
        Self { decoder, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Named {
    fn name(&self) -> &str {
        self.decoder.function()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match &arguments[0] {
            code if code.is_integer() || code.is_null() => {
                Ok(DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)))
            }
            other => plan_err!("{} takes an integer code, not {other}", self.name()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = matches!(args.args[0], ColumnarValue::Scalar(_));
        let codes = cast(&args.args[0].to_array(if scalar { 1 } else { args.number_rows })?, &DataType::Int64)?;
        let names = self.decoder.names();
        let other = names.len() as i32 - 1;
        let keys: Int32Array = codes
            .as_primitive::<Int64Type>()
            .iter()
            .map(|code| code.map(|code| i32::try_from(code).ok().filter(|c| (0..other).contains(c)).unwrap_or(other)))
            .collect();
        let values: ArrayRef = Arc::new(StringArray::from(names.to_vec()));
        let array: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::try_new(keys, values)?);
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
        }
        debug_assert_eq!(array.len(), args.number_rows);
        Ok(ColumnarValue::Array(array))
    }
}
