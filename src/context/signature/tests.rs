//! The vectors were made by Debian's minisign 0.11, not by anything here.

use super::*;

const KEY: &str = "RWTjgr25YhgUjqb1XtxQPN5IcKafK1yFVYeHV3x/BYvQuH5DheMDpS0Y";
const ID: &str = "8E141862B9BD82E3";
const UUID: &str = "5ea5d6f0-90a4-4a7e-8f5e-1f3a1f1b0c11";

const SUMS_TEXT: &str = "\
ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356  context.json
2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881  d/a
032dff9239f03c1ea3d1249079b69eb4e420922604180b7064931cacd3b46a24  prolog.sh
";

/// For the image, for any, for something else; by another key.
const FOR_IMAGE: &str = "\
untrusted comment: signature
RUTjgr25YhgUjkTKX/NjT7CFsU/YKmV/W5GruAoj5AVNZo7vYoU7jGBKpR+My/1uuSrbww+RY39C/exO+lp7Ttlqd9Rf++msVgk=
trusted comment: ctxinit context image=5ea5d6f0-90a4-4a7e-8f5e-1f3a1f1b0c11 expires=2030-01-01T00:00:00Z
9NCWvVgN9u7boRo48OQlGN4Y3ECF32BXnNK/FQJVkvIzvTl7Izaw1TNRo9sXhEndmgLGJ3kPomj6Ai9d4SvcAg==
";
const FOR_ANY: &str = "\
untrusted comment: signature
RUTjgr25YhgUjkTKX/NjT7CFsU/YKmV/W5GruAoj5AVNZo7vYoU7jGBKpR+My/1uuSrbww+RY39C/exO+lp7Ttlqd9Rf++msVgk=
trusted comment: ctxinit context image=any expires=2030-01-01T00:00:00Z
KsD8V11NvLq0khCb6edz5OrvhIAlVN3M6CtVbZ62+hbq3CLL5198CqUEoRr7jlKc76yTdiUvpP2yU4pMhh/DBQ==
";
const FOR_SOMETHING_ELSE: &str = "\
untrusted comment: signature
RUTjgr25YhgUjkTKX/NjT7CFsU/YKmV/W5GruAoj5AVNZo7vYoU7jGBKpR+My/1uuSrbww+RY39C/exO+lp7Ttlqd9Rf++msVgk=
trusted comment: timestamp:1555779966\tfile:SHA256SUMS
5P9K7GiGwr3p6vsJqQvc1NGR9Kw0n0asg80B1ogwxu1C0Xfq4nUIe3v3jDI8omIc4+upHUmM5RNMzn983TwyBg==
";
const BY_ANOTHER_KEY: &str = "\
untrusted comment: signature
RUSppXrITmsfOJ2X2Q4/1+M3jNj3N0pLyVak9o6wiEp78QJ+AqkVSy0V6sk9ScDehjx0vkzEWaPNdc5Jsf/sDIUEC8vXiAqzzAA=
trusted comment: ctxinit context image=any expires=2030-01-01T00:00:00Z
oJhAy8i0aisIZhQV5nAL91J7Fcy8Oyfi49Tln+oP7nS9sSmPuVUdZCJSf4OE3mbi41wEj1Rrh36Rt+9KTG6dDA==
";

/// A CD and its judge, good unless a test changes something.
struct Case {
    files: BTreeMap<String, Hash>,
    sums: Option<Vec<u8>>,
    signature: Option<Vec<u8>>,
    need: Demand,
    image: &'static str,
    now: &'static str,
}

impl Case {
    fn good() -> Self {
        let files = Sums::parse(SUMS_TEXT.as_bytes()).unwrap();
        let files = files.write().lines().map(|line| (line[66..].to_owned(), hash(&line[..64]))).collect();
        Self {
            files,
            sums: Some(SUMS_TEXT.into()),
            signature: Some(FOR_IMAGE.into()),
            need: Demand::Require,
            image: UUID,
            now: "2027-01-01T00:00:00Z",
        }
    }

    fn judge(&self) -> Judgement {
        let policy = policy::Signature { need: self.need, keys: vec![Key::parse(KEY).unwrap()] };
        let now = humantime::parse_rfc3339(self.now).unwrap();
        let judgement = judge(&self.files, self.sums.as_deref(), self.signature.as_deref(), &policy, self.image, now);
        assert_eq!(judgement.forbids(&policy), self.need == Demand::Require && judgement.state != State::Good);
        judgement
    }
}

fn hash(hex: &str) -> Hash {
    std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
}

#[test]
fn a_good_one_says_by_whom_and_until_when() {
    let judgement = Case::good().judge();
    let expected = Judgement {
        state: State::Good,
        why: format!("signed by key {ID} for image {UUID} until 2030-01-01T00:00:00Z"),
        signer: Some(ID.to_owned()),
        expires: Some("2030-01-01T00:00:00Z".to_owned()),
    };
    assert_eq!(judgement, expected);
    let any = Case { signature: Some(FOR_ANY.into()), ..Case::good() }.judge();
    assert_eq!(
        (any.state, any.why),
        (State::Good, format!("signed by key {ID} for any image until 2030-01-01T00:00:00Z"))
    );
}

