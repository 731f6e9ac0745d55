//! `mjf` of `context.json`: where the site's Machine/Job Features are, and where the machine leaves its outputs.

use serde::{Deserialize, Serialize};

use crate::image::policy::between;
use crate::mjf::place::Place;

/// Where these stand in `context.sh`.
pub const VARIABLES: [&str; 3] = ["MACHINEFEATURES", "JOBFEATURES", "JOBOUTPUTS"];

/// All of it. A place that is not here is where the variable of the same name in `context.sh` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mjf {
    /// Of the machine: `shutdowntime` above all.
    pub machinefeatures: Option<Place>,
    /// Of what the site calls a job, which is the machine.
    pub jobfeatures: Option<Place>,
    /// Where logs, heartbeat and shutdown message go.
    pub joboutputs: Option<Place>,
    /// The sign of life that the site waits for; without it, none is given.
    pub heartbeat: Option<Heartbeat>,
    /// Whether places that nobody names are looked for in the cloud's metadata, once.
    pub metadata: bool,
    /// PEM file on the CD with the authorities that may have signed the servers' certificates.
    pub ca: Option<String>,
    /// PEM file on the CD with the machine's own certificate, and those that lead to its authority.
    pub certificate: Option<String>,
    /// PEM file on the CD with the key of that.
    pub key: Option<String>,
}

/// A file in the outputs that is written again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Its name.
    pub file: OutputName,
    /// At most so many seconds lie between two, 10-86400.
    #[serde(default = "five_minutes", deserialize_with = "between::<_, 10, 86_400>")]
    pub secs: u32,
}

fn five_minutes() -> u32 {
    300
}

/// The name of a file in the outputs: servers take one level, and no blanks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OutputName(String);

impl OutputName {
    /// The name itself.
    pub fn get(&self) -> &str {
        &self.0
    }
}

impl From<OutputName> for String {
    fn from(name: OutputName) -> Self {
        name.0
    }
}

impl TryFrom<String> for OutputName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if plain && (1..=100).contains(&name.len()) && !name.starts_with('.') {
            Ok(Self(name))
        } else {
            Err(format!("{name:?} is not the name of an output (letters, digits, ., _ and -)"))
        }
    }
}

