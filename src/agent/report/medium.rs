//! What the report says of the context CD: always there once it was looked for.

use serde::Serialize;

use crate::context::medium::{Finding, Medium, Seen};

/// The context CD, or why there is none.
#[derive(Clone, Debug, Serialize)]
pub struct MediumReport {
    /// In a word.
    pub state: MediumState,
    /// In a sentence: what was seen, and how long it took to decide.
    pub why: String,
    /// Every device that was looked at, at the last look.
    pub seen: Vec<Seen>,
    /// The one that was found.
    #[serde(flatten)]
    pub found: Option<Medium>,
}

/// How the search for the context CD ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MediumState {
    /// There is one, and its copy is whole.
    Found,
    /// There is none.
    Absent,
    /// There is one, or may be, that could not be read, or holds what none may.
    Broken,
    /// There are two or more, and none of them is taken.
    Several,
}

impl MediumReport {
    /// Of a search that took these milliseconds.
    pub fn new(finding: &Finding, seen: Vec<Seen>, millis: u128) -> Self {
        let (state, what) = match finding {
            Finding::Found(medium) => (MediumState::Found, format!("found: {medium}")),
            Finding::Nothing { summary, .. } => (MediumState::Absent, format!("absent: {summary}")),
            Finding::Broken(why) | Finding::Refused(why) => (MediumState::Broken, format!("broken: {why}")),
            Finding::Several(all) => (MediumState::Several, format!("several: {}", all.join(", "))),
        };
        let found = match finding {
            // The log has each script's hash; here the whole content's stands for them.
            Finding::Found(medium) => Some(Medium { scripts: Vec::new(), ..(**medium).clone() }),
            _ => None,
        };
        Self { state, why: format!("{what}, {millis} ms"), seen, found }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::context::medium::{Kind, Outlook};
    use crate::context::signature::{Judgement, State};

    fn written(finding: &Finding) -> Value {
        let seen = Seen { device: "sr0".to_owned(), kind: Kind::Optical, what: "no disc".to_owned() };
        serde_json::to_value(MediumReport::new(finding, vec![seen], 41)).unwrap()
    }

    #[test]
    fn the_words_of_the_report() {
        let summary = "2 drives, both without disc".to_owned();
        let absent = written(&Finding::Nothing { summary, outlook: Outlook::Empty });
        let seen = json!([{"device": "sr0", "kind": "optical", "what": "no disc"}]);
        let expected = json!({"state": "absent", "why": "absent: 2 drives, both without disc, 41 ms", "seen": seen});
        assert_eq!(absent, expected);
        let broken = written(&Finding::Broken("/dev/sr0: prolog.sh: I/O error".to_owned()));
        assert_eq!(broken["why"], "broken: /dev/sr0: prolog.sh: I/O error, 41 ms");
        let several = written(&Finding::Several(vec!["/dev/sr0 (A)".to_owned(), "/dev/vda (B)".to_owned()]));
        assert_eq!(several["why"], "several: /dev/sr0 (A), /dev/vda (B), 41 ms");
    }

    #[test]
    fn what_was_found_stands_beside_the_rest() {
        let signature = Judgement { state: State::Off, why: String::new(), signer: None, expires: None };
        let found = written(&Finding::Found(Box::new(Medium {
            device: "vda".to_owned(),
            kind: Kind::Disk,
            volume: "CONTEXT".to_owned(),
            filesystem: "iso9660".to_owned(),
            files: 3,
            bytes: 100,
            sha256: "00".to_owned(),
            scripts: Vec::new(),
            signature,
            read_ms: 7,
        })));
        assert_eq!(found["why"], "found: /dev/vda (CONTEXT), iso9660, 3 files, 100 bytes, 41 ms");
        assert_eq!(
            (&found["state"], &found["device"], &found["signature"]["state"]),
            (&json!("found"), &json!("vda"), &json!("off"))
        );
    }
}
