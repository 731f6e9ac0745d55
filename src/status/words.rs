//! Amounts, and foreign text, as people read them.

use super::view::View;
use crate::text::{count, printable};

/// `35 ms`, `2.1 s`, `5 min 3 s`, `2 h 10 min`.
pub fn duration(millis: u64) -> String {
    let secs = millis / 1000;
    match millis {
        0..1000 => format!("{millis} ms"),
        // Tenths, and none where a whole limit is meant.
        1000..60_000 if millis.is_multiple_of(1000) => format!("{secs} s"),
        1000..60_000 => format!("{secs}.{} s", millis % 1000 / 100),
        60_000..3_600_000 if secs.is_multiple_of(60) => format!("{} min", secs / 60),
        60_000..3_600_000 => format!("{} min {} s", secs / 60, secs % 60),
        _ if (secs / 60).is_multiple_of(60) => format!("{} h", secs / 3600),
        _ => format!("{} h {} min", secs / 3600, secs / 60 % 60),
    }
}

/// `512 bytes`, `12.3 KiB`, `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size),
        None => count(bytes, "byte"),
    }
}

/// What the code of a verdict says to a site.
pub fn meaning(code: u64) -> &'static str {
    match code / 100 {
        1 => "the host asked for the end",
        2 => "the work is done",
        3 => "there was no work",
        4 => "the work source refuses this machine",
        5 => "something that was given is broken: CD, script, image or network",
        6 => "the work source is wrong everywhere",
        7 => "a fault in this machine, its payload or its work source",
        _ => "an unknown code",
    }
}

/// Whether that is a fault.
pub fn is_fault(code: u64) -> bool {
    code >= 400
}

/// The context CD in one line: where it was and what, or why there is none.
pub fn medium(medium: View<'_>) -> String {
    if !medium.at("device").exists() {
        return match (medium.text("state"), medium.text("why")) {
            ("", "") => "none".to_owned(),
            (state, why) if state.is_empty() || why.starts_with(state) => printable(why),
            (state, "") => printable(state),
            (state, why) => printable(&format!("{state}: {why}")),
        };
    }
    let filesystem = match medium.text("filesystem") {
        "" => String::new(),
        name => format!(" ({})", printable(name)),
    };
    format!(
        "{} on /dev/{}{filesystem}, {}, {}",
        printable(medium.text("volume")),
        printable(medium.text("device")),
        count(medium.number("files"), "file"),
        bytes(medium.number("bytes"))
    )
}

/// The signature in one line: its state, and the judge's sentence with key and date.
pub fn signature(signature: View<'_>) -> String {
    format!("{}: {}", printable(signature.text("state")), printable(signature.text("why")))
}

/// Whether the signature is good; nothing where the image asks for none, as that is neither good nor a fault.
pub fn signature_is_good(signature: View<'_>) -> Option<bool> {
    match signature.text("state") {
        "off" => None,
        state => Some(state == "good"),
    }
}

/// What became of the log in one line; nothing as long as nobody knows.
pub fn log(report: View<'_>) -> Option<String> {
    let log = report.at("log");
    let number = |key| log.number(key);
    let [delivered, undelivered, dropped] = ["delivered", "undelivered", "dropped"].map(number);
    let spooled = match log.maybe("spooled") {
        Some(spooled) if spooled > 0 => format!(", {} on the spool", count(spooled, "record")),
        _ => String::new(),
    };
    let mut logging = report.list("phases").filter(|phase| phase.text("name") == "logging");
    // Nobody was to get them, so none is lost.
    if logging.any(|phase| phase.text("outcome") == "skipped") && delivered == 0 {
        let records = count(undelivered, "record");
        return log.exists().then(|| format!("no syslog server, {records} stayed in the machine{spooled}"));
    }
    let ended = report.at("verdict").exists();
    let mut line = match (ended, log.flag("reached")) {
        (true, _) => format!("{} delivered, {undelivered} not{spooled}", count(delivered, "record")),
        (false, reached) => {
            let server = if reached == Some(true) { "a server is reached" } else { "no server is reached" };
            format!("{server}, {} delivered, {} waiting", count(delivered, "record"), number("waiting"))
        }
    };
    if dropped > 0 {
        line += &format!(", {dropped} dropped");
    }
    if number("restarts") > 0 {
        line += &format!(", the logger died {}", count(number("restarts"), "time"));
    }
    log.exists().then_some(line)
}

