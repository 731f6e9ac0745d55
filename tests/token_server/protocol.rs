//! The request table of ToPoS 4.1, success and failure of each row.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{Reply, Server, command, raw};

const TEXT: (&str, &str) = ("Content-Type", "text/plain");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("Accept", "application/json");
const PLAIN: (&str, &str) = ("Accept", "text/plain");

fn server() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("pools"));
    (dir, server)
}

fn json(server: &Server, target: &str) -> serde_json::Value {
    let reply = server.ask("GET", target, &[JSON], b"");
    assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("application/json; charset=UTF-8")));
    serde_json::from_str(&reply.body).unwrap()
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[test]
fn new_pool_is_a_name_that_nobody_guesses() {
    let (_dir, server) = server();
    let first = server.get("/4.1/newPool");
    let url = first.header("Location").unwrap().to_owned();
    assert_eq!((first.status, first.body.as_str()), (303, url.as_str()));
    let name = url.strip_prefix(&server.url("")).unwrap().strip_suffix('/').unwrap();
    assert!(name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
    let second = server.ask("GET", "/4.1/newPool/", &[], b"");
    assert_eq!((second.status, second.header("Content-Type")), (303, Some("application/xhtml+xml; charset=UTF-8")));
    assert_ne!(second.header("Location"), Some(url.as_str()));
}

#[test]
fn next_token_with_and_without_a_lock() {
    let (_dir, server) = server();
    server.fill("p", "a\nb");
    for no_lock in ["", "?timeout=", "?timeout=0", "?timeout=-5", "?timeout=x&description=d"] {
        let reply = server.get(&format!("p/nextToken{no_lock}"));
        assert_eq!(reply.status, 303, "{no_lock}");
        assert_eq!(reply.body, reply.header("Location").unwrap());
        assert_eq!((reply.header("X-Topos-LockURL"), reply.header("X-Topos-OpaqueLockToken")), (None, None));
    }
    let reply = server.get("p/nextToken?timeout=60.9&description=vm%201");
    assert_eq!(reply.status, 303);
    let uuid = reply.header("X-Topos-LockURL").unwrap().strip_prefix(&server.url("p/locks/")).unwrap().to_owned();
    assert!(is_uuid(&uuid), "{uuid}");
    assert_eq!(reply.header("X-Topos-OpaqueLockToken"), Some(format!("opaquelocktoken:{uuid}").as_str()));
    let head = server.ask("HEAD", "p/nextToken?timeout=60", &[PLAIN], b"");
    assert_eq!((head.status, head.body.as_str()), (303, ""));
    assert!(head.header("X-Topos-LockURL").is_some(), "a HEAD claims too");

    let none = server.get("p/nextToken?timeout=60");
    assert_eq!((none.status, none.message()), (404, "No token available"));
    assert_eq!(server.get("mistyped/nextToken").status, 404);
    assert_eq!(server.get("not%20a%20name/nextToken").status, 404);
    assert_eq!(server.ask("DELETE", "p/nextToken", &[], b"").status, 405);
}

#[test]
fn put_stores_type_and_name_and_get_gives_them_back() {
    let (_dir, server) = server();
    let headers = [PLAIN, ("Content-Type", "image/x; a=b"), ("Content-Disposition", "x; filename=\"../a b\"")];
    let put = server.ask("PUT", "p/nextToken", &headers, b"two\nlines");
    assert_eq!((put.status, put.header("Location")), (201, Some(server.url("p/tokens/1").as_str())));
    assert_eq!(put.body, server.url("p/tokens/1"));

    for method in ["GET", "HEAD"] {
        let get = server.ask(method, "p/tokens/1", &[], b"");
        assert_eq!((get.status, get.header("Content-Type")), (200, Some("image/x; a=b")));
        assert_eq!(get.header("Content-Length"), Some("9"));
        assert_eq!(get.header("X-Number-Of-Leases"), Some("0"));
        assert_eq!(get.header("Content-Disposition"), Some("inline; filename=\"../a b\""));
        assert!(get.header("Last-Modified").unwrap().ends_with(" GMT"));
        assert_eq!(get.header("Cache-Control"), Some("no-cache"));
        assert_eq!(get.header("X-Topos-LockURL"), None);
        assert_eq!(get.body, if method == "GET" { "two\nlines" } else { "" });
    }
    let (_, uuid) = server.claim("p", 60).unwrap();
    let get = server.get("p/tokens/1");
    assert_eq!(get.header("X-Number-Of-Leases"), Some("1"));
    assert_eq!(get.header("X-Topos-LockURL"), Some(server.url(&format!("p/locks/{uuid}")).as_str()));

    for nowhere in ["p/tokens/2", "q/tokens/1", "p/tokens/99999999999999999999"] {
        assert_eq!(server.get(nowhere).status, 404, "{nowhere}");
    }
    let bare = server.ask("PUT", "p/nextToken", &[], b"");
    assert_eq!(bare.status, 201);
    assert_eq!(server.get("p/tokens/2").header("Content-Type"), Some("application/octet-stream"));
    let no_length = raw(server.port, "PUT", "p/nextToken", &[("Host", "h".to_owned())], b"").unwrap();
    assert_eq!(no_length.status, 411);
    let chunked = [("Host", "h".to_owned()), ("Transfer-Encoding", "chunked".to_owned())];
    let chunked = raw(server.port, "PUT", "p/nextToken", &chunked, b"3\r\nabc\r\n0\r\n\r\n").unwrap();
    assert_eq!((chunked.status, chunked.header("Location")), (201, Some("http://h/4.1/pools/p/tokens/3")));
    assert_eq!(server.get("p/tokens/3").body, "abc");
}

#[test]
fn put_with_delete_replaces_a_token_of_the_same_pool() {
    let (_dir, server) = server();
    server.fill("p", "a\nb");
    server.fill("q", "c");
    let put = |delete: &str| server.ask("PUT", &format!("p/nextToken?delete={delete}"), &[PLAIN], b"new").status;
    assert_eq!(put("1"), 201);
    assert_eq!(server.get("p/tokens/1").status, 404);
    assert_eq!(put(&server.url("p/tokens/2")), 201);
    assert_eq!(server.get("p/tokens/2").status, 404);
    assert_eq!(put("3"), 404, "in another pool");
    assert_eq!(put("1"), 404, "gone");
    assert_eq!([put(""), put("1x")], [400, 400]);
    assert_eq!(server.get("q/tokens/3").status, 200);
    assert_eq!(server.get("p/tokens/").header("X-Token-Count"), Some("2"), "the refused ones left nothing");
}

#[test]
fn deleting_a_token_kills_its_lock() {
    let (_dir, server) = server();
    server.fill("p", "a");
    let (id, uuid) = server.claim("p", 60).unwrap();
    assert_eq!(server.ask("DELETE", &format!("q/tokens/{id}"), &[], b"").status, 404);
    let delete = server.ask("DELETE", &format!("p/tokens/{id}"), &[PLAIN], b"");
    assert_eq!((delete.status, delete.message()), (200, "Token destroyed"));
    assert_eq!(server.ask("DELETE", &format!("p/tokens/{id}"), &[], b"").status, 404);
    assert_eq!(server.get(&format!("p/locks/{uuid}?timeout=60")).status, 404);
    assert_eq!(server.ask("DELETE", &format!("p/locks/{uuid}"), &[], b"").status, 404);
}

#[test]
fn a_lock_is_told_renewed_and_released() {
    let (_dir, server) = server();
    server.fill("p", "a");
    let (id, uuid) = server.claim("p", 60).unwrap();
    let told = |reply: &Reply, left: [u32; 2], description: &str| {
        assert_eq!((reply.status, reply.header("Cache-Control")), (200, Some("no-cache")));
        let url = server.url("p/tokens/1");
        let said = left.map(|left| {
            format!("TokenId: {id}\nTokenName: \nTokenURL: {url}\nTimeout: {left}\nDescription: {description}")
        });
        assert!(said.contains(&reply.body), "{}", reply.body);
    };
    // A second may pass between the claim and the question.
    told(&server.get(&format!("p/locks/{uuid}")), [60, 59], "test");
    told(&server.get(&format!("other/locks/{uuid}?timeout=900&description=a%0Ab")), [900, 899], "a b");
    assert_eq!(server.ask("HEAD", &format!("p/locks/{uuid}?timeout=30"), &[], b"").status, 200);
    told(&server.get(&format!("p/locks/{uuid}")), [30, 29], "a b");
    for bad in ["", "0", "-1", "x"] {
        assert_eq!(server.get(&format!("p/locks/{uuid}?timeout={bad}")).status, 400, "{bad:?}");
    }
    assert_eq!(server.get("p/locks/00000000-0000-4000-8000-000000000000").status, 404);
}

#[test]
fn listings() {
    let (_dir, server) = server();
    assert_eq!(json(&server, "p/tokens/"), serde_json::Value::Null);
    server.ask("PUT", "p/nextToken", &[TEXT, ("Content-Disposition", "x; filename=\"n\"")], b"value");
    server.fill("p", "second");
    let claim = server.get("p/nextToken?timeout=3700&description=a%09b");
    let uuid = claim.header("X-Topos-LockURL").unwrap().rsplit('/').next().unwrap().to_owned();

    let tokens = json(&server, "p/tokens/");
    assert_eq!(tokens.as_array().unwrap().len(), 2);
    let first = &tokens[0];
    for (key, value) in [
        ("Name", "1"),
        ("Size", "5 B"),
        ("Content-Type", "text/plain"),
        ("Original Name", "n"),
        ("Leases", "1"),
        ("LockDescription", "a\tb"),
    ] {
        assert_eq!(first[key], value, "{key}");
    }
    assert!(first["LockTokenHTML"].as_str().unwrap().contains(&uuid));
    assert!(["1:01:40", "1:01:39"].contains(&first["Timeout"].as_str().unwrap()), "{first}");
    assert!(first["Created"].as_str().unwrap().ends_with('Z'));
    assert_eq!((&tokens[1]["Leases"], &tokens[1]["Timeout"]), (&"0".into(), &"".into()));

    let plain = server.get("p/tokens/");
    assert_eq!(plain.header("X-Token-Count"), Some("2"));
    let lines: Vec<&str> = plain.body.split_terminator("\r\n").collect();
    assert_eq!(
        lines[0],
        "Name\tSize\tContent-Type\tOriginal Name\tLockTokenHTML\tTimeout\tCreated\tLeases\tLockDescription"
    );
    assert!(lines[1].starts_with("1\t5 B\ttext/plain\tn\t") && lines[1].ends_with("\t1\ta\\tb"), "{}", lines[1]);
    assert_eq!(lines.len(), 3);

    let csv = server.ask("GET", "p/tokens/", &[("Accept", "text/csv")], b"");
    assert_eq!(csv.header("Content-Type"), Some("text/csv; charset=UTF-8"));
    assert!(csv.body.starts_with("Name,Size,Content-Type,Original Name,"), "{}", csv.body);
    let tdv = server.ask("GET", "p/locks/", &[("Accept", "text/tdv")], b"");
    assert_eq!(tdv.header("Content-Type"), Some("text/tdv; charset=UTF-8"));

    let locks = json(&server, "p/locks/");
    assert_eq!(locks.as_array().unwrap().len(), 1);
    assert_eq!((&locks[0]["Name"], &locks[0]["Token name"]), (&uuid.as_str().into(), &"n".into()));
    assert_eq!(locks[0]["LockDescription"], "a\tb");
    for (prefix, count) in [("a", 1), ("a%09", 1), ("a%09b", 1), ("", 1), ("b", 0), ("a%09b/", 0)] {
        let found = json(&server, &format!("p/locks/?description={prefix}"));
        assert_eq!(found.as_array().map_or(0, Vec::len), count, "{prefix}");
    }

    let pool = json(&server, "p/");
    let names: Vec<&str> = pool.as_array().unwrap().iter().map(|row| row["Name"].as_str().unwrap()).collect();
    assert_eq!(names, ["tokens/", "locks/", "nextToken", "progress"]);
    assert_eq!((&pool[0]["Content"], &pool[1]["Content"]), (&"2 tokens".into(), &"1 locks".into()));

    assert_eq!(server.ask("DELETE", "p/locks/", &[], b"").status, 200);
    assert_eq!(json(&server, "p/locks/"), serde_json::Value::Null);
    assert_eq!(server.get(&format!("p/locks/{uuid}")).status, 404);
    assert_eq!(server.get("/4.1/pools/").status, 403);
    assert_eq!(server.get("/4.1/").status, 200);
}

#[test]
fn posted_lines_and_forms_become_tokens() {
    let (_dir, server) = server();
    let post =
        |kind: &str, body: &str| server.ask("POST", "p/tokens/", &[("Content-Type", kind)], body.as_bytes()).status;
    assert_eq!(post("text/csv; charset=utf-8", "a\r\n\r\nc\n"), 202);
    let values: Vec<String> = (1..=3).map(|id| server.get(&format!("p/tokens/{id}")).body).collect();
    assert_eq!(values, ["a", "", "c"]);
    assert_eq!(server.get("p/tokens/2").header("Content-Type"), Some("text/csv; charset=utf-8"));
    assert_eq!(post(FORM.1, "ntokens=3&offset=-1"), 202);
    let values: Vec<String> = (4..=6).map(|id| server.get(&format!("p/tokens/{id}")).body).collect();
    assert_eq!(values, ["-1", "0", "1"]);
    assert_eq!(post(FORM.1, "tokens=x%0D%0Ay+z"), 202);
    assert_eq!((server.get("p/tokens/7").body, server.get("p/tokens/8").body), ("x".into(), "y z".into()));
    for bad in ["ntokens=0", "ntokens=1000001", "ntokens=x", "ntokens=5&offset=9223372036854775807", "", "pool="] {
        assert_eq!(post(FORM.1, bad), 400, "{bad}");
    }
    // Nobody else is answered while they are stored.
    let many = "\n".repeat(1_000_001);
    for (kind, body) in [("text/plain", many.clone()), (FORM.1, format!("tokens={many}"))] {
        assert_eq!(post(kind, &body), 413, "{kind}");
    }
    for kind in ["", "application/json", "multipart/mixed; boundary=b"] {
        assert_eq!(post(kind, "a"), 415, "{kind}");
    }
    assert_eq!(server.get("p/tokens/").header("X-Token-Count"), Some("8"));
    assert_eq!(server.ask("DELETE", "p/tokens/", &[], b"").status, 200);
    assert_eq!(server.get("p/tokens/").header("X-Token-Count"), Some("0"));
    server.fill("p", "again");
    assert_eq!(server.ask("DELETE", "p/", &[], b"").status, 200);
    assert_eq!(server.get("p/tokens/").header("X-Token-Count"), Some("0"));
}

#[test]
fn files_of_a_form_become_tokens() {
    let (_dir, server) = server();
    let post = |body: &str| {
        let kind = ("Content-Type", "multipart/form-data; boundary=b");
        server.ask("POST", "p/tokens/", &[kind], body.replace('\n', "\r\n").as_bytes())
    };
    let part = |disposition: &str, more: &str| {
        format!("--b\nContent-Disposition: form-data; {disposition}\n{more}\nvalue\0\n")
    };
    let named = part("name=\"a\"; filename=\"../x y\"", "Content-Type: image/x\n");
    let unnamed = part("name=\"a\"; filename=\"\"", "");
    let field = part("name=\"tokens\"", "");
    assert_eq!(post(&format!("{named}{field}{unnamed}--b--\n")).status, 202);
    let first = server.get("p/tokens/1");
    assert_eq!((first.body.as_str(), first.header("Content-Type")), ("value\0", Some("image/x")));
    assert_eq!(first.header("Content-Disposition"), Some("inline; filename=\"../x y\""));
    let second = server.get("p/tokens/2");
    assert_eq!((second.body.as_str(), second.header("Content-Disposition")), ("value\0", None));
    assert_eq!(second.header("Content-Type"), Some("application/octet-stream"));
    assert_eq!(server.get("p/tokens/").header("X-Token-Count"), Some("2"));
    for bad in [format!("{field}--b--\n"), "--b--\n".to_owned(), named, "nonsense".to_owned(), String::new()] {
        assert_eq!(post(&bad).status, 400, "{bad:?}");
    }
    let unbounded = server.ask("POST", "p/tokens/", &[("Content-Type", "multipart/form-data")], b"");
    assert_eq!(unbounded.status, 400);
    assert_eq!(server.get("p/tokens/").header("X-Token-Count"), Some("2"), "bad forms left nothing");
}

#[test]
fn tokens_are_claimed_by_name() {
    let (_dir, server) = server();
    for name in ["run one", "run two", "run two"] {
        let disposition = format!("x; filename=\"{name}\"");
        server.ask("PUT", "p/nextToken", &[TEXT, ("Content-Disposition", &disposition)], b"");
    }
    server.fill("p", "unnamed");
    let claim = |target: &str| {
        let reply = server.get(target);
        (reply.status, reply.header("X-Topos-LockURL").is_some(), reply.body.rsplit('/').next().unwrap().to_owned())
    };
    assert_eq!(claim("p/nextToken?timeout=60&name=%2Brun+-one"), (303, true, "2".to_owned()));
    assert_eq!(claim("/4/pools/p/nextToken?timeout=60&token=*T*o"), (303, true, "3".to_owned()));
    assert_eq!(claim("p/nextToken?name=one").2, "1");
    // The original looped without end where free tokens were there, but none that fitted.
    for nothing in ["p/nextToken?name=two", "p/nextToken?name=three", "/4/pools/p/nextToken?token=x*"] {
        assert_eq!(server.get(nothing).status, 404, "{nothing}");
    }
    assert_eq!(claim("p/nextToken?timeout=60&name=").2, "4", "an empty search is none; 1 is on its second round");
}

#[test]
fn version_4_has_the_same_pools_under_its_own_urls() {
    let (_dir, server) = server();
    server.fill("p", "a");
    let claim = server.get("/4/pools/p/nextToken?timeout=60");
    let url = format!("http://127.0.0.1:{}/4/pools/p", server.port);
    assert_eq!(claim.header("Location"), Some(format!("{url}/tokens/1").as_str()));
    assert!(claim.header("X-Topos-LockURL").unwrap().starts_with(&format!("{url}/locks/")));
    assert_eq!(server.get("/4/pools/p").header("Location"), Some(format!("{url}/").as_str()));
    let pool = server.get("/4/newPool").body;
    assert!(pool.starts_with(&format!("http://127.0.0.1:{}/4/pools/", server.port)), "{pool}");
    assert_eq!(server.get("p/tokens/1").body, "a");
    assert_eq!(server.get("/3/newRealm").status, 404);
}

#[test]
fn tokens_move_with_their_locks() {
    let (_dir, server) = server();
    server.fill("p", "a\nb\nc");
    let (id, uuid) = server.claim("p", 60).unwrap();
    let moved = |body: String| {
        let reply = server.ask("POST", "q/tokens/", &[FORM], body.as_bytes());
        assert_eq!(reply.status, 200);
        reply.message().to_owned()
    };
    assert_eq!(moved(format!("pool=p&tokens={id}+77")), "1 tokens moved");
    assert_eq!(moved(format!("pool=p&tokens={id}")), "0 tokens moved");
    assert_eq!(server.get(&format!("p/tokens/{id}")).status, 404);
    let lock = server.get(&format!("p/locks/{uuid}?timeout=60"));
    assert!(lock.body.contains(&server.url(&format!("q/tokens/{id}"))), "{}", lock.body);
    assert_eq!(moved("pool=p&tokens=none".to_owned()), "2 tokens moved", "no number means all");
}

#[test]
fn progress_is_a_share() {
    let (_dir, server) = server();
    server.fill("p", "a");
    let reply = server.get("p/progress?total=4&width=9");
    assert_eq!((reply.status, reply.body.as_str()), (200, "0.25"));
    assert_eq!(reply.header("Refresh"), Some("60; /4.1/pools/p/progress?total=4&width=9"));
    assert_eq!(server.get("p/progress").status, 400);
    server.fill("p", "b");
    assert_eq!(server.get("p/progress?total=1").status, 400);
}

#[test]
fn conventions_of_the_wire() {
    let (_dir, server) = server();
    for (slashless, slashed) in [
        ("/4.1", "/4.1/"),
        ("/4.1/pools", "/4.1/pools/"),
        ("/4.1/pools/p", "/4.1/pools/p/"),
        ("/4.1/pools/p/tokens?a=b", "/4.1/pools/p/tokens/?a=b"),
        ("/4.1/pools/p/locks", "/4.1/pools/p/locks/"),
    ] {
        let reply = server.ask("POST", slashless, &[TEXT], b"lost");
        let to = format!("http://127.0.0.1:{}{slashed}", server.port);
        assert_eq!((reply.status, reply.header("Location")), (301, Some(to.as_str())), "{slashless}");
    }
    let odd = server.ask("BREW", "p/", &[], b"");
    assert_eq!((odd.status, odd.header("Allow")), (405, None));
    server.fill("p", "a");
    let head = server.ask("POST", "p/tokens/1?http_method=HEAD", &[], b"");
    assert_eq!((head.status, head.body.as_str(), head.header("X-Number-Of-Leases")), (200, "", Some("0")));
    assert_eq!(server.ask("POST", "p/tokens/1?http_method=GET", &[], b"").body, "a");
    assert_eq!(server.ask("POST", "p/nextToken?http_method=GET&timeout=0", &[PLAIN], b"").status, 303);
    assert_eq!(server.ask("POST", "p/tokens/1?http_method=BREW", &[], b"").status, 405);
    assert_eq!(server.ask("POST", "p/tokens/1?http_method=DELETE", &[], b"").status, 200);
    assert_eq!(server.get("p/tokens/1").status, 404);
    let fresh = server.ask("GET", "p/tokens/1", &[("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")], b"");
    assert_eq!(fresh.status, 404);
    assert_eq!(server.get("/elsewhere").message(), "There is no /elsewhere");

    let mut headers = vec![("Host", "h".to_owned()), ("Content-Length", (16 * 1024 * 1024 + 1).to_string())];
    assert_eq!(raw(server.port, "PUT", "p/nextToken", &headers, b"").unwrap().status, 413);
    headers[1].1 = (16 * 1024 * 1024).to_string();
    let most = vec![b'x'; 16 * 1024 * 1024];
    assert_eq!(raw(server.port, "PUT", "p/nextToken", &headers, &most).unwrap().status, 201);
    assert_eq!(server.get("p/tokens/2").body.len(), most.len());
    let chunked = vec![("Host", "h".to_owned()), ("Transfer-Encoding", "chunked".to_owned())];
    let more = [b"1000001\r\n", most.as_slice(), b"x"].concat();
    assert_eq!(raw(server.port, "PUT", "p/nextToken", &chunked, &more).unwrap().status, 413);
}

#[test]
fn an_expired_lock_frees_its_token() {
    let (_dir, server) = server();
    server.fill("p", "a");
    let (id, first) = server.claim("p", 1).unwrap();
    assert_eq!(server.claim("p", 1), None);
    // A lock lasts no shorter than was asked for, and up to a second longer.
    thread::sleep(Duration::from_millis(2100));
    assert_eq!(server.get(&format!("p/locks/{first}?timeout=60")).status, 404, "too late to renew");
    assert_eq!(server.ask("DELETE", &format!("p/locks/{first}"), &[], b"").status, 200, "but not to delete");
    let (again, second) = server.claim("p", 60).unwrap();
    assert_eq!((again, server.get(&format!("p/locks/{first}")).status), (id, 404));
    assert_eq!(server.get("p/tokens/1").header("X-Number-Of-Leases"), Some("2"));
    let delete = server.ask("DELETE", &format!("p/locks/{second}"), &[], b"");
    assert_eq!((delete.status, delete.message()), (200, "Lock destroyed"));
    assert_eq!(server.claim("p", 60).unwrap().0, id, "free at once");
}

#[test]
fn new_tokens_wait_for_the_end_of_the_second_round() {
    let (_dir, server) = server();
    server.fill("p", "a\nb");
    let next = || server.get("p/nextToken").body.rsplit('/').next().unwrap().to_owned();
    assert_eq!([next(), next(), next()], ["1", "2", "1"]);
    server.fill("p", "c");
    assert_eq!([next(), next()], ["2", "3"]);
}

#[test]
fn it_ends_cleanly_and_has_its_directory_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut second = command(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(second.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let _ = second.kill();
    let second = second.wait_with_output().unwrap();
    let complaint = format!("ctxtool: {}: another token server has these pools open\n", dir.path().display());
    assert_eq!((said, String::from_utf8(second.stderr).unwrap()), (String::new(), complaint));
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
    assert_eq!(Server::start(dir.path()).end(Signal::SIGINT).code(), Some(0));
}
