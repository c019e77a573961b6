//! `px sql`.

use clap::Args;
use vizier_api::execute_request::What;

use crate::cli::Global;
use crate::client::connect;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::query::driver;
use crate::query::request::ResultArgs;

/// Ask with SQL
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  px sql \"select time_, req_method, req_path, resp_status, latency from http_events order by time_ desc limit 10\"
  px sql \"select remote_addr, sum(bytes_sent) sent from conn_stats group by 1 order by sent desc\" --since 10m
  px sql \"select count(*) n from http_events\" --follow
  px sql - -o json < query.sql

Tables and their columns: px tables, px tables http_events. The range (--since) applies to every table of the query.")]
pub struct Sql {
    /// The query, or - to read it from stdin
    #[arg(value_name = "QUERY")]
    pub query: String,

    #[command(flatten)]
    pub result: ResultArgs,
}

pub async fn run(command: Sql, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let query = match command.query.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()).map_err(|e| Error::io("read stdin", &e))?,
        text => text.to_owned(),
    };
    if query.trim().is_empty() {
        return Err(Error::usage("the query is empty").hint("px tables shows what there is to ask about"));
    }
    let title = query.split_whitespace().collect::<Vec<_>>().join(" ");
    let job = command.result.job(What::Sql(query), title, &terminal)?;
    let client = connect(global.vizier.as_ref()).await?;
    driver::run(client, job, terminal).await
}
