//! The programs that take `/dev/log` to a server.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::PORT;
use crate::{Outcome, race};

/// Longer than any of them takes to begin.
const PATIENCE: Duration = Duration::from_secs(20);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ctxinit,
    /// As it comes: RFC 3164's form, the sender's word for who it is.
    Rsyslog,
    /// Told to do more of what ctxinit does: RFC 5424, and the kernel's word for the process.
    Rsyslog5424,
    Busybox,
}

pub const ALL: [Kind; 4] = [Kind::Ctxinit, Kind::Rsyslog, Kind::Rsyslog5424, Kind::Busybox];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ctxinit => "ctxinit",
            Self::Rsyslog => "rsyslog",
            Self::Rsyslog5424 => "rsyslog 5424",
            Self::Busybox => "busybox",
        }
    }

    fn command(self) -> Outcome<Command> {
        let mut command;
        match self {
            Self::Ctxinit => {
                command = Command::new(std::env::current_exe()?);
                command.arg("logger");
            }
            Self::Rsyslog | Self::Rsyslog5424 => {
                let conf = Path::new(race::STAGE).join("rsyslog.conf");
                fs::write(&conf, rsyslog(self))?;
                command = Command::new("rsyslogd");
                command.arg("-n").arg("-f").arg(conf).arg("-i").arg(Path::new(race::STAGE).join("rsyslog.pid"));
            }
            Self::Busybox => {
                command = Command::new("busybox");
                command.args(["syslogd", "-n", "-R", &format!("127.0.0.1:{PORT}")]);
            }
        }
        Ok(command)
    }

    /// Starts it, and waits for its `/dev/log`. `None` on a machine that does not have it.
    pub fn start(self) -> Outcome<Option<Collector>> {
        let _ = fs::remove_file("/dev/log");
        let mut command = self.command()?;
        let Ok(child) = command.stdin(Stdio::null()).spawn() else { return Ok(None) };
        let collector = Collector(child);
        let deadline = Instant::now() + PATIENCE;
        while UnixDatagram::unbound()?.connect("/dev/log").is_err() {
            if Instant::now() > deadline {
                return Err(format!("{} opens no /dev/log", self.name()).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(collector))
    }
}

fn rsyslog(kind: Kind) -> String {
    let (input, output) = match kind {
        Kind::Rsyslog5424 => (" sysSock.usePIDFromSystem=\"on\"", " template=\"RSYSLOG_SyslogProtocol23Format\""),
        _ => ("", ""),
    };
    let server = format!("target=\"127.0.0.1\" port=\"{PORT}\" protocol=\"tcp\" TCP_Framing=\"octet-counted\"");
    let stage = race::STAGE;
    format!(
        "global(workDirectory=\"{stage}\")\nmodule(load=\"imuxsock\"{input})\naction(type=\"omfwd\" {server}{output})\n"
    )
}

/// A running one; it ends with this.
pub struct Collector(Child);

impl Collector {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
