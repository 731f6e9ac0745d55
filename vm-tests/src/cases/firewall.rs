//! Where payloads get to, and what becomes of a machine whose rules are not there.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::case::Case;
use crate::guest::Job;
use crate::services::{GREETING, fetch, greet};
use crate::site::{HOST, Site};
use crate::stage::{Stage, policy, policy_with};

/// The metadata server of a cloud: root reaches it, a payload is refused at once.
pub const METADATA: Case = Case::new("firewall-metadata", metadata).with_payload(no_metadata);
/// Of two servers a payload reaches the one that the image lists, and name servers; the worker reaches the token server.
pub const LISTED: Case = Case::new("firewall-listed", listed).with_payload(only_listed);
/// A service of the site's removes the rules while the first job runs: there is no second one.
pub const FLUSHED: Case = Case::new("firewall-flushed", flushed).with_payload(sees_the_flush);
/// A kernel without nf_tables: the machine ends before its first link is up.
pub const MISSING: Case = Case::new("firewall-missing", missing);
/// A kernel that knows a part of it.
pub const INCOMPLETE: Case = Case::new("firewall-incomplete", incomplete);
/// The image does without.
pub const OFF: Case = Case::new("firewall-off", off);

const DEVICE: &str = "virtio-net-pci,netdev=n0,romfile=";
/// A refusal comes from this machine's own kernel, and one that comes later answers the second SYN, after a second.
const AT_ONCE: Duration = Duration::from_millis(900);
/// On a host that is shared, an emulated processor may stand still for a second by itself, but not each time.
const TRIES: usize = 5;
/// For what is dropped, where it were to be refused.
const SILENCE: Duration = Duration::from_secs(20);

fn metadata(stage: &Stage) -> Result<(), String> {
    const GATEWAY: &str = "169.254.0.2";
    const EPILOG: &str = "[ $1 != start ] || vm-tests guest fetch 169.254.169.254:80\n";
    let site = Site::start(stage)?;
    site.fill(&[stage.case.name])?;
    let cd = stage.cd(&[("context.json", &site.context().replace(HOST, GATEWAY)), ("epilog.sh", EPILOG)])?;
    // QEMU's network answers for those addresses alone that are in it.
    let net = format!(
        "user,id=n0,net=169.254.0.0/16,host={GATEWAY},dns=169.254.0.3,dhcpstart=169.254.0.15,\
         guestfwd=tcp:169.254.169.254:80-cmd:echo {GREETING},guestfwd=tcp:169.254.169.253:80-cmd:echo {GREETING}"
    );
    let machine = stage.tiny(&policy())?.cd(&cd).words(["--no-net"]);
    let ended = machine.qemu(["-netdev", &net, "-device", DEVICE]).run()?;
    ended.expect_console(&format!("epilog: {GREETING}"))?;
    ended.expect_in_phase("firewall", "/note", "input closed; payloads: all hosts but metadata and mail")?;
    site.expect_record("payload", &stage.marker())?;
    ended.expect_end("200 1 tokens completed")
}

fn no_metadata(_: &Job) -> Result<ExitCode, String> {
    for address in ["169.254.169.254:80", "169.254.169.253:80", "169.254.169.254:53", "169.254.0.2:25"] {
        refused(address)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A closed port of a host that is reached is refused too, so the cases have root or another port prove the way.
fn refused(address: &str) -> Result<(), String> {
    let socket: SocketAddr = address.parse().map_err(|_| format!("{address} is no address"))?;
    let mut refused = Vec::new();
    while refused.len() < TRIES {
        let begun = Instant::now();
        match TcpStream::connect_timeout(&socket, SILENCE) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused.push(begun.elapsed()),
            other => return Err(format!("{address} was not refused: {other:?} after {:?}", begun.elapsed())),
        }
        if refused.last().is_some_and(|took| *took < AT_ONCE) {
            return Ok(());
        }
    }
    Err(format!("{address} was not refused at once, but after {refused:?}"))
}

fn listed(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&[&format!("{} {}", stage.case.name, site.port)])?;
    let cd = stage.cd(&[("context.json", &site.context())])?;
    let mut policy = policy();
    policy["payload"]["network"] = json!({"access": "listed", "hosts": ["10.0.2.96/29"]});
    let net = format!(
        "user,id=n0,guestfwd=tcp:10.0.2.100:7-cmd:echo {GREETING},guestfwd=tcp:10.0.2.104:7-cmd:echo {GREETING}"
    );
    let machine = stage.tiny(&policy)?.cd(&cd).words(["--no-net"]);
    let ended = machine.qemu(["-netdev", &net, "-device", DEVICE]).run()?;
    ended.expect_in_phase("firewall", "/note", "input closed; payloads: 10.0.2.96/29 and name servers")?;
    site.expect_record("payload", &stage.marker())?;
    ended.expect_end("200 1 tokens completed")
}

