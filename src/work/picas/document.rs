//! A PiCaS token: one CouchDB document, of which a few fields are the protocol's.
//!
//! Every field that is not changed here is written back byte for byte: others keep what they like in a token, and what
//! is left out of a CouchDB document is deleted, its attachments included. Numbers would not all survive being parsed.
//!
//! Free is `lock` 0 and `done` 0; claimed is `lock` the time of the claim; over is `done` the time of its end, and both
//! 99 is an error.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Our own field: who claimed the token, different for each claim. Other clients write it back unchanged.
const CLAIM: &str = "ctxinit_claim";
/// What both `lock` and `done` of a failed token are.
const ERROR: i64 = 99;
/// Where other clients note the batch job that a claimed token runs in.
const JOB_IDS: [&str; 5] = ["dirac_job_id", "wms_job_id", "cream_job_id", "pbs_job_id", "slurm_job_id"];
/// Bytes of a media type; names and owners have room. The agent takes no message with a head of megabytes, and a token
/// that no worker can hand on would end one machine after the other.
const LONGEST_TYPE: usize = 4096;
/// Name of the attachment that is the payload's result.
pub const RESULT: &str = "result";

/// One document.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Document {
    fields: BTreeMap<String, Box<RawValue>>,
}

/// What a token's `lock` and `done` say.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    /// Anybody may claim it.
    Free,
    /// Somebody has.
    Locked,
    /// It was worked on, or failed.
    Over,
    /// No client of the protocol wrote this: which field is wrong.
    Odd(String),
}

/// What makes a claim different from every other, that of the same token by the same machine included.
///
/// The field of our own does not do alone: a client that does not know it frees the token and claims it anew, and
/// leaves the field there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// `lock`: unix seconds.
    pub lock: i64,
    /// `<hostname>/<vm-uuid>/<boot-id>/<slot>/<random>`, of which the first is also `hostname`.
    pub claim: String,
}

impl Mark {
    /// As one text, the name of a lease.
    pub fn text(&self) -> String {
        format!("{}@{}", self.lock, self.claim)
    }

    /// Reads [`Self::text`].
    pub fn parse(text: &str) -> Option<Self> {
        let (lock, claim) = text.split_once('@')?;
        Some(Self { lock: lock.parse().ok()?, claim: claim.to_owned() })
    }

    fn hostname(&self) -> &str {
        self.claim.split('/').next().unwrap_or_default()
    }
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// It is no JSON object.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// As it is put.
    ///
    /// # Errors
    /// None that is known.
    pub fn bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// `_id`.
    pub fn id(&self) -> Option<String> {
        self.get("_id")
    }

    /// `_rev`: only who names the newest one may write.
    pub fn rev(&self) -> Option<String> {
        self.get("_rev")
    }

    /// The one that the server gave it now.
    pub fn set_rev(&mut self, rev: &str) {
        self.set("_rev", rev);
    }

    /// Whether it may be claimed. A view's word is not enough: it is older than the document.
    pub fn state(&self) -> State {
        match (self.stamp("lock"), self.stamp("done")) {
            (Ok(0.0), Ok(0.0)) => State::Free,
            (Ok(_), Ok(0.0)) => State::Locked,
            (Ok(_), Ok(_)) => State::Over,
            (Err(why), _) | (_, Err(why)) => State::Odd(why),
        }
    }

    /// The claim on it, if it is one of ctxinit and stands.
    pub fn mark(&self) -> Option<Mark> {
        let mark = Mark { lock: self.get("lock")?, claim: self.get(CLAIM)? };
        let stands = self.state() == State::Locked && self.get::<String>("hostname")?.as_str() == mark.hostname();
        stands.then_some(mark)
    }

    /// Claims it.
    pub fn claim(&mut self, mark: &Mark) {
        self.set("lock", &mark.lock);
        self.set("hostname", mark.hostname());
        self.set(CLAIM, &mark.claim);
    }

    /// Its payload ended well at `now`, unix seconds.
    pub fn complete(&mut self, now: i64) {
        self.set("done", &now);
        self.set("exit_code", &0);
    }

