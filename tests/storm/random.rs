//! Random draws that repeat: each draw is made from the storm's seed and the name of what is drawn.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014): good enough for dice, and four lines long.
pub struct Random(u64);

impl Random {
    /// The same `name` under the same `seed` draws the same, whatever other threads do.
    pub fn new(seed: u64, name: &[u64]) -> Self {
        let mut random = Self(seed);
        for part in name {
            random.0 ^= part.wrapping_mul(0xff51_afd7_ed55_8ccd);
            random.0 = random.next();
        }
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}
