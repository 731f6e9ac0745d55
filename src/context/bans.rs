//! `bans` of `context.json`: how the site's ban list is kept up to date, and what follows from it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::site::BaseUrl;
use crate::ban::{FILE, judge::Unknown};
use crate::image::policy::between;

/// All of it. The list itself is `ban.list` on the CD, or comes from the URL, or both: then each of them bans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bans {
    /// Where a list is fetched from again and again. Plain http too, for a network that the site trusts: it cannot lift
    /// what the CD bans.
    pub refresh_url: Option<BaseUrl>,
    /// PEM file on the CD with the authorities that may have signed that server's certificate.
    pub ca: Option<String>,
    /// Seconds between two fetches, 10-600: a ban that takes longer to arrive is of little use, and more often than
    /// every 10 s a thousand machines would be a load.
    #[serde(deserialize_with = "between::<_, 10, 600>")]
    pub interval_secs: u32,
    /// Whether a job that runs is stopped when its owner is banned.
    pub stop_running: bool,
    /// What becomes of work whose owner nobody has named.
    pub unknown: Unknown,
}

impl Default for Bans {
    fn default() -> Self {
        Self { refresh_url: None, ca: None, interval_secs: 600, stop_running: false, unknown: Unknown::Refuse }
    }
}

impl Bans {
    /// How long a list is believed that could not be fetched again: four tries, then nothing new is started.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(u64::from(self.interval_secs) * 4)
    }

    /// Why this cannot be used on this CD, key and reason.
    pub fn fault(&self, readable: impl Fn(&str) -> bool) -> Option<(&'static str, String)> {
        match (&self.refresh_url, &self.ca) {
            (None, _) if !readable(FILE) => {
                Some(("bans", format!("there is neither a {FILE} on the CD nor a refresh_url")))
            }
            (Some(url), None) if url.get().starts_with("https:") => {
                Some(("bans.ca", format!("{url} needs the file of its authorities")))
            }
            (_, Some(file)) if !readable(file) => Some(("bans.ca", format!("{file} is not on the CD"))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(json: &str, on_cd: &[&str]) -> Option<String> {
        let bans: Bans = serde_json::from_str(json).unwrap();
        bans.fault(|path| on_cd.contains(&path)).map(|(key, why)| format!("{key}: {why}"))
    }

    #[test]
    fn there_must_be_a_list_somewhere() {
        let nowhere = "bans: there is neither a ban.list on the CD nor a refresh_url".to_owned();
        assert_eq!(fault("{}", &[]), Some(nowhere));
        assert_eq!(fault("{}", &["ban.list"]), None);
        assert_eq!(fault(r#"{"refresh_url": "http://h/l"}"#, &[]), None);
        let https = r#"{"refresh_url": "https://h/l"}"#;
        assert_eq!(fault(https, &["ban.list"]).unwrap(), "bans.ca: https://h/l needs the file of its authorities");
        let with_ca = r#"{"refresh_url": "https://h/l", "ca": "ca.pem"}"#;
        assert_eq!(fault(with_ca, &[]).unwrap(), "bans.ca: ca.pem is not on the CD");
        assert_eq!(fault(with_ca, &["ca.pem"]), None);
    }

    #[test]
    fn bans_come_soon() {
        assert!(serde_json::from_str::<Bans>(r#"{"interval_secs": 601}"#).is_err());
        assert!(serde_json::from_str::<Bans>(r#"{"interval_secs": 9}"#).is_err());
        assert_eq!(Bans::default().grace(), Duration::from_secs(2400));
    }
}
