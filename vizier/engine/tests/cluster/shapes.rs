//! Shapes of queries: the result over any number of agents is that of a single node.

use super::data;
use super::harness::{Cluster, lines};
use vizier_engine::EngineConfig;

enum Compare {
    /// The same rows.
    Rows,
    /// The same rows in the same order.
    Order,
    /// As many rows: which ones is not determined.
    Count,
}
use Compare::{Count, Order, Rows};

const SHAPES: &[(&str, Compare, &str)] = &[
    ("group by", Rows, "select local_addr, count(*) c, sum(resp_status) s from http_events group by local_addr"),
    (
        "avg",
        Rows,
        "select local_addr, avg(latency) a, min(latency) mi, max(latency) ma, stddev(latency) sd from http_events group by local_addr",
    ),
    (
        "quantiles",
        Rows,
        "select local_addr, quantile(latency, 0.5) p50, quantile(latency, 0.9) p90, quantile(latency, 0.99) p99, count(*) c from http_events group by local_addr",
    ),
    ("one quantile", Rows, "select quantile(latency, 0.99) from http_events"),
    (
        "quantile filter",
        Rows,
        "select local_addr, quantile(latency, 0.5) filter (where resp_status = 500) a, quantile(latency, 0.5) b from http_events group by 1",
    ),
    ("distinct", Rows, "select distinct local_addr, resp_status from http_events"),
    (
        "count distinct",
        Rows,
        "select resp_status, count(distinct req_path) d, count(*) c from http_events group by resp_status",
    ),
    (
        "top k",
        Order,
        "select time_, upid_string(upid) u, latency from http_events order by latency desc, time_ limit 10",
    ),
    (
        "group order limit",
        Order,
        "select req_path, count(*) c from http_events group by req_path order by c desc, req_path limit 5",
    ),
    (
        "time filter",
        Rows,
        "select local_addr, count(*) from http_events where time_ >= to_timestamp_nanos(1700000001000000000) and time_ < to_timestamp_nanos(1700000003000000000) and resp_status = 500 and req_path like '%7%' group by local_addr",
    ),
    ("count star", Rows, "select count(*) from http_events"),
    ("no rows", Rows, "select count(*), max(latency) from http_events where resp_status = 999"),
    ("limit", Count, "select * from http_events limit 5"),
    ("filter limit", Count, "select local_addr, latency from http_events where resp_status = 500 limit 7"),
    ("limit offset", Order, "select time_, latency from http_events order by time_, latency limit 5 offset 17"),
    (
        "union all",
        Rows,
        "select local_addr k, count(*) c from http_events group by local_addr union all select remote_addr, sum(bytes_sent) from conn_stats group by remote_addr",
    ),
    (
        "aggregate over union",
        Rows,
        "select k, count(*) from (select upid k from http_events union all select upid from conn_stats) group by k",
    ),
    (
        "join of aggregates",
        Rows,
        "select h.resp_status, count(*) c, sum(c.bytes_sent) b from (select local_addr, resp_status, count(*) n from http_events group by local_addr, resp_status) h join conn_stats c on h.resp_status = c.bytes_sent % 2 * 300 + 200 group by h.resp_status",
    ),
    (
        "join by upid",
        Rows,
        "select h.local_addr, c.remote_addr, count(*) n, sum(c.bytes_sent) b from http_events h join conn_stats c on h.upid = c.upid where h.resp_status = 500 and h.latency < 3000000 group by h.local_addr, c.remote_addr",
    ),
    (
        "join by upid, whole aggregate",
        Rows,
        "select h.upid, count(*) n, median(h.latency) m from http_events h join conn_stats c on h.upid = c.upid where h.latency < 3000000 group by h.upid",
    ),
    (
        "left join by upid",
        Rows,
        "select c.upid, count(h.latency) n from conn_stats c left join (select upid, latency from http_events where latency < 1000000) h on h.upid = c.upid group by c.upid",
    ),
    (
        "full join by upid, renamed",
        Rows,
        "select count(*), count(a.k), count(b.k) from (select upid k, max(latency) from http_events where latency < 2000000 group by upid) a full join (select upid k from conn_stats group by upid) b on a.k = b.k",
    ),
    (
        "anti join by upid",
        Rows,
        "select distinct c.upid from conn_stats c where not exists (select 1 from http_events h where h.upid = c.upid and h.latency < 5000000)",
    ),
    (
        "in subquery",
        Rows,
        "select count(*) from http_events where upid in (select upid from conn_stats where bytes_sent > 900000)",
    ),
    (
        "not in",
        Rows,
        "select count(*) from conn_stats where remote_port not in (select remote_port - 40000 from http_events where latency < 200000)",
    ),
    (
        "window",
        Rows,
        "select * from (select local_addr, req_path, c, row_number() over (partition by local_addr order by c desc, req_path) rn from (select local_addr, req_path, count(*) c from http_events group by local_addr, req_path)) where rn <= 2",
    ),
    (
        "window by upid",
        Rows,
        "select upid, time_, latency - lag(latency) over (partition by upid order by time_) d from http_events where latency < 2000000",
    ),
    (
        "window over everything",
        Order,
        "select time_, latency, sum(latency) over (order by time_, latency) from http_events where latency < 500000 order by time_, latency",
    ),
    (
        "scalar subquery",
        Rows,
        "select local_addr, count(*) from http_events where latency > (select avg(latency) from http_events) group by local_addr",
    ),
    (
        "nested scalar subqueries",
        Rows,
        "select (select max(latency) from http_events where latency < (select avg(latency) from http_events)) m, count(*) from conn_stats",
    ),
    (
        "correlated subquery",
        Rows,
        "select count(*) from conn_stats c where bytes_sent > (select avg(bytes_sent) from conn_stats d where d.protocol = c.protocol)",
    ),
    (
        "having, cte",
        Rows,
        "with a as (select local_addr s, avg(latency) l from http_events group by local_addr) select a.s, b.l from a join a b on a.s = b.s where a.l > 49000000",
    ),
    (
        "values join",
        Rows,
        "select h.local_addr, v.t, count(*) from http_events h join (values ('10.1.0.1', 'x'), ('10.1.0.2', 'y'), ('nowhere', 'z')) v(s, t) on h.local_addr = v.s group by h.local_addr, v.t",
    ),
    (
        "values left join",
        Rows,
        "select v.s, count(h.latency) from (values ('10.1.0.1'), ('nowhere')) v(s) left join http_events h on h.local_addr = v.s group by v.s",
    ),
    (
        "values on the right of a left join",
        Rows,
        "select v.t, count(*) from http_events h left join (values ('10.1.0.1', 'x')) v(s, t) on h.local_addr = v.s group by v.t",
    ),
    (
        "cross join of values",
        Rows,
        "select v.x, count(*) from http_events h cross join (values (1), (2)) v(x) group by v.x",
    ),
    (
        "inequality join of values",
        Rows,
        "select v.name, count(*) from http_events h join (values (0, 50000000, 'fast'), (50000000, 1000000000, 'slow')) v(a, b, name) on h.latency >= v.a and h.latency < v.b group by v.name",
    ),
    ("median", Rows, "select local_addr, median(latency) m from http_events group by local_addr"),
    (
        "array_agg",
        Rows,
        "select resp_status, array_sort(array_agg(distinct local_addr)) a from http_events group by resp_status",
    ),
    ("date_bin", Rows, "select date_bin(interval '1 second', time_) t, count(*) from http_events group by 1"),
    (
        "date_trunc by service",
        Rows,
        "select date_trunc('second', time_) t, local_addr, count(*), quantile(latency, 0.5) from http_events group by 1, 2",
    ),
    (
        "grouping sets",
        Rows,
        "select upid, resp_status, count(*) from http_events group by grouping sets ((upid), (resp_status), ())",
    ),
    (
        "case, coalesce",
        Rows,
        "select case when resp_status >= 500 then 'bad' else 'good' end k, count(*), sum(coalesce(nullif(req_body_size, 0), 1)) from http_events group by 1",
    ),
    (
        "own functions",
        Rows,
        "select path_pattern(req_path) p, trace_role_name(trace_role) r, upid_asid(upid) a, count(*), max(upid_pid(upid)), max(upid_start(upid)) from http_events group by 1, 2, 3",
    ),
    (
        "filter by own function",
        Rows,
        "select count(*) from http_events where path_pattern(req_path) = '/api/v1/items/*' and trace_role_name(trace_role) = 'server'",
    ),
    (
        "dictionary in list",
        Rows,
        "select req_method, count(*) from http_events where req_method in ('GET', 'PUT') and local_addr <> '10.1.0.3' group by req_method",
    ),
    (
        "order by without limit",
        Order,
        "select time_, latency from http_events where latency < 1000000 order by latency, time_",
    ),
    (
        "group by upid, top",
        Order,
        "select upid, count(*) c, count(distinct req_path) d from http_events group by upid order by c desc, upid limit 7",
    ),
    ("except", Rows, "select local_addr from http_events except select '10.1.0.4'"),
    ("intersect", Rows, "select upid from http_events intersect select upid from conn_stats"),
    ("only values", Rows, "select a + 1 from (values (1), (2)) v(a)"),
    ("count by asid", Rows, "select upid_asid(upid) a, count(*) from http_events group by 1"),
    (
        "first and last",
        Rows,
        "select req_method, first_value(local_addr order by time_), last_value(latency order by time_), min(req_path), max(req_path) from http_events group by 1",
    ),
    (
        "string_agg",
        Rows,
        "select s, string_agg(m, ',' order by m) from (select distinct resp_status s, req_method m from http_events) group by s",
    ),
    (
        "string functions of dictionaries",
        Rows,
        "select upper(req_method) || '!' u, substr(req_path, 1, 12) s, length(local_addr) l, count(*) from http_events where req_path ilike '%ITEMS/4%' and starts_with(local_addr, '10.1') and local_addr between '10.1.0.1' and '10.1.0.3' group by 1, 2, 3",
    ),
    (
        "group by two dictionaries",
        Rows,
        "select local_addr, req_method, count(*), sum(latency), max(resp_body_size), count(*) filter (where resp_status = 500) from http_events group by 1, 2",
    ),
    (
        "group by three dictionaries",
        Rows,
        "select local_addr, req_method, req_path, count(*), avg(latency) from http_events group by 1, 2, 3",
    ),
    (
        "arithmetic of times",
        Rows,
        "select max(time_) - min(time_) > interval '1 second', date_part('minute', max(time_)) from http_events",
    ),
    (
        "percentile of stock",
        Count,
        "select local_addr, approx_percentile_cont(latency, 0.5) from http_events group by 1",
    ),
    ("corr", Count, "select corr(latency, resp_body_size), covar_samp(latency, resp_status) from http_events"),
    (
        "order by dictionary",
        Order,
        "select local_addr, max(latency) from http_events group by local_addr order by local_addr",
    ),
    (
        "unnest",
        Rows,
        "select k, count(*) from (select unnest(make_array(req_method, req_path)) k from http_events where latency < 2000000) group by k",
    ),
];

