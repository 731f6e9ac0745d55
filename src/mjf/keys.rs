//! Every key of a machine's and a job's features, and what a server's answer for one is worth.
//!
//! Servers are forgiving and readers have to be: values come with line ends, empty, as a web server's error page, or,
//! from Vcycle 3, as the machine's UUID where the start's time was due. Names of before 2016 count where the key of
//! today is not there.

use serde::{Deserialize, Serialize};

/// Which of the two directories a key lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// `$MACHINEFEATURES`.
    Machine,
    /// `$JOBFEATURES`.
    Job,
}

/// What a key's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number: seconds, bytes, processors.
    Number,
    /// HS06 and factors.
    Decimal,
    /// Printable, without blanks.
    Word,
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name of its file.
    pub name: &'static str,
    /// Where that lies.
    pub side: Side,
    /// What it holds.
    pub kind: Kind,
    /// What it was called before 2016, and how many of today's units are one of those.
    pub old: Option<(&'static str, u64)>,
}

const fn machine(name: &'static str, kind: Kind) -> Key {
    Key { name, side: Side::Machine, kind, old: None }
}

const fn job(name: &'static str, kind: Kind) -> Key {
    Key { name, side: Side::Job, kind, old: None }
}

const fn formerly(key: Key, name: &'static str, factor: u64) -> Key {
    Key { old: Some((name, factor)), ..key }
}

/// When the machine goes down; absent while nothing is planned. Read again and again.
pub const SHUTDOWNTIME: Key = machine("shutdowntime", Kind::Number);
/// The same for what the site calls a job, which is this machine. Read again and again.
pub const SHUTDOWNTIME_JOB: Key = job("shutdowntime_job", Kind::Number);
/// When the site started this machine.
pub const JOBSTART_SECS: Key = job("jobstart_secs", Kind::Number);
/// Elapsed seconds from then, whatever the number of processors.
pub const WALL_LIMIT_SECS: Key = formerly(job("wall_limit_secs", Kind::Number), "wall_limit_secs_lrms", 1);
/// The site's name for this machine: its UUID, as a rule.
pub const JOB_ID: Key = formerly(job("job_id", Kind::Word), "vac_uuid", 1);
/// Processors that may be given to jobs.
pub const TOTAL_CPU: Key = formerly(machine("total_cpu", Kind::Number), "log_cores", 1);
/// HS06 of the whole machine.
pub const HS06: Key = machine("hs06", Kind::Decimal);
/// A new shutdowntime is at least so far away.
pub const GRACE_SECS: Key = machine("grace_secs", Kind::Number);
/// Processors for this machine. The old name has capitals.
pub const ALLOCATED_CPU: Key = formerly(job("allocated_cpu", Kind::Number), "allocated_CPU", 1);
/// HS06 of that share.
pub const HS06_JOB: Key = job("hs06_job", Kind::Decimal);
/// As `grace_secs`, for this machine.
pub const GRACE_SECS_JOB: Key = job("grace_secs_job", Kind::Number);
/// Processor seconds of all processes.
pub const CPU_LIMIT_SECS: Key = formerly(job("cpu_limit_secs", Kind::Number), "cpu_limit_secs_lrms", 1);
/// Memory. The old unit is a decimal megabyte.
pub const MAX_RSS_BYTES: Key = formerly(job("max_rss_bytes", Kind::Number), "mem_limit_MB", 1_000_000);
/// Swap.
pub const MAX_SWAP_BYTES: Key = job("max_swap_bytes", Kind::Number);
/// Room for files.
pub const SCRATCH_LIMIT_BYTES: Key = formerly(job("scratch_limit_bytes", Kind::Number), "disk_limit_GB", 1_000_000_000);

/// Read once: they do not change in the life of a machine. `jobstart_secs` comes behind `job_id`, as what it says by
/// mistake counts only without that.
pub const STATIC: &[Key] = &[
    TOTAL_CPU,
    HS06,
    GRACE_SECS,
    machine("phys_cores", Kind::Number),
    machine("jobslots", Kind::Number),
    ALLOCATED_CPU,
    HS06_JOB,
    GRACE_SECS_JOB,
    JOB_ID,
    JOBSTART_SECS,
    WALL_LIMIT_SECS,
    CPU_LIMIT_SECS,
    MAX_RSS_BYTES,
    MAX_SWAP_BYTES,
    SCRATCH_LIMIT_BYTES,
    job("cpufactor_lrms", Kind::Decimal),
];
/// Read again each minute.
pub const DYNAMIC: &[Key] = &[SHUTDOWNTIME, SHUTDOWNTIME_JOB];

/// Longest value that is looked at; no key has more than a UUID's 36 characters.
pub const LONGEST: usize = 1024;

/// What an answer was worth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// It counts; whole numbers are written without sign and leading zeros.
    Good(String),
    /// There is no such value: no file, or an empty one.
    Absent,
    /// What came is no value; why.
    Odd(String),
}

impl Value {
    /// The value, if it counts.
    pub fn good(&self) -> Option<&str> {
        match self {
            Self::Good(value) => Some(value),
            _ => None,
        }
    }

    /// The same as a number.
    pub fn number(&self) -> Option<u64> {
        self.good()?.parse().ok()
    }
}

