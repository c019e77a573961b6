//! Arguments, as `plugin.toml` declares them.

use crate::bindings::pyxis::common::types::{Error, Mistake, Scalar};
use crate::error::Result;

/// The arguments of a run, typed as declared, defaults filled in.
///
/// Asking for one that is not declared, or by another type than declared, is a mistake in the script and comes back as an
/// [`Error`] that says so. An argument that has no default and was not given is read as an `Option`:
///
/// ```
/// # use pyxis_sdk::{Args, Scalar};
/// let args = Args::new(vec![("limit".into(), Scalar::Int64(50)), ("service".into(), Scalar::Null)]);
/// assert_eq!(args.int64("limit")?, 50);
/// assert_eq!(args.get::<Option<String>>("service")?, None);
/// assert!(args.string("service").is_err());
/// # Ok::<(), pyxis_sdk::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Args(Vec<(String, Scalar)>);

/// Types an argument can be read as.
pub trait FromScalar: Sized {
    /// What a manifest calls the type.
    const TYPE: &'static str;
    /// The value, or none if the scalar is of another type.
    fn from_scalar(scalar: &Scalar) -> Option<Self>;
}

impl Args {
    /// From values by name, as the host gives them.
    pub fn new(values: Vec<(String, Scalar)>) -> Self {
        Self(values)
    }

    /// An argument by name.
    pub fn get<T: FromScalar>(&self, name: &str) -> Result<T> {
        let Some((_, scalar)) = self.0.iter().find(|(n, _)| n == name) else {
            return Err(mistake(
                format!("plugin.toml declares no argument `{name}`"),
                "declare it under [[args]]".into(),
            ));
        };
        T::from_scalar(scalar).ok_or_else(|| match scalar {
            Scalar::Null => mistake(
                format!("argument `{name}` was not given and has no default"),
                format!("read it as an Option, or give it a default in plugin.toml (type {})", T::TYPE),
            ),
            _ => mistake(
                format!("argument `{name}` is read as {} but declared otherwise", T::TYPE),
                "make plugin.toml and the script agree".into(),
            ),
        })
    }

    /// An argument of type `string`.
    pub fn string(&self, name: &str) -> Result<String> {
        self.get(name)
    }

    /// An argument of type `int64`.
    pub fn int64(&self, name: &str) -> Result<i64> {
        self.get(name)
    }

    /// An argument of type `int64` that counts something: negative ones are refused.
    pub fn count(&self, name: &str) -> Result<u64> {
        let value = self.int64(name)?;
        u64::try_from(value).map_err(|_| {
            mistake(format!("argument `{name}` is {value}, which counts nothing"), "give 0 or more".into())
        })
    }

    /// An argument of type `float64`.
    pub fn float64(&self, name: &str) -> Result<f64> {
        self.get(name)
    }

    /// An argument of type `boolean`.
    pub fn boolean(&self, name: &str) -> Result<bool> {
        self.get(name)
    }

    /// An argument of type `duration`, in ns.
    pub fn duration_ns(&self, name: &str) -> Result<i64> {
        self.get::<DurationNs>(name).map(|d| d.0)
    }

    /// All, in the manifest's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Scalar)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

/// A length of time as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationNs(pub i64);

macro_rules! from_scalar {
    ($type:ty, $name:literal, $variant:ident($value:ident) => $get:expr) => {
        impl FromScalar for $type {
            const TYPE: &'static str = $name;
            fn from_scalar(scalar: &Scalar) -> Option<Self> {
                match scalar {
                    Scalar::$variant($value) => Some($get),
                    _ => None,
                }
            }
        }
    };
}

from_scalar!(String, "string", Utf8(v) => v.clone());
from_scalar!(i64, "int64", Int64(v) => *v);
from_scalar!(f64, "float64", Float64(v) => *v);
from_scalar!(bool, "boolean", Boolean(v) => *v);
from_scalar!(DurationNs, "duration", DurationNs(v) => DurationNs(*v));

impl<T: FromScalar> FromScalar for Option<T> {
    const TYPE: &'static str = T::TYPE;
    fn from_scalar(scalar: &Scalar) -> Option<Self> {
        match scalar {
            Scalar::Null => Some(None),
            other => T::from_scalar(other).map(Some),
        }
    }
}

fn mistake(message: String, hint: String) -> Error {
    Error::Invalid(Mistake { message, hint: Some(hint), position: None })
}
