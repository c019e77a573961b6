//! `-d DIR`: a file per table. A file appears under its name once it is whole; of a run that failed under another, so that what
//! was there before stays.

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::style::Terminal;

use super::human::{bytes_text, plural};
use super::single::Single;
use super::{Format, Head, Options, Summary, Writer, arrow_ipc};

pub struct Files {
    directory: PathBuf,
    options: Options,
    terminal: Terminal,
    tables: Vec<Table>,
}

struct Table {
    path: PathBuf,
    file: NamedTempFile,
    writer: Box<dyn Writer>,
    rows: u64,
}

impl Files {
    pub fn create(directory: &Path, options: &Options, terminal: Terminal) -> Result<Self> {
        std::fs::create_dir_all(directory)
            .map_err(|e| Error::io(format!("create the directory {}", directory.display()), &e))?;
        // Each file holds one table, whose name it bears.
        let options = Options { one_table: true, directory: None, ..options.clone() };
        Ok(Files { directory: directory.to_owned(), options, terminal, tables: Vec::new() })
    }
}

/// A table's name as a file's: a script chooses it, so nothing in it may lead out of the directory.
fn file_name(table: &str, extension: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '_' };
    let name: String = table.chars().map(safe).take(100).collect();
    let name = name.trim_start_matches('.');
    format!("{}.{extension}", if name.is_empty() { "table" } else { name })
}

/// `http_events.partial.csv`
fn partial(path: &Path) -> PathBuf {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    path.with_extension(format!("partial.{extension}"))
}

impl Writer for Files {
    fn table(&mut self, table: usize, head: &Head) -> Result<()> {
        let mut name = file_name(&head.name, self.options.format.extension());
        if self.tables.iter().any(|other| other.path.ends_with(&name)) {
            name = format!("{table}-{name}");
        }
        let path = self.directory.join(name);
        let doing = || format!("write {}", path.display());
        // As open other users may read it as any file that is created here.
        let file = tempfile::Builder::new()
            .prefix(".px-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(&self.directory)
            .map_err(|e| Error::io(doing(), &e))?;
        let out = BufWriter::new(file.reopen().map_err(|e| Error::io(doing(), &e))?);
        let plain = Terminal { out: crate::style::Style::plain(), out_tty: false, ..self.terminal };
        let mut writer: Box<dyn Writer> = match self.options.format {
            Format::Arrow => Box::new(Single::new(arrow_ipc::File::new(out), &self.options)),
            _ => super::to(&self.options, out, &plain)?,
        };
        writer.table(0, head)?;
        self.tables.push(Table { path, file, writer, rows: 0 });
        Ok(())
    }

    fn batch(&mut self, table: usize, batch: RecordBatch) -> Result<()> {
        let table = &mut self.tables[table];
        table.rows += batch.num_rows() as u64;
        table.writer.batch(0, batch)
    }

    fn finish(&mut self, summary: &Summary) -> Result<()> {
        for mut table in self.tables.drain(..) {
            table.writer.finish(summary)?;
            drop(table.writer);
            let bytes = table.file.as_file().metadata().map(|m| m.len()).unwrap_or(0);
            let whole = summary.error.is_none() || summary.will_do;
            let path = if whole { table.path } else { partial(&table.path) };
            table.file.persist(&path).map_err(|e| Error::io(format!("write {}", path.display()), &e.error))?;
            let what = format!("{}, {}", plural(table.rows, "row"), bytes_text(bytes));
            self.terminal.note(&format!("{}  {}", path.display(), self.terminal.err.dim(&what)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{file_name, partial};

    #[test]
    fn what_a_failed_run_left_has_a_name_of_its_own() {
        assert_eq!(partial("out/http_events.csv".as_ref()), std::path::Path::new("out/http_events.partial.csv"));
        assert_eq!(partial("a.b.parquet".as_ref()), std::path::Path::new("a.b.partial.parquet"));
    }

    #[test]
    fn a_table_name_cannot_leave_the_directory() {
        assert_eq!(file_name("http_events", "csv"), "http_events.csv");
        assert_eq!(file_name("../../etc/passwd", "csv"), "_.._etc_passwd.csv");
        assert_eq!(file_name("..", "csv"), "table.csv");
        assert_eq!(file_name("kafka_events.beta", "csv"), "kafka_events.beta.csv");
    }
}