/// Whether the image is as it was, in one line; nothing as long as nobody has looked.
pub fn image_device(device: View<'_>) -> Option<String> {
    let name = printable(device.text("device"));
    let name = if name.is_empty() { "the image's device".to_owned() } else { format!("/dev/{name}") };
    let written = match device.maybe("sectors_written") {
        Some(sectors) => format!(", {} written", count(sectors, "sector")),
        None => String::new(),
    };
    let hash = match (device.text("sha256_before"), device.text("sha256_after")) {
        ("", _) | (_, "") => "",
        (before, after) if before == after => ", its hash at the end is that of the start",
        _ => ", its hash at the end is another one",
    };
    let state = match (device.flag("unchanged")?, device.text("hashes")) {
        (true, "off") => "as it was as far as writes are counted",
        (true, _) => "unchanged",
        (false, "unknown") if device.maybe("sectors_written") == Some(0) => "not known to be unchanged",
        (false, _) => "CHANGED",
    };
    Some(format!("{name} is {state}{written}{hash}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_short() {
        let durations = [0, 999, 1000, 2100, 59_999, 60_000, 303_000, 7_200_000, 7_800_000].map(duration);
        assert_eq!(durations, ["0 ms", "999 ms", "1 s", "2.1 s", "59.9 s", "1 min", "5 min 3 s", "2 h", "2 h 10 min"]);
        let sizes = [0, 1, 1023, 12_688, 1 << 20, 3 << 29].map(bytes);
        assert_eq!(sizes, ["0 bytes", "1 byte", "1023 bytes", "12.3 KiB", "1.0 MiB", "1.5 GiB"]);
    }

    #[test]
    fn a_medium_is_told_in_one_line() {
        let tell = |value| medium(View::new(&value));
        let found = json!({"device": "vdb", "volume": "CONTEXT", "filesystem": "iso9660", "files": 1, "bytes": 3});
        assert_eq!(tell(found), "CONTEXT on /dev/vdb (iso9660), 1 file, 3 bytes");
        assert_eq!(tell(json!({"state": "absent", "why": "2 drives", "device": null})), "absent: 2 drives");
        assert_eq!(tell(json!({"state": "absent", "why": "absent: 2 drives"})), "absent: 2 drives");
        assert_eq!(tell(json!({"state": "absent"})), "absent");
        assert_eq!(tell(json!(null)), "none");
        assert_eq!(
            signature(View::new(&json!({"state": "bad", "why": "prolog.sh differs"}))),
            "bad: prolog.sh differs"
        );
    }

    #[test]
    fn what_nobody_asked_for_is_no_fault() {
        let judged = |state| signature_is_good(View::new(&json!({"state": state})));
        assert_eq!(["good", "bad", "unsigned", "off"].map(judged), [Some(true), Some(false), Some(false), None]);
        let tell = |logging, log| {
            log_of(&json!({"phases": [{"name": "logging", "outcome": logging}], "log": log, "verdict": {"code": 200}}))
        };
        let nobody = json!({"delivered": 0, "undelivered": 400});
        assert_eq!(tell("skipped", nobody.clone()).unwrap(), "no syslog server, 400 records stayed in the machine");
        assert_eq!(tell("ok", nobody).unwrap(), "0 records delivered, 400 not");
        assert_eq!(tell("ok", json!({"delivered": 1, "undelivered": 0})).unwrap(), "1 record delivered, 0 not");
        let spooled = json!({"delivered": 1, "undelivered": 9, "spooled": 7});
        assert_eq!(tell("ok", spooled).unwrap(), "1 record delivered, 9 not, 7 records on the spool");
        assert_eq!(tell("skipped", json!(null)), None);
        let log = json!({"reached": true, "delivered": 5, "undelivered": 7, "waiting": 4, "dropped": 3, "restarts": 1});
        let over = "5 records delivered, 7 not, 3 dropped, the logger died 1 time";
        assert_eq!(tell("ok", log.clone()).unwrap(), over);
        let running = |log| log_of(&json!({"phases": [], "log": log, "verdict": null})).unwrap();
        let so_far = "a server is reached, 5 records delivered, 4 waiting, 3 dropped, the logger died 1 time";
        assert_eq!(running(log), so_far);
        assert_eq!(running(json!({"reached": false})), "no server is reached, 0 records delivered, 0 waiting");
    }

    fn log_of(report: &serde_json::Value) -> Option<String> {
        log(View::new(report))
    }

    #[test]
    fn an_image_is_changed_or_not_or_nobody_knows() {
        let tell = |value| image_device(View::new(&value));
        let unchanged = json!({"device": "vda", "sectors_written": 0, "sha256_before": "a", "sha256_after": "a",
            "unchanged": true});
        let wanted = "/dev/vda is unchanged, 0 sectors written, its hash at the end is that of the start";
        assert_eq!(tell(unchanged).as_deref(), Some(wanted));
        let changed = json!({"sectors_written": 1, "unchanged": false});
        assert_eq!(tell(changed).as_deref(), Some("the image's device is CHANGED, 1 sector written"));
        assert_eq!(tell(json!({"device": "vda", "unchanged": null})), None);
        let state = |hashes, sectors, unchanged| {
            tell(json!({"device": "vda", "sectors_written": sectors, "hashes": hashes, "unchanged": unchanged}))
                .unwrap()
        };
        assert!(state("off", 0, true).starts_with("/dev/vda is as it was as far as writes are counted, 0 sectors"));
        assert!(state("unknown", 0, false).starts_with("/dev/vda is not known to be unchanged, 0 sectors"));
        assert!(state("unknown", 1, false).starts_with("/dev/vda is CHANGED, 1 sector"));
        assert!(state("different", 0, false).starts_with("/dev/vda is CHANGED, 0 sectors"));
    }
}
