//! One table for each thing that variables ask for.

use super::{KeyValue, Nebula, read};
use crate::context::network::Interface;
use crate::context::shell;

fn nebula(text: &str) -> Result<Nebula, String> {
    let (variables, _) = shell::usable(shell::parse(text).unwrap());
    read(&variables).map_err(|error| error.to_string())
}

/// What `text` makes of the only card, a word for each thing that is set.
fn card(text: &str) -> String {
    let text = format!("ETH0_MAC='02:00:0a:00:00:05'\n{text}");
    let nebula = match nebula(&text) {
        Ok(nebula) => nebula,
        Err(error) => return error,
    };
    let network = nebula.network.unwrap();
    assert_eq!(network.interfaces.len(), 1);
    let told: Vec<String> =
        [words(&network.interfaces[0])].into_iter().chain(nebula.warnings.iter().map(ToString::to_string)).collect();
    told.join("; ")
}

fn words(card: &Interface) -> String {
    let mut words = vec![format!("{:?}", card.method).to_lowercase()];
    words.extend(card.addresses.iter().map(ToString::to_string));
    words.extend(card.all_routes().map(|(route, metric)| {
        let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
        let metric = metric.map(|metric| format!(" metric {metric}")).unwrap_or_default();
        format!("{}/{}{via}{metric}", route.to, route.prefix)
    }));
    words.extend(card.dns.iter().map(|dns| format!("dns {dns}")));
    words.extend(card.search.iter().map(|search| format!("search {search}")));
    words.extend(card.mtu.map(|mtu| format!("mtu {mtu}")));
    words.extend(card.ipv6.map(|ipv6| format!("ipv6 {ipv6:?}").to_lowercase()));
    words.join(", ")
}

const STATIC: &str = "ETH0_IP='10.0.0.5'\nETH0_MASK='255.255.255.0'\n";

