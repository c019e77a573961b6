//! The closed sets a column is described with. Names are those that travel in metadata and that Pixie's users know.

use std::fmt;
use std::str::FromStr;

/// Makes an enum whose variants have one text each, read back by `FromStr`.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The text that travels in metadata.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // So that a width given in a format string holds.
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text {
                    $($text => Ok($name::$variant),)*
                    _ => Err(UnknownName { kind: stringify!($name), text: text.to_owned() }),
                }
            }
        }
    };
}

/// A text that is none of the names of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: it may come from a newer version")]
pub struct UnknownName {
    kind: &'static str,
    text: String,
}

named! {
    /// Type of a column's values.
    DataType {
        /// True or false.
        Boolean = "BOOLEAN",
        /// 64-bit signed integer.
        Int64 = "INT64",
        /// 128 bits, kept as 16 bytes in big-endian order (a upid: asid u32, pid u32, start ticks u64).
        UInt128 = "UINT128",
        /// IEEE 754 double.
        Float64 = "FLOAT64",
        /// UTF-8 text.
        String = "STRING",
        /// Nanoseconds since the epoch, UTC.
        Time64Ns = "TIME64NS",
    }
}

named! {
    /// What the values of a column are of.
    Semantic {
        /// Nothing particular.
        None = "ST_NONE",
        /// Instant in ns since the epoch.
        TimeNs = "ST_TIME_NS",
        /// Id of an agent.
        AgentUid = "ST_AGENT_UID",
        /// Short id of an agent, the first part of a upid.
        Asid = "ST_ASID",
        /// Unique process id.
        Upid = "ST_UPID",
        /// Name of a service.
        ServiceName = "ST_SERVICE_NAME",
        /// Name of a pod.
        PodName = "ST_POD_NAME",
        /// Phase of a pod.
        PodPhase = "ST_POD_PHASE",
        /// Status of a pod, structured.
        PodStatus = "ST_POD_STATUS",
        /// Name of a node.
        NodeName = "ST_NODE_NAME",
        /// Name of a container.
        ContainerName = "ST_CONTAINER_NAME",
        /// State of a container.
        ContainerState = "ST_CONTAINER_STATE",
        /// Status of a container, structured.
        ContainerStatus = "ST_CONTAINER_STATUS",
        /// Name of a namespace.
        NamespaceName = "ST_NAMESPACE_NAME",
        /// Number of bytes.
        Bytes = "ST_BYTES",
        /// Share of a whole, 0 to 1.
        Percent = "ST_PERCENT",
        /// Length of time in ns.
        DurationNs = "ST_DURATION_NS",
        /// Events per ns.
        ThroughputPerNs = "ST_THROUGHPUT_PER_NS",
        /// Bytes per ns.
        ThroughputBytesPerNs = "ST_THROUGHPUT_BYTES_PER_NS",
        /// Quantiles, structured.
        Quantiles = "ST_QUANTILES",
        /// Quantiles of a length of time in ns, structured.
        DurationNsQuantiles = "ST_DURATION_NS_QUANTILES",
        /// IP address as text.
        IpAddress = "ST_IP_ADDRESS",
        /// Port number.
        Port = "ST_PORT",
        /// HTTP request method.
        HttpReqMethod = "ST_HTTP_REQ_METHOD",
        /// HTTP status code.
        HttpRespStatus = "ST_HTTP_RESP_STATUS",
        /// HTTP reason phrase.
        HttpRespMessage = "ST_HTTP_RESP_MESSAGE",
        /// A script with its arguments, structured: a link.
        ScriptReference = "ST_SCRIPT_REFERENCE",
    }
}

named! {
    /// How the values of a column behave.
    Pattern {
        /// Nothing particular.
        General = "general",
        /// One of a small set of values.
        GeneralEnum = "general_enum",
        /// Text with structure of its own, JSON mostly.
        Structured = "structured",
        /// Only ever grows for one subject; differences matter.
        MetricCounter = "metric_counter",
        /// Goes up and down.
        MetricGauge = "metric_gauge",
    }
}

named! {
    /// What one of a column's values is counted in.
    Unit {
        /// It is not a quantity.
        None = "",
        /// Bytes.
        Bytes = "bytes",
        /// Nanoseconds.
        Nanoseconds = "ns",
        /// Things: packets, events, rows, threads.
        Count = "count",
    }
}