    /// Whether [`Self::complete`] was done to it under this claim.
    pub fn is_completed(&self, mark: &Mark) -> bool {
        self.state() == State::Over
            && self.get("lock") == Some(mark.lock)
            && self.get(CLAIM).as_ref() == Some(&mark.claim)
    }

    /// Puts it back, as `scrub` of the Python client does.
    pub fn scrub(&mut self, hostname: &str) {
        self.set("scrub_count", &self.scrub_count().saturating_add(1));
        self.set("lock", &0);
        self.set("done", &0);
        self.set("hostname", hostname);
        for name in JOB_IDS.into_iter().chain([CLAIM]) {
            self.fields.remove(name);
        }
    }

    /// Puts it aside as failed at `now`, as `error` of the Python client does.
    pub fn fail(&mut self, now: i64, why: &str) {
        #[derive(Serialize)]
        struct Entry<'a> {
            time: i64,
            message: &'a str,
        }
        // Whatever else stands there is somebody's; then the message has no place.
        if let Some(mut errors) = self.get::<Vec<Box<RawValue>>>("error").or((!self.has("error")).then(Vec::new)) {
            errors.extend(serde_json::value::to_raw_value(&Entry { time: now, message: why }).ok());
            self.set("error", &errors);
        }
        // 0 from an earlier life would show it among those that are done.
        if self.get("exit_code") == Some(0) {
            self.set("exit_code", "");
        }
        self.set("lock", &ERROR);
        self.set("done", &ERROR);
    }

    /// Whether [`Self::fail`] was done to it under this claim.
    pub fn is_failed(&self, mark: &Mark) -> bool {
        let is = |name| self.get(name) == Some(ERROR);
        is("lock") && is("done") && self.get(CLAIM).as_ref() == Some(&mark.claim)
    }

    /// How often it was put back.
    pub fn scrub_count(&self) -> u32 {
        self.get("scrub_count").unwrap_or_default()
    }

    /// What is to be done: a text as it is, anything else as JSON. Then its media type; `media_type` may say another.
    ///
    /// # Errors
    /// There is nothing; says so.
    pub fn input(&self) -> Result<(Vec<u8>, String), String> {
        let (value, usual) = match self.fields.get("input").map(|raw| raw.get()) {
            None | Some("null") => return Err("it has no field input".to_owned()),
            Some(text) if text.starts_with('"') => {
                let Some(text) = self.get::<String>("input") else { return Err("its input is no text".to_owned()) };
                (text.into_bytes(), "text/plain")
            }
            Some(json) => (json.into(), "application/json"),
        };
        match self.get::<String>("media_type") {
            None => Ok((value, usual.to_owned())),
            Some(text) if text.len() > LONGEST_TYPE || text.chars().any(char::is_control) => {
                Err("its media_type is none".to_owned())
            }
            Some(text) => Ok((value, text)),
        }
    }

    /// How long the attached result is, if it was attached after revision `rev` of the document.
    pub fn result_since(&self, rev: &str) -> Option<u64> {
        #[derive(Deserialize)]
        struct Stub {
            revpos: u64,
            length: u64,
        }
        let stub = self.get::<BTreeMap<String, Box<RawValue>>>("_attachments")?.remove(RESULT)?;
        let Stub { revpos, length } = serde_json::from_str(stub.get()).ok()?;
        (revpos > generation(rev)?).then_some(length)
    }

    fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    fn get<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.fields.get(name)?.get()).ok()
    }

    fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        // Numbers and texts always have a JSON form.
        if let Ok(raw) = serde_json::value::to_raw_value(value) {
            self.fields.insert(name.to_owned(), raw);
        }
    }

    fn stamp(&self, name: &str) -> Result<f64, String> {
        let Some(raw) = self.fields.get(name) else { return Err(format!("it has no {name}")) };
        serde_json::from_str(raw.get())
            .map_err(|_| format!("its {name} is no number: {}", raw.get().chars().take(40).collect::<String>()))
    }
}

