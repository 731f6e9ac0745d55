//! The features that a job gets from its machine: file names and contents, always there, whatever the site has said.

use super::keys::{self, Value};

/// What ctxinit knows of a job and its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Processors of the machine.
    pub processors: u64,
    /// Processors that the job may keep busy.
    pub allocated: u64,
    /// Unix seconds of the job's start.
    pub start: u64,
    /// Printable, without blanks.
    pub job_id: String,
    /// Elapsed seconds that it has from then.
    pub wall_secs: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of its own directory.
    pub scratch: u64,
}

/// One file and its content.
pub type File = (&'static str, String);

/// What a job finds in its two directories. The files of the end itself are apart: they come and go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `$MACHINEFEATURES`.
    pub machine: Vec<File>,
    /// `$JOBFEATURES`.
    pub job: Vec<File>,
}

impl Features {
    /// What the machine itself holds a job to; of the site's word, `said`, what nobody else can know, and its limits
    /// where they are the narrower ones.
    pub fn of(facts: &Facts, said: impl Fn(&keys::Key) -> Value) -> Self {
        let known = |key: &keys::Key| said(key).good().map(|value| (key.name, value.to_owned()));
        let least = |key: &keys::Key, own: u64| (key.name, said(key).number().map_or(own, |site| site.min(own)));
        let machine = [(keys::TOTAL_CPU.name, facts.processors)];
        let job = [
            least(&keys::ALLOCATED_CPU, facts.allocated.max(1)),
            (keys::JOBSTART_SECS.name, facts.start),
            (keys::WALL_LIMIT_SECS.name, facts.wall_secs),
            least(&keys::CPU_LIMIT_SECS, facts.wall_secs.saturating_mul(facts.allocated.max(1))),
            least(&keys::MAX_RSS_BYTES, facts.memory),
            // ctxinit gives no job any swap.
            (keys::MAX_SWAP_BYTES.name, 0),
            least(&keys::SCRATCH_LIMIT_BYTES, facts.scratch),
        ];
        let written = |(name, number): (&'static str, u64)| (name, number.to_string());
        let more = |of: &[keys::Key]| of.iter().filter_map(known).collect::<Vec<_>>();
        let mut features =
            Self { machine: machine.into_iter().map(written).collect(), job: job.into_iter().map(written).collect() };
        features.machine.extend(more(&[keys::HS06, keys::GRACE_SECS]));
        features.job.push((keys::JOB_ID.name, facts.job_id.clone()));
        features.job.extend(more(&[keys::HS06_JOB, keys::GRACE_SECS_JOB]));
        features
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file<'a>(files: &'a [File], name: &str) -> Option<&'a str> {
        files.iter().find(|file| file.0 == name).map(|file| file.1.as_str())
    }

    #[test]
    fn a_job_always_has_them() {
        let facts = Facts {
            processors: 8,
            allocated: 2,
            start: 1_700_000_000,
            job_id: "vm-1".to_owned(),
            wall_secs: 600,
            memory: 1 << 30,
            scratch: 1 << 26,
        };
        let alone = Features::of(&facts, |_| Value::Absent);
        assert_eq!(alone.machine, [("total_cpu", "8".to_owned())]);
        for (name, value) in [
            ("allocated_cpu", "2"),
            ("jobstart_secs", "1700000000"),
            ("wall_limit_secs", "600"),
            ("cpu_limit_secs", "1200"),
            ("max_rss_bytes", "1073741824"),
            ("max_swap_bytes", "0"),
            ("scratch_limit_bytes", "67108864"),
            ("job_id", "vm-1"),
        ] {
            assert_eq!(file(&alone.job, name), Some(value), "{name}");
        }
        let told = Features::of(&facts, |key| match key.name {
            "hs06" => Value::Good("88.5".to_owned()),
            "max_rss_bytes" => Value::Good("1000".to_owned()),
            "scratch_limit_bytes" => Value::Good("99999999999".to_owned()),
            "grace_secs_job" => Value::Odd("a web page".to_owned()),
            _ => Value::Absent,
        });
        assert_eq!(file(&told.machine, "hs06"), Some("88.5"));
        assert_eq!(file(&told.job, "max_rss_bytes"), Some("1000"));
        assert_eq!(file(&told.job, "scratch_limit_bytes"), Some("67108864"));
        assert_eq!(file(&told.job, "grace_secs_job"), None);
    }
}
