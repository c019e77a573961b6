//! Queries that are short to write and endless to plan or to run: each ends with a named error, in time, and the engine is as
//! good as before. What a guest can ask for is what is asked for here, without the guest.

use std::sync::Arc;
use std::time::Duration;

use host::backend::{Frame, JoinKind, Named, Op};
use host::error::{Error, Exhausted};
use tokio::time::Instant;
use vizier_engine::policy::AllowAll;

use super::data;
use super::harness::{Cluster, collect, run};

/// Planning is not interrupted; this is the most it may take on a busy machine, optimised little.
const PLANNED_WITHIN: Duration = Duration::from_secs(20);

async fn cluster(agents: u32, rows: u64) -> Cluster {
    Cluster::start((0..agents).map(|agent| data::store(agent, rows)).collect()).await
}

fn invalid(error: Error) -> String {
    match error {
        Error::Invalid { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

/// Applies it again and again, as often as it may, and then runs what came of it.
async fn again_and_again(times: usize, step: impl Fn(usize, &Arc<dyn Frame>) -> Op) -> Result<usize, (usize, String)> {
    let cluster = cluster(2, 100).await;
    let query = cluster.query();
    let mut frame = query.backend().table("http_events", None).unwrap();
    let began = Instant::now();
    let mut refused = None;
    for i in 0..times {
        match frame.apply(&step(i, &frame)) {
            Ok(next) => frame = next,
            Err(e) => {
                refused = Some((i, invalid(e)));
                break;
            }
        }
        assert!(began.elapsed() < PLANNED_WITHIN, "{i} of {times} after {:?}", began.elapsed());
    }
    // The largest that was allowed: it can be walked over, planned, run and dropped, on a small stack.
    frame.sources();
    let rows = collect(query, frame).await.unwrap().rows();
    assert!(began.elapsed() < PLANNED_WITHIN, "{:?}", began.elapsed());
    assert_eq!(cluster.run("select count(*) from http_events").await.unwrap().lines(), ["200"]);
    match refused {
        Some(refused) => Err(refused),
        None => Ok(rows),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_ten_thousand_operators_deep_is_refused_and_the_deepest_allowed_runs() {
    for step in [
        Op::Filter("latency > 0 or latency <= 0".into()),
        Op::Limit { skip: 0, count: 1_000_000 },
        Op::Distinct,
        Op::Select(vec![Named { name: "latency".into(), expr: "latency + 1".into() }]),
    ] {
        let (at, message) = again_and_again(10_000, |_, _| step.clone()).await.unwrap_err();
        assert!(at > 50 && message.contains("operators deep, at most 160 are allowed"), "{at}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_united_with_itself_again_and_again_is_refused() {
    let (at, message) = again_and_again(64, |_, frame| Op::Union(frame.clone())).await.unwrap_err();
    assert!(at < 12 && message.contains("operators, at most 1000"), "{at}: {message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_joined_with_itself_again_and_again_is_refused() {
    let join = |i: usize, frame: &Arc<dyn Frame>| Op::Join {
        right: frame.clone(),
        kind: JoinKind::Inner,
        on: vec![("time_".into(), "time_".into())],
        suffix: format!("_{i}"),
    };
    let (at, message) = again_and_again(64, join).await.unwrap_err();
    assert!(at < 12 && message.contains("columns, at most 2048"), "{at}: {message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_that_grow_when_planned_are_refused() {
    let cluster = cluster(1, 100).await;
    let chain = |first: &str, next: &dyn Fn(usize) -> String, levels: usize, last: &str| {
        let parts: Vec<_> = (1..levels).map(|i| format!("a{i} as ({})", next(i - 1))).collect();
        format!("with a0 as ({first}), {} {last}", parts.join(", "))
    };
    let unions = chain(
        "select 1 as x",
        &|i| format!("select x from a{i} union all select x from a{i}"),
        60,
        "select count(*) from a59",
    );
    let crosses = chain(
        "select 1 as x",
        &|i| format!("select l.x from a{i} l cross join a{i} r"),
        60,
        "select count(*) from a59",
    );
    let subqueries = chain(
        "select 1 as x",
        &|i| format!("select (select max(x) from a{i}) + (select min(x) from a{i}) as x"),
        60,
        "select x from a59",
    );
    for (what, text) in [("unions", unions), ("crosses", crosses), ("subqueries", subqueries)] {
        let began = Instant::now();
        let message = invalid(cluster.run(&text).await.err().expect(what));
        assert!(message.contains("operators, at most 1000"), "{what}: {message}");
        assert!(began.elapsed() < PLANNED_WITHIN, "{what}: {:?}", began.elapsed());
    }
    assert_eq!(cluster.run("select count(*) from http_events").await.unwrap().lines(), ["100"]);
}

/// Planned and dropped on a stack of 2 MiB, as Vizier's threads have it: what overflows it ends the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_that_nest_deep_are_refused_or_run() {
    let cluster = cluster(1, 100).await;
    let many = |part: &str, times: usize| part.repeat(times);
    for (what, text) in [
        ("sums", format!("select 1{}", many("+1", 120_000))),
        (
            "alternatives",
            format!("select count(*) from http_events where latency = 1{}", many(" or latency=1", 18_000)),
        ),
        ("brackets", format!("select {}1{}", many("(", 100_000), many(")", 100_000))),
        ("negations", format!("select {}1", many("- ", 100_000))),
        ("nots", format!("select {}true", many("not ", 60_000))),
        ("subselects", format!("{}select 1 as x{}", many("select x from (", 10_000), many(")", 10_000))),
        ("united", format!("select 1{}", many(" union all select 1", 13_000))),
        ("calls", format!("select {}1{}", many("abs(", 40_000), many(")", 40_000))),
        ("cases", format!("select {}1{}", many("case when true then ", 8_000), many(" end", 8_000))),
        ("arrays", format!("select {}1{}", many("[", 100_000), many("]", 100_000))),
        ("joined", format!("select count(*) from http_events{}", many(" join http_events using (upid)", 8_000))),
        ("strings", format!("select ''{}", many("||'x'", 50_000))),
        ("lists", format!("select 1 in (1{})", many(",1", 120_000))),
        ("casts", format!("select 1{}", many("::bigint", 30_000))),
        ("columns", format!("select 1{}", many(",1", 120_000))),
    ] {
        let began = Instant::now();
        let query = cluster.query_with(Duration::from_secs(5), Arc::new(AllowAll));
        let told = match run(query, &text).await {
            Ok(_) => "ran".to_owned(),
            Err(e) => {
                let text = e.to_string();
                assert!(!matches!(e, Error::Internal(_)), "{what}: {}", &text[..text.len().min(300)]);
                text
            }
        };
        eprintln!("{what}: {:?}: {}", began.elapsed(), &told[..told.floor_char_boundary(100)]);
        assert!(began.elapsed() < PLANNED_WITHIN, "{what}: {:?}", began.elapsed());
    }
    assert_eq!(cluster.run("select count(*) from http_events").await.unwrap().lines(), ["100"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_built_to_blow_up_end_in_time() {
    let cluster = cluster(1, 20_000).await;
    let stars = "%a".repeat(200);
    for (what, condition) in [
        ("nested repeats", "regexp_like(req_path, '(((a{100}){100}){100}){100}')".to_owned()),
        ("backtracking", format!("regexp_like(req_path || '{}', '^(a+)+$')", "a".repeat(5_000))),
        ("alternatives", format!("regexp_like(req_path, '{}x')", "a?".repeat(5_000))),
        ("like with many stars", format!("req_path || '{}' like '{stars}%b'", "a".repeat(5_000))),
        ("like of a column", format!("req_path || '{}' like req_path || '{stars}%b'", "a".repeat(1_000))),
        ("a pattern of each row", "regexp_like(req_path, req_path || '(a{90}){90}')".to_owned()),
    ] {
        let began = Instant::now();
        let query = cluster.query_with(Duration::from_secs(2), Arc::new(AllowAll));
        let result = run(query, &format!("select count(*) from http_events where {condition}")).await;
        let told = match &result {
            Ok(done) => format!("{:?}, missing {:?}", done.lines(), done.missing()),
            Err(e) => e.to_string(),
        };
        eprintln!("{what}: {:?}: {}", began.elapsed(), &told[..told.floor_char_boundary(160)]);
        assert!(!matches!(result, Err(Error::Internal(_))), "{what}: {told}");
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: {:?}", began.elapsed());
        // And nothing of it goes on for long.
        super::harness::within(Duration::from_secs(10), what, || {
            cluster.agents.iter().all(|a| a.activity.fragments_running.load(std::sync::atomic::Ordering::SeqCst) == 0)
        })
        .await;
    }
    assert_eq!(cluster.run("select count(*) from http_events").await.unwrap().lines(), ["20000"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_that_double_at_each_step_are_refused() {
    let cluster = cluster(1, 100).await;
    let doubling = |levels: usize| {
        let steps: Vec<_> = (1..=levels).map(|i| format!("a{i} as (select x + x as x from a{})", i - 1)).collect();
        let first = "with a0 as (select latency as x from http_events)";
        format!("{first}, {} select count(*) from a{levels} where x > 0", steps.join(", "))
    };
    for levels in [20, 40] {
        let began = Instant::now();
        let message = invalid(cluster.run(&doubling(levels)).await.err().expect("it doubles"));
        assert!(message.contains("operations over several steps, at most 16384"), "{levels}: {message}");
        assert!(began.elapsed() < PLANNED_WITHIN, "{levels}: {:?}", began.elapsed());
    }
    assert_eq!(cluster.run(&doubling(8)).await.unwrap().lines(), ["100"]);
    let doubled = |i: usize, _: &Arc<dyn Frame>| match i {
        0 => Op::Select(vec![Named { name: "x".into(), expr: "latency".into() }]),
        _ => Op::Select(vec![Named { name: "x".into(), expr: "x + x".into() }]),
    };
    let (at, message) = again_and_again(60, doubled).await.unwrap_err();
    assert!((8..20).contains(&at) && message.contains("operations over several steps"), "{at}: {message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planning_ends_with_its_run() {
    let cluster = cluster(2, 100).await;
    // Within bounds, and a second or more of work for the optimiser.
    let parts: Vec<_> = (0..150)
        .map(|i| {
            format!("select upid, count(*) as n, max(latency) as m from http_events where latency > {i} group by upid")
        })
        .collect();
    let text = format!("select sum(n), max(m) from ({})", parts.join(" union all "));
    let began = Instant::now();
    cluster.run(&text).await.unwrap();
    let whole = began.elapsed();
    let query = cluster.query();
    let frame = query.backend().sql(&text, &[]).unwrap();
    let cancelling = query.clone();
    let pause = whole / 20;
    // A thread of its own: planning holds the one it is on.
    let cancelled = std::thread::spawn(move || {
        std::thread::sleep(pause);
        cancelling.cancel();
        Instant::now()
    });
    let error = collect(query, frame).await.err().expect("it was cancelled");
    let after = cancelled.join().unwrap().elapsed();
    eprintln!("whole {whole:?}, ended {after:?} after it was cancelled");
    assert!(matches!(error, Error::Cancelled), "{error:?}");
    assert!(after < whole / 2, "{after:?} of {whole:?}");
}

/// What agents cannot read is not asked of them: it runs on Vizier, or is refused by name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_nested_too_deep_to_travel_is_no_missing_agent() {
    for agents in [1, 3] {
        let cluster = cluster(agents, 100).await;
        let query = cluster.query();
        let mut frame = query.backend().table("http_events", None).unwrap();
        for i in 0..70 {
            let step = match i % 2 {
                0 => Op::Limit { skip: 0, count: 1_000_000 - i },
                _ => Op::Filter(format!("latency > -{i}")),
            };
            frame = frame.apply(&step).unwrap();
        }
        let done = collect(query, frame).await.unwrap();
        assert_eq!((done.rows(), done.missing().len()), (100 * agents as usize, 0), "{agents}: {:?}", done.missing());
        // Two steps that become one expression.
        let query = cluster.query();
        let mut frame = query.backend().table("http_events", None).unwrap();
        for column in ["latency", "x"] {
            let expr = format!("{}{column}{}", "abs(".repeat(40), ")".repeat(40));
            frame = frame.apply(&Op::Select(vec![Named { name: "x".into(), expr }])).unwrap();
        }
        match collect(query, frame).await {
            Ok(done) => {
                assert_eq!((done.rows(), done.missing().len()), (100 * agents as usize, 0), "{:?}", done.missing())
            }
            Err(e) => {
                let message = invalid(e);
                assert!(message.contains("nested too deep to travel"), "{agents}: {message}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_match_as_they_did() {
    let cluster = cluster(2, 3_000).await;
    let single = cluster.single_node();
    for condition in [
        "req_path like '%items_%'",
        "req_path not like '/api/%/1%'",
        "req_path ilike '%ITEMS_7%'",
        "req_path not ilike '_A%'",
        "req_path ~ 'items/[0-9]+$'",
        "req_path ~* 'ITEMS/1'",
        "req_path !~ '7|8'",
        "req_path !~* 'API'",
        "req_path similar to '%(items|users)%'",
        "regexp_like(req_path, '[0-9]{2,}')",
        "regexp_replace(req_path, '[0-9]+', 'n') = '/api/v1/items/n'",
        "regexp_count(req_path, '/') > 2",
        "levenshtein(req_path, '/api/v1/items/17') < 3",
        "req_path like local_addr || '%'",
        "local_addr like '10.1.0.%' and req_path like req_path",
        "coalesce(nullif(req_method, 'GET'), req_path) like '%_a%'",
        "nullif(req_path, req_path) like '%_a%' is null",
        "'abc' like '%b_' and 'abc' ~ '^a'",
    ] {
        let text = format!("select count(*) from http_events where {condition}");
        let got = cluster.run(&text).await.unwrap_or_else(|e| panic!("{condition}: {e}"));
        let want = single.sql(&text).await.unwrap().collect().await.unwrap();
        assert_eq!(got.lines(), super::harness::lines(&want), "{condition}");
        assert!(got.missing().is_empty(), "{condition}: {:?}", got.missing());
    }
    // What is computed keeps its name and its type.
    let text = "select regexp_match(req_path, '[a-z]+') is not null, req_path like '%_tems%' from http_events limit 1";
    cluster.run(text).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_out_of_nothing_are_not_made() {
    let cluster = cluster(1, 1_000).await;
    for text in [
        "select length(repeat('x', 2000000000))",
        "select length(repeat(req_path, 100000000)) from http_events",
        "select length(lpad('x', 2000000000, 'y')), length(rpad('x', 2000000000, 'y'))",
        "select count(*) from (select unnest(generate_series(1, 10000000000)))",
        "select count(*) from (select unnest(range(1, 10000000000)))",
        "select array_length(array_repeat(1, 2000000000))",
        "select array_length(array_resize([1], 2000000000, 1))",
        "select length(space(2000000000))",
    ] {
        let began = Instant::now();
        let query = cluster.query_with(Duration::from_secs(5), Arc::new(AllowAll));
        let message = invalid(run(query, text).await.err().expect(text));
        assert!(message.contains("no function `"), "{text}: {message}");
        assert!(began.elapsed() < Duration::from_secs(5), "{text}: {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_that_explode_end_at_the_deadline() {
    let cluster = cluster(2, 5_000).await;
    for text in [
        // No condition that could be hashed, and none at all.
        "select count(*) from http_events a join http_events b on a.latency < b.latency join http_events c on b.latency < c.latency",
        "select sum(a.latency * b.latency - c.latency) from http_events a, http_events b, http_events c",
        // Every row has the same key.
        "select sum(a.latency * b.latency) from http_events a join http_events b on a.remote_port * 0 = b.remote_port * 0 join http_events c on a.remote_port * 0 = c.remote_port * 0",
    ] {
        let began = Instant::now();
        let query = cluster.query_with(Duration::from_millis(500), Arc::new(AllowAll));
        match run(query, text).await {
            Ok(done) => assert!(!done.missing().is_empty(), "{text}: it was to be endless"),
            Err(Error::Exhausted(Exhausted::Deadline | Exhausted::Memory)) => {}
            Err(other) => panic!("{text}: {other:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(8), "{text}: {:?}", began.elapsed());
        super::harness::within(Duration::from_secs(10), text, || {
            cluster.agents.iter().all(|a| a.activity.fragments_running.load(std::sync::atomic::Ordering::SeqCst) == 0)
        })
        .await;
    }
    assert_eq!(cluster.run("select count(*) from http_events").await.unwrap().lines(), ["10000"]);
}
