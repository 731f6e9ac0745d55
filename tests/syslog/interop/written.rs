//! What a server has written, by an independent reader of RFC 5424.

use std::path::Path;

/// One line.
#[derive(Debug)]
pub struct Written {
    pub pri: u8,
    pub host: String,
    pub app: String,
    pub procid: String,
    pub msgid: String,
    data: Vec<(String, Vec<(String, String)>)>,
    pub text: String,
}

impl Written {
    /// A parameter of an element; there is one, and one alone.
    pub fn param(&self, element: &str, name: &str) -> &str {
        let params = self.data.iter().filter(|(id, _)| id == element).flat_map(|(_, params)| params);
        let values: Vec<_> = params.filter(|(is, _)| is == name).map(|(_, value)| value).collect();
        let [value] = values.as_slice() else { panic!("{element} {name} in {self:?}") };
        value
    }
}

/// All lines of a file.
pub fn read(path: &Path) -> Vec<Written> {
    let text = String::from_utf8(std::fs::read(path).unwrap()).unwrap();
    text.strip_suffix('\n').unwrap().split('\n').map(parse).collect()
}

fn parse(line: &str) -> Written {
    assert!(!line.contains(char::is_control), "{line:?}");
    let mut words = line.splitn(7, ' ');
    let mut next = || words.next().unwrap_or_else(|| panic!("{line:?}")).to_owned();
    let pri = next().strip_prefix('<').unwrap().strip_suffix(">1").unwrap().parse().unwrap();
    let stamp = next().replace("+00:00", "Z");
    let age = humantime::parse_rfc3339(&stamp).unwrap().elapsed().unwrap();
    assert!(age.as_secs() < 600, "{line:?}");
    let (host, app, procid, msgid, rest) = (next(), next(), next(), next(), next());
    let (data, text) = elements(&rest).unwrap_or_else(|| panic!("{line:?}"));
    Written { pri, host, app, procid, msgid, data, text: text.to_owned() }
}

type Elements = Vec<(String, Vec<(String, String)>)>;

/// `[id name="value" ...]...` and the text behind.
fn elements(mut rest: &str) -> Option<(Elements, &str)> {
    let mut elements = Vec::new();
    while let Some(element) = rest.strip_prefix('[') {
        let end = element.find([' ', ']'])?;
        let (id, mut params) = element.split_at(end);
        let mut list = Vec::new();
        while let Some(param) = params.strip_prefix(' ') {
            let (name, after) = param.split_once("=\"")?;
            let (value, after) = value(after)?;
            list.push((name.to_owned(), value));
            params = after;
        }
        elements.push((id.to_owned(), list));
        rest = params.strip_prefix(']')?;
    }
    Some((elements, rest.strip_prefix(' ')?))
}

/// A value as far as its closing quote, and what is behind that.
fn value(text: &str) -> Option<(String, &str)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return Some((value, &text[at + 1..])),
            ']' if !escaped => return None,
            c => {
                value.push(c);
                escaped = false;
            }
        }
    }
    None
}
