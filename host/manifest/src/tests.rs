use std::collections::BTreeMap;

use crate::{Manifest, Value, View, nearest, parse_duration};

const MINIMAL: &str = "name = \"errors\"\nversion = \"0.1.0\"\ndescription = \"Requests that failed\"\n";

fn toml(rest: &str) -> Result<Manifest, crate::Error> {
    Manifest::from_toml(&format!("{MINIMAL}{rest}"))
}

#[test]
fn survives_the_way_through_json() {
    let manifest = toml(
        r#"
        tables = ["http_events"]
        follow = "tail"
        [[args]]
        name = "min-latency"
        type = "duration"
        default = "10ms"
        [[outputs]]
        name = "slow"
        [[views]]
        table = "slow"
        columns = [{ name = "latency", format = "duration", width = 9 }]
        sort = { column = "latency", descending = true }
        [budget]
        guest_cpu_ms = 100
        "#,
    )
    .unwrap();
    assert_eq!(Manifest::from_json(manifest.to_json().as_bytes()).unwrap(), manifest);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest() {
    let top = toml("tabels = []").unwrap_err();
    assert_eq!(top.message, "plugin.toml: unknown key `tabels`");
    assert_eq!(top.hint.as_deref(), Some("did you mean `tables`?"));
    let nested = toml("[[args]]\nname = \"a\"\ntype = \"string\"\nchoice = []").unwrap_err();
    assert_eq!(nested.message, "plugin.toml: unknown key `args[0].choice`");
    assert_eq!(nested.hint.as_deref(), Some("did you mean `choices`?"));
    let deep = toml("[[views]]\ntable = \"t\"\ncolumns = [{ nam = \"a\" }]").unwrap_err();
    assert_eq!(deep.message, "plugin.toml: unknown key `views[0].columns[0].nam`");
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (text, says) in [
        ("[[args]]\nname = \"a\"\ntype = \"int64\"\ndefault = 1\nrequired = true", "required and has a default"),
        ("[[args]]\nname = \"a\"\ntype = \"int64\"\ndefault = \"x\"", "which is no int64"),
        ("[[args]]\nname = \"a\"\ntype = \"number\"", "unknown variant `number`"),
        ("[[args]]\nname = \"A B\"\ntype = \"int64\"", "must be lower case"),
        ("[[outputs]]\nname = \"slow\"\n[[views]]\ntable = \"slwo\"", "is no output"),
        ("world = \"pyxis:script@9.0.0\"", "is not one this build knows"),
    ] {
        let error = toml(text).unwrap_err();
        assert!(error.message.contains(says), "{text}: {}", error.message);
    }
}

#[test]
fn arguments_are_typed_and_every_mistake_is_told() {
    let manifest = toml(
        r#"
        [[args]]
        name = "service"
        type = "string"
        [[args]]
        name = "limit"
        type = "int64"
        default = 50
        [[args]]
        name = "side"
        type = "string"
        default = "server"
        choices = ["server", "client"]
        [[args]]
        name = "older"
        type = "duration"
        default = "5m"
        "#,
    )
    .unwrap();
    let given =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect::<BTreeMap<_, _>>();
    assert_eq!(
        manifest.arguments(&given(&[("limit", "1_000")])).unwrap(),
        vec![
            ("service".into(), Value::Null),
            ("limit".into(), Value::Int64(1000)),
            ("side".into(), Value::String("server".into())),
            ("older".into(), Value::DurationNs(300_000_000_000)),
        ]
    );
    let error = manifest.arguments(&given(&[("limti", "1"), ("side", "both")])).unwrap_err();
    assert!(error.message.contains("no argument `limti`") && error.message.contains("none of its choices"), "{error}");
    assert!(error.hint.as_deref().unwrap().contains("did you mean `limit`?"), "{error:?}");
}

#[test]
fn durations() {
    for (text, ns) in [
        ("250ms", Some(250_000_000)),
        ("1h30m", Some(5_400_000_000_000)),
        ("1.5s", Some(1_500_000_000)),
        ("-5m", Some(-300_000_000_000)),
        ("0", Some(0)),
        ("5", None),
        ("", None),
        ("m", None),
        ("5 minutes", None),
        ("99999999999d", None),
    ] {
        assert_eq!(parse_duration(text), ns, "{text}");
    }
}

#[test]
fn the_nearest_name_is_near() {
    assert_eq!(nearest("http_evnets", &["conn_stats", "http_events"]), Some("http_events"));
    assert_eq!(nearest("zebra", &["conn_stats", "http_events"]), None);
}

#[test]
fn views_of_a_running_script_are_checked_too() {
    assert!(View::from_json(r#"{"table":"slow","widget":"line"}"#).is_ok());
    assert!(View::from_json(r#"{"table":"slow","widgte":"line"}"#).unwrap_err().message.contains("view.widgte"));
}

#[test]
fn mistakes_in_the_text_have_a_line_and_a_column() {
    for (text, line, column) in [
        ("tabels = []", 4, 1),
        (
            "[[args]]\nname = \"a\"\ntype = \"string\"\n\n[[args]]\nname = \"b\"\ntype = \"string\"\n  choice = []",
            11,
            3,
        ),
        ("[[views]]\ntable = \"t\"\ncolumns = [{ name = \"ä\", nam = \"a\" }]", 6, 26),
        ("tables = [\"a\"\nx", 5, 1),
        ("tables = 5", 4, 10),
        ("[[args]]\nname = \"a\"\ntype = \"number\"", 6, 8),
        ("[[args]]\nname = \"a\"\ntype = \"int64\"\ndefault = \"x\"", 7, 1),
        ("[[args]]\nname = \"A B\"\ntype = \"int64\"", 5, 1),
        ("[[outputs]]\nname = \"slow\"\n[[views]]\ntable = \"slwo\"", 7, 1),
        ("world = \"pyxis:script@9.0.0\"", 4, 1),
        ("[budget]\nguest_cpu_ms = -1", 5, 16),
        ("[[exports]]\nname = \"f\"\ndescription = \"y\"", 4, 3),
        ("[protocol]\nports = [1]\n[protocol.table]\nname = \"t\"\ndescription = \"y\"\ncolumns = []", 4, 2),
    ] {
        let error = toml(text).unwrap_err();
        let position = error.position.as_ref().unwrap_or_else(|| panic!("{text}: {error} has no place"));
        assert_eq!((position.line, position.column), (line, column), "{text}: {error}");
        assert!(!error.message.contains("line"), "the place is said once: {error}");
    }
    let json = Manifest::from_json(br#"{"name":"x","tabels":[]}"#).unwrap_err();
    assert_eq!(json.position, None);
}
