//! QEMU's monitor, for what only a host can do to a machine.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// A command of the monitor, in its own form.
pub const POWER_BUTTON: &str = r#"{"execute": "system_powerdown"}"#;
/// Nothing in the machine goes on, its clocks included, until [`CONT`].
pub const STOP: &str = r#"{"execute": "stop"}"#;
pub const CONT: &str = r#"{"execute": "cont"}"#;
/// The keys of a PC.
pub const CTRL_ALT_DEL: &str = r#"{"execute": "send-key", "arguments": {"keys": [
    {"type": "qcode", "data": "ctrl"}, {"type": "qcode", "data": "alt"}, {"type": "qcode", "data": "delete"}]}}"#;

/// Has the monitor at `socket` carry out a command; returns its answer.
pub fn run(socket: &Path, command: &str) -> Result<String, String> {
    talk(socket, command).map_err(|error| format!("QMP at {}: {error}", socket.display()))
}

fn talk(socket: &Path, command: &str) -> Result<String, String> {
    let io = |error: std::io::Error| error.to_string();
    let stream = UnixStream::connect(socket).map_err(io)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(io)?;
    let mut lines = BufReader::new(stream.try_clone().map_err(io)?).lines();
    lines.next().ok_or("no greeting")?.map_err(io)?;
    let mut last = String::new();
    for command in [r#"{"execute": "qmp_capabilities"}"#, command] {
        writeln!(&stream, "{command}").map_err(io)?;
        // Events may come in between.
        let mut answers = lines.by_ref().map_while(Result::ok).filter(|line| !line.contains("\"event\""));
        let answer = answers.next().ok_or_else(|| format!("{command}: no answer"))?;
        if !answer.contains("\"return\"") {
            return Err(format!("{command}: {answer}"));
        }
        last = answer;
    }
    Ok(last)
}
