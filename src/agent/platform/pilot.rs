//! What a pilot's end means for its machine: its own message, or else how it ended.
//!
//! Vac's convention: a file `shutdown_message` with three digits from 100, a blank, and text for people. Only the number
//! counts. A pilot that ends well at once and says nothing has found no work, as Vac reads a short life.

use crate::payload::outcome::End;
use crate::verdict::Verdict;

/// The file's name, in the pilot's own directory, its outputs, and in `$JOBOUTPUTS` of the site.
pub const FILE: &str = "shutdown_message";
/// Longest file that is looked at; Vac's own messages are lines of some dozen characters.
pub const LONGEST: usize = 1024;
/// Characters of its text that are handed on.
const LONGEST_TEXT: usize = 200;

/// A pilot's message as a verdict.
///
/// # Errors
/// Why it is none.
pub fn message(content: &[u8]) -> Result<Verdict, String> {
    if content.len() > LONGEST {
        return Err(format!("{FILE}: more than {LONGEST} bytes"));
    }
    let text = String::from_utf8_lossy(content);
    // One line was agreed on. DIRAC's old agents appended theirs, and the last was the result.
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    let line = line.ok_or_else(|| format!("{FILE}: it is empty"))?;
    let (digits, rest) = line.split_once(' ').unwrap_or((line, ""));
    let three = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let code = three.then(|| digits.parse().ok()).flatten().filter(|code| (100..=999).contains(code));
    let code = code.ok_or_else(|| format!("{FILE}: {:?} is not a code from 100 to 999 and a text", shown(line)))?;
    Ok(Verdict { code, text: format!("pilot: {}", shown(rest.trim())) })
}

fn shown(text: &str) -> String {
    crate::text::printable(&text.chars().take(LONGEST_TEXT).collect::<String>())
}

/// How a pilot ended.
#[derive(Clone, Debug)]
pub struct Pilot<'a> {
    /// As its job has it.
    pub end: &'a End,
    /// Milliseconds from its start.
    pub millis: u64,
    /// A life shorter than this, with exit 0 and without a message, found no work; seconds.
    pub fizzle_secs: u32,
    /// Its message, if it left one that counts.
    pub message: Option<Verdict>,
}

impl Pilot<'_> {
    /// What the machine says at its end.
    pub fn verdict(self) -> Verdict {
        let secs = self.millis / 1000;
        match (self.message, self.end) {
            // It was told to end, and a machine that ends says why itself; but a pilot that says more is believed.
            (Some(verdict), _) => verdict,
            (None, End::Exited(exit)) if exit.success() => {
                if self.millis < u64::from(self.fizzle_secs) * 1000 {
                    Verdict::no_work(format!("the pilot ended well after {secs} s, so it found no work"))
                } else {
                    Verdict::done(format!("the pilot ended well after {secs} s"))
                }
            }
            // We asked it to end, whatever it made of that.
            (None, End::Stopped) => Verdict::host_asked(format!("the pilot was stopped after {secs} s")),
            (None, End::TooLong(limit)) => Verdict::host_asked(format!("the pilot's time of {limit} s was over")),
            (None, End::Banned(why)) => Verdict::refused(format!("pilot: {why}")),
            (None, End::NotStarted { .. }) => Verdict::site_fault(format!("pilot {}", self.end)),
            (None, end) => Verdict::machine_fault(format!("pilot: {end}, after {secs} s")),
        }
    }
}

/// One result of several pilots in a machine: the worst that is not "no work" wins; of equally bad ones, and if there is
/// none, the last.
pub fn combine(verdicts: &[Verdict]) -> Option<&Verdict> {
    let hundreds = |verdict: &&Verdict| verdict.code / 100;
    verdicts.iter().filter(|verdict| hundreds(verdict) != 3).max_by_key(hundreds).or(verdicts.last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::Exit;

    #[test]
    fn a_message_is_a_code_and_a_text() {
        let long = format!("700 {}", "x".repeat(900));
        type Expected = Option<(u16, &'static str)>;
        let cases: &[(&[u8], Expected)] = &[
            (b"300 Nothing to do", Some((300, "pilot: Nothing to do"))),
            (b"200 Success\n", Some((200, "pilot: Success"))),
            (b"999", Some((999, "pilot: "))),
            (b"345 \x1b[2J\xff", Some((345, "pilot: \\u{1b}[2J\u{fffd}"))),
            (b"200 Success\n\n600 Cannot match jobs\n", Some((600, "pilot: Cannot match jobs"))),
            (b"", None),
            (b"\n \n", None),
            (b"099 x", None),
            (b"1000 x", None),
            (b"20 x", None),
            (b"2x0 x", None),
            (b"+20 x", None),
            (b"200: x", None),
            (b"Success", None),
        ];
        for (content, expected) in cases {
            let found = message(content).ok();
            let expected = expected.map(|(code, text)| Verdict { code, text: text.to_owned() });
            assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(content));
        }
        assert_eq!(message(long.as_bytes()).unwrap().text.len(), "pilot: ".len() + LONGEST_TEXT);
        assert!(message(&[b'2'; LONGEST + 1]).is_err());
    }

    #[test]
    fn the_end_of_a_pilot_is_a_verdict() {
        let told = || Some(Verdict { code: 345, text: "pilot: x".to_owned() });
        let exit = |code| End::Exited(Exit::Code(code));
        let signal = |number| End::Exited(Exit::Signal(number));
        let failed = || End::NotStarted { why: "setgroups: EPERM".to_owned(), errno: None };
        let cases = [
            // How it ended, its seconds, its message, the code.
            (exit(0), 601, None, 200),
            (exit(0), 600, None, 200),
            (exit(0), 599, None, 300),
            (exit(0), 5, told(), 345),
            (exit(1), 5, None, 700),
            (exit(1), 700, told(), 345),
            (signal(15), 700, None, 700),
            (End::Stopped, 700, None, 100),
            (End::Stopped, 700, told(), 345),
            (End::TooLong(5), 5, None, 100),
            (End::OutOfMemory, 700, None, 700),
            (End::Banned("line 2".to_owned()), 7, None, 400),
            (failed(), 0, None, 500),
        ];
        for (end, secs, message, code) in cases {
            let pilot = Pilot { end: &end, millis: secs * 1000, fizzle_secs: 600, message };
            assert_eq!(pilot.clone().verdict().code, code, "{pilot:?}");
        }
    }

    #[test]
    fn of_several_the_worst_counts() {
        let all = |codes: &[u16]| -> Option<u16> {
            let verdicts: Vec<_> = codes.iter().map(|&code| Verdict { code, text: code.to_string() }).collect();
            combine(&verdicts).map(|verdict| verdict.code)
        };
        for (codes, one) in [
            (&[][..], None),
            (&[300], Some(300)),
            (&[300, 310], Some(310)),
            (&[300, 200], Some(200)),
            (&[700, 200, 300], Some(700)),
            (&[500, 600, 610, 200], Some(610)),
            (&[200, 210, 300], Some(210)),
        ] {
            assert_eq!(all(codes), one, "{codes:?}");
        }
    }
}
