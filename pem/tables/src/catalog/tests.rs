use std::collections::HashSet;
use std::fmt::Write;

use super::*;
use crate::spec::{DataType, Pattern, Semantic};

/// Prints the catalog as a table; the checked-in copy makes each change of a schema seen in review.
fn printed() -> String {
    let mut out = String::new();
    for spec in ALL.iter().chain(VIZIER) {
        writeln!(out, "{} (budget {})\n  {}", spec.name, spec.budget_share, spec.description).unwrap();
        for column in spec.columns {
            let dictionary = if column.dictionary { "dictionary" } else { "" };
            let semantic = if column.semantic == Semantic::None { "" } else { column.semantic.as_str() };
            let line = format!(
                "  {:<19} {:<8} {dictionary:<10} {semantic:<19} {:<14} {:<5} {}",
                column.name, column.data_type, column.pattern, column.unit, column.description
            );
            writeln!(out, "{}", line.trim_end()).unwrap();
        }
        out.push('\n');
    }
    for codes in enums::ALL {
        let values: Vec<String> = codes.values.iter().map(|(code, name)| format!("{code}={name}")).collect();
        writeln!(out, "enum {}: {}", codes.name, values.join(" ")).unwrap();
    }
    out
}

#[test]
fn the_catalog_is_the_reviewed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/catalog.txt");
    if std::env::var_os("UPDATE_CATALOG").is_some() {
        std::fs::write(path, printed()).unwrap();
    }
    let reviewed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        reviewed == printed(),
        "the catalog differs from tests/catalog.txt; if that is meant, run with UPDATE_CATALOG=1. Now:\n{}",
        printed()
    );
}

#[test]
fn every_table_is_sound() {
    let mut tables = HashSet::new();
    for spec in ALL.iter().chain(VIZIER) {
        assert!(tables.insert(spec.name), "{} twice", spec.name);
        assert!(spec.budget_share > 0);
        assert_eq!(spec.columns[0].name, "time_");
        assert_eq!(spec.columns[spec.time_index()].data_type, DataType::Time64Ns);
        let mut columns = HashSet::new();
        for column in spec.columns {
            assert!(columns.insert(column.name), "{}.{} twice", spec.name, column.name);
            assert!(column.description.ends_with(['.', '.']), "{}.{} lacks a sentence", spec.name, column.name);
            assert!(!column.dictionary || column.data_type == DataType::String);
            if column.semantic == Semantic::Upid {
                assert_eq!(column.data_type, DataType::UInt128);
            }
            if enums::of(spec, column.name).is_some() {
                assert_eq!(column.pattern, Pattern::GeneralEnum);
            }
        }
    }
}

#[test]
fn tables_that_pixie_has_have_its_columns() {
    let names =
        |table: &str| find(table).unwrap().columns.iter().map(|column| column.name).collect::<Vec<_>>().join(" ");
    assert_eq!(
        names("http_events"),
        "time_ upid remote_addr remote_port local_addr local_port trace_role encrypted major_version minor_version \
         content_type req_headers req_method req_path req_body req_body_size resp_headers resp_status resp_message \
         resp_body resp_body_size latency"
    );
    assert_eq!(
        names("conn_stats"),
        "time_ upid remote_addr remote_port trace_role addr_family protocol ssl conn_open conn_close conn_active \
         bytes_sent bytes_recv"
    );
    assert_eq!(
        names("process_stats"),
        "time_ upid major_faults minor_faults cpu_utime_ns cpu_ktime_ns num_threads vsize_bytes rss_bytes rchar_bytes \
         wchar_bytes read_bytes write_bytes"
    );
    assert_eq!(
        names("network_stats"),
        "time_ pod_id rx_bytes rx_packets rx_errors rx_drops tx_bytes tx_packets tx_errors tx_drops"
    );
    assert_eq!(names("proc_exit_events"), "time_ upid exit_code signal comm");
    assert_eq!(names("stirling_error"), "time_ upid source_connector status error context");
    assert_eq!(names("probe_status"), "time_ upid source_connector tracepoint status error info");
}

#[test]
fn codes_have_names() {
    assert_eq!(enums::TRACE_ROLE.decode(4), Some("unknown"));
    assert_eq!(enums::TRACE_ROLE.decode(3), None);
    assert_eq!(enums::PROTOCOL.encode("redis"), Some(7));
    for codes in enums::ALL {
        assert!(codes.values.is_sorted_by_key(|value| value.0), "{} is not in order of code", codes.name);
    }
}
