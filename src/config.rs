//! JSON files of people: read strictly, and every error names file, line and key.

use serde::de::DeserializeOwned;
use thiserror::Error;

/// What is wrong with a configuration file.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{file}:{line}: {key}{why}")]
pub struct ConfigError {
    /// The file as the reader knows it, `context.json` or `/etc/ctxinit/image.json`.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// `syslog.port: `, or empty where no key is concerned.
    pub key: String,
    /// What was found and what was expected.
    pub why: String,
}

/// Reads `text` as a `T`; unknown keys are errors where `T` denies them.
///
/// # Errors
/// One [`ConfigError`] for the first thing that is wrong.
pub fn parse<T: DeserializeOwned>(file: &str, text: &[u8]) -> Result<T, ConfigError> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        // "?" is where no key was read yet.
        let key = if path == "." || path == "?" { String::new() } else { format!("{path}: ") };
        locate(file, key, error.inner())
    })?;
    json.end().map_err(|error| locate(file, String::new(), &error))?;
    Ok(value)
}

fn locate(file: &str, key: String, error: &serde_json::Error) -> ConfigError {
    let (line, column) = (error.line(), error.column());
    // serde_json ends its message with the position, which the caller prints in front.
    let why = error.to_string();
    let why = why.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&why).to_owned();
    ConfigError { file: file.to_owned(), line, key, why }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        inner: Inner,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        port: u16,
    }

    fn complaint(text: &str) -> String {
        parse::<Outer>("f.json", text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn reads_what_is_right() {
        let outer = parse::<Outer>("f.json", b"{\"inner\": {\"port\": 514}}").unwrap();
        assert_eq!(outer, Outer { inner: Inner { port: 514 } });
    }

    #[test]
    fn names_file_line_and_key() {
        assert_eq!(
            complaint("{\n  \"inner\": {\"port\": 70000}\n}"),
            "f.json:2: inner.port: invalid value: integer `70000`, expected u16"
        );
        assert_eq!(
            complaint("{\"inner\": {\"prot\": 1}}"),
            "f.json:1: inner.prot: unknown field `prot`, expected `port`"
        );
        assert_eq!(complaint("{\"inner\": {}}"), "f.json:1: inner: missing field `port`");
        assert_eq!(complaint("{\"inner\": "), "f.json:1: inner: EOF while parsing a value");
        assert_eq!(complaint("{\"inner\": {\"port\": 1}} x"), "f.json:1: trailing characters");
    }
}
