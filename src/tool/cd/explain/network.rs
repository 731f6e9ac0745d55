//! What the machine does with its network, its log, and whoever gives it work.

use super::{Known, Part};
use crate::context::network::{Interface, Ipv6, Method};
use crate::context::site::{Limits, Work};
use crate::context::syslog::{Format, Framing, Protocol, Rate, Severity, Syslog};
use crate::image::policy::Firewall;
use crate::network::{firewall, names};
use crate::text;

pub fn firewall(known: &Known<'_>) -> Part {
    let Known { policy, site, .. } = known;
    let line = match policy.network.firewall {
        Firewall::Require => firewall::words(&policy.payload.network, &site.firewall.inbound),
        Firewall::Off => "skipped: the image wants no firewall".to_owned(),
    };
    Part::new("firewall", vec![line])
}

pub fn network(known: &Known<'_>) -> Part {
    let Known { policy, settings, site, .. } = known;
    let limit = policy.network.timeout_secs;
    let cards = site.network.as_ref().map(|network| network.interfaces.as_slice()).unwrap_or_default();
    let mut lines = Vec::new();
    if cards.is_empty() {
        let why = format!("without a lease after {limit} s the machine ends with code 500");
        lines.push(format!("addresses by DHCP on every card; {why}"));
    } else {
        let native = settings.site.as_ref().is_some_and(|site| site.network.is_some());
        let file = if native { "context.json" } else { "context.sh" };
        lines.push(format!("as {file} says; a card that is not there after {limit} s ends the machine with code 500"));
        lines.extend(cards.iter().map(card));
        lines.push("every other card is left alone".to_owned());
    }
    if let Some(resolver) = names::resolv_conf(site.network.as_ref(), &[], None) {
        let said: Vec<&str> = resolver.text.lines().filter(|line| !line.starts_with('#')).collect();
        lines.push(format!("names: {}", said.join(", ")));
    }
    lines.push(match &site.hostname {
        Some(name) => format!("the machine's name is {name}, whatever DHCP says"),
        None => "the machine's name is the one that DHCP gives".to_owned(),
    });
    Part::new("network", lines)
}

/// One card, in words.
fn card(card: &Interface) -> String {
    let mut words = match card.method {
        Method::Skip => vec!["left alone".to_owned()],
        Method::Dhcp => vec!["IPv4 by DHCP".to_owned()],
        Method::Static => Vec::new(),
    };
    words.extend(card.addresses.iter().map(ToString::to_string));
    for (route, metric) in card.all_routes() {
        let to = if route.prefix == 0 { "gateway".to_owned() } else { format!("{}/{} by", route.to, route.prefix) };
        let via = route.via.map_or("the link itself".to_owned(), |via| via.to_string());
        let metric = metric.map(|metric| format!(" (metric {metric})")).unwrap_or_default();
        words.push(format!("{to} {via}{metric}"));
    }
    words.extend(card.mtu.map(|mtu| format!("MTU {mtu}")));
    words.extend(card.ipv6.map(|ipv6| match ipv6 {
        Ipv6::Auto => "IPv6 as routers advertise it".to_owned(),
        Ipv6::Off => "no IPv6".to_owned(),
    }));
    format!("  card {}: {}", card.mac, words.join(", "))
}

pub fn logging(known: &Known<'_>) -> Part {
    let Some(syslog) = &known.site.syslog else {
        let line = "skipped: no syslog server in context.json, so the log stays in the machine";
        return Part::new("logging", vec![line.to_owned()]);
    };
    let mut lines = vec![format!("the log, from its first record on, goes to {syslog}")];
    if syslog.protocol() == Protocol::Tls {
        lines.push(believed(syslog));
    }
    if let Some(file) = &syslog.certificate {
        lines.push(format!("the machine shows its own certificate ({file})"));
    }
    match (syslog.format, syslog.framing) {
        (Format::Rfc5424, Framing::Octets) => {}
        (Format::Rfc5424, Framing::Lf) => lines.push("each record is one line".to_owned()),
        (Format::Rfc3164, Framing::Octets) => lines.push("records are in the old form (RFC 3164)".to_owned()),
        (Format::Rfc3164, Framing::Lf) => {
            lines.push("records are in the old form (RFC 3164), each one line".to_owned());
        }
    }
    if syslog.severity != Severity::default() {
        lines.push(format!("what is less severe than {} stays in the machine", word(syslog.severity)));
    }
    if let Some(Rate { records, secs }) = syslog.rate {
        lines.push(format!("of each payload {records} records in {secs} s at most; the others are counted"));
    }
    if syslog.require {
        let limit = known.site.limits.fault_secs;
        lines.push(format!(
            "no job starts while no server takes the log; after {limit} s of that the machine ends with code 500"
        ));
    }
    Part::new("logging", lines)
}

