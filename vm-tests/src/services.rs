//! Services inside the machine: this program as what a site's script may start there as root.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, socket};

/// What a service says to everybody who connects.
pub const GREETING: &str = "hello";
/// A service that is reached answers at once; a slow machine later.
const LIMIT: Duration = Duration::from_secs(20);

/// Does what its first word says; `None` if that is none of these.
pub fn main(words: &[String]) -> Option<ExitCode> {
    let done = match words {
        [word, port] if word == "listen" => {
            TcpListener::bind(format!("0.0.0.0:{port}")).map_err(|error| format!("port {port}: {error}")).and_then(
                |listener| loop {
                    greet(&listener)?;
                },
            )
        }
        [word, address] if word == "fetch" => fetch(address).map(|text| println!("{text}")),
        [word] if word == "flush" => flush(),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("{}: {why}", words.join(" "));
            ExitCode::FAILURE
        }
    })
}

/// Greets the next one who connects.
pub fn greet(listener: &TcpListener) -> Result<(), String> {
    let (mut stream, _) = listener.accept().map_err(|error| format!("accept: {error}"))?;
    // Who has gone already has seen that there is a service.
    let _ = stream.write_all(GREETING.as_bytes());
    Ok(())
}

/// What a service says.
pub fn fetch(address: &str) -> Result<String, String> {
    let at = |error: std::io::Error| format!("{address}: {error}");
    let socket: SocketAddr = address.parse().map_err(|_| format!("{address} is no address"))?;
    let mut stream = TcpStream::connect_timeout(&socket, LIMIT).map_err(at)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(at)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(at)?;
    Ok(text.trim_end().to_owned())
}

/// What `nft flush ruleset` does: NFT_MSG_DELTABLE without a name, in a batch (linux/netfilter/nfnetlink.h).
fn flush() -> Result<(), String> {
    const REQUEST: u16 = 1;
    // Type, and the head of nfnetlink: family, version, subsystem.
    let messages = [(0x10, [0, 0, 0, 10]), (10 << 8 | 2, [0; 4]), (0x11, [0, 0, 0, 10])];
    let mut batch = Vec::new();
    for (kind, head) in messages {
        let kind: u16 = kind;
        batch.extend(20u32.to_ne_bytes());
        batch.extend([kind.to_ne_bytes(), REQUEST.to_ne_bytes()].concat());
        batch.extend([0; 8]);
        batch.extend(head);
    }
    let family = SockProtocol::NetlinkNetFilter;
    let kernel = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, family);
    let kernel = kernel.map_err(|errno| format!("netlink: {errno}"))?;
    let sent = send(std::os::fd::AsRawFd::as_raw_fd(&kernel), &batch, MsgFlags::empty());
    sent.map(drop).map_err(|errno| format!("netlink: {errno}"))
}
