//! What a case is.

use crate::guest::Guest;
use crate::stage::Stage;

/// The time that a case's machine gets, seconds, unless the case says otherwise. An idle processor needs 8 s under
/// TCG; this leaves room for a machine that builds something else meanwhile.
pub const DEADLINE: u32 = 120;

/// One case.
pub struct Case {
    /// Unique; the token that the payload of the case gets begins with it, as does the line of its result.
    pub name: &'static str,
    /// Seconds from the start of QEMU to the end of the machine.
    pub deadline: u32,
    /// Makes the site, boots the machine, looks at what came of it. The error says what was expected.
    pub host: fn(&Stage) -> Result<(), String>,
    /// The payload, where there is one. Scripts are text.
    pub guest: Option<Guest>,
}

impl Case {
    /// A case without a payload of its own.
    pub const fn new(name: &'static str, host: fn(&Stage) -> Result<(), String>) -> Self {
        Self { name, deadline: DEADLINE, host, guest: None }
    }

    /// A case whose payload is this.
    pub const fn with_payload(self, guest: Guest) -> Self {
        Self { guest: Some(guest), ..self }
    }

    /// What the guest half says last.
    pub fn marker(&self) -> String {
        marker(self.name)
    }
}

/// What a guest half says last, if everything that it saw was right.
pub fn marker(name: &str) -> String {
    format!("RESULT {name} ok")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::cases::{ALL, ON_DEMAND};

    #[test]
    fn names_are_unique_and_fit_for_a_path() {
        let names: HashSet<&str> = ALL.iter().chain(ON_DEMAND).map(|case| case.name).collect();
        assert_eq!(names.len(), ALL.len() + ON_DEMAND.len());
        let plain = |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        assert!(names.iter().all(plain), "{names:?}");
    }
}
