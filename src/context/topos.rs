//! `work.topos` of `context.json`: a ToPoS token pool, who we are to its server, and what becomes of results.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::site::{BaseUrl, DirectoryPath, LeaseLimit, LockSecs, PoolName};

/// A pool and what to do with its results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topos {
    /// As far as the version: `https://host/4.1`, `https://host/4`, `http://host/3/realms/NAME`.
    pub url: BaseUrl,
    /// The pool that tokens are claimed from.
    pub pool: PoolName,
    /// Where results go; without it a result is only logged.
    pub results: Option<Results>,
    /// Seconds of a lock; it is renewed at a third of that.
    #[serde(default = "lock_secs")]
    pub lock_secs: LockSecs,
    /// A token that was handed out this often and whose payload fails goes to the pool `<pool>.failed`.
    #[serde(default = "lease_limit")]
    pub lease_limit: LeaseLimit,
    /// PEM file on the CD with the authorities that may have signed the certificates of its server, and of the server of
    /// results.
    pub ca: Option<String>,
    /// File on the CD with one line, `user:password`, for Basic authentication.
    pub user_file: Option<String>,
    /// PEM file on the CD with the machine's certificate and what leads from there to its authority.
    pub certificate: Option<String>,
    /// PEM file on the CD with the key of that.
    pub key: Option<String>,
    /// PEM file on the CD with certificate, key and chain in one, as RFC 3820 proxies are kept.
    pub proxy: Option<String>,
}

/// Where results are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Results {
    /// Into a pool of the same server.
    Pool(PoolName),
    /// By PUT of `<url>/<pool>.<id>`.
    Url(BaseUrl),
    /// As the file `<pool>.<id>` of a directory, written by the worker's user.
    Directory(DirectoryPath),
}

/// What the versions of the protocol differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3: locks are a realm's and have no description; other names of headers.
    Three,
    /// 4 and 4.1: the same, as far as a client needs it.
    Four,
}

fn lock_secs() -> LockSecs {
    LockSecs::DEFAULT
}

fn lease_limit() -> LeaseLimit {
    LeaseLimit::DEFAULT
}

impl Topos {
    /// What the URL's path says.
    ///
    /// # Errors
    /// What is wrong with it: with such a URL every pool looks empty.
    pub fn version(&self) -> Result<Version, String> {
        let url = &self.url;
        let path = url.get().split("://").nth(1).and_then(|rest| rest.split_once('/')).map_or("", |(_, path)| path);
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            [.., "pools"] | [.., "pools", _] => {
                Err(format!("{url} leads to a pool; the URL goes as far as the version only (http://host/4.1)"))
            }
            [.., "3", "realms", _] => Ok(Version::Three),
            [.., "3"] | [.., "3", "realms"] => {
                Err(format!("{url}: version 3 needs a realm (http://host/3/realms/NAME)"))
            }
            _ => Ok(Version::Four),
        }
    }

    /// The files of the CD that it names, each with its key.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let files = [
            ("work.topos.ca", &self.ca),
            ("work.topos.user_file", &self.user_file),
            ("work.topos.certificate", &self.certificate),
            ("work.topos.key", &self.key),
            ("work.topos.proxy", &self.proxy),
        ];
        files.into_iter().filter_map(|(key, file)| Some((key, file.as_ref()?)))
    }

    /// Why this cannot be used on this CD although each value is right, key and reason.
    pub fn faults(&self, readable: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        faults.extend(self.version().err().map(|why| ("work.topos.url", why)));
        let missing = self.files().filter(|(_, file)| !readable(file));
        faults.extend(missing.map(|(key, file)| (key, format!("{file} is not on the CD"))));
        let https = |url: &BaseUrl| url.get().starts_with("https:");
        let results = match &self.results {
            Some(Results::Url(url)) => Some(url),
            _ => None,
        };
        // A server by https is believed by nobody's authorities but the site's.
        if let (None, Some(url)) = (&self.ca, [Some(&self.url), results].into_iter().flatten().find(|url| https(url))) {
            faults.push(("work.topos.ca", format!("{url} needs the file of its authorities")));
        }
        let secrets = self.files().filter(|(key, _)| *key != "work.topos.ca");
        if !https(&self.url) {
            let why = |file: &String| format!("{file} is not shown to {}: it is not https", self.url);
            faults.extend(secrets.map(|(key, file)| (key, why(file))));
        }
        match (&self.certificate, &self.key, &self.proxy) {
            (Some(_), None, None) => faults.push(("work.topos.certificate", "needs work.topos.key".to_owned())),
            (None, Some(_), None) => faults.push(("work.topos.key", "needs work.topos.certificate".to_owned())),
            (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
                faults.push(("work.topos.proxy", "takes the place of work.topos.certificate and key".to_owned()));
            }
            _ => {}
        }
        faults
    }
}

impl<'de> Deserialize<'de> for Results {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl<'de> Visitor<'de> for Words {
            type Value = Results;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a pool, {\"url\": …} or {\"directory\": …}")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Results, E> {
                PoolName::try_from(name.to_owned()).map(Results::Pool).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Results, A::Error> {
                #[derive(Deserialize)]
                #[serde(rename_all = "lowercase")]
                enum Elsewhere {
                    Url(BaseUrl),
                    Directory(DirectoryPath),
                }
                Ok(match Elsewhere::deserialize(MapAccessDeserializer::new(map))? {
                    Elsewhere::Url(url) => Results::Url(url),
                    Elsewhere::Directory(path) => Results::Directory(path),
                })
            }
        }

