//! `docs/report.schema.json` is the format's promise: a report with every field filled keeps it.

use boon::{Compiler, Schemas};
use serde_json::{Value, json};

use super::*;
use crate::context::medium::{Finding, Kind, Medium, Seen};
use crate::context::signature::{Judgement, State};
use crate::guard::device::{Hashes, ImageDevice};
use crate::guard::policy::OnViolation;
use crate::guard::{Change, ChangeKind};

const SCHEMA: &str = include_str!("../../../docs/report.schema.json");
/// Everything that can be in a report, also in machines that do not exist.
const EVERYTHING: &str = include_str!("../../../tests/fixtures/report/everything.json");

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn complaint(report: &Value) -> Option<String> {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    let id = schema()["$id"].as_str().unwrap().to_owned();
    compiler.add_resource(&id, schema()).unwrap();
    let index = compiler.compile(&id, &mut schemas).unwrap();
    schemas.validate(report, index).err().map(|error| format!("{error:#}"))
}

fn found() -> Finding {
    Finding::Found(Box::new(Medium {
        device: "sr0".to_owned(),
        kind: Kind::Optical,
        volume: "CONTEXT".to_owned(),
        filesystem: "iso9660".to_owned(),
        files: 3,
        bytes: 100,
        sha256: "ab".repeat(32),
        scripts: Vec::new(),
        signature: Judgement {
            state: State::Good,
            why: "signed by AB".to_owned(),
            signer: Some("AB".to_owned()),
            expires: Some("2030-01-01T00:00:00Z".to_owned()),
        },
        read_ms: 7,
    }))
}

/// No `..Default`: a field that is new must be named here, and then the schema must know it.
fn full() -> Report {
    let seen = Seen { device: "sr0".to_owned(), kind: Kind::Optical, what: "a context CD".to_owned() };
    let change = Change {
        path: "/etc/resolv.conf".to_owned(),
        kind: ChangeKind::Changed,
        what: "content".to_owned(),
        size: 20,
        sha256: Some("ab".repeat(32)),
        violation: Some("not in site_writable".to_owned()),
        reverted: true,
    };
    let script = ScriptReport {
        name: "prolog.sh".to_owned(),
        action: "start".to_owned(),
        start_ms: 901,
        millis: 35,
        end: "exit 7".to_owned(),
        exit: Some(7),
        cpu_ms: 10,
        memory_kib: 700,
        left_running: vec!["sleep (123)".to_owned()],
        tail: vec!["no such disk".to_owned()],
        output_dropped: 1,
    };
    let phase = PhaseReport {
        name: "prolog",
        cause: "prolog.sh is on the context CD".to_owned(),
        start_ms: 900,
        millis: 40,
        limit_ms: Some(600_000),
        outcome: "failed",
        note: "prolog.sh: exit 7".to_owned(),
        spent: Spent { forks: 2, cpu_ms: 20 },
        scripts: vec![script],
        changes: vec![change],
    };
    let token = TokenReport {
        id: "17".to_owned(),
        job: Some("job-1".to_owned()),
        start_ms: 1000,
        millis: 812,
        end: "exit 1".to_owned(),
        reason: Coded { code: 1, subcode: Some(1), name: "exited" },
        fate: Fate::Released,
        note: "lock released".to_owned(),
        result_bytes: 3,
        usage: Usage {
            cpu_millis: Some(800),
            cpu_user_millis: Some(500),
            cpu_system_millis: Some(300),
            throttled_millis: None,
            memory_kib: Some(900),
            oom_kills: Some(1),
            pids_refused: Some(1),
            disk_written_bytes: None,
            scratch_bytes: Some(4096),
        },
        left_behind: 1,
        tail: vec!["no such file".to_owned()],
    };
    Report {
        version: 1,
        ctxinit: "0.1.0",
        boot_id: "8d3e".to_owned(),
        image: Some(Identity { uuid: "u".to_owned(), version: "1".to_owned(), endorser: Some("vo".to_owned()) }),
        image_device: Some(ImageDevice {
            device: "vda".to_owned(),
            sectors_written: 0,
            sha256_before: Some("ab".repeat(32)),
            sha256_after: Some("ab".repeat(32)),
            no_write: true,
            hashes: Hashes::Equal,
            unchanged: true,
        }),
        guard: Some(GuardReport {
            on_violation: OnViolation::Revert,
            files_changed: 1,
            violations: 1,
            reverted: 1,
            sealed: true,
            complete: true,
            note: "1 file changed in memory".to_owned(),
        }),
        hostname: Some("vm-1".to_owned()),
        medium: Some(MediumReport::new(&found(), vec![seen], 41)),
        phases: vec![phase],
        user_disk: Some(UserDiskReport {
            state: DiskState::Ready,
            why: "/dev/vdc (ext4), 67108864 bytes, clean".to_owned(),
            device: Some("vdc".to_owned()),
            filesystem: Some("ext4".to_owned()),
            uuid: Some("5f0a1c52-8f0e-4c61-9d0c-3a5be1f5d7b4".to_owned()),
            bytes: Some(67_108_864),
            read_only: false,
            checked: Some("clean"),
            formatted: true,
            grown_from: Some(33_554_432),
        }),
        tokens: vec![token],
        more_tokens: 1,
        log: Some(LogReport {
            reached: true,
            delivered: 5,
            undelivered: 1,
            waiting: 0,
            dropped: 1,
            restarts: 1,
            spooled: Some(1),
        }),
        verdict: Some(Verdict::site_fault("prolog.sh: exit 7")),
    }
}

