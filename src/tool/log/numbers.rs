//! Which numbers of a machine's records came: once, twice, late, or not at all.

use std::collections::BTreeMap;

use serde::Serialize;

use super::record::LAST_ID as WRAP;

/// Records of which is known what they said, so that one that comes again can be compared: more than a machine keeps for
/// a resend in memory. 1 MiB for each machine that says as much.
const KNOWN: usize = 64 * 1024;

/// All of one life of a machine.
#[derive(Debug, Default)]
pub struct Numbers {
    /// First and last number of what came without a hole.
    seen: BTreeMap<u64, u64>,
    /// Number and fingerprint, at the place of the number modulo the length.
    known: Vec<(u64, u64)>,
    highest: u64,
    /// Of this file: another server's is in no order with it.
    highest_here: u64,
    before: u64,
    /// What the machine said it dropped: first, last, count.
    announced: Vec<(u64, u64, u64)>,
    /// Different numbers.
    pub count: u64,
    /// Records whose number was there before.
    pub again: u64,
    /// Times that the numbers went back: a resend after a reconnect.
    pub resends: u64,
    /// Of `again`, those that came too long after the first to be compared.
    pub unknown: u64,
    /// Numbers that two records have which do not say the same: the first few.
    pub conflicts: Vec<u64>,
    /// How many of these.
    pub conflicting: u64,
    /// New numbers behind higher ones.
    pub late: u64,
}

/// Numbers that did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The lowest.
    pub first: u64,
    /// The highest.
    pub last: u64,
    /// How many of them the machine itself says it dropped.
    pub announced: u64,
}

impl Gap {
    /// How many.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// Of the conflicts as many are named.
const NAMED: usize = 10;

impl Numbers {
    /// Another file begins.
    pub fn begin_file(&mut self) {
        self.highest_here = 0;
        self.before = 0;
    }

    /// Takes a record's sequenceId; the number that it stands for, if it is new.
    pub fn take(&mut self, id: u64, fingerprint: u64) -> Option<u64> {
        let number = self.unwrapped(id);
        let back = number <= self.before;
        self.before = number;
        if self.insert(number) {
            self.late += u64::from(number < self.highest_here);
            self.highest_here = self.highest_here.max(number);
            self.highest = self.highest.max(number);
            self.count += 1;
            self.remember(number, fingerprint);
            return Some(number);
        }
        self.highest_here = self.highest_here.max(number);
        self.again += 1;
        self.resends += u64::from(back);
        match self.known.get(place(number, self.known.len())) {
            Some((known, same)) if *known == number && *same == fingerprint => {}
            Some((known, _)) if *known == number => {
                self.conflicting += 1;
                if self.conflicts.len() < NAMED && !self.conflicts.contains(&number) {
                    self.conflicts.push(number);
                }
            }
            _ => self.unknown += 1,
        }
        None
    }

    /// The machine says that it dropped so many, between these two.
    pub fn announce(&mut self, first: u64, last: u64, count: u64) {
        if first <= last {
            self.announced.push((first, last, count));
        }
    }

    /// Of an id the number that is nearest to what came last.
    fn unwrapped(&self, id: u64) -> u64 {
        let round = self.highest.saturating_sub(1) / WRAP;
        let nearest = |round: u64| id + round * WRAP;
        [round.saturating_sub(1), round, round + 1]
            .map(nearest)
            .into_iter()
            .min_by_key(|number| number.abs_diff(self.highest))
            .unwrap_or(id)
    }

    /// Whether it is new.
    fn insert(&mut self, number: u64) -> bool {
        let below = self.seen.range(..=number).next_back().map(|(first, last)| (*first, *last));
        if below.is_some_and(|(_, last)| number <= last) {
            return false;
        }
        let first = below.filter(|(_, last)| last + 1 == number).map_or(number, |(first, _)| first);
        let last = self.seen.remove(&(number + 1)).unwrap_or(number);
        self.seen.insert(first, last);
        true
    }

    fn remember(&mut self, number: u64, fingerprint: u64) {
        // Most machines say far less.
        if self.known.len() < KNOWN && self.count as usize * 2 > self.known.len() {
            let known = std::mem::take(&mut self.known);
            self.known = vec![(0, 0); (known.len() * 2).max(16)];
            known.into_iter().filter(|(number, _)| *number > 0).for_each(|known| self.put(known));
        }
        self.put((number, fingerprint));
    }

    fn put(&mut self, known: (u64, u64)) {
        let at = place(known.0, self.known.len());
        if let Some(place) = self.known.get_mut(at) {
            *place = known;
        }
    }

    /// The highest that came.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// What is missing below that, and how much of it was announced.
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut next = 1;
        for (first, last) in &self.seen {
            if *first > next {
                gaps.push(Gap { first: next, last: first - 1, announced: 0 });
            }
            next = last + 1;
        }
        for (first, last, mut count) in merged(self.announced.clone()) {
            // Not all between the two need be gone, so their count is what explains. A flood leaves tens of thousands of
            // gaps and of announcements: each is not held against all the others.
            let from = gaps.partition_point(|gap| gap.last < first);
            for gap in gaps.iter_mut().skip(from).take_while(|gap| gap.first <= last) {
                let within = gap.last.min(last) - gap.first.max(first) + 1;
                let explained = within.min(count).min(gap.count() - gap.announced);
                gap.announced += explained;
                count -= explained;
            }
        }
        gaps
    }
}

