//! The calls of a token pool as they come over the wire; pure.

use std::io::BufRead;

/// One life of one machine. Its base URL names it, so the server knows whose call it is even where ToPoS would not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Life {
    pub machine: u32,
    pub number: u32,
}

#[derive(Debug)]
pub enum Call {
    Next { secs: u64, description: String },
    Locks,
    Read(u64),
    Delete(u64),
    Renew { uuid: String, secs: u64 },
    Release(String),
    Store { name: String, body: Vec<u8> },
    Results,
    Fail(Vec<u64>),
    Failed(u64),
}

impl Call {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Next { .. } => "next",
            Self::Locks => "locks",
            Self::Read(_) => "token",
            Self::Delete(_) => "delete",
            Self::Renew { .. } => "renew",
            Self::Release(_) => "release",
            Self::Store { .. } => "store",
            Self::Results => "results",
            Self::Fail(_) => "fail",
            Self::Failed(_) => "failed",
        }
    }
}

/// A whole request, or `None` where the client went away before it was whole.
pub fn read(stream: &mut impl BufRead) -> Option<Result<(Life, Call), String>> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut disposition) = (0, String::new());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "content-disposition" => value.clone_into(&mut disposition),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(parse(&method, &target, &disposition, body).ok_or_else(|| format!("nonsense: {method} {target}")))
}

fn parse(method: &str, target: &str, disposition: &str, body: Vec<u8>) -> Option<(Life, Call)> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (life, path) = path.strip_prefix('/')?.split_once('/')?;
    let (machine, number) = life.split_once('-')?;
    let life = Life { machine: machine.parse().ok()?, number: number.parse().ok()? };
    let (pool, rest) = path.strip_prefix("4.1/pools/")?.split_once('/')?;
    let of = |text: &str, key: &str| {
        let pair = text.split('&').find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key));
        pair.map(|(_, value)| decode(value))
    };
    let secs = || of(query, "timeout")?.parse().ok();
    let call = match (method, pool, rest) {
        ("GET", "mc", "nextToken") => Call::Next { secs: secs()?, description: of(query, "description")? },
        ("GET", "mc", "locks/") => Call::Locks,
        ("PUT", "mc.out", "nextToken") => Call::Store { name: disposition.split('"').nth(1)?.to_owned(), body },
        ("GET", "mc.out", "tokens/") => Call::Results,
        ("POST", "mc.failed", "tokens/") => {
            let form = String::from_utf8(body).ok()?;
            let ids = of(&form, "tokens").filter(|_| of(&form, "pool").as_deref() == Some("mc"))?;
            Call::Fail(ids.split([',', ' ']).map(str::parse).collect::<Result<_, _>>().ok()?)
        }
        ("GET", "mc.failed", _) => Call::Failed(rest.strip_prefix("tokens/")?.parse().ok()?),
        (_, "mc", _) => {
            let (place, name) = rest.split_once('/')?;
            match (method, place) {
                ("GET", "tokens") => Call::Read(name.parse().ok()?),
                ("DELETE", "tokens") => Call::Delete(name.parse().ok()?),
                ("GET", "locks") => Call::Renew { uuid: name.to_owned(), secs: secs()? },
                ("DELETE", "locks") => Call::Release(name.to_owned()),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some((life, call))
}

fn decode(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        out.push(char::from(after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(b'?')));
        rest = after.get(2..).unwrap_or_default();
    }
    out + rest
}
