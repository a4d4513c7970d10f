//! Runs an operation and the loads that it asks for, in turns, in one task.
//!
//! The operation runs until it can go no further; by then every field that can ask for something has asked. Only then the
//! loads begin, each with all keys that were asked for: no time is spent on waiting for more of them, and how many
//! statements an operation takes does not depend on how fast it runs. What ends the operation ends its loads.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_graphql::runtime::Timer;
use futures::future::{BoxFuture, poll_fn, ready};
use futures::stream::FuturesUnordered;
use futures::task::{AtomicWaker, FutureObj, Spawn, SpawnError};
use futures::{FutureExt as _, Stream, StreamExt as _};
use parking_lot::Mutex;

/// Turns of one poll: an operation that wakes itself again and again does not keep its thread.
const MAX_TURNS: usize = 32;

type Load = FutureObj<'static, ()>;

/// Loads that an operation has asked for and that have not begun.
#[derive(Clone, Default)]
pub struct Loads(Arc<Mutex<Vec<Load>>>);

impl Spawn for Loads {
    fn spawn_obj(&self, load: Load) -> Result<(), SpawnError> {
        self.0.lock().push(load);
        Ok(())
    }
}

/// Whoever spawns into [`Loads`] need not wait for others to ask.
pub struct AtOnce;

impl Timer for AtOnce {
    fn delay(&self, _: Duration) -> BoxFuture<'static, ()> {
        ready(()).boxed()
    }
}

/// Wakes the task, and tells whether it was the operation that was woken.
#[derive(Default)]
struct Woken {
    operation: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.operation.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// An operation's loads and their progress.
pub struct Turns {
    asked: Loads,
    running: FuturesUnordered<Load>,
    woken: Arc<Woken>,
    waker: Waker,
}

impl Turns {
    pub fn new(asked: Loads) -> Self {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        Self { asked, running: FuturesUnordered::new(), woken, waker }
    }

    /// Runs an operation to its end.
    pub async fn run<T>(mut self, operation: impl Future<Output = T>) -> T {
        let mut operation = pin!(operation);
        poll_fn(|task| self.poll(task, |context| operation.as_mut().poll(context))).await
    }

    /// Runs each step of a stream.
    pub fn stream<T>(mut self, mut steps: impl Stream<Item = T> + Unpin) -> impl Stream<Item = T> {
        futures::stream::poll_fn(move |task| self.poll(task, |context| steps.poll_next_unpin(context)))
    }

    fn poll<T>(&mut self, task: &mut Context<'_>, mut operation: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.woken.task.register(task.waker());
        for _ in 0..MAX_TURNS {
            self.woken.operation.store(false, Ordering::Release);
            if let Poll::Ready(done) = operation(&mut Context::from_waker(&self.waker)) {
                return Poll::Ready(done);
            }
            if self.woken.operation.load(Ordering::Acquire) {
                continue;
            }
            self.running.extend(std::mem::take(&mut *self.asked.0.lock()));
            while let Poll::Ready(Some(())) = self.running.poll_next_unpin(task) {}
            if !self.woken.operation.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use async_graphql::dataloader::{DataLoader, Loader};
    use futures::future::join_all;
    use tokio::task::yield_now;

    use super::*;

    /// Writes down how many keys each load has, and takes some time.
    #[derive(Default)]
    struct Sizes(Arc<Mutex<Vec<usize>>>);

    impl Loader<usize> for Sizes {
        type Value = usize;
        type Error = Infallible;

        async fn load(&self, keys: &[usize]) -> Result<HashMap<usize, usize>, Infallible> {
            self.0.lock().push(keys.len());
            yield_now().await;
            Ok(keys.iter().map(|key| (*key, key + 1000)).collect())
        }
    }

    #[tokio::test]
    async fn what_is_asked_side_by_side_is_loaded_together_at_every_level() {
        let sizes = Sizes::default();
        let seen = Arc::clone(&sizes.0);
        let loads = Loads::default();
        let loader = DataLoader::new(sizes, loads.clone(), AtOnce);
        let loader = &loader;
        // as a list of the library runs its items, with another list in each
        let items = join_all((0..100).map(|outer| async move {
            let found = loader.load_one(outer).await.unwrap().unwrap();
            let inner = (0..40).map(|inner| async move {
                yield_now().await;
                loader.load_one(found * 1000 + inner).await.unwrap()
            });
            join_all(inner).await.len()
        }));
        let lengths = Turns::new(loads).run(items).await;
        assert_eq!((lengths.len(), lengths[99]), (100, 40));
        assert_eq!(seen.lock().iter().sum::<usize>(), 4100);
        assert_eq!(seen.lock()[0], 100);
    }

    #[tokio::test]
    async fn an_operation_that_wakes_itself_for_ever_lets_others_run() {
        let turning = Turns::new(Loads::default()).run(poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        let other = async {
            for _ in 0..10 {
                yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = turning => unreachable!(),
            () = other => {}
        }
    }
}
