//! `px tables`.

use arrow::datatypes::SchemaRef;
use clap::Args;
use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};
use vizier_api::{ListTablesRequest, Table, ipc};

use crate::cli::Global;
use crate::client::{self, connect};
use crate::error::{Code, Error, Result};
use crate::exit::Exit;
use crate::output::grid::Grid;
use crate::output::human::{bytes_text, count, duration_text, time_utc};
use crate::output::meaning::{DESCRIPTION, SEMANTIC, UNIT, type_name};
use crate::output::text::sanitize;
use crate::style::{Terminal, Tone};
use crate::suggest;
use crate::when::now_ns;

use super::listing::{ListArgs, ListFormat, print};

/// List the tables, or the columns of one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  px tables                 every table, how much it holds and how far back
  px tables http_events     its columns, with types, units and what they mean")]
pub struct Tables {
    /// Show the columns of this table
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(super::completion::tables))]
    pub name: Option<String>,

    #[command(flatten)]
    pub list: ListArgs,
}

pub async fn run(command: Tables, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let mut client = connect(global.vizier.as_ref()).await?;
    let reply = client.list_tables(ListTablesRequest::default()).await.map_err(client::status)?;
    let mut tables = reply.into_inner().tables;
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    let Some(name) = &command.name else {
        if tables.is_empty() {
            terminal.note("no tables: no agent is connected (px agents)");
        }
        let items = tables.iter().map(|table| to_json(table, None)).collect();
        command.list.print(&terminal, "tables", items, || overview(&tables))?;
        if command.list.output == ListFormat::Table && terminal.out_tty && !tables.is_empty() {
            terminal.note(&terminal.err.dim("px tables NAME shows the columns of one"));
        }
        return Ok(Exit::Ok);
    };
    let Some(table) = tables.iter().find(|table| table.name == *name) else {
        let hint = suggest::hint(name, tables.iter().map(|table| table.name.as_str()));
        return Err(Error::new(Code::NotFound, format!("there is no table named {name}"))
            .hint(hint.unwrap_or_else(|| "px tables lists what there is".to_owned())));
    };
    let schema = ipc::decode_schema(&table.schema)
        .map_err(|e| Error::internal(format!("Vizier sent a schema that is none: {e}")))?;
    match command.list.output {
        ListFormat::Table => one(table, &schema, &terminal, &command.list)?,
        ListFormat::Json => print(&format!("{:#}\n", to_json(table, Some(&schema))))?,
        ListFormat::Ndjson => print(&format!("{}\n", to_json(table, Some(&schema))))?,
    }
    Ok(Exit::Ok)
}

/// Sums over the agents: rows, bytes, budget, oldest and newest time (0 when empty).
fn totals(table: &Table) -> (u64, u64, u64, i64, i64) {
    let sum = |get: fn(&vizier_api::TableOnAgent) -> u64| table.agents.iter().map(get).sum();
    let oldest = table.agents.iter().map(|a| a.oldest_time_ns).filter(|ns| *ns > 0).min().unwrap_or(0);
    let newest = table.agents.iter().map(|a| a.newest_time_ns).max().unwrap_or(0);
    (sum(|a| a.rows), sum(|a| a.bytes), sum(|a| a.budget_bytes), oldest, newest)
}

fn overview(tables: &[Table]) -> Grid {
    let now = now_ns();
    let mut grid =
        Grid::new([("name", false), ("rows", true), ("size", true), ("reaches back", true), ("holds", false)]);
    for table in tables {
        let (rows, bytes, _, oldest, _) = totals(table);
        grid.push(&sanitize(&table.name), Tone::Bold);
        grid.push(&count(rows), if rows == 0 { Tone::Dim } else { Tone::Plain });
        grid.push(&bytes_text(bytes), if rows == 0 { Tone::Dim } else { Tone::Plain });
        match (rows, now.checked_sub(oldest)) {
            (1.., Some(age @ 0..)) => grid.push(&duration_text(age as u64), Tone::Plain),
            _ => grid.push("-", Tone::Dim),
        }
        grid.push(&sanitize(first_sentence(&table.description)), Tone::Plain);
    }
    grid
}

fn first_sentence(text: &str) -> &str {
    let text = text.trim();
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.')
}

fn one(table: &Table, schema: &SchemaRef, terminal: &Terminal, list: &ListArgs) -> Result<()> {
    let style = terminal.out;
    let (rows, bytes, budget, oldest, _) = totals(table);
    let mut text = format!("{}  {}\n", style.bold(&sanitize(&table.name)), sanitize(table.description.trim()));
    let mut facts = format!("{} rows, {}", count(rows), bytes_text(bytes));
    if budget > 0 {
        facts.push_str(&format!(" of {}", bytes_text(budget)));
    }
    if let (1.., Some(age @ 0..)) = (rows, now_ns().checked_sub(oldest)) {
        facts.push_str(&format!(", reaching back {}", duration_text(age as u64)));
    }
    if table.agents.len() > 1 {
        facts.push_str(&format!(", on {} agents", table.agents.len()));
    }
    text.push_str(&format!("{}\n\n", style.dim(&facts)));
    let mut grid =
        Grid::new([("column", false), ("type", false), ("semantic", false), ("unit", false), ("description", false)]);
    for field in schema.fields() {
        let tag = |key: &str| field.metadata().get(key).map_or("", String::as_str);
        grid.push(&sanitize(field.name()), Tone::Bold);
        grid.push(&type_name(field.data_type()), Tone::Plain);
        grid.push(&sanitize(tag(SEMANTIC)), Tone::Plain);
        grid.push(&sanitize(tag(UNIT)), Tone::Plain);
        grid.push(&sanitize(tag(DESCRIPTION)), Tone::Plain);
    }
    let layout = grid.layout(terminal.size().map(|(width, _)| width));
    if !list.no_headers {
        grid.header(&layout, style, &mut text);
    }
    grid.body(&layout, style, 0..grid.rows(), &mut text);
    let order = if schema.index_of("time_").is_ok() { " order by time_ desc" } else { "" };
    let example = format!("px sql \"select * from {}{order} limit 10\"", table.name);
    text.push_str(&format!("\n{}\n", style.dim(&sanitize(&example))));
    print(&text)
}

fn to_json(table: &Table, schema: Option<&SchemaRef>) -> Value {
    let time = |ns: i64| {
        let mut text = String::new();
        time_utc(&mut text, ns);
        if ns > 0 { Value::from(text) } else { Value::Null }
    };
    let (rows, bytes, budget, oldest, newest) = totals(table);
    let agents = table.agents.iter().map(|agent| {
        json!({
            "agent": agent.agent,
            "rows": agent.rows,
            "bytes": agent.bytes,
            "budget_bytes": agent.budget_bytes,
            "oldest_time": time(agent.oldest_time_ns),
            "newest_time": time(agent.newest_time_ns),
            "rows_expired": agent.rows_expired,
        })
    });
    let mut value = json!({
        "name": table.name,
        "description": table.description,
        "rows": rows,
        "bytes": bytes,
        "budget_bytes": budget,
        "oldest_time": time(oldest),
        "newest_time": time(newest),
        "agents": agents.collect::<Vec<_>>(),
    });
    if let Some(schema) = schema {
        let columns = schema.fields().iter().map(|field| {
            let tag = |key: &str| field.metadata().get(key);
            json!({
                "name": field.name(),
                "type": type_name(field.data_type()),
                "semantic": tag(SEMANTIC),
                "unit": tag(UNIT),
                "description": tag(DESCRIPTION),
                "nullable": field.is_nullable(),
            })
        });
        value["columns"] = columns.collect();
    }
    value
}
