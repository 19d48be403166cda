//! A handler that keeps its thread to itself is named, and harms only those on its thread.

use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use now_serving::{Listener, Queue};

/// Every warning of this process.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Ear;

impl Log for Ear {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.level() <= log::Level::Warn {
            WARNINGS.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn warned_of(listener: &str) -> usize {
    let warnings = WARNINGS.lock().unwrap();
    warnings.iter().filter(|warning| warning.starts_with(&format!("{listener}: "))).count()
}

#[actix::test]
async fn it_is_named_once_and_others_go_on() {
    log::set_logger(&Ear).unwrap();
    log::set_max_level(LevelFilter::Warn);
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Arc::new(Mutex::new(held));
    let stuck = move |(): ()| {
        let held = held.clone();
        async move {
            // As an endless loop would, but one that the test can end.
            let _ = held.lock().unwrap().recv();
            Ok::<_, String>(())
        }
    };
    let echo = async |x: u32| Ok::<_, String>(x);
    let queue = Queue::builder()
        .arbiters(1)
        .watchdog(Duration::from_millis(20))
        .listener(Listener::new("echo", echo))
        .listener(Listener::new("spread", stuck.clone()).spread())
        .listener(Listener::new("stuck", stuck).own_arbiter())
        .start()
        .unwrap();
    let running = queue.submit("stuck", ()).await.unwrap();
    let spread = queue.submit("spread", ()).await.unwrap();
    while warned_of("stuck") == 0 || warned_of("spread") == 0 {
        // On another thread, nothing is delayed.
        assert_eq!(queue.call("echo", 7u32).await, Ok(7u32));
    }
    // A snapshot isn't delayed either.
    let snapshot = queue.snapshot().await;
    assert!(
        snapshot.concurrency_id("echo").is_some() && snapshot.concurrency_id("stuck").is_none()
    );
    // One that is spread answers, whatever its handlers do.
    assert!(snapshot.concurrency_id("spread").is_some());
    release.send(()).unwrap();
    release.send(()).unwrap();
    assert_eq!(running.result().await, Ok(()));
    assert_eq!(spread.result().await, Ok(()));
    assert_eq!((warned_of("stuck"), warned_of("spread"), warned_of("echo")), (1, 1, 0));
    assert!(queue.snapshot().await.concurrency_id("stuck").is_some());
}
