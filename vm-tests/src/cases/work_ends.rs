//! What a work source answers, and the code that the machine ends with: no work, not wanted, nonsense, gone.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use serde_json::json;

use crate::case::Case;
use crate::site::HOST;
use crate::stage::{Stage, policy};

pub const NO_WORK: Case = Case::new("work-ends-empty", |stage| ends(stage, Some("404 Not Found"), "300 nothing to do"));
pub const REFUSED: Case = Case::new("work-ends-refused", |stage| {
    ends(stage, Some("403 Forbidden"), "400 GET http://URL/4.1/pools/mc/nextToken: 403")
});
pub const NONSENSE: Case = Case::new("work-ends-nonsense", |stage| {
    let unlocked = "303 See Other\r\nLocation: http://elsewhere/4.1/pools/mc/tokens/1";
    ends(stage, Some(unlocked), "600 GET http://URL/4.1/pools/mc/nextToken: 303 without a lock")
});
pub const HTML: Case =
    Case::new("work-ends-html", |stage| ends(stage, Some("200 OK"), "600 GET http://URL/4.1/pools/mc/nextToken: 200"));
pub const GONE: Case = Case::new("work-ends-gone", |stage| ends(stage, None, "700 no work source for 5 s: "));

/// Boots a machine whose source answers everything with `answer`, or with nothing at all.
fn ends(stage: &Stage, answer: Option<&'static str>, end: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", stage.case.name);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let at = format!("{HOST}:{}", listener.local_addr().map_err(failed)?.port());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let asked = head.count();
            if let Some(answer) = answer.filter(|_| asked > 0) {
                let page = "<html><body>It works!</body></html>";
                let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: {}\r\n\r\n{page}", page.len());
            }
        }
    });
    let context = json!({
        "limits": {"idle_secs": 0, "fault_secs": 5},
        "work": {"topos": {"url": format!("http://{at}/4.1"), "pool": "mc"}},
    });
    let cd = stage.cd(&[("context.json", &context.to_string())])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    let expected = end.replace("URL", &at);
    let said = ended.verdict().unwrap_or_default();
    if said.starts_with(&expected) { Ok(()) } else { Err(format!("expected the end {expected:?}, it is {said:?}")) }
}
