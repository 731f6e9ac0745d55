//! The head of a spool: that it is one, how large it is, and whose name its records were to have.
//!
//! | bytes | what |
//! |---|---|
//! | 0-9 | `CTXSPOOL1` and a line feed |
//! | 16-23 | bytes of the whole |
//! | 24-27 | CRC-32 of 0-23 |
//! | 4096-8191, 8192-12287 | the state, in two copies that are written by turns |
//! | 32768- | the segments |
//!
//! A copy of the state: uses (8), bytes of the names (2), 0 (2), CRC-32 of those and the names (4), names: up to which
//! number (8), length (1), bytes. All integers are little-endian. The first block is never written again, so no power
//! cut takes a spool's identity; one that tears a copy of the state leaves the other.

use crc32fast::Hasher;

use super::segment::{self, put, take};

/// What a spool begins with.
pub const MAGIC: &[u8] = b"CTXSPOOL1\n";
/// Before the segments, which so lie at multiples of their own size.
pub const HEAD: usize = segment::SIZE;
/// Of the first block, and of a copy of the state: the largest sector that disks have.
pub const BLOCK: usize = 4096;
const NAMES: usize = 16;
/// RFC 5424's longest.
const NO_NAME: &str = "-";

/// The first block of a spool of so many bytes.
pub fn first_block(bytes: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block, 0, MAGIC);
    put(&mut block, 16, &bytes.to_le_bytes());
    let sum = checksum(&[block.get(..24).unwrap_or_default()]);
    put(&mut block, 24, &sum.to_le_bytes());
    block
}

/// Bytes of the whole, by its first block; `None` if that is damaged.
pub fn bytes(block: &[u8]) -> Option<u64> {
    let told = u32::from_le_bytes(take(block, 24)?);
    let bytes = u64::from_le_bytes(take(block, 16)?);
    (block.starts_with(MAGIC) && told == checksum(&[block.get(..24)?])).then_some(bytes)
}

/// What changes with each use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// How often it was written; each is a use, of which segments have their order.
    pub uses: u64,
    /// Whose records they are.
    pub names: Names,
}

impl State {
    /// Where the copy that is to be written lies.
    pub fn place(&self) -> usize {
        BLOCK * (1 + (self.uses % 2) as usize)
    }

    /// The copy, with as many names as it has room for.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Names { before, now } = &self.names;
        let all = before.iter().map(|(to, name)| (*to, name.as_str())).chain([(u64::MAX, now.as_str())]);
        let mut all: Vec<(u64, &str)> = all.collect();
        let room = |all: &[(u64, &str)]| all.iter().map(|(_, name)| 9 + name.len().min(255)).sum::<usize>();
        while room(&all) > BLOCK - NAMES && all.len() > 1 {
            all.remove(0);
            // It stands for those before it, too.
            all.iter_mut().take(1).for_each(|(_, name)| *name = NO_NAME);
        }
        let mut names = Vec::new();
        for (to, name) in all {
            let name = name.as_bytes().get(..name.len().min(255)).unwrap_or_default();
            names.extend(to.to_le_bytes());
            names.push(name.len() as u8);
            names.extend(name);
        }
        let mut head = [0; 12];
        put(&mut head, 0, &self.uses.to_le_bytes());
        put(&mut head, 8, &(names.len() as u16).to_le_bytes());
        let sum = checksum(&[&head, &names]).to_le_bytes();
        let mut copy = [&head[..], &sum, &names].concat();
        copy.resize(BLOCK, 0);
        copy
    }

    /// The newer of the two copies in a spool's head; an empty one if neither is whole.
    pub fn find(head: &[u8]) -> Self {
        let copies = [1, 2].map(|n| head.get(BLOCK * n..BLOCK * (n + 1)).and_then(Self::parse));
        copies.into_iter().flatten().max_by_key(|state| state.uses).unwrap_or_default()
    }

    fn parse(copy: &[u8]) -> Option<Self> {
        let (head, told) = (copy.get(..12)?, u32::from_le_bytes(take(copy, 12)?));
        let length = usize::from(u16::from_le_bytes(take(copy, 8)?));
        let mut rest = copy.get(NAMES..NAMES + length)?;
        if told != checksum(&[head, rest]) {
            return None;
        }
        let mut names = Names::default();
        while let Some((to, tail)) = rest.split_first_chunk() {
            let (length, tail) = tail.split_first()?;
            let (name, tail) = tail.split_at_checked(usize::from(*length))?;
            let name = String::from_utf8(name.to_owned()).ok()?;
            match u64::from_le_bytes(*to) {
                u64::MAX => names.now = name,
                to => names.before.push((to, name)),
            }
            rest = tail;
        }
        Some(Self { uses: u64::from_le_bytes(take(copy, 0)?), names })
    }
}

