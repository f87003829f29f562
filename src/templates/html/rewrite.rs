//! A source with insertions, which still knows where each of its characters came from.

use std::ops::Range;

/// From offsets in the rewritten source back to the original.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceMap(Vec<(usize, usize)>);

impl SourceMap {
    pub(crate) fn original(&self, offset: usize) -> usize {
        let piece = self.0.partition_point(|&(start, _)| start <= offset).checked_sub(1);
        piece.map_or(0, |piece| self.0[piece].1 + (offset - self.0[piece].0))
    }
}

/// Writes a new source out of pieces of an old one.
#[derive(Default)]
pub(super) struct Rewriter {
    text: String,
    map: SourceMap,
}

impl Rewriter {
    pub(super) fn copy(&mut self, source: &str, range: Range<usize>) {
        self.map.0.push((self.text.len(), range.start));
        self.text.push_str(&source[range]);
    }

    pub(super) fn insert(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(super) fn finish(self) -> (String, SourceMap) {
        (self.text, self.map)
    }
}
