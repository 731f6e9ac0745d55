//! One card after the other, then two together.

use super::*;
use crate::config;
use crate::context::site::Site;

fn read(text: &str) -> Result<Network, String> {
    let text = format!("{{\"network\": {text}}}");
    let site: Site = config::parse("c", text.as_bytes()).map_err(|error| error.to_string())?;
    site.network.ok_or_else(|| "no network".to_owned())
}

#[test]
fn the_whole_section() {
    let text = r#"{"interfaces": [
        {"mac": "02:00:0A:00:00:05", "method": "static", "addresses": ["192.0.2.5/24", "2001:db8::5/64"],
         "gateway": "192.0.2.1", "gateway6": "fe80::1", "metric": 5, "dns": ["192.0.2.53"],
         "search": ["grid.example.org"], "mtu": 1450, "routes": [
            {"to": "10.0.0.0/8", "via": "198.51.100.1"}, {"to": "198.51.100.1"}, {"to": "2001:db8:1::/48", "via": "2001:db8::1"}]},
        {"mac": "02:00:0a:00:00:06", "method": "dhcp", "ipv6": "off"},
        {"mac": "02:00:0a:00:00:07", "method": "skip"}
      ], "dns": ["2001:db8::53"], "search": ["example.org"]}"#;
    let network = read(text).unwrap();
    let [first, second, third] = network.interfaces.as_slice() else { panic!("{network:?}") };
    assert_eq!(first.mac.to_string(), "02:00:0a:00:00:05");
    assert_eq!((second.method, second.ipv6, third.method), (Method::Dhcp, Some(Ipv6::Off), Method::Skip));
    let routes: Vec<String> =
        first.all_routes().map(|(r, m)| format!("{}/{} {:?} {m:?}", r.to, r.prefix, r.via)).collect();
    assert_eq!(
        routes,
        [
            "198.51.100.1/32 None Some(5)",
            "0.0.0.0/0 Some(192.0.2.1) Some(5)",
            "::/0 Some(fe80::1) None",
            "10.0.0.0/8 Some(198.51.100.1) Some(5)",
            "2001:db8:1::/48 Some(2001:db8::1) None",
        ]
    );
    assert_eq!(network.dns, ["2001:db8::53".parse::<IpAddr>().unwrap()]);
    assert_eq!(read("{}").unwrap(), Network::default());
}

