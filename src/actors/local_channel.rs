//! A channel between actors of one thread: no atomics, no envelope, nothing allocated for a value.
//!
//! Between a supervisor and its workers goes a command and a report for each run, so that the cost of
//! a message there is a good part of the cost of an event.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

struct Shared<T> {
    values: VecDeque<T>,
    waker: Option<Waker>,
    /// The receiver has found nothing, and is to be woken.
    waits: bool,
    /// The receiver is alive.
    open: bool,
}

pub(super) fn local_channel<T>() -> (LocalSender<T>, LocalReceiver<T>) {
    let shared = Shared { values: VecDeque::new(), waker: None, waits: false, open: true };
    let shared = Rc::new(RefCell::new(shared));
    (LocalSender(shared.clone()), LocalReceiver(shared))
}

pub(super) struct LocalSender<T>(Rc<RefCell<Shared<T>>>);

impl<T> LocalSender<T> {
    /// Gives the value back when there is no receiver any more.
    pub fn send(&self, value: T) -> Result<(), T> {
        let shared = &mut *self.0.borrow_mut();
        if !shared.open {
            return Err(value);
        }
        shared.values.push_back(value);
        shared.wake();
        Ok(())
    }
}

impl<T> Shared<T> {
    fn wake(&mut self) {
        if std::mem::take(&mut self.waits)
            && let Some(waker) = &self.waker
        {
            // Only marks the receiver's task as runnable: nothing of it runs under the borrow.
            waker.wake_by_ref();
        }
    }
}

impl<T> Clone for LocalSender<T> {
    fn clone(&self) -> Self {
        LocalSender(self.0.clone())
    }
}

impl<T> Drop for LocalSender<T> {
    fn drop(&mut self) {
        self.0.borrow_mut().wake();
    }
}

pub(super) struct LocalReceiver<T>(Rc<RefCell<Shared<T>>>);

impl<T> LocalReceiver<T> {
    pub fn try_recv(&self) -> Option<T> {
        self.0.borrow_mut().values.pop_front()
    }

    /// `None` when the channel is empty and no sender is left.
    pub fn poll_recv(&self, task: &mut Context<'_>) -> Poll<Option<T>> {
        let shared = &mut *self.0.borrow_mut();
        if let Some(value) = shared.values.pop_front() {
            return Poll::Ready(Some(value));
        }
        if Rc::strong_count(&self.0) == 1 {
            return Poll::Ready(None);
        }
        shared.waits = true;
        match &mut shared.waker {
            Some(waker) => waker.clone_from(task.waker()),
            none => *none = Some(task.waker().clone()),
        }
        Poll::Pending
    }
}

impl<T> Drop for LocalReceiver<T> {
    fn drop(&mut self) {
        let values = {
            let mut shared = self.0.borrow_mut();
            shared.open = false;
            shared.waker = None;
            std::mem::take(&mut shared.values)
        };
        // What they hold may send in turn.
        drop(values);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn polled<T>(receiver: &LocalReceiver<T>, wakes: &Arc<Wakes>) -> Poll<Option<T>> {
        receiver.poll_recv(&mut Context::from_waker(&wakes.clone().into()))
    }

    #[test]
    fn a_receiver_that_waits_is_woken_once() {
        let wakes = Arc::new(Wakes::default());
        let (sender, receiver) = local_channel();
        assert_eq!(polled(&receiver, &wakes), Poll::Pending);
        assert_eq!((sender.send(1), sender.send(2)), (Ok(()), Ok(())));
        assert_eq!(wakes.0.load(SeqCst), 1);
        assert_eq!((receiver.try_recv(), receiver.try_recv()), (Some(1), Some(2)));
        assert_eq!(receiver.try_recv(), None);
        assert_eq!(polled(&receiver, &wakes), Poll::Pending);
        drop(sender);
        assert_eq!(wakes.0.load(SeqCst), 2);
        assert_eq!(polled(&receiver, &wakes), Poll::Ready(None));
    }

    #[test]
    fn what_is_sent_before_the_last_sender_goes_arrives() {
        let wakes = Arc::new(Wakes::default());
        let (sender, receiver) = local_channel();
        assert_eq!(sender.clone().send(1), Ok(()));
        drop(sender);
        assert_eq!(polled(&receiver, &wakes), Poll::Ready(Some(1)));
        assert_eq!(polled(&receiver, &wakes), Poll::Ready(None));
    }

    #[test]
    fn without_a_receiver_a_value_comes_back() {
        let (sender, receiver) = local_channel();
        drop(receiver);
        assert_eq!(sender.send(1), Err(1));
    }

    /// A value whose drop sends, as that of a worker's hold does.
    #[test]
    fn a_value_that_sends_when_dropped_does_no_harm() {
        struct Sends(LocalSender<Option<Sends>>);
        impl Drop for Sends {
            fn drop(&mut self) {
                let _ = self.0.send(None);
            }
        }
        let (sender, receiver) = local_channel();
        assert!(sender.send(Some(Sends(sender.clone()))).is_ok());
        drop(receiver);
        assert!(sender.send(None).is_err());
    }
}