fn place(number: u64, length: usize) -> usize {
    // The length is a power of two, or 0 before the first record.
    number as usize & length.wrapping_sub(1)
}

/// Announcements that overlap, as one.
fn merged(mut all: Vec<(u64, u64, u64)>) -> Vec<(u64, u64, u64)> {
    all.sort_unstable();
    let mut out: Vec<(u64, u64, u64)> = Vec::new();
    for (first, last, count) in all {
        match out.last_mut() {
            Some(before) if first <= before.1 => {
                before.1 = before.1.max(last);
                before.2 = before.2.saturating_add(count);
            }
            _ => out.push((first, last, count)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(ids: impl IntoIterator<Item = u64>) -> Numbers {
        let mut numbers = Numbers::default();
        for id in ids {
            numbers.take(id, id * 7);
        }
        numbers
    }

    fn holes(numbers: &Numbers) -> Vec<(u64, u64, u64)> {
        numbers.gaps().iter().map(|gap| (gap.first, gap.last, gap.announced)).collect()
    }

    #[test]
    fn holes_are_found_wherever_they_are() {
        for (ids, want) in [
            (vec![1, 2, 3], vec![]),
            (vec![2, 3], vec![(1, 1, 0)]),
            (vec![1, 5, 3], vec![(2, 2, 0), (4, 4, 0)]),
            (vec![1, 5, 3, 4, 2], vec![]),
            (vec![], vec![]),
        ] {
            assert_eq!(holes(&taken(ids.iter().copied())), want, "{ids:?}");
        }
    }

    #[test]
    fn a_resend_is_no_loss_and_no_disorder() {
        let numbers = taken((1..=10).chain(6..=15).chain(14..=20));
        assert_eq!((numbers.count, numbers.again, numbers.resends, numbers.late), (20, 7, 2, 0));
        assert_eq!((numbers.conflicting, numbers.unknown), (0, 0));
        assert_eq!(taken([1, 3, 2, 4]).late, 1);
    }

    /// Another server's file is in no order with the first one's.
    #[test]
    fn each_file_has_an_order_of_its_own() {
        let mut numbers = taken([1, 2, 5, 6]);
        numbers.begin_file();
        numbers.take(3, 21);
        numbers.take(4, 28);
        assert_eq!((numbers.late, numbers.resends, holes(&numbers)), (0, 0, vec![]));
    }

    #[test]
    fn a_number_has_one_record() {
        let mut numbers = taken(1..=20);
        assert_eq!(numbers.take(7, 7 * 7), None);
        assert_eq!((numbers.conflicting, numbers.again), (0, 1));
        for _ in 0..2 {
            numbers.take(8, 1);
        }
        assert_eq!((numbers.conflicting, numbers.conflicts.as_slice(), numbers.again), (2, &[8][..], 3));
    }

    #[test]
    fn what_is_too_old_to_be_compared_is_said() {
        let mut numbers = taken(1..=3 * KNOWN as u64);
        assert_eq!(numbers.known.len(), KNOWN);
        numbers.take(3 * KNOWN as u64 - 9, 0);
        assert_eq!((numbers.conflicting, numbers.unknown), (1, 0));
        numbers.take(9, 0);
        assert_eq!((numbers.conflicting, numbers.unknown), (1, 1));
    }

    #[test]
    fn an_announcement_explains_no_more_than_it_counts() {
        let gone = |gaps: &[(u64, u64, u64)]| {
            let mut numbers = taken((1..=100).filter(|id| ![10, 11, 12, 50].contains(id)));
            gaps.iter().for_each(|(first, last, count)| numbers.announce(*first, *last, *count));
            holes(&numbers)
        };
        assert_eq!(gone(&[]), [(10, 12, 0), (50, 50, 0)]);
        assert_eq!(gone(&[(10, 50, 4)]), [(10, 12, 3), (50, 50, 1)]);
        assert_eq!(gone(&[(10, 50, 3)]), [(10, 12, 3), (50, 50, 0)]);
        assert_eq!(gone(&[(11, 12, 9)]), [(10, 12, 2), (50, 50, 0)]);
        assert_eq!(gone(&[(10, 11, 2), (11, 12, 1), (50, 50, 1)]), [(10, 12, 3), (50, 50, 1)]);
        assert_eq!(gone(&[(60, 40, 9), (0, u64::MAX, u64::MAX)]), [(10, 12, 3), (50, 50, 1)]);
    }

    #[test]
    fn many_announcements_of_many_gaps_take_no_time() {
        const GAPS: u64 = 50_000;
        let mut numbers = taken((1..=GAPS).map(|id| 2 * id));
        (0..GAPS).for_each(|id| numbers.announce(2 * id + 1, 2 * id + 1, 1));
        let start = std::time::Instant::now();
        assert_eq!(numbers.gaps().iter().filter(|gap| gap.announced == 1).count() as u64, GAPS);
        // Each against all the others takes far longer.
        assert!(start.elapsed() < std::time::Duration::from_secs(5));
    }

    #[test]
    fn numbers_go_on_behind_the_last_id() {
        let seen = [(1, WRAP - 1)].into();
        let mut numbers = Numbers { highest: WRAP - 1, seen, ..Numbers::default() };
        for (id, number) in [(WRAP, WRAP), (1, WRAP + 1), (2, WRAP + 2)] {
            assert_eq!(numbers.take(id, 0), Some(number));
        }
        assert_eq!(numbers.take(WRAP - 5, 0), None, "a resend across the wrap");
        assert_eq!(holes(&numbers), []);
    }
}