#[test]
fn each_fault_has_its_word_and_its_sentence() {
    let with_file = |path: &str, hash| {
        let mut case = Case::good();
        case.files.insert(path.to_owned(), hash);
        case
    };
    let without_file = |path: &str| {
        let mut case = Case::good();
        case.files.remove(path);
        case
    };
    let signature = |text: &str| Case { signature: Some(text.into()), ..Case::good() };
    let cases = [
        (Case { need: Demand::Off, ..Case::good() }, State::Off, "the image asks for none"),
        (Case { signature: None, ..Case::good() }, State::Unsigned, "there is no SHA256SUMS.minisig on the CD"),
        (Case { sums: None, signature: None, ..Case::good() }, State::Unsigned, "there is no SHA256SUMS.minisig"),
        (Case { sums: None, ..Case::good() }, State::Bad, "there is a SHA256SUMS.minisig on the CD, and no SHA256SUMS"),
        (Case { sums: Some(b"x".into()), ..Case::good() }, State::Bad, "is not one that key 8E141862B9BD82E3 made"),
        (Case { sums: Some(vec![b'x'; SUMS_LIMIT + 1]), ..Case::good() }, State::Bad, "SHA256SUMS is larger than"),
        (signature(""), State::Bad, "does not have the four lines"),
        (signature(&format!("{FOR_IMAGE}x\n")), State::Bad, "does not have the four lines"),
        (signature(FOR_IMAGE.trim_end()), State::Bad, "does not have the four lines"),
        (signature(&FOR_IMAGE.replace('\n', "\r\n")), State::Bad, "holds a control character"),
        (
            signature(BY_ANOTHER_KEY),
            State::Bad,
            "is by key 381F6B4EC87AA5A9, which the image does not know; it knows 8E14",
        ),
        (signature(FOR_SOMETHING_ELSE), State::Bad, "was not made for a context CD"),
        (with_file("prolog.sh", [1; 32]), State::Bad, "prolog.sh is not what SHA256SUMS says"),
        (with_file("epilog.sh", [1; 32]), State::Bad, "epilog.sh is on the CD and not in SHA256SUMS"),
        (with_file("d/SHA256SUMS", [1; 32]), State::Bad, "d/SHA256SUMS is on the CD and not in SHA256SUMS"),
        (with_file("init.sh", NOT_A_FILE), State::Bad, "init.sh is neither a regular file nor a directory"),
        (with_file("prolog.sh", NOT_A_FILE), State::Bad, "prolog.sh is neither a regular file nor a directory"),
        (without_file("d/a"), State::Bad, "d/a is in SHA256SUMS and not on the CD"),
        (Case { now: "2030-01-01T00:00:00Z", ..Case::good() }, State::Expired, "the clock says 2030-01-01T00:00:00Z"),
        (
            Case { now: "2025-12-31T23:59:59Z", ..Case::good() },
            State::Expired,
            "the clock is not set (2025-12-31T23:59:59Z)",
        ),
        (Case { now: "1970-01-01T00:00:07Z", ..Case::good() }, State::Expired, "the clock is not set"),
        (
            Case { image: "other", ..Case::good() },
            State::Foreign,
            "for image 5ea5d6f0-90a4-4a7e-8f5e-1f3a1f1b0c11, and this is image other",
        ),
        (Case { image: "other", now: "2031-01-01T00:00:00Z", ..Case::good() }, State::Foreign, "for image 5ea5"),
    ];
    for (case, state, sentence) in cases {
        let judgement = case.judge();
        assert_eq!(judgement.state, state, "{judgement}");
        assert!(judgement.why.contains(sentence), "{judgement}");
    }
    // One second before its end it holds; its own two files may be among the hashed ones.
    let mut last = Case { now: "2029-12-31T23:59:59Z", ..Case::good() };
    last.files.extend([SUMS, SIGNATURE].map(|own| (own.to_owned(), [7; 32])));
    assert_eq!(last.judge().state, State::Good);
}

/// Issue 104 of minisign: the algorithm's two letters are not signed.
#[test]
fn a_relabelled_signature_is_refused() {
    // `RUTj` is `ED` and a byte of the key's number, `RWTj` is `Ed` and the same byte.
    let relabelled = FOR_IMAGE.replace("\nRUTj", "\nRWTj");
    let judgement = Case { signature: Some(relabelled.into()), ..Case::good() }.judge();
    assert_eq!(judgement.state, State::Bad);
    assert!(judgement.why.contains("old kind (Ed, key 8E141862B9BD82E3)"), "{judgement}");
}

/// Every bit of SHA256SUMS and of its signature. Nobody signs what follows `untrusted comment: `, which is its name.
#[test]
fn no_flipped_bit_is_good() {
    let untrusted = "untrusted comment: ".len().."untrusted comment: signature".len();
    let mut harmless = 0;
    for bit in 0..8 {
        for at in 0..SUMS_TEXT.len() {
            let mut case = Case::good();
            flip(&mut case.sums, at, bit);
            assert_eq!(case.judge().state, State::Bad, "SHA256SUMS, byte {at}, bit {bit}");
        }
        for at in 0..FOR_IMAGE.len() {
            let mut case = Case::good();
            flip(&mut case.signature, at, bit);
            match case.judge().state {
                State::Good if untrusted.contains(&at) => harmless += 1,
                state => assert_eq!(state, State::Bad, "SHA256SUMS.minisig, byte {at}, bit {bit}"),
            }
        }
        for path in ["context.json", "d/a", "prolog.sh"] {
            for at in 0..32 {
                let mut case = Case::good();
                case.files.get_mut(path).unwrap()[at] ^= 1 << bit;
                assert_eq!(case.judge().state, State::Bad, "hash of {path}, byte {at}, bit {bit}");
            }
        }
    }
    assert!((50..=72).contains(&harmless), "{harmless}");
}

fn flip(text: &mut Option<Vec<u8>>, at: usize, bit: u32) {
    text.as_mut().unwrap()[at] ^= 1 << bit;
}
