//! Why a machine ended: the three-digit code and the text that a site reads.
//!
//! The hundreds are those of the HEPiX shutdown message as Vac and Vcycle react to them: 100 none,
//! 200 none, 300-600 (Vac also 700) the site backs off before it makes more machines of this kind.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Code 100-999 and one line of text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Three digits; only the number counts for the site's machinery.
    pub code: u16,
    /// One line for people.
    pub text: String,
}

impl Verdict {
    fn new(code: u16, text: impl fmt::Display) -> Self {
        // One line, always: the message is the last line on the console and one line in a file.
        let text = text.to_string().replace(['\n', '\r'], " ");
        Self { code, text }
    }

    /// 100: the host or the site asked for the end.
    pub fn host_asked(text: impl fmt::Display) -> Self {
        Self::new(100, text)
    }

    /// 200: the planned work is done.
    pub fn done(text: impl fmt::Display) -> Self {
        Self::new(200, text)
    }

    /// 300: there was no work.
    pub fn no_work(text: impl fmt::Display) -> Self {
        Self::new(300, text)
    }

    /// 400: somebody refuses to give this machine work.
    pub fn refused(text: impl fmt::Display) -> Self {
        Self::new(400, text)
    }

    /// 500: something that the site or the image gave is broken: CD, disk, network, configuration, script.
    pub fn site_fault(text: impl fmt::Display) -> Self {
        Self::new(500, text)
    }

    /// 600: the work source or the application is wrong everywhere: bad pool, bad protocol.
    pub fn grid_fault(text: impl fmt::Display) -> Self {
        Self::new(600, text)
    }

    /// 700: a fault inside this machine or a work source that went away.
    pub fn machine_fault(text: impl fmt::Display) -> Self {
        Self::new(700, text)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}
