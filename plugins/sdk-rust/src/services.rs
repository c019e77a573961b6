//! Which service a process is.
//!
//! A service is what a person calls the program: the systemd unit where the process runs in one of its own, else the
//! program's name; an interpreter goes by the script it runs, and a process in a container has the start of the container's
//! id behind it. `nginx`, `postgresql@15-main/postgres`, `server.py`, `shop-cart`, `redis-server@3f2a41c07b9e`.

use crate::error::Result;
use crate::expr::{Expr, expr};
use crate::frame::Frame;
use crate::{clock, col};

/// Programs that run other programs' text.
const INTERPRETERS: &str = "^(python[0-9.]*|pypy3?|node|nodejs|ruby[0-9.]*|perl|php[0-9.]*|java|deno|bun)$";

/// What a person calls the program, from the columns of `processes`.
fn program() -> String {
    // The first argument that is no option and looks like a file; for java the class or the jar comes last of the options, so the
    // same rule finds it.
    let script = "regexp_replace(regexp_replace(cmdline, '^[^ ]+( +-[^ ]+)* +', ''), '[ ].*$', '')";
    let base = format!("regexp_replace({script}, '^.*/', '')");
    let exe = "regexp_replace(exe, '^.*/', '')";
    // `comm` is cut at 15 bytes; where it is the start of the executable's name, that is the whole of it.
    let name = format!("CASE WHEN exe <> '' AND starts_with({exe}, comm) THEN {exe} ELSE comm END");
    // A program given on the command line (`python3 -c …`, `node -e …`) has no name of its own: what stands there is its text.
    let names_file = format!("{base} ~ '^[A-Za-z0-9._@+-]+$' AND NOT cmdline ~ '^[^ ]+ +([^ ]+ +)?-(c|e|p|-eval|-print) '");
    format!(
        "CASE WHEN comm ~ '{INTERPRETERS}' AND cmdline ~ '^[^ ]+( +-[^ ]+)* +[^- ]' AND {names_file} THEN {base} ELSE {name} END"
    )
}

/// Every process the nodes know of, once: `upid`, `service`, `pid`, `comm`, `exe`, `cmdline`, `container_id`, `systemd_unit`,
/// `started_at`, `exited`. Reads `processes`, which the manifest must name; join it with other tables on `upid`.
///
/// Looks at all of the past and not only at the query's range: a process is written down when it starts.
pub fn processes() -> Result<Frame> {
    let last = |column: &str| expr(format!("last_value({column} ORDER BY time_)")).named(column);
    let columns = ["pid", "comm", "exe", "cmdline", "container_id", "systemd_unit", "started_at", "exited"];
    let unit = "regexp_replace(systemd_unit, '[.]service$', '')";
    // Units that hold whatever someone starts name no service: scopes, a user's manager.
    let own_unit = "systemd_unit LIKE '%.service' AND systemd_unit NOT LIKE 'user@%'";
    let container = "CASE WHEN container_id <> '' THEN concat('@', substr(container_id, 1, 12)) ELSE '' END";
    Frame::of_range("processes", 0..clock::range_ns().end)?
        .aggregate([col("upid")], columns.map(last))?
        .with_columns([expr(program()).named("program")])?
        .with_columns([expr(format!(
            "CASE WHEN container_id <> '' THEN concat(program, {container}) \
             WHEN NOT ({own_unit}) OR {unit} = program THEN program \
             ELSE concat({unit}, '/', program) END"
        ))
        .named("service")])?
        .without(["program"])
}

/// The frame with a column `service`, for frames with a column `upid`. A process that nothing is known of goes by its upid.
pub fn with_service(frame: &Frame) -> Result<Frame> {
    let names = processes()?.select([col("upid").named("service_upid"), col("service").named("known_service")])?;
    frame
        .join(&names, crate::JoinKind::Left, [("upid", "service_upid")])?
        .with_columns([expr("coalesce(known_service, upid_string(upid))").named("service")])?
        .without(["service_upid", "known_service"])
}

/// The condition that keeps one end's rows of tables with a `trace_role`: `server`, `client`, or none for anything else.
pub fn side(which: &str) -> Option<Expr> {
    match which {
        "client" => Some(col("trace_role").eq(1)),
        "server" => Some(col("trace_role").eq(2)),
        _ => None,
    }
}
