//! `work.picas` of `context.json`: tokens that are documents of a CouchDB database.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::site::{BaseUrl, checked};

/// A database of PiCaS tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Picas {
    /// Root of the CouchDB server: `https://picas.example.org:6984`.
    pub url: BaseUrl,
    /// Where the tokens are.
    pub database: Database,
    /// The design document that has the view.
    #[serde(default = "design")]
    pub design: ViewName,
    /// The view that lists the tokens to work on.
    #[serde(default = "view")]
    pub view: ViewName,
    /// File on the CD: `user:password`, in one line.
    pub user_file: Option<String>,
    /// PEM file on the CD with the authorities that may have signed the server's certificate.
    pub ca: Option<String>,
    /// A token whose payload fails is marked as an error once it was put back this often.
    #[serde(default = "max_scrubs")]
    pub max_scrubs: u16,
}

impl Picas {
    /// The files of the CD that it names, each with its key.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let files = [("work.picas.ca", &self.ca), ("work.picas.user_file", &self.user_file)];
        files.into_iter().filter_map(|(key, file)| Some((key, file.as_ref()?)))
    }

    /// Why this cannot be used on this CD although each value is right, key and reason.
    pub fn faults(&self, readable: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
        let missing = self.files().filter(|(_, file)| !readable(file));
        let mut faults: Vec<_> = missing.map(|(key, file)| (key, format!("{file} is not on the CD"))).collect();
        match (self.url.get().starts_with("https:"), &self.ca, &self.user_file) {
            (true, None, _) => {
                faults.push(("work.picas.ca", format!("{} needs the file of its authorities", self.url)));
            }
            (false, _, Some(file)) => {
                let why = format!("{file} is not shown to {}: it is not https", self.url);
                faults.push(("work.picas.user_file", why));
            }
            _ => {}
        }
        faults
    }

    /// Where it is, for the log.
    pub fn place(&self) -> String {
        format!("{}/{}", self.url.get().trim_end_matches('/'), self.database)
    }
}

fn design() -> ViewName {
    ViewName("Monitor".to_owned())
}

fn view() -> ViewName {
    ViewName("todo".to_owned())
}

fn max_scrubs() -> u16 {
    // Ten tries, as many as a ToPoS token has.
    9
}

checked!(
    /// A CouchDB database: small letters, digits and `_$()+-/`, a letter first.
    Database(String),
    |name| {
        let ok = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.len() <= 238
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_$()+-/".contains(&b));
        if ok { Ok(()) } else { Err(format!("{name:?} is not a CouchDB database (small letters, digits, _$()+-/)")) }
    }
);

checked!(
    /// A design document or a view: letters, digits, `_`, `-` and `.`.
    ViewName(String),
    |name| {
        let ok = !name.is_empty()
            && !matches!(name.as_str(), "." | "..")
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if ok { Ok(()) } else { Err(format!("{name:?} is not a view or design document (letters, digits, _, - and .)")) }
    }
);

#[cfg(test)]
mod tests {
    use super::super::site::{Site, Work};
    use crate::config;

    fn read(text: &str) -> Result<Site, String> {
        let text = format!(r#"{{"work": {{"picas": {text}}}}}"#);
        config::parse("context.json", text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_examples() {
        let site = read(r#"{"url": "https://picas.example.org:6984/", "database": "mc"}"#).unwrap();
        let Some(Work::Picas(picas)) = site.work else { panic!("{:?}", site.work) };
        assert_eq!((picas.design.get().as_str(), picas.view.get().as_str()), ("Monitor", "todo"));
        assert_eq!((picas.max_scrubs, picas.place()), (9, "https://picas.example.org:6984/mc".to_owned()));
    }

    #[test]
    fn impossible_values_are_refused_with_their_place() {
        let cases = [
            (
                r#"{"url": "picas.example.org", "database": "mc"}"#,
                "work.picas.url: \"picas.example.org\" is not a base URL",
            ),
            (r#"{"url": "https://h", "database": "MC"}"#, "work.picas.database: \"MC\" is not a CouchDB database"),
            (r#"{"url": "https://h", "database": "../_users"}"#, "work.picas.database: \"../_users\" is not a CouchDB"),
            (r#"{"url": "https://h", "database": "mc", "view": ".."}"#, "work.picas.view: \"..\" is not a view"),
            (r#"{"url": "https://h", "database": "mc", "view": "a/b"}"#, "work.picas.view: \"a/b\" is not a view"),
            (r#"{"url": "https://h", "database": "mc", "design": ""}"#, "work.picas.design: \"\" is not a view"),
            (r#"{"url": "https://h", "database": "mc", "max_scrubs": -1}"#, "work.picas.max_scrubs: "),
            (r#"{"url": "https://h", "database": "mc", "pool": "x"}"#, "work.picas.pool: unknown field `pool`"),
            (r#"{"url": "https://h"}"#, "work.picas: missing field `database`"),
        ];
        for (text, complaint) in cases {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(&format!("context.json:1: {complaint}")), "{text}: {error}");
        }
    }

    #[test]
    fn its_files_are_there_and_a_password_never_goes_in_clear() {
        let faults = |text: &str| {
            let faults = read(text).unwrap().faults(|path| path != "gone", |_| true);
            faults.into_iter().map(|(key, why)| format!("{key}: {why}")).collect::<Vec<_>>()
        };
        let cases = [
            (r#"{"url": "http://h", "database": "mc"}"#, ""),
            (r#"{"url": "https://h", "database": "mc", "ca": "ca.pem", "user_file": "user"}"#, ""),
            (r#"{"url": "https://h", "database": "mc"}"#, "work.picas.ca: https://h needs the file of its authorities"),
            (r#"{"url": "http://h", "database": "mc", "ca": "gone"}"#, "work.picas.ca: gone is not on the CD"),
            (
                r#"{"url": "https://h", "database": "mc", "ca": "c", "user_file": "gone"}"#,
                "work.picas.user_file: gone is not on the CD",
            ),
            (
                r#"{"url": "http://h", "database": "mc", "user_file": "user"}"#,
                "work.picas.user_file: user is not shown to http://h: it is not https",
            ),
        ];
        for (text, complaint) in cases {
            assert_eq!(faults(text).join("; "), complaint, "{text}");
        }
    }
}
