//! The gate before a job: whose work the site forbids, by the CD's list and the newest one that was fetched.
//!
//! The CD's list holds as long as the machine lives: no server, and nobody on the way to one, lifts what it bans. A list
//! that is fetched bans more, and replaces the one that was fetched before; a fetch that fails changes nothing at
//! first, since a server's reboot must not stop a site's work. But a list that could not be fetched for four intervals
//! is no list any more: who can cut a machine off from its site's bans must not run on it for ever.

use std::time::Duration;

use super::Agent;
use super::audit;
use super::runner::Fault;
use crate::ban::judge::{Decision, Unknown, judge};
use crate::ban::owner::Owner;
use crate::ban::parse::{self, List};
use crate::ban::{FILE, Version};
use crate::clock::Deadline;
use crate::verdict::Verdict;

/// The site's word on whose work may run.
#[derive(Debug, Default)]
pub struct Bans {
    /// The CD's.
    list: Option<(List, Version)>,
    fetched: Option<(List, Version)>,
    /// Whether there ought to be one.
    wanted: bool,
    unknown: Unknown,
    stop_running: bool,
    refresh: Option<Refresh>,
    /// Another list was taken since [`Bans::take_news`].
    news: bool,
}

/// For a list that is fetched.
#[derive(Debug)]
struct Refresh {
    url: String,
    grace: Duration,
    /// Until then the list counts although it was not fetched again.
    fresh: Deadline,
    /// Fetches in a row that failed, and what the last one said.
    failures: u32,
    why: String,
}

/// What the CD's copy holds, read but not judged: the verdict comes when the site can hear it.
pub type OnCd = Option<Result<(List, Version), String>>;

/// Reads the list on the CD.
pub fn read(text: Option<Vec<u8>>) -> OnCd {
    let read = |bytes: &Vec<u8>| {
        let list = parse::parse(FILE, bytes).map_err(|error| error.to_string())?;
        Ok((list, Version::of(FILE, bytes)))
    };
    text.as_ref().map(read)
}

impl Bans {
    /// As the context has it.
    ///
    /// # Errors
    /// A list that cannot be read ends the machine before anybody's work.
    pub fn of(agent: &Agent) -> Result<Self, Fault> {
        let list = agent.ban_list.clone().transpose();
        let list = list.map_err(|why| Fault::Failed(Verdict::refused(format!("nobody's work runs: {why}"))))?;
        if let Some((list, version)) = &list {
            audit::ban_list(list, version);
        }
        let site = agent.site.bans.clone();
        let wanted = list.is_some() || site.is_some();
        let site = site.unwrap_or_default();
        let refresh = site.refresh_url.as_ref().map(|url| Refresh {
            url: url.to_string(),
            grace: site.grace(),
            fresh: Deadline::after(site.grace()),
            failures: 0,
            why: "it was not fetched yet".to_owned(),
        });
        Ok(Self {
            list,
            wanted,
            unknown: site.unknown,
            stop_running: site.stop_running,
            fetched: None,
            refresh,
            news: false,
        })
    }

    /// Whether there is a list to go by, if there ought to be one.
    ///
    /// # Errors
    /// Why there is none.
    pub fn ready(&self) -> Result<(), String> {
        match (self.lists().next(), &self.refresh) {
            (None, Some(Refresh { url, why, .. })) => Err(format!("no ban list from {url}: {why}")),
            (Some(_), Some(Refresh { url, fresh, grace, why, .. })) if fresh.passed() => {
                let secs = grace.as_secs();
                Err(format!("the ban list from {url} could not be fetched for {secs} s: {why}"))
            }
            _ => Ok(()),
        }
    }

    /// The newest first.
    fn lists(&self) -> impl Iterator<Item = &(List, Version)> {
        self.fetched.iter().chain(&self.list)
    }

