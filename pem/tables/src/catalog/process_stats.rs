use crate::spec::{ColumnSpec, TableSpec, Unit};

/// `process_stats`
pub static PROCESS_STATS: TableSpec = TableSpec {
    name: "process_stats",
    description: "CPU, memory and IO of each process, sampled; counters run from the start of the process.",
    columns: &[
        ColumnSpec::time("When the sample was taken."),
        ColumnSpec::upid("The process."),
        ColumnSpec::int("major_faults", "Page faults that read from disk.").counter().unit(Unit::Count),
        ColumnSpec::int("minor_faults", "Page faults that did not.").counter().unit(Unit::Count),
        ColumnSpec::duration("cpu_utime_ns", "CPU time in user mode.").counter(),
        ColumnSpec::duration("cpu_ktime_ns", "CPU time in the kernel.").counter(),
        ColumnSpec::int("num_threads", "Threads.").gauge().unit(Unit::Count),
        ColumnSpec::bytes("vsize_bytes", "Virtual memory.").gauge(),
        ColumnSpec::bytes("rss_bytes", "Resident memory.").gauge(),
        ColumnSpec::bytes("rchar_bytes", "Bytes read by system calls, from cache or pipe or disk.").counter(),
        ColumnSpec::bytes("wchar_bytes", "Bytes written by system calls.").counter(),
        ColumnSpec::bytes("read_bytes", "Bytes read from storage.").counter(),
        ColumnSpec::bytes("write_bytes", "Bytes written to storage.").counter(),
    ],
    budget_share: 10,
};
