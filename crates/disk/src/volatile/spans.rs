//! A set of numbers as spans that neither overlap nor touch.
//!
//! It must not know what is numbered.

use std::collections::BTreeMap;
use std::ops::Range;

/// First number and end of each span.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spans(BTreeMap<u64, u64>);

impl Spans {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a span, which may be empty.
    pub(super) fn add(&mut self, span: Range<u64>) {
        let Range { mut start, mut end } = span;
        if start >= end {
            return;
        }
        // Those that overlap or touch begin at or before `end`, the last of them first.
        while let Some((&from, &to)) = self.0.range(..=end).next_back().filter(|s| *s.1 >= start) {
            self.0.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.0.insert(start, end);
    }

    /// The end of the span that `number` is in.
    pub(super) fn end_of(&self, number: u64) -> Option<u64> {
        let (_, &end) = self.0.range(..=number).next_back()?;
        (number < end).then_some(end)
    }

    /// The first number at or after `number` that begins a span.
    pub(super) fn next_start(&self, number: u64) -> Option<u64> {
        self.0.range(number..).next().map(|(&start, _)| start)
    }

    /// The spans, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(&start, &end)| start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_meet_are_one() {
        let mut spans = Spans::default();
        for span in [10..20, 30..40, 50..50, 20..25] {
            spans.add(span);
        }
        assert_eq!(spans.iter().collect::<Vec<_>>(), [10..25, 30..40]);
        assert_eq!((spans.end_of(9), spans.end_of(10)), (None, Some(25)));
        assert_eq!((spans.end_of(24), spans.end_of(25)), (Some(25), None));
        assert_eq!(
            (spans.next_start(10), spans.next_start(11)),
            (Some(10), Some(30))
        );
        spans.add(0..100);
        assert!(spans.iter().eq(std::iter::once(0..100)));
    }
}
