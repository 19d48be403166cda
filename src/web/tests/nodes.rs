//! Several nodes of a cluster in one process, each with a queue in memory and a server of its own.

use std::sync::Arc;
use std::time::Duration;

use actix_web::App;
use actix_web::dev::ServerHandle;
use awc::{Client, ClientResponse};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::cluster::handle::ClusterHandle;
use crate::cluster::message::Process;
use crate::queue::Queue;
use crate::queue::builder::QueueBuilder;
use crate::web::http_server::http_server;
use crate::web::options::WebBuilder;
use crate::web::relay::node::Relay;
use crate::web::state::Web;

/// A node.
pub struct Node {
    pub web: Web,
    pub cluster: Arc<ClusterHandle>,
    pub url: String,
    pub server: ServerHandle,
}

/// These nodes, of which each hears all others for as long as this is there.
pub struct Nodes {
    pub all: Vec<Node>,
    beating: actix_web::rt::task::JoinHandle<()>,
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

impl Nodes {
    /// As many, each with the queue that `queue` makes of its number.
    pub async fn start(
        nats: &str,
        count: usize,
        queue: impl Fn(usize) -> QueueBuilder,
        web: impl Fn(WebBuilder) -> WebBuilder,
    ) -> Nodes {
        let mut all = Vec::new();
        for n in 0..count {
            let client = async_nats::connect(nats).await.expect("it connects");
            // A name that would be no part of a subject.
            let process = Process { node: format!("node {n}.*>").into(), boot: 1 };
            let cluster = Arc::new(ClusterHandle::new(client, "test".into(), process));
            let queue: Queue = queue(n).start().expect("it starts");
            assert!(queue.inner().extensions.insert(cluster.clone()));
            all.push(Node::serve(web(Web::builder(&queue)).start().expect("it starts"), cluster));
        }
        let clusters: Vec<_> = all.iter().map(|node| node.cluster.clone()).collect();
        let beating = actix_web::rt::spawn(async move {
            loop {
                for hears in &clusters {
                    clusters.iter().for_each(|heard| hears.hear(&heard.process));
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        let nodes = Nodes { all, beating };
        // Their beats have been heard, and they listen.
        for node in &nodes.all {
            node.listens().await;
        }
        nodes
    }

    /// A node is dead, and all others know.
    pub async fn kill(&mut self, n: usize) {
        let node = self.all.remove(n);
        let Process { node: name, boot } = node.cluster.process.clone();
        for other in &self.all {
            other.cluster.hear(&Process { node: name.clone(), boot: boot + 1 });
        }
        node.relay().tunnel.break_all();
        node.server.stop(false).await;
        node.cluster.client.drain().await.expect("it ends");
    }
}

impl Node {
    pub fn serve(web: Web, cluster: Arc<ClusterHandle>) -> Node {
        let routes = web.clone();
        let server = http_server(move || App::new().configure(routes.routes()))
            .workers(1)
            .bind(("127.0.0.1", 0))
            .expect("a port is free");
        let url = format!("http://{}/gradio_api", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Node { web, cluster, url, server: handle }
    }

    pub fn relay(&self) -> &Relay {
        self.web.0.relay.get().expect("it is one of a cluster")
    }

    pub async fn listens(&self) {
        let subject = crate::cluster::tunnel::test_subject_of(&self.cluster);
        // Whoever listens answers nothing.
        let ask = || {
            let request = async_nats::Request::new().timeout(Some(Duration::from_millis(50)));
            self.cluster.client.send_request(subject.clone(), request)
        };
        while ask()
            .await
            .is_err_and(|error| error.kind() == async_nats::client::RequestErrorKind::NoResponders)
        {
            tokio::task::yield_now().await;
        }
    }

    pub async fn get(&self, path: &str, accept: &str) -> ClientResponse {
        let client = Client::builder().timeout(Duration::from_secs(60)).finish();
        let request = client.get(format!("{}/{path}", self.url)).insert_header(("accept", accept));
        request.send().await.expect("it answers").map_body(|_, body| body)
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let client = Client::builder().timeout(Duration::from_secs(60)).finish();
        let request = client.post(format!("{}/{path}", self.url));
        let mut answer = request.send_json(body).await.expect("it answers");
        let status = answer.status().as_u16();
        (status, answer.json().limit(64 << 20).await.expect("it is JSON"))
    }

    pub async fn join(&self, fn_index: usize, hash: &str, data: Value) -> String {
        let body = json!({ "fn_index": fn_index, "session_hash": hash, "data": data });
        let (status, answer) = self.post("queue/join", &body).await;
        assert_eq!(status, 200, "{answer}");
        answer["event_id"].as_str().expect("it has one").to_string()
    }

    pub async fn stream(&self, hash: &str, accept: &str) -> Stream {
        let query = serde_urlencoded(hash);
        let response = self.get(&format!("queue/data?session_hash={query}"), accept).await;
        assert_eq!(response.status(), 200);
        Stream { response, held: Vec::new() }
    }
}

pub fn serde_urlencoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A stream's messages.
pub struct Stream {
    response: ClientResponse,
    held: Vec<u8>,
}

/// One message: its number and its data.
#[derive(Debug, PartialEq)]
pub struct Message {
    pub number: Option<u64>,
    pub data: Value,
}

impl Message {
    pub fn kind(&self) -> &str {
        self.data["msg"].as_str().unwrap_or_default()
    }
}

impl Stream {
    /// The next message; none at the end.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(end) = self.held.windows(2).position(|pair| pair == b"\n\n") {
                let message: Vec<u8> = self.held.drain(..end + 2).collect();
                let text = String::from_utf8(message).expect("it is text");
                let line = |begin: &str| text.lines().find_map(|line| line.strip_prefix(begin));
                let number = line("id: ").map(|number| number.parse().expect("it is one"));
                let data = line("data: ").expect("it has data");
                let data = serde_json::from_str(data).expect("it is JSON");
                return Some(Message { number, data });
            }
            let chunk = self.response.next().await?;
            self.held.extend_from_slice(&chunk.expect("it doesn't break off"));
        }
    }

    /// The next message of this kind.
    pub async fn next_of(&mut self, kind: &str) -> Message {
        loop {
            let message = self.next().await.expect("it goes on");
            if message.kind() == kind {
                return message;
            }
        }
    }
}