/// The names of the machines whose records wait: of this one, and of those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The highest number of each, and the name; in their order.
    before: Vec<(u64, String)>,
    /// Of everything behind those.
    now: String,
}

impl Default for Names {
    fn default() -> Self {
        Self { before: Vec::new(), now: NO_NAME.to_owned() }
    }
}

impl Names {
    /// Of a record.
    pub fn of(&self, number: u64) -> &str {
        self.before.iter().find(|(to, _)| number <= *to).map_or(&self.now, |(_, name)| name)
    }

    /// The machine is called so from now on, for records of this life alone.
    pub fn set(&mut self, now: String) {
        self.now = now;
    }

    /// A new life begins: numbers from `first` to `last` are of earlier ones.
    pub fn close(&mut self, first: u64, last: u64) {
        self.before.retain(|(to, _)| *to >= first);
        let name = std::mem::replace(&mut self.now, NO_NAME.to_owned());
        match self.before.last_mut() {
            Some((to, before)) if *before == name => *to = last,
            Some((to, _)) if *to >= last => {}
            _ => self.before.push((last, name)),
        }
    }
}

fn checksum(pieces: &[&[u8]]) -> u32 {
    let mut hasher = Hasher::new();
    pieces.iter().for_each(|piece| hasher.update(piece));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(before: &[(u64, &str)], now: &str) -> Names {
        Names { before: before.iter().map(|(to, name)| (*to, (*name).to_owned())).collect(), now: now.to_owned() }
    }

    #[test]
    fn no_changed_bit_of_the_first_block_is_believed() {
        let block = first_block(64 << 20);
        assert_eq!(bytes(&block), Some(64 << 20));
        for at in (0..28).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            let mut damaged = block;
            damaged[at.0] ^= 1 << at.1;
            assert_eq!(bytes(&damaged), None, "{at:?}");
        }
        assert_eq!(bytes(&block[..27]), None);
    }

    #[test]
    fn a_torn_copy_of_the_state_leaves_the_other() {
        let first = State { uses: 6, names: names(&[(9, "vm1")], "vm2") };
        let second = State { uses: 7, names: names(&[(9, "vm1")], "vm3.site") };
        let mut head = vec![0; HEAD];
        assert_eq!(State::find(&head), State::default());
        for state in [&first, &second] {
            let copy = state.to_bytes();
            head[state.place()..state.place() + BLOCK].copy_from_slice(&copy);
        }
        assert_eq!(State::find(&head), second);
        for at in 0..NAMES + 24 {
            let mut torn = head.clone();
            torn[second.place() + at] ^= 0x55;
            assert_eq!(State::find(&torn), first, "{at}");
        }
        // A copy that says more than a block has is none.
        head.truncate(second.place() + 40);
        assert_eq!(State::find(&head), if second.place() > first.place() { first } else { State::default() });
    }

    #[test]
    fn each_record_has_the_name_of_its_time() {
        let mut all = Names::default();
        all.set("a".to_owned());
        all.close(1, 10);
        all.set("b".to_owned());
        all.close(5, 20);
        all.close(5, 20);
        all.set("c".to_owned());
        assert_eq!([1, 10, 11, 20, 21].map(|number| all.of(number)), ["a", "a", "b", "b", "c"]);
        // Everything of the first was sent meanwhile, and the machine kept its name.
        let mut kept = names(&[(10, "a"), (20, "b")], "b");
        kept.close(11, 30);
        assert_eq!(kept, names(&[(30, "b")], "-"));
        // It said nothing and had no name.
        let mut nameless = Names::default();
        nameless.close(1, 3);
        nameless.set("x".to_owned());
        assert_eq!([nameless.of(3), nameless.of(4)], ["-", "x"]);
    }

    #[test]
    fn too_many_names_are_no_wrong_ones() {
        let long = |n: u64| format!("{n:0>255}");
        let before: Vec<(u64, String)> = (1..40).map(|n| (10 * n, long(n))).collect();
        let state = State { uses: 1, names: Names { before: before.clone(), now: "now".to_owned() } };
        let found = State::parse(&state.to_bytes()).unwrap();
        assert_eq!((found.names.of(391), found.names.of(1)), ("now", "-"));
        for (to, name) in before {
            assert!(found.names.of(to) == name || found.names.of(to) == "-");
        }
        assert_eq!(found.names.of(390), long(39));
    }
}
