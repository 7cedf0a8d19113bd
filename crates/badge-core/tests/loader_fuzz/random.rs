//! A small generator whose stream follows from its seed alone (SplitMix64, Steele et al. 2014).

/// Numbers for one case.
pub(crate) struct Random(u64);

impl Random {
    /// The stream `stream` of case `number`.
    pub(crate) fn new(number: u64, stream: u64) -> Self {
        let mut random = Self(number ^ stream.rotate_right(8));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// One of the words of a text.
    pub(crate) fn word<'a>(&mut self, words: &'a str) -> &'a str {
        let count = words.split_whitespace().count();
        let mut words = words.split_whitespace();
        words.nth(self.below(count)).expect("fewer than there are")
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next() as u8
    }
}
