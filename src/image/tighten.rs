//! Policy in two hands: what the image allows payloads, and what of it the site's context leaves.
//!
//! Every key may become stricter and none looser. A context that asks for more, or for what would silently do nothing,
//! is refused with the key: who wrote it means something else than will happen.

use std::fmt::Display;

use thiserror::Error;

use super::payload::{Access, Network, Payload, is_within};
use crate::context::payload::{self, Tightening};

/// A key of a context that would loosen what the image allows, or that has no meaning beside it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key}: {why}")]
pub struct Loosening {
    /// As in `context.json`, from its root.
    pub key: &'static str,
    /// What the context asks, and what the image allows.
    pub why: String,
}

impl Payload {
    /// What holds where no site has said anything: what takes both to say is off.
    pub fn without_site(&self) -> Self {
        Self { console_shell: false, ..self.clone() }
    }

    /// What holds for payloads of this image at a site that says this.
    ///
    /// # Errors
    /// Every key that would loosen something; never an empty list.
    pub fn tightened(&self, site: &Tightening) -> Result<Self, Vec<Loosening>> {
        let mut judge = Judge::default();
        // Each field by its name, so that a new one is thought of here.
        let payload = Self {
            command: self.command.clone(),
            commands: self.commands.clone(),
            memory_mb: judge.number("payload.memory_mb", self.memory_mb, site.memory_mb),
            pids: judge.number("payload.pids", self.pids, site.pids),
            cpu_percent: match self.cpu_percent {
                Some(image) => Some(judge.number("payload.cpu_percent", image, site.cpu_percent)),
                None => site.cpu_percent,
            },
            open_files: judge.number("payload.open_files", self.open_files, site.open_files),
            scratch_mb: judge.number("payload.scratch_mb", self.scratch_mb, site.scratch_mb),
            wall_secs: judge.number("payload.wall_secs", self.wall_secs, site.wall_secs),
            grace_secs: self.grace_secs,
            no_retry: self.no_retry.clone(),
            writable: judge.places("payload.writable", &self.writable, site.writable.as_deref()),
            user_namespaces: judge.switch("payload.user_namespaces", self.user_namespaces, site.user_namespaces),
            setuid_programs: judge.switch("payload.setuid_programs", self.setuid_programs, site.setuid_programs),
            network: judge.network(&self.network, &site.network),
            console_shell: judge.switch("payload.console_shell", self.console_shell, site.console_shell)
                && site.console_shell == Some(true),
        };
        if judge.0.is_empty() { Ok(payload) } else { Err(judge.0) }
    }

    /// What a site took away, in words: `memory_mb to 512`, `network.access to "none"`. `before` is what holds without
    /// it.
    pub fn less_than(&self, before: &Self) -> Vec<String> {
        let numbers = [
            ("memory_mb", Some(self.memory_mb), Some(before.memory_mb)),
            ("pids", Some(self.pids), Some(before.pids)),
            ("cpu_percent", self.cpu_percent, before.cpu_percent),
            ("open_files", Some(self.open_files), Some(before.open_files)),
            ("scratch_mb", Some(self.scratch_mb), Some(before.scratch_mb)),
            ("wall_secs", Some(self.wall_secs), Some(before.wall_secs)),
        ];
        let numbers = numbers.into_iter().filter(|(_, now, before)| now != before);
        let mut less: Vec<String> =
            numbers.filter_map(|(key, now, _)| now.map(|now| format!("{key} to {now}"))).collect();
        if self.writable != before.writable {
            let left = if self.writable.is_empty() { "nothing".to_owned() } else { listed(&self.writable) };
            less.push(format!("writable to {left}"));
        }
        let (network, open) = (&self.network, &before.network);
        if network.access != open.access {
            less.push(format!("network.access to {}", network.access));
        }
        if network.access == Access::Listed && network.hosts != open.hosts {
            less.push(format!("network.hosts to {}", listed(&network.hosts)));
        }
        let switches = [
            ("user_namespaces", self.user_namespaces, before.user_namespaces),
            ("setuid_programs", self.setuid_programs, before.setuid_programs),
            // Who reaches nobody reaches no mail server; that is said already.
            ("network.mail", network.mail || network.access == Access::None, open.mail),
        ];
        let off = switches.into_iter().filter(|(_, now, before)| *before && !now);
        less.extend(off.map(|(key, ..)| format!("{key} to false")));
        less
    }
}

const NEVER: &str = "a site may tighten and never loosen";

/// What is wrong so far.
#[derive(Default)]
struct Judge(Vec<Loosening>);

impl Judge {
    fn refuse(&mut self, key: &'static str, why: String) {
        self.0.push(Loosening { key, why });
    }

    fn number(&mut self, key: &'static str, image: u32, site: Option<u32>) -> u32 {
        let asked = site.unwrap_or(image);
        if asked > image {
            self.refuse(key, format!("{asked} is more than the image's {image}: {NEVER}"));
        }
        asked
    }

