//! How fast a client must send: a body that stops, or trickles, is given up.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::error::PayloadError;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a body may stand still.
const IDLE: Duration = Duration::from_secs(10);

/// What a body must bring on average after the first [`IDLE`], in bytes a second. 128 kbit/s.
const RATE: u64 = 16 * 1024;

/// A body with a deadline that moves with what has come.
pub(crate) struct Paced<S> {
    body: S,
    began: Instant,
    last: Instant,
    received: u64,
    /// It wasn't there when it was asked for.
    awaited: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Whether a body was given up because it came too slowly.
pub(crate) fn is_too_slow(error: &PayloadError) -> bool {
    matches!(error, PayloadError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut)
}

impl<S> Paced<S> {
    pub fn new(body: S) -> Self {
        let now = Instant::now();
        Paced { body, began: now, last: now, received: 0, awaited: false, timer: None }
    }

    fn deadline(&self) -> Instant {
        let earned = Duration::from_secs_f64(self.received as f64 / RATE as f64);
        (self.last + IDLE).min(self.began + IDLE + earned)
    }
}

impl<S> Stream for Paced<S>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // First, so that a reader of ours that was slow isn't the client's fault.
        if let Poll::Ready(polled) = self.body.poll_next_unpin(cx) {
            if let Some(Ok(chunk)) = &polled {
                self.received += chunk.len() as u64;
                self.last = Instant::now();
            }
            return Poll::Ready(polled);
        }
        if !std::mem::replace(&mut self.awaited, true) {
            // A server hands a request over before it looks for the body that came with its head. So
            // most are there at the next poll, and need no timer.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let deadline = self.deadline();
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // Set anew only when it fires: what comes comes long before.
        while timer.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                let slow = std::io::Error::new(std::io::ErrorKind::TimedOut, "it came too slowly");
                return Poll::Ready(Some(Err(PayloadError::Io(slow))));
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    /// When a body is given up that sends chunks of a size with pauses between; `None` when it is
    /// read to its end.
    async fn given_up(chunks: usize, bytes: usize, pause: Duration) -> Option<Duration> {
        let began = Instant::now();
        let body = stream::iter(0..chunks).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok(Bytes::from(vec![0; bytes]))
        });
        let mut body = Paced::new(body.boxed_local());
        loop {
            match body.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    assert!(is_too_slow(&error));
                    return Some(began.elapsed());
                }
                None => return None,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_slow_but_not_stand_still() {
        let seconds = Duration::from_secs;
        // Nothing at all; then a mean of just enough; then a trickle.
        assert_eq!(given_up(1, 1, seconds(3600)).await, Some(IDLE));
        assert_eq!(given_up(1000, 5 * RATE as usize, seconds(5)).await, None);
        let trickle = given_up(1000, 1, seconds(1)).await.unwrap();
        assert!(trickle >= IDLE && trickle < IDLE + seconds(1), "{trickle:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_fast_earns_no_long_pause() {
        let body = stream::iter([Ok(Bytes::from(vec![0; 16 << 20]))]).chain(stream::pending());
        let (began, mut body) = (Instant::now(), Paced::new(body));
        assert!(body.next().await.unwrap().is_ok());
        assert!(is_too_slow(&body.next().await.unwrap().unwrap_err()));
        assert_eq!(began.elapsed(), IDLE);
    }
}