impl Key {
    /// Reads the content of its file.
    pub fn read(&self, content: &[u8]) -> Value {
        self.read_as(1, content)
    }

    /// Reads the content of the file of its old name.
    pub fn read_old(&self, content: &[u8]) -> Value {
        self.read_as(self.old.map_or(1, |(_, factor)| factor), content)
    }

    fn read_as(&self, factor: u64, content: &[u8]) -> Value {
        let text = String::from_utf8_lossy(content);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        let odd = |what: &str| Value::Odd(format!("{}: {what}", self.name));
        if text.is_empty() {
            return Value::Absent;
        }
        if text.starts_with('<') {
            return odd("a web page and no value");
        }
        // A long one is not shown: it is some server's page.
        if text.len() > 80 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return odd("not a printable word");
        }
        let read = match self.kind {
            Kind::Word => Some(text.to_owned()),
            Kind::Decimal => decimal(text).map(|_| text.to_owned()),
            Kind::Number => number(text).and_then(|value| value.checked_mul(factor)).map(|value| value.to_string()),
        };
        read.map_or_else(|| odd(&format!("{text:?} is not a number")), Value::Good)
    }
}

/// Some write a time with a fraction.
fn number(text: &str) -> Option<u64> {
    let whole = |value: f64| (value < 1e15).then_some(value as u64);
    text.parse().ok().or_else(|| whole(decimal(text)?))
}

fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse::<f64>().ok().filter(|value| plain && value.is_finite())
}

/// Whether a text has the form of a UUID: Vcycle 3 writes the machine's into `jobstart_secs`, in place of `job_id`.
pub fn is_uuid(text: &str) -> bool {
    let text = text.trim();
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(value: &str) -> Value {
        Value::Good(value.to_owned())
    }

    fn odd(why: &str) -> Value {
        Value::Odd(why.to_owned())
    }

    #[test]
    fn values_are_read_as_servers_write_them() {
        let uuid = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";
        let cases: &[(Key, &str, Value)] = &[
            (SHUTDOWNTIME, "1700000000", good("1700000000")),
            (SHUTDOWNTIME, "1700000000\n\n", good("1700000000")),
            (SHUTDOWNTIME, " 1700000000.25\r\n", good("1700000000")),
            (SHUTDOWNTIME, "", Value::Absent),
            (SHUTDOWNTIME, " \n", Value::Absent),
            (SHUTDOWNTIME, "-1", odd("shutdowntime: \"-1\" is not a number")),
            (SHUTDOWNTIME, "1e9", odd("shutdowntime: \"1e9\" is not a number")),
            (SHUTDOWNTIME, "NaN", odd("shutdowntime: \"NaN\" is not a number")),
            (SHUTDOWNTIME, "99999999999999999999", odd("shutdowntime: \"99999999999999999999\" is not a number")),
            (SHUTDOWNTIME, "<!DOCTYPE html>\n<p>404", odd("shutdowntime: a web page and no value")),
            (SHUTDOWNTIME, "1700000000 soon", odd("shutdowntime: not a printable word")),
            (ALLOCATED_CPU, "8\n", good("8")),
            (ALLOCATED_CPU, "008", good("8")),
            (JOBSTART_SECS, uuid, odd(&format!("jobstart_secs: {uuid:?} is not a number"))),
            (JOB_ID, uuid, good(uuid)),
            (JOB_ID, "a\x1b[2Jb", odd("job_id: not a printable word")),
            (HS06, "123.4\n", good("123.4")),
            (HS06, "inf", odd("hs06: \"inf\" is not a number")),
        ];
        for (key, content, expected) in cases {
            assert_eq!(key.read(content.as_bytes()), *expected, "{content:?}");
        }
        assert_eq!(SHUTDOWNTIME.read(&[0xff; 5]), odd("shutdowntime: not a printable word"));
        assert!(matches!(JOB_ID.read(&[b'x'; 5000]), Value::Odd(why) if why.len() < 100));
    }

    #[test]
    fn names_of_before_2016_have_their_units() {
        assert_eq!(MAX_RSS_BYTES.read_old(b"2000\n"), good("2000000000"));
        assert_eq!(SCRATCH_LIMIT_BYTES.read_old(b"20"), good("20000000000"));
        assert_eq!(WALL_LIMIT_SECS.read_old(b"3600"), good("3600"));
        assert!(matches!(MAX_RSS_BYTES.read_old(b"99999999999999999"), Value::Odd(_)));
    }

    #[test]
    fn no_name_is_there_twice() {
        let keys = || STATIC.iter().chain(DYNAMIC);
        let mut names: Vec<_> = keys().flat_map(|key| [Some(key.name), key.old.map(|old| old.0)]).flatten().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        let place = |name| STATIC.iter().position(|key| key.name == name);
        assert!(place("job_id") < place("jobstart_secs"));
    }

    #[test]
    fn a_uuid_is_known_by_its_form() {
        assert!(is_uuid("1b4e28ba-2fa1-11d2-883f-0016d3cca427\n"));
        for text in ["", "1700000000", "1b4e28ba-2fa1-11d2-883f-0016d3cca42", "1b4e28ba-2fa1-11d2-883f-0016d3cca42x"] {
            assert!(!is_uuid(text), "{text}");
        }
    }
}
