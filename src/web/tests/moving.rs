//! Sessions whose home moves from node to node, as where each was cut off in turn.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use super::nodes::{Node, Stream};
use crate::cluster::handle::ClusterHandle;
use crate::cluster::homes::HomeKey;
use crate::journal::jetstream::Nats;
use crate::journal::tests::nats_server::Servers;
use crate::queue::Queue;
use crate::queue::listener::Listener;
use crate::testing::Turnstile;
use crate::web::state::Web;

/// One that shares its line with the others.
async fn node(servers: &Servers, name: &str, turnstile: &Turnstile) -> Node {
    let cluster = Nats::connect(servers.url()).name("test").join(name).await.expect("it joins");
    let work = Listener::new("work", turnstile.handler()).concurrency_limit(10).durable();
    let queue = Queue::builder().cluster(cluster).listener(work).start().expect("it starts");
    let cluster = queue.inner().extensions.get::<Arc<ClusterHandle>>().expect("it has one").clone();
    let node = Node::serve(Web::builder(&queue).start().expect("it starts"), cluster);
    node.listens().await;
    node
}

/// The home of the session is this node from now on, as all know.
async fn move_to(node: &Node, others: &[&Node]) {
    let key = HomeKey::of_session(None, "s");
    node.relay().homes.take(key).await.expect("it is there");
    others.iter().for_each(|other| other.relay().homes.forget(key));
}

/// The events whose ends come on a stream, until there are so many.
async fn ends(stream: &mut Stream, count: usize) -> BTreeSet<String> {
    let mut ends = BTreeSet::new();
    while ends.len() < count {
        let end = stream.next_of("process_completed").await;
        ends.insert(end.data["event_id"].as_str().expect("it has one").to_string());
    }
    ends
}

/// A node that becomes the home finds what the session has elsewhere, also where it has a session of that name
/// already: since a request has begun it there, or since it was its home before.
#[actix::test]
async fn a_session_has_all_its_events_wherever_its_home_moves() {
    let Some(servers) = Servers::start(1) else { return };
    let turnstile = Turnstile::new();
    let (a, b) = futures::join!(node(&servers, "a", &turnstile), node(&servers, "b", &turnstile));
    let mut events = BTreeSet::from([a.join(0, "s", json!([1])).await]);
    move_to(&b, &[&a]).await;
    events.insert(b.join(0, "s", json!([2])).await);
    turnstile.arrived(2).await;
    let mut stream = b.stream("s", "text/event-stream").await;
    assert_eq!(under_way(&b), events);
    move_to(&a, &[&b]).await;
    events.insert(a.join(0, "s", json!([3])).await);
    turnstile.arrived(3).await;
    let mut other = a.stream("s", "text/event-stream").await;
    turnstile.open();
    assert_eq!(ends(&mut other, 3).await, events);
    assert_eq!(ends(&mut stream, 2).await.len(), 2);
}

/// Whoever asks for an event by its id follows it as well, and takes it from nobody.
#[actix::test]
async fn an_event_of_a_session_is_followed_by_its_id_as_well() {
    let Some(servers) = Servers::start(1) else { return };
    let turnstile = Turnstile::new();
    let a = node(&servers, "a", &turnstile).await;
    let event = a.join(0, "s", json!([1])).await;
    let mut stream = a.stream("s", "text/event-stream").await;
    turnstile.arrived(1).await;
    let mut call = a.get(&format!("call/work/{event}"), "*/*").await;
    assert!(call.status().is_success());
    turnstile.open();
    assert_eq!(ends(&mut stream, 1).await, BTreeSet::from([event]));
    stream.next_of("close_stream").await;
    let text = call.body().await.expect("it ends");
    assert_eq!(text, &b"event: complete\ndata: [1]\n\n"[..]);
}

fn under_way(node: &Node) -> BTreeSet<String> {
    let session = node.web.0.sessions.find(&Default::default(), "s").expect("it is there");
    session.under_way().iter().map(|event| event.to_string()).collect()
}