/// Behind `"mac": ..., "method": "static"`.
fn one(rest: &str) -> String {
    let text = format!(r#"{{"interfaces": [{{"mac": "02:00:00:00:00:01", "method": "static", {rest}}}]}}"#);
    read(&text).map_or_else(|error| error, |_| "right".to_owned())
}

#[test]
fn addresses_without_a_network_may_have_any_gateway() {
    for rest in [
        r#""addresses": ["192.0.2.5/32"], "gateway": "10.0.0.1""#,
        r#""addresses": ["192.0.2.4/31"], "gateway": "192.0.2.5""#,
        r#""addresses": ["2001:db8::5/128"], "gateway6": "2001:db8:1::1""#,
        r#""ipv6": "auto""#,
        r#""addresses": ["192.0.2.5/24"], "gateway": "10.0.0.1", "routes": [{"to": "10.0.0.1/32"}]"#,
    ] {
        assert_eq!(one(rest), "right", "{rest}");
    }
}

#[test]
fn what_cannot_work_is_named() {
    let cases = [
        (r#""addresses": []"#, "c:1: network.interfaces[0]: addresses: method static needs one"),
        (
            r#""addresses": ["192.0.2.5"]"#,
            "c:1: network.interfaces[0].addresses[0]: \"192.0.2.5\" is not an address with a prefix (192.0.2.5/24)",
        ),
        (
            r#""addresses": ["192.0.2.5/33"]"#,
            "c:1: network.interfaces[0].addresses[0]: 192.0.2.5/33: the prefix is not between 1 and 32",
        ),
        (
            r#""addresses": ["192.0.2.0/24"]"#,
            "c:1: network.interfaces[0].addresses[0]: 192.0.2.0/24 is the network itself",
        ),
        (
            r#""addresses": ["192.0.2.255/24"]"#,
            "c:1: network.interfaces[0].addresses[0]: 192.0.2.255/24 is the network's broadcast address",
        ),
        (
            r#""addresses": ["127.0.0.1/8"]"#,
            "c:1: network.interfaces[0].addresses[0]: 127.0.0.1 is not the address of a machine",
        ),
        (
            r#""addresses": ["ff02::1/64"]"#,
            "c:1: network.interfaces[0].addresses[0]: ff02::1 is not the address of a machine",
        ),
        (
            r#""addresses": ["192.0.2.5/24", "192.0.2.5/25"]"#,
            "c:1: network.interfaces[0]: addresses: 192.0.2.5 stands there twice",
        ),
        (
            r#""addresses": ["192.0.2.5/24"], "gateway": "192.0.3.1""#,
            "c:1: network.interfaces[0]: gateway: 192.0.3.1 is in no network of the card (192.0.2.5/24)",
        ),
        (
            r#""addresses": ["192.0.2.5/24"], "gateway": "192.0.2.5""#,
            "c:1: network.interfaces[0]: gateway: 192.0.2.5 is the card's own address",
        ),
        (
            r#""addresses": ["192.0.2.5/24"], "gateway": "fe80::1""#,
            "c:1: network.interfaces[0].gateway: fe80::1 is not an IPv4 address",
        ),
        (
            r#""addresses": ["192.0.2.5/24"], "gateway6": "2001:db8::1""#,
            "c:1: network.interfaces[0]: gateway6: 2001:db8::1: the card has no address of that kind",
        ),
        (
            r#""addresses": ["192.0.2.5/24"], "dns": ["dns.example.org"]"#,
            "c:1: network.interfaces[0].dns[0]: \"dns.example.org\" is not an IP address",
        ),
        (r#""addresses": ["192.0.2.5/24"], "mtu": 500"#, "c:1: network.interfaces[0]: mtu: 500 is less than 576"),
        (r#""addresses": ["2001:db8::5/64"], "mtu": 1279"#, "c:1: network.interfaces[0]: mtu: 1279 is less than 1280"),
        (
            r#""addresses": ["192.0.2.5/24"], "routes": [{"to": "10.0.0.1/8"}]"#,
            "c:1: network.interfaces[0].routes[0].to: 10.0.0.1/8 has bits behind its prefix; the network is 10.0.0.0/8",
        ),
        (
            r#""addresses": ["192.0.2.5/24"], "routes": [{"to": "10.0.0.0/8", "via": "fe80::1"}]"#,
            "c:1: network.interfaces[0].routes[0]: via: fe80::1 is not of 10.0.0.0/8's kind",
        ),
        (
            r#""addresses": ["192.0.2.5/24"], "routes": [{"to": "10.0.0.0/8", "via": "192.0.3.1"}]"#,
            "c:1: network.interfaces[0]: routes: 192.0.3.1 is in no network of the card (192.0.2.5/24)",
        ),
        (
            r#""addresses": ["192.0.2.5/24"], "gateway": "192.0.2.1", "routes": [{"to": "0.0.0.0/0", "via": "192.0.2.2"}]"#,
            "c:1: network.interfaces[0]: routes: two routes to 0.0.0.0/0",
        ),
        (
            r#""addresses": ["2001:db8::5/64"], "ipv6": "off""#,
            "c:1: network.interfaces[0]: ipv6: off, and addresses holds IPv6 ones",
        ),
        (
            r#""adresses": []"#,
            "c:1: network.interfaces[0].adresses: unknown field `adresses`, expected one of `mac`, `method`, `addresses`, `gateway`, `gateway6`, `metric`, `metric6`, `ipv6`, `dns`, `search`, `mtu`, `routes`",
        ),
    ];
    for (rest, complaint) in cases {
        assert_eq!(one(rest), complaint, "{rest}");
    }
}

/// For IPv6 the kernel takes 1024 where it is told none, or 0.
#[test]
fn the_kernels_metrics_are_metrics() {
    let two = |first: &str, second: &str| {
        let card = |number: u8, rest: &str| {
            format!(
                r#"{{"mac": "02:00:00:00:00:0{number}", "method": "static", "addresses": ["2001:db8:{number}::5/64"],
                "gateway6": "2001:db8:{number}::1"{rest}}}"#
            )
        };
        read(&format!("{{\"interfaces\": [{}, {}]}}", card(1, first), card(2, second))).is_ok()
    };
    for same in ["", r#", "metric6": 0"#, r#", "metric6": 1024"#] {
        assert!(!two("", same) && !two(same, ""), "{same}");
    }
    assert!(two("", r#", "metric6": 1023"#));
}

#[test]
fn a_sign_is_no_digit() {
    for text in ["02:+1:00:00:00:01", "+2:00:00:00:00:01"] {
        assert!(Mac::read(text).is_err(), "{text}");
    }
    assert!(Cidr::read("192.0.2.5/+24").is_err());
    assert!(Route::read("10.0.0.0/+8", None).is_err());
    assert!(Cidr::read("192.0.2.5/").is_err() && Cidr::read("192.0.2.5/24").is_ok());
}

#[test]
fn cards_that_do_not_go_together() {
    let two = |rest: &str| {
        let first = r#"{"mac": "02:00:00:00:00:01", "method": "static", "addresses": ["192.0.2.5/24"], "gateway": "192.0.2.1"}"#;
        read(&format!("{{\"interfaces\": [{first}, {rest}]}}")).map_or_else(|error| error, |_| "right".to_owned())
    };
    let cases = [
        (
            r#"{"mac": "02:00:00:00:00:01", "method": "dhcp"}"#,
            "c:1: network: interfaces[1].mac: 02:00:00:00:00:01 is that of interface 0 (02:00:00:00:00:01)",
        ),
        (
            r#"{"mac": "02:00:00:00:00:02", "method": "static", "addresses": ["192.0.2.5/16"]}"#,
            "c:1: network: interfaces[1].addresses: 192.0.2.5 is one of interface 0 (02:00:00:00:00:01)",
        ),
        (
            r#"{"mac": "02:00:00:00:00:02", "method": "static", "addresses": ["10.0.0.5/16"], "gateway": "10.0.0.1"}"#,
            "c:1: network: interfaces[1].gateway: a second default route, with the same metric as that of interface 0 (02:00:00:00:00:01)",
        ),
        (
            r#"{"mac": "02:00:00:00:00:02", "method": "static", "addresses": ["10.0.0.5/16"], "gateway": "10.0.0.1", "metric": 0}"#,
            "c:1: network: interfaces[1].gateway: a second default route, with the same metric as that of interface 0 (02:00:00:00:00:01)",
        ),
        (
            r#"{"mac": "02:00:00:00:00:02", "method": "static", "addresses": ["10.0.0.5/16"], "gateway": "10.0.0.1", "metric": 7}"#,
            "right",
        ),
        (
            r#"{"mac": "02:00:00:00:00:02", "method": "dhcp", "addresses": ["10.0.0.5/16"]}"#,
            "c:1: network.interfaces[1]: addresses: method dhcp brings the IPv4 address",
        ),
        (
            r#"{"mac": "02:00:00:00:00:02", "method": "dhcp", "gateway": "10.0.0.1"}"#,
            "c:1: network.interfaces[1]: gateway: method dhcp brings the IPv4 routes",
        ),
        (
            r#"{"mac": "02:00:00:00:00:02", "method": "dhcp", "addresses": ["2001:db8::5/64"], "gateway6": "2001:db8::1"}"#,
            "right",
        ),
        (
            r#"{"mac": "02:00:00:00:00:02", "method": "skip", "mtu": 1400}"#,
            "c:1: network.interfaces[1]: method: skip leaves the card alone, and goes with no other key",
        ),
        (
            r#"{"mac": "01:00:5e:00:00:02", "method": "skip"}"#,
            "c:1: network.interfaces[1].mac: \"01:00:5e:00:00:02\" is not the address of a card (02:00:0a:00:00:05)",
        ),
        (
            r#"{"mac": "2:0:0:0:0:2", "method": "skip"}"#,
            "c:1: network.interfaces[1].mac: \"2:0:0:0:0:2\" is not the address of a card (02:00:0a:00:00:05)",
        ),
        (
            r#"{"mac": "02:00:00:00:00:02", "method": "bootp"}"#,
            "c:1: network.interfaces[1].method: unknown variant `bootp`, expected one of `static`, `dhcp`, `skip`",
        ),
        (r#"{"mac": "02:00:00:00:00:02"}"#, "c:1: network.interfaces[1]: missing field `method`"),
    ];
    for (rest, complaint) in cases {
        assert_eq!(two(rest), complaint, "{rest}");
    }
}
