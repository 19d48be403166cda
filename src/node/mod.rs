//! This process as a node of a cluster: its queue's listeners forward events to one line, which one of the nodes
//! keeps, and its supervisors run what that one places here.
//!
//! An **agent**, on a thread of its own that no handler can block, does all that is said between nodes:
//! the [front](front) has the events that were submitted here, [runs](runs) has what runs here, and the
//! [office](office), on the node that keeps the line, has a queue of its own whose handlers
//! ([proxy](proxy)) run their events on some node. Who may run what, and for how long, the machines in
//! [`cluster`](crate::cluster) say.

mod admitting;
mod agent;
mod answers;
mod bring;
mod census;
mod deliver;
mod followed;
mod follows;
mod forwarder;
mod frame;
mod front;
mod granting;
mod input;
mod join;
mod keeping;
mod office;
mod out;
mod parts;
mod permits;
mod placing;
mod post;
mod proxy;
mod refused;
mod runs;
mod sessions;
mod starting;
mod tracked;
mod wire;

pub use self::join::Cluster;
