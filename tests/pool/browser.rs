//! The page of a pool in a real browser.

use std::process::Command;
use std::time::Duration;

use crate::harness::Server;

/// The document as Chromium has it, after all that a page does by itself.
fn dump(url: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--timeout=20000"])
        .arg(format!("--user-data-dir={}", dir.path().display()))
        .arg(url)
        .output()
        .unwrap_or_else(|error| panic!("chromium: {error}; scripts/setup brings it"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `<data id="ID" value="N">`.
fn number(dom: &str, id: &str) -> u64 {
    let (_, rest) =
        dom.split_once(&format!("<data id=\"{id}\" value=\"")).unwrap_or_else(|| panic!("no {id} in {dom}"));
    rest.split('"').next().unwrap().parse().unwrap()
}

#[test]
fn a_browser_reads_how_a_pool_stands() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("pools"));
    server.fill("mc", &"seed\n".repeat(1250));
    server.fill("mc-results", "r1\nr2");
    let evil = "%3Cscript%3Edocument.title='evil'%3C/script%3E";
    let claim = |description: &str| {
        let reply = server.get(&format!("mc/nextToken?timeout=300&description={description}"));
        assert_eq!(reply.status, 303);
        reply.header("Location").unwrap().rsplit('/').next().unwrap().to_owned()
    };
    for slot in 0..7 {
        claim(&format!("wn7.site.example/6ccd780c-baba-1026-9564-5b8c656024db/boot/{slot}"));
    }
    claim(evil);
    for _ in 0..3 {
        let id = claim("wn8/v/b/0");
        assert_eq!(server.ask("DELETE", &format!("mc/tokens/{id}"), &[], b"").status, 200);
    }
    let failed = claim("wn8/v/b/0");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = format!("pool=mc&tokens={failed}");
    assert_eq!(server.ask("POST", "mc.failed/tokens/", &form, body.as_bytes()).status, 200);
    // The held times are to be seen.
    std::thread::sleep(Duration::from_millis(1100));

    let dom = dump(&server.url("mc/"));
    let numbers = ["done", "held", "waiting", "failed", "total"].map(|id| number(&dom, id));
    assert_eq!(numbers, [3, 8, 1238, 1, 1250]);
    let (_, headline) = dom.split_once("<p class=\"headline\">2 machines work on 8 tokens").expect("a headline");
    let (left, _) = headline.split_once(". 1 failed and is set aside.</p>").expect("what failed");
    // How long the pool lasts is known once a minute is over, and one may end meanwhile.
    assert!(left.is_empty() || left.starts_with(", about ") && left.ends_with(" left"), "{left}");
    for part in [
        "<h1>mc</h1>",
        "aria-valuenow=\"3\"",
        "wn7.site.example<span class=\"soft\"> slot 6</span>",
        "2 results in <a href=\"../mc-results/\">",
        "&lt;script&gt;document.title='evil'&lt;/script&gt;",
        "<title>0 % — mc</title>",
        "the next 100</a>",
    ] {
        assert!(dom.contains(part), "{part} is not in {dom}");
    }
    assert_eq!(dom.matches("<td><span class=\"run\">running").count(), 8, "the rows of the first page");
    let last = dump(&server.url("mc/?after=1200"));
    assert_eq!(last.matches("waiting</span></td>").count(), 50);

    // The number outlives the server.
    let status = server.end(nix::sys::signal::Signal::SIGKILL);
    assert!(!status.success());
    let server = Server::start(&dir.path().join("pools"));
    let accept = [("Accept", "text/html")];
    let page = server.ask("GET", "mc/", &accept, b"");
    assert_eq!((page.header("Content-Type"), number(&page.body, "done")), (Some("text/html; charset=UTF-8"), 3));
    // And programs get what they always got.
    for accept in ["*/*", "application/xhtml+xml", ""] {
        let listing = server.ask("GET", "mc/", &[("Accept", accept)], b"");
        assert_eq!(listing.header("Content-Type"), Some("application/xhtml+xml; charset=UTF-8"), "{accept}");
        assert!(listing.body.contains("<td>1246 tokens</td>"), "{listing:?}");
    }
    assert_eq!(server.ask("GET", "/4.1/pools/", &accept, b"").status, 403);
    let token = server.ask("GET", "mc/tokens/20", &accept, b"");
    assert_eq!(token.header("Content-Security-Policy"), Some("sandbox; default-src 'none'"));
}
