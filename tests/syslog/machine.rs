//! The logger under test, and the machine around it.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ctxinit::agent::channel::Channel;
use ctxinit::agent::protocol::{FromLogger, ToLogger};
use ctxinit::clock::Deadline;
use ctxinit::syslog::Origin;
use ctxinit::syslog::collect::Sources;
use ctxinit::syslog::lasting::Lasting;
use nix::time::{ClockId, clock_gettime};

/// Longer than any pause between the tries that a test provokes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the machine's records say of it.
pub const ORIGIN: &str = "vm=\"11111111-2222-3333-4444-555555555555\" boot=\"0a1b2c3d\"";

pub struct Machine {
    pub dir: tempfile::TempDir,
    pub control: Channel,
    /// Gives the exit code and the processor time used.
    pub role: JoinHandle<(i32, Duration)>,
}

impl Machine {
    pub fn start(kmsg: Option<&Path>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources::open(&dir.path().join("log"), kmsg).unwrap();
        Self::with(dir, sources)
    }

    /// With sources of the test's own.
    pub fn with(dir: tempfile::TempDir, sources: Sources) -> Self {
        let (mut control, theirs) = Channel::pair().unwrap();
        let role = thread::spawn(move || {
            let origin =
                Origin { vm: "11111111-2222-3333-4444-555555555555".to_owned(), boot: "0a1b2c3d-e4f5".to_owned() };
            let mut lasting = Lasting::in_memory(sources).unwrap();
            let code = ctxinit::syslog::run(&mut lasting, &origin, theirs);
            (code, clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into())
        });
        control.send(&ToLogger::Hostname("vm7.site".to_owned()), b"").unwrap();
        Self { dir, control, role }
    }

    pub fn target(&mut self, port: u16, protocol: &str) {
        let syslog = format!("{{\"server\": \"127.0.0.1\", \"port\": {port}, \"protocol\": \"{protocol}\"}}");
        let syslog = serde_json::from_str(&syslog).unwrap();
        self.control.send(&ToLogger::Target { syslog: Box::new(syslog), nameservers: Vec::new() }, b"").unwrap();
    }

    pub fn sender(&self) -> UnixDatagram {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(self.dir.path().join("log")).unwrap();
        socket
    }

    /// Drains; (delivered, undelivered) and the exit code.
    pub fn drain(mut self, millis: u32) -> ((u64, u64), i32) {
        self.control.send(&ToLogger::Drain { millis }, b"").unwrap();
        let numbers = loop {
            let answer = self.control.recv(Deadline::after(PATIENCE)).unwrap();
            match answer.unwrap_or_else(|| panic!("no answer")).0 {
                FromLogger::Drained { delivered, undelivered } => break (delivered, undelivered),
                FromLogger::Reached | FromLogger::Lost => {}
            }
        };
        (numbers, self.role.join().unwrap().0)
    }
}