#[test]
fn cards() {
    let with = |rest: &str| card(&format!("{STATIC}{rest}"));
    let cases = [
        (with(""), "static, 10.0.0.5/24"),
        (with("ETH0_NETWORK='10.0.0.0'\nETH0_GATEWAY='10.0.0.1'"), "static, 10.0.0.5/24, 0.0.0.0/0 via 10.0.0.1"),
        (with("ETH0_GATEWAY=''\nETH0_METHOD=''\nETH0_MTU=''"), "static, 10.0.0.5/24"),
        (with("ETH0_METHOD='STATIC'\nETH0_MTU='1450'"), "static, 10.0.0.5/24, mtu 1450"),
        (with("ETH0_GATEWAY='10.0.0.1'\nETH0_METRIC='7'"), "static, 10.0.0.5/24, 0.0.0.0/0 via 10.0.0.1 metric 7"),
        (
            with("ETH0_DNS='10.0.0.53 10.0.0.54'\nETH0_SEARCH_DOMAIN='a.org,b.org'"),
            "static, 10.0.0.5/24, dns 10.0.0.53, dns 10.0.0.54, search a.org, search b.org",
        ),
        (
            with("ETH0_ROUTES='10.1.0.0/16 via 10.0.0.2, 10.2.0.0/16 via 10.0.0.3'"),
            "static, 10.0.0.5/24, 10.1.0.0/16 via 10.0.0.2, 10.2.0.0/16 via 10.0.0.3",
        ),
        (
            with("ETH0_IP6='2001:db8::5'\nETH0_IP6_ULA='fd00::5'\nETH0_IP6_GATEWAY='fe80::1'\nETH0_IP6_METRIC='3'"),
            "static, 10.0.0.5/24, 2001:db8::5/64, fd00::5/64, ::/0 via fe80::1 metric 3",
        ),
        (
            with("ETH0_IPV6='2001:db8::5'\nETH0_IP6_PREFIX_LENGTH='56'\nETH0_GATEWAY6='2001:db8::1'"),
            "static, 10.0.0.5/24, 2001:db8::5/56, ::/0 via 2001:db8::1",
        ),
        (with("ETH0_IP6='2001:db8::5'\nETH0_IP6_METHOD='auto'"), "static, 10.0.0.5/24, ipv6 auto"),
        (with("ETH0_IP6='2001:db8::5'\nETH0_IP6_METHOD='disable'"), "static, 10.0.0.5/24, ipv6 off"),
        (with("ETH0_IP6='2001:db8::5'\nETH0_IP6_METHOD='skip'"), "static, 10.0.0.5/24"),
        (with("ETH0_METHOD='dhcp'\nETH0_GATEWAY='10.0.0.1'"), "dhcp, ipv6 auto"),
        (with("ETH0_METHOD='dhcp'\nETH0_IP6_METHOD='static'\nETH0_IP6='2001:db8::5'"), "dhcp, 2001:db8::5/64"),
        (with("ETH0_METHOD='skip'\nETH0_GATEWAY='10.0.0.1'"), "skip"),
        (with("ETH0_METHOD='skip'\nETH0_IP6_METHOD='auto'"), "static, ipv6 auto"),
        (with("ETH0_METHOD='skip'\nETH0_IP6_METHOD='static'\nETH0_IP6='2001:db8::5'"), "static, 2001:db8::5/64"),
        (
            with(
                "ETH0_ALIAS0_IP='10.0.0.6'\nETH0_ALIAS1_IP='10.7.0.6'\nETH0_ALIAS1_MASK='255.255.0.0'\n\
                  ETH0_ALIAS2_IP='10.0.0.8'\nETH0_ALIAS2_DETACH='yes'\nETH0_ALIAS3_IP='10.0.0.9'\n\
                  ETH0_ALIAS3_EXTERNAL='YES'\nETH0_ALIAS4_IP6='2001:db8::6'",
            ),
            "static, 10.0.0.5/24, 10.0.0.6/24, 10.7.0.6/16, 2001:db8::6/64",
        ),
        (card("ETH0_IP6='2001:db8::5'"), "static, 2001:db8::5/64"),
        (
            card("ETH0_MASK='255.255.0.0'"),
            "static, 10.0.0.5/16; context.sh:1: ETH0_MAC: no ETH0_IP is given; 10.0.0.5/16 is in the card's address",
        ),
        (
            card("ETH0_IP='10.0.0.5'"),
            "static, 10.0.0.5/24; context.sh:2: ETH0_IP: no ETH0_MASK says how large its network is; taken as 10.0.0.5/24",
        ),
        (
            with("ETH0_NETWORK='10.1.0.0'"),
            "static, 10.0.0.5/24; context.sh:4: ETH0_NETWORK: 10.1.0.0 is not the network of 10.0.0.5/24; not used",
        ),
        (
            with("ETH0_NETWORK='10.0.0.0/24'"),
            "static, 10.0.0.5/24; context.sh:4: ETH0_NETWORK: \"10.0.0.0/24\" is not an IP address; not used",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
}

/// What cannot work, each behind [`FIRST_LINE`], and what is said of it.
pub(crate) const REFUSED: &[(&str, &str)] = &[
    ("ETH0_MASK='255.0.255.0'\nETH0_IP='10.0.0.5'", "2: ETH0_MASK: 255.0.255.0 has holes"),
    ("ETH0_MASK='0.0.0.0'\nETH0_IP='10.0.0.5'", "2: ETH0_MASK: 0.0.0.0 leaves nothing of an address"),
    ("ETH0_MASK='33'\nETH0_IP='10.0.0.5'", "2: ETH0_MASK: \"33\" is not a mask (255.255.255.0)"),
    ("ETH0_MASK='+24'\nETH0_IP='10.0.0.5'", "2: ETH0_MASK: \"+24\" is not a mask (255.255.255.0)"),
    ("ETH0_IP='10.0.0.5'\nETH0_MTU='+1400'", "3: ETH0_MTU: \"+1400\" is not a number that can stand here"),
    ("ETH0_IP='10.0.0.555'", "2: ETH0_IP: \"10.0.0.555\" is not an IP address"),
    ("ETH0_IP='2001:db8::1'", "2: ETH0_IP: 2001:db8::1 is not an IPv4 address"),
    ("ETH0_IP='10.0.0.255'\nETH0_MASK='24'", "2: ETH0_IP: 10.0.0.255/24 is the network's broadcast address"),
    (
        "\nETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_GATEWAY='10.0.1.1'",
        "5: ETH0_GATEWAY: 10.0.1.1 is in no network of the card (10.0.0.5/24)",
    ),
    ("ETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_GATEWAY='gw'", "4: ETH0_GATEWAY: \"gw\" is not an IP address"),
    ("ETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_DNS='10.0.0.53 dns'", "4: ETH0_DNS: \"dns\" is not an IP address"),
    (
        "ETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_SEARCH_DOMAIN='a_b'",
        "4: ETH0_SEARCH_DOMAIN: \"a_b\" is neither an address nor a host name",
    ),
    (
        "ETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_MTU='90000'",
        "4: ETH0_MTU: \"90000\" is not a number that can stand here",
    ),
    ("ETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_MTU='100'", "4: ETH0_MTU: 100 is less than 576"),
    (
        "ETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_METRIC='-1'",
        "4: ETH0_METRIC: \"-1\" is not a number that can stand here",
    ),
    (
        "ETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_METHOD='bootp'",
        "4: ETH0_METHOD: \"bootp\" is none of static, dhcp, skip",
    ),
    (
        "ETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_IP6_METHOD='on'",
        "4: ETH0_IP6_METHOD: \"on\" is none of static, auto, dhcp, disable, skip",
    ),
    ("ETH0_IP6='10.0.0.5'", "2: ETH0_IP6: 10.0.0.5/64: the prefix is not between 1 and 32"),
    (
        "ETH0_IP6='2001:db8::5'\nETH0_IP6_PREFIX_LENGTH='129'",
        "2: ETH0_IP6: 2001:db8::5/129: the prefix is not between 1 and 128",
    ),
    (
        "ETH0_IP6='2001:db8::5'\nETH0_IP6_GATEWAY='2001:db9::1'",
        "3: ETH0_IP6_GATEWAY: 2001:db9::1 is in no network of the card (2001:db8::5/64)",
    ),
    (
        "ETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_ROUTES='10.1.0.0/16 10.0.0.2'",
        "4: ETH0_ROUTES: \"10.1.0.0/16 10.0.0.2\" is not a route (10.0.0.0/8 via 192.0.2.1)",
    ),
    (
        "ETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_ROUTES='10.1.0.1/16 via 10.0.0.2'",
        "4: ETH0_ROUTES: 10.1.0.1/16 has bits behind its prefix; the network is 10.1.0.0/16",
    ),
    (
        "ETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_GATEWAY='10.0.0.1'\nETH0_ROUTES='0.0.0.0/0 via 10.0.0.2'",
        "5: ETH0_ROUTES: two routes to 0.0.0.0/0",
    ),
    ("ETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_ALIAS0_IP='10.0.0.5'", "2: ETH0_IP: 10.0.0.5 stands there twice"),
    ("ETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_ALIAS0_IP='x'", "4: ETH0_ALIAS0_IP: \"x\" is not an IP address"),
    (
        "ETH1_MAC='02:00:0a:00:00:05'\nETH1_METHOD='dhcp'",
        "2: ETH1_MAC: 02:00:0a:00:00:05 is that of interface 0 (02:00:0a:00:00:05)",
    ),
    (
        "ETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_GATEWAY='10.0.0.1'\n\
             ETH1_MAC='02:00:0a:01:00:05'\nETH1_IP='10.1.0.5'\nETH1_MASK='24'\nETH1_GATEWAY='10.1.0.1'",
        "8: ETH1_GATEWAY: a second default route, with the same metric as that of interface 0 (02:00:0a:00:00:05)",
    ),
    (
        "ETH1_MAC='02-00-0a-01-00-05'",
        "2: ETH1_MAC: \"02-00-0a-01-00-05\" is not the address of a card (02:00:0a:00:00:05)",
    ),
    ("ETH1_MAC='52:54:00:01:00:05'", "2: ETH1_MAC: method static, and neither ETH1_IP nor ETH1_IP6"),
    ("DNS='8.8.8'", "2: DNS: \"8.8.8\" is not an IP address"),
    ("SEARCH_DOMAIN='a..b'", "2: SEARCH_DOMAIN: \"a..b\" is neither an address nor a host name"),
    ("TIMEZONE='/etc/passwd'", "2: TIMEZONE: \"/etc/passwd\" is not the name of a time zone (Europe/Amsterdam)"),
    ("SET_HOSTNAME='...'", "2: SET_HOSTNAME: \"...\" is not a host name"),
    ("START_SCRIPT_BASE64='*'", "2: START_SCRIPT_BASE64: not base64: Invalid symbol 42, offset 0."),
    ("ROOT_PUBKEY='../root.pub'", "2: ROOT_PUBKEY: \"../root.pub\" is not the name of a file in the CD's root"),
];
/// A card.
pub(crate) const FIRST_LINE: &str = "ETH0_MAC='02:00:0a:00:00:05'\n";

#[test]
fn what_cannot_work_names_variable_and_line() {
    for (text, complaint) in REFUSED {
        let found = nebula(&format!("{FIRST_LINE}{text}\n")).map(|_| ());
        assert_eq!(found, Err(format!("context.sh:{complaint}")), "{text}");
    }
}

#[test]
fn the_machine_itself() {
    let name = |text: &str| nebula(text).unwrap().hostname.map(|name| name.to_string());
    assert_eq!(name("HOSTNAME='a'\nSET_HOSTNAME='b.example.org'").as_deref(), Some("b.example.org"));
    assert_eq!(name("HOSTNAME='a'\nSET_HOSTNAME=''").as_deref(), Some("a"));
    let found = nebula("SET_HOSTNAME='my vm_1'").unwrap();
    assert_eq!(found.hostname.unwrap().get(), "my-vm-1");
    assert_eq!(
        found.warnings[0].to_string(),
        "context.sh:1: SET_HOSTNAME: \"my vm_1\" is not a host name; the machine is called my-vm-1"
    );
    assert_eq!(nebula("TIMEZONE='Europe/Amsterdam'").unwrap().timezone.unwrap().get(), "Europe/Amsterdam");

    let network = nebula("DNS='10.0.0.53 2001:db8::53'\nSEARCH_DOMAIN='a.org b.org'").unwrap().network.unwrap();
    assert_eq!((network.interfaces.len(), network.dns.len(), network.search.len()), (0, 2, 2));
    assert_eq!(nebula("NETWORK='YES'\nDNS=''").unwrap().network, None);
    assert_eq!(nebula("NETWORK='NO'\nETH0_MAC='02:00:0a:00:00:05'\nETH0_IP='x'").unwrap().network, None);
    let found = nebula("ETH1_IP='10.0.0.5'\nETH1_MASK='x'").unwrap();
    assert_eq!(found.network, None);
    assert_eq!(
        found.warnings[0].to_string(),
        "context.sh:1: ETH1_IP: there is no ETH1_MAC to say which card is meant; left out"
    );
}

#[test]
fn cards_are_in_the_order_of_their_numbers() {
    let text =
        "ETH10_MAC='02:00:0a:00:00:10'\nETH2_MAC='02:00:0a:00:00:02'\nETH02_MAC='x'\nETHX_MAC='x'\nETH_MAC='x'\n";
    let interfaces = nebula(text).unwrap().network.unwrap().interfaces;
    assert_eq!(interfaces.iter().map(words).collect::<Vec<_>>(), ["static, 10.0.0.2/24", "static, 10.0.0.16/24"]);
}

#[test]
fn start_scripts() {
    let script = |text: &str| {
        let script = nebula(text).unwrap().start_script?;
        Some((script.name, String::from_utf8(script.text).unwrap()))
    };
    let said = |name: &str, text: &str| Some((name.to_owned(), text.to_owned()));
    assert_eq!(script("START_SCRIPT='echo it'\\''s\necho 2'"), said("START_SCRIPT", "echo it's\necho 2"));
    let both = "START_SCRIPT_BASE64='ZWNo\nbyB4Cg=='\nSTART_SCRIPT='echo y'";
    assert_eq!(script(both), said("START_SCRIPT_BASE64", "echo x\n"));
    assert_eq!(script("START_SCRIPT_BASE64=''\nSTART_SCRIPT=' '"), None);
}

#[test]
fn keys_and_features() {
    let text = "ROOT_PUBKEY=root.pub\nEC2_PUBLIC_KEY='ssh-ed25519 B'\nSSH_PUBLIC_KEY='ssh-ed25519 A'\nPUBLIC_KEY=''\n\
        MACHINEFEATURES='/etc/machinefeatures'\nJOBFEATURES='https://h/jf'\nJOBOUTPUTS='jo'\n";
    let found = nebula(text).unwrap();
    let keys: Vec<_> = found.keys.iter().map(|key| (key.name.as_str(), &key.value)).collect();
    assert_eq!(
        keys,
        [
            ("SSH_PUBLIC_KEY", &KeyValue::Text("ssh-ed25519 A".to_owned())),
            ("EC2_PUBLIC_KEY", &KeyValue::Text("ssh-ed25519 B".to_owned())),
            ("ROOT_PUBKEY", &KeyValue::File("root.pub".to_owned())),
        ]
    );
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(found.features, [pair("MACHINEFEATURES", "/etc/machinefeatures"), pair("JOBFEATURES", "https://h/jf")]);
    assert_eq!(
        found.warnings[0].to_string(),
        "context.sh:7: JOBOUTPUTS: \"jo\" is neither an absolute path nor the beginning of an http URL; \
         it is not used"
    );
    for bad in ["ftp://h", "http://", "https:///x", "/a b", "x/y"] {
        let found = nebula(&format!("JOBFEATURES='{bad}'")).unwrap();
        assert_eq!((found.features.len(), found.warnings.len()), (0, 1), "{bad}");
    }
}

/// What asks for more than is done.
pub(crate) const NOT_DONE: &str = "USERNAME='joe'\nPASSWORD='x'\nCRYPTED_PASSWORD_BASE64='eA=='\nGRANT_SUDO='YES'\nGROW_FS='/'\nSWAP='sdb'\n\
        REPORT_READY='NO'\nONEGATE_ENDPOINT='http://h'\nPCI1_MAC='02:00:0a:00:00:09'\nDNS_HOSTNAME='YES'\nEC2_HOSTNAME='h'\n\
        INIT_SCRIPTS='init.sh'\nUSERNAME_SUDO=''\nVMID='7'\nTARGET='hda'\nPCIE='x'\nSWAPFILE='x'\nDISK0_MOUNT_TAG='t'\n\
        ETH0_MAC='02:00:0a:00:00:05'\nETH0_METHOD='dhcp'\nETH0_VLAN_ID='5'\nETH0_IP6_METHOD='dhcp'\n\
        ETH0_ROUTES='10.0.0.0/8 via 10.0.0.1'\nEC2_USER_DATA='eA=='\n";

#[test]
fn what_is_not_done_is_listed_by_name() {
    assert_eq!(
        nebula(NOT_DONE).unwrap().not_done,
        [
            "CRYPTED_PASSWORD_BASE64",
            "DISK0_MOUNT_TAG",
            "DNS_HOSTNAME",
            "EC2_HOSTNAME",
            "EC2_USER_DATA",
            "ETH0_IP6_METHOD",
            "ETH0_ROUTES",
            "ETH0_VLAN_ID",
            "GRANT_SUDO",
            "GROW_FS",
            "INIT_SCRIPTS",
            "ONEGATE_ENDPOINT",
            "PASSWORD",
            "PCI1_MAC",
            "SWAP",
            "USERNAME",
        ]
    );
}
