//! Loops of a handler whose progress its client sees.

use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, ready};

use futures::Stream;

use super::context::EventContext;
use crate::event::update::ProgressUnit;

impl EventContext {
    /// Wraps an iterator so that each item reports to the client how many are done, and of how many
    /// where the iterator knows. Loops may be nested: clients see one bar for each.
    ///
    /// ```
    /// use now_serving::EventContext;
    ///
    /// async fn paint(layers: u32, context: EventContext) -> Result<u32, String> {
    ///     for layer in context.track(0..layers, "layers").desc("painting") {
    ///         // … the work
    /// #       let _ = layer;
    ///     }
    ///     Ok(layers)
    /// }
    /// # let _ = now_serving::Listener::new("paint", paint);
    /// ```
    pub fn track<I: IntoIterator>(
        &self,
        items: I,
        unit: impl Into<String>,
    ) -> Tracked<I::IntoIter> {
        let items = items.into_iter();
        let length = length(items.size_hint());
        Tracked::new(items, length, unit.into(), self)
    }

    /// As [`EventContext::track`], for a stream: an item counts as done when the next one is
    /// polled.
    ///
    /// ```
    /// use futures::{Stream, StreamExt};
    /// use now_serving::EventContext;
    ///
    /// async fn total(numbers: Vec<u32>, context: EventContext) -> Result<u32, String> {
    ///     let numbers = futures::stream::iter(numbers);
    ///     let mut numbers = context.track_stream(numbers, "numbers").desc("adding");
    ///     let mut total = 0;
    ///     while let Some(number) = numbers.next().await {
    ///         total += number;
    ///     }
    ///     Ok(total)
    /// }
    /// # let _ = now_serving::Listener::new("total", total);
    /// ```
    pub fn track_stream<S: Stream>(
        &self,
        items: S,
        unit: impl Into<String>,
    ) -> Tracked<Pin<Box<S>>> {
        let length = length(items.size_hint());
        Tracked::new(Box::pin(items), length, unit.into(), self)
    }
}

/// How many items there will be, where that is certain.
fn length((lower, upper): (usize, Option<usize>)) -> Option<u64> {
    upper.filter(|&upper| upper == lower).map(|length| length as u64)
}

/// An iterator or a stream that reports its progress, from [`EventContext::track`] and
/// [`EventContext::track_stream`].
#[derive(Debug)]
pub struct Tracked<I> {
    items: I,
    context: EventContext,
    depth: usize,
    started: bool,
}

impl<I> Tracked<I> {
    fn new(items: I, length: Option<u64>, unit: String, context: &EventContext) -> Self {
        let mut loops = context.0.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let depth = loops.len();
        let unit = Some(unit);
        loops.push(ProgressUnit { index: Some(0), length, unit, ..ProgressUnit::default() });
        drop(loops);
        Tracked { items, context: context.clone(), depth, started: false }
    }

    /// Describes what is being done, beside the count.
    pub fn desc(self, desc: impl Into<String>) -> Self {
        let mut loops = self.context.0.loops.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unit) = loops.get_mut(self.depth) {
            unit.desc = Some(desc.into());
        }
        drop(loops);
        self
    }

    /// Another item is there, or none any more. Taking it meant that the last one was done.
    fn report(&mut self, ended: bool) {
        let mut loops = self.context.0.loops.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unit) = loops.get_mut(self.depth)
            && self.started
        {
            unit.index = unit.index.map(|index| index + 1);
        }
        self.started = !ended;
        // The outermost loop is the whole.
        if let Some(ProgressUnit { index: Some(index), length: Some(length), .. }) = loops.first() {
            self.context.0.reporter.report(*index as f64 / (*length).max(1) as f64);
        }
        let units = match self.context.0.updates.is_empty() {
            true => Vec::new(),
            false => loops.clone(),
        };
        drop(loops);
        self.context.send_progress(|| units);
    }
}

impl<I: Iterator> Iterator for Tracked<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let item = self.items.next();
        self.report(item.is_none());
        item
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

impl<S: Stream + Unpin> Stream for Tracked<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let item = ready!(Pin::new(&mut self.items).poll_next(cx));
        self.report(item.is_none());
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

impl<I> Drop for Tracked<I> {
    fn drop(&mut self) {
        let mut loops = self.context.0.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops.truncate(self.depth);
    }
}