/// The number of a revision: `3` of `3-917fa2381192822767f010b95b45325b`.
fn generation(rev: &str) -> Option<u64> {
    rev.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM_OF_OURS: &str = "wn-1/vm/boot/0/5f0a";

    fn read(text: &str) -> Document {
        Document::parse(text.as_bytes()).unwrap()
    }

    fn written(document: &Document) -> String {
        String::from_utf8(document.bytes().unwrap()).unwrap()
    }

    fn mark() -> Mark {
        Mark { lock: 1_700_000_000, claim: CLAIM_OF_OURS.to_owned() }
    }

    #[test]
    fn what_is_not_ours_is_written_back_as_it_was() {
        // A number that no f64 holds, one that changes when it is read and written, and a stub.
        let text = r#"{"_attachments":{"in.txt":{"content_type":"text/plain","digest":"md5-x","length":5,"revpos":1,"stub":true}},"_id":"a/b","_rev":"1-x","done":0,"input":{"z":1.10,"a":12345678901234567890123},"lock":0,"note":"\u00e9"}"#;
        let mut document = read(text);
        assert_eq!(written(&document), text);
        document.claim(&mark());
        let claimed = text
            .replace(r#""done":0"#, r#""ctxinit_claim":"wn-1/vm/boot/0/5f0a","done":0,"hostname":"wn-1""#)
            .replace(r#""lock":0"#, r#""lock":1700000000"#);
        assert_eq!(written(&document), claimed);
        document.scrub("wn-1");
        let scrubbed = text
            .replace(r#""done":0"#, r#""done":0,"hostname":"wn-1""#)
            .replace(r#"\u00e9""#, r#"\u00e9","scrub_count":1"#);
        assert_eq!(written(&document), scrubbed);
    }

    #[test]
    fn states() {
        let odd = |why: &str| State::Odd(why.to_owned());
        let cases = [
            (r#"{"lock":0,"done":0}"#, State::Free),
            (r#"{"lock":0.0,"done":0}"#, State::Free),
            (r#"{"lock":1700000000,"done":0}"#, State::Locked),
            (r#"{"lock":1700000000,"done":1700000001}"#, State::Over),
            (r#"{"lock":0,"done":1700000001}"#, State::Over),
            (r#"{"lock":99,"done":99}"#, State::Over),
            (r#"{"done":0}"#, odd("it has no lock")),
            (r#"{"lock":0}"#, odd("it has no done")),
            (r#"{"lock":"0","done":0}"#, odd("its lock is no number: \"0\"")),
            (r#"{"lock":0,"done":null}"#, odd("its done is no number: null")),
            (r#"{"lock":[0],"done":0}"#, odd("its lock is no number: [0]")),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text).state(), expected, "{text}");
        }
        for text in ["[]", "null", "<html>", "{\"lock\":", "\"x\"", ""] {
            assert!(Document::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_claim_stands_until_anybody_else_touches_the_lock() {
        let mut ours = read(r#"{"lock":0,"done":0}"#);
        assert_eq!(ours.mark(), None);
        ours.claim(&mark());
        assert_eq!(ours.mark(), Some(mark()));
        let text = written(&ours);
        let cases = [
            // Freed by resetTokens.py, which leaves our field.
            (r#""lock":1700000000"#, r#""lock":0"#, None),
            // And claimed by another client since then.
            (r#""hostname":"wn-1""#, r#""hostname":"wn-2""#, None),
            (r#""lock":1700000000"#, r#""lock":1700000009"#, Some(Mark { lock: 1_700_000_009, ..mark() })),
            (r#""done":0"#, r#""done":1700000009"#, None),
            (r#""lock":1700000000"#, r#""lock":"1700000000""#, None),
            (CLAIM_OF_OURS, "wn-1/vm/boot/0/ffff", Some(Mark { claim: "wn-1/vm/boot/0/ffff".to_owned(), ..mark() })),
        ];
        for (from, to, expected) in cases {
            let other = text.replace(from, to);
            assert_ne!(other, text);
            assert_eq!(read(&other).mark(), expected, "{other}");
        }
        assert_eq!(Mark::parse(&mark().text()), Some(mark()));
        assert_eq!(Mark::parse("x@y"), None);
    }

    #[test]
    fn a_token_that_is_done_shows_in_the_view_done() {
        let mut document = read(r#"{"lock":0,"done":0,"exit_code":""}"#);
        document.claim(&mark());
        assert!(!document.is_completed(&mark()));
        document.complete(1_700_000_060);
        assert!(document.is_completed(&mark()));
        assert!(!document.is_completed(&Mark { claim: "x".to_owned(), ..mark() }));
        assert_eq!((document.get("done"), document.get("exit_code")), (Some(1_700_000_060), Some(0)));
    }

    #[test]
    fn a_failed_token_shows_in_the_view_error() {
        let cases = [
            (r#"{"lock":5,"done":0}"#, r#"{"done":99,"error":[{"time":7,"message":"exit 3"}],"lock":99}"#),
            (
                r#"{"lock":5,"done":0,"exit_code":0,"error":[{"time":1.50}]}"#,
                r#"{"done":99,"error":[{"time":1.50},{"time":7,"message":"exit 3"}],"exit_code":"","lock":99}"#,
            ),
            (
                r#"{"lock":5,"done":0,"exit_code":3,"error":"mine"}"#,
                r#"{"done":99,"error":"mine","exit_code":3,"lock":99}"#,
            ),
        ];
        for (text, expected) in cases {
            let mut document = read(text);
            document.fail(7, "exit 3");
            assert_eq!(written(&document), expected);
        }
        let mut document = read(r#"{"lock":0,"done":0}"#);
        document.claim(&mark());
        assert!(!document.is_failed(&mark()));
        document.fail(7, "exit 3");
        assert!(document.is_failed(&mark()));
    }

    #[test]
    fn scrubs_are_counted_and_other_clients_jobs_forgotten() {
        for (before, after) in [("", 1), (r#","scrub_count":3"#, 4), (r#","scrub_count":"3""#, 1)] {
            let mut document = read(&format!(r#"{{"lock":5,"done":0,"slurm_job_id":"7","wms_job_id":null{before}}}"#));
            document.scrub("wn-1");
            let expected = format!(r#"{{"done":0,"hostname":"wn-1","lock":0,"scrub_count":{after}}}"#);
            assert_eq!(written(&document), expected);
        }
    }

    #[test]
    fn inputs() {
        type Expected = Result<(&'static [u8], &'static str), &'static str>;
        let cases: [(&str, Expected); 8] = [
            (r#"{"input":"echo \u00e9\n"}"#, Ok(("echo \u{e9}\n".as_bytes(), "text/plain"))),
            (r#"{"input":""}"#, Ok((b"", "text/plain"))),
            (r#"{"input":{"seed": 1.10}}"#, Ok((b"{\"seed\": 1.10}", "application/json"))),
            (r#"{"input":7}"#, Ok((b"7", "application/json"))),
            (r#"{"input":"x","media_type":"text/x-seed; vo=atlas"}"#, Ok((b"x", "text/x-seed; vo=atlas"))),
            (r#"{"input":null}"#, Err("it has no field input")),
            (r#"{}"#, Err("it has no field input")),
            // Half of a surrogate pair.
            (r#"{"input":"\ud800"}"#, Err("its input is no text")),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(body, media)| (body.to_vec(), media.to_owned())).map_err(str::to_owned);
            assert_eq!(read(text).input(), expected, "{text}");
        }
        for media_type in ["x".repeat(300_000), r"text/plain\n".to_owned()] {
            let found = read(&format!(r#"{{"input":"x","media_type":"{media_type}"}}"#)).input();
            assert_eq!(found, Err("its media_type is none".to_owned()));
        }
    }

    #[test]
    fn a_result_of_an_earlier_life_is_not_this_one() {
        let document = read(r#"{"_attachments":{"result":{"revpos":4,"length":6,"digest":"md5-x","stub":true}}}"#);
        assert_eq!(document.result_since("3-abc"), Some(6));
        assert_eq!(document.result_since("4-abc"), None);
        assert_eq!(document.result_since("x"), None);
        assert_eq!(read(r#"{"_attachments":{"in":{"revpos":4,"length":6}}}"#).result_since("1-a"), None);
        assert_eq!(read("{}").result_since("1-a"), None);
    }
}
