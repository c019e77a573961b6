//! The files of `guests/`, and what makes components of them.
//!
//! A file is the inside of a core module; the imports and helpers below stand before it, and `own: NAME` leaves one of them
//! out. With `component` it is a whole component. Memory below 4 KiB is spoken for: names at 16 to 128, results of calls
//! at 512, an `ok` at 1024; from 2048 on a guest has it for itself. Lists the host gives back go to 64 KiB and up.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use host::manifest::section;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

const MANIFEST: &str =
    r#"{"name":"hostile","version":"0.1.0","description":"Does harm","tables":["events","endless","silent","unique"]}"#;

const IMPORTS: &str = r#"
(import "pyxis:common/log@0.1.0" "log" (func $log (param i32 i32 i32)))
(import "pyxis:script/clock@0.1.0" "now" (func $now (result i64)))
(import "pyxis:script/tables@0.1.0" "list-tables" (func $list_tables (param i32)))
(import "pyxis:script/tables@0.1.0" "table" (func $table (param i32 i32 i32 i64 i64 i32)))
(import "pyxis:script/tables@0.1.0" "sql" (func $sql (param i32 i32 i32 i32 i32)))
(import "pyxis:script/tables@0.1.0" "[method]frame.filter" (func $filter (param i32 i32 i32 i32)))
(import "pyxis:script/tables@0.1.0" "[method]frame.limit" (func $limit (param i32 i64 i64 i32)))
(import "pyxis:script/tables@0.1.0" "[resource-drop]frame" (func $drop_frame (param i32)))
(import "pyxis:script/batches@0.1.0" "collect" (func $collect (param i32 i32)))
(import "pyxis:script/batches@0.1.0" "[method]batch-stream.next" (func $stream_next (param i32 i32)))
(import "pyxis:script/batches@0.1.0" "[method]batch-stream.dictionary" (func $dictionary (param i32 i32 i32 i32)))
(import "pyxis:script/batches@0.1.0" "[resource-drop]batch-stream" (func $drop_stream (param i32)))
(import "pyxis:script/batches@0.1.0" "[method]batch.int64s" (func $int64s (param i32 i32 i32)))
(import "pyxis:script/batches@0.1.0" "[method]batch.codes" (func $codes (param i32 i32 i32)))
(import "pyxis:script/batches@0.1.0" "[resource-drop]batch" (func $drop_batch (param i32)))
(import "pyxis:script/output@0.1.0" "display" (func $display (param i32 i32 i32 i32)))
(import "pyxis:script/output@0.1.0" "emit" (func $emit (param i32 i32 i32 i32 i32 i32 i32 i32)))
(import "pyxis:script/output@0.1.0" "view" (func $view (param i32 i32 i32)))
"#;

const MEMORY: &str = r#"(memory (export "memory") 4)"#;

