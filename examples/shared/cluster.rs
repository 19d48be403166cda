//! The options of an example that can be one of several nodes.

use std::path::PathBuf;

use now_serving::QueueBuilder;

use super::address::{ValueOption, Values};

pub const NATS: ValueOption = ValueOption {
    name: "nats",
    value: "URL[,URL…]",
    help: "Is one of several nodes, which have one queue on these NATS servers. Needs the feature cluster.",
};

pub const NODE: ValueOption =
    ValueOption { name: "node", value: "NODE", help: "The name of this node, with --nats." };

pub const NAME: ValueOption = ValueOption {
    name: "name",
    value: "NAME",
    help: "The name of the cluster, with --nats; by default that of the example.",
};

pub const FILES: ValueOption = ValueOption {
    name: "files",
    value: "DIR",
    help: "A directory that all nodes share, with --nats; by default one of the cluster's name among the \
           temporary files.",
};

/// Whether this is one of several nodes.
pub fn is_node(values: &Values) -> bool {
    values.contains_key(NATS.name)
}

/// Where the nodes of a cluster of this name have their files.
pub fn files(values: &Values, name: &str) -> PathBuf {
    let own = || std::env::temp_dir().join(format!("now-serving-{name}-files"));
    values.get(FILES.name).map(PathBuf::from).unwrap_or_else(own)
}

/// Joins the cluster. The queue is of `name`, unless another one is given.
#[cfg(feature = "cluster")]
pub async fn join(
    queue: QueueBuilder,
    values: &Values,
    name: &str,
) -> std::io::Result<QueueBuilder> {
    let Some(nats) = values.get(NATS.name) else { return Ok(queue) };
    let node = values.get(NODE.name);
    let node = node.ok_or_else(|| std::io::Error::other("--nats needs a --node as well"))?;
    let nats = now_serving::Nats::connect(nats.as_str()).name(name);
    let cluster = nats.join(node.as_str()).await.map_err(std::io::Error::other)?;
    Ok(queue.cluster(cluster).cache_dir(files(values, name)))
}

#[cfg(not(feature = "cluster"))]
pub async fn join(queue: QueueBuilder, values: &Values, _: &str) -> std::io::Result<QueueBuilder> {
    match is_node(values) {
        true => Err(std::io::Error::other("--nats needs the feature cluster")),
        false => Ok(queue),
    }
}