        deserializer.deserialize_any(Words)
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(pool) => write!(f, "pool {pool}"),
            Self::Url(url) => write!(f, "{url}"),
            Self::Directory(path) => write!(f, "directory {path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn read(more: &str) -> Result<Topos, String> {
        let text = format!(r#"{{"url": "https://h/4.1", "pool": "mc"{more}}}"#);
        config::parse("t", text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn results_are_a_pool_a_url_or_a_directory() {
        let cases = [
            (r#""mc.out""#, "pool mc.out"),
            (r#"{"url": "https://dav.example.org/mc/"}"#, "https://dav.example.org/mc/"),
            (r#"{"directory": "/srv/results"}"#, "directory /srv/results"),
        ];
        for (results, expected) in cases {
            let topos = read(&format!(r#", "results": {results}"#)).unwrap();
            assert_eq!(topos.results.unwrap().to_string(), expected);
        }
        assert_eq!(read("").unwrap().results, None);
        let bad = [
            (r#""a/b""#, "t:1: results: \"a/b\" is not a pool name (letters, digits, _, - and .)"),
            (
                r#"{"directory": "srv"}"#,
                "t:1: results.directory: \"srv\" is not the path of a directory (/srv/results)",
            ),
            (
                r#"{"directory": "/a/../b"}"#,
                "t:1: results.directory: \"/a/../b\" is not the path of a directory (/srv/results)",
            ),
            (
                r#"{"url": "dav.example.org"}"#,
                "t:1: results.url: \"dav.example.org\" is not a base URL (http://host[:port]/path)",
            ),
            (r#"{"s3": "b"}"#, "t:1: results.s3: unknown variant `s3`, expected `url` or `directory`"),
            (
                "7",
                "t:1: results: invalid type: integer `7`, expected the name of a pool, {\"url\": …} or {\"directory\": …}",
            ),
        ];
        for (results, complaint) in bad {
            assert_eq!(read(&format!(r#", "results": {results}"#)).unwrap_err(), complaint);
        }
        assert_eq!(
            read(r#", "lease_limit": 0"#).unwrap_err(),
            "t:1: lease_limit: 0: a token is handed out once at least"
        );
    }

    #[test]
    fn the_url_says_the_version() {
        let version =
            |url: &str| Topos { url: BaseUrl::try_from(url.to_owned()).unwrap(), ..read("").unwrap() }.version();
        for url in [
            "http://h",
            "http://h/",
            "http://h/4.1",
            "http://h/4/",
            "http://h:80/topos/4.1",
            "http://h/3.1",
            "http://3",
        ] {
            assert_eq!(version(url), Ok(Version::Four), "{url}");
        }
        for url in ["http://h/3/realms/r", "http://h/x/3/realms/r/"] {
            assert_eq!(version(url), Ok(Version::Three), "{url}");
        }
        for url in ["http://h/3", "http://h/3/", "http://h/3/realms/"] {
            let why = format!("{url}: version 3 needs a realm (http://host/3/realms/NAME)");
            assert_eq!(version(url), Err(why));
        }
        for url in ["http://h/4.1/pools", "http://h/4.1/pools/mc/", "http://h/3/realms/r/pools/mc"] {
            assert!(version(url).unwrap_err().contains("leads to a pool"), "{url}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_told_by_key() {
        let faults = |more: &str, url: &str, on_cd: &[&str]| {
            let topos = Topos { url: BaseUrl::try_from(url.to_owned()).unwrap(), ..read(more).unwrap() };
            let faults = topos.faults(|path| on_cd.contains(&path));
            faults.into_iter().map(|(key, why)| format!("{key}: {why}")).collect::<Vec<_>>()
        };
        let (https, http) = ("https://h/4.1", "http://h/4.1");
        let all = &["ca", "u", "c", "k", "p"];
        let cases: [(&str, &str, &[&str], &[&str]); 12] = [
            (r#", "ca": "ca""#, https, all, &[]),
            ("", http, &[], &[]),
            ("", https, all, &["work.topos.ca: https://h/4.1 needs the file of its authorities"]),
            (r#", "ca": "ca""#, https, &[], &["work.topos.ca: ca is not on the CD"]),
            (r#", "ca": "ca", "user_file": "u", "certificate": "c", "key": "k""#, https, all, &[]),
            (r#", "ca": "ca", "proxy": "p""#, https, all, &[]),
            (r#", "ca": "ca", "user_file": "u""#, https, &["ca"], &["work.topos.user_file: u is not on the CD"]),
            (
                r#", "user_file": "u""#,
                http,
                all,
                &["work.topos.user_file: u is not shown to http://h/4.1: it is not https"],
            ),
            (r#", "proxy": "p""#, http, all, &["work.topos.proxy: p is not shown to http://h/4.1: it is not https"]),
            (r#", "ca": "ca", "certificate": "c""#, https, all, &["work.topos.certificate: needs work.topos.key"]),
            (
                r#", "ca": "ca", "key": "k", "proxy": "p""#,
                https,
                all,
                &["work.topos.proxy: takes the place of work.topos.certificate and key"],
            ),
            (
                r#", "results": {"url": "https://dav/mc"}"#,
                http,
                all,
                &["work.topos.ca: https://dav/mc needs the file of its authorities"],
            ),
        ];
        for (more, url, on_cd, expected) in cases {
            assert_eq!(faults(more, url, on_cd), expected, "{more} {url}");
        }
    }
}