#[test]
fn a_full_and_an_empty_report_keep_the_promise() {
    let full = serde_json::to_value(full()).unwrap();
    assert_eq!(complaint(&full), None);
    assert_eq!(complaint(&serde_json::to_value(Report::new()).unwrap()), None);
    assert_eq!(complaint(&serde_json::from_str(EVERYTHING).unwrap()), None);
}

#[test]
fn a_field_that_is_missing_new_or_wrong_is_seen() {
    let full = serde_json::to_value(full()).unwrap();
    for (pointer, key, value) in [
        ("", "new", json!(1)),
        ("/medium", "device", json!(1)),
        ("/phases/0", "new", json!(null)),
        ("/phases/0", "outcome", json!("fine")),
        ("/phases/0/spent", "forks", json!(-1)),
        ("/phases/0/scripts/0", "exit", json!(256)),
        ("/phases/0/changes/0", "sha256", json!("AB")),
        ("/user_disk", "state", json!("fine")),
        ("/user_disk", "new", json!(1)),
        ("/tokens/0", "fate", json!("eaten")),
        ("/tokens/0/reason", "name", json!("Not Started")),
        ("/tokens/0/usage", "scratch_bytes", json!(-1)),
        ("/verdict", "code", json!(99)),
    ] {
        let mut report = full.clone();
        report.pointer_mut(pointer).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
        assert!(complaint(&report).is_some(), "{pointer}/{key}");
    }
    for (pointer, key) in [("", "log"), ("/phases/0", "cause"), ("/phases/0/scripts/0", "tail"), ("/tokens/0", "job")] {
        let mut report = full.clone();
        report.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
        assert!(complaint(&report).is_some(), "{pointer}/{key}");
    }
}

/// Every object is ours, so none takes what it does not know; every field is described; every mark is one of four.
#[test]
fn the_schema_says_what_everything_is() {
    let schema = schema();
    let defs = schema["$defs"].as_object().unwrap();
    for (name, object) in defs.iter().map(|(name, def)| (name.as_str(), def)).chain([("report", &schema)]) {
        assert!(object["description"].is_string(), "{name}");
        if object["type"] != "object" {
            continue;
        }
        assert_eq!(object["additionalProperties"], false, "{name}");
        for (field, of) in object["properties"].as_object().unwrap() {
            let described = of["description"].is_string() || of["$ref"] == "#/$defs/lines";
            assert!(described, "{name}.{field}");
            let mark = of.get("x-varies").map_or("", |mark| mark.as_str().unwrap());
            assert!(["", "time", "id", "measure", "numbers"].contains(&mark), "{name}.{field}: {mark}");
            let timed = field.ends_with("millis") || (field.ends_with("_ms") && field != "limit_ms");
            assert!(!timed || !mark.is_empty(), "{name}.{field} is a time and must say so");
        }
    }
}
