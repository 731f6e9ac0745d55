//! Where features are read and outputs are written: a directory, or the beginning of URLs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `$MACHINEFEATURES`, `$JOBFEATURES` or `$JOBOUTPUTS`; a file name behind it and a `/` makes a path or a URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// An absolute path, most often of a mount that the site's prolog makes.
    Directory(String),
    /// `http://` or `https://`.
    Url(String),
}

impl Place {
    /// One of its files.
    pub fn file(&self, name: &str) -> String {
        format!("{self}/{name}")
    }

    /// Whether it is read by https, so that authorities are needed.
    pub fn is_https(&self) -> bool {
        matches!(self, Self::Url(url) if url.starts_with("https:"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(place) | Self::Url(place) => f.write_str(place),
        }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // The note says that there is no slash at the end; sites write one all the same.
        let place = text.trim().trim_end_matches('/');
        let rest = place.strip_prefix("http://").or_else(|| place.strip_prefix("https://"));
        let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let plain = place.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte));
        match (plain, place.starts_with('/')) {
            // Whoever reads a log must not find a password in it.
            (true, _) if host.contains('@') => Err("a URL with a user name or password is not taken".to_owned()),
            (true, true) => Ok(Self::Directory(place.to_owned())),
            (true, false) if !host.is_empty() => Ok(Self::Url(place.to_owned())),
            _ => Err(format!("{text:?} is neither an absolute path nor the beginning of an http URL")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_or_the_beginning_of_urls() {
        let read = |text: &str| Place::try_from(text.to_owned());
        let cases = [
            ("/etc/machinefeatures", Some("/etc/machinefeatures/total_cpu")),
            (" /etc/jobfeatures/ ", Some("/etc/jobfeatures/total_cpu")),
            ("http://169.254.169.253/machinefeatures/", Some("http://169.254.169.253/machinefeatures/total_cpu")),
            ("https://h:1/machines/s/m/joboutputs", Some("https://h:1/machines/s/m/joboutputs/total_cpu")),
            ("jo", None),
            ("", None),
            ("/", None),
            ("ftp://h/x", None),
            ("http:///x", None),
            ("http://h/x?y", None),
            ("http://me:secret@h/x", None),
            ("/a b", None),
        ];
        for (text, file) in cases {
            let found = read(text).ok().map(|place| place.file("total_cpu"));
            assert_eq!(found.as_deref(), file, "{text}");
        }
        assert!(read("https://h/x").unwrap().is_https());
        assert!(!read("http://h/x").unwrap().is_https());
        let secret = read("http://me:secret@h/x").unwrap_err();
        assert!(!secret.contains("secret@"), "{secret}");
    }
}
