//! One command that finds its own work: a pilot of DIRAC, HTCondor, PanDA, JAliEn, or anything else.
//!
//! There is no server and no token: a machine's worker gives its pilot out once, and then nothing more. How the pilot
//! ended is the machine's verdict (`agent::platform::pilot`), and its results go wherever it takes them.

use std::time::Duration;

use super::source::{Claim, Fetched, Held, Reply, Source, Value};

/// What the log calls it.
const ID: &str = "pilot";

/// The pilot of one slot.
#[derive(Debug, Default)]
pub struct Pilot {
    given: bool,
}

impl Source for Pilot {
    fn recover(&mut self, _: Duration) -> Reply<Vec<Held>> {
        Reply::Done(Vec::new())
    }

    fn astray(&self) -> bool {
        false
    }

    fn strays(&mut self, _: Duration) -> Reply<Vec<Held>> {
        Reply::Done(Vec::new())
    }

    fn claim(&mut self, _: Duration) -> Claim {
        if std::mem::replace(&mut self.given, true) {
            return Claim::Empty;
        }
        Claim::Leased(Held { id: ID.to_owned(), lock: String::new() })
    }

    fn fetch(&mut self, _: &Held, _: Duration) -> Reply<Fetched> {
        Reply::Done(Fetched::Value(Value { pilot: true, ..Value::default() }))
    }

    fn renew(&mut self, _: &Held, _: Duration) -> Reply {
        Reply::Done(())
    }

    fn look(&mut self, _: &Held, _: Duration) -> Reply {
        Reply::Done(())
    }

    fn store(&mut self, _: &Held, _: &[u8], _: Duration) -> Reply {
        Reply::Done(())
    }

    fn stored(&mut self, _: &Held, _: &[u8], _: Duration) -> Reply<bool> {
        Reply::Done(true)
    }

    fn finish(&mut self, _: &Held, _: Duration) -> Reply {
        Reply::Done(())
    }

    fn release(&mut self, _: &Held, _: &str, _: Duration) -> Reply {
        Reply::Done(())
    }

    fn fail(&mut self, _: &Held, _: &str, _: Duration) -> Reply {
        Reply::Done(())
    }

    fn result_place(&self, _: &Held) -> Option<String> {
        None
    }

    fn failed_place(&self) -> String {
        ID.to_owned()
    }

    fn lease_limit(&self) -> u32 {
        u32::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pilot_is_given_out_once() {
        let mut pilot = Pilot::default();
        let limit = Duration::ZERO;
        let Claim::Leased(held) = pilot.claim(limit) else { panic!("no pilot") };
        let Reply::Done(Fetched::Value(value)) = pilot.fetch(&held, limit) else { panic!("nothing to run") };
        assert!(value.pilot && value.body.is_empty() && pilot.renew(&held, limit) == Reply::Done(()));
        assert_eq!(pilot.claim(limit), Claim::Empty);
        assert_eq!(pilot.release(&held, "x", limit), Reply::Done(()));
        assert_eq!(pilot.claim(limit), Claim::Empty);
    }
}
