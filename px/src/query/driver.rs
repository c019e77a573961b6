//! Carries a run through: sends the request, hands what arrives to the writer, ends it everywhere on Ctrl-C, and says what is
//! missing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use host_manifest::View;
use serde_json::json;
use tonic::Streaming;
use vizier_api::execute_response::Event;
use vizier_api::status::Code as StatusCode;
use vizier_api::{
    CancelRequest, Completeness, ExecuteResponse, Finished, Log, RoundFinished, Statistics, Status, TableStarted, ipc,
};

use crate::client::{self, Client};
use crate::error::{Code, Error, Position, Result};
use crate::exit::Exit;
use crate::output::human::{duration_text, plural};
use crate::output::text::sanitize;
use crate::output::{self, Format, Head, Summary, Writer};
use crate::signals::Interrupts;
use crate::style::{Terminal, Tone};

use super::completeness::{self, Notes};
use super::request::{Job, LIMIT_ROWS_DEFAULT};
use super::selection::{Part, Selection};
use super::statistics;

/// After Ctrl-C the run has this long to say that it has ended; then px goes away, and dropping the stream ends it too.
const CANCEL_GRACE: Duration = Duration::from_secs(2);
/// Vizier ends a run at its timeout and sends what it has; a Vizier that does not is given up after this much more.
const TIMEOUT_GRACE: Duration = Duration::from_secs(5);

pub async fn run(client: Client, job: Job, terminal: Terminal) -> Result<Exit> {
    let writer = output::open(&job.options, &terminal)?;
    run_into(client, job, terminal, writer).await
}

/// The same, with the result going to a writer of the caller's.
pub async fn run_into(client: Client, job: Job, terminal: Terminal, writer: Box<dyn Writer>) -> Result<Exit> {
    let mut interrupts = Interrupts::new()?;
    // A limit that somebody set does what they want; only one that they may not know of is worth a remark.
    let limit = (job.request.limit_rows == 0).then_some(LIMIT_ROWS_DEFAULT);
    let timeout = (job.request.timeout_ms > 0).then(|| Duration::from_millis(job.request.timeout_ms));
    let run = Run {
        client,
        terminal,
        writer,
        selection: job.selection,
        format: job.options.format,
        follow: job.options.follow,
        limit,
        allow_partial: job.allow_partial,
        stats: job.stats,
        run_id: None,
        tables: HashMap::new(),
        shown: 0,
        round: 0,
        rows: 0,
        last_notes: Notes::default(),
    };
    let mut calling = run.client.clone();
    let stream = tokio::select! {
        stream = calling.execute(job.request) => stream.map_err(client::status)?.into_inner(),
        () = interrupts.next() => return Ok(Exit::Interrupted),
        () = late(timeout) => return Err(run.too_late()),
    };
    run.follow_stream(stream, interrupts, timeout).await
}

/// Ends when a run with a timeout is overdue; never without one.
async fn late(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout + TIMEOUT_GRACE).await,
        None => std::future::pending().await,
    }
}

struct Run {
    client: Client,
    terminal: Terminal,
    writer: Box<dyn Writer>,
    selection: Selection,
    format: Format,
    follow: bool,
    limit: Option<u64>,
    allow_partial: bool,
    stats: bool,
    run_id: Option<String>,
    /// By Vizier's number: the writer's number and what is wanted; `None` when nothing of that table is.
    tables: HashMap<u32, Option<(usize, Part)>>,
    shown: usize,
    round: u64,
    rows: u64,
    last_notes: Notes,
}

impl Run {
    async fn follow_stream(
        mut self,
        mut stream: Streaming<ExecuteResponse>,
        mut interrupts: Interrupts,
        timeout: Option<Duration>,
    ) -> Result<Exit> {
        let mut overdue = Box::pin(late(timeout));
        loop {
            let message = tokio::select! {
                biased;
                () = interrupts.next() => return self.interrupted(stream, interrupts).await,
                () = &mut overdue => return Err(self.too_late()),
                message = stream.message() => message.map_err(client::status)?,
            };
            // The timeout is that of a round; who follows goes on for ever.
            if matches!(message.as_ref().and_then(|m| m.event.as_ref()), Some(Event::Round(_))) {
                overdue = Box::pin(late(timeout));
            }
            match message.and_then(|message| message.event) {
                Some(Event::Finished(finished)) => return self.finished(finished),
                Some(event) => self.event(event)?,
                None => {
                    return Err(Error::new(
                        Code::Unavailable,
                        "the result was cut off: Vizier closed the stream before its end",
                    )
                    .hint("Vizier may have been restarted; run it again"));
                }
            }
        }
    }