    fn switch(&mut self, key: &'static str, image: bool, site: Option<bool>) -> bool {
        if site == Some(true) && !image {
            self.refuse(key, format!("true is more than the image's false: {NEVER}"));
        }
        image && site.unwrap_or(true)
    }

    fn places(&mut self, key: &'static str, image: &[String], site: Option<&[String]>) -> Vec<String> {
        let asked = site.unwrap_or(image);
        for place in asked.iter().filter(|place| !image.iter().any(|outer| is_within(place, outer))) {
            self.refuse(key, format!("{place} is not within the image's {}: {NEVER}", listed(image)));
        }
        asked.to_vec()
    }

    fn network(&mut self, image: &Network, site: &payload::Network) -> Network {
        const HOSTS: &str = "payload.network.hosts";
        let access = site.access.unwrap_or(image.access);
        let mail = self.switch("payload.network.mail", image.mail, site.mail) && access != Access::None;
        if access < image.access {
            let why = format!("{access} is more than the image's {}: {NEVER}", image.access);
            self.refuse("payload.network.access", why);
            return image.clone();
        }
        let hosts = match (access, &site.hosts) {
            (Access::All | Access::None, None) => Vec::new(),
            // A list that nobody goes by is not what its writer meant.
            (Access::All, Some(_)) => {
                let why = "the image's access is \"all\", and no list counts: say payload.network.access \"listed\"";
                self.refuse(HOSTS, why.to_owned());
                Vec::new()
            }
            (Access::None, Some(hosts)) => {
                self.refuse(HOSTS, format!("{} is more than the image's access \"none\": {NEVER}", listed(hosts)));
                Vec::new()
            }
            (Access::Listed, None) if image.access == Access::All => {
                let why = "payload.network.access \"listed\" needs them, as the image has no list";
                self.refuse(HOSTS, why.to_owned());
                Vec::new()
            }
            (Access::Listed, None) => image.hosts.clone(),
            (Access::Listed, Some(hosts)) => {
                let open = |hosts| image.access == Access::All || image.hosts.iter().any(|outer| outer.hold(hosts));
                for outside in hosts.iter().filter(|hosts| !open(hosts)) {
                    let why = format!("{outside} is not within the image's {}: {NEVER}", listed(&image.hosts));
                    self.refuse(HOSTS, why);
                }
                hosts.clone()
            }
        };
        Network { access, hosts, mail }
    }
}

