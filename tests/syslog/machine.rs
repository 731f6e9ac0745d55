//! The logger under test, and the machine around it.

use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ctxinit::clock::Deadline;
use ctxinit::protocol::channel::Channel;
use ctxinit::protocol::{Credentials, FromLogger, ToLogger};
use ctxinit::syslog::Origin;
use ctxinit::syslog::collect::Sources;
use ctxinit::syslog::lasting::Lasting;
use ctxinit::syslog::ledger::Count;
use nix::time::{ClockId, clock_gettime};

/// Longer than any pause between the tries that a test provokes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the machine's records say of it.
pub const ORIGIN: &str = "vm=\"11111111-2222-3333-4444-555555555555\" boot=\"0a1b2c3d\"";

pub struct Machine {
    pub dir: tempfile::TempDir,
    pub control: Channel,
    /// Records with a number, and those of them that were dropped: once the role has ended.
    pub numbers: Receiver<(u64, u64)>,
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
        let mut lasting = Lasting::in_memory(sources).unwrap();
        let (tell, numbers) = channel();
        let role = thread::spawn(move || {
            let origin =
                Origin { vm: "11111111-2222-3333-4444-555555555555".to_owned(), boot: "0a1b2c3d-e4f5".to_owned() };
            let code = ctxinit::syslog::run(&mut lasting, &origin, theirs);
            let _ = tell.send((lasting.count(Count::Last), lasting.count(Count::Dropped)));
            (code, clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into())
        });
        control.send(&ToLogger::Hostname("vm7.site".to_owned()), b"").unwrap();
        Self { dir, control, numbers, role }
    }

    pub fn target(&mut self, port: u16, protocol: &str) {
        let syslog = format!("{{\"server\": \"127.0.0.1\", \"port\": {port}, \"protocol\": \"{protocol}\"}}");
        self.aim(&syslog, &Credentials::default(), &[]);
    }

    /// The same in the words of the context.
    pub fn aim(&mut self, syslog: &str, credentials: &Credentials, nameservers: &[IpAddr]) {
        let syslog = Box::new(serde_json::from_str(syslog).unwrap());
        let target = ToLogger::Target { syslog, nameservers: nameservers.to_vec() };
        self.control.send(&target, &serde_json::to_vec(credentials).unwrap()).unwrap();
    }

    pub fn sender(&self) -> UnixDatagram {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(self.dir.path().join("log")).unwrap();
        socket
    }

    /// Drains; (delivered, undelivered) and the exit code.
    pub fn drain(self, millis: u32) -> ((u64, u64), i32) {
        let (told, code, _) = self.drain_counting(millis);
        (told, code)
    }

    /// The same, and `numbers`.
    pub fn drain_counting(mut self, millis: u32) -> ((u64, u64), i32, (u64, u64)) {
        self.control.send(&ToLogger::Drain { millis }, b"").unwrap();
        let told = loop {
            let answer = self.control.recv(Deadline::after(PATIENCE)).unwrap();
            match answer.unwrap_or_else(|| panic!("no answer")).0 {
                FromLogger::Drained { delivered, undelivered } => break (delivered, undelivered),
                FromLogger::Reached | FromLogger::Lost => {}
            }
        };
        (told, self.role.join().unwrap().0, self.numbers.recv().unwrap())
    }
}