    fn event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Started(started) => self.run_id = Some(started.run_id),
            Event::Table(table) => self.table(table)?,
            Event::Batch(batch) => {
                let Some(table) = self.tables.get(&batch.table) else {
                    return Err(Error::internal(format!(
                        "Vizier sent rows of table {}, which it did not announce",
                        batch.table
                    )));
                };
                let Some((table, part)) = table else { return Ok(()) };
                let batches = ipc::decode_batches(&batch.ipc)
                    .map_err(|e| Error::internal(format!("Vizier sent a batch that is none: {e}")))?;
                for batch in batches {
                    self.rows += batch.num_rows() as u64;
                    self.writer.batch(*table, part.of(batch)?)?;
                }
            }
            Event::Log(log) => self.log(&log),
            Event::Round(round) => self.round(round)?,
            Event::Finished(_) => unreachable!("handled by the caller"),
        }
        Ok(())
    }

    fn table(&mut self, table: TableStarted) -> Result<()> {
        let schema = ipc::decode_schema(&table.schema)
            .map_err(|e| Error::internal(format!("Vizier sent a schema that is none: {e}")))?;
        if table.round > self.round {
            // A new round: its tables replace those of the last.
            self.round = table.round;
            self.tables.clear();
            self.shown = 0;
            self.rows = 0;
        }
        let part = self.selection.part(&table.name, &schema);
        let slot = match part {
            None => None,
            Some(part) => {
                let head = Head {
                    name: table.name,
                    schema: part.schema.clone(),
                    round: table.round,
                    // How something is shown is never a reason not to show it.
                    view: View::from_json(&table.view).ok().map(Arc::new),
                    columns_chosen: part.columns_chosen(),
                };
                self.writer.table(self.shown, &head)?;
                self.shown += 1;
                Some((self.shown - 1, part))
            }
        };
        self.tables.insert(table.table, slot);
        Ok(())
    }

    fn log(&self, log: &Log) {
        let tone = match log.level.as_str() {
            "error" => Tone::Bad,
            "warn" => Tone::Warn,
            "info" if !self.terminal.quiet => Tone::Dim,
            "debug" if self.terminal.verbose >= 1 => Tone::Dim,
            "trace" if self.terminal.verbose >= 2 => Tone::Dim,
            _ => return,
        };
        // Over a display that redraws itself, a line in between would tear it.
        if self.writer.shows_notes() && tone == Tone::Dim {
            return;
        }
        if self.format.for_programs() {
            eprintln!("{}", json!({ "log": { "level": log.level, "message": log.message } }));
        } else {
            let level = self.terminal.err.paint(tone, &format!("script {}:", sanitize(&log.level)));
            eprintln!("{level} {}", sanitize(&log.message));
        }
    }

    fn round(&mut self, round: RoundFinished) -> Result<()> {
        // Once a round is over, what was asked for by name must have come.
        self.selection.check()?;
        let completeness = round.completeness.unwrap_or_default();
        let notes = completeness::notes(&completeness, self.limit);
        self.round = self.round.max(round.round);
        let summary = self.summary(&completeness, &round.statistics.unwrap_or_default(), &notes, None);
        self.writer.round(&summary)?;
        // The same remark each second would bury the rows.
        if notes != self.last_notes && !self.writer.shows_notes() {
            self.print_notes(&notes, &completeness);
        }
        self.last_notes = notes;
        Ok(())
    }

    fn summary(
        &self,
        completeness: &Completeness,
        statistics: &Statistics,
        notes: &Notes,
        error: Option<&Error>,
    ) -> Summary {
        Summary {
            complete: !notes.partial() && error.is_none(),
            completeness: completeness::to_json(completeness),
            statistics: statistics::to_json(statistics),
            error: error.map(|error| error.to_json()["error"].take()),
            will_do: false,
            notes: notes.missing.iter().chain(&notes.remarks).cloned().collect(),
        }
    }

    fn finished(mut self, finished: Finished) -> Result<Exit> {
        let completeness = finished.completeness.unwrap_or_default();
        let statistics = finished.statistics.unwrap_or_default();
        let notes = completeness::notes(&completeness, self.limit);
        let error = finished.status.and_then(failure);
        if error.is_none() {
            self.selection.check()?;
        }
        // A run that failed at once has no result, not an empty one.
        if error.is_none() || !self.tables.is_empty() {
            let will_do = error.as_ref().is_some_and(|error| self.will_do(error));
            let summary = Summary { will_do, ..self.summary(&completeness, &statistics, &notes, error.as_ref()) };
            self.writer.finish(&summary)?;
        }
        drop(self.writer_taken());
        if notes != self.last_notes {
            self.print_notes(&notes, &completeness);
        }
        if self.stats && !self.format.for_programs() {
            eprint!("{}", statistics::render(&statistics, self.terminal.err));
        } else if self.stats && self.format == Format::Ndjson {
            eprintln!("{}", json!({ "statistics": statistics::to_json(&statistics) }));
        }
        match error {
            Some(error) if self.will_do(&error) => {
                self.terminal.warn(&sanitize(&error.message));
                Ok(Exit::Ok)
            }
            Some(error) => Err(error),
            None => {
                self.footer(&statistics);
                Ok(if notes.partial() && !self.allow_partial { Exit::Partial } else { Exit::Ok })
            }
        }
    }

    /// Whether an end before its time is what was asked for.
    fn will_do(&self, error: &Error) -> bool {
        self.allow_partial && matches!(error.code, Code::Exhausted | Code::TimedOut)
    }

    /// The display is put in order before anything is printed below it.
    fn writer_taken(&mut self) -> Box<dyn Writer> {
        std::mem::replace(&mut self.writer, Box::new(output::Nothing))
    }

    fn print_notes(&self, notes: &Notes, completeness: &Completeness) {
        if notes.missing.is_empty() && notes.remarks.is_empty() {
            return;
        }
        if self.format.for_programs() {
            let partial = notes.partial();
            eprintln!("{}", json!({ "partial": partial, "completeness": completeness::to_json(completeness) }));
            return;
        }
        if notes.partial() {
            self.terminal.warn("the result is partial:");
            for note in &notes.missing {
                eprintln!("  {}", sanitize(note));
            }
        }
        for note in &notes.remarks {
            self.terminal.note(&format!("{} {}", self.terminal.err.hint("note:"), sanitize(note)));
        }
    }

    fn footer(&self, statistics: &Statistics) {
        let terminal = &self.terminal;
        if self.format != Format::Table || self.follow {
            return;
        }
        if self.rows == 0 {
            terminal.note(&terminal.err.dim("no rows in this range; --since 1h looks further back"));
        } else if terminal.err_tty {
            let rows = plural(self.rows, "row");
            terminal.note(&terminal.err.dim(&format!("{rows} in {}", duration_text(statistics.total_ns))));
        }
    }

    /// Ctrl-C: the run ends everywhere, then px does. A second one does not wait.
    async fn interrupted(mut self, mut stream: Streaming<ExecuteResponse>, mut interrupts: Interrupts) -> Result<Exit> {
        let cancel = async {
            let Some(run_id) = self.run_id.clone() else { return };
            // A run that is over by now is as good as cancelled.
            let _ = self.client.cancel(CancelRequest { run_id }).await;
            // The end of the stream says that it has stopped.
            while let Ok(Some(message)) = stream.message().await {
                if matches!(message.event, Some(Event::Finished(_))) {
                    return;
                }
            }
        };
        let stopped = tokio::select! {
            () = cancel => true,
            () = interrupts.again() => false,
            () = tokio::time::sleep(CANCEL_GRACE) => false,
        };
        if self.follow {
            self.writer.finish(&Summary::default())?;
        }
        drop(self.writer_taken());
        if !stopped {
            self.terminal
                .warn("Vizier did not confirm that the run has ended; it ends when it notices that px is gone");
        } else if !self.follow {
            self.terminal.note("cancelled");
        }
        Ok(Exit::Interrupted)
    }

    fn too_late(&self) -> Error {
        Error::new(Code::TimedOut, "Vizier did not answer within the timeout")
            .hint("px agents tells whether all is well")
    }
}

/// What a status says went wrong, if anything.
fn failure(status: Status) -> Option<Error> {
    let code = match status.code() {
        StatusCode::Ok => return None,
        StatusCode::Failed => Code::Invalid,
        StatusCode::Cancelled => Code::Cancelled,
        StatusCode::Exhausted => Code::Exhausted,
        StatusCode::TimedOut => Code::TimedOut,
        StatusCode::Internal => Code::Internal,
    };
    let message = match (status.message.as_str(), code) {
        ("", Code::Exhausted) => format!("the run used up its budget of {}", status.exhausted),
        ("", Code::TimedOut) => "the run reached its timeout".to_owned(),
        ("", Code::Cancelled) => "the run was cancelled".to_owned(),
        ("", _) => "the run failed".to_owned(),
        (message, _) => message.to_owned(),
    };
    let position = status.position.filter(|p| p.line > 0 && !p.text.is_empty()).map(|p| Position {
        text: p.text,
        line: p.line,
        column: p.column,
    });
    Some(Error::new(code, message).hint_some(Some(status.hint).filter(|hint| !hint.is_empty())).at(position))
}
