//! `payload` of `context.json`: what a site takes away from what the image allows payloads.
//!
//! Here it is checked by itself. That it takes away and never adds is seen beside the image's own policy
//! ([`crate::image::tighten`]).

use serde::{Deserialize, Deserializer};

use crate::image::payload::{
    self, Access, Hosts, MAX_CPU_PERCENT, MAX_FILES, MAX_MB, MAX_PIDS, MAX_WALL_SECS, MIN_FILES,
};
use crate::image::policy::some_between;
use crate::image::reach::check_network;

/// The whole object. Keys and units are those of the image's [`payload::Payload`]; what is not said stays as it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tightening {
    /// MiB of memory for the whole job.
    #[serde(deserialize_with = "some_between::<_, 1, MAX_MB>")]
    pub memory_mb: Option<u32>,
    /// Processes and threads of the whole job.
    #[serde(deserialize_with = "some_between::<_, 1, MAX_PIDS>")]
    pub pids: Option<u32>,
    /// Hundredths of a processor for the whole job.
    #[serde(deserialize_with = "some_between::<_, 1, MAX_CPU_PERCENT>")]
    pub cpu_percent: Option<u32>,
    /// Descriptors of one process.
    #[serde(deserialize_with = "some_between::<_, MIN_FILES, MAX_FILES>")]
    pub open_files: Option<u32>,
    /// MiB of the job's own directory.
    #[serde(deserialize_with = "some_between::<_, 1, MAX_MB>")]
    pub scratch_mb: Option<u32>,
    /// Seconds of wall time for one token.
    #[serde(deserialize_with = "some_between::<_, 1, MAX_WALL_SECS>")]
    pub wall_secs: Option<u32>,
    /// Places of the image's list, or below them; in its place.
    #[serde(deserialize_with = "some_places")]
    pub writable: Option<Vec<String>>,
    /// Whether it may make user namespaces.
    pub user_namespaces: Option<bool>,
    /// Whether setuid programs and file capabilities count.
    pub setuid_programs: Option<bool>,
    /// Whom it may talk to.
    pub network: Network,
    /// Whether there is a shell on the console. Nobody has one unless the image and the site both say so.
    pub console_shell: Option<bool>,
}

/// Whom payloads of a site may talk to, at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "UncheckedNetwork")]
pub struct Network {
    /// How far they reach.
    pub access: Option<Access>,
    /// Addresses and networks within the image's; in their place.
    pub hosts: Option<Vec<Hosts>>,
    /// Whether they may send mail by themselves.
    pub mail: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UncheckedNetwork {
    access: Option<Access>,
    hosts: Option<Vec<Hosts>>,
    mail: Option<bool>,
}

impl TryFrom<UncheckedNetwork> for Network {
    type Error = String;

    fn try_from(raw: UncheckedNetwork) -> Result<Self, String> {
        let UncheckedNetwork { access, hosts, mail } = raw;
        check_network(access, hosts.as_deref(), mail)?;
        Ok(Self { access, hosts, mail })
    }
}

fn some_places<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    payload::places(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::context::site::Site;

    fn read(keys: &str) -> Result<Tightening, String> {
        let text = format!("{{\"payload\": {{\n{keys}}}}}");
        let site = config::parse::<Site>("context.json", text.as_bytes()).map_err(|error| error.to_string());
        site.map(|site| site.payload)
    }

    #[test]
    fn what_is_not_said_is_nothing() {
        assert_eq!(read("").unwrap(), Tightening::default());
        let said = read(r#""pids": 1, "writable": [], "network": {"access": "none"}"#).unwrap();
        let network = Network { access: Some(Access::None), ..Network::default() };
        let expected = Tightening { pids: Some(1), writable: Some(Vec::new()), network, ..Tightening::default() };
        assert_eq!(said, expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (r#""memory_mb": 0"#, "memory_mb: 0 is not between 1 and 16777216"),
            (r#""pids": 0"#, "pids: 0 is not between 1 and 4194304"),
            (r#""cpu_percent": 0"#, "cpu_percent: 0 is not between 1 and 1000000"),
            (r#""open_files": 15"#, "open_files: 15 is not between 16 and 1048576"),
            (r#""scratch_mb": 16777217"#, "scratch_mb: 16777217 is not between 1 and 16777216"),
            (r#""wall_secs": 0"#, "wall_secs: 0 is not between 1 and 31536000"),
            (r#""pids": "many""#, "pids: invalid type: string \"many\", expected u32"),
            (r#""pids": null"#, "pids: invalid type: null, expected u32"),
            (r#""user_namespaces": 1"#, "user_namespaces: invalid type: integer `1`, expected a boolean"),
            (r#""writable": ["scratch"]"#, "writable: \"scratch\" is not an absolute path"),
            (r#""network": {"hosts": ["x"]}"#, "network.hosts[0]: \"x\" is neither an address nor a network"),
            (r#""network": {"access": "some"}"#, "network.access: unknown variant `some`, expected one of `all`,"),
            (
                r#""network": {"host": []}"#,
                "network.host: unknown field `host`, expected one of `access`, `hosts`, `mail`",
            ),
            (
                r#""network": {"access": "all", "hosts": ["10.0.0.0/8"]}"#,
                "network: hosts: access \"all\" has no list; say access \"listed\"",
            ),
            (r#""network": {"access": "none", "mail": true}"#, "network: mail: access \"none\" reaches no mail server"),
            // What is the image's alone to say.
            (r#""command": ["/w"]"#, "command: unknown field `command`, expected one of `memory_mb`,"),
            (r#""grace_secs": 1"#, "grace_secs: unknown field `grace_secs`, expected one of `memory_mb`,"),
        ];
        for (keys, complaint) in cases {
            let error = read(keys).unwrap_err();
            assert!(error.starts_with(&format!("context.json:2: payload.{complaint}")), "{keys}: {error}");
        }
    }
}