async fn all_shapes(agents: u32, rows: u64, per_agent: usize) {
    let stores = (0..agents).map(|agent| data::store(agent, rows)).collect();
    let config = EngineConfig { threads: 2, partitions_per_agent: per_agent, ..EngineConfig::default() };
    let cluster = Cluster::with(stores, config).await;
    let single = cluster.single_node();
    let mut wrong = vec![];
    for (name, compare, sql) in SHAPES {
        let done = match cluster.run(sql).await {
            Ok(done) => done,
            Err(e) => {
                wrong.push(format!("{name}: {e:?}"));
                continue;
            }
        };
        let expected = single.sql(sql).await.unwrap().collect().await.unwrap();
        let (mut got, mut want) = (done.lines(), lines(&expected));
        if !matches!(compare, Order) {
            got.sort();
            want.sort();
        }
        let same = if matches!(compare, Count) { got.len() == want.len() } else { got == want };
        if !same || !done.missing().is_empty() {
            let differing = got.iter().zip(&want).find(|(a, b)| a != b);
            wrong.push(format!(
                "{name}: {} rows for {}, first difference {differing:?}, missing {:?}",
                got.len(),
                want.len(),
                done.missing()
            ));
        }
    }
    assert!(wrong.is_empty(), "{agents} agents, {per_agent} partitions each:\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_agent() {
    all_shapes(1, 6000, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_agents() {
    all_shapes(4, 4000, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_agents_with_two_partitions_each() {
    all_shapes(4, 20_000, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_agents() {
    all_shapes(16, 1000, 1).await;
}