/// For a line: the first few of them.
fn listed(all: &[impl Display]) -> String {
    const MANY: usize = 4;
    let words: Vec<String> = all.iter().take(MANY).map(ToString::to_string).collect();
    match all.len() {
        0 => "empty list".to_owned(),
        many if many > MANY => format!("{} and {} more", words.join(", "), many - MANY),
        _ => words.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::image::policy::Policy;

    /// A policy with these keys, and what a site says.
    fn tightened(image: &str, site: &str) -> Result<(Payload, Payload), String> {
        let image = format!(r#"{{"command": ["/w"]{}{image}}}"#, if image.is_empty() { "" } else { ", " });
        let image: Payload = config::parse("image.json", image.as_bytes()).unwrap();
        let site: Tightening = config::parse("context.json", format!("{{{site}}}").as_bytes()).unwrap();
        let all = |all: Vec<Loosening>| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        image.tightened(&site).map(|held| (held, image)).map_err(all)
    }

    /// What the site took away, in words, or why it may not.
    fn told(image: &str, site: &str) -> String {
        match tightened(image, site) {
            Ok((held, image)) => held.less_than(&image.without_site()).join(", "),
            Err(why) => why,
        }
    }

    #[test]
    fn every_key_may_become_stricter_and_none_looser() {
        let numbers = ["memory_mb", "pids", "cpu_percent", "open_files", "scratch_mb", "wall_secs"];
        for key in numbers {
            let say = |number: u32| format!("\"{key}\": {number}");
            assert_eq!(told(&say(100), &say(100)), "", "{key}");
            assert_eq!(told(&say(100), &say(99)), format!("{key} to 99"));
            let why = format!("payload.{key}: 101 is more than the image's 100: a site may tighten and never loosen");
            assert_eq!(told(&say(100), &say(101)), why);
            assert_eq!(told(&say(100), ""), "", "{key}");
        }
        // All of the machine's processors, unless the image says less.
        assert_eq!(told("", r#""cpu_percent": 1000000"#), "cpu_percent to 1000000");
        for (key, left, right) in [
            ("user_namespaces", "", ""),
            ("setuid_programs", "", ""),
            ("network.mail", r#""network": {"#, "}"),
            ("console_shell", "", ""),
        ] {
            let name = key.rsplit('.').next().unwrap_or_default();
            let say = |word: &str| format!("{left}\"{name}\": {word}{right}");
            assert_eq!(told(&say("true"), &say("true")), "", "{key}");
            let less = if key == "console_shell" { String::new() } else { format!("{key} to false") };
            assert_eq!(told(&say("true"), &say("false")), less);
            let why =
                format!("payload.{key}: true is more than the image's false: a site may tighten and never loosen");
            assert_eq!(told(&say("false"), &say("true")), why);
            assert_eq!(told("", &say("true")), why);
            assert_eq!(told(&say("true"), ""), "", "{key}");
            assert_eq!(told(&say("false"), ""), "", "{key}");
        }
    }

    #[test]
    fn places_and_hosts_lie_within_the_images() {
        let never = "a site may tighten and never loosen";
        let places = |list: &str| format!("\"writable\": {list}");
        let network = |keys: &str| format!("\"network\": {{{keys}}}");
        let to = |list: &str| network(&format!("\"access\": \"listed\", \"hosts\": {list}"));
        let hosts = |list: &str| network(&format!("\"hosts\": {list}"));
        let access = |word: &str| network(&format!("\"access\": \"{word}\""));
        let ab = places(r#"["/a", "/b"]"#);
        let ten = to(r#"["10.0.0.0/8"]"#);
        let cases = [
            (ab.clone(), ab.clone(), String::new()),
            (ab.clone(), places(r#"["/a/c/", "/b"]"#), "writable to /a/c, /b".to_owned()),
            (ab.clone(), places("[]"), "writable to nothing".to_owned()),
            (ab.clone(), String::new(), String::new()),
            (
                ab,
                places(r#"["/a", "/ab", "/"]"#),
                format!(
                    "payload.writable: /ab is not within the image's /a, /b: {never}; payload.writable: / is not within \
                     the image's /a, /b: {never}"
                ),
            ),
            (
                String::new(),
                places(r#"["/a"]"#),
                format!("payload.writable: /a is not within the image's empty list: {never}"),
            ),
            (access("all"), access("none"), "network.access to \"none\"".to_owned()),
            (String::new(), ten.clone(), "network.access to \"listed\", network.hosts to 10.0.0.0/8".to_owned()),
            (ten.clone(), access("none"), "network.access to \"none\"".to_owned()),
            (ten.clone(), ten.clone(), String::new()),
            (ten.clone(), access("listed"), String::new()),
            (ten.clone(), hosts(r#"["10.1.0.0/16"]"#), "network.hosts to 10.1.0.0/16".to_owned()),
            (network(r#""access": "all", "mail": true"#), access("none"), "network.access to \"none\"".to_owned()),
            (
                ten.clone(),
                hosts(r#"["10.1.0.0/16", "11.0.0.1"]"#),
                format!("payload.network.hosts: 11.0.0.1/32 is not within the image's 10.0.0.0/8: {never}"),
            ),
            (
                ten.clone(),
                access("all"),
                format!("payload.network.access: \"all\" is more than the image's \"listed\": {never}"),
            ),
            (
                access("none"),
                ten,
                format!("payload.network.access: \"listed\" is more than the image's \"none\": {never}"),
            ),
            (
                access("none"),
                hosts(r#"["10.0.0.0/8"]"#),
                format!("payload.network.hosts: 10.0.0.0/8 is more than the image's access \"none\": {never}"),
            ),
            (
                String::new(),
                hosts(r#"["10.0.0.0/8"]"#),
                "payload.network.hosts: the image's access is \"all\", and no list counts: say payload.network.access \
                 \"listed\""
                    .to_owned(),
            ),
            (
                String::new(),
                access("listed"),
                "payload.network.hosts: payload.network.access \"listed\" needs them, as the image has no list"
                    .to_owned(),
            ),
        ];
        for (image, site, expected) in cases {
            assert_eq!(told(&image, &site), expected, "{image} and {site}");
        }
        let held = tightened(&network(r#""access": "all", "mail": true"#), &access("none")).unwrap().0;
        assert_eq!(held.network, Network { access: Access::None, hosts: Vec::new(), mail: false });
    }

    #[test]
    fn a_shell_takes_both_to_say() {
        let shell = |image: &str, site: &str| tightened(image, site).unwrap().0.console_shell;
        let (yes, no) = (r#""console_shell": true"#, r#""console_shell": false"#);
        assert!(shell(yes, yes));
        assert!(!shell(yes, no) && !shell(yes, "") && !shell(no, no) && !shell("", ""));
        let mut open = Policy::unread().payload;
        open.console_shell = true;
        assert!(!open.without_site().console_shell);
    }

    #[test]
    fn a_long_list_is_cut() {
        assert_eq!(listed(&["a", "b", "c", "d"]), "a, b, c, d");
        assert_eq!(listed(&["a", "b", "c", "d", "e", "f"]), "a, b, c, d and 2 more");
    }
}
