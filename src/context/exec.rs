//! `work.exec` of `context.json`: what a pilot of the image is told by its site.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::site::CdPath;
use crate::image::policy::between;
use crate::payload;

/// A pilot, which is the image's `payload.command`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// Variables of its environment.
    #[serde(default, deserialize_with = "variables")]
    pub environment: BTreeMap<String, String>,
    /// PEM file on the CD with a proxy; the pilot has a copy of its own in `$X509_USER_PROXY`.
    pub proxy: Option<CdPath>,
    /// Directory of the image with the authorities' certificates, for `$X509_CERT_DIR`.
    #[serde(default, deserialize_with = "directory")]
    pub certificates: Option<String>,
    /// A pilot that ends well within so many seconds, and says nothing, has found no work.
    #[serde(default = "fizzle_secs", deserialize_with = "between::<_, 0, 86_400>")]
    pub fizzle_secs: u32,
}

/// Vac's example has the same: a machine that lives shorter has done nothing.
fn fizzle_secs() -> u32 {
    600
}

/// More than any framework asks for, and far from the kernel's limit for an argument.
const LONGEST: usize = 4096;

fn variables<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let pairs = BTreeMap::<String, String>::deserialize(deserializer)?;
    for (name, value) in &pairs {
        let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let plain = name.bytes().all(|byte| letter(byte) || byte.is_ascii_digit());
        if !plain || !name.bytes().next().is_some_and(letter) {
            return Err(D::Error::custom(format!("{name:?} is not the name of a variable")));
        }
        if payload::VARIABLES.contains(&name.as_str()) || name == CERTIFICATES {
            return Err(D::Error::custom(format!("{name} is ctxinit's own")));
        }
        if value.contains('\0') || value.len() > LONGEST {
            return Err(D::Error::custom(format!("the value of {name} has a NUL, or more than {LONGEST} bytes")));
        }
    }
    Ok(pairs)
}

fn directory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(path) if !path.starts_with('/') || path.contains('\0') => {
            Err(D::Error::custom(format!("{path:?} is not an absolute path")))
        }
        path => Ok(path),
    }
}

/// The variable with a pilot's authorities.
const CERTIFICATES: &str = "X509_CERT_DIR";

impl Exec {
    /// Why this cannot be used on this CD although each value is right, key and reason.
    pub fn faults(&self, readable: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
        let missing = self.proxy.iter().filter(|proxy| !readable(proxy.get()));
        missing.map(|proxy| ("work.exec.proxy", format!("{proxy} is not on the CD"))).collect()
    }

    /// What the pilot finds in its environment by the site's word. `id` is that of the machine.
    pub fn variables(&self, hostname: &str, id: &str) -> Vec<(String, String)> {
        let uuid = ("PILOT_UUID".to_owned(), format!("vm://{hostname}/{id}"));
        let certificates = self.certificates.iter().map(|path| (CERTIFICATES.to_owned(), path.clone()));
        let site = self.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
        [uuid].into_iter().chain(certificates).chain(site).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Exec, String> {
        crate::config::parse("c", text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_pilot_is_told() {
        let exec = read(r#"{"environment": {"QUEUE": "q a", "CE": "x"}, "certificates": "/etc/g"}"#).unwrap();
        assert_eq!(exec.fizzle_secs, 600);
        let told: Vec<_> =
            exec.variables("wn", "id").into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(told, ["PILOT_UUID=vm://wn/id", "X509_CERT_DIR=/etc/g", "CE=x", "QUEUE=q a"]);
        assert_eq!(read("{}").unwrap().variables("wn", "id").len(), 1);
    }

    #[test]
    fn its_proxy_lies_on_the_cd() {
        let exec = read(r#"{"proxy": "p.pem"}"#).unwrap();
        assert_eq!(exec.faults(|_| false), [("work.exec.proxy", "p.pem is not on the CD".to_owned())]);
        assert!(exec.faults(|file| file == "p.pem").is_empty() && read("{}").unwrap().faults(|_| false).is_empty());
    }

    #[test]
    fn a_site_cannot_take_ctxinits_own_variables() {
        let cases = [
            (r#"{"environment": {"JOB_ID": "x"}}"#, "environment: JOB_ID is ctxinit's own"),
            (r#"{"environment": {"X509_CERT_DIR": "x"}}"#, "environment: X509_CERT_DIR is ctxinit's own"),
            (r#"{"environment": {"A=B": "x"}}"#, "environment: \"A=B\" is not the name of a variable"),
            (r#"{"environment": {"1": "x"}}"#, "environment: \"1\" is not the name of a variable"),
            (r#"{"environment": {"": "x"}}"#, "environment: \"\" is not the name of a variable"),
            (r#"{"environment": {"A": "x\u0000"}}"#, "environment: the value of A has a NUL, or more than 4096 bytes"),
            (r#"{"certificates": "etc"}"#, "certificates: \"etc\" is not an absolute path"),
            (r#"{"proxy": "../p"}"#, "proxy: \"../p\" is not the path of a file on the CD"),
            (r#"{"fizzle_secs": 100000}"#, "fizzle_secs: 100000 is not between 0 and 86400"),
        ];
        for (text, complaint) in cases {
            assert_eq!(read(text).unwrap_err(), format!("c:1: {complaint}"), "{text}");
        }
    }
}