    /// Whether a job may start, and the list that says so; of two that allow it, the newer one.
    pub fn decide(&self, owner: &Owner) -> (Decision, Option<&Version>) {
        if let Err(why) = self.ready() {
            return (Decision::NoList(why), self.lists().next().map(|(_, version)| version));
        }
        let decisions = self.lists().map(|(list, version)| (judge(owner, list, self.unknown), Some(version)));
        let rank = |decision: &Decision| match decision {
            Decision::Banned { .. } => 0,
            Decision::Allowed => 2,
            _ => 1,
        };
        decisions.min_by_key(|(decision, _)| rank(decision)).unwrap_or_else(|| match self.wanted {
            true => (Decision::NoList("there is no ban list".to_owned()), None),
            false => (Decision::Allowed, None),
        })
    }

    /// Whether a job that runs has to stop. Only a ban by name does that: nothing else came to be known of its owner.
    pub fn stops(&self, owner: &Owner) -> Option<Decision> {
        let mut decisions =
            self.lists().filter(|_| self.stop_running).map(|(list, _)| judge(owner, list, Unknown::Allow));
        decisions.find(|decision| matches!(decision, Decision::Banned { .. }))
    }

    /// The worker has fetched one. `body` is its typed form, `sha256` that of its bytes.
    pub fn take(&mut self, sha256: String, body: &[u8]) {
        // It is less privileged than we are: its word is held to the form that it must have.
        let sound = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        let list = serde_json::from_slice::<List>(body).map_err(|error| error.to_string());
        let list = list.and_then(|list| if sound { Ok(list) } else { Err("no hash".to_owned()) });
        let list = match list {
            Ok(list) => list,
            Err(why) => return self.missed(format!("the worker's list: {why}")),
        };
        let Some(refresh) = &mut self.refresh else { return };
        if refresh.failures > 0 {
            log::info!("bans: {} is fetched again", refresh.url);
        }
        refresh.failures = 0;
        refresh.fresh = Deadline::after(refresh.grace);
        let version = Version { source: refresh.url.clone(), sha256 };
        if self.fetched.as_ref().is_none_or(|(_, known)| known.sha256 != version.sha256) {
            audit::ban_list(&list, &version);
            self.news = true;
        }
        self.fetched = Some((list, version));
    }

