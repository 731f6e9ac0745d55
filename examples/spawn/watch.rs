//! A machine that works on many tokens: what it holds after the first hundred, in the middle, and at the end.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use super::now;

const JOBS: &str = "/sys/fs/cgroup/ctxinit";
const LOOK: Duration = Duration::from_millis(5);
/// Looks at a place of which the smallest figure counts: in most of them a job runs.
const LOOKS: usize = 50;
/// Users of payloads (`ctxinit::ids`).
const USERS: std::ops::Range<u32> = 66_000..100_000;

/// What a machine holds.
#[derive(Clone, Copy)]
struct Held([u64; WHAT.len()]);

const WHAT: [&str; 9] = [
    "PSS of the agent, KiB",
    "anonymous memory of the agent, KiB",
    "descriptors of the agent",
    "slab of the kernel, KiB",
    "cgroups",
    "dying cgroups",
    "mounts",
    "processes",
    "payload users with a process",
];

/// Watches until nearly so many jobs have begun, and prints lines of figures for three places on the way.
pub fn run(tokens: u32) -> Result<(), String> {
    let agent = agent().ok_or("no agent is there")?;
    let part = (tokens / 10).min(100);
    let mut first = Window::from(EDGE);
    first.to(part - EDGE);
    // The report names the first 500 tokens: until then the agent's memory may grow, and no longer.
    let places = [part, tokens / 2 + part, tokens - 2 * part];
    let held = places.map(|place| {
        wait_for(place);
        smallest(agent)
    });
    let mut last = Window::from(tokens - part + EDGE);
    last.to(tokens - EDGE);
    println!("watch;jobs begun;{};{};{}", places[0], places[1], places[2]);
    for (at, what) in WHAT.iter().enumerate() {
        let [one, two, three] = held.map(|held| held.0.get(at).copied().unwrap_or(0));
        println!("watch;{what};{one};{two};{three}");
    }
    println!("pace;{part};{};{}", first.micros_a_job(), last.micros_a_job());
    Ok(())
}

/// Jobs at the edges of a window that may be missed: a cgroup lives for a moment only.
const EDGE: u32 = 5;

/// The time from one job to another, claims and results included.
struct Window {
    jobs: u32,
    at: i64,
    nanos: i64,
}

impl Window {
    fn from(job: u32) -> Self {
        let job = wait_for(job);
        Self { jobs: job, at: now(), nanos: 0 }
    }

    fn to(&mut self, job: u32) {
        self.jobs = wait_for(job) - self.jobs;
        self.nanos = now() - self.at;
    }

    fn micros_a_job(&self) -> i64 {
        self.nanos / 1000 / i64::from(self.jobs.max(1))
    }
}

/// Waits for a job with this number or a higher one, and returns that.
fn wait_for(job: u32) -> u32 {
    let number = |name: &String| name.strip_prefix("job-")?.parse::<u32>().ok();
    let begun = now();
    // Nobody watches for more than an hour.
    while now() - begun < 3_600_000_000_000 {
        if let Some(number) = names(JOBS).iter().filter_map(number).find(|&number| number >= job) {
            return number;
        }
        sleep(LOOK);
    }
    job
}

fn smallest(agent: u32) -> Held {
    let mut least = [u64::MAX; WHAT.len()];
    for _ in 0..LOOKS {
        for (least, now) in least.iter_mut().zip(look(agent).0) {
            *least = now.min(*least);
        }
        sleep(4 * LOOK);
    }
    Held(least)
}

fn look(agent: u32) -> Held {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let of = |name: &str| format!("/proc/{agent}/{name}");
    let processes: Vec<String> = names("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok()).collect();
    let users = processes.iter().filter_map(|pid| field(&read(&format!("/proc/{pid}/status")), "Uid:"));
    Held([
        field(&read(&of("smaps_rollup")), "Pss:").unwrap_or(0),
        field(&read(&of("status")), "RssAnon:").unwrap_or(0),
        names(&of("fd")).len() as u64,
        field(&read("/proc/meminfo"), "Slab:").unwrap_or(0),
        field(&read("/sys/fs/cgroup/cgroup.stat"), "nr_descendants").unwrap_or(0),
        field(&read("/sys/fs/cgroup/cgroup.stat"), "nr_dying_descendants").unwrap_or(0),
        read(&of("mountinfo")).lines().count() as u64,
        processes.len() as u64,
        users.filter(|&uid| u32::try_from(uid).is_ok_and(|uid| USERS.contains(&uid))).count() as u64,
    ])
}

/// The process 1 has one child of its own program as root: the agent. Roles are its children and no longer root.
fn agent() -> Option<u32> {
    let is_agent = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        field(&text, "PPid:") == Some(1) && field(&text, "Uid:") == Some(0) && text.starts_with("Name:\tinit\n")
    };
    names("/proc").iter().filter_map(|name| name.parse().ok()).find(is_agent)
}

fn names(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}
