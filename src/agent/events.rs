//! The agent's one place to wait.
//!
//! Whatever the agent waits for, it meanwhile forwards output to the log and notices that the machine
//! is asked to end. Callers look themselves at what they waited for; nothing is done behind their back.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use thiserror::Error;

use super::logger::Log;
use super::output::{Output, Printed, Source};
use crate::clock::Deadline;
use crate::sys::process::{Child, Exit};
use crate::sys::signals::{self, Signals};
use crate::syslog::Origin;
use crate::syslog::lasting::Lasting;

/// The machine is asked to end: power button, Ctrl-Alt-Del, or a signal.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("asked to end")]
pub struct Stop;

/// For a killed child to be gone.
pub const DYING: Duration = Duration::from_millis(500);

/// One stream of output among those of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputId(u64);

#[derive(Debug)]
struct Stream {
    id: OutputId,
    output: Output,
    /// Nobody asks for it again.
    finished: bool,
}

/// Signals, output, and a word about the end.
#[derive(Debug)]
pub struct Events {
    signals: Signals,
    outputs: Vec<Stream>,
    next_id: u64,
    asked: bool,
    ending: bool,
    /// Once there is a logger.
    log: Option<Log>,
}

impl Events {
    /// Takes the signals of this process.
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self { signals: signals::block()?, outputs: Vec::new(), next_id: 0, asked: false, ending: false, log: None })
    }

    /// Forwards this pipe to the log from now on.
    pub fn add_output(&mut self, pipe: File, source: Source) -> OutputId {
        self.add_bounded_output(pipe, source, u64::MAX)
    }

    /// The same, but for so many bytes; what follows is thrown away and counted.
    pub fn add_bounded_output(&mut self, pipe: File, source: Source, limit: u64) -> OutputId {
        let id = OutputId(self.next_id);
        self.next_id += 1;
        self.outputs.push(Stream { id, output: Output::new(pipe, source, limit), finished: false });
        id
    }

    /// Reads what a stream holds now and returns what is left of it. A stream that somebody still writes to
    /// (a script's daemon) is forwarded further.
    pub fn finish_output(&mut self, id: OutputId) -> Printed {
        let Some(Stream { output, finished, .. }) = self.outputs.iter_mut().find(|stream| stream.id == id) else {
            return Printed::default();
        };
        *finished = true;
        // Once for a whole pipe, once for its end: more would wait for a daemon that never stops talking.
        output.pump();
        output.pump();
        let printed = output.printed();
        self.drop_ended();
        printed
    }

    /// Whether nobody can write to a stream any more, and all of it was read.
    pub fn output_ended(&self, id: OutputId) -> bool {
        self.outputs.iter().find(|stream| stream.id == id).is_none_or(|stream| stream.output.ended())
    }

    /// Starts the logger; each wait sees to it that there is one.
    ///
    /// # Errors
    /// Those of fork(2), pipe2(2) and socketpair(2).
    pub fn start_log(&mut self, lasting: Lasting, origin: Origin) -> io::Result<()> {
        self.log = Some(Log::start(self, lasting, origin)?);
        Ok(())
    }

    /// The log, once it is kept.
    pub fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// The same, to tell it something.
    pub fn log_mut(&mut self) -> Option<&mut Log> {
        self.log.as_mut()
    }

    /// The same, for what may start another logger.
    pub fn with_log(&mut self, act: impl FnOnce(&mut Log, &mut Self)) {
        if let Some(mut log) = self.log.take() {
            act(&mut log, self);
            self.log = Some(log);
        }
    }

    /// From now on the end is under way and no longer interrupts a wait.
    pub fn ending(&mut self) {
        self.ending = true;
    }

    /// Whether the end is under way.
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// Waits until one of `fds` is ready (true) or the deadline has come (false).
    ///
    /// # Errors
    /// [`Stop`] when the machine is asked to end, unless that is under way.
    pub fn wait(&mut self, fds: &[(BorrowedFd<'_>, PollFlags)], deadline: Deadline) -> Result<bool, Stop> {
        self.wait_until(fds, deadline, |_| false)
    }

    /// The same, or until something here is so.
    ///
    /// # Errors
    /// As [`Events::wait`].
    pub fn wait_until(
        &mut self,
        fds: &[(BorrowedFd<'_>, PollFlags)],
        deadline: Deadline,
        is_so: impl Fn(&Self) -> bool,
    ) -> Result<bool, Stop> {
        loop {
            self.with_log(Log::attend);
            // No trace, no work.
            self.asked |= self.log.as_ref().is_some_and(|log| log.broken().is_some());
            if self.asked && !self.ending {
                return Err(Stop);
            }
            if is_so(self) {
                return Ok(true);
            }
            let ready = self.poll(fds, deadline);
            for signal in self.signals.by_ref() {
                // SIGHUP comes from nobody who means the machine; children are waited for by pidfd.
                if matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGPWR) {
                    self.asked = true;
                }
            }
            self.pump();
            if ready {
                return Ok(true);
            }
            if deadline.passed() {
                return Ok(false);
            }
        }
    }

    /// As [`Events::wait`], for the steps of an end: a wish to end does not interrupt them, and is not forgotten.
    pub fn wait_through(&mut self, fds: &[(BorrowedFd<'_>, PollFlags)], deadline: Deadline) -> bool {
        self.through(|events| events.wait(fds, deadline) == Ok(true))
    }

    /// The same for anything that waits.
    pub fn through<T>(&mut self, steps: impl FnOnce(&mut Self) -> T) -> T {
        let ending = std::mem::replace(&mut self.ending, true);
        let result = steps(self);
        self.ending = ending;
        result
    }

    fn poll(&self, fds: &[(BorrowedFd<'_>, PollFlags)], deadline: Deadline) -> bool {
        let mut set: Vec<PollFd<'_>> = fds.iter().map(|(fd, flags)| PollFd::new(*fd, *flags)).collect();
        set.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        // An ended pipe is always ready: it only waits to be finished.
        let open = self.outputs.iter().map(|stream| &stream.output).filter(|output| !output.ended());
        set.extend(open.map(|output| PollFd::new(output.as_fd(), PollFlags::POLLIN)));
        let logger = self.log.iter().flat_map(Log::sources);
        set.extend(logger.map(|(fd, flags)| PollFd::new(fd, flags)));
        match poll(&mut set, deadline.poll_timeout()) {
            Ok(_) => set.iter().take(fds.len()).any(|fd| fd.any().unwrap_or(false)),
            Err(Errno::EINTR) => false,
            Err(errno) => {
                // Cannot happen with these arguments; if it does, do not spin.
                log::error!("poll: {errno}");
                std::thread::sleep(Duration::from_millis(100));
                false
            }
        }
    }

    fn pump(&mut self) {
        for Stream { output, .. } in &mut self.outputs {
            output.pump();
        }
        self.drop_ended();
    }

    /// A machine may run for months, and each of them is a descriptor.
    fn drop_ended(&mut self) {
        self.outputs.retain(|Stream { output, finished, .. }| !finished || !output.ended());
    }

    /// Waits for a child; `None` at the deadline.
    ///
    /// # Errors
    /// [`Stop`], as [`Events::wait`].
    pub fn wait_child(&mut self, child: &Child, deadline: Deadline) -> Result<Option<Exit>, Stop> {
        loop {
            match child.try_wait() {
                Ok(Some(end)) => return Ok(Some(end)),
                Ok(None) => {}
                Err(error) => {
                    log::error!("process {}: {error}", child.pid());
                    return Ok(None);
                }
            }
            if !self.wait(&[(child.as_fd(), PollFlags::POLLIN)], deadline)? {
                return Ok(None);
            }
        }
    }

    /// Kills a child that is of no more use, and takes its status. One in the kernel's hands dies when the kernel
    /// lets go of it; nobody waits for that.
    pub fn bury(&mut self, child: &Child) {
        let _ = child.signal(Signal::SIGKILL);
        self.wait_through(&[(child.as_fd(), PollFlags::POLLIN)], Deadline::after(DYING));
        let _ = child.try_wait();
    }

    /// Sleeps.
    ///
    /// # Errors
    /// [`Stop`], as [`Events::wait`].
    pub fn sleep(&mut self, deadline: Deadline) -> Result<(), Stop> {
        self.wait(&[], deadline).map(drop)
    }
}

/// Whether a descriptor is ready now.
pub fn is_ready(fd: BorrowedFd<'_>, interest: PollFlags) -> bool {
    let mut set = [PollFd::new(fd, interest)];
    poll(&mut set, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::launch;

    #[test]
    fn a_finished_stream_is_dropped_when_its_daemon_ends() {
        let mut events = Events::new().unwrap();
        let (reader, writer) = launch::output_pipe().unwrap();
        let source = Source { tag: "t".to_owned(), pid: 1, job: None, show: false };
        let id = events.add_output(reader, source);
        let mut daemon = File::from(writer);
        daemon.write_all(b"one\ntwo").unwrap();
        assert_eq!(events.finish_output(id).tail, ["one", "two"]);
        daemon.write_all(b" and more\n").unwrap();
        let now = || Deadline::after(Duration::ZERO);
        assert_eq!(events.wait(&[], now()), Ok(false));
        assert_eq!(events.outputs.len(), 1);
        drop(daemon);
        assert_eq!(events.wait(&[], now()), Ok(false));
        assert!(events.outputs.is_empty());
    }

    #[test]
    fn an_ended_stream_stays_until_it_is_finished() {
        let mut events = Events::new().unwrap();
        let (reader, writer) = launch::output_pipe().unwrap();
        let source = Source { tag: "t".to_owned(), pid: 1, job: None, show: false };
        let id = events.add_output(reader, source);
        File::from(writer).write_all(b"last words").unwrap();
        assert_eq!(events.wait(&[], Deadline::after(Duration::ZERO)), Ok(false));
        assert_eq!(events.finish_output(id).tail, ["last words"]);
        assert!(events.outputs.is_empty());
    }
}
