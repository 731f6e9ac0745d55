//! A job from its first instruction to the moment when nothing of it is left.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeValLike;

use super::attempt::{self, Running};
use super::members::Members;
use super::screen::Screen;
use super::summary::Ended;
use crate::clock::Deadline;
use crate::image::payload::Payload;
use crate::payload::Job;
use crate::payload::outcome::{End, Outcome, Usage};
use crate::sys::signals::Signals;

/// How often memory is looked at and the time told.
const LOOK: Duration = Duration::from_millis(200);
/// Of one line; the rest of a longer one is a line of its own, as in a machine's log.
const LINE: usize = 8192;
/// Lines that are remembered, as a report has them.
const TAIL: usize = 5;

/// Watches it, ends it, and takes what it left.
pub fn to_the_end(running: Running, policy: &Payload, signals: Signals, screen: &Screen) -> Ended {
    let (job, output) = match running.job {
        Ok(job) => job,
        Err(end) => return Ended::of(policy, nothing_of(end)),
    };
    let members = Members::of(&job);
    let mut watch = Watch {
        job,
        output: Lines { pipe: Some(output), begun: Vec::new(), tail: Vec::new(), screen },
        members,
        signals,
        policy,
        screen,
        counts_memory: running.counts_memory,
        knows_members: running.knows_members,
        begun: Instant::now(),
        peak_kib: 0,
    };
    let end = watch.until_it_ends();
    watch.finish(end)
}

fn nothing_of(end: End) -> Outcome {
    Outcome { end, wall_millis: 0, usage: Usage::default(), left_behind: 0, tail: Vec::new() }
}

struct Watch<'a> {
    job: Job,
    output: Lines<'a>,
    members: Members,
    signals: Signals,
    policy: &'a Payload,
    screen: &'a Screen,
    counts_memory: bool,
    knows_members: bool,
    begun: Instant,
    /// The most that was seen, where nobody counts.
    peak_kib: u64,
}