/// Whom a machine takes for its site's server.
fn believed(syslog: &Syslog) -> String {
    let name = syslog.name.as_ref().map(|name| format!(" for {name}")).unwrap_or_default();
    let listed = match syslog.fingerprints.len() {
        0 => format!("a certificate{name}"),
        1 => format!("the listed certificate{name}"),
        count => format!("one of {count} listed certificates{name}"),
    };
    let by = syslog.ca.as_ref().map(|file| format!(" by an authority of {file}")).unwrap_or_default();
    format!("a server is believed that shows {listed}{by}")
}

/// The site's Machine/Job Features, and where outputs go.
pub fn platform(known: &Known<'_>) -> Part {
    let mjf = &known.site.mjf;
    if mjf.is_empty() {
        let line =
            "no machine or job features, and no outputs: the machine's end is told on its console and in its report";
        return Part::new("platform", vec![line.to_owned()]);
    }
    let mut lines: Vec<String> = mjf
        .places()
        .into_iter()
        .filter_map(|(key, place)| Some(format!("{} in {}", key.trim_start_matches("mjf."), place.as_ref()?)))
        .collect();
    if mjf.metadata {
        lines.push("what is not named is looked for in the cloud's metadata, once".to_owned());
    }
    if let Some(beat) = &mjf.heartbeat {
        lines.push(format!("a heartbeat in {} every {} s at most", beat.file.get(), beat.secs));
    }
    Part::new("platform", lines)
}

/// As `context.json` has it.
fn word(severity: Severity) -> String {
    format!("{severity:?}").to_lowercase()
}

pub fn work(known: &Known<'_>) -> Part {
    let Known { policy, site, .. } = known;
    let (source, whose) = match (&site.work, &policy.work) {
        (Some(work), _) => (work, "context.json"),
        (None, Some(work)) => (work, "the image"),
        (None, None) => {
            let line =
                "none, unless the image names a source: the machine ends with code 200 once the scripts are done";
            return Part::new("work", vec![line.to_owned()]);
        }
    };
    let limits = site.limits;
    let topos = match source {
        Work::Topos(topos) => topos,
        Work::Exec(exec) => {
            let secs = exec.fizzle_secs;
            let lines = [
                format!("the image's program finds its work itself, once ({whose})"),
                format!(
                    "its shutdown_message or its end is the machine's; one that ends well within {secs} s found none"
                ),
            ];
            return Part::new("work", lines.to_vec());
        }
        Work::Picas(picas) => {
            let line = format!(
                "tokens from view {}/{} of {} ({whose}), results attached to them",
                picas.design,
                picas.view,
                picas.place()
            );
            let ends = format!(
                "ends after {} s without work, or {} s without the server",
                limits.idle_secs, limits.fault_secs
            );
            return Part::new("work", vec![line, ends]);
        }
    };
    let results = match &topos.results {
        Some(results) => format!("results into {results}"),
        None => "results are only logged".to_owned(),
    };
    Part::new(
        "work",
        vec![
            format!("tokens from pool {} of {} ({whose}), {results}", topos.pool, topos.url),
            format!("one that was handed out {} times and fails goes to pool {}.failed", topos.lease_limit, topos.pool),
            format!(
                "each locked for {} s and renewed; ends after {} s without work, or {} s without the server",
                topos.lock_secs, limits.idle_secs, limits.fault_secs
            ),
            bounds(&limits),
        ],
    )
}

/// How many tokens a machine works on, and for how long.
fn bounds(limits: &Limits) -> String {
    let Limits { slots, max_tasks, max_secs, min_task_secs, .. } = *limits;
    let at_once = match slots {
        Some(count) => format!("{} at once", text::count(count.into(), "token")),
        None => "as many tokens at once as processors".to_owned(),
    };
    let more = [
        max_tasks.map(|count| format!("{count} in all")),
        max_secs.map(|secs| format!("none for longer than {secs} s after the machine's start")),
        (min_task_secs > 0).then(|| format!("no new one with less than {min_task_secs} s left")),
    ];
    [Some(at_once)].into_iter().chain(more).flatten().collect::<Vec<_>>().join(", ")
}
