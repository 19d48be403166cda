//! `start()` refuses contradictions, and names the listener.

use now_serving::{Listener, Queue, QueueBuilder, Slot, StartError, State, Validation};

async fn echo(input: u32) -> Result<u32, String> {
    Ok(input)
}

async fn on_slot(input: u32, _slot: Slot<String>) -> Result<u32, String> {
    Ok(input)
}

async fn remember(inputs: Vec<u32>, _kept: State<u32>) -> Result<Vec<u32>, String> {
    Ok(inputs)
}

fn listener() -> Listener<u32, u32> {
    Listener::new("paint", echo)
}

fn refused(builder: QueueBuilder) -> String {
    builder.start().map(|_| ()).expect_err("it must be refused").to_string()
}

#[actix::test]
async fn contradictions_are_refused_by_name() {
    let builder = Queue::builder;
    for (builder, expected) in [
        (builder().listener(listener()).listener(listener()), "two listeners are named \"paint\""),
        (
            builder().listener(listener().concurrency_limit(0)),
            "listener \"paint\" has a concurrency limit of 0",
        ),
        (
            builder().listener(listener().concurrency_id("")),
            "listener \"paint\" names an empty concurrency id",
        ),
        (builder().listener(listener().max_size(0)), "listener \"paint\" has a max_size of 0"),
        (
            builder().listener(listener().queue(false).concurrency_limit(2)),
            "listener \"paint\" has queue(false), but also concurrency_limit",
        ),
        (
            builder()
                .listener(listener().queue(false))
                .listener(Listener::new("draw", echo).concurrency_id("paint")),
            "listener \"paint\" has queue(false), but also others on its concurrency id",
        ),
        (
            builder().listener(Listener::batch("paint", remember)),
            "listener \"paint\" takes batches and State",
        ),
        (
            builder().listener(listener().validator(|_: &String| Validation::new())),
            "listener \"paint\" takes u32, but its validator looks at alloc::string::String",
        ),
        (builder().max_size(0), "the queue has a max_size of 0"),
        (
            builder().default_concurrency_limit(0),
            "default_concurrency_limit has a concurrency limit of 0",
        ),
        (builder().concurrency_id("id", 0), "concurrency id \"id\" has a concurrency limit of 0"),
        (builder().concurrency_id("", 1), "names an empty concurrency id"),
        (builder().listener(Listener::new("", echo)), "listener \"\" has no usable name"),
        (builder().listener(Listener::new("a/b", echo)), "listener \"a/b\" has no usable name"),
        (builder().listener(Listener::new("..", echo)), "listener \"..\" has no usable name"),
        (
            builder().listener(listener().max_batch_size(2)),
            "listener \"paint\" sets max_batch_size, but takes no batches",
        ),
        (
            builder().listener(
                Listener::batch("paint", async |all: Vec<u32>| Ok::<_, String>(all))
                    .max_batch_size(0),
            ),
            "listener \"paint\" has a max_batch_size of 0",
        ),
        (
            builder()
                .listener(listener().concurrency_id("gpu").concurrency_limit(None))
                .slots("gpu", async |slot| Ok::<_, String>(slot)),
            "but listener \"paint\" leaves it unlimited",
        ),
        (
            builder().listener(listener()).slots("gpu", async |slot| Ok::<_, String>(slot)),
            "slots() names concurrency id \"gpu\", which no listener uses",
        ),
        (
            builder().listener(Listener::new("paint", on_slot).concurrency_id("gpu")),
            "listener \"paint\" takes a Slot<alloc::string::String>, but concurrency id \"gpu\" builds none",
        ),
        (
            builder()
                .listener(Listener::new("paint", on_slot).concurrency_id("gpu"))
                .slots("gpu", async |slot| Ok::<_, String>(slot)),
            "but concurrency id \"gpu\" builds a usize",
        ),
    ] {
        let error = refused(builder);
        assert!(error.contains(expected), "{error}\ndoes not contain\n{expected}");
    }
}

#[test]
fn a_queue_needs_an_actix_system() {
    let started = Queue::builder().listener(listener()).start();
    assert_eq!(started.map(|_| ()).unwrap_err(), StartError::NoSystem);
}

#[actix::test]
async fn everything_can_run_on_the_callers_arbiter() {
    let here = std::thread::current().id();
    let whoami = move |(): ()| async move { Ok::<_, String>(std::thread::current().id() == here) };
    for (arbiters, expected) in [(0, true), (1, false)] {
        let queue = Queue::builder()
            .arbiters(arbiters)
            .listener(Listener::new("whoami", whoami))
            .start()
            .unwrap();
        assert_eq!(queue.call::<(), bool>("whoami", ()).await, Ok(expected));
    }
}

#[actix::test]
async fn a_concurrency_id_that_no_listener_has_is_a_slip() {
    let gpu = |builder: QueueBuilder| builder.listener(listener().concurrency_id("gpu"));
    let slip = refused(gpu(Queue::builder().concurrency_id("gppu", 2)));
    let expected = "concurrency_id() names concurrency id \"gppu\", which no listener uses; did you mean \"gpu\"?";
    assert!(slip.starts_with(expected), "{slip}");
    let other = refused(gpu(Queue::builder().concurrency_id("render", 2)));
    assert!(other.contains("check its spelling") && other.contains("permits()"), "{other}");
    let slots = refused(gpu(Queue::builder().slots("gup", |_| async { Ok::<_, String>(1) })));
    assert!(
        slots.ends_with(
            "slots() names concurrency id \"gup\", which no listener uses; did you mean \"gpu\"?"
        ),
        "{slots}"
    );
    // What is meant for permits alone says so, or stands in a queue for nothing else.
    let queue =
        gpu(Queue::builder().permits("render", 2).concurrency_id("gpu", 3)).start().unwrap();
    drop(queue.acquire("render").await.unwrap());
    let queue = Queue::builder().concurrency_id("render", 2).start().unwrap();
    drop(queue.acquire("render").await.unwrap());
    // A listener's own id has its name.
    Queue::builder().concurrency_id("paint", 2).listener(listener()).start().unwrap();
}
