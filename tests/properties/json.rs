//! `context.json` and `image.json`: read, or refused with file, line and key.

use ctxinit::config;
use ctxinit::context::site::Site;
use ctxinit::image::policy::Policy;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{bytes, damaged, holds};

/// As a site and a builder may write them.
fn context() -> Value {
    json!({
        "hostname": "node-1",
        "syslog": {"server": "log.example.org", "port": 514, "protocol": "tcp"},
        "work": {"topos": {"url": "http://10.0.2.2:8080/4.1", "pool": "mc", "results": "done", "lock_secs": 60}},
        "limits": {"idle_secs": 10, "fault_secs": 20, "slots": 4, "max_tasks": 5, "max_secs": 600, "min_task_secs": 6},
        "payload": {"pids": 8, "writable": ["/a"], "network": {"access": "listed", "hosts": ["10.0.0.0/8"]}},
    })
}

fn image() -> Value {
    json!({
        "image": {"uuid": "8a3de5c7", "version": "1", "endorser": "vo"},
        "medium": {"need": "require", "wait_secs": 9, "size_mb": 64},
        "scripts": {"prolog": {"timeout_secs": 10, "on_failure": "continue"}, "epilog": {}},
        "network": {"timeout_secs": 60},
        "payload": {"command": ["/bin/work", "-x"], "memory_mb": 64, "pids": 9, "grace_secs": 3, "no_retry": [2]},
        "overlay_mb": 64,
    })
}

/// Any JSON, with keys and words of ours among others.
fn value() -> impl Strategy<Value = Value> {
    const WORDS: &[&str] = &[
        "syslog",
        "server",
        "work",
        "topos",
        "url",
        "pool",
        "payload",
        "command",
        "image",
        "uuid",
        "http://x/",
        "../",
        "a b",
        "",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(WORDS).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop_oneof![prop::sample::select(WORDS).prop_map(str::to_owned), any::<String>()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<String, Value>>())),
        ]
    })
}

/// `whole` with one value in it replaced, and one key added.
fn changed(whole: Value) -> impl Strategy<Value = Value> {
    (Just(whole), any::<prop::sample::Index>(), any::<prop::sample::Index>(), value(), any::<bool>()).prop_map(
        |(mut whole, outer, inner, value, add)| {
            let Some(fields) = whole.as_object_mut() else { return whole };
            let key = fields.keys().nth(outer.index(fields.len())).cloned().unwrap_or_default();
            match fields.get_mut(&key) {
                Some(Value::Object(fields)) if add => drop(fields.insert("more".to_owned(), value)),
                Some(Value::Object(fields)) if !fields.is_empty() => {
                    let key = fields.keys().nth(inner.index(fields.len())).cloned().unwrap_or_default();
                    fields.insert(key, value);
                }
                _ => drop(fields.insert(key, value)),
            }
            whole
        },
    )
}

/// Whatever is read: no panic, and an error that somebody can find.
fn reads<T: DeserializeOwned>(file: &str, text: &[u8]) -> Result<bool, TestCaseError> {
    let Err(error) = config::parse::<T>(file, text) else { return Ok(true) };
    let lines = text.split(|&byte| byte == b'\n').count();
    prop_assert_eq!(&error.file, file);
    prop_assert!((1..=lines).contains(&error.line), "{} of {} lines", &error, lines);
    let told = error.to_string();
    prop_assert!(told.starts_with(&format!("{file}:{}: ", error.line)) && !error.why.is_empty(), "{}", told);
    Ok(false)
}

#[test]
fn the_good_ones_are_good() {
    assert!(reads::<Site>("context.json", context().to_string().as_bytes()).unwrap());
    assert!(reads::<Policy>("image.json", image().to_string().as_bytes()).unwrap());
}

#[test]
fn any_bytes_are_refused_with_their_line() {
    holds(bytes(200), |text| {
        reads::<Site>("context.json", &text)?;
        reads::<Policy>("image.json", &text).map(drop)
    });
}

#[test]
fn any_json_is_read_or_refused_with_its_line() {
    holds(value(), |value| {
        let text = serde_json::to_string_pretty(&value).unwrap();
        reads::<Site>("context.json", text.as_bytes())?;
        reads::<Policy>("image.json", text.as_bytes()).map(drop)
    });
}

/// An added key and a value of another type are the mistakes that people make.
#[test]
fn a_wrong_value_is_refused_with_its_key() {
    holds(changed(context()), |value| {
        let text = serde_json::to_string_pretty(&value).unwrap();
        let read = config::parse::<Site>("context.json", text.as_bytes());
        let Err(error) = read else { return Ok(()) };
        // Only an object as a whole has no key.
        prop_assert!(!error.key.is_empty(), "{}", error);
        let key = error.key.split(['.', ':', '[']).next().unwrap_or_default();
        prop_assert!(value.get(key).is_some() || error.why.contains("missing"), "{}", error);
        reads::<Site>("context.json", text.as_bytes()).map(drop)
    });
}

#[test]
fn a_damaged_file_is_read_or_refused_with_its_line() {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap().into_bytes();
    holds(damaged(pretty(&context())), |text| reads::<Site>("context.json", &text).map(drop));
    holds(damaged(pretty(&image())), |text| reads::<Policy>("image.json", &text).map(drop));
}
