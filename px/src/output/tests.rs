//! Every format is read back, by a reader that is not ours where there is one.

use std::io::Write;
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::ipc::reader::{FileReader, StreamReader};

use super::*;
use crate::style::Style;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn terminal() -> Terminal {
    let plain = Style::plain();
    Terminal { out: plain, err: plain, out_tty: false, err_tty: false, quiet: true, verbose: 0 }
}

fn options(format: Format) -> Options {
    Options {
        format,
        headers: true,
        follow: false,
        tail: false,
        one_table: false,
        directory: None,
        title: "test".into(),
    }
}

fn summary() -> Summary {
    Summary {
        complete: true,
        completeness: serde_json::json!({ "missing": [] }),
        statistics: serde_json::json!({ "rows_output": 3 }),
        ..Summary::default()
    }
}

fn write(options: &Options, tables: &[&str]) -> Result<Vec<u8>> {
    let out = Shared::default();
    let mut writer = to(options, out.clone(), &terminal())?;
    for (n, name) in tables.iter().enumerate() {
        writer.table(n, &Head { name: (*name).to_owned(), ..sample::head() })?;
    }
    for n in 0..tables.len() {
        writer.batch(n, sample::batch())?;
    }
    writer.finish(&summary())?;
    drop(writer);
    let bytes = out.0.lock().unwrap().clone();
    Ok(bytes)
}

fn text(options: &Options, tables: &[&str]) -> String {
    String::from_utf8(write(options, tables).unwrap()).unwrap()
}

/// Local time differs from machine to machine: times are cut out of what is compared.
fn without_times(text: &str) -> String {
    let blank = |line: &str| {
        let time = line.get(..23).is_some_and(|t| t.as_bytes()[4] == b'-' && t.as_bytes()[19] == b'.');
        if time { format!("TIME{}", &line[23..]) } else { line.to_owned() }
    };
    text.lines().map(blank).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_table_for_people() {
    insta::assert_snapshot!(without_times(&text(&options(Format::Table), &["http_requests"])), @r#"
    time_                    upid     req_method  req_path        resp_status  resp_body_size  latency  errors  encrypted  note
    TIME  1:41:77  GET         /a\u{1b}[31m            200            12 B  1.23 ms     0 %  false      say "hi",\nthere
    TIME  1:42:77  POST        /orders?id=1,2          503        1.43 MiB   950 ns  12.5 %  true
    TIME  1:43:77  -           -                         -               -        -       -  false      -
    "#);
}

#[test]
fn tables_are_titled_when_there_are_several() {
    let mut only = options(Format::Table);
    only.headers = false;
    let text = text(&only, &["first", "second"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[4], lines[5], lines.len()), ("first", "", "second", 9));
}

#[test]
fn a_table_as_wide_as_the_terminal() {
    let out = Shared::default();
    let mut writer = table::Tables::new(out.clone(), Style::plain(), Some(72), &options(Format::Table));
    writer.table(0, &sample::head()).unwrap();
    writer.batch(0, sample::batch()).unwrap();
    writer.finish(&summary()).unwrap();
    let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
    assert!(text.lines().all(|line| text::width(line) <= 72), "{text}");
    assert!(text.contains("not shown (--columns, -o json)"), "{text}");
}

#[test]
fn a_long_table_keeps_its_columns() {
    let out = Shared::default();
    let mut writer = table::Tables::new(out.clone(), Style::plain(), None, &options(Format::Table));
    writer.table(0, &sample::head()).unwrap();
    for _ in 0..7_000 {
        writer.batch(0, sample::batch()).unwrap();
    }
    writer.finish(&summary()).unwrap();
    let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 1 + 21_000);
    assert_eq!(text.matches("req_method").count(), 1);
}

#[test]
fn json_is_one_document_with_what_is_known_about_it() {
    let text = text(&options(Format::Json), &["a", "b"]);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["complete"], true);
    assert_eq!(document["statistics"]["rows_output"], 3);
    let rows = document["tables"]["b"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(
        rows[1],
        serde_json::json!({
            "time_": "2023-11-14T22:13:21.000000001Z",
            "upid": "1:42:77",
            "req_method": "POST",
            "req_path": "/orders?id=1,2",
            "resp_status": 503,
            "resp_body_size": 1_500_000,
            "latency": 950,
            "errors": 0.125,
            "encrypted": true,
            "note": "",
        })
    );
    assert_eq!(rows[0]["req_path"], "/a\u{1b}[31m", "programs get the bytes that were there");
    assert_eq!(rows[2]["errors"], serde_json::Value::Null, "JSON has no NaN");
    assert_eq!(rows[2]["note"], serde_json::Value::Null);
}

#[test]
fn json_of_nothing_is_a_document_too() {
    let out = Shared::default();
    let mut writer = json::Document::new(out.clone());
    writer.table(0, &sample::head()).unwrap();
    writer.finish(&summary()).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&out.0.lock().unwrap()).unwrap();
    assert_eq!(document["tables"]["http_requests"], serde_json::json!([]));
}

#[test]
fn ndjson_names_the_table_unless_there_is_one_only() {
    let lines = text(&options(Format::Ndjson), &["a", "b"]);
    let rows: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 6);
    assert_eq!((&rows[0]["_table"], &rows[5]["_table"]), (&"a".into(), &"b".into()));
    let one = Options { one_table: true, ..options(Format::Ndjson) };
    let line = text(&one, &["a"]);
    let row: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    assert_eq!(row.get("_table"), None);
    assert_eq!(row["upid"], "1:41:77");
}

