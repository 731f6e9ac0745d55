use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;

use super::*;
use crate::sys::shared::memory;

/// Eight segments.
const LENGTH: NonZeroUsize = NonZeroUsize::new(8 * segment::SIZE).unwrap();
/// Fills a segment by twenties.
const BODY: usize = (segment::SIZE - segment::FIRST) / 20 - 16;

fn fresh() -> OwnedFd {
    memory(c"store", LENGTH).unwrap()
}

fn open(fd: &OwnedFd) -> Store {
    Store::open(Shared::map(fd, LENGTH).unwrap())
}

fn push(store: &mut Store, numbers: impl IntoIterator<Item = u64>, severity: u8) {
    for number in numbers {
        let bytes = vec![severity; BODY];
        store.push(number, &Entry { severity, audit: false, host_at: 3, bytes: &bytes });
    }
}

fn audit(store: &mut Store, number: u64) {
    store.push(number, &Entry { severity: 7, audit: true, host_at: 3, bytes: &[b'a'; BODY] });
}

fn sent(store: &mut Store) -> Vec<u64> {
    std::iter::from_fn(|| store.send().map(|record| record.number)).collect()
}

fn all(range: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    range.collect()
}

#[test]
fn severities_do_not_change_the_order() {
    let mut store = open(&fresh());
    for (number, severity) in [(1, 6), (2, 3), (3, 7), (4, 6), (5, 0)] {
        push(&mut store, [number], severity);
    }
    assert_eq!((sent(&mut store), store.waiting(), store.is_sent()), (all(1..=5), 5, true));
}

#[test]
fn nor_does_what_comes_while_one_line_is_sent() {
    let mut store = open(&fresh());
    push(&mut store, 1..=2, 6);
    assert_eq!(store.send().map(|record| record.number), Some(1));
    push(&mut store, [3], 3);
    push(&mut store, 4..=5, 6);
    assert_eq!(sent(&mut store), all(2..=5));
    push(&mut store, 6..=7, 3);
    store.rewind();
    assert_eq!(sent(&mut store), all(1..=7));
}

#[test]
fn what_is_not_acknowledged_is_sent_again() {
    let mut store = open(&fresh());
    push(&mut store, 1..=30, 6);
    push(&mut store, 31..=50, 3);
    assert_eq!(sent(&mut store), all(1..=50));
    store.acknowledge(25);
    push(&mut store, [51], 6);
    store.rewind();
    assert_eq!((sent(&mut store), store.waiting()), (all(26..=51), 26));
    store.acknowledge(26);
    store.rewind();
    assert_eq!((sent(&mut store), store.waiting(), store.free.len()), (vec![], 0, 8));
}

#[test]
fn the_least_severe_go_first_and_the_oldest_of_them() {
    let mut store = open(&fresh());
    push(&mut store, 1..=40, 7);
    push(&mut store, 41..=60, 3);
    push(&mut store, 61..=220, 6);
    // Two segments of debug and the first of the others are gone.
    assert_eq!(store.take_drops().own, Some(Drops { count: 60, first: 1, last: 80 }));
    assert_eq!(store.take_drops(), Dropped::default());
    assert_eq!((store.waiting(), sent(&mut store)), (160, [all(41..=60), all(81..=220)].concat()));
}

#[test]
fn no_noise_pushes_an_audit_record_out() {
    let mut store = open(&fresh());
    audit(&mut store, 1);
    push(&mut store, 2..=1000, 0);
    audit(&mut store, 1001);
    let first = sent(&mut store);
    assert_eq!((first.first(), first.last(), first.len()), (Some(&1), Some(&1001), 2 + 7 * 20 - 1));
    // And where they have taken everything, the newest of the others is what is dropped.
    let mut store = open(&fresh());
    (1..=160).for_each(|number| audit(&mut store, number));
    push(&mut store, [161], 0);
    assert_eq!(store.take_drops().own, Some(Drops { count: 1, first: 161, last: 161 }));
    audit(&mut store, 162);
    assert_eq!(store.take_drops().own, Some(Drops { count: 20, first: 1, last: 20 }));
}

#[test]
fn what_is_under_way_is_not_dropped() {
    let mut store = open(&fresh());
    push(&mut store, 1..=5, 7);
    assert_eq!(sent(&mut store), all(1..=5));
    push(&mut store, 6..=305, 6);
    let drops = store.take_drops().own.unwrap();
    assert_eq!((drops.first, drops.count), (6, 300 - 7 * 20));
    store.rewind();
    assert_eq!(sent(&mut store)[..5], [1, 2, 3, 4, 5]);
}

#[test]
fn the_next_one_goes_on_where_the_last_was_killed() {
    let fd = fresh();
    let mut store = open(&fd);
    push(&mut store, 1..=70, 6);
    audit(&mut store, 71);
    sent(&mut store);
    store.acknowledge(33);
    drop(store);
    let mut store = open(&fd);
    assert_eq!((store.last(), store.waiting(), store.is_sent()), (71, 38, false));
    push(&mut store, 72..=80, 6);
    assert_eq!(sent(&mut store), all(34..=80));
    store.acknowledge(47);
    assert_eq!(open(&fd).waiting(), 0);
}

