//! The role that reads the site's features: static keys once, the times of the end each minute.

use std::io;
use std::time::Duration;

use super::metadata;
use super::shelf::{Fetched, Shelf, Trust};
use super::words::{FromReader, ToReader};
use crate::clock::Deadline;
use crate::mjf::keys::{self, DYNAMIC, JOB_ID, JOBSTART_SECS, Key, STATIC, Side, Value};
use crate::mjf::place::Place;
use crate::protocol::channel::Channel;
use crate::sys::random;

/// Between two rounds; PanDA's pilot looks as often.
const ROUND: Duration = Duration::from_secs(60);
/// For one file.
const CALL: Duration = Duration::from_secs(15);

/// What a reader is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// `$MACHINEFEATURES`.
    pub machine: Option<Place>,
    /// `$JOBFEATURES`.
    pub job: Option<Place>,
    /// Whether somebody has said where outputs go.
    pub has_outputs: bool,
    /// Whether to ask the cloud for what is not known.
    pub metadata: bool,
    /// For https.
    pub trust: Trust,
}

/// The whole life of a reader, which ends with its agent. Returns the exit status. The caller has forked and given up its
/// privileges.
pub fn run(config: Config, channel: Channel) -> i32 {
    match serve(config, channel) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("features: the agent is gone: {error}");
            1
        }
    }
}

fn serve(mut config: Config, mut channel: Channel) -> io::Result<()> {
    let mut known = Known { places: !config.metadata, statics: false, told: false };
    loop {
        for message in known.turn(&mut config, metadata::ask) {
            channel.send(&message, b"")?;
        }
        // A thousand machines that booted together must not ask together.
        let next = Deadline::after(ROUND.mul_f64(0.75 + 0.25 * random::fraction()));
        if let Some((ToReader::Now, _)) = channel.recv::<ToReader>(next)? {
            log::info!("features: read again before the work");
        }
    }
}

/// What is not to be asked for again.
struct Known {
    places: bool,
    statics: bool,
    /// That the cloud does not name any.
    told: bool,
}

impl Known {
    /// What there is to tell now. `ask` looks for the places.
    fn turn(
        &mut self,
        config: &mut Config,
        ask: impl FnOnce(&mut Config) -> Result<Option<Place>, String>,
    ) -> Vec<FromReader> {
        let mut told = Vec::new();
        if !self.places {
            match ask(config) {
                Ok(outputs) => {
                    self.places = true;
                    told.extend(outputs.map(FromReader::Outputs));
                }
                // Nothing was read, and that is not the same as that there is nothing.
                Err(why) if config.machine.is_none() && config.job.is_none() => return vec![FromReader::Missed(why)],
                Err(why) if !self.told => {
                    log::warn!("features: {why}");
                    self.told = true;
                }
                Err(_) => {}
            }
        }
        told.push(match round(config, self.statics) {
            Ok(read) => {
                // A place that is found later has some, too.
                self.statics = self.places;
                FromReader::Read(read)
            }
            Err(why) => FromReader::Missed(why),
        });
        told
    }
}

/// One round. Where the first file cannot be had, the others are not waited for.
fn round(config: &Config, statics_known: bool) -> Result<Vec<(String, Value)>, String> {
    let shelf = |place: &Option<Place>| {
        let shelf = place.clone().map(|place| Shelf::new(place, &config.trust));
        shelf.transpose().map_err(|error| error.to_string())
    };
    let (machine, job) = (shelf(&config.machine)?, shelf(&config.job)?);
    collect(statics_known, |side, name| {
        let shelf = if side == Side::Machine { &machine } else { &job };
        shelf.as_ref().map_or(Fetched::Nothing, |shelf| shelf.get(name, CALL))
    })
}

/// Every value that can be had by `fetch`.
///
/// # Errors
/// The first file of which nobody could say whether it is there, told by name: what is known by then stays known.
fn collect(statics_known: bool, fetch: impl Fn(Side, &str) -> Fetched) -> Result<Vec<(String, Value)>, String> {
    let mut read: Vec<(String, Value)> = Vec::new();
    for key in DYNAMIC {
        read.push((key.name.to_owned(), value(key, key.name, Key::read, &fetch)?));
    }
    for key in STATIC.iter().filter(|_| !statics_known) {
        let mut found = value(key, key.name, Key::read, &fetch)?;
        if let (Value::Absent, Some((old, _))) = (&found, key.old) {
            found = value(key, old, Key::read_old, &fetch)?;
        }
        read.push((key.name.to_owned(), found));
    }
    mend_start(&mut read, &fetch);
    Ok(read)
}

