//! QEMU's monitor, for what only a host can do to a machine.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// Presses the power button.
pub fn power_button(socket: &Path) -> Result<(), String> {
    run(socket, "system_powerdown").map_err(|error| format!("QMP at {}: {error}", socket.display()))
}

fn run(socket: &Path, command: &str) -> Result<(), String> {
    let io = |error: std::io::Error| error.to_string();
    let stream = UnixStream::connect(socket).map_err(io)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(io)?;
    let mut lines = BufReader::new(stream.try_clone().map_err(io)?).lines();
    lines.next().ok_or("no greeting")?.map_err(io)?;
    for command in ["qmp_capabilities", command] {
        writeln!(&stream, "{{\"execute\": \"{command}\"}}").map_err(io)?;
        // Events may come in between.
        let mut answers = lines.by_ref().map_while(Result::ok).filter(|line| !line.contains("\"event\""));
        let answer = answers.next().ok_or_else(|| format!("{command}: no answer"))?;
        if !answer.contains("\"return\"") {
            return Err(format!("{command}: {answer}"));
        }
    }
    Ok(())
}