    /// Whether another list decides since this was asked last.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// The worker could not fetch it.
    pub fn missed(&mut self, why: String) {
        let Some(refresh) = &mut self.refresh else { return };
        refresh.failures += 1;
        let Refresh { failures, fresh, url, .. } = refresh;
        if *failures == 1 {
            let left = fresh.left().as_secs();
            log::warn!("bans: {url} is not fetched: {why}; without a list that is {left} s newer nobody's work starts");
            audit::ban_list_fault(url, &why);
        }
        refresh.why = why;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"\"/O=x/CN=Jan\"\n";

    fn bans(grace: Duration) -> Bans {
        let refresh = Refresh {
            url: "http://h/l".to_owned(),
            grace,
            fresh: Deadline::after(grace),
            failures: 0,
            why: "it was not fetched yet".to_owned(),
        };
        Bans { wanted: true, stop_running: true, refresh: Some(refresh), ..Bans::default() }
    }

    fn typed(bytes: &[u8]) -> (String, Vec<u8>) {
        let list = parse::parse("l", bytes).unwrap();
        (Version::of("l", bytes).sha256, serde_json::to_vec(&list).unwrap())
    }

    fn jan() -> Owner {
        Owner::of_media_type(b"a/b; owner=\"/O=x/CN=Jan\"")
    }

    #[test]
    fn without_any_list_everybody_may() {
        assert_eq!(Bans::default().decide(&Owner::Unknown).0, Decision::Allowed);
        assert_eq!(Bans::default().decide(&jan()).0, Decision::Allowed);
        assert_eq!(read(None), None);
        assert!(read(Some(b"atlas\n".to_vec())).unwrap().unwrap_err().starts_with("ban.list:1: "));
    }

    #[test]
    fn a_list_that_is_fetched_counts_from_then_on() {
        let mut bans = bans(Duration::from_secs(60));
        let none = "no ban list from http://h/l: it was not fetched yet";
        assert_eq!(bans.decide(&jan()).0, Decision::NoList(none.to_owned()));
        let (sha256, body) = typed(b"# nobody\n");
        bans.take(sha256.clone(), &body);
        assert_eq!((bans.decide(&jan()).0, bans.stops(&jan())), (Decision::Allowed, None));
        assert_eq!(bans.decide(&Owner::Unknown).0, Decision::Unknown);
        let (sha256, body) = typed(LIST);
        bans.take(sha256.clone(), &body);
        let banned = Decision::Banned { line: 1, rule: "/O=x/CN=Jan".to_owned() };
        assert_eq!((bans.decide(&jan()).0, bans.stops(&jan())), (banned.clone(), Some(banned)));
        // Who began without a name goes on without one.
        assert_eq!(bans.stops(&Owner::Unknown), None);
        bans.stop_running = false;
        assert_eq!(bans.stops(&jan()), None);
        assert_eq!(bans.decide(&jan()).1.unwrap().sha256, sha256);
    }

    #[test]
    fn a_failed_fetch_is_forgiven_for_a_while() {
        let (sha256, body) = typed(b"# nobody\n");
        let mut now = bans(Duration::from_secs(60));
        now.take(sha256.clone(), &body);
        now.missed("GET http://h/l: 500".to_owned());
        assert_eq!(now.ready(), Ok(()));
        let mut old = bans(Duration::ZERO);
        old.take(sha256.clone(), &body);
        old.missed("GET http://h/l: 500".to_owned());
        let why = "the ban list from http://h/l could not be fetched for 0 s: GET http://h/l: 500";
        assert_eq!(old.decide(&jan()).0, Decision::NoList(why.to_owned()));
        // A worker that was taken over does not make lists of its own form.
        for (sha256, body) in [("x".to_owned(), body), (sha256, b"[{}]".to_vec())] {
            let mut bans = bans(Duration::from_secs(60));
            bans.take(sha256, &body);
            assert!(bans.fetched.is_none() && bans.ready().is_err());
        }
    }

    #[test]
    fn the_list_of_the_cd_holds_whatever_is_fetched() {
        let mut bans = bans(Duration::from_secs(60));
        bans.list = read(Some(LIST.to_vec())).transpose().unwrap();
        let piet = Owner::of_media_type(b"a/b; owner=\"/O=x/CN=Piet\"");
        assert_eq!((bans.decide(&jan()).0.is_allowed(), bans.decide(&piet).0.is_allowed()), (false, true));
        let (sha256, body) = typed(b"# nobody\n");
        bans.take(sha256.clone(), &body);
        assert!(!bans.decide(&jan()).0.is_allowed() && bans.stops(&jan()).is_some());
        assert!(bans.decide(&piet).0.is_allowed());
        let (sha256, body) = typed(b"\"/O=x/CN=Piet\"\n");
        bans.take(sha256.clone(), &body);
        assert!(!bans.decide(&jan()).0.is_allowed() && !bans.decide(&piet).0.is_allowed());
        assert!(bans.stops(&jan()).is_some() && bans.stops(&piet).is_some());
        // A ban says more than that somebody is not known.
        let (sha256, body) = typed(b"/atlas\n");
        bans.take(sha256.clone(), &body);
        let atlas = Owner::of_media_type(b"a/b; vo=atlas");
        let (decision, list) = bans.decide(&atlas);
        assert!(matches!(decision, Decision::Banned { line: 1, .. }));
        assert_eq!(list.map(|list| &list.source), Some(&"http://h/l".to_owned()));
        assert_eq!(bans.decide(&jan()).1.map(|list| list.source.as_str()), Some(FILE));
    }
}
