//! How long outputs were held: a fixed histogram, eight buckets an octave, so that it costs the same for ever.

use core::hash::{Hash, Hasher};

const SUB_BITS: u32 = 3;
const BUCKETS: usize = 64 << SUB_BITS;

/// Counts durations in nanoseconds.
#[derive(Clone, Debug)]
pub struct HoldStats {
    buckets: [u32; BUCKETS],
    count: u64,
    max_ns: u64,
}

/// Percentiles of [`HoldStats`], nanoseconds; each at most 12.5 % too high.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HoldSummary {
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Maximum, exact.
    pub max_ns: u64,
}

impl Hash for HoldStats {
    /// An account of the past, which steers nothing: sides that differ in it alone count as one when states are told
    /// apart by their hash.
    fn hash<H: Hasher>(&self, _hasher: &mut H) {}
}

impl Default for HoldStats {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0, max_ns: 0 }
    }
}

fn bucket_of(ns: u64) -> usize {
    if ns < (1 << SUB_BITS) {
        return ns as usize;
    }
    let exponent = ns.ilog2();
    let sub = (ns >> (exponent - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    (((exponent - SUB_BITS + 1) << SUB_BITS) + sub as u32) as usize
}

fn top_of(bucket: usize) -> u64 {
    let (octave, sub) = ((bucket >> SUB_BITS) as u32, (bucket & ((1 << SUB_BITS) - 1)) as u64);
    if octave == 0 {
        return sub;
    }
    ((1 << SUB_BITS) + sub + 1).checked_shl(octave - 1).map_or(u64::MAX, |top| top.wrapping_sub(1))
}

impl HoldStats {
    /// Counts one.
    pub fn count(&mut self, ns: u64) {
        let bucket = &mut self.buckets[bucket_of(ns).min(BUCKETS - 1)];
        *bucket = bucket.saturating_add(1);
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many were counted.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether none was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The percentiles so far.
    #[must_use]
    pub fn summary(&self) -> HoldSummary {
        let at = |permille: u64| {
            let wanted = (self.count * permille).div_ceil(1000);
            let mut seen = 0;
            for (bucket, count) in self.buckets.iter().enumerate() {
                seen += u64::from(*count);
                if seen >= wanted {
                    return top_of(bucket).min(self.max_ns);
                }
            }
            self.max_ns
        };
        HoldSummary { p50_ns: at(500), p99_ns: at(990), max_ns: self.max_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_below_the_top_of_its_bucket_and_near_it() {
        for ns in (0..2000).chain([12_345_678, u64::from(u32::MAX), 1 << 40]) {
            let top = top_of(bucket_of(ns));
            assert!(top >= ns && top <= ns + ns / 8 + 1, "{ns} in a bucket up to {top}");
        }
    }

    #[test]
    fn percentiles_come_in_order() {
        let mut stats = HoldStats::default();
        for ns in 1..=1000 {
            stats.count(ns * 1000);
        }
        let summary = stats.summary();
        assert!((500_000..=570_000).contains(&summary.p50_ns), "{summary:?}");
        assert!((990_000..=1_000_000).contains(&summary.p99_ns), "{summary:?}");
        assert_eq!(summary.max_ns, 1_000_000);
    }
}
