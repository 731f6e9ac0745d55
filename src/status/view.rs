//! A report as its readers see it: by key, without a type for each object, since the schema is the promise and a reader
//! takes what an older or newer ctxinit wrote. What is not there is empty.

use serde_json::Value;

/// One value of a report.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a Value);

impl<'a> View<'a> {
    /// Of a whole report or a part of it.
    pub fn new(value: &'a Value) -> Self {
        Self(value)
    }

    /// Whether there is something.
    pub fn exists(self) -> bool {
        !self.0.is_null()
    }

    /// What an object holds there.
    pub fn at(self, key: &str) -> Self {
        Self(&self.0[key])
    }

    /// A text.
    pub fn text(self, key: &str) -> &'a str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// A count; 0 if there is none.
    pub fn number(self, key: &str) -> u64 {
        self.maybe(key).unwrap_or(0)
    }

    /// A count that may be missing.
    pub fn maybe(self, key: &str) -> Option<u64> {
        self.0[key].as_u64()
    }

    /// A yes or no that may be missing.
    pub fn flag(self, key: &str) -> Option<bool> {
        self.0[key].as_bool()
    }

    /// The objects of a list.
    pub fn list(self, key: &str) -> impl Iterator<Item = Self> + Clone + use<'a> {
        self.0[key].as_array().map(Vec::as_slice).unwrap_or_default().iter().map(Self)
    }

    /// The texts of a list.
    pub fn lines(self, key: &str) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        self.list(key).map(|line| line.0.as_str().unwrap_or_default())
    }

    /// Whether a script did not end well.
    pub fn script_failed(self) -> bool {
        self.maybe("exit") != Some(0)
    }

    /// The changes of a phase that are not allowed.
    pub fn violations(self) -> impl Iterator<Item = Self> + Clone + use<'a> {
        self.list("changes").filter(|change| change.at("violation").exists())
    }
}
