//! Servers that are no token pool servers, or ill.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use crate::client::{Said, command, run};

/// Answers every request alike, in a connection each; returns its URL.
fn server(answer: impl Into<Vec<u8>>, endless: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/4.1", listener.local_addr().unwrap());
    let answer = answer.into();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 65536]);
                let _ = stream.write_all(&answer);
                while endless && stream.write_all(&[b' '; 65536]).is_ok() {}
            });
        }
    });
    url
}

fn says(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    server(format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"), false)
}

fn failed(said: Said, url: &str) -> String {
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    assert_eq!(said.err.lines().count(), 1, "one clear line: {said:?}");
    said.err.trim_end().replace(url, "URL")
}

#[test]
fn what_is_no_pool_is_named_and_believed_in_nothing() {
    let list = |url: String| failed(run(&url, &["list", "p"]), &url);
    assert_eq!(
        list(says("200 OK", "", "<!doctype html><title>Welcome</title>")),
        "ctxtool: GET URL/pools/p/tokens/: HTML where a listing was expected; is that a token pool server?"
    );
    assert!(
        list(says("301 Moved", "Location: https://evil.example/\u{1b}[2J\r\n", "")).contains("invalid header value")
    );
    assert_eq!(
        list(says("301 Moved", "Location: https://evil.example/\r\n", "")),
        "ctxtool: GET URL/pools/p/tokens/: 301, redirected to https://evil.example/, where nothing is sent; is --url right?"
    );
    assert_eq!(
        list(says("200 OK", "", r#"[{"Name": "../../x"}]"#)),
        "ctxtool: GET URL/pools/p/tokens/: a token that is called \"../../x\", and not by a number"
    );
    assert!(list(says("200 OK", "", "[{\"Name\": \"1\"},")).contains("no listing of tokens: EOF"));
    assert!(list(says("401 No", "", "")).ends_with(": 401: the server asks for a password (--user-file)"));
    assert!(list(says("500 Oops", "", "<html/>")).ends_with("/tokens/: 500"));
    assert_eq!(run(&says("200 OK", "", "null"), &["list", "p"]).code, 3);
    assert_eq!(run(&says("200 OK", "", "null"), &["results", "p", "-o", "/nowhere/x"]).code, 3);

    let create = |url: String| failed(run(&url, &["create"]), &url);
    assert!(create(says("200 OK", "", "")).ends_with("GET URL/newPool: 200"));
    assert!(create(says("303 x", "Location: http://h/4.1/pools/a%2fb/\r\n", "")).contains("303 to no pool"));
    assert_eq!(run(&says("303 x", "Location: http://other/4.1/pools/abc/\r\n", ""), &["create"]).out, "abc\n");

    let progress = |url: String| failed(run(&url, &["progress", "p", "--total", "5"]), &url);
    for share in ["NaN", "-1", "1.5", "<html>", ""] {
        assert!(progress(says("200 OK", "", share)).contains("where a share was expected"), "{share}");
    }
    let nobody = failed(run("http://127.0.0.1:1/4.1", &["list", "p"]), "http://127.0.0.1:1/4.1");
    assert!(nobody.contains("GET URL/pools/p/tokens/: ") && nobody.contains("refused"), "{nobody}");
}

#[test]
fn a_body_without_end_ends() {
    // A size of 3 is listed for what never ends.
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/4.1", listener.local_addr().unwrap());
    thread::spawn(move || {
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        let (mut first, _) = listener.accept().unwrap();
        let _ = first.read(&mut [0; 65536]);
        let _ = first.write_all(format!("{head}[{{\"Name\": \"1\", \"Size\": \"3 B\"}}]").as_bytes());
        drop(first);
        let (mut second, _) = listener.accept().unwrap();
        let _ = second.read(&mut [0; 65536]);
        let _ = second.write_all(head.as_bytes());
        while second.write_all(&[b'x'; 65536]).is_ok() {}
    });
    let into = dir.path().join("r");
    let told = failed(run(&url, &["results", "p", "-o", into.to_str().unwrap(), "--delete"]), &url);
    assert_eq!(told, "ctxtool: GET URL/pools/p/tokens/1: more than the 3 bytes that the listing says");
    assert_eq!(std::fs::read_dir(into).unwrap().count(), 0);
    // The status of a load is all that is read.
    let url = server("HTTP/1.1 415 No\r\nConnection: close\r\n\r\n", true);
    assert_eq!(run(&url, &["create"]).code, 1);
}

#[test]
fn a_load_that_fails_says_what_is_in() {
    // One batch is taken; the second is answered by what `then` says.
    let load = |then: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/4.1", listener.local_addr().unwrap());
        thread::spawn(move || {
            for answer in ["HTTP/1.1 202 Accepted\r\n", then] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut seen = Vec::new();
                // Two batches of 5000 lines of 2 bytes.
                while !seen.windows(4).any(|bytes| bytes == b"\r\n\r\n") || seen.len() < 10_000 {
                    let mut some = [0; 65536];
                    let read = stream.read(&mut some).unwrap();
                    seen.extend_from_slice(&some[..read]);
                }
                if !answer.is_empty() {
                    let _ =
                        stream.write_all(format!("{answer}Connection: close\r\nContent-Length: 0\r\n\r\n").as_bytes());
                }
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lines");
        std::fs::write(&file, "x\n".repeat(12_000)).unwrap();
        let said = run(&url, &["load", "p", file.to_str().unwrap()]);
        assert_eq!(said.code, 1);
        said.err.trim_end().replace(&url, "URL")
    };
    assert_eq!(
        load("HTTP/1.1 413 No\r\n"),
        "ctxtool: p: 5000 tokens are in the pool; lines from 5001 on are not: POST URL/pools/p/tokens/: 413: too large for \
         the server\n--from-line 5001 goes on there"
    );
    let lost = load("");
    assert!(
        lost.starts_with("ctxtool: p: 5000 tokens are in the pool; lines 5001 to 10000 may be in or not: POST URL"),
        "{lost}"
    );
    assert!(lost.ends_with("\n--from-line 10001 goes on behind them; if they are not, begin at 5001 again"), "{lost}");
}

#[test]
fn a_load_that_is_done_is_not_called_failed() {
    // The tokens are taken, and how many there are then is not told.
    let url = says("202 Accepted", "", "");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lines");
    std::fs::write(&file, "x\ny\n").unwrap();
    let said = run(&url, &["load", "p", file.to_str().unwrap()]);
    assert_eq!((said.code, said.out.as_str()), (0, "p: 2 tokens loaded\n"), "{said:?}");
    assert_eq!(said.err.replace(&url, "URL"), "p: how many it has now is not known: GET URL/pools/p/progress: 202\n");
    let bad = run(&url, &["load", "p", file.to_str().unwrap(), "--type", "text/plain\nX: y"]);
    assert_eq!(bad.code, 2, "{bad:?}");
    assert!(bad.err.contains("'--type <TYPE>'") && bad.err.contains("is not a media type"), "{bad:?}");
}

#[test]
fn a_password_stays_at_home() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("user");
    std::fs::write(&file, "ann:s3cret\n").unwrap();
    let file = file.to_str().unwrap();
    for elsewhere in ["tokens.example.org", "localhost.example.org", "127.0.0.1.example.org:8080", "127.1x.example.org"]
    {
        let said = run(&format!("http://{elsewhere}/4.1"), &["create", "--user-file", file]);
        assert_eq!(said.code, 1);
        assert!(said.err.contains("a password is not sent over http"), "{said:?}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/4.1", listener.local_addr().unwrap());
    let seen = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let read = stream.read(&mut request).unwrap();
        let _ = stream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    // Not to a proxy either.
    let said: Said = command(&url, &["create", "--user-file", file])
        .env("http_proxy", "http://127.0.0.1:1")
        .output()
        .unwrap()
        .into();
    assert!(said.err.ends_with("403: the server does not allow that\n"), "{said:?}");
    let seen = seen.join().unwrap().to_ascii_lowercase();
    assert!(seen.contains("authorization: basic yw5uonmzy3jlda=="), "{seen}");
    let deaf = says("401 No", "", "");
    let wrong = failed(run(&deaf, &["create", "--user-file", file]), &deaf);
    assert!(wrong.ends_with("401: the server does not take this user and password"), "{wrong}");
    std::fs::write(file, "no colon\n").unwrap();
    let said = run(&url, &["create", "--user-file", file]);
    assert!(said.err.ends_with("user: its first line is not USER:PASSWORD\n"), "{said:?}");
}
