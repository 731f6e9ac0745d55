//! Records with every character that ever broke a log, and what is to become of them.

const COUNT: usize = 20_000;
/// More than any record has.
const TOO_LONG: usize = 20_000;

/// What of a text arrives.
#[derive(Debug)]
pub enum Text {
    Whole(String),
    /// So many of that character, as many as fit, and a mark that says how many there were.
    Cut(char),
}

/// One message of a sender.
#[derive(Debug)]
pub struct Odd {
    pub raw: Vec<u8>,
    pub pri: u8,
    /// APP-NAME.
    pub app: String,
    pub text: Text,
}

impl Text {
    /// Whether a server that keeps so much of a text has written this.
    pub fn is(&self, got: &str, keep: impl Fn(&str) -> &str) -> bool {
        match self {
            Self::Whole(text) => got == keep(text),
            Self::Cut(filler) => {
                got.strip_suffix(" bytes]").and_then(|rest| rest.rsplit_once(" [cut, ")).is_some_and(|(kept, whole)| {
                    // The mark may count the sender's own header too.
                    whole.parse().is_ok_and(|whole| (TOO_LONG..TOO_LONG + 32).contains(&whole))
                        && (7000..8192).contains(&kept.len())
                        && kept.chars().all(|c| c == *filler)
                })
            }
        }
    }
}

/// A sender's bytes, and the text that a site reads.
const ODD: &[(&[u8], &str)] = &[
    (b"plain", "plain"),
    (b"tab\tand \x1b[31mred\x1b[0m bell\x07 del\x7f", "tab#011and #033[31mred#033[0m bell#007 del#177"),
    (b"two\nlines\r\nthree", "two#012lines#015#012three"),
    (
        "žluťoučký 馬 😀 e\u{301} \u{1f469}\u{200d}\u{1f680}".as_bytes(),
        "žluťoučký 馬 😀 e\u{301} \u{1f469}\u{200d}\u{1f680}",
    ),
    (
        b"latin \xe9, \xff\xfe, overlong \xc0\x80, half a pair \xed\xa0\x80",
        "latin #351, #377#376, overlong #300#200, half a pair #355#240#200",
    ),
    (b"cut \xf0\x9f\x98", "cut #360#237#230"),
    (
        b"\"quoted\" 'single' [x y=\"z\"] \\] \\\\ | ; # $ ` <0>",
        "\"quoted\" 'single' [x y=\"z\"] \\] \\\\ | ; # $ ` <0>",
    ),
    (b"[x y=\"z\"] first", "[x y=\"z\"] first"),
    (b"] \"", "] \""),
    (br#"{"path": "C:\\new\\table", "n": [1]}"#, r#"{"path": "C:\\new\\table", "n": [1]}"#),
    (b"", ""),
    (b"   three blanks first", "   three blanks first"),
    (b"blanks last   ", "blanks last   "),
    (b"-", "-"),
    (b"100% %s %n %msg% ${MSG} $(PID) %5d", "100% %s %n %msg% ${MSG} $(PID) %5d"),
    (
        b"<0>1 2026-11-02T10:00:00Z host kernel 1 ID [ctxinit@32473 uid=\"0\"][meta sequenceId=\"1\"] forged",
        "<0>1 2026-11-02T10:00:00Z host kernel 1 ID [ctxinit@32473 uid=\"0\"][meta sequenceId=\"1\"] forged",
    ),
    (b"x\n<0>1 - - kernel - - - forged", "x#012<0>1 - - kernel - - - forged"),
    (b"31 <0>1 - - kernel - - - forged", "31 <0>1 - - kernel - - - forged"),
    (b"Nov  2 10:00:00 host kernel: forged", "Nov  2 10:00:00 host kernel: forged"),
    (b"nul\0inside", "nul#000inside"),
    (b"an end in C\0", "an end in C"),
    (b"an end in lines\n\n", "an end in lines"),
    ("\u{feff}a mark of byte order".as_bytes(), "\u{feff}a mark of byte order"),
    ("csi \u{9b}31m nel \u{85}".as_bytes(), "csi #302#23331m nel #302#205"),
    (
        "\u{202e}backwards\u{202c} \u{2066}isle\u{2069}".as_bytes(),
        "#342#200#256backwards#342#200#254 #342#201#246isle#342#201#251",
    ),
    ("line\u{2028}and\u{2029}paragraph".as_bytes(), "line#342#200#250and#342#200#251paragraph"),
    ("שלום \u{200f}עולם".as_bytes(), "שלום \u{200f}עולם"),
    (b"#012 was there before", "#012 was there before"),
];

/// All of them, each kind as often as another but for the long ones.
pub fn records() -> Vec<Odd> {
    (0..COUNT).map(record).collect()
}

fn record(number: usize) -> Odd {
    // Every facility and severity.
    let pri = (number % 192) as u8;
    let app = format!("app{}", number % 997);
    let (raw, text) = match number % 500 {
        101 => (vec![b'x'; TOO_LONG], Text::Cut('x')),
        201 => ("é".repeat(TOO_LONG / 2).into_bytes(), Text::Cut('é')),
        301 => (vec![b'y'; 7000], Text::Whole("y".repeat(7000))),
        401 => (vec![b'\n'; 900].into_iter().chain([b'.']).collect(), Text::Whole("#012".repeat(900) + ".")),
        _ => {
            let (raw, text) = ODD[number % ODD.len()];
            // One in four carries its number, the others are what they are.
            let mark = if number.is_multiple_of(4) { format!(" {number}") } else { String::new() };
            let ends = raw.iter().rposition(|b| !b"\0\n".contains(b)).map_or(0, |last| last + 1);
            let (raw, end) = raw.split_at(ends);
            ([raw, mark.as_bytes(), end].concat(), Text::Whole(format!("{text}{mark}")))
        }
    };
    // A word before a colon is a tag, and there must be one for what looks like one not to be it.
    Odd { raw: [format!("<{pri}>{app}[1]: ").as_bytes(), &raw].concat(), pri, app, text }
}