impl Mjf {
    /// Its places with their keys.
    pub fn places(&self) -> [(&'static str, &Option<Place>); 3] {
        [
            ("mjf.machinefeatures", &self.machinefeatures),
            ("mjf.jobfeatures", &self.jobfeatures),
            ("mjf.joboutputs", &self.joboutputs),
        ]
    }

    /// Whether there is anything to read or write.
    pub fn is_empty(&self) -> bool {
        !self.metadata && self.places().iter().all(|(_, place)| place.is_none())
    }

    /// Fills in what is left open.
    pub fn complete(&mut self, variables: &[(String, String)]) {
        let said = |wanted: &str| {
            let found = variables.iter().find(|(name, _)| name == wanted);
            found.and_then(|(_, value)| Place::try_from(value.clone()).ok())
        };
        let [machine, job, outputs] = VARIABLES;
        self.machinefeatures = self.machinefeatures.take().or_else(|| said(machine));
        self.jobfeatures = self.jobfeatures.take().or_else(|| said(job));
        self.joboutputs = self.joboutputs.take().or_else(|| said(outputs));
    }

    /// Why this cannot be used on this CD although each value is right, key and reason.
    pub fn faults(&self, readable: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let files = [("mjf.ca", &self.ca), ("mjf.certificate", &self.certificate), ("mjf.key", &self.key)];
        for (key, file) in files {
            if let Some(file) = file.as_ref().filter(|file| !readable(file)) {
                faults.push((key, format!("{file} is not on the CD")));
            }
        }
        let https = self.places().into_iter().filter_map(|(key, place)| Some((key, place.as_ref()?)));
        let mut https = https.filter(|(_, place)| place.is_https());
        let secure = https.next();
        if let Some((_, place)) = secure.as_ref().filter(|_| self.ca.is_none()) {
            faults.push(("mjf.ca", format!("{place} needs the file of its authorities")));
        }
        match (&self.certificate, &self.key) {
            (Some(_), None) => faults.push(("mjf.key", "a certificate needs its key".to_owned())),
            (None, Some(_)) => faults.push(("mjf.certificate", "a key needs its certificate".to_owned())),
            // The metadata may name one that is.
            (Some(_), Some(_)) if secure.is_none() && !self.metadata => {
                faults.push(("mjf.certificate", "none of the places is read by https".to_owned()));
            }
            _ => {}
        }
        if self.heartbeat.is_some() && self.joboutputs.is_none() && !self.metadata {
            faults.push(("mjf.heartbeat", "there are no joboutputs that it could lie in".to_owned()));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Mjf, String> {
        crate::config::parse("c", text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_json_counts_before_the_variables() {
        let mut mjf = read(r#"{"machinefeatures": "/mf/", "heartbeat": {"file": "vm-heartbeat"}}"#).unwrap();
        assert_eq!(mjf.heartbeat.as_ref().map(|beat| (beat.file.get(), beat.secs)), Some(("vm-heartbeat", 300)));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        mjf.complete(&[
            pair("MACHINEFEATURES", "/other"),
            pair("JOBOUTPUTS", "http://h/jo"),
            pair("JOBFEATURES", "x y"),
        ]);
        let places = mjf.places().map(|(_, place)| place.as_ref().map(ToString::to_string));
        assert_eq!(places, [Some("/mf".to_owned()), None, Some("http://h/jo".to_owned())]);
        assert!(
            !mjf.is_empty() && read("{}").unwrap().is_empty() && !read(r#"{"metadata": true}"#).unwrap().is_empty()
        );
    }

    #[test]
    fn impossible_values_are_refused() {
        let cases = [
            (
                r#"{"joboutputs": "jo"}"#,
                "joboutputs: \"jo\" is neither an absolute path nor the beginning of an http URL",
            ),
            (r#"{"heartbeat": {"file": "a/b"}}"#, "heartbeat.file: \"a/b\" is not the name of an output"),
            (r#"{"heartbeat": {"file": ".."}}"#, "heartbeat.file: \"..\" is not the name of an output"),
            (r#"{"heartbeat": {"file": "h", "secs": 1}}"#, "heartbeat.secs: 1 is not between 10 and 86400"),
            (r#"{"beat": 1}"#, "beat: unknown field"),
        ];
        for (text, complaint) in cases {
            let why = read(text).unwrap_err();
            assert!(why.starts_with(&format!("c:1: {complaint}")), "{why}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_told_by_key() {
        let cases = [
            (r#"{"jobfeatures": "https://h/jf"}"#, "mjf.ca: https://h/jf needs the file of its authorities"),
            (r#"{"jobfeatures": "https://h/jf", "ca": "no"}"#, "mjf.ca: no is not on the CD"),
            (
                r#"{"jobfeatures": "https://h/jf", "ca": "a", "key": "k"}"#,
                "mjf.certificate: a key needs its certificate",
            ),
            (
                r#"{"joboutputs": "http://h/jo", "certificate": "c", "key": "k"}"#,
                "mjf.certificate: none of the places is read by https",
            ),
            (
                r#"{"jobfeatures": "/jf", "heartbeat": {"file": "h"}}"#,
                "mjf.heartbeat: there are no joboutputs that it could lie in",
            ),
        ];
        for (text, complaint) in cases {
            let faults = read(text).unwrap().faults(|file| file != "no");
            let told: Vec<_> = faults.iter().map(|(key, why)| format!("{key}: {why}")).collect();
            assert_eq!(told, [complaint], "{text}");
        }
        let good = read(r#"{"joboutputs": "https://h/jo", "ca": "a", "certificate": "c", "key": "k"}"#).unwrap();
        assert!(good.faults(|_| true).is_empty());
    }
}