const REALLOC: &str = r#"
(func (export "cabi_realloc") (param $old i32) (param $old_bytes i32) (param $align i32) (param $bytes i32) (result i32)
  (local $at i32) (local $end i32)
  (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
  (local.set $end (i32.add (local.get $at) (local.get $bytes)))
  (loop $more
    (if (i32.gt_u (local.get $end) (i32.mul (memory.size) (i32.const 65536)))
      (then
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (br $more))))
  (memory.copy (local.get $at) (local.get $old) (local.get $old_bytes))
  (global.set $heap (local.get $end))
  (local.get $at))
"#;

const HELPERS: &str = r#"
(global $heap (mut i32) (i32.const 65536))
(data (i32.const 16) "events") (data (i32.const 32) "endless") (data (i32.const 48) "secrets") (data (i32.const 64) "t")
(data (i32.const 96) "panic") (data (i32.const 112) "silent") (data (i32.const 120) "unique")
(func $open (param $at i32) (param $len i32) (result i32)
  (call $table (local.get $at) (local.get $len) (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 512))
  (i32.load (i32.const 516)))
(func $events (result i32) (call $open (i32.const 16) (i32.const 6)))
(func $endless (result i32) (call $open (i32.const 32) (i32.const 7)))
(func $silent (result i32) (call $open (i32.const 112) (i32.const 6)))
(func $unique (result i32) (call $open (i32.const 120) (i32.const 6)))
(func $stream (param $frame i32) (result i32)
  (call $collect (local.get $frame) (i32.const 512))
  (i32.load (i32.const 516)))
(func $next (param $stream i32) (result i32)
  (call $stream_next (local.get $stream) (i32.const 512))
  (i32.load (i32.const 520)))
"#;

/// What must become of a guest.
pub enum Must {
    /// One of these.
    End(Vec<String>),
    BeRefused(String),
}

pub struct Guest {
    pub name: String,
    pub must: Must,
    pub wall: Duration,
    /// Processor time it may use.
    pub cpu: Duration,
    text: String,
}

/// All, by name.
pub fn all() -> Vec<Guest> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/guests");
    let mut guests: Vec<Guest> =
        std::fs::read_dir(dir).unwrap().map(|entry| Guest::read(&entry.unwrap().path())).collect();
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    guests
}

impl Guest {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let tag = |tag: &str| text.lines().find_map(|line| line.strip_prefix(tag)).map(str::trim);
        let must = match (tag(";; ends:"), tag(";; refused:")) {
            (Some(ends), None) => Must::End(ends.split(" or ").map(str::to_owned).collect()),
            (None, Some(text)) => Must::BeRefused(text.to_owned()),
            _ => panic!("{name} says neither how it ends nor why it is refused"),
        };
        let sleeps = matches!(&must, Must::End(ends) if ends.iter().any(|e| e == "exhausted deadline"));
        let wall = if sleeps { Duration::from_millis(300) } else { Duration::from_secs(30) };
        let cpu = tag(";; cpu-ms:").map_or(50, |ms| ms.parse().unwrap());
        let cpu = Duration::from_millis(cpu);
        Self { name, must, wall, cpu, text }
    }

    /// One that is no file: for fuzzing.
    #[allow(dead_code, reason = "the fuzz target makes them")]
    pub fn of(name: &str, text: &str) -> Self {
        let must = Must::End(Vec::new());
        Self {
            name: name.to_owned(),
            must,
            wall: Duration::from_secs(1),
            cpu: Duration::from_millis(50),
            text: text.to_owned(),
        }
    }

    /// As bytes, with a manifest.
    pub fn component(&self) -> Vec<u8> {
        let has = |tag: &str| self.text.lines().any(|line| line == tag);
        if has(";; component") {
            let bytes = wat::parse_str(&self.text).unwrap_or_else(|e| panic!("{}: {e}", self.name));
            return section::append(&bytes, MANIFEST);
        }
        let memory = if has(";; own: memory") { "" } else { MEMORY };
        let realloc = if has(";; own: realloc") { "" } else { REALLOC };
        let wat = format!("(module {IMPORTS}{memory}{HELPERS}{realloc}\n{}\n)", self.text);
        let mut module = wat::parse_str(&wat).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let (resolve, world) = contract();
        embed_component_metadata(&mut module, resolve, *world, StringEncoding::UTF8).unwrap();
        let component = ComponentEncoder::default()
            .module(&module)
            .and_then(|mut encoder| encoder.encode())
            .unwrap_or_else(|e| panic!("{}: {e:#}", self.name));
        section::append(&component, MANIFEST)
    }
}

fn contract() -> &'static (Resolve, WorldId) {
    static CONTRACT: OnceLock<(Resolve, WorldId)> = OnceLock::new();
    CONTRACT.get_or_init(|| {
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
        let mut resolve = Resolve::default();
        resolve.push_path(wit.join("common")).unwrap();
        let (script, _) = resolve.push_path(wit.join("script")).unwrap();
        let world = resolve.select_world(&[script], Some("script")).unwrap();
        (resolve, world)
    })
}