fn value(
    key: &Key,
    name: &str,
    read: impl Fn(&Key, &[u8]) -> Value,
    fetch: &impl Fn(Side, &str) -> Fetched,
) -> Result<Value, String> {
    match fetch(key.side, name) {
        Fetched::Content(content) => Ok(read(key, &content)),
        Fetched::Nothing => Ok(Value::Absent),
        Fetched::Failed(why) => Err(why),
    }
}

/// Vcycle 3 writes the machine's UUID where its start was due: it is taken for what it is.
fn mend_start(read: &mut [(String, Value)], fetch: &impl Fn(Side, &str) -> Fetched) {
    let odd = read.iter().any(|(name, value)| name == JOBSTART_SECS.name && matches!(value, Value::Odd(_)));
    let Some((_, id)) = read.iter_mut().find(|(name, value)| name == JOB_ID.name && *value == Value::Absent) else {
        return;
    };
    if let (true, Fetched::Content(content)) = (odd, fetch(Side::Job, JOBSTART_SECS.name))
        && keys::is_uuid(&String::from_utf8_lossy(&content))
    {
        *id = JOB_ID.read(&content);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";

    /// What is made of a site with these files.
    fn read(files: &[(&str, &str)], statics_known: bool) -> Vec<(String, Value)> {
        let fetch = |_, name: &str| {
            let file = files.iter().find(|file| file.0 == name);
            file.map_or(Fetched::Nothing, |file| Fetched::Content(file.1.as_bytes().to_vec()))
        };
        let mut read = collect(statics_known, fetch).unwrap();
        read.retain(|(_, value)| *value != Value::Absent);
        read
    }

    fn good(name: &str, value: &str) -> (String, Value) {
        (name.to_owned(), Value::Good(value.to_owned()))
    }

    #[test]
    fn places_that_are_found_late_are_read_in_full() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("wall_limit_secs"), "600").unwrap();
        let place = Place::Directory(dir.path().display().to_string());
        let mut config =
            Config { machine: None, job: None, has_outputs: true, metadata: true, trust: Trust::default() };
        let mut known = Known { places: false, statics: false, told: false };
        let away = || Err("GET x: no route".to_owned());
        assert_eq!(known.turn(&mut config, |_| away()), [FromReader::Missed("GET x: no route".to_owned())]);
        let found = known.turn(&mut config, |config| {
            config.job = Some(place);
            Ok(None)
        });
        let [FromReader::Read(values)] = &found[..] else { panic!("{found:?}") };
        assert!(values.contains(&good("wall_limit_secs", "600")), "{values:?}");
        let again = known.turn(&mut config, |_| away());
        assert!(matches!(&again[..], [FromReader::Read(values)] if values.len() == DYNAMIC.len()), "{again:?}");
    }

    #[test]
    fn todays_name_counts_before_the_old_one() {
        let files = [("shutdowntime", "7\n"), ("mem_limit_MB", "5"), ("allocated_cpu", "2"), ("allocated_CPU", "9")];
        let expected = [good("shutdowntime", "7"), good("allocated_cpu", "2"), good("max_rss_bytes", "5000000")];
        assert_eq!(read(&files, false), expected);
        assert_eq!(read(&files, true), expected[..1]);
    }

    #[test]
    fn a_uuid_for_a_start_is_the_jobs_name() {
        let found = read(&[("jobstart_secs", UUID)], false);
        assert_eq!(found.first(), Some(&good("job_id", UUID)));
        assert!(matches!(&found[1..], [(name, Value::Odd(_))] if name == "jobstart_secs"), "{found:?}");
        let named = read(&[("jobstart_secs", UUID), ("job_id", "vm-7")], false);
        assert_eq!(named.first(), Some(&good("job_id", "vm-7")));
        assert_eq!(read(&[("jobstart_secs", "17")], false), [good("jobstart_secs", "17")]);
    }

    #[test]
    fn one_file_that_cannot_be_had_is_no_round() {
        let fetch = |_, name: &str| match name {
            "shutdowntime_job" => Fetched::Failed("GET x: 503".to_owned()),
            _ => Fetched::Nothing,
        };
        assert_eq!(collect(true, fetch), Err("GET x: 503".to_owned()));
    }
}