/// A page that the power cut kept back, at any place: what is read was written, each at most once, in order.
#[test]
fn torn_records_are_none() {
    let fd = fresh();
    let mut store = open(&fd);
    push(&mut store, 1..=45, 6);
    audit(&mut store, 46);
    drop(store);
    let whole = Shared::map(&fd, LENGTH).unwrap().bytes().to_vec();
    for place in (0..4 * segment::SIZE).step_by(517) {
        let mut map = Shared::map(&fd, LENGTH).unwrap();
        map.bytes_mut().copy_from_slice(&whole);
        let end = (place + 512).min(whole.len());
        map.bytes_mut()[place..end].iter_mut().for_each(|byte| *byte ^= 0x55);
        let mut store = Store::open(map);
        while let Some(record) = store.send() {
            let expected = if record.number == 46 { b'a' } else { 6 };
            assert!((1..=46).contains(&record.number) && record.host_at == 3, "{place}");
            assert_eq!(record.bytes, [expected; BODY], "{place}");
        }
        let written =
            |at: usize| at % segment::SIZE < segment::FIRST + [20, 20, 5, 1][at / segment::SIZE] * (BODY + 16);
        assert_eq!(store.waiting() < 46, (place..end.min(4 * segment::SIZE)).any(written), "{place}");
    }
}

#[test]
fn an_earlier_use_leaves_no_record() {
    let fd = fresh();
    let mut store = open(&fd);
    push(&mut store, 1..=20, 6);
    sent(&mut store);
    store.acknowledge(20);
    push(&mut store, [21], 6);
    drop(store);
    let mut store = open(&fd);
    assert_eq!((sent(&mut store), store.last()), (vec![21], 21));
}

/// The next use finds no segment of this one, whose records yet lie there.
#[test]
fn an_earlier_use_leaves_no_record_for_the_one_after_the_next() {
    let fd = fresh();
    for used in 1..=3 {
        let mut store = open(&fd);
        assert_eq!((sent(&mut store), store.waiting()), (vec![], 0));
        store.begin_use(used, 0);
        push(&mut store, 100 * used..=100 * used + 5, 6);
        drop(store);
        let mut store = open(&fd);
        assert_eq!(sent(&mut store), all(100 * used..=100 * used + 5));
        store.acknowledge(6);
        drop(store);
        let mut store = open(&fd);
        store.begin_use(used + 10, 0);
        push(&mut store, [7], 6);
        drop(store);
        let mut store = open(&fd);
        assert_eq!(sent(&mut store), [7]);
        store.acknowledge(1);
    }
}

#[test]
fn what_is_changed_is_known() {
    let fd = fresh();
    let mut store = open(&fd);
    assert_eq!((store.changes(), store.take_changes()), (Changes::None, vec![]));
    push(&mut store, 1..=25, 6);
    audit(&mut store, 26);
    push(&mut store, [27], 3);
    assert_eq!(
        (store.changes(), store.take_changes(), store.changes()),
        (Changes::Audit, vec![0, 1, 2, 3], Changes::None)
    );
    sent(&mut store);
    assert_eq!(store.changes(), Changes::None);
    store.acknowledge(21);
    assert_eq!((store.changes(), store.first(), store.take_changes()), (Changes::Some, Some(22), vec![0, 1]));
    store.put_back([5, 900]);
    assert_eq!((store.changes(), store.take_changes()), (Changes::Some, vec![5]));
}

/// Whatever the order of events: each record is sent in order, and is in the end acknowledged or dropped, once.
#[test]
fn no_record_is_forgotten() {
    let mut seed = 7_u64;
    let mut below = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % limit
    };
    for round in 0..60 {
        let fd = fresh();
        let mut store = open(&fd);
        let (mut pushed, mut dropped, mut under_way) = (0, 0, VecDeque::new());
        let mut settled = BTreeSet::new();
        for _ in 0..3000 {
            match below(20) {
                0..=11 => {
                    pushed += 1;
                    let bytes = vec![b'x'; 1 + below(8000) as usize];
                    let (severity, audit) = (below(8) as u8, below(10) == 0);
                    store.push(pushed, &Entry { severity, audit, host_at: 0, bytes: &bytes });
                }
                12..=14 => under_way.extend(store.send().map(|record| record.number)),
                15..=17 => {
                    let count = below(under_way.len() as u64 + 1) as usize;
                    store.acknowledge(count);
                    for number in under_way.drain(..count) {
                        assert!(settled.insert(number), "{number} twice");
                    }
                }
                18 => {
                    store.rewind();
                    under_way.clear();
                }
                _ => {
                    dropped += store.take_drops().count();
                    drop(store);
                    store = open(&fd);
                    under_way.clear();
                }
            }
            assert!(under_way.iter().is_sorted());
            assert_eq!(store.is_sent(), store.waiting() == under_way.len() as u64);
        }
        dropped += store.take_drops().count();
        assert_eq!(settled.len() as u64 + dropped + store.waiting(), pushed, "{round}");
        under_way.extend(sent(&mut store));
        assert_eq!(store.waiting(), under_way.len() as u64);
        store.acknowledge(under_way.len());
        assert_eq!((store.waiting(), store.free.len()), (0, 8));
    }
}