fn only_listed(job: &Job) -> Result<ExitCode, String> {
    let [token_server] = job.words.as_slice() else { return Err(format!("expected a port, got {:?}", job.words)) };
    let said = fetch("10.0.2.100:7")?;
    if said != GREETING {
        return Err(format!("the listed host says {said:?}"));
    }
    refused("10.0.2.104:7")?;
    refused(&format!("{HOST}:{token_server}"))?;
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(|error| error.to_string())?;
    socket.send_to(b"?", "10.0.2.3:53").map_err(|error| format!("the name server: {error}"))?;
    match socket.send_to(b"?", format!("{HOST}:9")) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(ExitCode::SUCCESS),
        other => Err(format!("a datagram to {HOST} was not refused: {other:?}")),
    }
}

fn flushed(stage: &Stage) -> Result<(), String> {
    const EPILOG: &str = r#"
[ "$1" = start ] || return 0
(
    until vm-tests guest fetch 127.0.0.1:4001; do sleep 0.2; done
    vm-tests guest flush
    vm-tests guest fetch 127.0.0.1:4001
) &
"#;
    let site = Site::start(stage)?;
    site.fill(&[stage.case.name, stage.case.name])?;
    let cd = stage.cd(&[("context.json", &site.context()), ("epilog.sh", EPILOG)])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    site.expect_record("payload", &stage.marker())?;
    ended.expect_report("/tokens/0/fate", "completed")?;
    if !ended.report("/tokens/1").is_null() {
        return Err(format!("expected one job, got a second: {}", ended.report("/tokens/1")));
    }
    site.expect_free(1)?;
    ended.expect_end("700 firewall: the table inet ctxinit is gone; no job starts here")
}

/// The site's service comes before and after it has removed the rules.
fn sees_the_flush(_: &Job) -> Result<ExitCode, String> {
    let listener = TcpListener::bind("127.0.0.1:4001").map_err(|error| error.to_string())?;
    greet(&listener)?;
    greet(&listener)?;
    Ok(ExitCode::SUCCESS)
}

/// Ends for the want of this module, with a complaint that starts and ends so.
fn without(stage: &Stage, module: &str, complaint: &str) -> Result<(), String> {
    let cd = stage.cd(&[("prolog.sh", "[ $1 != start ] || echo the prolog runs\n")])?;
    let machine = stage.tiny(&policy())?.cd(&cd).words(["--append", &format!("module_blacklist={module}")]);
    let ended = machine.run()?;
    ended.expect_report("/verdict/code", 500)?;
    ended.expect_report_start("/verdict/text", complaint)?;
    ended.expect_console_end("; network.firewall \"off\" in /etc/ctxinit/image.json would go on without")?;
    ended.expect_console("prolog: the prolog runs")?;
    ended.expect_phase("firewall", Some("failed"))?;
    ended.expect_phase("network", None)
}

fn missing(stage: &Stage) -> Result<(), String> {
    without(stage, "nf_tables", "firewall: the kernel has no nf_tables (")
}

fn incomplete(stage: &Stage) -> Result<(), String> {
    let rule = "chain refused: meta l4proto tcp reject with tcp reset";
    without(stage, "nft_reject_inet", &format!("firewall: nf_tables: {rule}: No such file or directory"))
}

fn off(stage: &Stage) -> Result<(), String> {
    let cd = stage.cd(&[("epilog.sh", "[ $1 != start ] || echo the epilog runs\n")])?;
    let policy = policy_with(json!({"network": {"firewall": "off"}}));
    let machine = stage.tiny(&policy)?.cd(&cd).words(["--append", "module_blacklist=nf_tables"]);
    let ended = machine.run()?;
    ended.expect_console("epilog: the epilog runs")?;
    ended.expect_phase("firewall", Some("skipped"))?;
    ended.expect_end("200 the scripts are done, and no work source is named")
}
