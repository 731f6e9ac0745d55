use super::*;

fn owner(text: &str) -> String {
    Dn::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).owner
}

#[test]
fn both_spellings_are_one_name() {
    let jan = "/c=nl/o=nikhef/cn=jan";
    for text in [
        "/C=NL/O=nikhef/CN=Jan",
        "CN=Jan,O=nikhef,C=NL",
        "cn=Jan, o=nikhef , c=NL",
        "CN = Jan; O = nikhef; C = NL",
        "C = NL, O = nikhef, CN = Jan",
        "C=NL,O=nikhef,CN=Jan",
        "/c=nl/O=NIKHEF/cn=JAN",
        "/C=NL/O= nikhef /CN=Jan",
        "2.5.4.3=Jan,OID.2.5.4.10=nikhef,2.5.4.6=NL",
        "CN=\"Jan\",O=nikhef,C=NL",
        r"CN=J\61n,O=nikhef,C=NL",
        r"/C=NL/O=nikhef/CN=J\x61n",
        "CN=#0C034A616E,O=nikhef,C=NL",
        "CN=#1e06004a0061006e,O=nikhef,C=NL",
    ] {
        assert_eq!(owner(text), jan, "{text}");
    }
    assert_ne!(owner("/C=NL/O=nikhef/CN=Janet"), jan);
    assert_ne!(owner("/O=nikhef/C=NL/CN=Jan"), jan);
    // DCs have no rank among themselves: RFC 4514.
    assert_eq!(owner("DC=cern,DC=ch"), "/dc=ch/dc=cern");
    assert_eq!(owner("DC=ch,DC=cern,OU=Users,CN=jdoe"), "/dc=ch/dc=cern/ou=users/cn=jdoe");
}

#[test]
fn types_have_several_names() {
    for text in ["/O=x/Email=a@b", "/O=x/emailAddress=A@B", "E=a@b,O=x", "1.2.840.113549.1.9.1=a@b,O=x"] {
        assert_eq!(owner(text), "/o=x/emailaddress=a@b", "{text}");
    }
    for text in ["/O=x/UID=jan", "/O=x/USERID=jan", "UID=jan,O=x", "0.9.2342.19200300.100.1.1=jan,O=x"] {
        assert_eq!(owner(text), "/o=x/uid=jan", "{text}");
    }
}

#[test]
fn values_may_hold_separators() {
    assert_eq!(owner("/O=x/CN=host/www.example.org"), "/o=x/cn=host/www.example.org");
    assert_eq!(owner("CN=host/www.example.org,O=x"), "/o=x/cn=host/www.example.org");
    assert_eq!(owner(r"CN=Jan\, Dr.,O=a\+b"), "/o=a+b/cn=jan, dr.");
    assert_eq!(owner("CN=\"Jan, Dr.\",O=x"), "/o=x/cn=jan, dr.");
    assert_eq!(owner("/O=x/CN=Jan, Dr."), "/o=x/cn=jan, dr.");
    assert_eq!(owner("CN=Jan+UID=j,O=x"), owner("UID=j+CN=Jan,O=x"));
    assert_eq!(owner(r"CN=J\C3\A4n,O=x"), "/o=x/cn=jän");
    assert_eq!(owner(r"/O=x/CN=J\xC3\xA4n"), owner("/O=x/CN=JÄN"));
    // A byte that is no UTF-8 is Latin-1, and U+0085 is a control character.
    assert_eq!(owner(r"/O=x/CN=a\xD6b\x0A"), r"/o=x/cn=aöb\x0a");
    assert_eq!(owner(r"/O=x/CN=a\x85b"), r"/o=x/cn=a\xc2\x85b");
    assert_eq!(owner(&owner(r"/O=x/CN=a\x85b")), r"/o=x/cn=a\xc2\x85b");
    assert_eq!(owner(r"/O=x/CN=a\b"), owner(r"CN=a\\b,O=x"));
    assert_eq!(owner(r"CN=\ Jan\ ,O=x"), "/o=x/cn=jan");
}

#[test]
fn a_proxy_is_its_owner() {
    for more in [
        "",
        "/CN=proxy",
        "/CN=limited proxy",
        "/CN=Proxy/CN=Limited  Proxy",
        "/CN=1234567",
        "/CN=1/CN=2",
        "/CN=restricted proxy",
    ] {
        assert_eq!(owner(&format!("/O=x/CN=Jan{more}")), "/o=x/cn=jan", "{more}");
    }
    assert_eq!(owner("CN=123,CN=proxy,CN=Jan,O=x"), "/o=x/cn=jan");
    // A person with a number, and one whose name follows a number.
    assert_eq!(owner("/O=x/OU=People/CN=1234"), "/o=x/ou=people/cn=1234");
    assert_eq!(owner("/OU=Users/CN=jdoe/CN=1234/CN=John Doe"), "/ou=users/cn=jdoe/cn=1234/cn=john doe");
    assert_eq!(Dn::parse("/O=x/CN=Jan/CN=77").unwrap().whole, "/o=x/cn=jan/cn=77");
}

#[test]
fn prefixes_are_of_the_same_form() {
    let cases = [
        ("/C=NL/O=nik", "/c=nl/o=nik"),
        ("/C=NL/O=nikhef/", "/c=nl/o=nikhef/"),
        ("/C=NL/O=nikhef/C", "/c=nl/o=nikhef/c"),
        ("/O=x/CN=Jan ", "/o=x/cn=jan "),
        ("/", "/"),
    ];
    for (text, expected) in cases {
        assert_eq!(prefix(text).unwrap(), expected, "{text}");
    }
    assert_eq!(prefix("CN=Jan,O=x"), Err(DnError::NoType));
}

#[test]
fn what_is_no_name_is_said() {
    let long = format!("/CN={}", "x".repeat(LONGEST));
    let many = "/CN=x".repeat(MAX_PARTS + 1);
    let cases = [
        ("", DnError::NoType),
        ("/", DnError::NoType),
        ("Jan", DnError::NoType),
        ("/Jan", DnError::NoType),
        ("/atlas/Role=pilot", DnError::NoType),
        ("CN=Jan,nikhef", DnError::NoType),
        ("CN=Jan,,O=x", DnError::NoType),
        ("=Jan", DnError::NoType),
        ("/CN=", DnError::NoValue),
        ("/CN= /O=x", DnError::NoValue),
        ("CN=\"Jan,O=x", DnError::Unfinished),
        ("CN=Jan\\", DnError::Unfinished),
        ("CN=#0C04414243,O=x", DnError::BadEncoding),
        ("CN=#0201FF,O=x", DnError::BadEncoding),
        ("CN=#0", DnError::BadEncoding),
        ("/VO=atlas/GROUP=/atlas", DnError::OldGroup),
        (&long, DnError::TooLong),
        (&many, DnError::TooManyParts),
    ];
    for (text, error) in cases {
        assert_eq!(Dn::parse(text), Err(error), "{text}");
    }
}
