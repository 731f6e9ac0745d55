//! Policy in two hands: whatever image and site say, what holds is never looser than the image's.

use std::net::IpAddr;

use ctxinit::config;
use ctxinit::context::payload::Tightening;
use ctxinit::image::payload::{Access, Network, Payload};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::holds;

const PLACES: &[&str] = &["/", "/a", "/a/", "/ab", "/a/b", "/a/b/c", "/b"];
const HOSTS: &[&str] =
    &["0.0.0.0/0", "10.0.0.0/7", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "11.0.0.0/8", "::/0", "2001:db8::/32"];
/// In every part of what these divide.
const ADDRESSES: &[&str] = &["10.1.2.3", "10.1.2.4", "10.2.0.0", "11.0.0.0", "12.0.0.0", "2001:db8::1", "::1"];
const FILES: &[&str] = &["/x", "/a", "/a/x", "/abx", "/ab/x", "/a/b", "/a/bx", "/a/b/c/x", "/b/x"];
const NUMBERS: &[&str] = &["memory_mb", "pids", "cpu_percent", "open_files", "scratch_mb", "wall_secs"];
const SWITCHES: &[&str] = &["user_namespaces", "setuid_programs", "console_shell"];

/// Each key is there or not; `least` is the smallest number.
fn object(least: u32, most: u32) -> impl Strategy<Value = Map<String, Value>> {
    let some = |value| prop::option::weighted(0.4, value);
    let numbers =
        NUMBERS.iter().map(|key| some((least..most).prop_map(Value::from).boxed()).prop_map(move |n| (*key, n)));
    let switches =
        SWITCHES.iter().map(|key| some(any::<bool>().prop_map(Value::from).boxed()).prop_map(move |b| (*key, b)));
    let keys: Vec<_> = numbers.map(Strategy::boxed).chain(switches.map(Strategy::boxed)).collect();
    let writable = some(prop::sample::subsequence(PLACES, 0..4).prop_map(|list| json!(list)).boxed());
    (keys, writable, network()).prop_map(|(keys, writable, network)| {
        let of = |pairs: Vec<(&'static str, Option<Value>)>| {
            let said = pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
            said.collect::<Map<String, Value>>()
        };
        let mut object = of(keys);
        object.extend(of(vec![("writable", writable)]));
        object.insert("network".to_owned(), network);
        object
    })
}

/// Mostly one that can be meant, and most of these have a list.
fn network() -> impl Strategy<Value = Value> {
    let hosts = || prop::sample::subsequence(HOSTS, 1..3);
    prop_oneof![
        1 => Just(json!({})),
        1 => prop::sample::select(&["all", "listed", "none"][..]).prop_map(|access| json!({"access": access})),
        4 => hosts().prop_map(|hosts| json!({"access": "listed", "hosts": hosts})),
        1 => hosts().prop_map(|hosts| json!({"hosts": hosts})),
        1 => any::<bool>().prop_map(|mail| json!({"mail": mail})),
        1 => any::<bool>().prop_map(|mail| json!({"access": "none", "mail": mail})),
    ]
}

/// Pairs that can both be read. What the site says of each key is often near to what the image allows.
fn pair() -> impl Strategy<Value = (Payload, Tightening)> {
    (object(20, 60), object(16, 40)).prop_filter_map("one of both cannot be meant", |(image, site)| read(image, site))
}

/// The same where nothing is said but of the network: among others, its lists would seldom be the only difference.
fn pair_of_networks() -> impl Strategy<Value = (Payload, Tightening)> {
    let only = |network| Map::from_iter([("network".to_owned(), network)]);
    (network().prop_map(only), network().prop_map(only))
        .prop_filter_map("one of both cannot be meant", |(image, site)| read(image, site))
}

fn read(mut image: Map<String, Value>, site: Map<String, Value>) -> Option<(Payload, Tightening)> {
    image.insert("command".to_owned(), json!(["/w"]));
    let image = config::parse("image.json", Value::from(image).to_string().as_bytes()).ok()?;
    let site = config::parse("context.json", Value::from(site).to_string().as_bytes()).ok()?;
    Some((image, site))
}

fn reaches(network: &Network, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 4),
        IpAddr::V6(v6) => (v6.to_bits(), 6),
    };
    match network.access {
        Access::All => true,
        Access::None => false,
        Access::Listed => network.hosts.iter().any(|hosts| {
            let ((inner, kind), (outer, of)) = (bits(address), bits(hosts.address));
            kind == of && (0..hosts.prefix).all(|at| (inner ^ outer) >> (127 - u32::from(at)) & 1 == 0)
        }),
    }
}

fn may_write(places: &[String], file: &str) -> bool {
    places.iter().any(|place| place == "/" || file == place || file.starts_with(&format!("{place}/")))
}

fn numbers(payload: &Payload) -> [u32; 7] {
    let Payload { memory_mb, pids, cpu_percent, open_files, scratch_mb, wall_secs, grace_secs, .. } = *payload;
    [memory_mb, pids, cpu_percent.unwrap_or(u32::MAX), open_files, scratch_mb, wall_secs, grace_secs]
}