impl Watch<'_> {
    /// The first of: its own end, its limits, Ctrl-C.
    fn until_it_ends(&mut self) -> End {
        let limit = Duration::from_secs(self.policy.wall_secs.into());
        let deadline = Deadline::at(self.begun + limit);
        loop {
            self.wait(deadline.min(Deadline::after(LOOK)));
            match self.job.ended() {
                Ok(Some(exit)) => return End::Exited(exit),
                Ok(None) => {}
                Err(error) => {
                    return End::Unwatched { why: error.to_string(), errno: error.raw_os_error() };
                }
            }
            if self.asked_to_stop() {
                return End::Stopped;
            }
            if deadline.passed() {
                return End::TooLong(self.policy.wall_secs);
            }
            if !self.counts_memory {
                let files = self.job.scratch_bytes().unwrap_or(0) / 1024;
                self.peak_kib = self.peak_kib.max(self.members.memory_kib() + files);
                if self.peak_kib > u64::from(self.policy.memory_mb) * 1024 {
                    return End::OutOfMemory;
                }
            }
            let secs = self.begun.elapsed().as_secs();
            self.screen.progress(&format!("runs for {secs} s of at most {} s; Ctrl-C stops it", self.policy.wall_secs));
        }
    }

    /// Until something happens; output is shown on the way.
    fn wait(&mut self, deadline: Deadline) {
        let mut fds = vec![
            PollFd::new(self.job.status(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.output.pipe.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        let _ = poll(&mut fds, deadline.poll_timeout());
        drop(fds);
        self.output.take();
    }

    fn asked_to_stop(&mut self) -> bool {
        self.signals.by_ref().any(|signal| matches!(signal, Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP))
    }

    fn others(&self) -> usize {
        if self.knows_members { self.job.payload_processes().len() } else { self.members.now().len() }
    }

    /// Asked, killed, counted, removed: in a machine's order.
    fn finish(mut self, end: End) -> Ended {
        let by_itself = matches!(end, End::Exited(_));
        let left_behind = if by_itself { self.others() } else { 0 };
        if matches!(end, End::Stopped | End::TooLong(_)) {
            self.ask();
        }
        let wall_millis = self.begun.elapsed().as_millis() as u64;
        let _ = self.job.cgroup.kill();
        let _ = self.job.keeper().signal(Signal::SIGKILL);
        let _ = self.job.keeper().wait();
        // Nobody holds the other end any more.
        self.output.finish();
        let counted = self.job.cgroup.usage();
        let oom_kills = counted.oom_kills.unwrap_or(0);
        let mut usage = Usage::new(counted, self.job.scratch_bytes());
        self.complete(&mut usage);
        let tail = std::mem::take(&mut self.output.tail);
        let mut outcome = Outcome { end: end.after_oom_kills(oom_kills), wall_millis, usage, left_behind, tail };
        let mut result = None;
        if outcome.success() {
            match self.job.result() {
                Ok(bytes) => result = Some(bytes),
                Err(error) => outcome.end = error.into(),
            }
        }
        let outputs = self.job.outputs().unwrap_or_default();
        attempt::end(self.job);
        Ended { result, outputs, ..Ended::of(self.policy, outcome) }
    }

    /// SIGTERM to every process, and the time that the image gives them; a second Ctrl-C ends it.
    fn ask(&mut self) {
        let grace = Duration::from_secs(self.policy.grace_secs.into());
        self.screen.note(&format!("SIGTERM to its processes; SIGKILL in {} s", grace.as_secs()));
        if self.knows_members {
            self.job.cgroup.terminate(Some(self.job.keeper().pid()));
        } else {
            self.members.terminate();
        }
        let deadline = Deadline::after(grace);
        while self.others() > 0 && !deadline.passed() && !self.asked_to_stop() {
            self.wait(deadline.min(Deadline::after(LOOK / 4)));
        }
    }

    /// What no cgroup counted, as the kernel told it of the dead, or as it was seen.
    fn complete(&self, usage: &mut Usage) {
        let Ok(of) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return };
        if usage.cpu_millis.is_none() {
            let micros = of.user_time().num_microseconds() + of.system_time().num_microseconds();
            usage.cpu_millis = u64::try_from(micros / 1000).ok();
        }
        let largest = u64::try_from(of.max_rss()).unwrap_or(0);
        usage.memory_kib = usage.memory_kib.or(Some(self.peak_kib.max(largest)));
    }
}

/// The payload's output, line by line.
struct Lines<'a> {
    /// None once all have closed it.
    pipe: Option<File>,
    begun: Vec<u8>,
    tail: Vec<String>,
    screen: &'a Screen,
}

impl Lines<'_> {
    /// What is there now; never waits.
    fn take(&mut self) {
        let mut bytes = [0; 65536];
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.read(&mut bytes) {
            Ok(0) => self.pipe = None,
            Ok(count) => {
                self.begun.extend_from_slice(bytes.get(..count).unwrap_or_default());
                self.tell_lines();
            }
            Err(_) => {}
        }
    }

    fn tell_lines(&mut self) {
        loop {
            let end = self.begun.iter().position(|&byte| byte == b'\n');
            let line: Vec<u8> = match end {
                Some(at) => self.begun.drain(..=at).take(at).collect(),
                None if self.begun.len() >= LINE => self.begun.drain(..LINE).collect(),
                None => return,
            };
            self.tell(&line);
        }
    }

    fn tell(&mut self, line: &[u8]) {
        self.screen.line(line);
        self.tail.push(String::from_utf8_lossy(line).into_owned());
        if self.tail.len() > TAIL {
            self.tail.remove(0);
        }
    }

    /// The rest of it, once the last writer is dead.
    fn finish(&mut self) {
        let mut rest = Vec::new();
        if let Some(mut pipe) = self.pipe.take() {
            // Blocks for nobody: it ends, or says that there is nothing.
            let _ = pipe.read_to_end(&mut rest);
        }
        self.begun.extend(rest);
        self.tell_lines();
        let last = std::mem::take(&mut self.begun);
        if !last.is_empty() {
            self.tell(&last);
        }
    }
}