#[test]
fn csv_is_read_back_with_every_value() {
    let bytes = write(&options(Format::Csv), &["a"]).unwrap();
    let fields = sample::batch().schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    let schema = arrow::datatypes::Schema::new(
        fields.iter().map(|name| arrow::datatypes::Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>(),
    );
    let reader = arrow::csv::ReaderBuilder::new(Arc::new(schema)).with_header(true).build(&bytes[..]).unwrap();
    let batches: Vec<RecordBatch> = reader.map(std::result::Result::unwrap).collect();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    let column = |name: &str| batches[0].column_by_name(name).unwrap().as_string::<i32>().clone();
    assert_eq!(column("note").value(0), "say \"hi\",\nthere");
    assert_eq!(column("req_path").value(1), "/orders?id=1,2");
    assert_eq!(column("time_").value(1), "2023-11-14T22:13:21.000000001Z");
    assert_eq!(column("upid").value(2), "1:43:77");
    assert_eq!(column("errors").value(1), "0.125");
    let header = String::from_utf8(bytes).unwrap();
    assert!(header.starts_with("time_,upid,req_method,"));
    assert!(header.contains(",true,\"\"\n"), "an empty text is not a missing one: {header}");
    let bare = text(&Options { headers: false, ..options(Format::Csv) }, &["a"]);
    assert!(bare.starts_with("2023-"));
}

#[test]
fn arrow_streams_are_read_back_unchanged() {
    let bytes = write(&options(Format::Arrow), &["a"]).unwrap();
    let batches: Vec<RecordBatch> =
        StreamReader::try_new(&bytes[..], None).unwrap().map(std::result::Result::unwrap).collect();
    assert_eq!(format!("{batches:?}"), format!("{:?}", [sample::batch()]), "NaN is not equal to itself");
    assert_eq!(batches[0].schema(), sample::batch().schema());
}

#[test]
fn parquet_is_read_back() {
    let bytes = write(&options(Format::Parquet), &["a"]).unwrap();
    let reader = ::parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(bytes::Bytes::from(bytes), 1024);
    let batches: Vec<RecordBatch> = reader.unwrap().map(std::result::Result::unwrap).collect();
    assert_eq!(batches[0].num_rows(), 3);
    assert_eq!(batches[0].schema().field(6).metadata()["pyxis.semantic"], "ST_DURATION_NS");
    let printed = |batch: &RecordBatch| {
        let columns = cells::columns(batch).unwrap();
        (0..batch.num_rows())
            .map(|row| {
                let mut text = String::new();
                columns.iter().for_each(|column| column.json(row, &mut text));
                text
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(printed(&batches[0]), printed(&sample::batch()));
}

#[test]
fn one_table_formats_refuse_a_second_table_before_they_write_anything() {
    for format in [Format::Csv, Format::Arrow, Format::Parquet] {
        let out = Shared::default();
        let mut writer = to(&options(format), out.clone(), &terminal()).unwrap();
        writer.table(0, &sample::head()).unwrap();
        writer.batch(0, sample::batch()).unwrap();
        let error = writer.table(1, &Head { name: "more".into(), ..sample::head() }).unwrap_err();
        assert_eq!(error.exit().code(), 2);
        assert!(error.hint.unwrap().contains("--table http_requests"));
        assert!(out.0.lock().unwrap().is_empty());
    }
}

#[test]
fn a_directory_gets_a_file_per_table_that_is_whole_or_absent() {
    let dir = tempfile::tempdir().unwrap();
    for format in [Format::Csv, Format::Json, Format::Ndjson, Format::Arrow, Format::Parquet, Format::Table] {
        let target = dir.path().join(format.extension());
        let options = Options { directory: Some(target.clone()), ..options(format) };
        let mut writer = open(&options, &terminal()).unwrap();
        for (n, name) in ["one", "two"].into_iter().enumerate() {
            writer.table(n, &Head { name: name.into(), ..sample::head() }).unwrap();
            writer.batch(n, sample::batch()).unwrap();
        }
        let path = target.join(format!("two.{}", format.extension()));
        assert!(!path.exists());
        writer.finish(&summary()).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() > 0, "{}", path.display());
        drop(writer);
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 2, "nothing else is left behind");
    }
    let file = std::fs::File::open(dir.path().join("arrow/one.arrow")).unwrap();
    let batch = FileReader::try_new(file, None).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.num_rows(), 3);
    assert_eq!(batch.schema().field(2).data_type(), &DataType::Utf8, "one file, no dictionaries to replace");
    let csv = std::fs::read_to_string(dir.path().join("csv/one.csv")).unwrap();
    assert_eq!(csv.lines().next().unwrap().split(',').next(), Some("time_"));
}

#[test]
fn a_run_that_is_given_up_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { directory: Some(dir.path().to_owned()), ..options(Format::Parquet) };
    let mut writer = open(&options, &terminal()).unwrap();
    writer.table(0, &sample::head()).unwrap();
    writer.batch(0, sample::batch()).unwrap();
    drop(writer);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn binary_formats_do_not_go_to_a_terminal_and_endless_ones_need_lines() {
    let tty = Terminal { out_tty: true, ..terminal() };
    for (options, terminal, says) in [
        (options(Format::Parquet), tty, "binary"),
        (options(Format::Arrow), tty, "binary"),
        (Options { follow: true, ..options(Format::Json) }, terminal(), "--follow"),
        (Options { follow: true, ..options(Format::Parquet) }, terminal(), "--follow"),
        (Options { follow: true, directory: Some("x".into()), ..options(Format::Csv) }, terminal(), "--follow"),
    ] {
        let Err(error) = open(&options, &terminal) else { panic!("{options:?} was accepted") };
        assert!(error.message.contains(says), "{}", error.message);
        assert_eq!(error.exit().code(), 2);
    }
}

#[test]
fn ten_thousand_rows_are_written_at_once() {
    // Not a benchmark: a writer that became quadratic would take minutes here.
    let started = std::time::Instant::now();
    let batch = sample::batch();
    let many = arrow::compute::concat_batches(&batch.schema(), std::iter::repeat_n(&batch, 4_000)).unwrap();
    for format in [Format::Table, Format::Json, Format::Ndjson, Format::Csv, Format::Arrow, Format::Parquet] {
        let mut writer = to(&options(format), std::io::sink(), &terminal()).unwrap();
        writer.table(0, &sample::head()).unwrap();
        writer.batch(0, many.clone()).unwrap();
        writer.finish(&summary()).unwrap();
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
}