fn switches(payload: &Payload) -> [bool; 4] {
    [payload.user_namespaces, payload.setuid_programs, payload.console_shell, payload.network.mail]
}

/// The first key in which `held` allows what `image` does not.
fn looser(held: &Payload, image: &Payload) -> Option<String> {
    let number = numbers(held).into_iter().zip(numbers(image)).position(|(held, image)| held > image);
    let switch = switches(held).into_iter().zip(switches(image)).position(|(held, image)| held && !image);
    let address = ADDRESSES.iter().map(|text| text.parse().unwrap());
    let address = address.filter(|&address| reaches(&held.network, address)).find(|&it| !reaches(&image.network, it));
    let file =
        FILES.iter().filter(|file| may_write(&held.writable, file)).find(|file| !may_write(&image.writable, file));
    let command = (held.command != image.command).then(|| "command".to_owned());
    command
        .or(number.map(|at| format!("number {at}")))
        .or(switch.map(|at| format!("switch {at}")))
        .or(address.map(|address| address.to_string()))
        .or(file.map(|file| (*file).to_owned()))
}

#[test]
fn what_holds_is_never_looser_than_the_images() {
    holds(prop_oneof![pair(), pair_of_networks()], |(image, site)| {
        let Ok(held) = image.tightened(&site) else { return Ok(()) };
        prop_assert_eq!(looser(&held, &image), None, "{:?}", held);
        // Nor looser than the site wants.
        let asked = [site.memory_mb, site.pids, site.cpu_percent, site.open_files, site.scratch_mb, site.wall_secs];
        for (held, asked) in numbers(&held).into_iter().zip(asked) {
            prop_assert!(asked.is_none_or(|asked| held == asked));
        }
        let asked = [site.user_namespaces, site.setuid_programs, site.console_shell, site.network.mail];
        for (held, asked) in switches(&held).into_iter().zip(asked) {
            prop_assert!(asked.is_none_or(|asked| held == asked));
        }
        prop_assert!(!held.console_shell || site.console_shell == Some(true));
        prop_assert!(site.network.access.is_none_or(|asked| held.network.access == asked));
        // A second time changes nothing.
        prop_assert_eq!(held.tightened(&site), Ok(held.clone()));
        // What holds is itself a policy that an image may have.
        let network = serde_json::to_string(&held.network).unwrap();
        if held.network.access == Access::Listed {
            prop_assert_eq!(config::parse::<Network>("n", network.as_bytes()), Ok(held.network));
        }
        Ok(())
    });
}

#[test]
fn what_the_site_does_not_say_is_the_images_own() {
    holds(pair(), |(image, site)| {
        prop_assert_eq!(image.tightened(&Tightening::default()), Ok(image.without_site()));
        let Ok(held) = image.tightened(&site) else { return Ok(()) };
        prop_assert!(site.writable.is_some() || held.writable == image.writable);
        prop_assert!(site.user_namespaces.is_some() || held.user_namespaces == image.user_namespaces);
        prop_assert!(site.setuid_programs.is_some() || held.setuid_programs == image.setuid_programs);
        prop_assert!(site.network.access.is_some() || held.network.access == image.network.access);
        let asked = [site.memory_mb, site.pids, site.cpu_percent, site.open_files, site.scratch_mb, site.wall_secs];
        for ((held, image), asked) in numbers(&held).into_iter().zip(numbers(&image)).zip(asked) {
            prop_assert!(asked.is_some() || held == image);
        }
        Ok(())
    });
}

/// A refusal names a key that the site has said, and without these keys there is none.
#[test]
fn a_refused_key_is_one_that_was_said() {
    holds(pair(), |(image, site)| {
        let Err(all) = image.tightened(&site) else { return Ok(()) };
        prop_assert!(!all.is_empty());
        let mut rest = site;
        for fault in all {
            let gone = match fault.key {
                "payload.memory_mb" => rest.memory_mb.take().is_some(),
                "payload.pids" => rest.pids.take().is_some(),
                "payload.cpu_percent" => rest.cpu_percent.take().is_some(),
                "payload.open_files" => rest.open_files.take().is_some(),
                "payload.scratch_mb" => rest.scratch_mb.take().is_some(),
                "payload.wall_secs" => rest.wall_secs.take().is_some(),
                "payload.user_namespaces" => rest.user_namespaces.take().is_some(),
                "payload.setuid_programs" => rest.setuid_programs.take().is_some(),
                "payload.console_shell" => rest.console_shell.take().is_some(),
                "payload.network.mail" => rest.network.mail.take().is_some(),
                // Several places or hosts of a list may be refused, each by itself.
                "payload.writable" => {
                    rest.writable = None;
                    true
                }
                "payload.network.access" | "payload.network.hosts" => {
                    rest.network.access = None;
                    rest.network.hosts = None;
                    true
                }
                other => return Err(TestCaseError::fail(format!("no key {other}"))),
            };
            prop_assert!(gone, "{}", fault);
        }
        prop_assert!(image.tightened(&rest).is_ok(), "{:?}", rest);
        Ok(())
    });
}
